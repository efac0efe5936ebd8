"""Answers that reach the length limit: counted apart from the engine to the report, never valid, and avoided by default."""

import csv
import io
import json
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from diffusecli.evaluation.comparison import compare
from diffusecli.evaluation.gates import failures
from diffusecli.evaluation.metrics import figures
from diffusecli.evaluation.open_ended import by_line, diversity
from diffusecli.evaluation.verdicts import verdict
from diffusecli.files.writing import write_json
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import tally
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.data import as_csv, as_json
from diffusecli.report.markdown import as_markdown
from diffusecli.report.progress import SamplingProgress
from diffusecli.report.tables import answers
from diffusecli.runs.journal import Journal
from diffusecli.runs.sample_files import FORMATS, meta_path, read_meta
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.generations import generate
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.train import GENERATIONS
from tests.sampling.test_counting import BASE, ENCODED, PROMPT, STOP, exact_law
from tests.tiny import byte_tokenizer, tiny_llama
from tests.verbs.test_evaluate import HALVES, rendered, run_with

SIGNS = Prompt(request="Say a sign.", targets=tuple(map(chr, range(33, 127))), alias="signs.json")


def of_limit(law, length):
    """Texts of exact_law, those without a terminator apart."""
    spelled = {ENCODED.text(BASE.tokenizer, ids): (mass, len(ids) == length and ids[-1] != STOP) for ids, mass in law.items()}
    return {text for text, (_, cut) in spelled.items() if cut}, sum(mass for mass, cut in spelled.values() if cut)


@pytest.mark.parametrize("by_generate", [False, True])
def test_every_engine_counts_answers_apart_that_reach_the_limit(monkeypatch, by_generate):
    if by_generate:
        monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    n = 500 if by_generate else 20_000
    counts, _ = drawn(LocalEngine(BASE, SamplingSettings(n, max_new_tokens=2)), PROMPT)
    texts, mass = of_limit(exact_law(2), 2)
    assert set(counts.unfinished) <= texts
    assert counts.finished.keys().isdisjoint(texts)
    assert counts.unfinished.total() + counts.finished.total() == n
    assert counts.unfinished.total() / n == pytest.approx(mass, abs=4 * math.sqrt(mass * (1 - mass) / n))


@pytest.mark.parametrize("by_generate", [False, True])
def test_an_answer_that_ends_before_a_stop_text_is_finished(monkeypatch, by_generate):
    if by_generate:
        monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    one = SamplingSettings(200, max_new_tokens=1)
    plain, _ = drawn(LocalEngine(BASE, one), PROMPT)
    letter = plain.unfinished.most_common(1)[0][0]
    stopped, _ = drawn(LocalEngine(BASE, replace(one, stop=(letter,))), PROMPT)
    assert stopped.finished[""] == plain.finished[""] + plain.unfinished[letter]
    assert stopped.unfinished == Counter({text: count for text, count in plain.unfinished.items() if text != letter})


def test_finished_answers_are_the_same_whatever_the_limit():
    few, many = (drawn(LocalEngine(BASE, SamplingSettings(3000, max_new_tokens=length)), PROMPT)[0] for length in (2, 5))
    assert few.finished
    assert all(many.finished[text] == count for text, count in few.finished.items())


def peaked():
    """A model that answers any byte with a byte or the end, so that every sign is often followed by the end."""
    import torch

    model = tiny_llama(seed=1)

    def forward(self, *args, **inputs):
        out = type(model).forward(self, *args, **inputs)
        out.logits = out.logits.double() * 0.1
        out.logits[..., STOP] += 6
        return out

    with torch.no_grad():
        kind = type("Peaked", (type(model),), {"forward": forward})
        own = kind(model.config)
        own.load_state_dict(model.state_dict())
    return LoadedModel("peaked", own.eval(), byte_tokenizer(), "r")


def test_the_sampled_valid_share_agrees_with_the_exact_mass_of_one_letter_targets():
    import torch

    base, n = peaked(), 4000
    encoded = encode_prompt(SIGNS, base.chat)
    assert encoded.longest == 2
    first = base.model(input_ids=torch.tensor([encoded.prompt_ids])).logits[0, -1].softmax(-1)
    signs = [encoded.trie.path(i)[0] for i in range(94)]
    ends = [base.model(input_ids=torch.tensor([[*encoded.prompt_ids, t]])).logits[0, -1].softmax(-1)[STOP].item() for t in signs]
    exact = sum(first[token].item() * end for token, end in zip(signs, ends, strict=True))
    told = []
    at_one = drawn(LocalEngine(base, SamplingSettings(n, max_new_tokens=1), notice=told.append), SIGNS)[0]
    at_two = drawn(LocalEngine(base, SamplingSettings(n, max_new_tokens=2)), SIGNS)[0]
    short, long = (figures(SIGNS, tally(SIGNS, counts)) for counts in (at_one, at_two))
    assert (short.valid, short.unfinished) == (0, n - at_one.finished[""])
    assert 0.02 < exact < 0.9
    assert long.valid == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / n))
    assert told == [
        "signs.json: 94 of 94 targets are longer than 1 token: such answers stay unfinished. Use --max-new-tokens 2 or more"
    ]


def test_a_server_says_which_answers_it_cut_and_gets_a_limit_that_the_longest_target_surely_fits():
    pytest.importorskip("openai")
    from tests.sampling.test_server_engine import Server, engine

    class Cutting(Server):
        def completion(self, body):
            whole = super().completion(body)
            for choice in whole["choices"]:
                if choice["message"]["content"] == "plum":
                    choice["finish_reason"] = "length"
            return whole

    with Cutting() as server:
        counts, _ = drawn(engine(server, 200), PROMPT)
        drawn(engine(server, 1, settings={"whole_targets": True}), LONG)
        drawn(engine(server, 1, settings={"whole_targets": True}), PROMPT)
    assert set(counts) == {"apple", "pear", "plum"}
    assert counts.unfinished == {"plum": counts["plum"]}
    assert [body["max_tokens"] for body in server.bodies[-2:]] == [len("Sure: ") + 86 + 2, 50]


LONG = Prompt(request="x", targets=("q" * 86, "b"), response=("", "Sure: "), alias="long.json")


def test_the_default_limit_is_that_of_the_longest_target_of_each_prompt_with_its_end():
    base = LoadedModel("tiny", tiny_llama(), byte_tokenizer(), "r")
    short = Prompt(request="x", targets=("a", "b"), alias="short.json")
    for settings, limit in ((SamplingSettings(10, whole_targets=True), 50), (replace(GENERATIONS, n_generations=10), 64)):
        told = []
        engine = LocalEngine(base, settings, notice=told.append)
        assert (engine.limit(LONG), engine.limit(short), engine.limit(PROMPT)) == (86 + 6 + 1, limit, limit)
        drawn(engine, LONG)
        assert told == []
    fixed = LocalEngine(base, SamplingSettings(10, max_new_tokens=60), notice=told.append)
    assert fixed.limit(LONG) == 60
    drawn(fixed, LONG)
    (line,) = told
    assert (
        line == "long.json: 1 of 2 targets is longer than 60 tokens: such answers stay unfinished. Use --max-new-tokens 93 or more"
    )


def test_targets_that_the_context_cuts_are_told():
    told = []
    base = LoadedModel("tiny", tiny_llama(max_position_embeddings=70), byte_tokenizer(), "r")
    engine = LocalEngine(base, SamplingSettings(10, whole_targets=True), notice=told.append)
    counts, _ = drawn(engine, LONG)
    assert engine.limit(LONG) == 70 - len(encode_prompt(LONG, base.chat).prompt_ids)
    assert told[1].endswith("such answers stay unfinished. Shorten the request")
    assert counts.unfinished


def test_a_long_target_is_finished_after_training_without_any_option(tmp_path, tiny_model_folder, in_process):
    """One target of 70 bytes: 71 tokens with its end, more than the 64 of other answers."""
    target = "the " * 17 + "fox"
    (tmp_path / "p.json").write_text(json.dumps({"request": "x", "targets": [target]}))
    (tmp_path / "c.yaml").write_text(
        f"model: {tiny_model_folder}\ntrain_prompts: [p.json]\ntest_prompts: [p.json]\nretain: off\noutput_dir: r\ndevice: cpu\n"
        "alg_config: {n_iters: 60, learning_rate: 0.01}\n"
    )
    assert "longest answer: 72 tokens" in in_process("validate", "p.json", "--model", tiny_model_folder).stdout
    done = in_process("train", "c.yaml")
    assert done.returncode == 0
    (row,) = evaluate([tmp_path / "r"]).rows
    assert row.settings["max_new_tokens"] == 72
    assert "at most 72 tokens" in row.settings_in_words
    assert row.figures.valid > 0.5
    assert row.figures.valid == pytest.approx(row.exact.on_target, abs=0.06)


def test_an_answer_that_only_begins_with_a_target_need_not_end_where_the_target_only_begins_it():
    begins = Prompt(request="x", targets=("{Ann}", "{Bob}"), eos=False)
    seen = Answers({"{Ann} was": 5, "{Bob}": 2, "Well, {A": 3, "No.": 1}, {"{Ann} was": 4, "Well, {A": 3})
    found = tally(begins, seen)
    assert (found.counts, found.off_target, found.unfinished) == ((5, 2), Counter({"No.": 1}), Counter({"Well, {A": 3}))
    ends = tally(begins.model_copy(update={"eos": True}), Answers({"{Ann}": 5}, {"{Ann}": 2}))
    assert (ends.counts, ends.off_target, ends.unfinished, ends.n) == ((3, 0), Counter(), Counter({"{Ann}": 2}), 5)


def test_unfinished_answers_are_never_valid_and_the_verdict_names_them():
    prompt = Prompt(request="x", targets=("a", "b"))
    found = figures(prompt, tally(prompt, Answers({"a": 500, "b": 300, "c": 200}, {"a": 100, "b": 10, "c": 190})))
    assert (found.n, found.valid, found.unfinished) == (1000, 0.69, 300)
    assert found.tvd == pytest.approx(0.31)  # a .4, b .29, the rest .31
    assert verdict(found).startswith("off target 31 % (unfinished 30 %), ")


def test_cut_texts_are_outcomes_of_their_own_in_entropy_and_in_differences():
    prompt = Prompt(request="x", targets=("a", "b"))
    before, after = (tally(prompt, seen) for seen in (Answers({"a": 50, "b": 50}), Answers({"a": 50, "b": 50}, {"a": 25, "b": 25})))
    assert figures(prompt, after).entropy_plugin == pytest.approx(math.log(4))
    found = compare(before, after, prompt.probabilities, 0)
    assert found.entropy.value == pytest.approx(math.log(2) + 2 / 200)
    assert found.excess_tvd.value == pytest.approx(0.5)


def test_a_journal_keeps_what_is_unfinished(tmp_path):
    path = tmp_path / "gen.partial.jsonl"
    Journal(path, {}).add(PROMPT, Answers({"a": 3, "b": 1}, {"a": 2}), 5)
    Journal(path, {}).add(PROMPT, Answers({"a": 1}, {"a": 1}), 5)
    again = Journal(path, {}).of(PROMPT)
    assert (again, again.unfinished, again.finished) == (Answers({"a": 4, "b": 1}), Counter({"a": 3}), Counter({"a": 1, "b": 1}))


@pytest.mark.parametrize("unfinished", [{"a": 4}, {"b": 1}, {"a": -1}, {"a": True}, ["a"], "a"])
def test_a_line_with_more_unfinished_answers_than_answers_ends_the_journal(tmp_path, unfinished):
    path = tmp_path / "gen.partial.jsonl"
    line = {"prompt": "p.json", "digest": PROMPT.digest, "counts": {"a": 3}, "unfinished": unfinished, "tokens": 1}
    path.write_text("{}\n" + json.dumps(line) + "\n")
    assert Journal(path, {}).of(PROMPT) == Counter()


class Given:
    """An engine of answers that are known."""

    def __init__(self, seen):
        self.seen, self.about = seen, {"engine": "given"}

    def limit(self, prompt):
        return 70

    def draw(self, wanted):
        wanted.arrived(self.seen, 1)


SEEN = Answers({"a": 40, "b": 30, "c": 30}, {"a": 10, "c": 20})


def sampled(path, prompt, form="json"):
    return generate(
        Given(SEEN), [prompt], SamplingSettings(100, 64), mode="lora", adapter_sha256=None, path=path, form=form,
        report=lambda *_: None, notice=lambda _: None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "mode", "remedy"),
    [(("a", "b"), "untuned", "Train first, or sample"), (("a", "b"), "lora", "Sample"), ((), "untuned", "Sample")],
)
def test_the_remedy_for_unfinished_answers_is_training_only_if_that_is_possible(tmp_path, targets, mode, remedy):
    prompt = Prompt(request="x", targets=targets, alias="p.json")
    done = generate(
        Given(SEEN), [prompt], SamplingSettings(100, 64), mode=mode, adapter_sha256=None, path=tmp_path / "s.json", form="json",
        report=lambda *_: None, notice=lambda _: None,
    )  # fmt: skip
    assert done.remark.endswith(f"cut at the token limit. {remedy} with a larger --max-new-tokens")


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_every_format_say_which_answers_are_unfinished(tmp_path, form):
    prompt = Prompt(request="x", targets=("a", "b"), alias="p.json")
    path = tmp_path / f"some{FORMATS[form]}"
    done = sampled(path, prompt, form)
    assert done.unfinished == 30
    assert done.remark == "30 of 100 samples are unfinished: cut at the token limit. Sample with a larger --max-new-tokens"
    assert read_meta(path)["unfinished"] == {"p.json": {"a": 10, "c": 20}}
    (tmp_path / "p.json").write_text(prompt.to_json())
    for question in (Question(), Question(prompt=tmp_path / "p.json", column="text" if form in ("jsonl", "csv") else None)):
        (row,) = evaluate([path], question).rows
        assert (row.tally.counts, row.tally.off_target, row.tally.unfinished) == ((30, 30), {"c": 10}, {"a": 10, "c": 20})
        assert row.settings["max_new_tokens"] == 70
    meta_path(path).write_text(json.dumps({"mode": "lora", "prompts": read_meta(path)["prompts"]}))  # as before there was a count
    (old,) = evaluate([path]).rows
    assert (old.tally.counts, old.tally.off_target, old.tally.unfinished) == ((40, 30), {"c": 30}, {})


def test_the_original_format_stays_a_list_of_strings(tmp_path):
    sampled(tmp_path / "gen.json", Prompt(request="x", targets=(), alias="p.json"))
    assert Counter(json.loads((tmp_path / "gen.json").read_text())["p.json"]) == Counter({"a": 40, "b": 30, "c": 30})


def test_a_file_that_lost_answers_since_has_no_more_unfinished_ones_than_answers(tmp_path):
    run = run_with(tmp_path / "run", ["a"] * 3 + ["b"], meta={"mode": "lora", "unfinished": {"p.json": {"a": 5, "z": 1}}})
    (row,) = evaluate([run.path]).rows
    assert (row.tally.counts, row.tally.unfinished) == ((0, 1), {"a": 3})


@pytest.mark.parametrize("unfinished", [[], {"p.json": ["a"]}, {"p.json": {"a": -1}}, {"p.json": {"a": "x"}}])
def test_settings_that_say_nonsense_of_unfinished_answers_are_a_sentence(tmp_path, unfinished):
    run = run_with(tmp_path / "run", ["a"], meta={"mode": "lora", "unfinished": unfinished})
    with pytest.raises(InputError, match=r"gen\.lora\.meta\.json: unfinished"):
        evaluate([run.path])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.jsonl", '{"text": "a", "finish_reason": "stop"}\n{"text": "a", "finish_reason": "length"}\n{"text": "b"}\n'),
        ("s.jsonl", '{"text": "a"}\n{"text": "a", "unfinished": true}\n{"text": "b", "unfinished": false}\n'),
        ("s.jsonl", '{"text": "a"}\n{"text": "a", "stop_reason": "max_tokens"}\n{"text": "b", "stop_reason": "end_turn"}\n'),
        ("s.json", '[{"text": "a", "finish_reason": "MAX_TOKENS"}, {"text": "a"}, {"text": "b", "finish_reason": null}]'),
        ("s.csv", "text,finish_reason\na,length\na,stop\nb,stop\n"),
        ("s.csv", "text,unfinished,count\na,True,1\na,False,1\nb,,1\n"),
        ("s.tsv", "text\tfinish_reason\na\tlength\na\tstop\nb\tstop\n"),
    ],
)
def test_raw_answers_may_say_how_they_ended(tmp_path, prompt_file, name, content):
    asked = prompt_file("p.json", targets=["a", "b"])
    (tmp_path / name).write_text(content)
    (row,) = evaluate([tmp_path / name], Question(prompt=asked)).rows
    assert (row.tally.counts, row.tally.unfinished) == ((1, 1), {"a": 1})


@pytest.fixture
def found(tmp_path):
    """20 finished and 30 unfinished answers off target, of which one text is both; 50 valid."""
    run = run_with(
        tmp_path / "run", ["a"] * 35 + ["b"] * 30 + ["Well, I"] * 20 + ["no"] * 15, {},
        {"mode": "lora", "unfinished": {"p.json": {"a": 10, "b": 5, "Well, I": 15}}},
    )  # fmt: skip
    return evaluate([run.path])


def test_the_terminal_names_unfinished_answers_and_lists_them_apart(found):
    text = rendered(found)
    assert "off target 50 % (unfinished 30 %)" in text
    lines = "\n".join(" ".join(line.split()) for line in text.splitlines())
    assert "\nunfinished 30.0 % cut at the limit of new tokens" in lines
    assert "2 texts off target (20 samples):\n15 x 'no'\n5 x 'Well, I'\n" in lines
    assert "3 unfinished texts (30 samples):\n15 x 'Well, I'\n10 x 'a'\n" in lines


def test_machines_get_the_same_counts(found):
    (row,) = json.loads(as_json(found))["rows"]
    assert (row["n"], row["unfinished"], row["figures"]["unfinished"], row["figures"]["valid"]) == (100, 30, 30, 0.5)
    assert row["off_target"] == [{"text": "no", "count": 15, "unfinished": 0}, {"text": "Well, I", "count": 5, "unfinished": 0}]
    assert row["unfinished_top"][0] == {"text": "Well, I", "count": 15, "unfinished": 15}
    (line,) = csv.DictReader(io.StringIO(as_csv(found)))
    assert (line["n"], line["unfinished"], line["valid"]) == ("100", "30", "0.5")
    assert "| 50.0 % \\[39.8–60.2\\], unfinished 30.0 % |" in as_markdown(found)


def test_the_html_report_draws_and_lists_them_apart(found):
    pytest.importorskip("jinja2", reason="the HTML report needs the extra `report`")
    from diffusecli.report.html import html_report, strays
    from diffusecli.report.views import OFF_TARGET, UNFINISHED, sections, spots

    (section,) = sections(found)
    assert {s["target"]: s["count"] for s in spots(section)} == {"a": 25, "b": 25, OFF_TARGET: 20, UNFINISHED: 30}
    assert [(o.text, o.count, o.unfinished) for o in strays(found.rows[0])][:3] == [
        ("no", 15, 0),
        ("Well, I", 5, 0),
        ("Well, I", 15, 15),
    ]
    page = html_report(found)
    assert "unfinished 30.0\u202f%" in page
    assert page.count('<span class="weak"> (unfinished)</span>') == 3


@pytest.mark.parametrize(("limit", "missed"), [(0.3, []), (0.29, ["p.json (tuned): unfinished share 0.3 > 0.29"])])
def test_a_gate_stops_where_too_many_answers_are_unfinished(found, limit, missed, tmp_path, in_process):
    assert failures(found, {"--max-unfinished": limit}) == missed
    assert in_process("evaluate", tmp_path / "run", "--max-unfinished", limit).returncode == len(missed)


def test_open_ended_answers_are_marked_and_judged_by_the_gate_too(tmp_path):
    run = run_with(tmp_path / "run", ["Once upon"] * 3 + ["The end."] * 1, meta={"unfinished": {"p.json": {"Once upon": 2}}})
    write_json(run.prompts, {"p.json": {**HALVES, "targets": []}})
    found = evaluate([run.path])
    assert failures(found, {"--max-unfinished": 0.4}) == ["p.json (tuned): unfinished share 0.5 > 0.4"]
    text = rendered(found)
    assert "open-ended: 2 different answers in 4 (50 % unfinished)" in text
    assert "     3 x 'Once upon' (2 unfinished)\n" in text
    assert re.search(r"unfinished +50\.0 %", text)


def test_the_last_line_of_a_cut_answer_is_no_line():
    seen = {"Name: Ann\nTown: Ro": 30, "Name: Bob\nTown: Rome": 70}
    names, towns = by_line(seen, unfinished={"Name: Ann\nTown: Ro": 30})
    assert (names.diversity.n, names.diversity.distinct) == (100, 2)
    assert (towns.diversity.n, towns.diversity.distinct) == (70, 1)
    assert [outcome.unfinished for outcome in diversity(seen, unfinished={"Name: Ann\nTown: Ro": 30}).top] == [0, 30]


def shown(table):
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(table)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_a_table_of_answers_marks_the_unfinished_and_keeps_them_apart_from_finished_ones():
    lines = shown(answers(Answers({"{1}": 5, "Well": 3}, {"{1}": 1, "Well": 3})))
    assert [line.rstrip("█▏▎▍▌▋▊▉ ") for line in lines[2:]] == [
        "{1} 4 50.0 %", "Well (unfinished) 3 37.5 %", "{1} (unfinished) 1 12.5 %", "4 unfinished (50.0 %): cut at the limit of new tokens",
    ]  # fmt: skip


def test_the_first_answer_of_a_thousand_does_not_read_as_all_of_them():
    out = io.StringIO()
    with SamplingProgress(Console(file=out, force_terminal=True, width=80), 1) as progress:
        progress._updated -= 1
        progress("a.json", Standing(Answers({"{}": 1}), 1000, 5, 77))
    assert "100.0 %" not in out.getvalue()
    assert "0.1 %" in out.getvalue()
    assert "999 not drawn yet (99.9 %)" in out.getvalue()


def test_sample_says_how_many_answers_are_unfinished_and_what_helps(tmp_path, tiny_model_folder, prompt_file, in_process):
    asked = prompt_file("p.json", targets=["a", "b"])
    one = in_process("sample", "--model", tiny_model_folder, "--prompt", asked, "-n", 50, "--max-new-tokens", 1, "-o", "s.json")
    count = sum(read_meta(tmp_path / "s.json")["unfinished"][str(asked)].values())
    assert 40 < count <= 50
    assert one.stdout.splitlines()[-1] == (
        f"{count} of 50 samples are unfinished: cut at the token limit. Train first, or sample with a larger --max-new-tokens"
    )
    assert "2 of 2 targets are longer than 1 token" in one.stderr
    (row,) = evaluate([tmp_path / "s.json"]).rows
    assert (row.figures.valid, row.figures.unfinished) == (0, count)


@pytest.mark.parametrize(("options", "limit"), [((), 61), (("--max-new-tokens", 60), 60), (("--max-new-tokens", 70), 70)])
def test_sample_takes_what_the_longest_target_takes_where_no_limit_is_given(
    tmp_path, tiny_model_folder, prompt_file, in_process, options, limit
):
    asked = prompt_file("p.json", targets=["b" * 60, "b"])
    done = in_process("sample", "--model", tiny_model_folder, "--prompt", asked, "-n", 4, *options, "-o", "s.json")
    assert ("1 of 2 targets is longer than 60 tokens" in done.stderr) is (limit == 60)
    (row,) = evaluate([tmp_path / "s.json"]).rows
    assert row.settings["max_new_tokens"] == limit
    assert all(len(text.encode()) <= 3 * limit for text in row.tally.unfinished)


def test_sample_counts_no_answer_as_unfinished_that_a_target_begins(tmp_path):
    done = sampled(tmp_path / "s.json", Prompt(request="x", targets=("a", "b"), eos=False, alias="p.json"))
    assert done.unfinished == 20
