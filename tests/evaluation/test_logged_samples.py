"""Files of `lm_eval --log_samples`: two that lm-eval 0.4.13 wrote about the built-in model after training on numbers, and changed ones.

`lm_eval/numbers.jsonl` holds 300 answers of the task in docs/how-to/lm-eval.md; `lm_eval/abilities.jsonl` two documents with choices.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from diffusecli.evaluation.raw_answers import read_answers
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from tests import ROOT

RECORDED = Path(__file__).parent / "lm_eval"
NUMBERS = ROOT / "prompts/numbers/rng-0.json"
(LINE,) = (json.loads(line) for line in (RECORDED / "numbers.jsonl").read_text(encoding="utf-8").splitlines())
FRUIT = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "until": [], "max_gen_toks": 8}


def row_of(path, prompt, said=None, **options):
    (row,) = evaluate([path], Question(prompt=prompt, **options), said.append if said is not None else lambda _: None).rows
    return row


def line(request="Name a fruit.", answers=("{apple}", "{pear}"), number=0, given=FRUIT, sent=None, **fields):
    return {
        "doc_id": number, "doc": {"request": request}, "target": "-", "arguments": {"gen_args_0": {"arg_0": sent or f"user: {request}", "arg_1": given}},
        "resps": [list(answers)], "filtered_resps": list(answers[:1]), "filter": "none", "metrics": ["bypass"], "bypass": None, **fields,
    }  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "samples_fruit_2026-11-30.jsonl"
        path.write_text("".join(f"{json.dumps(each) if isinstance(each, dict) else each}\n" for each in lines))
        return path

    return write


@pytest.fixture
def fruit(prompt_file):
    return prompt_file(request="Name a fruit.", targets=["{apple}", "{pear}"])


def test_a_recorded_file_gives_its_answers_and_how_they_were_drawn():
    said = []
    row = row_of(RECORDED / "numbers.jsonl", NUMBERS, said)
    assert said == []
    assert row.tally.n == 300
    answers = Counter(re.findall(r'"(\{\d+\})"', json.dumps(LINE["resps"])))
    assert dict(zip(row.prompt.targets, row.tally.counts, strict=True)) == {text: answers[text] for text in row.prompt.targets}
    assert row.tally.off_target == {"{11}": 1}
    assert row.settings == {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "max_new_tokens": 16,
        "stop": [],
    }
    assert row.settings_in_words == "at most 16 tokens, temperature 1"
    assert row.verdict.startswith("follows the target")


def test_filtered_answers_are_read_only_on_request_because_they_are_the_first_of_the_repeats():
    row = row_of(RECORDED / "numbers.jsonl", NUMBERS, column="filtered_resps")
    assert row.tally.n == 1


def test_choices_hold_no_answers():
    with pytest.raises(InputError, match=r"abilities.jsonl:1: holds log-likelihoods of choices, not answers\. Use a task with"):
        row_of(RECORDED / "abilities.jsonl", NUMBERS)


def test_lines_of_other_filters_repeat_the_same_answers(written, fruit):
    path = written(line(filter="none"), line(filter="strict", filtered_resps=["apple"]))
    assert row_of(path, fruit).tally.counts == (1, 1)
    with pytest.raises(InputError, match="holds the answers of two filters, 'none' and 'strict'"):
        row_of(path, fruit, column="filtered_resps")


def test_files_of_two_runs_add_up(written, fruit):
    assert row_of(written(line(), line(answers=["{pear}"]), line()), fruit).tally.counts == (2, 3)


def test_of_several_documents_those_that_ask_the_prompt_count(written, fruit, prompt_file):
    longer = "Name a fruit. Take any."
    path = written(line(), line(longer, ["{pear}"] * 5, 1), line("Name a town.", ["{Rome}"], 2))
    assert row_of(path, fruit).tally.counts == (1, 1)
    both = prompt_file("both.json", request=["Name a fruit.", longer], targets=["{apple}", "{pear}"])
    row = row_of(path, both)
    assert (row.tally.counts, row.settings["wordings"]) == ((1, 6), 2)
    with pytest.raises(InputError, match=r"has 3 documents, and none asks the request of .*other.json"):
        row_of(path, prompt_file("other.json", request="Roll a die."))


@pytest.mark.parametrize("encode", [str, json.dumps, lambda text: json.dumps(text, ensure_ascii=False)])
def test_a_document_without_the_request_is_found_by_what_was_sent(written, prompt_file, encode):
    request = 'Nenne "eine"\nFrüchte-Art.'
    other = {**line("Town?", ["{Rome}"], 1), "doc": {"q": 2}}
    path = written({**line(request, sent=f"<user> {encode(request)} </user>"), "doc": {"q": 1}}, other)
    assert row_of(path, prompt_file(request=request, targets=["{apple}", "{pear}"])).tally.counts == (1, 1)


def test_a_single_document_that_asks_something_else_is_read_with_a_warning(written, prompt_file):
    said = []
    assert row_of(written(line()), prompt_file(request="Roll.", targets=["{apple}", "{pear}"]), said).tally.n == 2
    assert [text for text in said if "is not in the text that was sent" in text] == said != []


def test_settings_that_are_left_open_are_named(written, fruit):
    said = []
    row = row_of(written(line(given={"do_sample": True, "temperature": 1, "until": "\n"})), fruit, said)
    assert "the task does not set top_k and top_p" in said[0]
    assert row.settings == {"temperature": 1, "stop": ["\n"], "left_open": ["top_k", "top_p"]}
    assert row.settings_in_words == "temperature 1, stop ['\\n'], top_k and top_p not set"


@pytest.mark.parametrize("given", [{"do_sample": False, "temperature": 0.7}, {}, {"until": []}])
def test_greedy_answers_have_temperature_zero(written, fruit, given):
    assert row_of(written(line(given={**given, "top_k": 0, "top_p": 1})), fruit).settings["temperature"] == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "do_sample is not set: lm-eval decodes greedily. These answers are not draws"),
        ({"until": []}, "do_sample is not set: lm-eval decodes greedily"),
        ({"do_sample": False}, "do_sample is false: lm-eval decodes greedily"),
        ({"do_sample": False, "temperature": 0.5}, "do_sample is false: lm-eval decodes greedily"),
        ({"temperature": 0.0}, "temperature is 0: lm-eval decodes greedily"),
        (
            {"temperature": 0.5, "top_k": 0, "top_p": 1},
            "temperature is 0.5. These answers are not from the model's own distribution",
        ),
        ({"temperature": 0.5}, "temperature is 0.5; the task does not set top_k and top_p, so"),
        ({**FRUIT, "top_k": 20}, "top_k is 20. These answers are not"),
        ({**FRUIT, "repetition_penalty": 1.1}, "repetition_penalty is 1.1. These answers are not"),
        ({"do_sample": True, "temperature": 1}, "the task does not set top_k and top_p, so the model's generation config"),
        (FRUIT, None),
    ],
)
def test_answers_that_are_not_the_models_own_are_bent_and_named(written, fruit, given, reason):
    """Exact figures of the model are not those of bent answers."""
    said = []
    path = written(line(given=given))
    row_of(path, fruit, said)
    assert [reason in text for text in said if text.startswith("warning")] == [True] * (reason is not None)
    assert read_answers(path, fruit, None).bent == (reason is not None)


@pytest.mark.parametrize(
    ("answers", "counts"), [(["{apple}"] * 9, (18, 0)), (["{apple}"] * 9 + ["{pear}"], None)], ids=["by chance", "a copy"]
)
@pytest.mark.parametrize("change", [{}, {"target": "other bytes"}], ids=["same line", "same answers"])
def test_the_same_answers_twice_are_refused_unless_they_may_be_chance(written, fruit, answers, counts, change):
    said = []
    path = written(line(answers=answers), {**line(answers=answers), **change})
    if counts:
        assert row_of(path, fruit, said).tally.counts == counts
        assert any("doc_id 0 has 2 lines, as of several runs. The answers of all lines count" in text for text in said)
        return
    place, fault = (":2", r"repeats the answers of .*:1") if change else (":1", "is 2 times in the file")
    with pytest.raises(InputError, match=rf"jsonl{place}: {fault} \(doc_id 0\)\. Remove the copy\. For more answers, run"):
        row_of(path, fruit)


def test_runs_with_other_seeds_count_together_with_a_notice(written, fruit):
    said = []
    path = written(line(answers=["{apple}"] * 10 + ["{pear}"]), line(answers=["{pear}"] + ["{apple}"] * 10))
    assert row_of(path, fruit, said).tally.counts == (20, 2)
    assert [text for text in said if "doc_id 0 has 2 lines" in text] == said != []


def test_the_format_is_recognised_without_a_prompt():
    with pytest.raises(
        InputError, match=r"jsonl:1: is a line of lm-eval's --log_samples\. Name the prompt of its answers with --prompt"
    ):
        evaluate([RECORDED / "numbers.jsonl"], Question())


def test_a_cut_or_empty_file_is_named(tmp_path, fruit):
    path, whole = tmp_path / "s.jsonl", json.dumps(line())
    for cut in (whole[:-1], whole[:-9], whole[:20]):
        path.write_text(f"{whole}\n{cut}")
        with pytest.raises(InputError, match=r"s\.jsonl:2: the last line is cut: the file is incomplete\. Copy it again"):
            row_of(path, fruit)
    path.write_text("")
    with pytest.raises(InputError, match=r"s\.jsonl: is empty\. Name a file with answers"):
        row_of(path, fruit)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(), "{oops"], ":2: invalid JSON"),
        ([line(), {"doc_id": 1}], r":2: is no line of lm-eval's --log_samples \(doc_id, doc, arguments, resps\)"),
        ([line(resps=[["{apple}", None]])], ":1: the column 'resps' holds nothing"),
        ([line(resps=[[{"text": "x"}]])], ":1: the column 'resps' holds a mapping"),
        ([line(resps="abc")], ":1: the column 'resps' must be a list of lists of answers"),
        ([line(), line(resps=["abc"])], ":2: the column 'resps' must be a list of lists of answers"),
        ([line(resps=[[1, 2, 3]])], ":1: the column 'resps' holds 1. It must be the text of an answer"),
        ([line(), line(resps=[])], ":2: the column 'resps' holds no answers"),
        ([line(resps=[[]])], ":1: the column 'resps' holds no answers"),
        ([line(arguments=[["a"]])], ":1: holds log-likelihoods"),
        ([line(given={**FRUIT, "temperature": "hot"})], ":1: temperature of generation_kwargs is 'hot'. It must be a number"),
        ([line(given={**FRUIT, "until": 3})], ":1: until of generation_kwargs is 3. It must be a text or a list of texts"),
        (
            [line(), line(given={**FRUIT, "temperature": 0.5})],
            ":2: has other generation_kwargs than .*:1. Keep the lines of one task",
        ),
    ],
)
def test_broken_lines_are_named(written, fruit, lines, message):
    with pytest.raises(InputError, match=message):
        row_of(written(*lines), fruit)


def test_another_column_may_be_named(written, fruit):
    assert row_of(written(line()), fruit, column="target").tally.off_target == {"-": 1}
    with pytest.raises(InputError, match=r"has no column 'respss'. Did you mean 'resps'"):
        row_of(written(line()), fruit, column="respss")
