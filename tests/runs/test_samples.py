"""Sample files of every format, and the journal of what has arrived."""

import csv
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.evaluation.raw_answers import read_answers
from diffusecli.files.spreadsheets import as_cell, from_cell
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.journal import Journal
from diffusecli.runs.sample_files import FORMATS
from diffusecli.runs.samples import read_samples, write_samples
from diffusecli.system.errors import InputError

SAMPLES = {
    "prompts/a.json": Counter({"{1}": 30_000, 'a "quoted", text\nof two lines': 2, "a\rb\r\n": 4, "": 1, "=1+1": 1, "ü\u2028": 3}),
    "b": Counter({"x": 1}),
    "nothing": Counter(),
}


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_is_read_again(tmp_path, form):
    path = tmp_path / f"gen{FORMATS[form]}"
    write_samples(path, SAMPLES, form, seed=0)
    kept = SAMPLES if form in ("json", "counts") else {alias: counts for alias, counts in SAMPLES.items() if counts}
    assert read_samples(path) == kept


FORMULAS = ["=1+1", "+1", "@a", "-A1", "-2+3", "-", "\t=1", "\r=1", "\n=1", "＝1", "'=1+1", "''-A1", "-1\n", "-١"]
HARMLESS = ["-5", "-5.25", "-1e-3", "7", "it's", "'", "'tis", "''", "", "a=1", "'-5", " =1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(tmp_path, text):
    write_samples(tmp_path / "gen.csv", {text: Counter({text: 2})}, "csv", 0)
    with (tmp_path / "gen.csv").open(newline="") as file:
        assert list(csv.reader(file))[1] == [f"'{text}", f"'{text}", "2"]
    assert read_samples(tmp_path / "gen.csv") == {text: Counter({text: 2})}


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text):
    assert as_cell(text) == from_cell(text) == text


@given(st.text(alphabet="'=-+@5.e\t\r\na") | st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back_from_its_cell(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "gen.csv"
    write_samples(path, {text: Counter({text: 1, f"'{text}": 2})}, "csv", 0)
    assert read_samples(path) == {text: Counter({text: 1, f"'{text}": 2})}


def test_answers_to_one_prompt_lose_the_apostrophe_of_our_tables(tmp_path):
    (tmp_path / "p.json").write_text('{"request": "r", "targets": ["=1", "b"]}')
    write_samples(tmp_path / "gen.csv", {"p.json": Counter({"=1": 3, "'=1": 1, "b": 2})}, "csv", 0)
    assert read_answers(tmp_path / "gen.csv", tmp_path / "p.json", None).counts == Counter({"=1": 3, "'=1": 1, "b": 2})


def test_single_answers_are_written_as_json_has_them_in_an_order_of_the_seed(tmp_path):
    texts = []
    for seed in (0, 0, 1):
        write_samples(tmp_path / "gen.json", SAMPLES, "json", seed)
        whole = (tmp_path / "gen.json").read_text()
        texts.append(json.loads(whole)["prompts/a.json"])
        assert Counter(texts[-1]) == SAMPLES["prompts/a.json"]
    small = {"a": Counter({"x": 2, "y": 1}), "b": Counter({"z": 1})}
    write_samples(tmp_path / "small.json", small, "json", 0)
    written = (tmp_path / "small.json").read_text()
    assert written == json.dumps(json.loads(written), indent=2, ensure_ascii=False) + "\n"
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] != sorted(texts[0])


def test_counts_of_a_million_samples_are_small(tmp_path):
    write_samples(tmp_path / "gen.json", {"p": Counter({f"{{{n}}}": 10_000 for n in range(100)})}, "counts", 0)
    assert (tmp_path / "gen.json").stat().st_size < 3000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gen.json", '{"p": "text"}', "must be a list of strings"),
        ("gen.json", '{"p": {"a": -1}}', "counts by string"),
        ("gen.json", '{"p": {"a": true}}', "counts by string"),
        ("gen.jsonl", '{"prompt": "p"}\n', r"gen\.jsonl:1: must be"),
        ("gen.jsonl", '{"prompt": "p", "text": 3}\n', "gen.jsonl:1: must be "),
        ("gen.csv", "a,b\n1,2\n", "must have the columns"),
        ("gen.csv", "prompt,text,count\np,a,many\n", "must have the columns"),
        ("gen.csv", "prompt,text,count\np,a,-1\n", "must have the columns"),
    ],
)
def test_files_that_are_no_samples_are_told(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_samples(tmp_path / name)


A, B = (Prompt(request=request, targets=(), alias=f"{request}.json") for request in "ab")
KEY = {"seed": 0, "settings": {"stop": ()}}


def test_a_journal_gives_back_what_arrived(tmp_path):
    path = tmp_path / "gen.partial.jsonl"
    first = Journal(path, KEY)
    first.add(A, Counter({"x": 2}), 5)
    first.add(A, Counter({"x": 1, "y\n": 1}), 2)
    again = Journal(path, KEY)
    assert again.of(A) == Counter({"x": 3, "y\n": 1})
    assert again.tokens[A.key] == 7
    assert again.of(B) == Counter()
    assert again.of(Prompt(request="other", targets=(), alias=A.alias)) == Counter()
    again.remove()
    assert not path.exists()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_is_dropped_and_the_next_one_is_whole(tmp_path, cut):
    path = tmp_path / "gen.partial.jsonl"
    journal = Journal(path, KEY)
    journal.add(A, Counter({"x": 2}), 5)
    journal.add(B, Counter({"z": 4}), 5)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, KEY)
    assert (again.of(A), again.of(B)) == (Counter({"x": 2}), Counter())
    again.add(B, Counter({"w": 1}), 1)
    assert Journal(path, KEY).of(B) == Counter({"w": 1})


@pytest.mark.parametrize("content", [b"junk\n", b"[]\n", b'{"seed": 1}\n{"prompt": "a.json"}\n'])
def test_a_journal_of_something_else_is_put_aside(tmp_path, content):
    path = tmp_path / "gen.partial.jsonl"
    for n in (1, 2):
        path.write_bytes(content)
        journal = Journal(path, KEY)
        assert journal.aside == tmp_path / f"gen.partial.{n}.jsonl"
        assert journal.aside.read_bytes() == content
    assert journal.of(A) == Counter()
    journal.add(A, Counter({"x": 2}), 5)
    assert Journal(path, KEY).of(A) == Counter({"x": 2})


def test_a_bad_line_in_the_middle_ends_the_journal_for_good(tmp_path):
    path = tmp_path / "gen.partial.jsonl"
    Journal(path, KEY).add(A, Counter({"x": 1}), 1)
    with path.open("ab") as file:
        file.write(b"junk\n")
    Journal(path, KEY).add(A, Counter({"y": 5}), 1)
    assert Journal(path, KEY).of(A) == Counter({"x": 1, "y": 5})
