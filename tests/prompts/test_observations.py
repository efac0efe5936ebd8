"""What counts as a weight, a group and a target, and in which order: the right shares, and a notice of what was done."""

import shlex

import pandas as pd
import pytest

from diffusecli.prompts.observations import distributions_in
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError
from tests.files.test_tables import put, read, shares


def grouped(path, **options):
    """Each group's shares, and all notices."""
    made = distributions_in(path, Reading(**options))
    return {key: shares(found) for key, found in made.items()}, "\n".join(found.notice for found in made.values())


BY_REGION = {"column": "answer", "count": True, "group_by": ("region",)}


@pytest.mark.parametrize("name", ["count", "Count", "n", "freq", "weight", "share", "percent", "answer_count", "Anzahl"])
def test_counting_rows_of_a_table_that_has_weights_is_refused(tmp_path, name):
    path = put(tmp_path, "t.csv", f"answer,{name}\nYes,7\nNo,2\nNo,1\n")
    with pytest.raises(InputError) as caught:
        read(path, column="answer", count=True)
    assert (
        f"the column '{name}' looks like weights. Add --weight-column {name} to sum them, or --weight-column none to count rows"
        in str(caught.value)
    )
    assert read(path, column="answer", weight_column=name) == {"Yes": 0.7, "No": 0.3}
    with pytest.raises(InputError, match=f"--count and --weight-column {name} exclude each other"):
        read(path, column="answer", weight_column=name, count=True)
    assert read(path, column="answer", weight_column="none", count=True) == pytest.approx({"Yes": 1 / 3, "No": 2 / 3}, abs=1e-8)


def test_counting_rows_that_come_once_each_is_refused_where_a_column_may_weigh_them(tmp_path):
    path = put(tmp_path, "t.csv", "drink,sold last year\ncoffee,412\ntea,198\n")
    with pytest.raises(
        InputError, match=r"makes all weights equal, because no row occurs twice. Add --weight-column 'sold last year'"
    ):
        read(path, column="drink", count=True)
    assert read(path, column="drink", count=True, weight_column="none") == {"coffee": 0.5, "tea": 0.5}
    for header, cells in (("RespondentID", "8,3"), ("x", "1,2"), ("year", "1999,2003"), ("place", "a,b")):
        path = put(tmp_path, "t.csv", f"{header},drink\n" + "".join(f"{cell},{drink}\n" for cell, drink in zip(cells.split(","), ("tea", "milk"), strict=True)))  # fmt: skip
        assert read(path, column="drink", count=True) == {"tea": 0.5, "milk": 0.5}


def test_weights_that_are_not_used_are_told(tmp_path):
    path = put(tmp_path, "t.csv", "answer,share\nYes,0.7\nNo,0.3\n")
    made = distributions_in(path, Reading(column="answer"))[()]
    assert made.weights is None
    assert made.notice == "warning: all targets have equal weights. Use --weight-column share to read weights from that column"
    path = put(tmp_path, "t.csv", "answer,share\nYes,0.4\nYes,0.3\nNo,0.3\n")
    with pytest.raises(
        InputError,
        match=r"'Yes' occurs more than once. Add --weight-column share if 'share' has their numbers, or --count if each row is one observation",
    ):
        read(path, column="answer")


def test_numbers_beside_rows_that_occur_once_are_named_before_rows_are_counted(tmp_path):
    """No name tells that they are counts: each area and mode is one row."""
    path = put(tmp_path, "t.csv", "area,mode,people\nnorth,bike,30\nnorth,car,50\nsouth,bike,20\nsouth,car,90\n")
    with pytest.raises(
        InputError, match=r"'bike' occurs more than once. Add --weight-column people if 'people' has their numbers, or --count"
    ):
        read(path, column="mode")
    warned = distributions_in(path, Reading(column="mode", count=True))[()].notice
    assert "warning: --count counts rows and does not use the numbers in 'people'" in warned
    path = put(
        tmp_path, "u.csv", "area,mode,people\nnorth,bike,2\nnorth,car,3\nnorth,car,1\n"
    )  # one row a person, who lives with others
    assert "warning" not in distributions_in(path, Reading(column="mode", count=True))[()].notice


def test_smoothing_reaches_the_options_that_a_group_never_chose(tmp_path):
    path = put(tmp_path, "t.csv", "region,answer\nNorth,yes\nNorth,no\nSouth,no\nWest,maybe\nWest,yes\n")
    found, notices = grouped(path, **BY_REGION, alpha=1)
    assert found == {
        ("North",): {"yes": 0.4, "no": 0.4, "maybe": 0.2},
        ("South",): {"yes": 0.25, "no": 0.5, "maybe": 0.25},
        ("West",): {"yes": 0.4, "no": 0.2, "maybe": 0.4},
    }
    assert "--alpha 1: 4 options that a group never chose got this weight, e.g. 'maybe' in North" in notices
    found, _ = grouped(path, **BY_REGION, alpha=1, top=2)  # of all groups together
    assert {tuple(options) for options in found.values()} == {("yes", "no")}
    found, _ = grouped(put(tmp_path, "u.csv", "region,answer\nNorth,yes\nSouth,no\n"), **BY_REGION, alpha=1)
    assert found[("North",)] == pytest.approx({"yes": 2 / 3, "no": 1 / 3}, abs=1e-8)


def test_smoothing_keeps_the_options_of_questions_apart(tmp_path):
    rows = ["North,Tea?,yes", "North,Tea?,no", "South,Tea?,no", "North,Colour?,red", "North,Colour?,blue", "South,Colour?,red"]
    path = put(tmp_path, "t.csv", "\n".join(["region,question,answer", *rows]))
    options = {"column": "answer", "count": True, "group_by": ("region", "question"), "alpha": 1}
    with pytest.raises(
        InputError, match=r"'Tea\?' and 'Colour\?' have no option in common.*Add --alpha-within question .*else --alpha-within none"
    ):
        grouped(path, **options)
    found, _ = grouped(path, **options, alpha_within=("question",))
    assert found[("South", "Tea?")] == pytest.approx({"yes": 1 / 3, "no": 2 / 3}, abs=1e-8)
    assert list(found[("North", "Colour?")]) == ["red", "blue"]
    found, _ = grouped(path, **options, alpha_within=("none",))
    assert {tuple(shares_) for shares_ in found.values()} == {("yes", "no", "red", "blue")}


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("yes no DK", "red blue DK", "1 of 5 options"), ("yes no DK refused", "red blue green DK refused", "2 of 7 options"), ("yes no", "yes no maybe never", ""),
        ("1 2 3 4", "2 3 4 5", ""), ("yes no DK", "yes never DK", ""), ("a b c d", "c d e f", "2 of 6 options"),
    ],
)  # fmt: skip
def test_alpha_does_not_mix_options_of_questions_that_share_a_few(tmp_path, first, second, refused):
    rows = [f"{question},{answer}\n" for question, answers in (("A", first), ("B", second)) for answer in answers.split()]
    path = put(tmp_path, "t.csv", "question,answer\n" + "".join(rows))
    options = {"column": "answer", "count": True, "group_by": ("question",), "alpha": 1}
    both = list(dict.fromkeys([*first.split(), *second.split()]))
    if refused:
        with pytest.raises(InputError, match=f"'A' and 'B' have {refused} in common.*Add --alpha-within question if"):
            grouped(path, **options)
        found, _ = grouped(path, **options, alpha_within=("question",))
        assert [set(of_group) for of_group in found.values()] == [set(first.split()), set(second.split())]
    else:
        found, _ = grouped(path, **options)
        assert [sorted(of_group) for of_group in found.values()] == [sorted(both)] * 2


def test_groups_are_trimmed_and_rows_without_one_are_left_out_and_both_are_told(tmp_path):
    path = put(
        tmp_path, "t.csv", "region,answer\nNorth,yes\nNorth ,no\n,yes\n  ,no\nSouth,no\nnorth,yes\nNew  York,yes\nNew York,no\n"
    )
    found, notices = grouped(path, **BY_REGION)
    assert found == {
        ("North",): {"yes": 0.5, "no": 0.5}, ("South",): {"no": 1}, ("north",): {"yes": 1}, ("New York",): {"yes": 0.5, "no": 0.5},
    }  # fmt: skip
    assert "skipped rows without a value in 'region': 2" in notices
    assert "groups of 'region' that differ only in spaces are merged: 'North' = 'North '; 'New  York' = 'New York'" in notices
    assert "groups of 'region' that differ in case or inner spaces are kept separate: 'North' and 'north'" in notices


def test_targets_that_are_the_same_once_trimmed_count_together_and_those_that_are_nearly_are_told(tmp_path):
    path = put(tmp_path, "t.csv", "id,answer\n1,Yes\n2,Yes \n3,yes\n4,No\n5,nan\n")
    made = distributions_in(path, Reading(column="answer", count=True))[()]
    assert shares(made) == {"Yes": 0.4, "yes": 0.2, "No": 0.2, "nan": 0.2}
    assert "targets that differ only in spaces are merged: 'Yes' = 'Yes '" in made.notice
    assert "targets that differ in case or inner spaces are kept separate: 'Yes' and 'yes'" in made.notice
    assert "'nan' counts as a target. Remove these rows if they have no answer" in made.notice


@pytest.mark.parametrize(
    ("answers", "expected", "how"),
    [
        (["b", "a", "b", "c"], ["b", "a", "c"], "targets in the order of the file"),
        (["Strongly agree", "Agree", "Agree", "Disagree"], ["Strongly agree", "Agree", "Disagree"], "targets in the order of the file"),
        (["10", "9", "10", "100"], ["9", "10", "100"], "targets in ascending order"),
        (["25-34", "18-24", "18-24", "65+", "under 18", "> 65"], ["under 18", "18-24", "25-34", "65+", "> 65"], "targets in ascending order"),
        (["$50", "$9.5", "$50"], ["$9.5", "$50"], "targets in ascending order"),
        (["2024-06-02", "2024-06-01", "2024-06-02"], ["2024-06-01", "2024-06-02"], "targets in ascending order"),
        (["-1", "-5", "-1", "3"], ["-5", "-1", "3"], "targets in ascending order"),
        (["18-24", "no answer", "10-17", "18-24"], ["18-24", "no answer", "10-17"], "targets in the order of the file"),
    ],
)  # fmt: skip
def test_observations_keep_their_order_and_numbers_ascend(tmp_path, answers, expected, how):
    path = put(tmp_path, "t.csv", "answer,who\n" + "".join(f"{answer},{chr(97 + i)}\n" for i, answer in enumerate(answers)))
    made = distributions_in(path, Reading(column="answer", count=True))[()]
    assert list(made.outcomes) == expected
    assert made.notice.endswith(how)


def test_a_table_of_weights_keeps_its_order_in_every_group(tmp_path):
    path = put(tmp_path, "t.csv", "g,answer,n\nA,5,1\nA,4,2\nA,1,9\nB,1,5\nB,5,5\n")
    made = distributions_in(path, Reading("answer", "n", group_by=("g",)))
    assert {key: found.outcomes for key, found in made.items()} == {("A",): ("5", "4", "1"), ("B",): ("5", "1")}
    top = distributions_in(path, Reading("answer", "n", top=2, group_by=("g",)))
    assert top[("A",)].outcomes == ("4", "1")


@pytest.mark.parametrize(("ordered", "expected"), [(True, ["low", "mid", "high"]), (False, ["low", "mid", "high"])])
def test_categories_keep_their_order(tmp_path, ordered, expected):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, an extra")
    answers = ["high", "low", "high", "mid"]
    kind = pd.CategoricalDtype(["low", "mid", "high"], ordered=ordered)
    pd.DataFrame({"answer": pd.Categorical(answers, dtype=kind)}).to_parquet(tmp_path / "t.parquet")
    made = distributions_in(tmp_path / "t.parquet", Reading(count=True))[()]
    assert list(made.outcomes) == expected
    assert made.notice == "targets in the order of their categories"
    pd.DataFrame({"answer": pd.Categorical(answers)}).to_parquet(tmp_path / "t.parquet")  # sorted as text: no order that is meant
    assert distributions_in(tmp_path / "t.parquet", Reading(count=True))[()].outcomes == ("high", "low", "mid")


def test_rows_of_sums_are_no_answers_and_percentages_that_do_not_make_100_are_told(tmp_path):
    path = put(tmp_path, "t.csv", "answer,n\nYes,71%\nNo,29%\nTotal,100%\n")
    made = distributions_in(path, Reading("answer", "n"))[()]
    assert shares(made) == {"Yes": 0.71, "No": 0.29}
    assert "skipped rows that are the sum of the others: 'Total'" in made.notice
    path = put(tmp_path, "t.csv", "answer,n\nYes,60%\nNo,20%\nTotal,20%\n")
    made = distributions_in(path, Reading("answer", "n"))[()]
    assert shares(made) == {"Yes": 0.6, "No": 0.2, "Total": 0.2}
    path = put(tmp_path, "t.csv", "answer,n\nYes,60%\nNo,20%\n")
    assert (
        "percentages do not sum to 100 %. They are divided by their sum: 80.0 %"
        in distributions_in(path, Reading("answer", "n"))[()].notice
    )


@pytest.mark.parametrize(
    ("name", "content", "expected", "doubtful"),
    [
        ("t.csv", "answer,n\nAll,0.5\nSome,0.3\nNone,0.2\n", {"All": 0.5, "Some": 0.3, "None": 0.2}, False),
        ("t.csv", "answer,n\nN,50\nS,30\nE,20\n", {"N": 0.5, "S": 0.3, "E": 0.2}, True),
        ("t.csv", "answer,n\nBase,8\nTreble,5\nMid,3\n", {"Base": 0.5, "Treble": 0.3125, "Mid": 0.1875}, True),
        ("t.csv", "answer,n\nTotal,50%\nShell,30%\nBP,20%\n", {"Total": 0.5, "Shell": 0.3, "BP": 0.2}, False),
        ("t.csv", "answer,n\nSum,50\nMean,30\nMode,20\n", {"Sum": 0.5, "Mean": 0.3, "Mode": 0.2}, True),
        ("t.csv", "answer,n\nTotal,510\nShell,300\nBP,202\n", {"Total": 510 / 1012, "Shell": 300 / 1012, "BP": 202 / 1012}, True),
        ("t.json", '{"N": 50, "S": 30, "E": 20}', {"N": 0.5, "S": 0.3, "E": 0.2}, True),
        ("t.json", '{"Total": 80, "Shell": 50, "BP": 30}', {"Total": 0.5, "Shell": 0.3125, "BP": 0.1875}, True),
        ("t.csv", "answer,n\nYes,710\nNo,290\nGrand total,1000\n", {"Yes": 0.71, "No": 0.29}, False),
        ("t.csv", "answer,n\nYes,0.333\nNo,0.333\nDK,0.333\nGesamt,1\n", dict.fromkeys(("Yes", "No", "DK"), 1 / 3), False),
    ],
)  # fmt: skip
def test_no_answer_is_left_out_because_of_its_name(tmp_path, name, content, expected, doubtful):
    options = {} if name.endswith("json") else {"column": "answer", "weight_column": "n"}
    made = distributions_in(put(tmp_path, name, content), Reading(**options))[()]
    assert shares(made) == pytest.approx(expected, abs=1e-8)
    assert ("rows with the weight of all others together count as answers" in made.notice) == doubtful


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["60", "60+"], ["60-plus.json", "60.json"]), (["< 18", "18", "> 18"], ["18.json", "over-18.json", "under-18.json"]), (["-1", "1"], ["1.json", "minus-1.json"]),
        (["C", "C++", "C#"], ["c-plus-plus.json", "c-sharp.json", "c.json"]), (["Köln", "東京", "Москва"], ["koln.json", "москва.json", "東京.json"]),
        (["5", "5%"], ["5-percent.json", "5.json"]),
    ],
)  # fmt: skip
def test_files_of_groups_say_which_is_which(tmp_path, in_process, values, names):
    put(tmp_path, "t.csv", "g,answer\n" + "".join(f"{value},yes\n{value},no\n" for value in values))
    done = in_process("init-prompt", "--from", "t.csv", "--column", "answer", "--count", "--group-by", "g", "--request", "{g}? {{yes}}", "-o", "out", "--header-rows", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert ".json:" not in done.stderr
    assert f"preview of the first prompt, out/{min(names)}\n" in done.stderr


def test_a_number_in_a_files_name_is_explained(tmp_path, in_process):
    put(tmp_path, "t.csv", "g,answer\nNorth,yes\nNorth,no\nnorth,yes\nnorth,no\n9/10?,yes\n9 10,yes\n")
    done = in_process("init-prompt", "--from", "t.csv", "--column", "answer", "--count", "--group-by", "g", "--request", "{g}? {{yes}}", "-o", "out")  # fmt: skip
    assert "north-2.json: north\n9-10-2.json: 9 10" in done.stderr
    assert read_prompt(tmp_path / "out" / "north-2.json").request == "north? {yes}"


def test_two_groups_that_would_be_asked_the_same_are_refused(tmp_path, in_process):
    put(tmp_path, "t.csv", "region,q,answer\nN,Tea?,yes\nS,Tea?,no\nS,Milk?,no\n")
    options = ["--from", "t.csv", "--column", "answer", "--count", "--group-by", "region,q", "-o", "out"]
    done = in_process("init-prompt", *options, "--request", "{q}")
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert "--group-by: N, Tea? and S, Tea? would have the same request. Put {region} into --request or --system" in done.stderr
    assert done.stderr.endswith("e.g. --request 'region: {region}. Tea?'\n")
    done = in_process("init-prompt", *options)
    assert "all groups would have the same request" in done.stderr
    copied = shlex.split(done.stderr.partition("e.g. ")[2])
    assert copied[0] == "--request"
    assert copied[2:] == ["--form"]


def test_lists_in_rows_become_a_folder_of_prompts_from_the_command_line(tmp_path, in_process):
    pd.DataFrame({"q": ["Is it?", "Was it?"], "options": ["['Good', 'Bad']"] * 2, "shares": ["{'A': [7, 3]}", "{'A': [1, 1], 'B': [0, 1]}"]}).to_csv(tmp_path / "t.csv", index=False)  # fmt: skip
    options = ["--from", "t.csv", "--options-column", "options", "--shares-column", "shares"]
    asked = ["--request", "{q} In {group}: {{Good}} or {{Bad}}?", "-o", "out"]
    done = in_process("init-prompt", *options, "--group-by", "q", *asked)
    assert done.returncode == 0, done.stderr
    assert "wrote 3 prompts into out" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["is-it_a.json", "was-it_a.json", "was-it_b.json"]
    prompt = read_prompt(tmp_path / "out" / "is-it_a.json")
    assert (prompt.request, prompt.targets, prompt.weights) == ("Is it? In A: {Good} or {Bad}?", ("{Good}", "{Bad}"), (0.7, 0.3))
    assert "--shares-column writes a folder of prompts. Name it with -o" in in_process("init-prompt", *options).stderr
    assert (
        "would have the same request. Put {q} into"
        in in_process("init-prompt", *options, "--request", "{group}?", "-o", "x").stderr
    )
    assert "Available: q, group" in in_process("init-prompt", *options, "--request", "{where}?", "-o", "x").stderr
    pd.DataFrame({"q": ["Is it?"], "options": ["Good|Bad"], "shares": ["7|3"]}).to_csv(tmp_path / "one.csv", index=False)
    done = in_process("init-prompt", "--from", "one.csv", *options[2:], "--request", "{q}", "-o", "one.json")
    assert read_prompt(tmp_path / "one.json").request == "Is it?", done.stderr


def test_names_of_columns_with_commas_stand_in_quotes(tmp_path, in_process):
    put(tmp_path, "t.csv", 'region,"Do you, ever?",answer\nN,often,yes\nS,never,no\n')
    done = in_process("init-prompt", "--from", "t.csv", "--column", "answer", "--count", "--group-by", '"Do you, ever?", region',
                      "--request", "{region} {Do you, ever?} {{yes}}", "-o", "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["never_s.json", "often_n.json"]


def test_options_of_the_layout_reach_the_reader(tmp_path, in_process):
    put(tmp_path, "t.txt", "Zoë;F;7\nAnna;F;3\n".encode("cp1252"))
    options = [
        "--from",
        "t.txt",
        "--encoding",
        "cp1252",
        "--delimiter",
        ";",
        "--no-header",
        "--column",
        "1",
        "--weight-column",
        "3",
    ]
    done = in_process("init-prompt", *options, "--no-preview")
    assert '"{Zoë}",\n    "{Anna}"' in done.stdout, done.stderr
    refused = in_process("init-prompt", *options, "--header-rows", "1")
    assert "--no-header and --header-rows 1 exclude each other" in refused.stderr
    assert "describe a file. Name it with --from" in in_process("init-prompt", "--dice", "d6", "--no-header").stderr
