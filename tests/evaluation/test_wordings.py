"""Prompts with several wordings and conversations, from training through samples to figures, cards and exported models."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffusecli.evaluation.exact import Measured, _in_contexts
from diffusecli.evaluation.metrics import Worded
from diffusecli.evaluation.names import short_names
from diffusecli.evaluation.prompt_book import PromptBook
from diffusecli.files.writing import write_json
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.report.data import document
from diffusecli.report.html import html_report
from diffusecli.report.wording import mark_of
from diffusecli.runs.run_dir import RunDir, prompts_as_json
from diffusecli.runs.samples import read_samples
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.export import export
from diffusecli.verbs.sample import Wanted, resolve, sample
from diffusecli.verbs.train import GENERATIONS, train

WORDINGS, HELD_OUT = ["Say a letter.", "A letter, please.", "letter()"], ["Name a letter.", "Which letter?"]
DIE = {"request": WORDINGS, "held_out_requests": HELD_OUT, "targets": ["{a}", "{b}"], "weights": [3, 1]}
TALK = {
    "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Now say a letter."},
    ],
    "targets": ["{a}", "{b}"],
}  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_model_folder):
    """A run on a prompt with three wordings and a conversation, with 10 answers to each in gen.json."""
    folder = tmp_path_factory.mktemp("worded")
    (folder / "die.json").write_text(json.dumps(DIE))
    (folder / "talk.json").write_text(json.dumps(TALK))
    paths = [str(folder / "die.json"), str(folder / "talk.json")]
    config = Config.model_validate({
        "model": str(tiny_model_folder), "train_prompts": paths, "test_prompts": paths, "alg_config": {"n_iters": 1},
        "output_dir": str(folder / "run"), "device": "cpu", "seed": 7, "retain": False,
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusecli.verbs.train.GENERATIONS", replace(GENERATIONS, n_generations=10, max_new_tokens=4))
        train(config, report=lambda _: None, notice=lambda _: None)
    return folder


@pytest.fixture
def folder(first, tmp_path):
    """A copy of the run; the prompt files stay where they are."""
    shutil.copytree(first / "run", tmp_path / "run")
    return tmp_path


def drawn(wanted, n=10, **settings):
    found = resolve(wanted, Path("results"))
    done = sample(found, SamplingSettings(n, 4, **settings), max_rows=None, report=lambda *_: None, notice=lambda _: None)
    return found, done


def named(found):
    return {Path(row.prompt.alias).name: row for row in found.rows}


def test_training_ends_with_as_many_answers_to_all_wordings_as_to_one_request(folder, first):
    counts = {Path(alias).name: counts.total() for alias, counts in read_samples(folder / "run" / "gen.json").items()}
    assert counts == {"die.json": 10, "talk.json": 10}
    rows = named(evaluate([folder / "run"]))
    assert [(row.tally.n, row.prompt.targets, row.figures is not None) for row in rows.values()] == [(10, ("{a}", "{b}"), True)] * 2
    assert rows["die.json"].settings["wordings"] == 3
    manifest = RunDir(folder / "run").read_manifest()
    kl = manifest["exact_kl"][str(first / "die.json")]
    assert (
        rows["die.json"].exact.kl
        == kl
        == pytest.approx(np.mean(manifest["exact_wordings"][str(first / "die.json")]["kl"]), abs=1e-5)
    )


def test_each_wording_has_samples_and_figures_of_its_own(folder, first):
    done, samples = drawn(Wanted(folder / "run", per_wording=True))
    names = ["die.json#1", "die.json#2", "die.json#3", "die.json#held-out-1", "die.json#held-out-2", "talk.json"]
    assert [Path(prompt.alias).name for prompt in done.prompts] == names
    assert [counts.total() for counts in samples.counts.values()] == [10] * 6
    rows = named(evaluate([folder / "run"]))
    assert set(rows) == {*names, "die.json"}, "the pooled answers of gen.json stay beside"
    asked = {name: row.prompt.question for name, row in rows.items()}
    assert [asked[name] for name in names] == [*WORDINGS, *HELD_OUT, "Now say a letter."]
    recorded = RunDir(folder / "run").read_manifest()["exact_wordings"]
    whole = str(first / "die.json")
    for name, of, place in (("die.json#2", whole, 1), ("die.json#held-out-2", f"{whole}#held-out", 1)):
        assert (rows[name].exact.kl, rows[name].exact.on_target) == (recorded[of]["kl"][place], recorded[of]["on_target"][place])


@pytest.mark.parametrize(("measured", "kl"), [([0.1, 0.2, 0.3], 0.2), ([0.1, 0.3], None)])
def test_figures_of_a_sample_of_the_wordings_are_taken_for_none_of_them(tmp_path, measured, kl):
    """Of hundreds of wordings training measures a part, and does not record which; the second of these may be the third."""
    die = Prompt.model_validate({**DIE, "alias": "die.json"})
    write_json(tmp_path / "prompts.json", prompts_as_json([die]))
    figures = {"kl": measured, "on_target": [0.9] * len(measured), "tvd": measured}
    write_json(tmp_path / "run.json", {
        "exact_kl": {"die.json": 0.2}, "prompt_sha256": {"die.json": die.digest}, "exact_wordings": {"die.json": figures},
    })  # fmt: skip
    write_json(tmp_path / "gen.json", {"die.json#2": ["{a}"] * 4})
    (row,) = evaluate([tmp_path]).rows
    assert (row.prompt.request, row.exact.kl if row.exact else None) == (WORDINGS[1], kl)


def test_the_only_request_beside_held_out_ones_has_the_figures_of_the_prompt(tmp_path):
    die = Prompt.model_validate({**DIE, "request": WORDINGS[0], "held_out_requests": HELD_OUT[:1], "alias": "die.json"})
    write_json(tmp_path / "prompts.json", prompts_as_json([die]))
    write_json(tmp_path / "run.json", {
        "exact_kl": {"die.json": 0.2}, "exact_on_target": {"die.json": 0.9}, "prompt_sha256": {"die.json": die.digest},
        "exact_kl_test": {"die.json#held-out": 0.3}, "exact_on_target_test": {"die.json#held-out": 0.8},
    })  # fmt: skip
    write_json(tmp_path / "gen.json", {"die.json#1": ["{a}"], "die.json#held-out-1": ["{a}"]})
    assert [(row.exact.kl, row.exact.on_target) for row in evaluate([tmp_path]).rows] == [(0.2, 0.9), (0.3, 0.8)]


def test_a_prompt_that_training_did_not_measure_was_trained_on_all_the_same(tmp_path):
    """Two training prompts of which one has figures; a test prompt with the request of the other has no targets."""
    one, other = (
        Prompt.model_validate({"request": text, "targets": ["a"], "alias": f"{text}.json"}) for text in ("Say a.", "Say it.")
    )
    asked = Prompt(request="Say it.", targets=(), alias="asked.json")
    write_json(tmp_path / "prompts.json", prompts_as_json([one, other, asked]))
    write_json(tmp_path / "run.json", {
        "exact_kl": {one.alias: 0.2}, "prompts_trained": 2, "prompt_sha256": {p.alias: p.digest for p in (one, other, asked)},
    })  # fmt: skip
    write_json(tmp_path / "gen.json", {"asked.json": ["a", "b"]})
    (row,) = evaluate([tmp_path]).rows
    assert row.diversity.beyond == 0.5


def test_wordings_are_found_in_the_kept_prompt_and_in_the_file(folder, first):
    """Samples whose settings do not hold the prompts, as those of another tool would be."""
    alias = str(first / "die.json")
    answers = {f"{alias}#2": ["{a}"] * 3, f"{alias}#held-out-1": ["{b}"] * 2, alias: ["{a}", "{b}"]}
    write_json(folder / "run" / "gen.lora.json", answers)
    rows = named(evaluate([folder / "run"]))
    assert {name: (row.tally.n, row.prompt.question) for name, row in rows.items() if name != "talk.json"} == {
        "die.json#2": (3, WORDINGS[1]), "die.json#held-out-1": (2, HELD_OUT[0]), "die.json": (2, WORDINGS[0])
    }  # fmt: skip
    alone = folder / "alone" / "gen.json"
    alone.parent.mkdir()
    write_json(alone, {"gone/die.json#2": ["{a}"], "gone/die.json#held-out-1": ["{b}"]})
    with pytest.raises(InputError, match=r"die\.json#2, which does not exist\. Name it with --prompts"):
        evaluate([alone])
    found = evaluate([alone], Question(prompts=(first / "die.json",)))
    assert [row.prompt.question for row in found.rows] == [WORDINGS[1], HELD_OUT[0]]
    assert [row.prompt.alias for row in found.rows] == ["gone/die.json#2", "gone/die.json#held-out-1"]


def test_a_wording_that_the_file_has_no_more_is_refused(first):
    with pytest.raises(InputError, match=r"belong to \S*die\.json#9, but \S*die\.json has no such wording now"):
        PromptBook([]).find(f"{first / 'die.json'}#9", [], Path("gen.json"))


def test_a_file_whose_name_ends_like_a_wording_is_taken_first(first, tmp_path):
    shutil.copy(first / "die.json", tmp_path / "p.json")
    shutil.copy(first / "talk.json", tmp_path / "p.json#2")
    assert PromptBook([]).find(str(tmp_path / "p.json#2"), [], Path("gen.json")).messages
    assert PromptBook([]).find(str(tmp_path / "p.json#3"), [], Path("gen.json")).request == WORDINGS[2]


@pytest.mark.parametrize(("only", "names"), [("#2", ["die.json#2"]), ("held-out", ["die.json#held-out-1", "die.json#held-out-2"])])
def test_only_takes_wordings_by_name(folder, only, names):
    drawn(Wanted(folder / "run", per_wording=True))
    assert list(named(evaluate([folder / "run"], Question(only=(only,))))) == names


def test_names_of_wordings_in_tables_are_short():
    assert short_names(["p/die.json", "p/die.json#2", "p/die.json#held-out-1", "p/die.json#held-out"]) == {
        "p/die.json": "die", "p/die.json#2": "die #2", "p/die.json#held-out-1": "die held-out 1", "p/die.json#held-out": "die held-out"
    }  # fmt: skip
    assert short_names(["die.json#2", "die #2"]) == {"die.json#2": "die.json#2", "die #2": "die #2"}


def test_reports_show_what_was_asked(folder):
    drawn(Wanted(folder / "run", per_wording=True))
    found = evaluate([folder / "run"])
    rows = {Path(row.prompt).name: row for row in document(found).rows}
    assert (rows["die.json"].request, rows["die.json"].requests) == (WORDINGS[0], tuple(WORDINGS))
    assert (rows["die.json#2"].request, rows["die.json#2"].requests) == (WORDINGS[1], (WORDINGS[1],))
    assert (rows["talk.json"].request, rows["talk.json"].requests) == ("Now say a letter.", ("Now say a letter.",))
    html = html_report(found)
    assert all(f'<blockquote dir="auto">{text}</blockquote>' in html for text in [*WORDINGS, *HELD_OUT, "Now say a letter."])
    assert "3 wordings; each gets an equal share of the answers" in html
    assert f'<li dir="auto">{WORDINGS[2]}</li>' in html


def test_exact_figures_of_pooled_answers_are_those_of_the_mean_over_the_wordings(folder):
    drawn(Wanted(folder / "run", per_wording=True))
    rows = named(evaluate([folder / "run"], Question(exact=True, only=("die.json",))))
    each = [rows[f"die.json#{n}"].exact.q for n in (1, 2, 3)]
    assert rows["die.json"].exact.q == pytest.approx(np.mean(each, axis=0), rel=1e-5)
    assert len({round(math.log(q[0]), 6) for q in each}) == 3, "the wordings differ"


def test_answers_to_any_trained_wording_are_judged_by_its_targets(folder):
    """Asked for on the command line they have no targets of their own."""
    drawn(Wanted(folder / "run", requests=(WORDINGS[1], HELD_OUT[0], "Now say a letter."), output=folder / "run" / "gen.lora.json"))
    rows = {row.prompt.question: row for row in evaluate([folder / "run"]).rows if not row.prompt.targets}
    assert [not math.isnan(rows[text].diversity.beyond) for text in (WORDINGS[1], HELD_OUT[0], "Now say a letter.")] == [
        True,
        False,
        False,
    ]


def test_a_prompt_in_memory_is_sampled_in_all_its_wordings(folder):
    prompt = Prompt.model_validate({**DIE, "alias": "mine"})
    _, pooled = drawn(Wanted(folder / "run", given=(prompt,), output=folder / "a.json"))
    _, each = drawn(Wanted(folder / "run", given=(prompt,), output=folder / "b.json", per_wording=True))
    assert {alias: counts.total() for alias, counts in pooled.counts.items()} == {"mine": 10}
    assert list(each.counts) == ["mine#1", "mine#2", "mine#3", "mine#held-out-1", "mine#held-out-2"]


def test_a_conversation_is_sampled_where_its_file_is_gone(folder, first, monkeypatch):
    run = RunDir(folder / "run")
    for path in (run.config, run.prompts, run.manifest):
        path.write_text(path.read_text().replace(str(first), "gone"))
    found, done = drawn(Wanted(run.path, per_wording=True))
    assert [prompt.alias for prompt in found.prompts][-1] == "gone/talk.json"
    assert found.prompts[-1].messages == read_prompt(first / "talk.json").messages
    assert done.counts["gone/talk.json"].total() == 10


def test_the_card_shows_the_first_request_and_how_many_there_are(folder, first, tmp_path):
    compared = export(RunDir(folder / "run"), tmp_path / "m", precision=None, force=False, notice=print)
    assert compared.answers == (3 + 2 + 1) * 2, "two targets in three wordings, two held-out ones, and the conversation"
    for card in ((folder / "run" / "README.md").read_text(), (tmp_path / "m" / "README.md").read_text()):
        rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in card.splitlines() if "json" in line and "|" in line]
        assert [(Path(alias.split(" (")[0].replace("&#8203;", "")).name, *rest) for alias, *rest in rows] == [
            ("die.json", "Say a letter. (3 wordings)", "2"), ("talk.json", "Now say a letter.", "2"),
            ("die.json#held-out", "Name a letter. (2 wordings)", "2"),
        ]  # fmt: skip


def test_a_single_held_out_wording_has_the_figures_that_training_recorded_of_those_held_out(tmp_path):
    die = Prompt.model_validate({**DIE, "held_out_requests": HELD_OUT[:1], "alias": "die.json"})
    figures = {"exact_kl_test": {"die.json#held-out": 0.25}, "exact_on_target_test": {"die.json#held-out": 0.5}}
    write_json(tmp_path / "run" / "run.json", {"prompt_sha256": {"die.json": die.digest}, **figures})
    write_json(tmp_path / "run" / "prompts.json", prompts_as_json([die]))
    write_json(tmp_path / "run" / "gen.lora.json", {"die.json#held-out-1": ["{a}"], "die.json#1": ["{a}"]})
    rows = named(evaluate([tmp_path / "run"]))
    assert (rows["die.json#held-out-1"].exact.kl, rows["die.json#held-out-1"].exact.on_target) == (0.25, 0.5)
    assert rows["die.json#1"].exact is None


def measured_by_hand(tmp_path, *q_of_wordings, counts=("{a}",)):
    """Evaluated: a prompt with targets of .5 each, in wordings with these probabilities of the first target."""
    die = Prompt.model_validate({"request": WORDINGS[: len(q_of_wordings)], "targets": ["{a}", "{b}"], "alias": "die.json"})
    write_json(tmp_path / "prompts.json", prompts_as_json([die]))
    write_json(tmp_path / "gen.json", {"die.json": list(counts)})
    write_json(tmp_path / "run.json", {})
    (tmp_path / "config.yaml").write_text("model: m\ntrain_prompts: [p.json]\noutput_dir: o\n")
    q = sum(q_of_wordings) / len(q_of_wordings)
    each = tuple(
        Worded("trained", name, -0.5 * math.log(4 * one * (1 - one)), 1.0, abs(one - 0.5))
        for one, name in zip(q_of_wordings, WORDINGS, strict=False)
    )
    found = Measured({("lora", die.digest): np.log([q, 1 - q])}, {("lora", die.digest): each})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusecli.evaluation.exact.measure", lambda *_, **__: found)
        (row,) = evaluate([tmp_path], Question(exact=True)).rows
    return row


def test_the_exact_distance_of_a_prompt_is_the_mean_of_its_wordings_not_that_of_their_mean(tmp_path):
    """One wording has .3 too much of the first answer, the other as much too little: together they would seem to be perfect."""
    row = measured_by_hand(tmp_path, 0.8, 0.2, counts=["{a}", "{b}"] * 500)
    assert row.exact.tvd == pytest.approx(0.3)
    assert row.exact.q == pytest.approx((0.5, 0.5))
    assert (row.exact.pooled_tvd, row.exact.excess_tvd) == (pytest.approx(0.0), pytest.approx(0.0))
    assert row.verdict.startswith("follows the target over all wordings (p = ")
    assert row.verdict.endswith("; individual wordings differ by an exact TVD of 0.300 on average")
    assert mark_of(row.verdict) == ("≈", "near")


def test_a_verdict_on_samples_goes_by_the_distribution_that_they_are_drawn_from(tmp_path):
    """q of pooled answers is .515: too little to matter, and clear in 40 000 answers; wordings are off by .3 and .33."""
    row = measured_by_hand(tmp_path, 0.83, 0.2, counts=["{a}"] * 20_600 + ["{b}"] * 19_400)
    assert row.figures.p_value < 0.05
    assert row.verdict.startswith("close to the target (p ")
    one = measured_by_hand(tmp_path, 0.7, counts=["{a}", "{b}"] * 20)
    assert (one.exact.tvd, math.isnan(one.exact.pooled_tvd)) == (pytest.approx(0.2), True)
    assert one.verdict.startswith("differs from the target by an exact TVD of 0.200, not visible in 40 samples")


@pytest.mark.parametrize(
    ("others", "placed", "told"), [(30, 32, ""), (31, 2, "only for the run's own 2 prompts: there are 33 prompts"), (0, 2, "")]
)
def test_contexts_are_measured_of_all_of_few_prompts_else_of_the_runs_own(others, placed, told):
    own, more = (
        {str(n): Prompt(request=f"{n}", targets=("a",), alias=f"{n}.json") for n in some}
        for some in (range(2), range(2, 2 + others))
    )
    said = []
    assert len(_in_contexts(own, own | more, said.append)) == placed
    assert told in "".join(said)
    assert bool(said) == bool(told)


def test_contexts_are_measured_of_none_where_the_run_has_many_prompts():
    own = {str(n): Prompt(request=f"{n}", targets=("a",), alias=f"{n}.json") for n in range(33)}
    said = []
    assert _in_contexts(own, own, said.append) == set()
    assert said == ["held-out contexts are not measured: there are 33 prompts, and the limit is 32"]


def test_named_prompts_without_samples_are_an_error_and_sampled_wordings_are_samples(folder):
    whole = next(path for path in evaluate([folder / "run"]).rows if path.prompt.alias.endswith("die.json")).prompt.alias
    write_json(folder / "run" / "gen.json", {f"{whole}#2": ["{a}"] * 4})
    other = folder / "other.json"
    other.write_text(json.dumps({"request": "Roll.", "targets": ["a"]}))
    said = []
    evaluate([folder / "run"], Question(prompts=(Path(whole),)), said.append)
    assert said == []
    (folder / "run" / "adapter_config.json").touch()
    (folder / "run" / "adapter_model.safetensors").touch()
    with pytest.raises(InputError) as caught:
        evaluate([folder / "run"], Question(prompts=(other,)))
    assert str(caught.value) == (
        f"{folder}/run: no samples of {other} (--prompts). Draw some with `diffuse sample {folder}/run --prompt {other}`, "
        "or add --exact to measure the model without samples"
    )
