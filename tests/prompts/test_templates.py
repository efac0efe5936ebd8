"""Records: fields become one text and come back from it, and what could not come back is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.api.prompts import init_prompt
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
        ("{a}{b}", "the fields 'a' and 'b' run into each other. Put a text between them"),
        ("{a}, {a}", "has 'a' twice"),
        ("name", "has no placeholder"),
        ("{a}, {}", "has an empty placeholder"),
        ("{a}, {b", "has a brace that is part of no placeholder"),
        ("{a} }", "has a brace that is part of no placeholder"),
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
    assert any("empty rows left out: 1" in line for line in said)


@pytest.mark.parametrize(
    ("template", "options", "says"),
    [
        ("{name}, {age}", {"column": "name"}, "--template makes targets of several columns"),
        ("{nam}, {age}", {}, r"has no column 'nam' \(--template\), did you mean 'name'"),
        ("{city}n{name}", {}, "row 4: 'city' is 'Lyon'"),
        ("{name}, {age}", {"bins": ["name=10"]}, "row 1 of column name: 'Ann' is not a number"),
        ("{name}, {age}", {"bins": ["age"]}, "must be a column and a width, like age=10"),
        ("{name}, {age}", {"bins": ["age=0"]}, "the width must be more than 0"),
        ("{name}, {age}", {"bins": ["agee=5"]}, r"has no column 'agee' \(--bins\)"),
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
        (4, "the target 'Ann, 34' does not fit the template '{name}; {age}'"),
        (5, "the target 'Bob, 37' does not fit the template '{name}; {age}'"),
    ]
    ((line, message),) = problems(template="{name}{age}")
    assert line == 7
    assert "run into each other" in message


def test_a_prompt_without_a_template_has_the_digest_that_it_always_had():
    plain = init_prompt(uniform=(1, 3))
    assert "template" not in plain.to_json()
    assert plain.model_copy(update={"template": "{{{n}}}"}).digest != plain.digest
