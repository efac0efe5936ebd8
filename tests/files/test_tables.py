"""A file becomes a table, whatever it is called and however it is written; what could be read in two ways is refused."""

import bz2
import gzip
import io
import json
import lzma
import sys
import zipfile

import pandas as pd
import pytest

from diffusecli.files.table_files import read_table
from diffusecli.files.tables import Layout
from diffusecli.prompts.observations import distributions_in
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError


def shares(made):
    """Outcomes with their probabilities."""
    weights = made.weights or (1 / len(made.outcomes),) * len(made.outcomes)
    return dict(zip(made.outcomes, weights, strict=True))


def read(path, **options):
    """The only distribution of a file."""
    return shares(distributions_in(path, Reading(**options))[()])


def put(folder, name, content):
    """A file with this text or these bytes."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


SEVENTY = {"Yes": 0.7, "No": 0.3}
COLUMNS = {"column": "answer", "weight_column": "n"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "answer,n\nYes,7\nNo,3\n"),
        ("t.csv", "answer;n\nYes;7\nNo;3\n"),
        ("t.csv", "answer;n\nYes;0,7\nNo;0,3\n"),
        ("t.csv", "\ufeffanswer;n\r\nYes;0,7\r\nNo;0,3\r\n"),
        ("t.csv", "sep=;\r\nanswer;n\r\nYes;7\r\nNo;3\r\n"),
        ("t.csv", "answer\tn\nYes\t7\nNo\t3\n"),
        ("t.csv", "answer|n\nYes|7\nNo|3\n"),
        ("t.csv", "answer,n\rYes,7\rNo,3\r"),
        ("t.tsv", "answer\tn\nYes\t7\nNo\t3\n".encode("utf-16")),
        ("t.txt", "answer\tn\r\nYes\t7\r\nNo\t3\r\n".encode("utf-16")),
        ("t.txt", "answer\tn\nYes\t7\nNo\t3\n"),
        ("t.txt", "answer,n\nYes,7\nNo,3\n"),
        ("t.data", "answer,n\nYes,7\nNo,3\n"),
        ("t", "answer;n\nYes;7\nNo;3\n"),
        ("t.xls", "answer\tn\nYes\t7\nNo\t3\n"),
        ("t.csv.gz", gzip.compress(b"answer,n\nYes,7\nNo,3\n", mtime=0)),
        ("t.csv.bz2", bz2.compress(b"answer,n\nYes,7\nNo,3\n")),
        ("t.tsv.xz", lzma.compress(b"answer\tn\nYes\t7\nNo\t3\n")),
        ("t.json.gz", gzip.compress(b'[{"answer": "Yes", "n": 7}, {"answer": "No", "n": 3}]', mtime=0)),
        ("t.json", '[{"answer": "Yes", "n": 7}, {"answer": "No", "n": 3}]'),
        ("t.json", '{"answer": "Yes", "n": 7}\n{"answer": "No", "n": 3}\n'),
        ("t.jsonl", '[{"answer": "Yes", "n": 7},\n {"answer": "No", "n": 3}]'),
        ("t.jsonl", '[{"answer": "Yes", "n": 7}, {"answer": "No", "n": 3}]'),
        ("t.ndjson", '{"answer": "Yes", "n": 7}\n{"answer": "No", "n": 3}\n'),
        ("t.txt", '{"answer": "Yes", "n": 7}\n{"answer": "No", "n": 3}\n'),
        ("t.csv", '[{"answer": "Yes", "n": 7}, {"answer": "No", "n": 3}]'),
        ("t.json", '{"answer": ["Yes", "No"], "n": [7, 3]}'),
        ("t.json", '{"answer": {"0": "Yes", "1": "No"}, "n": {"0": 7, "1": 3}}'),
        ("t.json", '{"columns": ["answer", "n"], "index": [0, 1], "data": [["Yes", 7], ["No", 3]]}'),
        ("t.json", '{"meta": {"of": 2024}, "data": [{"answer": "Yes", "n": "7"}, {"answer": "No", "n": "3"}]}'),
        ("t.json", '[["answer", "n"], ["Yes", 7], ["No", 3]]'),
    ],
)  # fmt: skip
def test_a_table_is_the_same_table_in_every_way_of_writing(tmp_path, name, content):
    assert read(put(tmp_path, name, content), **COLUMNS) == SEVENTY


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", '{"Yes": 70, "No": 30}'), ("t.json", '{"Yes": 0.7, "No": 0.3}'), ("t.json", '{"Yes": "70%", "No": "30%"}'),
        ("t.txt", '{"Yes": 70, "No": 30}'), ("t.json", '{"coin": {"Yes": 70, "No": 30}}'),
    ],
)  # fmt: skip
def test_json_counts_need_no_columns(tmp_path, name, content):
    path = put(tmp_path, name, content)
    assert read(path) == SEVENTY
    assert read(path, top=1) == {"Yes": 1}
    with pytest.raises(InputError, match=r"already contains counts. Leave --count out"):
        read(path, count=True)


def test_json_counts_by_group_and_lists_of_pairs(tmp_path):
    path = put(tmp_path, "t.json", '{"North": {"Yes": 7, "No": 3}, "South": {"Yes": 1, "No": 1}}')
    made = distributions_in(path, Reading(column="target", weight_column="weight", group_by=("group",)))
    assert shares(made[("North",)]) == SEVENTY
    assert "group, target and weight" in made[("North",)].notice
    assert read(put(tmp_path, "pairs.json", '[["Yes", 7], ["No", 3]]'), column="1", weight_column="2") == SEVENTY
    assert read(put(tmp_path, "list.json", '["Yes", "No", 3, true]')) == dict.fromkeys(("Yes", "No", "3", "True"), 0.25)


@pytest.mark.parametrize(
    ("content", "weights"),
    [
        ('{"Yes": {"n": 7}, "No": {"n": 3}}', "n"), ('{"Yes": {"n": 70, "pct": 0.6}, "No": {"n": 30, "pct": 0.4}}', "n"),
        ('{"n": {"Yes": 70, "No": 30}, "pct": {"Yes": 0.6, "No": 0.4}}', "n"), ('{"Yes": {"2019": 7, "2020": 5}, "No": {"2019": 3, "2020": 5}}', "2019"),
        ('{"2019": {"Yes": 7, "No": 3}, "2020": {"Yes": 5, "No": 5}}', "2019"),
    ],
)  # fmt: skip
def test_json_mappings_are_rows_where_their_names_weigh_or_are_chosen(tmp_path, content, weights):
    assert read(put(tmp_path, "t.json", content), column="target", weight_column=weights) == SEVENTY


@pytest.mark.parametrize(
    "content",
    [
        '{"US": {"Yes": 70, "No": 30}, "DE": {"Yes": 1, "No": 1}}', '{"a": {"a": 1, "b": 2}, "b": {"a": 2, "b": 1}}',
        '{"n": {"n": 1, "pct": 2}, "pct": {"n": 2, "pct": 1}}',
    ],
)  # fmt: skip
def test_json_mappings_that_may_be_groups_are_pooled_only_by_name(tmp_path, content):
    path = put(tmp_path, "t.json", content)
    with pytest.raises(InputError, match=r"holds 2 mappings of numbers.* Add --group-by group if each is a group"):
        read(path)
    made = distributions_in(path, Reading(group_by=("group",)))
    assert len(made) == 2


def test_rows_of_json_mappings_need_their_columns_named(tmp_path):
    with pytest.raises(InputError, match=r"has 2 columns. Choose the column of targets with --column: target, n"):
        read(put(tmp_path, "t.json", '{"Yes": {"n": 3}, "No": {"n": 1}}'))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "answer\ncafé\n".encode("cp1252"), "t.csv:2: is not UTF-8. Choose its encoding with --encoding: cp1252 reads 'café'"),
        ("t.txt", "a\nb\nthé\n".encode("latin-1"), "t.txt:3: is not UTF-8. Choose its encoding with --encoding: cp1252 reads 'thé'"),
        ("t.csv", "answer,n\nYes,7\n".encode("utf-16-le"), "looks like UTF-16 without a byte order mark. Add --encoding utf-16-le"),
        ("t.csv", "answer,n\nYes,7\n".encode("utf-16-be"), "looks like UTF-16 without a byte order mark. Add --encoding utf-16-be"),
        ("t.data", bytes(range(256)), "is not UTF-8"),
        ("t.bin", b"abc\0\0\0\1", "is a binary file. Save it as CSV, JSON or Parquet"),
        ("t.xls", "<table><tr><td>x</table>", "is an HTML or XML page. Open it in a spreadsheet and save it as CSV"),
        ("t.xls", '<?xml version="1.0"?><Workbook/>', "is an HTML or XML page"),
        ("t.xlsx", b"PK\x03\x04\x14\0\6\0\x08\0", "is an incomplete workbook or archive. Download or save it again"),
        ("t.pdf", b"%PDF-1.4 x", "is a PDF, not a table that can be read. Save it as CSV or Parquet"),
        ("t.sav", b"$FL2@(#) SPSS", "is an SPSS file"),
        ("t.csv.zst", b"\x28\xb5\x2f\xfdxx", "is packed by Zstandard"),
        ("t.csv.gz", gzip.compress(b"answer\n" * 999, mtime=0)[:-9], "is compressed but incomplete"),
        ("t.json", "[1, 2", "t.json:1:6: invalid JSON"),
        ("t.jsonl", '{"a": 1}\n{"a": ', "t.jsonl:2: invalid JSON. Correct the line"),
        ("t.json", '{"answer": "Yes", "n": 7}', 'holds neither rows nor counts. Write a list of mappings, [{"answer": "Yes", "n": 71}], or counts, {"Yes": 71}'),
        ("t.json", '["\\ud800"]', "contains a lone surrogate (half of a character)"),
        ("t.jsonl", '["\\ud800"]', "t.jsonl:1: contains a lone surrogate (half of a character)"),
        ("t.json", '{"request": "?", "targets": ["a"]}', "is already a prompt"),
        ("t.json", "3", "holds a single value"),
        ("t.json", "[]", "contains no rows"),
        ("t.json", "{}", "holds neither rows nor counts"),
        ("t.json", '[["a", "b"], ["c", "d"]]', "Use --header-rows 1 if the first row names the columns, else --no-header"),
        ("t.json", '[{"a": 1}, ["b"]]', "some rows are mappings or lists and some are not"),
        ("t.json", '[["a", 1], ["b"]]', "rows have 1 to 2 values"),
        ("t.txt", "Mary,F,7065\nAnna,F,2604\n", "each line has 3 fields separated by commas. First line: 'Mary, F, 7065'. Choose the column of targets with --column"),
        ("t.txt", "red, green, blue\n", "has one line with commas. Write one target per line, or keep the line as one target with --delimiter none"),
        ("t.txt", "Yes: 71\nNo: 29\n", "each line ends with a number that looks like a weight. First line: 'Yes: 71'. Separate target and weight with one character"),
        ("t.txt", "Yes=71%\nNo=29%\n", "each line ends with a number that looks like a weight"),
        ("t.txt", "Yes   71\nNo    29\n", "each line ends with a number that looks like a weight"),
        ("t.txt", "Yes 71%\nNo 29%\n", "each line ends with a number that looks like a weight"),
        ("t.txt", "Yes 71\nNo 29\n", "each line ends with a number that looks like a weight. First line: 'Yes 71'"),
        ("t.dat", "Don't know 0.2\nYes 0.8\n", "each line ends with a number that looks like a weight"),
        ("t.txt", "answer n\nYes 71\nNo 29\n", "each line ends with a number that looks like a weight. First line: 'Yes 71'"),
        ("t.csv", "Yes 71\nNo 29\n", "each line ends with a number that looks like a weight. First line: 'Yes 71'"),
        ("t.txt", "Yes - 71\nNo - 29\n", "each line ends with a number that looks like a weight"),
        ("t.txt", "Yes (71)\nNo (29)\n", "each line ends with a number that looks like a weight"),
        ("t.txt", "     71 Yes\n      9 No\n", "each line begins with a number that looks like a weight. First line: '71 Yes'"),
        ("t.dat", "a;1\nb;2\n", "each line has 2 fields separated by semicolons"),
        ("t.csv", "Yes;0,71\nNo;0,29\n", "can be read as fields separated by commas and by semicolons. Choose the delimiter"),
        ("t.csv", "answer;n\nYes;7\nNo\n", "t.csv:3: has 1 field, but the header has 2. Correct the row"),
        ("t.csv", "answer\nYes;7\nNo;3\n", "t.csv:2: has 2 fields separated by semicolons, but the header has 1. Choose the delimiter"),
        ("t.csv", "Table 1. Answers\nanswer,n\nYes,7\n", "t.csv:2: has 2 fields, but the header has 1. Correct the row, choose another --delimiter, or skip the rows above the header with --skip-rows"),
        ("t.csv", "Table 1. Answers,\nanswer,n\nYes,7\n", "the first row names only one of 2 columns: 'Table 1. Answers'. Skip it with --skip-rows 1"),
        ("t.csv", "Mary,F,7065\nAnna,F,2604\nJohn,M,9655\n", "the first row looks like data: '7065' is above numbers. Add --no-header"),
        ("t.csv", "yes,71%\nno,29%\n", "the first row looks like data: '71%' is above numbers"),
        ("t.csv", "2024-01-01,yes\n2024-01-02,no\n", "'2024-01-01' is above days"),
        ("t.csv", "North,yes\nNorth,no\nSouth,yes\n", "the first row looks like data: 'North' occurs again below"),
        ("t.csv", "yes\nno\nyes\n", "the first row looks like data: 'yes' occurs again below"),
        ("t.csv", "answer,n\nYes,7\nanswer,n\nNo,3\n", "row 2 repeats the header"),
        ("t.csv", "id,Do you?\n,Response\n1,Yes\n2,No\n", "the second row also looks like names ('Response'). Add --header-rows 2"),
        ("t.csv", 'Start,Q1\nStart Date,Do you?\n"{""ImportId"":""s""}","{""ImportId"":""Q""}"\n1,Yes\n', "has 3 header rows, as written by Qualtrics. Add --header-rows 3"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused_with_what_helps(tmp_path, name, content, message):
    with pytest.raises(InputError) as caught:
        read_table(put(tmp_path, name, content))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "layout", "options", "expected"),
    [
        ("t.csv", "Mary,F,7\nAnna,F,2\nJohn,M,1\n", Layout(header_rows=0), {"column": "1", "weight_column": "3"}, {"Mary": 0.7, "Anna": 0.2, "John": 0.1}),
        ("t.txt", "Mary,F,7\nAnna,F,2\nJohn,M,1\n", Layout(header_rows=0), {"column": "1", "weight_column": "3"}, {"Mary": 0.7, "Anna": 0.2, "John": 0.1}),
        ("t.txt", "10:30\n11:45\n", Layout(), {}, {"10:30": 0.5, "11:45": 0.5}),
        ("t.txt", "Agent 7\nRoom 101\n", Layout("none"), {}, {"Agent 7": 0.5, "Room 101": 0.5}),
        ("t.txt", "Agent 7\nJohn\n", Layout(), {}, {"Agent 7": 0.5, "John": 0.5}),
        ("t.txt", "18-24\n25-34\n", Layout(), {}, {"18-24": 0.5, "25-34": 0.5}),
        ("t.txt", "10 000\n20 000\n", Layout(), {}, {"10 000": 0.5, "20 000": 0.5}),
        ("t.txt", "Yes: 71\nNo: 29\n", Layout("none"), {}, {"Yes: 71": 0.5, "No: 29": 0.5}),
        ("t.txt", "Yes: 71\nNo: 29\n", Layout(":", header_rows=0), {"column": "1", "weight_column": "2"}, {"Yes": 0.71, "No": 0.29}),
        ("t.txt", "a,b\nc,d\n", Layout("none"), {}, {"a,b": 0.5, "c,d": 0.5}),
        ("t.csv", "a,b\nc,d\n", Layout("none"), {}, {"a,b": 0.5, "c,d": 0.5}),
        ("t.csv", "Ja;0,7\nNein;0,3\n", Layout(";", header_rows=0), {"column": "1", "weight_column": "2"}, {"Ja": 0.7, "Nein": 0.3}),
        ("t.csv", "Ja;0,7\nNein;0,3\n", Layout("semicolon", header_rows=0), {"column": "1", "weight_column": "2"}, {"Ja": 0.7, "Nein": 0.3}),
        ("t.csv", "answer n\nYes 7\nNo 3\n", Layout("space"), COLUMNS, SEVENTY),
        ("t.csv", "answer\ncafé\n".encode("cp1252"), Layout(encoding="cp1252"), {}, {"café": 1}),
        ("t.csv", "answer,n\nYes,7\nNo,3\n".encode("utf-16-le"), Layout(encoding="utf-16-le"), COLUMNS, SEVENTY),
        ("t.csv", "Table 1\n\nanswer,n\nYes,7\nNo,3\n", Layout(skip_rows=2), COLUMNS, SEVENTY),
        ("t.csv", "id,Do you?\n,Response\n1,Yes\n2,No\n", Layout(header_rows=2), {"column": "Do you?"}, {"Yes": 0.5, "No": 0.5}),
        ("t.csv", "id,Which?,\n,A,B\n1,a,b\n2,,b\n", Layout(header_rows=2), {"column": "B", "count": True}, {"b": 1}),
        ("t.csv", "yes\nno\nyes\n", Layout(header_rows=0), {"count": True}, {"yes": 0.666666667, "no": 0.333333333}),
        ("t.csv", "yes\nno\nyes\n", Layout(header_rows=1), {}, {"no": 0.5, "yes": 0.5}),
    ],
)  # fmt: skip
def test_the_options_decide(tmp_path, name, content, layout, options, expected):
    assert read(put(tmp_path, name, content), layout=layout, **options) == expected


def test_columns_without_a_name_or_with_the_name_of_another_do_not_stand_in_the_way(tmp_path):
    path = put(tmp_path, "t.csv", "id,Do you cycle?,Which?,,Which?,\n1,Yes,a,,b,\n2,No,,c,,\n")
    assert read(path, column="Do you cycle?") == {"Yes": 0.5, "No": 0.5}
    assert read(path, column="4") == {"c": 1}
    assert read_table(path).names == ("id", "Do you cycle?", "Which?", "4", "Which?", "6")
    with pytest.raises(InputError, match=r"columns 3 and 5 are all named 'Which\?'. Choose one by its number: --column 3"):
        read(path, column="Which?")
    assert read(path, column="5") == {"b": 1}


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("country,2019,2020\nA,5,7\nB,5,3\n", {"column": "country", "weight_column": "2020"}),  # years name columns
        ("answer,n,1,2,3\nA,7,5,5,5\nB,3,1,1,1\n", {"column": "answer", "weight_column": "n"}),  # numbers that count up, too
        ("answer,Other\nA,Other\nB,\nA,Other\n", {"column": "answer", "count": True}),  # a box that was ticked
        (" answer , n\nA ,7\nB,3\n", {"column": "answer", "weight_column": "n"}),
    ],
)
def test_a_chosen_column_works_whatever_the_other_headers_are(tmp_path, content, options):
    made = distributions_in(put(tmp_path, "t.csv", content), Reading(**options))[()]
    assert made.outcomes == ("A", "B")


def test_the_first_line_of_a_single_column_is_said_to_name_it(tmp_path):
    path = put(tmp_path, "t.csv", "Mary\nAnna\nJohn\n")
    made = distributions_in(path, Reading())[()]
    assert made.outcomes == ("Anna", "John")
    assert f"the first line of {path}, 'Mary', names the column (--no-header if it is data)" in made.notice
    assert distributions_in(path, Reading(column="Mary"))[()].notice == ""


def test_blank_lines_of_a_single_column_are_said_to_be_left_out(tmp_path):
    table = read_table(put(tmp_path, "t.csv", 'answer\na\n\n\nb\n""\n\n'))
    assert list(table.columns[0]) == ["a", "b", ""]
    assert f'skipped blank lines of {table.path}: 2. Write "" for an empty answer' in table.notices
    assert not read_table(put(tmp_path, "u.csv", "answer,n\na,1\n\nb,2\n")).notices


def test_quotes_in_tabbed_files_are_taken_off_where_every_quoted_field_is_whole(tmp_path):
    path = put(tmp_path, "t.tsv", 'answer\tn\n"Yes, of course"\t7\n"a ""b"""\t3\n')
    made = distributions_in(path, Reading(**COLUMNS))[()]
    assert made.outcomes == ("Yes, of course", 'a "b"')
    assert f"quotes around fields of {path} are removed" in made.notice


@pytest.mark.parametrize(
    ("layout", "name", "content", "message"),
    [
        ({"delimiter": "ab"}, "", "", "must be one character, or one of tab"),
        ({"encoding": "cp12521"}, "", "", "--encoding cp12521: unknown encoding. Did you mean 'cp1252'?"),
        ({"header_rows": -1}, "", "", "--header-rows -1: must be 0 or more"),
        ({"encoding": "rot13"}, "", "", "--encoding rot13"),
        ({"encoding": "ascii"}, "t.csv", "answer\ncafé\n", "byte 10 is not ascii. Choose another --encoding"),
        ({"delimiter": ";"}, "t.json", '{"a": 1}', "t.json: contains no rows"),
        ({"sheet": "x"}, "t.csv", "a\nb\n", "is text: --sheet has no effect. Leave it out"),
        ({"header_rows": 0}, "t.json", '[{"a": 1}]', "--header-rows has no effect"),
    ],
)
def test_options_of_a_layout_that_cannot_be_are_refused(tmp_path, layout, name, content, message):
    with pytest.raises(InputError) as caught:
        read_table(put(tmp_path, name or "t", content), Layout(**layout))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "delimiter", "expected"),
    [
        (["37%", "63 %"], ",", [0.37, 0.63]), (["%37", "%63"], ",", [0.37, 0.63]), (["1,234", "567"], ",", [1234, 567]), (["1.234,5", "765,5"], ",", [1234.5, 765.5]),
        (["0,71", "0,29"], ",", [0.71, 0.29]), (["0,71", "0,29"], ";", [0.71, 0.29]), (["1.234,5", "1.000"], ";", [1234.5, 1000]),
        (["0.5", "1.234"], ";", [0.5, 1.234]), (["1.234", "0.5"], "\t", [1.234, 0.5]), (["1.234", "5"], ",", [1.234, 5]), (["1 234", "1\u00a0000"], ";", [1234, 1000]), (["1'234", "5"], ",", [1234, 5]),
        (["1,234,567", "1"], ";", [1234567, 1]), (["12,34,567", "1"], ",", [1234567, 1]), (["1e-3", ".5"], ",", [0.001, 0.5]), (["0", "37%"], ",", [0, 0.37]),
    ],
)  # fmt: skip
def test_weights_are_read_as_people_write_them(tmp_path, numbers, delimiter, expected):
    rows = "".join(
        f'{name}{delimiter}"{number}"\n' if delimiter != "\t" else f"{name}\t{number}\n"
        for name, number in zip("ab", numbers, strict=True)
    )
    made = read(put(tmp_path, "t.csv", f"answer{delimiter}n\n{rows}"), **COLUMNS)
    assert made == pytest.approx({name: number / sum(expected) for name, number in zip("ab", expected, strict=True)}, abs=1e-8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a;1,234\nb;567\n", "row 1 of column n: the weight '1,234' can be 1234 or 1.234. Name the decimal sign: --decimal . or --decimal ,"),
        ("a\t1.234\nb\t567\n", "row 1 of column n: the weight '1.234' can be 1.234 or 1234. Name the decimal sign"),
        ("a|1.234\nb|567\n", "row 1 of column n: the weight '1.234' can be 1.234 or 1234. Name the decimal sign"),
        ("a\t1,234\nb\t567\n", "row 1 of column n: the weight '1,234' can be 1234 or 1.234. Name the decimal sign"),
        ("a;1\nb;1.234\n", "row 2 of column n: the weight '1.234' can be"),
        ("a;37%\nb;63\n", "row 2 of column n: the weight '63' has no %, but others do. Write all numbers with % or none"),
        ("a;7\n;\nb;*\n", "row 3 of column n: the weight '*' is not a number"),
        ("a;<1%\nb;99%\n", "row 1 of column n: the weight '<1%' is not a number"),
        ("a;1.5\nb;1,5\n", "row 2 of column n"),
        ("a;7\nb;\n", "row 2 of column n: the weight '' is not a number"),
        ("a;nan\nb;1\n", "row 1 of column n: the weight 'nan'"),
        ("a;1_0\nb;1\n", "row 1 of column n: the weight '1_0'"),
        ("a;-1\nb;1\n", "row 1 of column n: the weight '-1' is negative. Write a finite number that is zero or more"),
        ("a;[1, 2]\nb;1\n", "row 1 of column n holds a list. Name the columns of lists with --options-column and --shares-column"),
    ],
)  # fmt: skip
def test_weights_that_are_no_numbers_or_could_be_two_are_refused_with_their_row(tmp_path, rows, message):
    path = put(tmp_path, "t.csv", f"answer{rows[1]}n\n{rows}")
    with pytest.raises(InputError) as caught:
        read(path, **COLUMNS)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "said", "other", "right"),
    [
        (
            "a,1.204\nb,830\nc,46\n",
            "1.204 is read as a decimal number. If the dot separates thousands, use --decimal ,",
            ",",
            {"a": 1204 / 2080, "b": 830 / 2080, "c": 46 / 2080},
        ),
        ("a,1.204\nb,2.5\nc,46\n", "", ".", {"a": 1.204 / 49.704, "b": 2.5 / 49.704, "c": 46 / 49.704}),
        ("a,0.204\nb,46\n", "", ".", {"a": 0.204 / 46.204, "b": 46 / 46.204}),
        ("a,1.204\nb,2.796\n", "", ".", {"a": 0.301, "b": 0.699}),
        ('a,"1,204"\nb,796\n', "", ".", {"a": 0.602, "b": 0.398}),
    ],
)
def test_a_decimal_number_among_whole_numbers_that_may_have_thousands_is_told(tmp_path, rows, said, other, right):
    path = put(tmp_path, "t.csv", f"answer,n\n{rows}")
    notice = distributions_in(path, Reading(**COLUMNS))[()].notice
    assert [line for line in notice.splitlines() if "is read as" in line] == ([said] if said else [])
    assert read(path, **COLUMNS, decimal=other) == pytest.approx(right, abs=1e-8)
    assert "is read as" not in distributions_in(path, Reading(**COLUMNS, decimal="." if said else other))[()].notice


def test_the_decimal_sign_can_be_named(tmp_path):
    path = put(tmp_path, "t.csv", "answer;n\na;1,500\nb;500\n")
    assert read(path, **COLUMNS, decimal=".") == {"a": 0.75, "b": 0.25}
    assert read(path, **COLUMNS, decimal=",") == pytest.approx({"a": 1.5 / 501.5, "b": 500 / 501.5}, abs=1e-8)


def test_an_index_that_holds_the_answers_is_a_column(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, an extra")
    path = tmp_path / "t.parquet"
    pd.Series(["Yes"] * 7 + ["No"] * 3, name="answer").value_counts().to_frame("n").to_parquet(path)
    assert read(path, **COLUMNS) == SEVENTY
    path.rename(tmp_path / "t.bin")  # and the ending does not matter
    assert read(tmp_path / "t.bin", **COLUMNS) == SEVENTY


# Excel, whose readers are an extra: pandas with a stand-in for what openpyxl gives


def workbook(path):
    """What looks like an .xlsx file from outside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    return path


def with_sheets(monkeypatch, **sheets):
    """`pandas.read_excel` gives these rows of cells as openpyxl has them: numbers as numbers, nothing as empty text."""
    monkeypatch.setattr(
        pd, "read_excel", lambda *_, **__: {name: pd.DataFrame(rows, dtype=object) for name, rows in sheets.items()}
    )


def test_workbooks_are_read_by_sheet(tmp_path, monkeypatch):
    path = workbook(tmp_path / "t.xlsx")
    with_sheets(monkeypatch, one=[["answer", "n"], ["Yes", 7], ["No", 3.0], ["", ""]], empty=[])
    assert read(path, **COLUMNS) == SEVENTY
    with_sheets(monkeypatch, one=[["a", "b"]], two=[["Table 1", ""], ["answer", "n"], ["Yes", 0.7], ["No", 0.3]])
    with pytest.raises(InputError, match=r"has 2 sheets. Choose one with --sheet: one, two"):
        read(path, **COLUMNS)
    with pytest.raises(InputError, match=r"has no sheet 'twoo' with cells \(--sheet\). Did you mean 'two'"):
        read(path, **COLUMNS, layout=Layout(sheet="twoo"))
    assert read(path, **COLUMNS, layout=Layout(sheet="two", skip_rows=1)) == SEVENTY
    with_sheets(monkeypatch, one=[["Mary", 7], ["Anna", 3]])
    with pytest.raises(InputError, match=r"the first row looks like data: '7' is above numbers"):
        read(path, column="1", weight_column="2")
    assert read(path, column="1", weight_column="2", layout=Layout(header_rows=0)) == {"Mary": 0.7, "Anna": 0.3}
    with pytest.raises(InputError, match=r"is an Excel workbook: --delimiter has no effect"):
        read(path, layout=Layout(";"))


@pytest.mark.parametrize(("name", "module"), [("t.xlsx", "openpyxl"), ("t.xls", "xlrd")])
def test_a_workbook_without_its_reader_is_a_sentence_with_the_command(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    path = (
        workbook(tmp_path / name) if module == "openpyxl" else put(tmp_path, name, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    )
    with pytest.raises(InputError, match=rf"{name}: reading an Excel workbook needs {module}. Run `pip install {module}`"):
        read_table(path)


@pytest.mark.parametrize(
    ("member", "message"),
    [("a.csv", "is a ZIP archive, not an .xlsx workbook. Unpack it"), ("mimetype", "Save it as .xlsx or CSV"), ("xl/workbook.bin", "Save it as .xlsx or CSV")],
)  # fmt: skip
def test_archives_that_are_no_workbooks_are_refused(tmp_path, member, message):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.zip")


def test_real_workbooks(tmp_path):
    pytest.importorskip("openpyxl", reason="Excel needs openpyxl, an extra")
    path = tmp_path / "t.xlsx"
    pd.DataFrame({"answer": ["Yes", "No"], "n": [0.7, 0.3], "day": pd.to_datetime(["2024-06-01", "2024-06-02"])}).to_excel(
        path, index=False
    )
    assert read(path, **COLUMNS) == SEVENTY
    assert set(read(path, column="day")) == {"2024-06-01", "2024-06-02"}


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusecli.files.table_files.MOST_BYTES", 1000)
    for name, content in (("t.csv.gz", gzip.compress(b"a\n" * 600, mtime=0)), ("t.csv.bz2", bz2.compress(b"a\n" * 600))):
        with pytest.raises(InputError, match=r"is larger than"):
            read_table(put(tmp_path, name, content))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "a" * 2000)
    with pytest.raises(InputError, match=r"after unpacking"):
        read_table(put(tmp_path, "t.xlsx", packed.getvalue()))


# lists in cells


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        ("['Good', 'Bad']", "[0.7, 0.3]"), ('["Good", "Bad"]', '["70%", "30%"]'), ("['Good' 'Bad']", "[0.7 0.3]"), ("Good|Bad", "0.7|0.3"), ("Good; Bad", "0.7; 0.3"),
        ("('Good', 'Bad')", "(0.7, 0.3)"), ("['Good', 'Bad']", "[np.float64(0.7), np.float64(0.3)]"), ("array(['Good', 'Bad'], dtype=object)", "array([0.7, 0.3])"),
        ("['Good', 'Bad', 'Good ']", "[0.4, 0.3, 0.3]"),
    ],
)  # fmt: skip
def test_lists_in_cells_are_read_in_every_way_of_writing(tmp_path, options, listed):
    path = tmp_path / "t.csv"
    pd.DataFrame({"q": ["Is it?"], "options": [options], "shares": [listed]}).to_csv(path, index=False)
    made = distributions_in(path, Reading(options_column="options", shares_column="shares"))
    assert {key: (found.outcomes, found.weights, found.fields) for key, found in made.items()} == {
        ("row-1",): (("Good", "Bad"), (0.7, 0.3), {"q": "Is it?"})
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet"])
def test_shares_by_name_make_a_prompt_for_each(tmp_path, ending):
    rows = [
        {"question": "Is it?", "selections": {"Aland": [0.7, 0.3], "Bland": [0.1, 0.9]}, "options": ["Good", "Bad"]},
        {"question": "Was it?", "selections": {"Aland": [0.5, 0.5], "Bland": None}, "options": ["Yes", "No"]},
    ]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        written = [f"defaultdict(<class 'list'>, { ({k: v for k, v in row['selections'].items() if v})!r})" for row in rows]
        pd.DataFrame(rows).assign(selections=written, options=[repr(row["options"]) for row in rows]).to_csv(path, index=False)
    elif ending == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, an extra")
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text(json.dumps(rows) if ending == "json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    made = distributions_in(path, Reading(options_column="options", shares_column="selections", group_by=("question",)))
    assert {key: shares(found) for key, found in made.items()} == {
        ("Is it?", "Aland"): {"Good": 0.7, "Bad": 0.3}, ("Is it?", "Bland"): {"Good": 0.1, "Bad": 0.9}, ("Was it?", "Aland"): {"Yes": 0.5, "No": 0.5},
    }  # fmt: skip
    assert made[("Is it?", "Bland")].fields == {"question": "Is it?", "group": "Bland"}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("['a', 'b']", "[1]"), "row 1 of column shares: has 2 options and 1 share. Correct the row"),
        (("['a', 'b']", "[1, nan]"), "row 1 of column shares: the share '' is not a number"),
        (("['a', 'b']", "[1, -1]"), "the share -1 is negative"),
        (("['a', 'b", "[1, 1]"), "row 1 of column options: cannot be read as a list"),
        (("['a', '']", "[1, 1]"), "the option '' is not a text"),
        (("['a', 'b']", "{'c': 1}"), "'c' is not one of its options"),
        (("['a', 'b']", "[0, 0]"), "all weights are zero"),
        (("['a', 'b']", "{'A': [1, 1], 'A ': [1, 2]}"), "two names are equal"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused_with_their_row(tmp_path, cells, message):
    path = tmp_path / "t.csv"
    pd.DataFrame({"options": [cells[0]], "shares": [cells[1]]}).to_csv(path, index=False)
    with pytest.raises(InputError) as caught:
        distributions_in(path, Reading(options_column="options", shares_column="shares"))
    assert message in str(caught.value)


def test_shares_by_option_need_no_other_column_and_the_same_group_may_come_once(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"q": "a", "s": {"Good": 7, "Bad": 3}}\n{"q": "b", "s": {"Good": 1}}\n{"q": "a", "s": {"Good": 1}}\n')
    made = distributions_in(path, Reading(shares_column="s"))
    assert shares(made[("row-1",)]) == {"Good": 0.7, "Bad": 0.3}
    assert list(made) == [("row-1",), ("row-2",), ("row-3",)]
    with pytest.raises(InputError, match=r"row 3: has the same group as row 1: a. Add columns to --group-by"):
        distributions_in(path, Reading(shares_column="s", group_by=("q",)))


@pytest.mark.parametrize(
    "cell", ["['a', 'b']", '["a"]', '{"a": 1}', "[0.5 0.5]", "[1, 2]", "defaultdict(<class 'list'>, {'A': [1]})"]
)
def test_a_list_in_a_cell_is_no_target(tmp_path, cell):
    path = tmp_path / "t.csv"
    pd.DataFrame({"answer": ["x", cell]}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"row 2 of column answer holds a list. Name the columns of lists with --options-column"):
        read(path, column="answer")


@pytest.mark.parametrize("cell", ["{heads}", "[7]", "[yes]", "{1}", "(a, b)", "a [b], c"])
def test_texts_with_brackets_are_targets(tmp_path, cell):
    path = tmp_path / "t.csv"
    pd.DataFrame({"answer": ["x", cell]}).to_csv(path, index=False)
    assert set(read(path, column="answer")) == {"x", cell}
