"""People with fields: what counts as a field, and how many different values equally many answers have."""

import csv
import json
import math
from collections import Counter
from itertools import combinations

import pytest
from jinja2 import Template

from benchmarks.study import fields, fields_tables, page
from benchmarks.study.fields import COMPARED, EXAMPLE, fields_of, in_lines, is_complete, ratio, repeats
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt_files import read_prompt

TABLE = [{"name": "Ann Lee", "gender": "female", "born": "1 May 1990", "birthplace": "Oslo, Norway", "career": "Baker"}]


def person(**others):
    return in_lines({**EXAMPLE, **others})


def test_a_person_of_the_table_has_all_fields_and_so_has_the_example():
    targets = read_prompt(fields.PROMPT).targets
    assert is_complete(fields_of(targets[0]))
    assert fields_of(targets[0]).keys() == fields.HEADINGS.keys() == EXAMPLE.keys()
    assert fields_of(in_lines(EXAMPLE)) == EXAMPLE
    shown = fields.one_shot().messages[1]
    assert (shown.role, fields.BEGINNING + shown.content) == ("assistant", in_lines(EXAMPLE))
    assert in_lines(EXAMPLE) not in targets


def test_a_field_with_one_brace_or_cut_at_the_end_is_not_well_formed():
    assert fields_of("Name: {Ann\nGender: {female} \nCareer: {Baker") == {"Gender": "female"}
    assert fields_of("Name: {}\nPet: {cat}\nName: {{Ann}}\nCareer: Bak") == {}
    assert fields_of("Name: Ann Lee \nCareer: {Baker}") == {"Name": "Ann Lee", "Career": "Baker"}


def test_only_the_first_person_of_an_answer_counts():
    assert fields_of(f"{person(Name='Ann Lee')}\n\n{person(Name='Bo')}")["Name"] == "Ann Lee"


def test_an_answer_repeats_the_example_where_all_its_fields_do():
    assert repeats(fields_of(in_lines(EXAMPLE)))
    assert repeats({"Name": EXAMPLE["Name"].upper()})
    assert not repeats(fields_of(person(Career="Baker")))
    assert not repeats({})


def test_the_ratio_is_of_equally_many_answers():
    """By hand: two of (a, a, b) are different with 2/3, so 5/3 values; two of (x, x, x) are 1 value. Draws: one fewer than three."""
    found = ratio(Counter(a=2, b=1), Counter(x=3))
    assert (found["tuned_n"], found["untuned_n"], found["draws"]) == (3, 3, 2)
    assert (found["tuned_drawn"], found["untuned_drawn"]) == (pytest.approx(5 / 3), 1)
    assert found["ratio"] == pytest.approx(5 / 3)
    assert "ratio_low" not in found  # one value has no jackknife error


def test_the_larger_sample_is_rarefied_to_the_smaller_one():
    after, before = Counter(a=3, b=2, c=1, d=1), Counter(x=2, y=1, z=1)
    found = ratio(after, before)
    drawn = list(combinations(list(after.elements()), 3))
    assert found["tuned_drawn"] == pytest.approx(sum(len(set(some)) for some in drawn) / len(drawn))
    assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
    assert math.sqrt(found["ratio_low"] * found["ratio_high"]) == pytest.approx(found["ratio"])


def test_too_few_answers_have_no_ratio():
    assert ratio(Counter(a=5), Counter(x=1)) == {"tuned_n": 5, "untuned_n": 1, "draws": 0}
    assert ratio(Counter(a=5), Counter()) == {"tuned_n": 5, "untuned_n": 0, "draws": 0}


def test_copied_values_and_repeats_of_the_example_are_counted_apart():
    tuned = [person(Name="Ann Ray", Birthplace="Oslo, Norway"), person(Name="Bea Ray", Birthplace="Rome, Italy"), "nothing"]
    untuned = [in_lines(EXAMPLE), in_lines(EXAMPLE), person(Name="Cy Young")]
    found = {(line["field"], line["repeats"]): line for line in fields.compare(tuned, untuned, TABLE)}
    line = found["first name", "with"]
    assert (line["tuned_answers"], line["tuned_complete"], line["untuned_complete"], line["untuned_repeats"]) == (3, 2, 3, 2)
    assert (line["tuned_distinct"], line["tuned_new_distinct"], line["tuned_new"]) == (
        2,
        1,
        1,
    )  # Ann is in the table, in another name
    assert (line["untuned_n"], line["untuned_distinct"]) == (3, 2)
    assert found["first name", "without"]["untuned_n"] == 1
    assert found["birthplace", "with"]["tuned_new"] == 1
    assert found["birthplace", "without"]["untuned_n"] == 0
    assert len(found) == 2 * len(COMPARED)


def test_the_template_is_the_models_own_with_a_beginning_of_answers():
    turns = [{"role": message.role, "content": message.content} for message in fields.one_shot().messages]
    text = Template(fields._TEMPLATE).render(messages=turns, add_generation_prompt=True)
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    user = f"<|im_start|>user\n{fields.request()}<|im_end|>\n<|im_start|>assistant\n"
    assert text == f"{system}{user}{in_lines(EXAMPLE)}<|im_end|>\n{user}Name: {{"


def test_lines_come_from_the_samples_once_both_are_there(workplace):
    every = list(fields.stages())
    assert len({stage.product for stage in every}) == len(every) == 4
    journal = {stage.name: {"command": stage.told, "done": True, "seconds": 1} for stage in every}
    assert list(fields.lines(journal)) == []
    for stage in every:
        stage.product.parent.mkdir(parents=True, exist_ok=True)
        begun = fields.BEGINNING if stage.name == "fields/untuned" else ""
        stage.product.write_text(json.dumps({"prompt.json": [in_lines(EXAMPLE).removeprefix(begun)] * 3}))
    found = list(fields.lines(journal))
    assert [line["field"] for line in found] == [one.name for one in COMPARED for _ in range(2)]
    assert {(line["tuned_complete"], line["untuned_complete"]) for line in found} == {(3, 3)}


def test_the_training_is_that_of_the_config():
    (training,) = (stage for stage in fields.stages() if stage.command[1] == "train")
    config = read_config(training.command[2], [word for word in training.command if "=" in word])
    assert config.output_dir == str(fields.RUN)
    assert config.train_prompts == (fields.PROMPT,)


def table(name):
    return [text.strip("| ").split(" | ") for text in page.filled(f"<!-- table: {name} -->\n<!-- end -->\n").splitlines()[1:-1]]


def test_tables_tell_ratios_beside_the_papers(workplace):
    for name in ("fields", "fields-copied", "fields-forms"):
        assert table(name) == [["Not measured yet."]]
    line = {
        "field": "birthplace", "repeats": "with", "tuned_answers": 300, "tuned_complete": 270, "untuned_answers": 200, "untuned_complete": 50,
        "untuned_repeats": 10, "tuned_distinct": 120, "tuned_new_distinct": 90, "tuned_new": 100, "table_distinct": 1000, "tuned_n": 250,
        "untuned_n": 60, "draws": 59, "tuned_drawn": 50.26, "untuned_drawn": 20, "ratio": 2.513, "ratio_low": 2.04, "ratio_high": 3.06,
    }  # fmt: skip
    without = {
        **line,
        "repeats": "without",
        "untuned_n": 1,
        "draws": 0,
        **dict.fromkeys(("tuned_drawn", "untuned_drawn", "ratio", "ratio_low"), ""),
    }
    with (workplace / "fields.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(line))
        writer.writeheader()
        writer.writerows([line, without])
    assert table("fields")[2:] == [
        ["birthplace", "counted", "250 / 60", "59", "50.3", "20.0", "2.5× [2.0 to 3.1]", "3×"],
        ["birthplace", "left out", "250 / 1", "0", "-", "-", "-", "3×"],
    ]
    assert table("fields-copied")[2:] == [["birthplace", "250", "150 (60 %)", "100 (40 %)", "30 of 1000", "90"]]
    assert table("fields-forms")[2:] == [
        ["tuned", "300", "270 (90 %)", "-"],
        ["untuned, one example", "200", "50 (25 %)", "10 (5 %)"],
    ]


def test_every_counted_field_has_a_published_ratio():
    assert set(fields_tables.PUBLISHED) == {one.name for one in COMPARED}
