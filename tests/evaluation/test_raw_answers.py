"""Answers to one prompt from any tool: which column holds them, which counts, and what could be read in two ways."""

import gzip
import json
import re

import pandas as pd
import pytest

from diffusecli.evaluation.raw_answers import read_answers
from diffusecli.files.tables import Layout
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from tests.verbs.test_evaluate import only_row


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.json", '["{a}", "{b}", "{a}", "x"]'),
        ("s.json", '{"{a}": 2, "{b}": 1, "x": 1}'),
        ("s.json", '{"any/prompt.json": ["{a}", "{b}", "{a}", "x"]}'),
        ("s.jsonl", '"{a}"\n"{b}"\n"{a}"\n"x"\n'),
        ("s.jsonl", '{"text": "{a}", "id": 1}\n{"text": "{b}", "id": 2}\n{"text": "{a}"}\n\n{"text": "x"}'),
        ("s.jsonl", '{"response": "{a}", "count": 2}\n{"response": "{b}"}\n{"response": "x"}'),
        ("s.csv", "id,answer\n1,{a}\n2,{b}\n3,{a}\n4,x\n"),
        ("s.csv", "text,count\n{a},2\n{b},1\nx,1\n"),
        ("s.tsv", "completion\n{a}\n{b}\n{a}\nx\n"),
        ("s.txt", "{a}\n{b}\n{a}\nx\n"),
        ("s.json", '[{"answer": "{a}"}, {"answer": "{b}"}, {"answer": "{a}"}, {"answer": "x"}]'),
        ("s.csv", "text,count\n{a},2.0\n{b},1.0\nx,1.0\n"),
        ("s.csv", " text ,id\n{a},1\n{b},2\n{a},3\nx,4\n"),
        ("s.json", '[["{a}", "{b}"], ["{a}", "x"]]'),
        ("s.jsonl", '["{a}", "{b}"]\n["{a}", "x"]\n[]'),
        (
            "s.jsonl",
            '{"id": 1, "prompt": "p", "generations": ["{a}", "{b}"]}\n{"id": 2, "prompt": "p", "generations": ["{a}", "x"]}',
        ),
        ("s.jsonl", '{"id": 1, "responses": [["{a}", "{b}"]]}\n{"id": 2, "responses": [["{a}"], ["x"]]}'),
        ("s.json", '[{"id": 1, "generated_text": "{a}", "count": 2}, {"generated_text": ["{b}", "x"]}]'),
    ],
)
def test_raw_answers_from_anywhere_are_read(tmp_path, prompt_file, name, text):
    (tmp_path / name).write_text(text)
    row = only_row(tmp_path / name, prompt=prompt_file())
    assert (row.mode, row.tally.counts, dict(row.tally.off_target)) == ("s", (2, 1), {"x": 1})


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        (
            "s.jsonl",
            '{"a": "x", "b": "y"}',
            None,
            "s.jsonl:1: the column of the answers is unknown. Choose one with --column: a, b",
        ),
        ("s.csv", "a,b\n1,2\n", None, "the column of the answers is unknown. Choose one with --column: a, b"),
        ("s.csv", "a,b\n1,2\n", "c", "has no column 'c'. Available: a, b"),
        ("s.csv", "{a}\n{b}\n", None, "s.csv:1: the first line names the columns, and '{a}' is a target"),
        ("s.jsonl", '{"answer": "x"}\n{"answr": "x"}', None, "s.jsonl:2: has no column 'answer'. Did you mean 'answr'"),
        ("s.csv", "text,count\nx,many\n", None, "the count 'many' is not a whole number"),
        ("s.jsonl", '{"text": null}', None, "s.jsonl:1: the column 'text' holds nothing. It must be the text of an answer"),
        ("s.jsonl", '{"text": "x"}\n{"text": ["x", {"content": "y"}]}', None, "s.jsonl:2: the column 'text' holds a mapping"),
        (
            "s.jsonl",
            '{"response": {"body": {}}}',
            None,
            r"the column 'response' holds a mapping\. .* Choose another column with --column",
        ),
        ("s.json", "[true]", None, "s.json: item 1: the answer holds true or false"),
        ("s.json", '{"{a}": 0.7, "{b}": 0.3}', None, "s.json: holds shares, not counts"),
        ("s.json", '{"request": "r", "targets": ["a"]}', None, "s.json: is a prompt and holds no answers"),
        ("s.jsonl", "{oops", None, "s.jsonl:1: invalid JSON"),
        ("s.json", '{"a": ["x"], "b": ["y"]}', None, "For a file with several prompts remove --prompt"),
        ("s.jsonl", '{"prompt": "p", "text": "x"}\n{"prompt": "q", "text": "x"}', None, "holds answers to several prompts"),
    ],
)
def test_raw_answers_that_cannot_be_read_are_told(tmp_path, prompt_file, name, text, column, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        evaluate([tmp_path / name], Question(prompt=prompt_file(), column=column))


def answers_in(path, prompt, **options):
    """How often each target and everything else came."""
    row = evaluate([path], Question(prompt=prompt, **options)).rows[0]
    return row.tally.counts, dict(row.tally.off_target)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("s.csv", "id;answer\n1;a\n2;b\n3;a\n", {}),
        ("s.tsv", "id\tanswer\n1\ta\n2\tb\n3\ta\n".encode("utf-16"), {}),
        ("s.txt", "a\r\nb\r\na\r\n".encode("utf-16"), {}),
        ("s.csv.gz", gzip.compress(b"id,answer\n1,a\n2,b\n3,a\n", mtime=0), {}),
        ("s.json.gz", gzip.compress(b'{"a": 2, "b": 1}', mtime=0), {}),
        ("s.data", "id|answer\n1|a\n2|b\n3|a\n", {"column": "answer"}),
        ("s.txt", "1,a\n2,b\n3,a\n", {"column": "2", "layout": Layout(header_rows=0)}),
        ("s.csv", "a\nb\na\n", {"layout": Layout(header_rows=0)}),
        ("s.csv", "Ort;Antwort\nKöln;a\nKöln;b\nKöln;a\n".encode("cp1252"), {"column": "Antwort", "layout": Layout(encoding="cp1252")}),
        ("s.csv", "answer,Which?,Which?,\na,,,\nb,,,\na,,,\n", {}),
        ("s.csv", "answer,n\na,2\nb,1\n", {"count_column": "n"}),
        ("s.csv", 'answer,count\na,"2"\nb,1\n', {}),
        ("s.jsonl", '{"answer": "a", "freq": 2}\n{"answer": "b", "freq": 1}\n', {"count_column": "freq"}),
        ("s.jsonl", '{"id": 1, "generations": ["a", "b"]}\n{"id": 2, "generations": [["a"]]}\n', {"column": "generations"}),
        ("s.json", '[["a", "b"], ["a"]]', {}),
    ],
)  # fmt: skip
def test_tables_of_answers_are_read_however_they_are_written(tmp_path, prompt_file, name, content, options):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert answers_in(tmp_path / name, prompt_file(targets=["a", "b"]), **options) == ((2, 1), {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", "a\nb\na\n", "'a' occurs again below. Add --no-header"),
        ("s.csv", "a\nb\n", "s.csv:1: the first line names the columns, and 'a' is a target. Add --no-header if it is an answer"),
        ("s.csv", "answer,n\na,2\nb,1\n", "each answer occurs once, and the column 'n' looks like counts. Add --count-column n, or --count-column none"),
        ("s.jsonl", '{"answer": "a", "freq": 2}\n{"answer": "b", "freq": 1}\n', "the column 'freq' looks like counts"),
        ("s.csv", "answer,count\na,70%\nb,30%\n", "row 1: the count '70%' is not a whole number"),
        ("s.txt", "1,a\n2,b\n", "no line is a target, but a field separated by ',' is. Add --delimiter ',' and --column for a table, or --delimiter none for lines"),
        ("s.json", '{"a": 0.7, "b": 0.3}', "holds shares, not counts"),
        ("s.xlsx", b"PK\x03\x04", "is an incomplete workbook or archive"),
        ("s.csv", "answer\ncafé\n".encode("cp1252"), "Choose its encoding with --encoding: cp1252 reads 'café'"),
        ("s.jsonl", '{"answer": {"text": "a"}}', "the column 'answer' holds a mapping"),
    ],
)  # fmt: skip
def test_answers_that_can_be_read_in_two_ways_are_refused_with_the_option_that_decides(
    tmp_path, prompt_file, name, content, message
):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        evaluate([tmp_path / name], Question(prompt=prompt_file(targets=["a", "b"])))
    assert message in str(caught.value)


def test_a_column_that_is_no_count_is_left_alone(tmp_path, prompt_file):
    (tmp_path / "s.csv").write_text("answer,n\na,2\nb,1\n")
    assert answers_in(tmp_path / "s.csv", prompt_file(targets=["a", "b"]), count_column="none") == ((1, 1), {})
    (tmp_path / "s.csv").write_text("answer,n\na,1\nb,2\na,3\n")  # numbers of samples
    assert answers_in(tmp_path / "s.csv", prompt_file(targets=["a", "b"])) == ((2, 1), {})
    (tmp_path / "s.txt").write_text("Sure, a\nWell, b\n")  # a comma in every line of answers
    assert answers_in(tmp_path / "s.txt", prompt_file(targets=["a", "b"])) == ((0, 0), {"Sure, a": 1, "Well, b": 1})


def test_options_of_raw_answers_need_the_prompt_that_they_answer(in_process, tmp_path):
    for options in (["--column", "a"], ["--no-header"], ["--encoding", "cp1252"], ["--count-column", "n"]):
        done = in_process("evaluate", "s.csv", *options)
        assert (done.returncode, "Add the prompt they answer with --prompt" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "s.csv",
            " answer ,n\n{a},3\n",
            ["the column 'n' is not used: every row counts as one answer. If it counts answers, add --count-column 'n'"],
        ),
        (
            "s.jsonl",
            '{"text": "{a}", "probability": 0.5}\n{"text": "{b}", "probability": 0.5}',
            ["the column 'probability' is not used"],
        ),
        ("s.csv", "answer, count\n{a},2\n", []),
        ("s.csv", "answer,n,count\n{a},3,2\n", []),
        ("s.csv", "n\n{a}\n", []),
        ("s.txt", "n\n{a}\n", []),
    ],
)
def test_a_column_that_looks_like_counts_and_is_not_read_is_named(tmp_path, prompt_file, name, text, told):
    (tmp_path / name).write_text(text)
    notices = []
    evaluate([tmp_path / name], Question(prompt=prompt_file()), notices.append)
    unread = [notice for notice in notices if "is not used" in notice]
    assert len(unread) == len(told)
    assert all(words in notice for words, notice in zip(told, unread, strict=True))


def test_empty_lines_are_empty_answers_and_numbers_are_answers(tmp_path, prompt_file):
    asked = prompt_file(targets=["1", "2"])
    (tmp_path / "s.txt").write_text("1\n\n2\n\n")
    assert only_row(tmp_path / "s.txt", prompt=asked).tally.off_target == {"": 2}
    (tmp_path / "s.json").write_text("[1, 2.0, 2, 3.5]")
    row = only_row(tmp_path / "s.json", prompt=asked)
    assert (row.tally.counts, dict(row.tally.off_target)) == ((1, 2), {"3.5": 1})


@pytest.mark.parametrize("name", ["finish_reason", "finish_reasons"])
def test_a_list_of_answers_may_say_of_each_how_it_ended(tmp_path, prompt_file, name):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"answers": ["{a}", "{b}", "{a}"], name: ["stop", "length", "stop"]}) + "\n")
    row = evaluate([path], Question(prompt=prompt_file())).rows[0]
    assert (row.tally.counts, row.tally.unfinished) == ((2, 0), {"{b}": 1})
    path.write_text(json.dumps({"answers": ["{a}", "{b}"], name: ["length"]}) + "\n")
    with pytest.raises(InputError, match="has 2 answers but 1 finish reason"):
        evaluate([path], Question(prompt=prompt_file()))


PEOPLE = {"targets": ["{Ann, 34}", "{Bob, 35}"], "template": "{{{name}, {age}}}"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "id,age, name\n1,34,Ann\n2,34, Ann \n3,35,Bob\n4,,Bob\n"),
        ("s.csv", "name,age,count\nAnn,34,2\nBob,35,1\nBob,,1\n"),
        (
            "s.jsonl",
            '{"name": "Ann", "age": 34}\n{"name": "Ann", "age": "34"}\n{"name": "Bob", "age": 35.0}\n{"name": "Bob", "age": ""}',
        ),
        ("s.json", '[{"name": "Ann", "age": 34, "count": 2}, {"name": "Bob", "age": 35}, {"name": "Bob", "age": ""}]'),
        ("s.json", '[{"name": "Ann", "age": 34, "count": 2}, {"name": "Bob", "age": 35}, {"name": "Bob", "age": null}]'),
    ],
)
def test_columns_of_a_records_fields_are_joined_by_the_template(tmp_path, prompt_file, name, text):
    (tmp_path / name).write_text(text)
    row = only_row(tmp_path / name, prompt=prompt_file(**PEOPLE))
    assert (row.tally.counts, dict(row.tally.off_target)) == ((2, 1), {"{Bob, }": 1})


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("s.csv", "name,age\nAnn,34\nBob,\n,\n", "s.csv: row 2"),
        ("s.jsonl", '{"name": "Ann", "age": 34}\n{"name": "Bob", "age": null}\n{"name": "", "age": null}\n', "s.jsonl:2"),
        ("s.json", '[{"name": "Ann", "age": 34}, {"name": "Bob", "age": null}, {"name": "", "age": ""}]', "s.json: item 2"),
        ("s.parquet", {"name": ["Ann", "Bob", None], "age": [34, None, None]}, "s.parquet: row 2"),
    ],
)
def test_empty_fields_are_reported_and_count(tmp_path, prompt_file, name, text, place):
    """In all formats alike. Without such rows, the share of valid answers would be wrong."""
    if isinstance(text, dict):
        pd.DataFrame(text).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_text(text)
    said = []
    counts = read_answers(tmp_path / name, prompt_file(**PEOPLE), None, notice=said.append).counts
    assert counts == {"{Ann, 34}": 1, "{Bob, }": 1, "{, }": 1}
    assert said == [f"{tmp_path}/{place}: the field 'age' is empty, so the answer is '{{Bob, }}'. 2 rows have an empty field"]


@pytest.mark.parametrize("off", ["", "Ann\nBob\nwho?\n"])
@pytest.mark.parametrize("template", ["Name: {name}", "{name}, {age}"])
def test_an_only_column_of_whole_answers_may_have_the_name_of_a_field(tmp_path, prompt_file, template, off):
    """Also if most answers do not fit the template, as those of an untuned model."""
    whole = ["Name: Ann, 34", "Name: Bob, 35"]
    prompt = prompt_file(targets=whole, template=template)
    (tmp_path / "s.csv").write_text("name\n" + off + "".join(f'"{answer}"\n' for answer in whole))
    rows = [{"name": answer} for answer in (*off.split(), *whole)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "s.json").write_text(json.dumps(rows))
    for name in ("s.csv", "s.jsonl", "s.json"):
        row = only_row(tmp_path / name, prompt=prompt)
        assert (row.tally.counts, dict(row.tally.off_target)) == ((1, 1), dict.fromkeys(off.split(), 1))


def test_an_only_field_is_joined_if_its_cells_do_not_fit_the_template(tmp_path, prompt_file):
    prompt = prompt_file(targets=["Name: Ann", "Name: Bob"], template="Name: {name}")
    (tmp_path / "s.csv").write_text("name\nAnn\nBob\nBob\n")
    (tmp_path / "s.json").write_text(json.dumps([{"name": name, "id": 3} for name in ("Ann", "Bob", "Bob")]))
    for name in ("s.csv", "s.json"):
        assert only_row(tmp_path / name, prompt=prompt).tally.counts == (1, 2)


def test_a_column_of_whole_answers_is_preferred_to_fields(tmp_path, prompt_file):
    (tmp_path / "s.csv").write_text('name,age,answer\nBob,35,"{Ann, 34}"\nBob,35,"{Ann, 34}"\n')
    assert only_row(tmp_path / "s.csv", prompt=prompt_file(**PEOPLE)).tally.counts == (2, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.jsonl", '{"name": "Ann", "age": 34}\n{"name": "Bob"}', "s.jsonl:2: has no field 'age' of the prompt's template"),
        ("s.jsonl", '{"name": "Ann", "age": [34]}\n{"name": "Bob", "age": [1, 2]}', "s.jsonl:2: the field 'age' holds a list"),
        ("s.jsonl", '{"name": "Ann"}\n{"name": "Bob", "age": 40}', "s.jsonl:1: has no field 'age' of the prompt's template"),
        ("s.json", '[{"name": "Ann"}, {"name": "Bob", "age": 40}]', "s.json: item 1: has no field 'age' of the prompt's template"),
        (
            "s.json",
            '[{"age": 34, "id": 1}, {"name": "Bob", "age": 40}]',
            "s.json: item 1: has no field 'name' of the prompt's template",
        ),
        (
            "s.csv",
            "name,years\nAnn,34\n",
            "s.csv: has no field 'age' of the prompt's template. Add it, or choose a column of whole answers with --column: name, years",
        ),
        ("s.csv", "name\nAnn\n", "s.csv: has no field 'age' of the prompt's template"),
    ],
)
def test_fields_that_are_not_whole_records_are_an_error(tmp_path, prompt_file, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        only_row(tmp_path / name, prompt=prompt_file(**PEOPLE))
