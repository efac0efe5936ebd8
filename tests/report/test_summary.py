"""What `evaluate` prints by default: verdicts in words and colour, five figures, a histogram, at any width."""

import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from diffusecli.evaluation.metrics import ExactFigures
from diffusecli.evaluation.sample_set import SampleSet
from diffusecli.files.writing import write_json
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.histogram import Showing
from diffusecli.report.next_steps import about, answers_needed, next_steps
from diffusecli.report.parts import Flow, bar
from diffusecli.report.summary import evaluation
from diffusecli.report.tables import answers, distribution_preview, training_plan
from diffusecli.report.widths import distinguishable
from diffusecli.report.wording import mark_of
from diffusecli.runs.next_commands import Next
from diffusecli.training.budget import Plan
from diffusecli.verbs.evaluate import Question, evaluate
from tests.report.test_html import run_with

COIN = Prompt(request="Toss.", targets=("{heads}", "{tails}"))


def found(tmp_path, answers, prompt=COIN):
    (tmp_path / "coin.json").write_text(prompt.to_json())
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" * count for text, count in answers.items()))
    return evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "coin.json"))


def shown(found, width=80, *, colour=False, verbose=False):
    return printed(evaluation(found, verbose=verbose), width, colour=colour)


def printed(view, width=80, *, colour=False):
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None, highlight=False).print(
        view
    )
    return stream.getvalue()


AT_60 = """\
coin
  ✓ a: follows the target
    N 1000   valid 100.0 %
    TVD 0.010 (perfect sampler 0.013)
    entropy 0.69 (target 0.69)
"""
AT_120 = """\
coin
  ✓ a: follows the target
    N 1000   valid 100.0 %   TVD 0.010 (perfect sampler 0.013)   entropy 0.69 (target 0.69)
"""


@pytest.mark.parametrize(("width", "expected"), [(60, AT_60), (120, AT_120)])
def test_figures_take_as_many_lines_as_they_need(tmp_path, width, expected):
    lines = shown(found(tmp_path, {"{heads}": 510, "{tails}": 490}), width)
    assert [line.rstrip() for line in lines.splitlines()][: expected.count("\n")] == expected.splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal_and_bars_use_what_there_is(tmp_path, width):
    long = Prompt(request="How?", targets=[f"{{very very long answer number {k} of the survey}}" for k in range(3)])
    lines = shown(found(tmp_path, {target: 100 + 50 * k for k, target in enumerate(long.targets)}, long), width).splitlines()
    assert max(map(len, lines)) <= width
    bars = [line.count("█") + line.count("│") for line in lines if "█" in line]
    assert len(bars) == 3
    assert bars == sorted(bars)
    assert max(bars) >= min(8, width // 10)


@pytest.mark.parametrize(
    ("answers", "sign", "colour"),
    [
        ({"{heads}": 500, "{tails}": 500}, "✓", 32),
        ({"{heads}": 5, "{tails}": 5}, "?", 33),
        ({"{heads}": 900, "{tails}": 100}, "✗", 31),
    ],
)
def test_verdicts_have_the_colour_of_what_they_say(tmp_path, answers, sign, colour):
    line = next(line for line in shown(found(tmp_path, answers), colour=True).splitlines() if sign in line)
    assert f"\x1b[{colour}m" in line
    assert "\x1b" not in shown(found(tmp_path, answers))


def test_shares_that_differ_are_named(tmp_path):
    lines = shown(found(tmp_path, {"{heads}": 900, "{tails}": 100})).splitlines()
    assert [line.split()[-1] + line.split()[-2] for line in lines if "{heads}" in line or "{tails}" in line] == [
        "oftentoo",
        "rarelytoo",
    ]


def test_shares_are_of_valid_answers_where_some_are_not(tmp_path):
    text = shown(found(tmp_path, {"{heads}": 60, "{tails}": 20, "edge": 100}))
    assert "of valid" in text
    assert "  off target:   'edge' (100)" in text
    assert [line.split()[3] for line in text.splitlines() if line.strip().startswith("{")] == ["75.0", "25.0"]
    assert "of valid" in shown(found(tmp_path, {"{heads}": 60, "{tails}": 20})), "one name of the column"


def test_the_legend_explains_the_figures_shown_and_no_others(tmp_path):
    terms = legend(found(tmp_path, {"{heads}": 60, "{tails}": 20}))
    assert terms["weight, wanted"] == "share of a target that the prompt asks for"
    assert terms["G"].startswith("likelihood ratio")
    assert {"Cohen's w", "detectable TVD", "of valid", "count"} <= terms.keys()
    assert not {"Cramér's V", "known values", "copies", "Wasserstein distance", "exact"} & terms.keys()
    numbers = Prompt(request="?", targets=("{1}", "{2}"))
    assert "Wasserstein distance" in legend(found(tmp_path, {"{1}": 60, "{2}": 20}, numbers))
    records = Prompt(request="?", targets=("{a, x}", "{b, y}"), template="{{{first}, {second}}}")
    assert {"Cramér's V", "known values", "copies"} <= legend(found(tmp_path, {"{a, x}": 60, "{b, y}": 50}, records)).keys()


def legend(judged):
    """Term -> meaning, from lines with a column for each."""
    lines = shown(judged, 200, verbose=True).split("\n\n")[-1].splitlines()
    return {line[:23].strip(): line[23:].strip() for line in lines}


def test_later_lines_of_a_meaning_are_below_its_first(tmp_path):
    lines = shown(found(tmp_path, {"{heads}": 60, "{tails}": 20}), 60, verbose=True).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("perfect sampler "))
    assert [line.rstrip() for line in lines[start : start + 2]] == [
        "perfect sampler         the mean for independent draws from",
        " " * 24 + "the weights, as many as the samples",
    ]


@pytest.mark.parametrize(("answers", "judged"), [
    ({"{a, x}": 50, "{b, y}": 50}, "fits (p = 1; differs if p < 0.025)"),
    ({"{a, x}": 25, "{b, y}": 25, "{a, y}": 25, "{b, x}": 25}, "almost none (p <= 0.001; differs if p < 0.025)"),
])  # fmt: skip
def test_the_worst_pair_is_judged(tmp_path, answers, judged):
    records = Prompt(request="?", targets=("{a, x}", "{b, y}"), template="{{{first}, {second}}}")
    text = " ".join(shown(found(tmp_path, answers, records), 200, verbose=True).split())
    assert f"Cramér's V of first and second: {judged}; perfect sampler 1.000, weights 1.000" in text


def test_the_figures_that_decide_on_fields_and_pairs_are_printed(tmp_path):
    """Shares are wrong, and the association is too strong for them: .92 * .04 / (.03 * .01) = 123, odds ratio of the target 81."""
    weights = {"{a, c}": 0.45, "{a, d}": 0.05, "{b, c}": 0.05, "{b, d}": 0.45}
    asked = Prompt(request="r", targets=tuple(weights), weights=tuple(weights.values()), template="{{{x}, {y}}}")
    counts = dict(zip(weights, (9200, 300, 100, 400), strict=True))
    judged = found(tmp_path, counts, asked)
    (pair,) = judged.rows[0].records.pairs
    text = " ".join(shown(judged, 200, verbose=True).split())
    assert "the shares differ if p < 0.0125" in text
    assert f"at these shares {pair.sampled:.3f} Cramér's V of x and y: too strong (p <= 0.001)" in text
    assert f"perfect sampler with these shares of fields {pair.given_fields:.3f}" in text


@pytest.mark.parametrize(("weights", "kind"), [(None, "first"), ((*range(1, 100), 1000), "largest")])
def test_the_targets_that_are_shown_of_many_are_named(tmp_path, weights, kind):
    targets = tuple(f"n{place}" for place in range(100))
    judged = found(tmp_path, dict.fromkeys(targets, 20), Prompt(request="r", targets=targets, weights=weights))
    assert f"showing the {kind} and the worst-fitting targets; " in shown(judged, 120)


def test_an_excess_has_as_many_decimals_as_the_two_that_it_subtracts(tmp_path):
    text = shown(found(tmp_path, {"{heads}": 520, "{tails}": 480}), 120, verbose=True)
    assert "perfect sampler 0.013, excess 0.007;" in text  # 0.02 - 0.0126


def test_records_that_differ_at_their_ends_stay_different():
    names = ["{Bob, 25-49, teacher from Paris}", "{Bob, 25-49, teacher from Lyon}", "{Bob, 50-74, teacher from Paris}"]
    assert len(set(distinguishable(names, 20))) == 3


@pytest.mark.parametrize(("mode", "texts", "rest"), [("lora", 20, 5), ("untuned", 2, 23)])
def test_all_figures_have_fewer_texts_of_a_model_that_is_not_tuned(mode, texts, rest):
    given = (SampleSet("x", mode, COIN, Answers({f"text {k}": 1 for k in range(25)})),)
    text = shown(evaluate([], Question(given=given)), verbose=True)
    assert text.count("1 x 'text ") == texts
    assert f"and {rest} more texts" in text


def test_answers_off_target_are_shown_where_no_answer_is_a_target(tmp_path):
    text = shown(found(tmp_path, {"edge": 7, "Heads": 2}))
    assert "off target 100 %" in text
    assert "7 x 'edge'" in text


def test_unfinished_answers_are_counted_beside_texts_off_target(tmp_path):
    counts = Answers({"heads": 3, "tails": 1})
    counts.add("{he", 6, unfinished=True)
    (tmp_path / "coin.json").write_text(COIN.to_json())
    given = (SampleSet("x", "untuned", COIN, counts),)
    lines = shown(evaluate([], Question(given=given))).splitlines()
    assert "  2 texts off target (4 samples; the other 6 are unfinished):" in [line.rstrip() for line in lines]
    assert not any("{he" in line for line in lines)


@pytest.mark.parametrize(("off", "noted"), [(0, False), (1, True)])
def test_the_entropy_has_a_note_if_texts_off_target_raise_it(tmp_path, off, noted):
    answers = {"{heads}": 50, "{tails}": 50 - off, **{f"junk {i}": 1 for i in range(off)}}
    note = "off-target texts raise it"
    judged = found(tmp_path, answers)
    assert [note in line for line in shown(judged).split("   ") if "entropy" in line] == [noted]
    assert [note in line for line in shown(judged, 120, verbose=True).splitlines() if "nats; target" in line] == [noted]
    low = found(tmp_path, {"{heads}": 100 - off, "junk": off})  # below the target's
    assert note not in shown(low)


def test_a_rule_that_would_match_is_named(tmp_path):
    assert "60 off-target samples match in any case: --match 'casefold'" in shown(found(tmp_path, {"{HEADS}": 60}))


def test_names_that_differ_only_in_the_middle_stay_different():
    names = [f"a very long name that begins and ends alike {k} in the middle of it all" for k in range(3)]
    assert len(set(distinguishable(names, 20))) == 3
    assert all(len(name) <= 20 for name in distinguishable(names, 20))


@pytest.mark.parametrize(
    ("width", "names", "expected"),
    [
        (
            11,
            [*(f"people/young-women-in-the-{place}-of-the-country" for place in ("north", "south")), "cities/large"],
            ["peo…north-…", "peo…south-…", "citie…large"],
        ),
        (
            20,
            [*(f"survey question on the {topic} of the country" for topic in ("environment", "government")), "another question that is long"],
            ["survey…environment…", "survey…government o…", "another question th…"],
        ),
        (
            11,
            [f"{what}/women-in-the-{place}-of-the-country" for what in ("people", "cities") for place in ("north", "south")],
            ["peo…north-…", "peo…south-…", "cit…north-…", "cit…south-…"],
        ),
    ],
)  # fmt: skip
def test_names_that_are_alike_where_others_differ_are_cut_elsewhere(width, names, expected):
    assert distinguishable(names, width) == expected


WORDS = st.sampled_from(["north", "south", "in", "the", "a", "young", "women", "x1", "x2", "満足", "environment"])
NAMES = st.builds(lambda sign, words: sign.join(words), st.sampled_from([" ", "/", "-"]), st.lists(WORDS, min_size=1, max_size=9))


@given(st.lists(NAMES, min_size=1, max_size=8), st.integers(12, 40))
def test_different_names_stay_different_and_none_is_too_wide(names, width):
    cut = distinguishable(names, width)
    assert all(cell_len(shown) <= width for shown in cut)
    assert all(shown == name for name, shown in zip(names, cut, strict=True) if cell_len(name) <= width)
    assert len(set(cut)) == len(set(names)) == len(set(zip(names, cut, strict=True)))


@given(st.lists(st.text(max_size=12), max_size=6), st.integers(2, 9))
def test_texts_of_any_characters_are_cut_to_any_width(texts, width):
    assert all(cell_len(shown) <= width for shown in distinguishable(texts, width))


def test_the_command_is_short_and_says_how_to_see_all(tmp_path, in_process):
    found(tmp_path, {"{heads}": 510, "{tails}": 490})
    words = ["evaluate", str(tmp_path / "a.txt"), "--prompt", str(tmp_path / "coin.json")]
    short, whole = in_process(*words), in_process(*words, "--verbose")
    assert "Pearson" not in short.stdout
    assert "Pearson" in whole.stdout
    assert len(short.stdout.splitlines()) <= 10
    assert "next: add `--verbose` for all figures" in short.stderr
    assert max(map(len, short.stderr.splitlines())) <= 80
    assert "next: add `--html report.html` for charts" in whole.stderr
    assert json.loads(in_process(*words, "--json").stdout)["rows"][0]["figures"]["g"] >= 0


def test_a_figure_wider_than_the_terminal_is_split_with_its_indent():
    long = "entropy 5.80 (target 1.43, perfect sampler 1.44; off-target texts raise it)"
    assert printed(Flow(["valid 0.0 %", long, "exact KL 0.1"], 4), 40).splitlines() == [
        "    valid 0.0 %",
        "    entropy 5.80 (target 1.43, perfect",
        "    sampler 1.44; off-target texts raise",
        "    it)   exact KL 0.1",
    ]


def test_an_exact_distance_decides_an_open_verdict(tmp_path):
    """Without it, the next step computes it; its figure is beside the others."""
    answers = {"lora": {"p.json": {"a": 540, "b": 460}}}
    run = run_with(tmp_path / "run", {"p.json": {"request": "Toss.", "targets": ["a", "b"]}}, answers)
    open_one = evaluate([run.path])
    assert not any("--exact" in step for step in next_steps(open_one))  # there is no adapter
    for name in ("adapter_config.json", "adapter_model.safetensors", "config.yaml"):
        (run.path / name).touch()
    assert open_one.rows[0].verdict.startswith("differs, perhaps by little: true TVD between")
    step = f"compute the exact distance: `diffuse evaluate {run.path} --exact`"
    assert step in list(next_steps(open_one))
    (row,) = open_one.rows
    known = replace(open_one, rows=(replace(row, exact=ExactFigures(0.002, 0.99, 0.0321)),))
    assert step not in list(next_steps(known))
    assert "exact TVD 0.032" in shown(known)


def test_a_single_answer_is_no_verdict(tmp_path):
    yes_or_no = Prompt(request="Yes?", targets=("{yes}", "{no}"), weights=(3, 1))
    text = shown(found(tmp_path, {"{yes}": 1}, yes_or_no))
    assert "? a: too few samples for a verdict (no difference would be detected)" in text
    assert "✓" not in text


WIDE = {
    "Chinese": ["{非常满意}", "{比较满意的人和其他说自己大体上还算满意的人}", "{不满意}"],
    "Japanese": ["{とても満足}", "{どちらかといえば満足しているがそうでないときもある}", "{ふまん\u3099}"],
    "accents": ["{cafe\u0301}", "{" + "e\u0301" * 40 + "}", "{the}"],
}


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("texts", WIDE.values(), ids=WIDE)
def test_columns_are_straight_and_fit_whatever_the_width_of_a_character(tmp_path, texts, verbose):
    asked = Prompt(request="満足ですか", targets=texts, weights=(5, 3, 2), alias="p.json")
    counts = {texts[0]: 300, texts[1]: 400, texts[2]: 250, "答えは、" + "とても" * 30: 50}
    for text in (shown(found(tmp_path, counts, asked), 60, verbose=verbose), printed(distribution_preview(asked), 60)):
        lines = text.splitlines()
        assert max(map(cell_len, lines)) <= 60
        assert sum(line.strip().startswith("{") for line in lines) == 3
        rows = [line for line in lines if re.search(r" (50|30|20)\.0 %", line)]
        assert len(rows) == 3
        assert len({cell_len(line[: line.index(" %")]) for line in rows}) == 1


def test_answers_without_targets_show_their_beginnings():
    told = Answers({"Once upon a time there was " + "a very " * 20 + "long story": 2, "short": 1})
    lines = printed(answers(told)).splitlines()
    assert [line.split("  ")[0] for line in lines[2:4]] == ["Once upon a time there was a very a ver…", "short"]


def test_fields_have_their_verdict_in_words_and_names_of_their_own(tmp_path):
    first, second = "the_answer_to_question_one_of_the_form", "the_answer_to_question_two_of_the_form"
    targets = [f"{a}/{b}" for a in "xy" for b in "xy"]
    asked = Prompt(request="?", targets=targets, template=f"{{{first}}}/{{{second}}}", alias="p.json")
    judged = found(tmp_path, {"x/x": 450, "x/y": 450, "y/x": 50, "y/y": 50}, asked)
    lines = [line.split() for line in shown(judged, 80).splitlines()]
    (wrong,) = (line for line in lines if line[:1] == ["✗"] and line[2:3] == ["0.400"])
    assert " ".join(wrong[4:]) == "wrong shares: 'x' 90.0 %, wanted"  # and on the next line
    assert "wrong shares: 'x' 90.0 %, wanted 50.0 %" in " ".join(shown(judged, 80).split())
    (right,) = (line for line in lines if line[:1] == ["✓"])
    assert " ".join(right[4:]) == "follows the target"
    names = "".join(line[4:24].strip() for line in shown(judged, 80, verbose=True).splitlines())
    assert f"TVD of {first}" in names
    assert f"TVD of {second}" in names


@pytest.mark.parametrize("width", [60, 80, 120])
def test_targets_and_texts_are_in_full_with_all_figures(tmp_path, width):
    long = Prompt(request="How?", targets=[f"{{answer {k} {'that is very ' * 2 * k}long}}" for k in range(1, 4)])
    stray = "I would say that " * 10 + "I do not know"
    judged = found(tmp_path, {**{target: 100 + 50 * k for k, target in enumerate(long.targets)}, stray: 3}, long)
    whole = " ".join(shown(judged, width, verbose=True).split())
    assert all(target in whole for target in long.targets)
    assert f"3 x '{stray}'" in whole
    assert f"'{stray}'" not in " ".join(shown(judged, width).split())


@pytest.mark.parametrize(("width", "texts"), [(60, 34), (80, 34), (120, 48), (200, 88)])
def test_texts_off_target_take_the_width_there_is(tmp_path, width, texts):
    """Half of it if they share a line with others; the texts that are not shown are counted."""
    stray = {f"{k}: {'abc' * 99}": 9 - k for k in range(8)}
    text = shown(found(tmp_path, {"{heads}": 60, "{tails}": 60, **stray}), width)
    assert [len(one) for one in re.findall(r"('[^']*') \(", text)] == [texts] * 5
    assert "and 3 more texts" in text
    alone = shown(found(tmp_path, stray), width)
    assert [len(line) for line in alone.splitlines() if " x '" in line] == [width] * 5
    assert "and 3 more texts" in alone


def test_a_text_with_other_characters_wraps_at_its_width(tmp_path):
    """The space before a percent sign, which is no end of a line, counts as a column."""
    lines = printed(Flow(["é aaaaaaaaaaaaaaaa 49 % bbb 2.1 % cc"], 4), 30).splitlines()
    assert lines == ["    é aaaaaaaaaaaaaaaa 49 %", "    bbb 2.1 % cc"]


def test_few_valid_answers_have_their_number_and_no_bars(tmp_path):
    few = found(tmp_path, {"{heads}": 2, "{tails}": 1, **{f"junk {k}": 1 for k in range(97)}})
    for verbose in (False, True):
        text = shown(few, verbose=verbose)
        assert "of 3 valid" in text
        assert "█" not in text
        assert "│" not in text
    enough = shown(found(tmp_path, {"{heads}": 10, "{tails}": 10}))
    assert "of valid" in enough
    assert "█" in enough


def test_the_entropy_of_other_texts_is_their_number(tmp_path):
    assert "N 100   TVD 0.970 (perfect sampler 0.040)   99 different answers" in shown(
        found(tmp_path, {"{heads}": 2, "{tails}": 1, **{f"junk {k}": 1 for k in range(97)}})
    )
    assert "different answers" not in shown(found(tmp_path, {"{heads}": 5, "edge": 95}))


def test_wrong_shares_without_a_target_that_stands_out_say_so(tmp_path):
    """Forty targets, each off by less than its noise, and all together by more."""
    many = Prompt(request="Which?", targets=[f"{{{k} x}}" for k in range(40)])
    text = shown(found(tmp_path, {target: 50 + (12 if k % 2 else -12) for k, target in enumerate(many.targets)}, many))
    assert "✗ a: wrong shares" in text
    assert "too often" not in text
    assert re.search(r"^  no single target stands out; together p (<=|=) 0\.00\d+$", text, re.MULTILINE)
    assert "stands out" not in shown(found(tmp_path, {"{heads}": 900, "{tails}": 100}))


def test_the_default_output_explains_its_terms_in_one_line(tmp_path):
    judged = found(tmp_path, {"{heads}": 510, "{tails}": 490})
    tvd = "TVD: share of all answers that would have to change. "
    assert shown(judged).rstrip().endswith(f"\n\n{tvd}0 is perfect")
    exact = replace(judged, rows=tuple(replace(row, exact=ExactFigures(0.002, 0.99, 0.0321)) for row in judged.rows * 2))
    assert shown(exact).count(f"{tvd}KL: in nats. 0 is perfect\n") == 1
    assert tvd not in shown(judged, verbose=True)


def test_a_sampler_without_valid_answers_has_no_blocks_of_zeros(tmp_path):
    lines = [line.split("  ")[2].strip() for line in shown(found(tmp_path, {"edge": 60}), 120, verbose=True).splitlines()[2:5]]
    assert lines == ["samples", "valid", "TVD"]
    assert "distinct targets" not in shown(found(tmp_path, {"edge": 60}), verbose=True)


def test_fields_are_offered_if_there_are_records(tmp_path):
    records = Prompt(request="?", targets=("{a, x}", "{b, y}"), template="{{{first}, {second}}}")
    hint = "`--verbose` shows each field"
    assert hint in shown(found(tmp_path, {"{a, x}": 20, "?": 80}, records))
    assert hint not in shown(found(tmp_path, {"?": 80}, records))
    assert "TVD of first" not in shown(found(tmp_path, {"?": 80}, records), verbose=True)


def test_the_legend_has_no_sign_that_is_not_there(tmp_path):
    both = {"p <= ...", "*"}
    assert not both & legend(found(tmp_path, {"{heads}": 60, "{tails}": 50})).keys()
    assert both <= legend(found(tmp_path, {"{heads}": 900, "{tails}": 50})).keys()


@pytest.mark.parametrize(("width", "figures"), [(40, 5), (60, 2), (80, 2), (120, 1)])
def test_all_figures_of_a_target_are_beside_a_bar_at_every_width(tmp_path, width, figures):
    """Bars share a line with the names; below them are the figures, in one line or more."""
    long = Prompt(request="How?", targets=("{one long name of a target}", "{two long names of a target}"))
    lines = [
        line.rstrip()
        for line in shown(found(tmp_path, {long.targets[0]: 75, long.targets[1]: 25}, long), width, verbose=True).splitlines()
    ]
    start = next(place for place, line in enumerate(lines) if line.startswith("  {one"))
    text = " ".join(lines[start : start + figures])
    assert "█" in lines[start]
    assert "│" in lines[start]
    assert all(figure in text for figure in ("50.0 %", "75.0 %", " 75 ", "50.0 ", "+5.0*"))
    assert max(map(cell_len, lines)) <= width


def test_notes_are_below_their_figures_on_a_narrow_terminal(tmp_path):
    judged = found(tmp_path, {"{heads}": 60, "{tails}": 20})
    lines = [line.rstrip() for line in shown(judged, 60, verbose=True).splitlines()]
    place = lines.index("    effective outcomes            1.8")
    assert lines[place + 1] == "        exp(entropy); target 2.0"
    assert "    effective outcomes            1.8  exp(entropy); target 2.0" in shown(judged, 80, verbose=True)


def test_a_plan_explains_its_columns():
    plan = Plan(
        {"p.json": (10, 2.3026, 90, 740)}, steps=50, tokens_in_all=4500, learning_rate=2e-3, parameters=135_000_000, memory_gb=1.1
    )
    lines = printed(training_plan(plan)).splitlines()
    assert lines[0].split() == ["prompt", "targets", "entropy", "tokens", "as", "rows"]
    assert lines[2].split() == ["p", "10", "2.303", "90", "740"]
    for head in ("entropy", "tokens", "as rows", "time"):
        assert any(line.startswith(f"{head}: ") for line in lines)


def test_a_figure_is_not_repeated_in_other_words(tmp_path):
    """The share on target is that off target, and the share of records may be the valid share."""
    off = shown(found(tmp_path, {"edge": 60, "{heads}": 40}))
    assert "off target 60 %" in off
    assert "valid 40.0 %" not in off
    assert "texts off target (" not in shown(found(tmp_path, {"edge": 60, "side": 40}))
    records = Prompt(request="?", targets=("{a, x}", "{b, y}"), template="{{{first}, {second}}}")
    same = shown(found(tmp_path, {"{a, x}": 50, "{b, y}": 49, "?": 1}, records))
    assert "valid 99.0 %" in same
    assert "records: in" not in same
    assert "records: in 99.0 % of the answers" in shown(found(tmp_path, {"{a, x}": 50, "{b, y}": 48, "{a, y}": 1, "?": 1}, records))


def cut_at(limit, texts, prompt=COIN, mode="lora"):
    counts = Answers({"{heads}": 5, "{tails}": 5})
    for text, count in texts.items():
        counts.add(text, count, unfinished=True)
    return evaluate([], Question(given=(SampleSet("x", mode, prompt, counts, {"max_new_tokens": limit}),)))


@pytest.mark.parametrize(
    ("texts", "advised"),
    [
        ({"{head": 8}, True),
        ({"{heads}": 8}, True),  # cut before its end
        ({"": 8}, True),
        ({"Sure! I toss": 8, "{heads} it is": 8, "{Heads": 8}, False),
        ({"Sure! I toss": 500, "{head": 8}, False),  # below 5 %
    ],
)
def test_more_tokens_are_advised_where_cut_answers_could_become_valid(texts, advised):
    step = "many answers were cut: sample with a larger `--max-new-tokens` (now 4)"
    assert (step in list(next_steps(cut_at(4, texts)))) is advised


def test_more_tokens_are_advised_for_open_ended_answers():
    told = cut_at(4, {"Once upon a": 8}, Prompt(request="Tell a story.", targets=()))
    assert list(next_steps(told)) == ["many answers were cut: sample with a larger `--max-new-tokens` (now 4)"]


@pytest.mark.parametrize(("exact", "counts", "step"), [
    (None, {"a": 96, "b": 98, "x": 6}, "compute the exact distance: `diffuse evaluate {run} --exact`"),
    (0.03, {"a": 96, "b": 98, "x": 6}, "train further: `train run`"),
    (0.01, {"a": 5, "b": 5}, "draw more samples: `diffuse sample {run} -n 1000`"),
])  # fmt: skip
def test_what_decides_an_open_verdict(tmp_path, monkeypatch, exact, counts, step):
    monkeypatch.setattr("diffusecli.report.next_steps.training", lambda run, *, further: Next("train further", "train run"))
    monkeypatch.setattr(
        "diffusecli.report.next_steps.sampling", lambda run, prompt: Next("draw samples", f"diffuse sample {run.path}")
    )
    run = run_with(tmp_path / "run", {"p.json": {"request": "Toss.", "targets": ["a", "b"]}}, {"lora": {"p.json": counts}})
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (run.path / name).write_bytes(b"")
    (run.path / "config.yaml").write_text("model: m")
    found = evaluate([run.path])
    if exact is not None:
        figures = ExactFigures(kl=0.0, on_target=0.97, tvd=exact)
        found = replace(found, rows=tuple(replace(row, exact=figures) for row in found.rows))
    assert mark_of(found.rows[0].verdict)[0] == "?"
    assert list(next_steps(found)) == [step.format(run=run.path)]


@pytest.mark.parametrize(("runs", "expected"), [
    (1, ["train further: `train run-0`"]),
    (2, ["train further: `train run-1`", "train further: `train run-0`"]),
    (3, ["train further (the worst run; then {0}/run-1; {0}/run-0): `train run-2`"]),
])  # fmt: skip
def test_the_run_that_is_furthest_from_its_target_is_trained_further(tmp_path, monkeypatch, runs, expected):
    monkeypatch.setattr(
        "diffusecli.report.next_steps.training", lambda run, *, further: Next("train further", f"train {run.path.name}")
    )
    asked = {"p.json": {"request": "Toss.", "targets": ["a", "b"]}}
    made = [run_with(tmp_path / f"run-{k}", asked, {"lora": {"p.json": {"a": 700 + 50 * k, "b": 300}}}) for k in range(runs)]
    assert list(next_steps(evaluate([run.path for run in made]))) == [step.format(tmp_path) for step in expected]


def two_runs(tmp_path, prompts):
    """The second has more answers than the first."""
    asked = {f"{k}.json": {"request": f"Toss {k}.", "targets": ["a", "b"]} for k in range(prompts)}
    return [
        run_with(tmp_path / name, asked, {"lora": {alias: {"a": n, "b": n} for alias in asked}}, {"retention_kl": drift}).path
        for name, n, drift in (("one", 100, 0.01), ("two", 150, 0.3))
    ]


@pytest.mark.parametrize("prompts", [1, 2])
def test_means_over_prompts_need_two_and_drift_has_its_scale(tmp_path, prompts):
    text = " ".join(shown(evaluate(two_runs(tmp_path, prompts))).split())
    assert ("runs: means over 2 prompts" in text) is (prompts == 2)
    assert "0.0100" in text
    assert "0.3000" in text
    assert "(0.02 is small, 0.4 is large)" in text


def two_runs_on_prompts_of_their_own(tmp_path):
    asked = {name: {"request": f"Toss {name}.", "targets": ["a", "b"]} for name in ("one", "two")}
    samples = {name: {"lora": {f"{name}.json": {"a": 9, "b": 9}}} for name in asked}
    return [run_with(tmp_path / name, {f"{name}.json": asked[name]}, samples[name], {"retention_kl": 0.01}).path for name in asked]


def test_the_scale_of_drift_is_said_once(tmp_path):
    lines = [line.strip() for line in shown(evaluate(two_runs_on_prompts_of_their_own(tmp_path)), 120).splitlines()]
    start = lines.index("drift from the base model on held-out instructions, nats per token (0.02 is small, 0.4 is large):")
    assert lines[start + 1 : start + 3] == ["one: 0.0100", "two: 0.0100"]


def test_only_shows_the_drift_of_the_runs_that_it_shows(tmp_path):
    paths = two_runs_on_prompts_of_their_own(tmp_path)
    assert list(evaluate(paths).drift) == list(map(str, paths))
    assert list(evaluate(paths, Question(only=("two",))).drift) == [str(paths[1])]


def test_a_difference_says_that_answers_were_thinned_and_why_it_has_no_interval(tmp_path):
    text = " ".join(shown(evaluate(two_runs(tmp_path, 1)), 120, verbose=True).split())
    assert "two (tuned) minus one (tuned) 300 answers thinned to 200" in text
    assert "!: the interval excludes zero" in text
    assert "no interval" not in text
    both = evaluate([], Question(given=tuple(SampleSet(run, "lora", COIN, Answers({"{heads}": 5})) for run in "xy")))
    assert '"none" in place of an interval: there are fewer than 50 answers' in shown(both, 120, verbose=True)


def tuned_runs(counts):
    """One prompt, answered by the tuned models of several runs, and by one untuned model."""
    asked = [SampleSet(name, "lora", COIN, Answers({"{heads}": heads, "{tails}": 1000 - heads})) for name, heads in counts.items()]
    return evaluate([], Question(given=(*asked, SampleSet("first", "untuned", COIN, Answers({"junk": 9})))))


@pytest.mark.parametrize("order", [("good", "bad", "worse"), ("worse", "good", "bad"), ("bad", "worse", "good")])
def test_the_shares_of_the_worst_tuned_run_are_shown_and_the_others_are_named(order):
    heads = {"good": 502, "bad": 650, "worse": 900}
    lines = [line.rstrip() for line in shown(tuned_runs({name: heads[name] for name in order})).splitlines()]
    assert any(re.match(r"  \{heads\} +50.0 % +90.0 %", line) for line in lines)
    assert sum(line.startswith("  {heads}") for line in lines) == 1
    others = [f"{name} (tuned)" for name in order if name != "worse"]
    assert f"  answers of {others[0]} and {others[1]}: add `--verbose`" in lines
    assert "answers of" not in shown(tuned_runs({"good": 502}))
    assert "`--verbose`" not in shown(tuned_runs(heads), verbose=True)


def test_the_verdict_comes_before_the_distance_and_many_runs_are_counted():
    """Few samples with a large TVD are no reason to hide a run that certainly differs."""
    few = SampleSet("few", "lora", COIN, Answers({"{heads}": 5, "{tails}": 1}))
    many = [SampleSet(f"{k}", "lora", COIN, Answers({"{heads}": 500 + 40 * k, "{tails}": 500 - 40 * k})) for k in range(5)]
    text = shown(evaluate([], Question(given=(few, *many))))
    assert re.search(r"\{heads\} +50.0 % +66.0 %", text)
    assert "  answers of 5 more samplers: add `--verbose`" in text


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(2, 60))
def test_a_bar_passes_the_mark_only_if_the_share_is_larger(share, wanted, width):
    text = bar(share / 1000, width=width, mark=wanted / 1000).plain
    before, _, after = text.partition("│")
    assert bool(after) is (share > wanted)
    assert len(text) <= width
    assert " " not in before or share < wanted


@pytest.mark.parametrize(("texts", "ends"), [(7, ["and 2 more texts", "and 3 unfinished texts"]), (5, ["and 3 unfinished texts"])])
def test_texts_off_target_unfinished_and_targets_add_up(texts, ends):
    counts = Answers({"{heads}": 2, **{f"junk {k}": 4 for k in range(texts)}})
    for k in range(3):
        counts.add(f"{{he{k}", 20, unfinished=True)
    text = shown(evaluate([], Question(given=(SampleSet("x", "lora", COIN, counts),))), 200)
    line = next(line for line in text.splitlines() if line.startswith("  off target:"))
    assert line.rstrip().split("   ")[6:] == ends


def several(**answers):
    """Samples of tuned models to one prompt."""
    return evaluate([], Question(given=tuple(SampleSet(name, "lora", COIN, Answers(counts)) for name, counts in answers.items())))


def of_coin(counts):
    return evaluate([], Question(given=(SampleSet("r", "lora", Prompt(request="x", targets=("a", "b")), Answers(counts)),)))


@pytest.mark.parametrize(
    "counts", [{"a": 7, "b": 5}, {"a": 290, "b": 230}, {"a": 96, "b": 98, "x": 6}, {"a": 489, "b": 486, "x": 25}]
)
def test_open_verdicts_of_answers_without_a_run_say_how_many_decide(counts):
    """So many answers with the same shares have a verdict."""
    found = of_coin(counts)
    needed = answers_needed(found.rows[0])
    assert mark_of(found.rows[0].verdict)[0] == "?"
    assert list(next_steps(found)) == [f"collect more answers: {about(needed)} may decide (now {sum(counts.values())})"]
    more = of_coin({text: math.ceil(count * needed / sum(counts.values())) for text, count in counts.items()})
    assert mark_of(more.rows[0].verdict)[0] != "?"
    assert not list(next_steps(of_coin({"a": 500, "b": 500})))


def test_an_open_verdict_of_the_untuned_model_asks_for_nothing():
    coin = Prompt(request="x", targets=("a", "b"))
    given = (
        SampleSet("r", "lora", coin, Answers({"a": 500, "b": 500})),
        SampleSet("r", "untuned", coin, Answers({"a": 290, "b": 230})),
    )
    assert not list(next_steps(evaluate([], Question(given=given))))


def test_several_undecided_prompts_are_named():
    coins = [Prompt(request=f"x{k}", targets=("a", "b"), alias=f"{k}.json") for k in range(3)]
    given = tuple(SampleSet("r", "lora", coin, Answers({"a": 7, "b": n})) for coin, n in zip(coins, (5, 6, 500), strict=True))
    assert list(next_steps(evaluate([], Question(given=given[:2])))) == ["collect more answers to the 2 undecided prompts (0; 1)"]
    (one,) = next_steps(evaluate([], Question(given=(given[0], SampleSet("r", "lora", coins[2], Answers({"a": 5000, "b": 5000}))))))
    assert re.fullmatch(r"collect more answers to 0: about \d+ may decide \(now 12\)", one)


def test_two_answers_cannot_say_how_many_decide():
    assert list(next_steps(of_coin({"a": 1, "b": 1}))) == ["collect more answers: many more may decide (now 2)"]


def test_more_than_three_prompts_begin_with_the_number_of_those_that_are_followed():
    prompts = [Prompt(request=f"Toss {k}.", targets=("a", "b"), alias=f"{k}.json") for k in range(4)]
    given = [SampleSet("r", "lora", one, Answers({"a": 500 if k else 300, "b": 500})) for k, one in enumerate(prompts)]
    lines = shown(evaluate([], Question(given=tuple(given)))).splitlines()
    assert lines[0] == "tuned: 3 of 4 follow their target, 1 does not"
    assert [line.split()[:3] for line in lines[3:7]] == [["✗", "0", "800"], *(["✓", str(k), "1000"] for k in (1, 2, 3))]
    assert "follow their target" not in shown(evaluate([], Question(given=tuple(given[:3]))))


def test_differences_are_a_table_at_60_columns():
    """Names are above the figures, and an interval is one column."""
    first = {"{heads}": 300, "{tails}": 280, **{f"x{k}": 1 for k in range(150)}}
    lines = [
        line.rstrip() for line in shown(several(one=first, two={"{heads}": 150, "{tails}": 50}), 60, verbose=True).splitlines()
    ]
    start = next(place for place, line in enumerate(lines) if "two (tuned) minus" in line)
    assert lines[start].endswith("two (tuned) minus one (tuned)   730 answers thinned to 200")
    assert re.fullmatch(r"  excess TVD +[+]0\.\d{3}  [-+]0\.\d{3} to [+]0\.\d{3}", lines[start + 1])
    assert re.fullmatch(r"  entropy +-\d\.\d{3} +none", lines[start + 2])
    assert lines[start + 3 : start + 5] == ["", '"none" in place of an interval: there are too many answers']


def test_a_comparison_of_the_same_answers_says_so():
    """Equal counts of a coin may be chance, and have an interval."""
    long = {"{heads}": 80, "{tails}": 60, **{f"junk {k}": 7 for k in range(30)}}
    text = shown(several(one=long, two=long), 120, verbose=True)
    assert "two (tuned) minus one (tuned)   the same answers" in text
    assert "excess TVD  " not in text
    coins = {"{heads}": 50, "{tails}": 50}
    text = shown(several(one=coins, two=coins), 120, verbose=True)
    assert "the same answers" not in text
    assert re.search(r"excess TVD +[+]0\.000 +-0\.\d+ to [+]0\.\d+", text)


@pytest.mark.parametrize(("counts", "note", "statistics"), [
    ({"{heads}": 2, "{tails}": 1, "junk": 97}, "too few valid answers: no difference would be detected", 0),
    ({"{heads}": 12, "{tails}": 8}, "too few valid answers: it could miss a true TVD below 0.3", 1),
])  # fmt: skip
def test_a_test_of_too_few_valid_answers_has_no_p(tmp_path, counts, note, statistics):
    text = " ".join(shown(found(tmp_path, counts), 120, verbose=True).split())
    assert f"test of fit - {note}" in text
    assert "detectable TVD" not in text
    assert text.count("likelihood ratio statistic") == text.count("Pearson's X2") == statistics
    assert not re.findall(r"p = |p <= |by G|simulated samples", text)
    assert "test of fit p = " in " ".join(shown(found(tmp_path, {"{heads}": 60, "{tails}": 50}), 120, verbose=True).split())


def test_untuned_models_with_the_same_answers_and_figures_are_listed_once():
    sets = [SampleSet(run, "untuned", COIN, Answers({"{heads}": 60, "junk": 40})) for run in ("one", "two")]
    other = SampleSet("three", "untuned", COIN, Answers({"{heads}": 61, "junk": 39}))
    tuned = [SampleSet(run, "lora", COIN, Answers({"{heads}": 500, "{tails}": 500})) for run in ("one", "two")]
    found = evaluate([], Question(given=(*tuned, *sets, other)))
    for verbose in (False, True):
        lines = shown(found, 120, verbose=verbose).splitlines()
        assert [line.split(": ")[0][4:] for line in lines if line[:4] in ("  ✗ ", "  ✓ ")] == [
            "one (tuned)", "two (tuned)", "one (untuned) and two (untuned)", "three (untuned)",
        ]  # fmt: skip
    assert "\n  one (untuned) and two (untuned)" in shown(found, 120, verbose=True)


def test_the_parts_of_all_figures_have_headings():
    view = evaluation(several(one={"{heads}": 70, "{tails}": 50}, two={"{heads}": 50, "{tails}": 60}), verbose=True)
    bold = [line for line in printed(view, 120, colour=True).splitlines() if line.startswith("\x1b[1m")]
    heads = [re.sub(r"\x1b\[\d*m", "", line).rstrip() for line in bold]
    name = heads[0].removesuffix(": figures")
    assert [head for head in heads if not head.startswith("  ")] == [
        f"{name}: figures", f"{name}: answers", "differences, with 95 % intervals (bootstrap; !: the interval excludes zero)", "terms",
    ]  # fmt: skip


NUMBERS = Prompt(request="?", targets=[str(i) for i in range(1, 101)], alias="n.json")


def test_targets_left_out_between_numbers_have_a_sign(tmp_path):
    """Of 1 to 100, 40 is drawn far too often."""
    some = found(tmp_path, dict.fromkeys(NUMBERS.targets, 10) | {"40": 100}, NUMBERS)
    rows = {line[2:5].strip(): line[0] for line in shown(some).splitlines() if re.match(r"[ ⋮] \d.*%.*%.*│", line)}
    assert len(rows) == 24
    assert rows["40"] == "⋮"
    expected = {name: "⋮" if int(name) > 1 and str(int(name) - 1) not in rows else " " for name in rows}
    assert rows == expected
    assert "(⋮: some are left out here)" in " ".join(shown(some).split())
    every = printed(evaluation(some, Showing(top=0)))
    assert "⋮" not in every


def test_targets_without_an_order_have_no_sign_of_gaps(tmp_path):
    words = Prompt(request="?", targets=[f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"], alias="w.json")
    assert "⋮" not in shown(found(tmp_path, dict.fromkeys(words.targets, 10) | {"ea": 100}, words))


def test_records_are_named_by_their_values_and_fields(tmp_path):
    targets = [f"Name: {{{name}}}\nCity: {{{city}}}" for name in ("Ann", "Bob") for city in ("Bern", "Oslo")]
    people = Prompt(request="?", targets=targets, template="Name: {{{name}}}\nCity: {{{city}}}", alias="p.json")
    (tmp_path / "p.json").write_text(people.to_json())
    write_json(tmp_path / "a.json", {"p.json": {text: 50 + 50 * ("Oslo" in text) for text in targets}})
    some = evaluate([tmp_path / "a.json"], Question(prompts=[tmp_path / "p.json"]))
    for verbose in (False, True):
        text = shown(some, verbose=verbose)
        assert re.search(r"^  name, city  wanted  of valid", text, re.MULTILINE)
        assert re.search(r"^  Bob, Oslo +25\.0 % +33\.3 %", text, re.MULTILINE)
        assert "Name: {" not in text
    assert "wrong shares: 'Bern' 33.3 %, wanted 50.0 %" in " ".join(shown(some).split())
    assert "furthest: 'Bern' 33.3 %, wanted 50.0 %" in " ".join(shown(some, verbose=True).split())
    assert [(f.furthest.value, f.furthest.weight, round(f.furthest.share, 3)) for f in some.rows[0].records.fields] == [
        ("Ann", 0.5, 0.5), ("Bern", 0.5, 0.333),
    ]  # fmt: skip


@pytest.mark.parametrize(("off", "verdict"), [(20, "wrong shares, off target 20 %"), (45, "off target 45 %, wrong shares")])
def test_wrong_shares_have_one_name_and_the_larger_fault_comes_first(tmp_path, off, verdict):
    heads = 100 - off - 2
    assert verdict in shown(found(tmp_path, {"{heads}": 10 * heads, "{tails}": 20, "no": 10 * off}))


def test_a_field_with_other_values_is_named_beside_one_with_wrong_shares(tmp_path):
    people = Prompt(request="?", targets=["a/x", "a/y", "b/x", "b/y"], template="{name}/{city}", alias="p.json")
    judged = found(tmp_path, {"a/x": 400, "a/y": 50, "b/x": 400, "b/y": 50, "c/x": 90, "c/y": 10}, people)
    assert "the field 'city' differs from its weights" in judged.rows[0].verdict
    assert "; 10 % other or no value of 'name'; off target" in judged.rows[0].verdict
    assert [(f.name, f.other_values) for f in judged.rows[0].records.fields] == [("name", True), ("city", False)]
    assert "off target:   c, x (90)   c, y (10)" in shown(judged, 120)  # records are named by their values


@pytest.mark.parametrize(("targets", "tvd", "n"), [(8, 0.03, 6000), (100, 0.05, 2000), (4, 0.05, 400)])
def test_the_number_of_answers_that_decide_has_the_right_order(targets, tvd, n):
    """Of answers with a true TVD above what is close. With three times the number that is named nearly all samples have a verdict, with a tenth few are found wrong."""
    rng = np.random.default_rng(1)
    p = np.full(targets, 1 / targets) + 2 * tvd / targets * np.array([1, -1] * (targets // 2))
    prompt = Prompt(request="x", targets=[f"t{k}" for k in range(targets)])

    def drawn(answers):
        counts = dict(zip(prompt.targets, map(int, rng.multinomial(answers, p)), strict=True))
        return evaluate([], Question(given=(SampleSet("r", "lora", prompt, Answers(counts)),))).rows[0]

    needed = [answers_needed(row) or 10**7 for row in (drawn(n) for _ in range(40)) if mark_of(row.verdict)[0] == "?"]
    usual = sorted(needed)[len(needed) // 2]
    assert sum(mark_of(drawn(3 * usual).verdict)[0] == "✗" for _ in range(6)) >= 5
    assert sum(mark_of(drawn(usual // 10).verdict)[0] == "✗" for _ in range(6)) <= 3


def test_answers_to_another_prompt_are_suspected(tmp_path):
    suspected = "check the prompt: no answer of a contains a word or number of its targets"
    assert suspected in next_steps(found(tmp_path, {"red": 5, "blue": 5}))
    for other in (
        {"{heads}": 9, "red": 4},
        {"it is {heads}": 10},
        {"heads": 50, "tails": 50},
        {"red": 300, "HEADS!": 1},
        {"red": 9},
    ):
        assert not any(step.startswith("check") for step in next_steps(found(tmp_path, other)))
    seven = Prompt(request="?", targets=(("7", "seven"), ("8", "eight")))
    assert not any(step.startswith("check") for step in next_steps(found(tmp_path, {"It is seven": 20}, seven)))
    people = Prompt(request="?", targets=("Ann, 34", "Bob, 35"), template="{name}, {age}")
    assert not any(step.startswith("check") for step in next_steps(found(tmp_path, {"Ann - 34": 20}, people)))


def test_records_off_target_that_look_like_a_target_are_shown_in_full(tmp_path):
    people = Prompt(request="?", targets=("{Ann, 34}", "{Bob, 35}"), template="{{{name}, {age}}}")
    text = shown(found(tmp_path, {"{Ann, 34}": 100, "{Bob, 35}": 60, "{Ann , 34}": 50, "{Cid, 36}": 30}, people), 120)
    assert "off target:   '{Ann , 34}' (50)   Cid, 36 (30)" in text


def test_the_name_of_a_record_keeps_words_that_are_a_response_as_well(tmp_path):
    eats = Prompt(
        request="?", response=("", "The "), targets=("The cat eats fish", "A dog eats meat"), template="{animal} eats {food}"
    )
    judged = found(tmp_path, {"The cat eats fish": 100, "A dog eats meat": 100}, eats)
    assert re.search(r"^  The cat, fish +50\.0 % +50\.0 %", shown(judged), re.MULTILINE)
    assert judged.rows[0].records.known == 1


def test_a_long_heading_takes_no_room_from_bars(tmp_path):
    names = "{the first name}|{the date of birth}|{the place of residence}"
    some = Prompt(request="?", targets=("a|a|a", "b|b|b"), template=names)
    lines = shown(found(tmp_path, {"a|a|a": 50, "b|b|b": 50}, some)).splitlines()
    (row,) = (line for line in lines if line.startswith("  a, a, a"))
    assert row.count("█") > 30


def test_the_furthest_value_is_first_one_that_must_never_occur(tmp_path):
    some = Prompt(request="?", targets=("a/x", "b/x", "c/x"), weights=(50, 50, 0), template="{name}/{city}")
    judged = found(tmp_path, {"a/x": 520, "b/x": 470, "c/x": 10}, some)
    assert "answers include targets of weight zero: 'c' 1.0 %, wanted 0.0 %" in " ".join(shown(judged, 120).split())


@pytest.mark.parametrize(
    ("counts", "noted"), [({"a": 49, "b": 49, "z": 2}, False), ({"a": 88, "b": 9, "z": 1, "y": 1, "x": 1}, True)]
)
def test_the_note_on_the_entropy_does_not_blame_texts_for_wrong_shares(tmp_path, counts, noted):
    skewed = Prompt(request="?", targets=("a", "b"), weights=(90, 10))
    assert ("off-target texts raise it" in shown(found(tmp_path, counts, skewed), 120)) == noted


def test_the_most_frequent_other_value_of_a_field_is_named(tmp_path):
    people = Prompt(request="?", targets=["a/x", "a/y", "b/x", "b/y"], template="{name}/{city}", alias="p.json")
    judged = found(tmp_path, {"a/x": 210, "a/y": 200, "b/x": 190, "b/y": 200, "c/x": 40, "d/y": 60, "no": 100}, people)
    name, city = judged.rows[0].records.fields
    assert (name.unknown.value, name.unknown.weight, round(name.unknown.share, 3)) == ("d", 0, round(60 / 900, 3))
    assert city.unknown is None
    assert "most frequent other value 'd' 6.7 %" in " ".join(shown(judged, 120).split())


def test_gaps_between_numbers_have_their_sign_where_figures_are_below_bars(tmp_path):
    some = found(tmp_path, dict.fromkeys(NUMBERS.targets, 10) | {"40": 100}, NUMBERS)
    lines = shown(some, 60, verbose=True).splitlines()
    assert [line[:4].strip() for line in lines if line.startswith("⋮")]


def test_few_valid_answers_say_why_they_have_no_bars(tmp_path):
    reason = "no bars for fewer than 20 valid answers"
    assert reason in shown(found(tmp_path, {"{heads}": 10, "{tails}": 9}))
    assert reason not in shown(found(tmp_path, {"{heads}": 10, "{tails}": 10}))


@pytest.mark.parametrize(("n", "said"), [(35, True), (5000, False)])
def test_a_verdict_that_the_target_is_followed_says_what_could_be_missed(tmp_path, n, said):
    judged = found(tmp_path, {"{heads}": n + n // 100 + 1, "{tails}": n})
    least = judged.rows[0].figures.detectable_tvd
    assert mark_of(judged.rows[0].verdict) == ("✓", "good")
    assert (f"a TVD below {least:.3f} could be missed" in shown(judged)) == said == (least > 0.1)


def test_a_table_of_runs_counts_undecided_prompts(tmp_path):
    halves = {"request": "?", "targets": ["a", "b"]}
    for name, a in (("even", 500), ("open", 535)):
        run_with(tmp_path / name, {"p.json": halves}, {"lora": {"p.json": {"a": a, "b": 1000 - a}}})
    rows = [line.split() for line in shown(evaluate([tmp_path]), 120).splitlines()]
    assert [row[0:1] + row[3:] for row in rows if row[:1] in (["even"], ["open"])] == [
        ["even", "1", "of", "1"],
        ["open", "0", "of", "1,", "1", "?"],
    ]


def test_all_figures_of_many_prompts_are_those_of_one(tmp_path, in_process):
    answers = [f"m/{k}.json,{text},5" for k in range(25) for text in "ab"]
    for k in range(25):
        write_json(tmp_path / f"m/{k}.json", {"request": f"{k}?", "targets": ["a", "b"]})
    (tmp_path / "many.csv").write_text("prompt,text,count\n" + "\n".join(answers))
    assert "next: add `--verbose --only NAME` for all figures of a prompt, or `--html" in in_process("evaluate", "many.csv").stderr
    assert "test of fit" in in_process("evaluate", "many.csv", "--verbose", "--only", "m/7.json").stdout
