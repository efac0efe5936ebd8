"""Figures against values worked out by hand, and against simulation where they claim a law."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from diffusecli.evaluation.binomials import clopper_pearson, exactly
from diffusecli.evaluation.distance import total_variation
from diffusecli.evaluation.fit import goodness_of_fit
from diffusecli.evaluation.metrics import ExactFigures, cells, entropy, figures
from diffusecli.evaluation.perfect import mean_tvd, p_value, perfect_sampler, statistics
from diffusecli.evaluation.verdicts import many_off, verdict
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import tally
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.report.wording import mark_of
from tests import ROOT

HALVES = Prompt(request="x", targets=("a", "b"))


def prompt(k, **fields):
    return Prompt(request="x", targets=tuple(f"{{{i}}}" for i in range(k)), **fields)


def test_the_worked_check():
    found = figures(HALVES, tally(HALVES, {"a": 6, "b": 4}))
    assert found.tvd == pytest.approx(0.1)
    assert found.g == pytest.approx(12 * math.log(1.2) + 8 * math.log(0.8))
    assert found.entropy_plugin == pytest.approx(0.6730, abs=1e-4)
    assert found.entropy == pytest.approx(0.7230, abs=1e-4)
    assert found.seen_expected == pytest.approx(1.998, abs=1e-3)
    assert (found.seen, found.targets, found.valid, found.n) == (2, 2, 1.0, 10)


def test_off_target_samples_count_in_the_distance_but_not_in_the_fit():
    found = figures(HALVES, tally(HALVES, {"a": 5, "b": 5, "c": 10}))
    assert found.valid == 0.5
    assert found.tvd == pytest.approx(0.5)  # 1/2 (|.25-.5| + |.25-.5| + .5)
    assert found.g == pytest.approx(0)
    assert found.tvd_p_value == 1  # among the ten valid answers nothing is nearer to the weights
    assert found.p_value > 0.5


BINOMIAL = (0.107374182, 0.268435456, 0.301989888, 0.201326592, 0.088080384, 0.0264241152, 0.005505024, 0.000786432,
            7.3728e-05, 4.096e-06, 1.024e-07)  # fmt: skip
LAWS = {"ten": (0.1,) * 10, "binomial": tuple(w / sum(BINOMIAL) for w in BINOMIAL), "sparse": (1 / 300,) * 300}


@pytest.mark.parametrize(("k", "mean"), [(10, 0.038), (100, 0.125), (200, 0.175)])
def test_the_floor_of_uniform_targets_at_a_thousand_samples(k, mean):
    assert mean_tvd(1000, np.full(k, 1 / k)) == pytest.approx(mean, abs=0.001)


@pytest.mark.parametrize("law", LAWS)
def test_the_exact_floor_is_the_mean_of_perfect_samplers(law):
    drawn = perfect_sampler(LAWS[law], 200, 3).tvd
    assert mean_tvd(200, np.array(LAWS[law])) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / math.sqrt(len(drawn)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["g", "pearson"])
def test_p_values_are_uniform_under_the_target_even_with_cells_of_1e_7(law, name):
    """B(10, 0.2) at N = 300: the chi-square law itself would reject Pearson's statistic far too often or too seldom."""
    null, p = perfect_sampler(LAWS[law], 300, 0), np.array(LAWS[law])
    drawn = statistics(np.random.default_rng(1).multinomial(300, p, size=4000), p)
    values = np.array([p_value(getattr(null, name), seen) for seen in getattr(drawn, name)])
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(values <= level) <= level + 4 * math.sqrt(level * (1 - level) / 4000)
    assert kstest(values, "uniform").statistic < (0.03 if name == "g" else 0.06)  # Pearson's has few values


def test_the_statistics_of_many_are_those_of_scipy_one_by_one():
    from scipy.stats import power_divergence

    p = np.array(LAWS["binomial"])
    counts = np.random.default_rng(0).multinomial(500, p, size=20)
    many = statistics(counts, p)
    for index, row in enumerate(counts):
        assert many.g[index] == pytest.approx(power_divergence(row, 500 * p, lambda_="log-likelihood").statistic)
        assert many.pearson[index] == pytest.approx(power_divergence(row, 500 * p).statistic)
        assert many.tvd[index] == pytest.approx(total_variation(row, 500, p))
        assert many.entropy[index] == pytest.approx(entropy(row.tolist())[1])


def test_a_test_of_fit_agrees_with_the_chi_square_law_where_that_holds():
    from scipy.stats import chi2

    counts = np.array([1050, 950, 1010, 990])
    fit = goodness_of_fit(counts, (0.25,) * 4, 0)
    assert fit.g_p_value == pytest.approx(2 * chi2.sf(fit.g, 3), abs=0.03)  # two-sided
    assert fit.pearson_p_value == pytest.approx(chi2.sf(fit.pearson, 3), abs=0.02)


def test_a_sample_of_an_impossible_target_rejects():
    fit = goodness_of_fit(np.array([9, 1]), (1.0, 0.0), 0)
    assert math.isinf(fit.g)
    assert fit.p_value < 0.001


@pytest.mark.parametrize(("share", "covers"), [(0.5, 0.9569), (0.9, 0.9662), (0.99, 0.9885)])
def test_the_interval_of_the_valid_share_covers_it_in_at_least_95_percent_of_samples(share, covers):
    """The probability of all counts whose interval contains the true share."""
    k = np.arange(301)
    inside = np.array([low <= share <= high for low, high in (clopper_pearson(int(count), 300) for count in k)])
    assert exactly(k, 300, share)[inside].sum() == pytest.approx(covers, abs=5e-5)


@pytest.mark.parametrize(("off", "certain"), [(3, False), (4, True)])
def test_three_of_a_hundred_off_target_may_be_one_percent_and_four_may_not(off, certain):
    """P(X >= 3) = 7.9 % and P(X >= 4) = 1.8 % with a true share of 1 %."""
    found = figures(HALVES, tally(HALVES, {"a": 50, "b": 50 - off, "junk": off}))
    assert many_off(found) == certain
    assert ("off target" in verdict(found)) == certain


def test_cells_that_differ_are_marked_and_few_others():
    """One of 100 cells has twice its weight; under the target itself a mark is a false one."""
    hundred = prompt(100)
    rng = np.random.default_rng(4)
    q = np.full(100, 0.98 / 99)
    q[7] = 0.02
    marked = np.zeros(100)
    falsely = 0
    for _ in range(60):
        marked += [cell.differs for cell in cells(hundred, counted(hundred, rng.multinomial(20_000, q)))]
        falsely += any(cell.differs for cell in cells(hundred, counted(hundred, rng.multinomial(20_000, [0.01] * 100))))
    assert marked[7] == 60
    assert falsely <= 8  # 5 % of 60 is 3


def test_a_cell_by_hand():
    first, second = cells(HALVES, tally(HALVES, {"a": 9, "b": 1, "junk": 5}))
    assert (first.count, first.expected) == (9, 5.0)
    assert first.residual == pytest.approx(4 / math.sqrt(2.5))
    assert first.p_value == pytest.approx(2 * 11 / 1024)  # P(X >= 9) = (10 + 1) / 2^10, doubled
    assert (second.residual, second.differs) == (-first.residual, True)


def test_smaller_figures_by_hand():
    found = figures(HALVES, tally(HALVES, {"a": 60, "b": 40}))
    assert found.kl_plugin == pytest.approx(0.6 * math.log(1.2) + 0.4 * math.log(0.8))  # KL(samples || target)
    assert found.cohens_w == pytest.approx(math.sqrt((4 - 1) / 100))  # X^2 = 2 * 10^2 / 50 = 4, less its mean df = 1
    assert found.pearson_p_value == pytest.approx(0.0569, abs=0.01)  # P(|X - 50| >= 10) of a fair coin
    assert found.effective == pytest.approx(math.exp(found.entropy))


@pytest.mark.parametrize("weight", [0.0, 1e-320, 1e-300])
def test_an_answer_of_weight_zero_is_impossible_and_said_so(weight):
    odd = Prompt(request="x", targets=("a", "b"), weights=(1.0, weight))
    found = figures(odd, tally(odd, {"a": 90, "b": 10}))
    assert verdict(found).startswith("answers include targets of weight zero")
    assert (found.seen, found.targets) == (1, 1)
    assert [cell.residual for cell in cells(odd, tally(odd, {"a": 90, "b": 10}))][1] == math.inf


def counted(asked, counts):
    return tally(asked, dict(zip(asked.targets, map(int, counts), strict=True)))


def test_the_interval_of_a_share_at_the_edges():
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    low, high = clopper_pearson(10, 10)
    assert (round(low, 4), high) == (0.6915, 1.0)


def test_entropy_and_distance_of_nothing_are_not_numbers():
    assert all(math.isnan(value) for value in entropy([]))
    assert math.isnan(total_variation(np.array([0, 0]), 0, np.array([0.5, 0.5])))


@pytest.mark.parametrize(
    ("samples", "phrase"),
    [
        ({}, "no samples"),
        ({"junk": 100}, "off target 100 %"),
        ({"{0}": 1}, "too few samples for a verdict"),
        ({"{0}": 20}, "wrong shares, 1 of 2 targets seen (p <= 0.0001"),
        ({"{0}": 3, "{1}": 2, "junk": 4}, "off target 44.4 %, too few valid answers for a verdict on the weights (p = 1)"),
        ({"{0}": 1000}, "wrong shares, 1 of 2 targets seen"),
        ({"{0}": 450, "{1}": 450, "junk": 100}, "off target 10 %, no difference found in valid answers"),
        ({"{0}": 80, "junk": 20}, "wrong shares, 1 of 2 targets seen, off target 20 % (p <= 0.0001, excess TVD 0.46"),
        ({"{0}": 500, "{1}": 500}, "follows the target"),
        ({"{0}": 900, "{1}": 100}, "wrong shares"),
        ({"{0}": 50_600, "{1}": 49_400}, "close to the target"),
        # a million answers, by hand: 400 of the standard deviation 500 are no difference, 1500 are one, with a TVD of
        # (.00135 + .00165 + .0003) / 2 = .0017, at most .0017 + 1.96 / 2000 = .003
        ({"{0}": 500_250, "{1}": 499_450, "junk": 300}, "follows the target (p = "),
        ({"{0}": 501_350, "{1}": 498_350, "junk": 300}, "close to the target (p = 0.00"),
        # 1.4 % off target: between 1.38 and 1.42 %, so more than the 1 % tolerated and a TVD below .02
        ({"{0}": 493_400, "{1}": 492_600, "junk": 14_000}, "close to the target, off target 1.4 % (p = "),
        ({"{0}": 487_900, "{1}": 487_100, "junk": 25_000}, "off target 2.5 %, no difference found in valid answers (p = "),
        ({"{0}": 593_400, "{1}": 392_600, "junk": 14_000}, "wrong shares, off target 1.4 % (p <= 0.0001, excess TVD 0.107)"),
        # 6 of 200: between 1.1 and 6.4 %, so it may or may not matter; 7 of 1000: from .3 %, so tolerated
        ({"{0}": 100, "{1}": 94, "junk": 6}, "undecided, off target 3 %, true TVD between 0.011 and 0."),
        # 3 of 100: from .6 %, so tolerated
        ({"{0}": 49, "{1}": 48, "junk": 3}, "follows the target (p = "),
        # 6 of 200, and 130 to 64 among the others: both differ
        ({"{0}": 130, "{1}": 64, "junk": 6}, "wrong shares, off target 3 % (p <= 0.0001"),
        ({"{0}": 500, "{1}": 493, "junk": 7}, "follows the target (p = "),
    ],
)
def test_the_verdict_in_words(samples, phrase):
    said = verdict(figures(prompt(2), tally(prompt(2), samples)))
    assert phrase in said
    assert said.startswith(phrase)


@pytest.mark.parametrize(
    ("impossible", "phrase"), [(300, "close to the target, but answers include "), (30_000, "answers include ")]
)
def test_answers_of_weight_zero_are_part_of_the_distance(impossible, phrase):
    odd = Prompt(request="x", targets=("a", "b"), weights=(1.0, 0.0))
    found = figures(odd, tally(odd, {"a": 1_000_000 - impossible, "b": impossible}))
    assert found.tvd == pytest.approx(impossible / 1e6)
    assert verdict(found).startswith(f"{phrase}targets of weight zero (p <= ")


EXACT = ExactFigures(kl=0.1, on_target=1.0, tvd=0.18)


@pytest.mark.parametrize(
    ("samples", "exact", "phrase"),
    [
        ({"{0}": 25, "{1}": 25}, EXACT, "differs from the target by an exact TVD of 0.180, not visible in 50 samples"),
        ({"{0}": 500, "{1}": 500}, EXACT, "differs from the target by an exact TVD of 0.180"),
        ({"{0}": 500, "{1}": 500}, ExactFigures(kl=0.0, on_target=1.0, tvd=0.006), "follows the target (p ="),
        ({"{0}": 500, "{1}": 500}, ExactFigures(kl=0.2, on_target=0.8, tvd=0.2), "follows the target (p ="),  # other tokenisations
        ({"{0}": 500, "{1}": 500}, ExactFigures(kl=0.2, on_target=0.8), "follows the target (p ="),
        ({"{0}": 545, "{1}": 455}, ExactFigures(kl=0.0, on_target=1.0, tvd=0.015), "close to the target (p ="),
        (
            {"{0}": 545, "{1}": 455},
            ExactFigures(kl=0.0, on_target=0.99, tvd=0.02031),
            ": true TVD between 0.010 and 0.0204 (up to 0.02 is close) (p =",
        ),
        ({"{0}": 545, "{1}": 455}, EXACT, "wrong shares (p ="),
        # 6 of 200 are off target, between 1.1 and 6.4 %
        (
            {"{0}": 100, "{1}": 94, "x": 6},
            ExactFigures(kl=0.0, on_target=0.985, tvd=0.015),
            "close to the target, off target 3 % (",
        ),
        (
            {"{0}": 100, "{1}": 94, "x": 6},
            ExactFigures(kl=0.0, on_target=0.97, tvd=0.03),
            "undecided, off target 3 %, true TVD between 0.011 and 0.030 (up to 0.02 is close) (",
        ),
        (
            {"{0}": 100, "{1}": 94, "x": 6},
            ExactFigures(kl=0.0, on_target=0.97, tvd=0.06),
            "off target 3 %, exact TVD 0.060 (up to 0.02 is close) (",
        ),
        ({"{0}": 535, "{1}": 465}, None, "differs, perhaps by little: true TVD of at most 0.065 (up to 0.02 is close) (p ="),
    ],
)
def test_the_models_own_probabilities_outweigh_samples_that_are_too_few_to_show_them(samples, exact, phrase):
    assert phrase in verdict(figures(prompt(2), tally(prompt(2), samples)), exact)


def test_exact_figures_do_not_outweigh_answers_that_were_cut():
    """The model's own probabilities do not know of a limit of new tokens."""
    counts = Answers({"{0}": 300, "{1}": 300})
    counts.add("{0", 400, unfinished=True)
    found = figures(prompt(2), tally(prompt(2), counts))
    assert verdict(found, ExactFigures(kl=0.001, on_target=0.995, tvd=0.01)).startswith(
        "off target 40 % (unfinished 40 %), no difference"
    )


def test_targets_of_weight_zero_are_judged_by_the_exact_distance():
    impossible = Prompt(request="x", targets=("{0}", "{1}", "{2}"), weights=(1, 1, 0))
    found = figures(impossible, tally(impossible, {"{0}": 485, "{1}": 485, "{2}": 30}))
    assert verdict(found, ExactFigures(kl=0.01, on_target=1.0, tvd=0.015)).startswith("close to the target, but answers include")
    assert verdict(found).startswith("answers include targets of weight zero")


def test_a_tvd_that_would_be_detected_is_never_zero():
    """A hundred million answers: 3 000 too many of one, with a standard deviation of 5 000."""
    found = figures(prompt(2), tally(prompt(2), {"{0}": 50_003_000, "{1}": 49_997_000}))
    assert found.detectable_tvd == pytest.approx(0.000149, abs=1e-6)
    assert "; a TVD of 0.00015 or more would be detected with 80 % power)" in verdict(found)


@pytest.mark.parametrize(
    ("samples", "phrase"),
    [
        ({"{0}": 2, "{9}": 1, "{10}": 1, "{5}": 1}, "differs, perhaps by little (p = 0.0079, "),
        ({"{0}": 2, "{5}": 2, "{10}": 1}, "differs, perhaps by little, 3 targets seen where 4 are expected (p = 0.0038, "),
    ],
)
def test_a_bound_that_says_nothing_is_left_out(samples, phrase):
    """Five answers differ from the sums of two dice, by a TVD between 0 and 1."""
    sums = prompt(11, weights=(1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1))
    said = verdict(figures(sums, tally(sums, samples)))
    assert said.startswith(phrase)
    assert mark_of(said) == ("?", "open")


def test_even_counts_are_not_taken_for_independent_draws():
    """100 of each of ten: a perfect sampler misses each by 9.5 on average."""
    found = figures(prompt(10), counted(prompt(10), [100] * 10))
    assert found.too_even
    assert verdict(found).startswith("follows the target more evenly than independent draws would (p = 0.00")


def test_the_quantile_of_the_floor_is_what_a_perfect_sampler_exceeds_one_time_in_twenty():
    four = prompt(4)
    found = figures(four, counted(four, [50, 50, 50, 50]))
    rng = np.random.default_rng(7)
    tvds = np.abs(rng.multinomial(200, [0.25] * 4, size=4000) / 200 - 0.25).sum(1) / 2
    assert np.mean(tvds > found.tvd_floor_95) == pytest.approx(0.05, abs=0.015)
    assert found.tvd_floor == pytest.approx(tvds.mean(), rel=0.03)


def test_the_weight_covered_is_that_of_the_targets_seen():
    weighted = Prompt(request="x", targets=("a", "b", "c"), weights=(0.5, 0.3, 0.2))
    assert figures(weighted, tally(weighted, {"a": 3, "c": 1})).weight_covered == pytest.approx(0.7)


def test_a_perfect_sampler_is_said_to_follow_the_target_almost_always():
    for asked in (prompt(10), read_prompt(ROOT / "prompts" / "weighted" / "binomial-10-0.2.json")):
        rng = np.random.default_rng(1)
        drawn = [counted(asked, rng.multinomial(1000, asked.probabilities)) for _ in range(200)]
        said = sum(verdict(figures(asked, one)).startswith("follows the target") for one in drawn)
        assert said >= 180
