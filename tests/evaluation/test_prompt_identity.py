"""Figures and samples belong to a prompt by what it asks and expects, whatever its file is called and held at other times."""

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from diffusecli.evaluation.evaluation import by_prompt
from diffusecli.evaluation.exact import scorer_of
from diffusecli.evaluation.gates import failures
from diffusecli.files.writing import write_json
from diffusecli.prompts.config import AlgConfig, Config
from diffusecli.prompts.prompt import Prompt, require_own_names
from diffusecli.prompts.prompt_files import prompt_files, read_prompt, read_prompts
from diffusecli.report.data import as_csv, as_json
from diffusecli.report.markdown import as_markdown
from diffusecli.runs.journal import Journal
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.sample import Wanted, resolve, sample
from diffusecli.verbs.train import train
from tests.verbs.test_evaluate import HALVES, rendered, run_with

EDITS = {
    "other weights": {"targets": ["{a}", "{b}"], "weights": [0.9, 0.1]},
    "more targets": {"targets": ["{a}", "{b}", "{c}", "{d}"]},
    "fewer targets": {"targets": ["{b}"]},
}


def exact_kls(found, mode="lora"):
    """Exact KL by what is expected of the model."""
    return {(row.prompt.targets, row.prompt.weights): row.exact.kl for row in found.rows if row.mode == mode and row.exact}


def measured(folder, *prompts):
    return evaluate([folder], Question(prompts=tuple(map(Path, prompts)), exact=True))


def answers(wanted, n=20, **more):
    resolved = resolve(wanted, Path("results"))
    return sample(
        resolved, SamplingSettings(n, 3), max_rows=None, report=lambda *_: None, notice=more.get("notice", lambda _: None)
    )


def trained_on(tiny_model_folder, folder, **prompts):
    """A run of one iteration in `folder`/run."""
    config = Config.model_validate({
        "model": str(tiny_model_folder), "alg_config": {"n_iters": 1}, "output_dir": str(folder / "run"), "device": "cpu",
        "generate": False, "retain": False, **prompts,
    })  # fmt: skip
    told = []
    return train(config, report=lambda _: None, notice=told.append), told


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_prompt_and_the_one_that_was_sampled_each_have_their_own_exact_figures(trained, prompt_file, edit):
    folder, path = Path(trained.output_dir), trained.train_prompts[0]
    answers(Wanted(folder))
    before = read_prompt(path)
    (alone,) = exact_kls(measured(folder)).values()
    prompt_file("other.json", **edit)
    other = read_prompt(prompt_file("other.json", **edit))
    (expected,) = (row.exact.kl for row in measured(folder, other.alias).rows if row.prompt.key == other.key and row.mode == "lora")

    edited = read_prompt(prompt_file("p.json", **edit))
    found = measured(folder, path)
    assert exact_kls(found) == pytest.approx({(before.targets, before.weights): alone, (edited.targets, edited.weights): expected})
    assert {(row.prompt.key, row.mode, row.tally.n) for row in found.rows} == {
        (before.key, "lora", 20), (before.key, "untuned", 0), (edited.key, "lora", 0), (edited.key, "untuned", 0),
    }  # fmt: skip


def test_prompts_of_one_name_are_scored_each_by_itself(tiny_model_folder):
    from diffusecli.models.encoding import encode_prompt
    from diffusecli.models.loading import load_model
    from diffusecli.models.source import ModelSource
    from diffusecli.training.questions import Question

    base = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
    one, other = (Prompt(request="Say a letter.", targets=targets, alias="p.json") for targets in (("{a}", "{b}"), ("{c}",)))
    encoded = [encode_prompt(prompt, base.chat) for prompt in (one, other)]
    settings = (ModelSource(str(tiny_model_folder), device="cpu"), AlgConfig(), print)
    asked = [Question(e.prompt, (e,)) for e in encoded]
    together = scorer_of(base, encoded, *settings).exact(asked)
    alone = [scorer_of(base, [e], *settings).exact([q]).figures[0] for e, q in zip(encoded, asked, strict=True)]
    assert [len(log_probs) for log_probs in scorer_of(base, encoded, *settings).score(encoded).log_probs] == [2, 1]
    assert [figure for pair in together.figures for figure in pair] == pytest.approx([figure for pair in alone for figure in pair])


def test_copies_of_a_prompt_appear_each_under_its_own_name_with_the_same_figures(
    tiny_model_folder, prompt_file, tmp_path, in_process
):
    (tmp_path / "o").mkdir()
    paths = [str(prompt_file(name)) for name in ("p.json", "q.json", "o/p.json")]
    done, _ = trained_on(tiny_model_folder, tmp_path, train_prompts=paths[:1], test_prompts=paths)
    (kl,) = done.after.kl.values()
    assert done.test.kl == pytest.approx(dict.fromkeys(paths[1:], kl))
    assert f"q.json (trained on as {tmp_path}/p.json) |" in done.run.card.read_text()
    assert "not trained on" not in done.run.card.read_text()

    answers(Wanted(done.run.path, prompts=tuple(map(Path, paths))))
    answers(Wanted(done.run.path, prompts=tuple(map(Path, paths)), mode="untuned"))
    recorded, now = evaluate([done.run.path]), measured(done.run.path)
    for found in (recorded, now):
        assert [(row.prompt.alias, row.mode) for row in found.rows] == [
            (path, mode) for path in paths for mode in ("lora", "untuned")
        ]
        assert [row.exact.kl for row in found.rows if row.mode == "lora"] == pytest.approx([kl] * 3, abs=1e-4)
        assert len({row.exact.kl for row in found.rows if row.mode == "untuned"}) == 1
    headings = [line for line in rendered(recorded).splitlines() if line.endswith(": figures")]
    assert headings == ["p: figures", "q: figures", "o/p: figures"]
    assert [(d.before.prompt.alias, d.after.prompt.alias) for d in recorded.differences] == [(path, path) for path in paths]


def test_a_held_out_copy_is_shown_and_the_same_file_by_another_path_is_not_shown_twice(trained, prompt_file, tmp_path, monkeypatch):
    folder = Path(trained.output_dir)
    answers(Wanted(folder))
    path, copy, link = trained.train_prompts[0], prompt_file("copy.json"), tmp_path / "link.json"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").mkdir()
    same = [path, "p.json", "./p.json", "o/../p.json", link]
    assert {row.prompt.alias for row in measured(folder, *same).rows} == {path}
    both = {(row.prompt.alias, row.mode) for row in measured(folder, *same, copy).rows}
    assert both == {(name, mode) for name in (path, str(copy)) for mode in ("untuned", "lora")}
    (tmp_path / "p.json").rename(tmp_path / "o" / "p.json")  # named in place of the file that is gone
    assert {row.prompt.alias for row in measured(folder, "o/p.json").rows} == {path}


def test_a_file_is_one_prompt_by_whatever_paths_it_is_named(prompt_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").mkdir()
    (tmp_path / "link.json").symlink_to(prompt_file("p.json"))
    (tmp_path / "folder").symlink_to(tmp_path / "o")
    prompt_file("o/q.json")
    named = ["p.json", "./p.json", tmp_path / "p.json", "o/../p.json", "link.json", "o", "folder", "folder/q.json"]
    assert prompt_files(named) == [Path("p.json"), Path("o/q.json")]
    assert [prompt.alias for prompt in read_prompts(["link.json", "p.json"])] == ["link.json"]


def test_two_prompts_of_one_name_are_refused_before_any_work(trained, prompt_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = (Prompt(request=request, targets=(), alias="p.json") for request in ("x", "y"))
    require_own_names([one, one])
    with pytest.raises(InputError, match=r"p\.json: two different prompts have this name. Their requests are 'x' and 'y'"):
        require_own_names([one, other])
    with pytest.raises(InputError, match=r"--request 'p\.json': is also the path of a prompt to sample"):
        resolve(Wanted(Path(trained.output_dir), prompts=(Path("p.json"),), requests=("p.json",)), Path("results"))


def test_a_prompt_and_its_request_in_words_are_sampled_side_by_side_and_a_request_given_twice_once(trained):
    path, text = trained.train_prompts[0], "Say a letter."
    done = answers(Wanted(Path(trained.output_dir), prompts=(Path(path),), requests=(text, text)))
    assert {alias: counts.total() for alias, counts in done.counts.items()} == {path: 20, text: 20}
    rows = evaluate([done.path]).rows
    assert [(row.prompt.alias, row.prompt.targets) for row in rows] == [(path, ("{a}", "{b}")), (text, ())]


def test_samples_of_an_edited_prompt_have_no_figures_of_the_one_before(trained, prompt_file):
    folder, path = Path(trained.output_dir), trained.train_prompts[0]
    first, told = answers(Wanted(folder)), []
    assert evaluate([folder]).rows[0].exact is not None
    prompt_file("p.json", weights=[3, 1])
    assert resolve(Wanted(folder), Path("results")).message.endswith(f"changed since its training: {path}")
    answers(Wanted(folder), notice=told.append)
    assert f"{first.path}: overwriting its samples of {path} from before the prompt was changed" in told
    (row,) = evaluate([folder]).rows
    assert (row.prompt.weights, row.exact) == ((3.0, 1.0), None)


def test_a_prompt_file_that_is_not_what_was_sampled_is_told_where_it_changes_nothing(trained, prompt_file):
    folder, path, told = Path(trained.output_dir), trained.train_prompts[0], []
    answers(Wanted(folder))
    asked = Question(prompts=(Path(path),))
    evaluate([folder], asked, told.append)
    assert told == []
    prompt_file("p.json", weights=[3, 1])
    (row,) = evaluate([folder], asked, told.append).rows
    assert row.prompt.weights is None
    assert told == [
        f"{path}: differs from the prompt that was sampled under this name. The samples are compared with the sampled prompt. "
        "Add --exact for exact figures of both"
    ]


def test_a_journal_counts_the_tokens_of_an_edited_prompt_apart(tmp_path):
    before, after = (Prompt(request=request, targets=(), alias="p.json") for request in ("x", "y"))
    journal = Journal(tmp_path / "j.jsonl", {})
    journal.add(before, Counter("ab"), 7)
    journal.add(after, Counter("c"), 2)
    again = Journal(tmp_path / "j.jsonl", {})
    assert (again.tokens[before.key], again.tokens[after.key]) == (7, 2)
    assert (again.of(before), again.of(after)) == (Counter("ab"), Counter("c"))


OTHER = {**HALVES, "weights": [0.9, 0.1]}


@pytest.fixture
def edited(tmp_path):
    """Untuned samples of p.json, and tuned ones from after it was edited."""
    run = run_with(
        tmp_path / "run", ["a", "b"] * 40, {"exact_kl": {"p.json": 0.1}, "exact_kl_before": {"p.json": 5.0}}, mode="untuned"
    )
    run_with(tmp_path / "run", ["a"] * 90 + ["b"] * 10, run.read_manifest(), meta={"prompts": {"p.json": OTHER}})
    return evaluate([run.path])


def test_every_report_tells_two_prompts_of_one_name_apart(edited, tmp_path, in_process):
    digests = [row.prompt.digest for row in edited.rows]
    names = [f"p ({digest[:8]})" for digest in digests]
    assert len(set(names)) == 2
    text = rendered(edited)
    for name, mode in zip(names, ("untuned", "tuned"), strict=True):
        assert f"{name}: another prompt has this name too" in text
        assert mode in text[text.index(f"{name}: another") :].splitlines()[1]
        assert f"| {name} | {mode} |" in as_markdown(edited)
    assert [(row["prompt"], row["prompt_sha256"]) for row in json.loads(as_json(edited))["rows"]] == [
        ("p.json", d) for d in digests
    ]
    assert [row["prompt_sha256"] for row in csv.DictReader(io.StringIO(as_csv(edited)))] == digests
    assert failures(edited, {"--max-tvd": 0.0, "--min-n": 1000})[0].startswith(f"p.json ({digests[1][:8]}) (tuned): ")
    in_process("evaluate", tmp_path / "run", "--html", "r.html")
    headings = re.findall(r"<h2 id=.h\d+.><bdi>([^<]*)", (tmp_path / "r.html").read_text())
    assert headings == names


def test_recorded_figures_are_of_the_prompt_that_the_run_keeps_where_it_records_no_digest(edited):
    assert [(row.mode, row.exact and row.exact.kl) for row in edited.rows] == [("untuned", 5.0), ("lora", None)]
    assert edited.differences == ()


def test_differences_say_which_of_two_prompts_they_are_of(tmp_path):
    for name, prompt in (("r1", HALVES), ("r2", OTHER)):
        run = run_with(tmp_path / name, ["a", "b"] * 40)
        run_with(tmp_path / name, ["a"] * 80, mode="untuned")
        write_json(run.prompts, {"p.json": prompt})
    found = evaluate([tmp_path])
    digests = [d.prompt.digest for d in found.differences]
    assert len(set(digests)) == 2
    assert [d["prompt_sha256"] for d in json.loads(as_json(found))["differences"]] == digests
    assert all(f"| p ({digest[:8]}) | r{n} (tuned) − r{n} (untuned) |" in as_markdown(found) for n, digest in enumerate(digests, 1))


def test_copies_in_two_folders_of_one_run_stand_apart_and_moved_ones_of_several_runs_together(tmp_path):
    for name, aliases in (
        ("r1", ["u/x.json", "v/x.json"]),
        ("r2", ["/moved/v/x.json"]),
        ("r3", ["w/y.json"]),
        ("r4", ["z/y.json"]),
    ):
        write_json(tmp_path / name / "run.json", {})
        write_json(tmp_path / name / "prompts.json", dict.fromkeys(aliases, HALVES))
        write_json(tmp_path / name / "gen.json", dict.fromkeys(aliases, ["a", "b"] * 30))
    found = evaluate([tmp_path])
    groups = [[(Path(row.run).name, row.prompt.alias) for row in group] for group in by_prompt(found.rows)]
    assert groups == [
        [("r1", "u/x.json")], [("r1", "v/x.json"), ("r2", "/moved/v/x.json")], [("r3", "w/y.json"), ("r4", "z/y.json")],
    ]  # fmt: skip
    assert [(d.before.prompt.alias, d.after.prompt.alias) for d in found.differences] == [
        ("v/x.json", "/moved/v/x.json"), ("w/y.json", "z/y.json"),
    ]  # fmt: skip


def test_names_that_differ_in_their_ending_only_stay_apart(tmp_path):
    run = run_with(tmp_path / "run", [])
    write_json(run.prompts, {"p": OTHER, "p.json": HALVES})
    write_json(run.samples("lora"), {"p": ["a"], "p.json": ["a"]})
    text = as_markdown(evaluate([run.path]))
    assert "| p | tuned |" in text
    assert "| p.json | tuned |" in text


def test_an_edited_prompt_is_not_averaged_into_what_was_trained_on(tmp_path):
    """r1 was trained on g/p.json, later sampled with other weights there: a group of its own, with figures of its own."""
    for name, folder in (("r1", "g"), ("r2", "h")):
        alias = f"{folder}/p.json"
        digest = Prompt.model_validate({**HALVES, "alias": alias}).digest
        write_json(tmp_path / name / "run.json", {"exact_kl": {alias: 0.25}, "prompt_sha256": {alias: digest}})
        write_json(tmp_path / name / "prompts.json", {alias: HALVES})
        write_json(tmp_path / name / "gen.json", {alias: ["a", "b"] * 50})
    write_json(tmp_path / "r1" / "gen.json", {"g/p.json": ["a", "b"] * 50})
    write_json(tmp_path / "r1" / "gen.meta.json", {"prompts": {"g/p.json": OTHER}})
    excess = evaluate([tmp_path]).matrices[-1]
    assert (excess.measure, excess.groups) == ("excess TVD", ("g, others", "h"))
    assert excess.trained == ((False, False), (False, True))


def test_figures_measured_under_another_system_text_are_not_shown_beside_samples_of_the_first(trained):
    folder, told = Path(trained.output_dir), []
    answers(Wanted(folder))
    (recorded,) = exact_kls(evaluate([folder])).values()
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("system: null", "system: Be brief."))
    found = evaluate([folder], Question(exact=True), told.append)
    assert [row.exact.kl for row in found.rows if row.tally.n] == [recorded]
    assert any("the system prompt, chat template or its variables differ from those of the training" in notice for notice in told)


def test_the_card_of_an_exported_run_has_no_figures_of_a_prompt_that_was_edited_in_the_run(trained, tmp_path):
    from diffusecli.verbs.export import export

    run = RunDir(Path(trained.output_dir))
    kept = json.loads(run.prompts.read_text())
    write_json(run.prompts, {alias: {**prompt, "targets": ["{a}", "{b}", "{c}"]} for alias, prompt in kept.items()})
    export(run, tmp_path / "out", precision=None, force=False, notice=print)
    assert f"| {trained.train_prompts[0]} | - | - |" in (tmp_path / "out" / "README.md").read_text()
