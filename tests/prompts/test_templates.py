"""Records: fields become one text and come back from it, and what could not come back is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.api.prompts import init_prompt
from diffusecli.prompts import record_columns
from diffusecli.prompts.prompt_files import inspect_prompt
from diffusecli.prompts.templates import Template, marginals, within
from diffusecli.system.errors import InputError

PEOPLE = "name,age,city\nAnn,34,Paris\nBob,37,Rome\nAnn,31,Paris\nCid,52,Lyon\n"


@pytest.fixture
def table(tmp_path):
    def write(text=PEOPLE):
        path = tmp_path / "people.csv"
        path.write_text(text)
        return path

    return write


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2), st.sampled_from([", ", "|", " aa ", "aa"]))
def test_what_is_not_misread_comes_back(values, between):
    template = Template.of("<{a}" + between + "{b}>")
    text = template.fill(values)
    if template.misread(values) is None:
        assert template.parse(text) == tuple(values)
    else:
        assert between in values[0] + between[:-1]  # it would end too early


@pytest.mark.parametrize(
    ("text", "found"),
    [("{Ann, 34}", ("Ann", "34")), ("{Ann, 34, or so}", ("Ann", "34, or so")), ("{Ann}", None), ("Ann, 34", None), ("{, }", ("", "")), ("{,}", None)],
)  # fmt: skip
def test_a_text_is_taken_apart_or_does_not_fit(text, found):
    assert Template.of(within("{name}, {age}", "{%s}")).parse(text) == found


def test_texts_before_and_after_may_not_overlap():
    assert Template.of("aba{x}aba").parse("ababa") is None
    assert Template.of("aba{x}aba").parse("abacaba") == ("c",)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("{a}{b}", "the fields 'a' and 'b' have no text between them. Add one"),
        ("{a}, {a}", "has 'a' twice"),
        ("name", "has no placeholder"),
        ("{a}, {}", "has an empty placeholder"),
        ("{a}, {b", "has a brace outside placeholders"),
        ("{a} }", "has a brace outside placeholders"),
    ],
)
def test_a_template_that_cannot_be_parsed_back_is_refused(written, says):
    with pytest.raises(InputError, match=says.replace("{", r"\{")):
        Template.of(written)


def test_rows_become_targets_and_rows_that_agree_are_added_up(table):
    prompt = init_prompt(from_file=table(), template="{name}, {age}, from {city}", bins=["age=10"])
    assert prompt.targets == ("{Ann, 30-39, from Paris}", "{Bob, 30-39, from Rome}", "{Cid, 50-59, from Lyon}")
    assert prompt.probabilities == (0.5, 0.25, 0.25)
    assert prompt.template == "{{{name}, {age}, from {city}}}"
    assert "{name, age, from city}" in prompt.request
    weights = dict(zip(prompt.targets, prompt.probabilities, strict=True))
    assert marginals(prompt.record, weights)[1:] == [{"30-39": 0.75, "50-59": 0.25}, {"Paris": 0.5, "Rome": 0.25, "Lyon": 0.25}]


def test_weights_of_rows_are_added_up(table):
    prompt = init_prompt(from_file=table("a,b,n\nx,y,1\nx,z,2\nx,y,5\n"), template="{a} {b}", weight_column="n", wrap="%s")
    assert dict(zip(prompt.targets, prompt.probabilities, strict=True)) == {"x y": 0.75, "x z": 0.25}


def test_rows_with_an_empty_field_are_left_out_and_reported(table):
    said = []
    prompt = init_prompt(from_file=table(PEOPLE + "Dee,,Nice\n"), template="{name}, {age}", notice=said.append)
    assert len(prompt.targets) == 4
    assert any("skipped rows with an empty field: 1 (row " in line for line in said)


@pytest.mark.parametrize(
    ("template", "options", "says"),
    [
        ("{name}, {age}", {"column": "name"}, "--template builds targets from several columns"),
        ("{nam}, {age}", {}, r"has no column 'nam' \(--template\). Did you mean 'name'"),
        ("{city}n{name}", {}, "row 4: 'city' is 'Lyon'"),
        ("{name}, {age}", {"bins": ["name=10"]}, "row 1 of column name: 'Ann' is not a number"),
        ("{name}, {age}", {"bins": ["age"]}, "must be a column and a width, like age=10"),
        ("{name}, {age}", {"bins": ["age=0"]}, "the width must be more than 0"),
        ("{name}, {age}", {"bins": ["age=nan"]}, "the width must be more than 0"),
        ("{name}, {age}", {"bins": ["age=10", "age=5"]}, "--bins age=5: age already has the width 10"),
        ("{name}, {age}", {"bins": ["agee=5"]}, "--bins agee: is not a target, field or group"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(table, template, options, says):
    with pytest.raises(InputError, match=says):
        init_prompt(from_file=table(), template=template, **options)


def test_a_prompt_file_with_a_template_is_checked(tmp_path):
    def problems(**fields):
        path = tmp_path / "p.json"
        path.write_text(json.dumps({"request": "Who?", "targets": ["Ann, 34", "Bob, 37"], **fields}, indent=1))
        return [(p.line, p.message) for p in inspect_prompt(path)[1]]

    assert problems(template="{name}, {age}") == []
    assert problems(template="{name}; {age}") == [
        (4, "the target 'Ann, 34' does not fit the template '{name}; {age}' (nor does 1 other target)"),
    ]
    ((line, message),) = problems(template="{name}{age}")
    assert line == 7
    assert "have no text between them" in message


def test_a_prompt_without_a_template_has_the_digest_that_it_always_had():
    plain = init_prompt(uniform=(1, 3))
    assert "template" not in plain.to_json()
    assert plain.model_copy(update={"template": "{{{n}}}"}).digest != plain.digest


def test_independent_fields_are_combined_with_all_others_together(table):
    """By hand: name and city stay together, ages 1 (3 of 4) and 2 (1 of 4) go with each."""
    text = "name,age,city\nAnn,1,Rome\nAnn,1,Rome\nBob,1,Oslo\nBob,2,Rome\n"
    prompt = init_prompt(from_file=table(text), template="{name} {age} {city}", independent=["age"], wrap="%s")
    assert dict(zip(prompt.targets, prompt.probabilities, strict=True)) == pytest.approx({
        "Ann 1 Rome": 0.375, "Ann 2 Rome": 0.125, "Bob 1 Oslo": 0.1875, "Bob 2 Oslo": 0.0625, "Bob 1 Rome": 0.1875, "Bob 2 Rome": 0.0625
    })  # fmt: skip
    both = init_prompt(from_file=table(text), template="{name} {age} {city}", independent=["age", "name"], wrap="%s")
    assert dict(zip(both.targets, both.probabilities, strict=True))["Ann 2 Oslo"] == pytest.approx(0.5 * 0.25 * 0.25)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"template": "{name}, {age}", "independent": ["city"]}, "--independent city: is not a field of the template"),
        ({"column": "name", "independent": ["age"]}, "--independent has no effect without --template. Add --template"),
    ],
)
def test_independent_fields_must_be_fields(table, options, says):
    with pytest.raises(InputError, match=says):
        init_prompt(from_file=table(), **options)


def test_columns_that_are_given_are_in_the_request_and_the_rest_in_the_answer(table, tmp_path, diffuse):
    table("region,name,age\nnorth,Ann,34\nnorth,Bob,37\nsouth,Cid,52\n")
    done = diffuse(
        "init-prompt", "--from", "people.csv", "--template", "{name}, {age}", "--given", "region",
        "--request", "Someone from the {region}: {{name, age}}.", "-o", "by-region",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    north = json.loads((tmp_path / "by-region" / "north.json").read_text())
    assert north["request"] == "Someone from the north: {name, age}."
    assert north["targets"] == ["{Ann, 34}", "{Bob, 37}"]
    assert north["template"] == "{{{name}, {age}}}"
    wrong = diffuse("init-prompt", "--from", "people.csv", "--template", "{name}, {age}", "--given", "regoin", "-o", "other")
    assert "has no column 'regoin' (--given). Did you mean 'region'" in " ".join(wrong.stderr.split())


def test_a_table_of_targets_may_be_of_records(tmp_path):
    (tmp_path / "people.csv").write_text(PEOPLE)
    path = tmp_path / "p.json"
    table = {"from": "people.csv", "template": "{name}, {age}", "bins": {"age": 10}, "wrap": "<%s>"}
    path.write_text(json.dumps({"request": "Who?", "targets": table}))
    prompt, problems = inspect_prompt(path)
    assert problems == []
    assert prompt.targets == ("<Ann, 30-39>", "<Bob, 30-39>", "<Cid, 50-59>")
    assert prompt.template == "<{name}, {age}>"
    path.write_text(json.dumps({"request": "Who?", "targets": {**table, "template": "{name}{age}"}}))
    assert "have no text between them" in str(inspect_prompt(path)[1][0])


@pytest.mark.parametrize(
    ("number", "width", "range_"), [(0.3, 0.1, "0.3-0.4"), (0.7, 0.1, "0.7-0.8"), (1.15, 0.05, "1.15-1.2"), (-3, 10, "-10-0")]
)
def test_a_number_on_the_edge_of_a_bin_is_in_that_bin(number, width, range_):
    assert record_columns.range_of(number, width, whole=False) == range_


def test_a_column_that_looks_like_weights_must_be_named(table):
    with pytest.raises(InputError, match=r"the column 'count' looks like weights\. Add --weight-column count"):
        init_prompt(from_file=table("name,age,count\nAnn,1,5\nBob,2,3\n"), template="{name}, {age}")


def test_bins_of_a_column_that_nothing_uses_are_refused(table):
    with pytest.raises(InputError, match="--bins age: is not a target, field or group"):
        init_prompt(from_file=table(), template="{name}, {city}", bins=["age=10"])


def test_a_record_is_asked_for_by_its_fields(tmp_path):
    (tmp_path / "t.csv").write_text("pet,name\ncat,Tom\ndog,Rex\n")
    made = init_prompt(from_file=tmp_path / "t.csv", template="{pet}, {name}")
    assert made.request == (
        "Make up a record at random, with these fields: pet, name. Output only the record between two curly braces, like this: {pet, name}. "
        "Don't output code."
    )
