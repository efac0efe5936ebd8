"""Targets in a table beside the prompt: the same prompt as with lists in its file, and every mistake at its place."""

import json
import shutil

import pytest

from diffusecli.prompts.json_schema import json_schema
from diffusecli.prompts.prompt_files import inspect_prompt, read_prompt
from diffusecli.verbs.validate import validate

NAMES = 'name,share,sex\n"Lee, Ann",3,f\nBob,1,m\n'


@pytest.fixture
def written(tmp_path):
    def write(targets, table=NAMES, **fields):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "names.csv").write_text(table)
        path = tmp_path / "p.json"
        path.write_text(json.dumps({"request": "A name.", "targets": targets, **fields}, indent=1))
        return path

    return write


TABLE = {"from": "data/names.csv", "column": "name", "weight_column": "share"}


def test_a_table_is_the_prompt_that_lists_would_be(written):
    from_table = read_prompt(written(TABLE))
    listed = read_prompt(written(["Lee, Ann", "Bob"], weights=[0.75, 0.25]))
    assert from_table.targets == ("Lee, Ann", "Bob")
    assert from_table.probabilities == (0.75, 0.25)
    assert from_table.digest == listed.digest
    assert json.loads(from_table.to_json())["targets"] == ["Lee, Ann", "Bob"]  # a run keeps what it was trained on


def test_targets_may_be_wrapped_counted_and_without_weights(written):
    assert read_prompt(written({**TABLE, "wrap": "{%s}"})).targets == ("{Lee, Ann}", "{Bob}")
    unweighed = written({"from": "data/names.csv", "column": "name"}, NAMES.replace(",share", ",size"))
    assert read_prompt(unweighed).weights is None
    (notice,) = inspect_prompt(written({"from": "data/names.csv", "column": "name"}))[1]
    assert (notice.severity, notice.line) == ("warning", 4)
    assert notice.message == "all targets have equal weights. Use weight_column share to read weights from that column"
    counted = read_prompt(written({"from": "data/names.csv", "column": "sex", "count": True}, "name,sex\na,f\nb,m\nc,f\n"))
    assert dict(zip(counted.targets, counted.probabilities, strict=True)) == pytest.approx({"f": 2 / 3, "m": 1 / 3})
    plain = read_prompt(written({"from": "data/names.csv"}, "name\none\ntwo\nthree\n"))
    assert plain.targets == ("one", "two", "three")


@pytest.mark.parametrize(
    ("targets", "line", "says"),
    [
        ({**TABLE, "from": "data/nams.csv"}, 4, "data/nams.csv: does not exist. Did you mean"),
        ({**TABLE, "column": "nam"}, 4, "has no column 'nam' (column). Did you mean 'name'?"),
        ({"from": "data/names.csv"}, 4, "Choose the column of targets with column: name, share, sex"),
        ({**TABLE, "colum": "name"}, 7, "unknown key 'colum'. Did you mean 'column'?"),
        ({**TABLE, "column": 3}, 5, "'column' must be a string, not 3"),
        ({"column": "name"}, 3, "the key 'from' is missing. Add it"),
        ({**TABLE, "wrap": "{}"}, 7, "wrap '{}' has no %s"),
        ({**TABLE, "encoding": "utf-99"}, 4, "encoding utf-99: unknown encoding"),
    ],
)
def test_a_mistake_is_shown_at_its_place_in_the_prompt(written, targets, line, says):
    prompt, (problem,) = inspect_prompt(written(targets))
    assert prompt is None
    assert says in str(problem)
    assert "--" not in str(problem)
    assert problem.line == line


def test_weights_in_the_file_and_a_table_are_one_too_many(written):
    _, (problem,) = inspect_prompt(written(TABLE, weights=[1, 2]))
    assert problem.message == "weights are given, but the targets come from a table"
    assert problem.line == 8


def test_what_is_doubtful_about_listed_targets_is_so_in_a_table(written):
    found = validate([written({**TABLE, "wrap": "{%s}"})])
    assert [problem.message for problem in found.problems] == [
        "the targets have curly braces, but the request does not ask for them"
    ]


def test_a_table_that_moved_is_one_sentence_before_any_model_is_loaded(written, tmp_path, diffuse):
    written(TABLE)
    shutil.move(tmp_path / "data" / "names.csv", tmp_path / "elsewhere.csv")
    (tmp_path / "c.yaml").write_text("model: nowhere/at-all\ntrain_prompts: [p.json]\noutput_dir: run\n")
    done = diffuse("train", "c.yaml")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "p.json:4:3: data/names.csv: does not exist" in done.stderr
    assert not (tmp_path / "run").exists()


def test_editors_know_both_ways_to_write_targets():
    ways = json_schema("prompt")["properties"]["targets"]["anyOf"]
    assert [way.get("type") or way["$ref"] for way in ways] == ["array", "#/definitions/TargetTable"]
