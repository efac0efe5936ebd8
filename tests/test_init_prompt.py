"""From the command line to a prompt file: wording, tables, groups."""

import json
from collections import Counter

import pandas as pd
import pytest

from diffusecli.distributions import FAMILIES, Distribution, dice
from diffusecli.errors import InputError
from diffusecli.init_prompt import Wording, prompt_from, prompts_from
from diffusecli.observations import Reading, distributions_in
from diffusecli.prompt import read_prompt
from diffusecli.samples import write_samples


def words(example):
    """An example line as a shell would split it."""
    import shlex

    return shlex.split(example)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_familys_example_makes_a_valid_prompt(in_process, tmp_path, name):
    done = in_process("init-prompt", *words(FAMILIES[name].example), "-o", "p.json", "--no-preview")
    assert done.returncode == 0, done.stderr
    prompt = read_prompt(tmp_path / "p.json")
    assert len(prompt.targets) >= 2
    assert all(target.startswith("{") and target.endswith("}") for target in prompt.targets)
    assert prompt.request.endswith("Don't output code.")


def test_wrap_request_response_and_eos_are_taken(in_process):
    done = in_process(
        "init-prompt", "--choices", "a,b", "--request", "Say a letter.", "--wrap", "[%s]", "--response", "", "--response", "Sure: ",
        "--no-eos", "--no-preview",
    )  # fmt: skip
    assert json.loads(done.stdout) == {
        "request": "Say a letter. Output only the choice in exactly this form: [choice]. Don't output code.",
        "response": ["", "Sure: "], "targets": ["[a]", "[b]"], "eos": False,
    }  # fmt: skip


def test_a_request_that_shows_the_format_stays_as_it_is():
    prompt = prompt_from(dice("d6"), Wording("Roll a die, like this: {number}"))
    assert prompt.request == "Roll a die, like this: {number}"


def test_a_wrap_without_a_place_for_the_outcome_is_refused():
    with pytest.raises(InputError, match="must hold %s once"):
        Wording(wrap="{}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dice", "2d6", "--benford"], "--dice and --benford exclude each other"),
        (["--benford", "--from", "x.csv"], "--benford and --from exclude each other"),
        (["--from", "none.csv"], "none.csv: cannot be read"),
        (["--dice", "2d6", "--count"], "describe a file: name it with --from"),
        (["--from", "data.csv", "--tail", "0.1"], "--tail does not go with --from"),
        (["--from", "data.csv"], "has 3 columns, name the targets' one with --column: region, answer, n"),
        (["--from", "data.csv", "--column", "answr"], "did you mean 'answer'?"),
        (["--from", "data.csv", "--column", "answer"], "the target 'yes' is there 2 times, add --count"),
        (["--from", "data.csv", "--column", "answer", "--weight-column", "region"], "row 1 of column region has the weight 'N'"),
        (["--from", "data.csv", "--column", "answer", "--count", "--group-by", "region"], "name it with -o"),
        (
            [
                "--from",
                "data.csv",
                "--column",
                "answer",
                "--count",
                "--group-by",
                "region",
                "--request",
                "In {country}?",
                "-o",
                "out",
            ],
            "no column 'country'",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(in_process, tmp_path, options, message):
    (tmp_path / "data.csv").write_text("region,answer,n\nN,yes,1\nS,no,2\nN,yes,3\n")
    done = in_process("init-prompt", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_the_same_table_in_every_format(tmp_path, ending):
    table = pd.DataFrame({"name": ["Ann", "NA", "Bo", "Ann"], "n": [3, 1, 4, 2]})
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, an extra")
        table.to_parquet(path)
    elif ending == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="," if ending == "csv" else "\t")
    made = distributions_in(path, Reading(column="name", weight_column="n"))[()]
    assert dict(zip(made.outcomes, made.weights, strict=True)) == {"Ann": 0.5, "Bo": 0.4, "NA": 0.1}


def test_counting_smoothing_and_cutting(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("b\na\na\nc\na\nb\n\n")
    counted = distributions_in(path, Reading(count=True))[()]
    assert (counted.outcomes, counted.weights) == (("a", "b", "c"), (0.5, 0.333333333, 0.166666667))
    top = distributions_in(path, Reading(count=True, top=2, alpha=1))[()]
    assert (top.outcomes, top.weights) == (("a", "b"), (0.571428571, 0.428571429))
    assert "kept 2 of 3 targets, 83.3% of the weight" in top.notice
    assert distributions_in(path, Reading(count=True, min_count=2))[()].outcomes == ("a", "b")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("extra.csv", "answer,n\na,1,9\nb,2,9\n", "extra.csv:2: has 3 fields, the header 2: mend the row"),
        ("twice.csv", "a,a\n1,2\n", "twice.csv:1: names a column twice"),
        ("none.jsonl", "\n", "holds no rows"),
        ("empty.csv", "", "holds no rows"),
        ("broken.jsonl", "{", "cannot be read as .jsonl"),
    ],
)
def test_tables_that_would_shift_or_lose_data_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        distributions_in(tmp_path / name, Reading(column="answer", count=True))
    assert message in str(caught.value)


def test_samples_of_ours_become_targets_as_they_were_drawn(tmp_path):
    drawn = Counter({"=1": 3, "-": 2, "'=x": 1, "plain": 4})
    write_samples(tmp_path / "s.csv", {"p.json": drawn}, "csv", 0)
    made = distributions_in(tmp_path / "s.csv", Reading(column="text", weight_column="count"))[()]
    assert dict(zip(made.outcomes, made.weights, strict=True)) == {text: count / 10 for text, count in drawn.items()}


def test_lines_of_several_kinds_are_told(tmp_path):
    (tmp_path / "mixed.jsonl").write_text('{"answer": "yes"}\n1\n')
    with pytest.raises(InputError, match=r"mixed\.jsonl: .*some lines are mappings and some are not"):
        distributions_in(tmp_path / "mixed.jsonl", Reading())


def test_quotes_in_tsv_and_large_numbers_in_jsonl_are_taken_as_they_are(tmp_path):
    tsv = tmp_path / "t.tsv"
    tsv.write_text('name\tn\n"Bob" Lee\t1\n"x\t2\n')
    assert distributions_in(tsv, Reading(column="name", weight_column="n"))[()].outcomes == ('"x', '"Bob" Lee')
    jsonl = tmp_path / "t.jsonl"
    jsonl.write_text('{"id": 9007199254740993}\n{"id": 9007199254740992}\n{"id": null}\n')
    assert distributions_in(jsonl, Reading(column="id"))[()].outcomes == ("9007199254740993", "9007199254740992")


def test_answers_that_are_the_same_in_unicode_are_counted_together(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("caf\u00e9\ncafe\u0301\ntea\n", encoding="utf-8")
    assert distributions_in(path, Reading(count=True))[()].outcomes == ("caf\u00e9", "tea")


@pytest.mark.parametrize("options", [{"alpha": float("inf"), "count": True}, {"alpha": 5.0}, {"top": 3}, {"group_by": ("a", "a")}])
def test_reading_options_without_sense_are_refused(options):
    with pytest.raises(InputError):
        Reading(**options)


def test_a_group_with_braces_in_its_values_still_gets_the_format_sentence():
    prompt = prompt_from(dice("d6"), Wording("In {place}, roll {{once}}."), {"place": "{x}"})
    assert prompt.request.startswith("In {x}, roll {once}.")
    shown = prompt_from(dice("d6"), Wording("In {place}: write {{number}}"), {"place": "a"})
    assert shown.request == "In a: write {number}"


def test_one_target_a_line_is_uniform(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Zoë\nAnn\n")
    made = distributions_in(path, Reading())[()]
    assert (made.outcomes, made.weights) == (("Zoë", "Ann"), None)


def test_a_table_becomes_a_folder_of_prompts(in_process, tmp_path):
    (tmp_path / "survey.csv").write_text("region,question,answer\nNorth,Tea?,yes\nNorth,Tea?,no\nNorth,Tea?,yes\nSouth,Tea?,no\n")
    options = ["--from", "survey.csv", "--column", "answer", "--count", "--group-by", "region,question"]
    done = in_process("init-prompt", *options, "--request", "You live in {region}. {question}", "-o", "out", "--no-preview")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["north_tea.json", "south_tea.json"]
    north = read_prompt(tmp_path / "out" / "north_tea.json")
    assert north.request.startswith("You live in North. Tea? Output only")
    assert dict(zip(north.targets, north.weights, strict=True)) == {"{yes}": 0.666666667, "{no}": 0.333333333}
    again = in_process("init-prompt", *options, "--request", "You live in {region}. {question}", "-o", "out")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_the_list_shows_every_family(in_process):
    lines = in_process("init-prompt", "--list").stdout.splitlines()
    assert all(any(f"--{name}" in line for line in lines) for name in FAMILIES)


def test_groups_that_would_all_be_asked_the_same_are_refused(tmp_path):
    half = Distribution(("{a}", "{b}"), (0.5, 0.5), "Pick one.", "choice")
    both = {("morning",): half, ("evening",): half}
    with pytest.raises(InputError, match=r"all groups would be asked the same, put \{time\} into --request or --system"):
        prompts_from(both, Wording(), ("time",), tmp_path)
    assert len(prompts_from(both, Wording(system="It is {time}."), ("time",), tmp_path)) == 2
    with pytest.raises(InputError, match=r"x\.json: --group-by writes a folder"):
        prompts_from(both, Wording(request="{time}?"), ("time",), tmp_path / "x.json")
