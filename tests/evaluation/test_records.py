"""Answers that are records: fields and pairs against values worked out by hand, and against perfect samplers."""

import csv
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from diffusecli.evaluation.association import correlation, cramers_v
from diffusecli.evaluation.gates import failures
from diffusecli.evaluation.record_fit import record_figures
from diffusecli.evaluation.records import FieldFigures, PairFigures, RecordFigures
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Matching
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.data import as_json
from diffusecli.report.html import html_report
from diffusecli.report.wording import mark_of, sentence
from diffusecli.runs.samples import read_samples, write_samples
from diffusecli.verbs.evaluate import Question, evaluate

PEOPLE = Prompt(
    request="Who?", targets=("{Ann, 34}", "{Bob, 34}", "{Cid, 52}"), weights=(2, 1, 1), template="{{{name}, {age}}}", alias="p.json"
)


def test_the_figures_of_a_handful_of_answers_by_hand():
    """Of ten answers eight fit, seven have known values, six are targets."""
    counts = Answers({"{Ann, 34}": 4, "{Bob, 34}": 1, "{Cid, 52}": 1, "{Ann, 52}": 1, "{Dee, 34}": 1, "nothing": 2})
    found = record_figures(PEOPLE, counts, 0)
    assert (found.fits, found.known, found.copies) == (0.8, 0.7, 0.6)
    name, age = found.fields
    assert (name.name, name.values, age.values) == ("name", 3, 2)
    assert (name.valid, age.valid) == (0.875, 1)
    # of the eight that fit: names .625 .125 .125 and .125 others against .5 .25 .25; ages as in the weights, .75 .25
    assert name.tvd == pytest.approx(0.5 * (0.125 + 0.125 + 0.125 + 0.125))
    assert age.tvd == pytest.approx(0)
    (pair,) = found.pairs
    assert pair.target == pytest.approx(1)  # the name decides the age
    # names x ages among the seven known answers: Ann 4 and 1, Bob 1 and 0, Cid 0 and 1
    table = np.array([[4, 1], [1, 0], [0, 1]])
    independent = np.outer(table.sum(1), table.sum(0)) / 7
    assert pair.sampled == pytest.approx(np.sqrt(((table - independent) ** 2 / independent).sum() / 7))
    assert pair.error == pytest.approx(pair.sampled - pair.perfect)


def test_unfinished_answers_do_not_fit():
    counts = Answers({"{Ann, 34}": 4})
    counts.add("{Ann, 34}", 1, unfinished=True)
    assert record_figures(PEOPLE, counts, 0).fits == 0.8


def test_beginnings_of_the_answer_are_no_part_of_the_record():
    begun = PEOPLE.model_copy(update={"response": ("", "I am ")})
    assert record_figures(begun, Answers({"I am {Ann, 34}": 3, "{Bob, 34}": 1}), 0).copies == 1


def test_a_perfect_sampler_has_no_error_and_an_independent_one_does():
    rng = np.random.default_rng(0)
    names, cities = "abcdef", "uvwxyz"
    targets = [f"{a} {b}" for a in names for b in cities]
    weights = np.array([6.0 if a == b else 0.5 for a in range(6) for b in range(6)])
    prompt = Prompt(request="Who?", targets=targets, weights=(weights / weights.sum()).tolist(), template="{a} {b}")
    perfect = rng.choice(targets, 2000, p=weights / weights.sum()).tolist()
    apart = [f"{rng.choice(list(names))} {rng.choice(list(cities))}" for _ in range(2000)]
    good, bad = (record_figures(prompt, Answers(Counter(map(str, some))), 0) for some in (perfect, apart))
    assert abs(good.worst_pair.error) < 0.03
    assert bad.worst_pair.error < -0.5
    for found in (good, bad):
        assert all(abs(f.excess_tvd) < 0.03 for f in found.fields)  # fields by themselves are right in both


def test_fields_of_numbers_are_compared_by_their_correlation():
    pairs = [(x, 2 * x + 1) for x in range(20)]
    prompt = Prompt(request="Which?", targets=[f"{x}; {y}" for x, y in pairs], template="{x}; {y}")
    (pair,) = record_figures(prompt, Answers({f"{x}; {39 - 2 * x}": 5 for x in range(20)}), 0).pairs
    assert (pair.measure, pair.target, pair.sampled) == ("correlation", pytest.approx(1), pytest.approx(-1))


def test_associations_agree_with_scipy_and_numpy():
    from scipy.stats.contingency import association

    rng = np.random.default_rng(1)
    for shape in ((2, 2), (3, 5), (6, 2)):
        table = rng.integers(1, 30, shape)
        assert cramers_v(table) == pytest.approx(association(table, method="cramer"))
    x, y, times = rng.normal(size=30), rng.normal(size=30), rng.integers(1, 4, 30)
    assert correlation(x, y, times) == pytest.approx(np.corrcoef(np.repeat(x, times), np.repeat(y, times))[0, 1])


def test_a_prompt_without_a_template_has_no_fields():
    assert record_figures(PEOPLE.model_copy(update={"template": None}), Answers({"{Ann, 34}": 1}), 0) is None
    assert record_figures(PEOPLE, Answers(), 0) is None


def test_csv_has_a_column_for_each_field_and_is_still_read(tmp_path):
    path = tmp_path / "gen.csv"
    counts = Counter({"{Ann, 34}": 3, " {=1+1, 5} ": 2, "nothing": 1})
    named = Prompt(request="x", targets=("1|2",), template="{text}|{b}")
    write_samples(path, {"p.json": counts, "q.json": Counter({"x|y": 1})}, "csv", 0, {"p.json": PEOPLE, "q.json": named})
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == ["prompt", "text", "count", "name", "age", "text (field)", "b"]
    assert [(row["name"], row["age"], row["text (field)"], row["b"]) for row in rows] == [
        ("Ann", "34", "", ""), ("'=1+1", "5", "", ""), ("", "", "", ""), ("", "", "x", "y")
    ]  # fmt: skip
    assert read_samples(path) == {"p.json": counts, "q.json": Counter({"x|y": 1})}


def test_tables_json_and_html_show_fields(tmp_path, in_process):
    (tmp_path / "p.json").write_text(PEOPLE.to_json())
    (tmp_path / "answers.txt").write_text("{Ann, 34}\n" * 60 + "{Bob, 34}\n" * 20 + "{Cid, 34}\n" * 20)
    found = evaluate([tmp_path / "answers.txt"], Question(prompt=tmp_path / "p.json"))
    data = json.loads(as_json(found))["rows"][0]["records"]
    assert [field["name"] for field in data["fields"]] == ["name", "age"]
    assert data["pairs"][0]["sampled"] == 0  # all have one age: nothing goes together
    page = html_report(found)
    assert "Fields of the records" in page
    assert "Cramér's V" in page or "Cramér&#39;s V" in page
    shown = in_process("evaluate", "answers.txt", "--prompt", "p.json", "--verbose").stdout
    figures = [" ".join(line.split()) for line in shown.splitlines()]
    assert "records 100.0 % of the answers fit the template" in figures
    assert any(line.startswith("TVD of age 0.250 2 values; perfect sampler") for line in figures)
    assert any(line.startswith("association 0.000 Cramér's V of name and age: almost none") for line in figures)


def test_an_answer_that_goes_on_after_its_target_has_the_fields_of_the_target():
    begun = PEOPLE.model_copy(update={"eos": False})
    counts = Answers({"{Ann, 34}\nCareer: {cook}": 3, "{Bob, 34}": 1})
    counts.add("{Bob, 34} and th", unfinished=True)  # cut, but a target begins it
    counts.add("{Dee", unfinished=True)
    found = record_figures(begun, counts, 0)
    assert (found.fits, found.known, found.copies) == (pytest.approx(5 / 6),) * 3
    assert found.fields[0].valid == pytest.approx(5 / 6), "an answer that begins with another record has a value that is not known"
    nothing = record_figures(begun, Answers({"I cannot": 3}), 0)
    assert (nothing.fits, nothing.fields[0].valid, nothing.fields[0].tvd) == (0, 0, 1), "without a record all answers count"


def test_other_spellings_of_a_record_have_its_fields():
    spelled = PEOPLE.model_copy(update={"targets": (("{Ann, 34}", "Ann, 34"), "{Bob, 34}", "{Cid, 52}")})
    assert record_figures(spelled, Answers({"Ann, 34": 2, "{Bob, 34}": 2}), 0).known == 1


def test_a_rule_of_matching_is_that_of_the_answers():
    assert record_figures(PEOPLE, Answers({"{ANN, 34}": 2}), 0).copies == 0
    assert record_figures(PEOPLE, Answers({"{ANN, 34}": 2}), 0, Matching("casefold")).known == 1


def test_verdicts_and_limits_see_fields_and_pairs(tmp_path):
    """Thirty different names are too many to test in a few answers; the ages that go with them are not."""
    people = [(f"N{k}", 20 + k % 2) for k in range(30)]
    prompt = Prompt(request="Who?", targets=[f"{{{n}, {a}}}" for n, a in people], template="{{{n}, {a}}}")
    (tmp_path / "p.json").write_text(prompt.to_json())
    (tmp_path / "a.txt").write_text("".join(f"{{{n}, 20}}\n" for n, _ in people) * 10)
    found = evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "p.json"))
    assert (
        found.rows[0].verdict
        == "the field 'a' differs from its weights: TVD 0.500, perfect sampler 0.023 (p <= 0.0001); off target 50 % (all new combinations)"
    )
    assert failures(found, {"--max-tvd": 0.6}) == []
    assert failures(found, {"--max-tvd": 0.1})[0].endswith("TVD 0.5 > 0.1")
    (line,) = failures(found, {"--min-p": 0.01})
    assert "p 0.0" in line


def test_the_lowest_p_value_names_its_field_or_pair():
    def field(name, p):
        return FieldFigures(name, 2, 1, 0.1, 0.1, 0, p, "")

    pair = PairFigures("name", "age", "Cramér's V", 0.5, 0.5, 0.9, 0.4, 0.1, 0.001)
    found = RecordFigures(1, 1, 1, (field("age", 0.008), field("name", 0.5)), (pair,), 999, 0.001)
    assert found.lowest_p == (pytest.approx(0.002), "fields 'name' and 'age' together")
    found = RecordFigures(1, 1, 1, (field("age", float("nan")), field("name", 0.001)), (), 0, float("nan"))
    assert found.lowest_p == (pytest.approx(0.004), "field 'name'")
    assert found.doubt.startswith("the field 'name' differs")
    far, near = field("age", 0.0001), field("name", 0.0001)
    found = RecordFigures(1, 1, 1, (near, replace(far, excess_tvd=0.3)), (), 0, float("nan"))
    assert found.lowest_p[1] == "field 'age'"
    assert (
        found.doubt
        == "the fields 'age' and 'name' differ from their weights: TVD of 'age' 0.100, perfect sampler 0.100 (p = 0.0001)"
    )


def test_fields_of_balanced_answers_do_not_differ_from_their_weights():
    balanced = dict(zip(PEOPLE.targets, (100_000, 50_000, 50_000), strict=True))
    found = record_figures(PEOPLE, Answers(balanced), seed=0)
    assert all(field.p_value < 0.0125 and field.too_even for field in found.fields)
    assert found.doubt == ""
    skewed = dict(zip(PEOPLE.targets, (100_000, 60_000, 40_000), strict=True))
    assert record_figures(PEOPLE, Answers(skewed), seed=0).doubt.startswith("the field")


def test_records_of_which_none_fits_miss_every_limit(tmp_path):
    (tmp_path / "p.json").write_text(PEOPLE.to_json())
    (tmp_path / "a.txt").write_text("no record\n" * 30)
    found = evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "p.json"))
    assert failures(found, {"--min-p": 0.05})[0].endswith("p is not known")


def test_a_limit_names_the_field_that_misses_it(tmp_path):
    (tmp_path / "p.json").write_text(PEOPLE.to_json())
    (tmp_path / "a.txt").write_text("{Ann, 99}\n{Bob, 99}\n{Cid, 99}\n")
    found = evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "p.json"))
    only_ages = replace(found.rows[0], figures=replace(found.rows[0].figures, tvd=0.4))
    assert failures(replace(found, rows=(only_ages,)), {"--max-tvd": 0.5})[0].endswith("TVD 1 > 0.5, field 'age'")


def test_the_pair_that_is_named_is_the_one_furthest_off_in_standard_errors():
    def pair(name, error, spread):
        return PairFigures(name, "x", "Cramér's V", 0.5, 0.5, 0.5 + error, error, spread, 0.01)

    found = RecordFigures(1, 1, 1, (), (pair("a", 0.1, 0.08), pair("b", 0.03, 0.003)), 999, 0.005)
    assert found.worst_pair.first == "b"


@pytest.mark.parametrize(
    ("others", "besides"),
    [((0.0001, 0.9), ", and so for 'b' and 'x'"), ((0.0001, 0.002), ", and so for 2 more pairs"), ((0.5, 0.9), "")],
)
def test_the_verdict_counts_the_other_pairs_that_differ_as_the_worst(others, besides):
    """The level of all pairs together is .025."""

    def pair(name, p, sampled=0.2):
        away = sampled - 0.5
        return PairFigures(name, "x", "Cramér's V", 0.5, 0.5, sampled, away, 0.01 if name == "a" else 0.02, p, joint_p_value=p)

    found = RecordFigures(
        1, 1, 1, (), (pair("a", 0.001), *(pair(name, p) for name, p in zip("bc", others, strict=True))), 999, 0.001
    )
    words = "the association of 'a' and 'x' is too weak: Cramér's V 0.200, perfect sampler 0.500 (p <= 0.001)"
    assert found.doubt == words + besides
    strong = replace(found, pairs=(found.pairs[0], pair("b", 0.001, 0.9)))
    assert replace(
        strong, pairs=(*strong.pairs[:1], pair("b", 0.001, 0.9))
    ).doubt == f"{words}; 'b' and 'x' differ, too" or strong.doubt.startswith("the association of 'b'")
    assert "and so for" not in replace(strong, pairs=(found.pairs[0], pair("b", 0.001, 0.6))).doubt, "too strong, not too weak"


def test_a_field_that_follows_its_weights_except_for_some_values_says_so(tmp_path):
    """6 of 200 answers have another age: between 1.1 and 6.4 %."""
    (tmp_path / "p.json").write_text(PEOPLE.to_json())
    people = [("Ann", 34), ("Bob", 34), ("Ann", 34), ("Cid", 52)]
    rows = [f"{{{name}, {99 if k < 6 else age}}}" for k, (name, age) in enumerate(people * 50)]
    (tmp_path / "a.txt").write_text("\n".join(rows))
    (row,) = evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "p.json")).rows
    (age,) = (field for field in row.records.fields if field.name == "age")
    assert re.fullmatch(
        r"undecided, 3 % other or no value, true TVD between 0\.011 and 0\.\d{3} \(up to 0\.02 is close\)", sentence(age.verdict)
    )
    assert mark_of(age.verdict) == ("?", "open")


def test_a_verdict_names_three_of_the_fields_that_differ_and_counts_the_others():
    def field(name, p):
        return FieldFigures(name, 2, 1, 0.2, 0.1, 0, p, "", least_p=0.0001)

    fields = tuple(field(name, p) for name, p in zip("abcdef", (0.0001, 0.001, 0.0004, 0.002, 0.003, 0.5), strict=True))
    found = RecordFigures(1, 1, 1, fields, (), 0, float("nan"))
    assert (
        found.doubt
        == "the fields 'a', 'c', 'b' and 2 more differ from their weights: TVD of 'a' 0.200, perfect sampler 0.100 (highest p = 0.003)"
    )
    lowest = RecordFigures(1, 1, 1, (field("a", 0.0001), field("b", 0.0001), field("c", 0.5)), (), 0, float("nan"))
    assert lowest.doubt == "the fields 'a' and 'b' differ from their weights: TVD of 'a' 0.200, perfect sampler 0.100 (p <= 0.0001)"
    assert (
        sentence(found.doubt)
        == "the fields 'a', 'c', 'b' and 2 more differ from their weights: TVD of 'a' 0.200, perfect sampler 0.100"
    )


def test_answers_that_are_no_records_are_off_target_and_not_in_the_figures_of_fields(tmp_path):
    (tmp_path / "p.json").write_text(PEOPLE.to_json())
    (tmp_path / "a.txt").write_text("{Ann, 34}\n" * 41 + "{Bob, 34}\n" * 20 + "{Cid, 34}\n" * 19 + "no record\n" * 20)
    (row,) = evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "p.json")).rows
    assert (
        row.verdict
        == "the field 'age' differs from its weights: TVD 0.250, perfect sampler 0.038 (p <= 0.0001); off target 39 % (19 % new combinations, 20 % other values or another form)"
    )
    assert [sentence(field.verdict) for field in row.records.fields] == [
        "follows the target",
        "wrong shares, 1 of 2 targets seen",
    ]


@pytest.mark.parametrize(("measure", "target", "perfect", "sampled", "words"), [
    ("Cramér's V", 0.6, 0.6, 0.3, "the association of 'a' and 'b' is too weak: Cramér's V 0.300, perfect sampler 0.600 (p <= 0.001)"),
    ("Cramér's V", 0.6, 0.6, 0.8, "the association of 'a' and 'b' is too strong: Cramér's V 0.800, perfect sampler 0.600 (p <= 0.001)"),
    ("Cramér's V", 0.6, 0.6, 0.14, "'a' and 'b' are almost independent, but should not be: Cramér's V 0.140, perfect sampler 0.600 (p <= 0.001)"),
    ("Cramér's V", 0.0, 0.08, 0.7, "'a' and 'b' are associated, but should be independent: Cramér's V 0.700, perfect sampler 0.080 (p <= 0.001)"),
    ("correlation", -0.8, -0.8, -0.3, "the association of 'a' and 'b' is too weak: correlation -0.300, perfect sampler -0.800 (p <= 0.001)"),
    ("correlation", -0.5, -0.5, -0.9, "the association of 'a' and 'b' is too strong: correlation -0.900, perfect sampler -0.500 (p <= 0.001)"),
    ("correlation", 0.8, 0.8, -0.5, "the association of 'a' and 'b' is opposite: correlation -0.500, perfect sampler 0.800 (p <= 0.001)"),
    ("correlation", 0.0, 0.001, -0.5, "the association of 'a' and 'b' is too strong: correlation -0.500, perfect sampler 0.001 (p <= 0.001)"),
])  # fmt: skip
def test_the_verdict_says_how_an_association_differs(measure, target, perfect, sampled, words):
    pair = PairFigures("a", "b", measure, target, perfect, sampled, sampled - perfect, 0.01, 0.001)
    assert RecordFigures(1, 1, 1, (), (pair,), 999, 0.001).doubt == words


def test_beside_wrong_fields_an_association_is_compared_with_that_of_these_shares():
    """The odds ratio is .92 * .04 / (.03 * .01) = 123, and 81 in the target: too strong, though these shares alone make V smaller than .8."""
    weights = {"{a, c}": 0.45, "{a, d}": 0.05, "{b, c}": 0.05, "{b, d}": 0.45}
    pair = Prompt(request="r", targets=tuple(weights), weights=tuple(weights.values()), template="{{{x}, {y}}}")
    answers = Answers(dict(zip(weights, (920, 30, 10, 40), strict=True)))
    found = record_figures(pair, answers, 0)
    (one,) = found.pairs
    assert one.sampled < one.perfect
    assert one.sampled > one.given_fields
    together = replace(found, beyond_fields_p_value=0.001)
    assert (
        f"the association of 'x' and 'y' is too strong: Cramér's V {one.sampled:.3f}, perfect sampler with these shares of fields {one.given_fields:.3f}"
        in together.doubt
    )


def test_a_correlation_is_opposite_to_the_weights_not_to_the_luck_of_simulated_samples():
    found = PairFigures("a", "b", "correlation", 0.00066, -0.0017, 0.161, 0.1627, 0.01, 0.001)
    assert found.departure(found.perfect) == "too strong"


@pytest.mark.parametrize(("unreadable", "said"), [(40, "20.0 %"), (1, ""), (200, "")])
def test_answers_without_fields_are_said_once(tmp_path, unreadable, said):
    """Of 200 answers. If none has fields, the verdict says so."""
    (tmp_path / "p.json").write_text(PEOPLE.to_json())
    rows = ["I do not know"] * unreadable + ["{Ann, 34}"] * (200 - unreadable)
    (tmp_path / "a.txt").write_text("\n".join(rows))
    found = evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "p.json"))
    words = f"{said} of the answers were cut or do not fit the template; the figures of fields leave them out" if said else ""
    assert found.rows[0].records.unreadable == words
    assert (words in html_report(found)) or not words


def test_rows_of_fields_and_the_verdict_have_one_level(tmp_path, in_process):
    """Of names the shares are clearly wrong. Of ages 78 and 22 of 100 have p = .03, which is below .05 and not below .05 / 2 / 2."""
    (tmp_path / "p.json").write_text(PEOPLE.to_json())
    (tmp_path / "a.txt").write_text("{Ann, 34}\n" * 600 + "{Bob, 34}\n" * 180 + "{Cid, 52}\n" * 220)
    found = evaluate([tmp_path / "a.txt"], Question(prompt=tmp_path / "p.json"))
    (row,) = found.rows
    name, age = row.records.fields
    assert row.records.field_level == 0.0125 < age.p_value < 0.05
    assert row.verdict.startswith("the field 'name' differs from its weights: ")
    assert name.verdict.startswith("wrong shares (")
    assert age.verdict.startswith("follows the target (p = 0.03, ")
    page = html_report(found)
    assert "The shares of a field differ if p &lt; 0.0125:" in page
    assert '<span class="mark good" aria-hidden="true">✓</span>follows the target</td><td class="num" data-name="TVD">0.030' in page
    shown = in_process("evaluate", "a.txt", "--prompt", "p.json").stdout
    assert [line.split()[:2] for line in shown.splitlines() if line.split()[1:2] in (["name"], ["age"]) and line[2] in "✗✓"] == [
        ["✗", "name"],
        ["✓", "age"],
    ]
