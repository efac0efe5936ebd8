"""From the command line to a prompt file: wording, tables, groups."""

import json
from collections import Counter

import pandas as pd
import pytest

from diffusecli.prompts.catalogue import FAMILIES
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.families import dice
from diffusecli.prompts.observations import distributions_in
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.prompts.request_wording import Wording, form_doubts, prompt_from
from diffusecli.prompts.weighing import Reading
from diffusecli.runs.samples import write_samples
from diffusecli.system.errors import InputError
from diffusecli.verbs.init_prompt import prompts_from


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
        "request": "Say a letter.",
        "response": ["", "Sure: "], "targets": ["[a]", "[b]"], "eos": False,
    }  # fmt: skip


def test_a_request_of_the_users_stays_as_it_is_and_a_form_it_does_not_ask_for_is_a_warning_with_the_text_to_add(in_process):
    sentence = "Output only the number between two curly braces, like this: {number}. Don't output code."
    for more in ([], ["--no-eos"], ["--response", "Sure: "]):
        done = in_process("init-prompt", "--dice", "d6", "--request", "Roll a die.", *more)
        assert json.loads(done.stdout)["request"] == "Roll a die."
        assert (
            f"warning: --request does not ask for the form of the targets, {{number}}. Write it there, or add --form. It ends the request with: {sentence}"
            in done.stderr
        )
        done = in_process("init-prompt", "--dice", "d6", "--request", "Roll a die.", "--form", *more)
        assert json.loads(done.stdout)["request"] == f"Roll a die. {sentence}"
        assert "warning" not in done.stderr
    for request, wrap in (
        ("Roll a die, like this: {number}", "{%s}"),
        ("In curly braces, roll a die.", "{%s}"),
        ("Roll a die.", "%s"),
        ("Answer: ?", "Answer: %s"),
    ):
        done = in_process("init-prompt", "--dice", "d6", "--request", request, "--wrap", wrap)
        assert json.loads(done.stdout)["request"] == request
        assert "warning" not in done.stderr
    assert (
        "exactly this form: Answer: number"
        in in_process("init-prompt", "--dice", "d6", "--request", "Roll.", "--wrap", "Answer: %s").stderr
    )


def test_a_warning_of_a_request_for_groups_has_its_braces_doubled_as_they_must_be_written(in_process, tmp_path):
    (tmp_path / "t.csv").write_text("place,answer\nA,yes\nA,no\nB,no\n")
    options = ["--from", "t.csv", "--column", "answer", "--count", "--group-by", "place", "--request", "In {place}?"]
    done = in_process("init-prompt", *options, "-o", "plain")
    assert "like this: {{answer}}. Don't output code." in done.stderr
    assert read_prompt(tmp_path / "plain" / "a.json").request == "In A?"
    in_process("init-prompt", *options, "--form", "-o", "form")
    assert read_prompt(tmp_path / "form" / "a.json").request.endswith("In A? Output only the answer between two curly braces, like this: {answer}. Don't output code.")  # fmt: skip


def test_targets_that_have_braces_already_are_a_warning(in_process):
    done = in_process("init-prompt", "--choices", "{heads},{tails}")
    assert "get a second pair: {{heads}}. Keep one pair with --wrap %s" in done.stderr
    done = in_process("init-prompt", "--choices", "{heads},{tails}", "--wrap", "%s")
    assert json.loads(done.stdout)["targets"] == ["{heads}", "{tails}"]
    assert "warning" not in done.stderr


def test_outcomes_may_be_taken_in_other_spellings(in_process):
    done = in_process("init-prompt", "--choices", "7=2,heads=1,March=1", "--request", "Pick one.", "--spellings")
    prompt = json.loads(done.stdout)
    assert prompt["targets"] == [
        ["{7}", "7", "{seven}", "seven", "{Seven}", "Seven"],
        ["{heads}", "heads"],
        ["{March}", "March", "{march}", "march", "{Mar}", "Mar", "{mar}", "mar"],
    ]
    assert prompt["weights"] == [2, 1, 1]
    assert "warning" not in done.stderr, "who takes any form need not ask for one"
    assert "(16 spellings in total; each target shows its first one)" in done.stderr
    refused = in_process("init-prompt", "--months", "--spellings", "--no-eos")
    assert refused.returncode == 2
    assert "--spellings: needs answers that end, because 1 is a prefix of 10. Leave --no-eos out" in refused.stderr


def test_a_bare_wrap_has_no_second_form(in_process):
    done = in_process("init-prompt", "--uniform", "7", "8", "--wrap", "%s", "--spellings")
    assert json.loads(done.stdout)["targets"] == [["7", "seven", "Seven"], ["8", "eight", "Eight"]]


def test_a_wrap_without_a_place_for_the_outcome_is_refused():
    with pytest.raises(InputError, match="must contain %s once"):
        Wording(wrap="{}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dice", "2d6", "--benford"], "--dice and --benford exclude each other"),
        (["--benford", "--from", "x.csv"], "--benford and --from exclude each other"),
        (["--from", "none.csv"], "none.csv: does not exist"),
        (["--dice", "2d6", "--count"], "describe a file. Name it with --from"),
        (["--from", "data.csv", "--tail", "0.1"], "--tail does not apply to --from"),
        (["--from", "data.csv"], "has 3 columns. Choose the column of targets with --column: region, answer, n"),
        (["--from", "data.csv", "--column", "answr"], "Did you mean 'answer'?"),
        (
            ["--from", "data.csv", "--column", "answer"],
            "the target 'yes' occurs more than once. Add --weight-column n if 'n' has their numbers, or --count",
        ),
        (
            ["--from", "data.csv", "--column", "answer", "--weight-column", "region"],
            "row 1 of column region: the weight 'N' is not a number",
        ),
        (["--from", "data.csv", "--column", "answer", "--weight-column", "n", "--group-by", "region"], "Name it with -o"),
        (
            [
                "--from",
                "data.csv",
                "--column",
                "answer",
                "--weight-column",
                "n",
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
    assert (counted.outcomes, counted.weights) == (("b", "a", "c"), (0.333333333, 0.5, 0.166666667))
    top = distributions_in(path, Reading(count=True, top=2, alpha=1))[()]
    assert (top.outcomes, top.weights) == (("b", "a"), (0.428571429, 0.571428571))
    assert "kept 2 of 3 targets, 83.3 % of the weight" in top.notice
    assert distributions_in(path, Reading(count=True, min_count=2))[()].outcomes == ("b", "a")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("extra.csv", "answer,n\na,1,9\nb,2,9\n", "extra.csv:2: has 3 fields, but the header has 2. Correct the row"),
        ("twice.csv", "answer,answer\nx,2\n", "columns 1 and 2 are all named 'answer'. Choose one by its number: --column 1"),
        ("none.jsonl", "\n", "contains no rows"),
        ("empty.csv", "", "contains no rows"),
        ("broken.jsonl", "{", "broken.jsonl:1: invalid JSON"),
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
    with pytest.raises(InputError, match=r"mixed\.jsonl: some rows are mappings or lists and some are not"):
        distributions_in(tmp_path / "mixed.jsonl", Reading())


def test_quotes_in_tsv_and_large_numbers_in_jsonl_are_taken_as_they_are(tmp_path):
    tsv = tmp_path / "t.tsv"
    tsv.write_text('name\tn\n"Bob" Lee\t1\n"x\t2\n')
    assert distributions_in(tsv, Reading(column="name", weight_column="n"))[()].outcomes == ('"Bob" Lee', '"x')
    jsonl = tmp_path / "t.jsonl"
    jsonl.write_text('{"id": 9007199254740993}\n{"id": 9007199254740992}\n{"id": null}\n')
    assert distributions_in(jsonl, Reading(column="id"))[()].outcomes == ("9007199254740993", "9007199254740992")


def test_answers_that_are_the_same_in_unicode_are_counted_together(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("caf\u00e9\ncafe\u0301\ntea\n", encoding="utf-8")
    assert distributions_in(path, Reading(count=True))[()].outcomes == ("caf\u00e9", "tea")


@pytest.mark.parametrize(
    "options",
    [{"alpha": float("inf"), "count": True}, {"group_by": ("a", "a")}, {"decimal": "x"}, {"options_column": "o"}, {"shares_column": "s", "count": True},
     {"alpha_within": ("a",)}, {"alpha": 1.0, "count": True, "group_by": ("a",), "alpha_within": ("b",)}],
)  # fmt: skip
def test_reading_options_without_sense_are_refused(options):
    with pytest.raises(InputError):
        Reading(**options)


@pytest.mark.parametrize("options", [{"alpha": 5.0}, {"top": 3}, {"min_count": 2}])
def test_options_that_need_weights_are_refused_where_there_are_none(tmp_path, options):
    (tmp_path / "t.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"need weights\. Add --count or --weight-column"):
        distributions_in(tmp_path / "t.txt", Reading(**options))


def test_values_of_groups_are_filled_in_once_and_show_no_form():
    wording = Wording("In {place}, roll.")
    assert prompt_from(dice("d6"), wording, {"place": "{x}"}).request == "In {x}, roll."
    assert form_doubts(dice("d6"), wording, ["place"]) != []
    shown = Wording("In {place}: write {{number}}")
    assert prompt_from(dice("d6"), shown, {"place": "a"}).request == "In a: write {number}"
    assert form_doubts(dice("d6"), shown, ["place"]) == []


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
    assert north.request == "You live in North. Tea?"
    assert dict(zip(north.targets, north.weights, strict=True)) == {"{yes}": 0.666666667, "{no}": 0.333333333}
    again = in_process("init-prompt", *options, "--request", "You live in {region}. {question}", "-o", "out")
    assert again.returncode == 2
    assert "already exists" in again.stderr


def test_the_list_shows_every_family(in_process):
    lines = in_process("init-prompt", "--list").stdout.splitlines()
    assert all(any(f"--{name}" in line for line in lines) for name in FAMILIES)


def test_groups_that_would_all_be_asked_the_same_are_refused(tmp_path):
    half = Distribution(("{a}", "{b}"), (0.5, 0.5), "Pick one.", "choice")
    both = {("morning",): half, ("evening",): half}
    with pytest.raises(InputError, match=r"all groups would have the same request\. Put \{time\} into --request or --system"):
        prompts_from(both, Wording(), ("time",), tmp_path)
    assert len(prompts_from(both, Wording(system="It is {time}."), ("time",), tmp_path)) == 2
    with pytest.raises(InputError, match=r"x\.json: --group-by writes a folder"):
        prompts_from(both, Wording(request="{time}?"), ("time",), tmp_path / "x.json")


def test_wordings_of_the_bank_are_drawn_by_a_seed_and_some_held_out(in_process, tmp_path):
    options = ["init-prompt", "--uniform", "1", "10", "--wordings", "12", "--held-out", "5", "--no-preview"]
    done = in_process(*options, "-o", "p.json")
    assert (done.returncode, "warning" in done.stderr) == (0, False)
    prompt = read_prompt(tmp_path / "p.json")
    assert (len(prompt.requests), len(prompt.held_out_requests)) == (12, 5)
    assert prompt.requests[0] == json.loads(in_process("init-prompt", "--uniform", "1", "10").stdout)["request"]
    assert json.loads(in_process(*options).stdout) == json.loads((tmp_path / "p.json").read_text())
    assert json.loads(in_process(*options, "--seed", "1").stdout)["request"] != list(prompt.requests)


def test_requests_of_the_users_come_from_options_and_a_file_and_get_a_clause_on_the_form(in_process, tmp_path):
    (tmp_path / "more.txt").write_text("# others\nThrow a die.\nA die, please.\n")
    options = ["init-prompt", "--dice", "d6", "--request", "Roll a die.", "--requests", "more.txt"]
    plain = json.loads(in_process(*options).stdout)
    assert plain["request"] == ["Roll a die.", "Throw a die.", "A die, please."]
    done = in_process(*options, "--form", "--held-out", "1")
    made = json.loads(done.stdout)
    assert "warning" not in done.stderr
    assert (
        made["request"][0] == "Roll a die. Output only the number between two curly braces, like this: {number}. Don't output code."
    )
    assert len(made["request"]) == 2
    assert len(made["held_out_requests"]) == 1
    texts = [*made["request"], *made["held_out_requests"]]
    assert all(sum(own in text for text in texts) == 1 for own in plain["request"])
    assert all("{" in text or "curly" in text or "brace" in text for text in texts)


def test_built_in_wordings_name_the_targets_of_a_file(in_process, tmp_path):
    (tmp_path / "c.txt").write_text("red\nblue\ngreen\n")
    (tmp_path / "w.csv").write_text("answer,weight\nyes,3\nno,1\n")
    made = json.loads(in_process("init-prompt", "--from", "c.txt", "--wordings", "8", "--held-out", "4").stdout)
    texts = [*made["request"], *made["held_out_requests"]]
    assert len(set(texts)) == 12
    assert all(name in text.lower() for text in texts for name in ("red", "blue", "green"))
    made = json.loads(
        in_process("init-prompt", "--from", "w.csv", "--column", "answer", "--weight-column", "weight", "--wordings", "6").stdout
    )
    assert made["weights"] == [0.75, 0.25]
    assert all("yes" in text.lower() and any(share in text for share in ("0.75", "75", "3", "three")) for text in made["request"])


def test_a_file_of_too_many_targets_for_a_request_needs_requests_of_the_users(in_process, tmp_path):
    (tmp_path / "n.txt").write_text("".join(f"n{i}\n" for i in range(21)))
    done = in_process("init-prompt", "--from", "n.txt", "--wordings", "4")
    assert done.returncode == 2
    assert "at most 20. There are 21: write your own request with --request or --requests" in done.stderr


def test_a_clause_on_the_form_is_added_to_requests_of_the_users_only(in_process):
    done = in_process("init-prompt", "--uniform", "1", "3", "--wordings", "4", "--form")
    assert (done.returncode, "Add --request or leave --form out" in done.stderr) == (2, True)


def test_requests_for_groups_are_filled_each(in_process, tmp_path):
    (tmp_path / "t.csv").write_text("place,answer\nA,yes\nB,no\n")
    done = in_process(
        "init-prompt", "--from", "t.csv", "--column", "answer", "--count", "--group-by", "place", "--request", "In {place}?",
        "--request", "You are in {place}. So?", "--form", "-o", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = read_prompt(tmp_path / "out" / "b.json").requests
    assert first.startswith("In B? Output only the answer")
    assert "You are in B. So?" in second


def test_given_requests_that_ask_for_different_things_are_a_warning(in_process):
    done = in_process("init-prompt", "--dice", "d6", "--request", "1 to 6 {n}", "--request", "1 to 60 {n}")
    assert "warning: --request '1 to 60 {n}': has range 1 to 60, not range 1 to 6 as in '1 to 6 {n}'" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--held-out", "2"], "--held-out 2: needs several requests. Add --wordings N, or more requests"),
        (
            ["--request", "a", "--request", "b", "--held-out", "2"],
            "there are 2 requests, and at least one must be trained. Hold out 1 or fewer",
        ),
        (["--request", "Roll.", "--request", "Roll. "], "--request 'Roll. ': is given twice. Remove one of them"),
        (["--request", "Roll.", "--wordings", "3"], "--wordings and your own requests exclude each other"),
        (["--requests", "none.txt"], "none.txt: contains no request. Write one per line"),
        (["--wordings", "100000"], "wordings. Use --wordings"),
        (["--wordings", "2", "--held-out", "100000"], "--held-out 100000: beside the 2 trained ones there are only"),
    ],
)
def test_wordings_that_cannot_be_had_are_refused(in_process, tmp_path, options, message):
    (tmp_path / "none.txt").write_text("# nothing\n")
    done = in_process("init-prompt", "--dice", "d6", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
