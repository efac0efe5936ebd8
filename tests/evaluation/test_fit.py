"""The test of fit against simulation: its level under the target, its power, and what it says that it would detect."""

import numpy as np
import pytest

from diffusecli.evaluation.departures import departures, power, shifted
from diffusecli.evaluation.fit import detectable_tvd, goodness_of_fit, null_of
from diffusecli.evaluation.perfect import drawn_from, statistics

DRAWS = 1000


def _normal(weights):
    return np.asarray(weights) / np.sum(weights)


def equal(k):
    return np.full(k, 1 / k)


def zipf(k):
    return _normal(1 / np.arange(1, k + 1) ** 1.2)


def geometric(k):
    return _normal(0.9 ** np.arange(k))


def mixed(k):
    """A tenth of the targets a hundred times as likely as the others."""
    return _normal(np.r_[np.full(k // 10, 10.0), np.full(k - k // 10, 0.1)])


SHAPES = {"equal": equal, "zipf": zipf, "geometric": geometric, "mixed": mixed}


def rejected(p, q, n, draws=DRAWS, seed=1, level=0.05):
    """The share of sample sets of q that the test rejects."""
    drawn = drawn_from(p, q, n, np.random.default_rng(seed), draws)
    null = null_of(tuple(p.tolist()), n, 0)
    return null.rejects(drawn, null.critical(level)).mean()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("k", "n"), [(1000, 100), (100, 50), (200, 1000), (100, 1000), (20, 20), (10, 1000), (10, 10_000), (2, 30)]
)
def test_five_in_a_hundred_perfect_samplers_are_rejected_and_no_more(shape, k, n):
    """N / K from .1 to 1000; fewer where counts have few values."""
    p = SHAPES[shape](k) if k > 2 else _normal([3, 1])
    assert rejected(p, p, n) <= 0.05 + 3.5 * (0.05 * 0.95 / DRAWS) ** 0.5


def test_the_p_value_of_one_sample_set_is_that_of_the_rejections():
    """The p-value counts the observed set among the draws; rejecting many at once compares with a threshold found once."""
    p, rng = zipf(200), np.random.default_rng(2)
    counts = rng.multinomial(300, power(p, 1.1), size=200)
    one_by_one = [goodness_of_fit(row, tuple(p.tolist()), 0).p_value <= 0.05 for row in counts]
    null = null_of(tuple(p.tolist()), 300, 0)
    together = null.rejects(statistics(counts, p), null.critical(0.05))
    assert np.count_nonzero(np.array(one_by_one) != together) <= 2
    assert 20 < sum(one_by_one) < 180


def test_p_values_of_perfect_samplers_are_uniform():
    p, rng = zipf(100), np.random.default_rng(3)
    values = np.array([goodness_of_fit(row, tuple(p.tolist()), 0).p_value for row in rng.multinomial(150, p, size=600)])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(values <= level) == pytest.approx(level, abs=4 * (level * (1 - level) / 600) ** 0.5)


def test_p_values_of_three_statistics_by_hand():
    """Two tosses of a fair coin: both alike, G = 4 ln 2, or one of each, G = 0, each with probability 1/2."""
    alike, mixed_up = (goodness_of_fit(np.array(counts), (0.5, 0.5), 0) for counts in ([2, 0], [1, 1]))
    assert (alike.g, mixed_up.g) == (pytest.approx(4 * np.log(2)), pytest.approx(0))
    assert alike.tvd_p_value == pytest.approx(0.5, abs=0.02)
    assert mixed_up.tvd_p_value == 1
    assert (alike.g_p_value, alike.seen_p_value, mixed_up.g_p_value) == (pytest.approx(1, abs=0.04),) * 3
    assert alike.p_value == pytest.approx(0.5, abs=0.02)
    assert mixed_up.p_value == 1


LOST_TAIL = zipf(1000) * (1000 * zipf(1000) >= 1)


@pytest.mark.parametrize(
    ("p", "q", "n"),
    [
        pytest.param(zipf(1000), power(zipf(1000), 1 / 0.8), 1000, id="Zipf at temperature .8"),
        pytest.param(zipf(1000), power(zipf(1000), 1 / 1.25), 1000, id="Zipf at temperature 1.25"),
        pytest.param(zipf(1000), _normal(LOST_TAIL), 1000, id="Zipf, targets expected less than once never said"),
        pytest.param(geometric(100), _normal(geometric(100) * (np.arange(100) < 15)), 1000, id="geometric, its tail never said"),
        pytest.param(mixed(500), _normal(mixed(500) * (np.arange(500) < 50)), 500, id="mixed, no rare target ever said"),
        pytest.param(equal(500), _normal(equal(500) * (np.arange(500) < 250)), 200, id="half of 500 never said in 200 answers"),
        pytest.param(equal(1000), shifted(equal(1000), 0.4), 1000, id="shares shifted between a thousand"),
        pytest.param(equal(10), shifted(equal(10), 0.1), 1000, id="shares shifted between ten"),
        pytest.param(equal(200), _normal(equal(200) + 0.05 * (np.arange(200) == 7)), 1000, id="one of 200 too often"),
    ],
)
def test_departures_that_one_statistic_alone_does_not_see_are_rejected(p, q, n):
    assert rejected(p, q, n, draws=200) >= 0.95


@pytest.mark.parametrize(
    ("p", "n", "level"),
    [
        (equal(10), 1000, 0.05), (equal(200), 1000, 0.05), (zipf(1000), 1000, 0.05), (geometric(100), 200, 0.05), (mixed(500), 100, 0.05),
        (_normal([3, 1]), 200, 0.05), (_normal([4, 3, 2, 1]), 300, 0.0125), (_normal([4, 3, 2, 1]), 300, 0.025 / 7),
    ],
)  # fmt: skip
def test_a_tvd_that_is_said_to_be_detected_is_detected_in_four_of_five_cases_whatever_the_departure(p, n, level):
    claimed = detectable_tvd(tuple(p.tolist()), n, level=level)
    found = []
    for departure, furthest in departures(p):
        if claimed < furthest:
            q = departure(p, claimed)
            assert np.abs(q - p).sum() / 2 == pytest.approx(claimed, rel=1e-3)
            found.append(rejected(p, q, n, seed=7, level=level))
    assert 0.75 <= min(found) <= 0.9  # the search for it is within 3 %


def test_what_would_be_detected_by_hand():
    """A fair coin tossed 1000 times: a departure of z standard deviations is found as often as |Z + z| exceeds the two-sided quantile."""
    assert detectable_tvd((0.5, 0.5), 1000) == pytest.approx((1.96 + 0.84) / np.sqrt(1000) / 2, rel=0.1)


@pytest.mark.parametrize(("p", "n"), [((1.0,), 100), ((0.5, 0.5), 0)])
def test_where_no_departure_is_possible_nothing_is_claimed(p, n):
    assert np.isnan(detectable_tvd(p, n))


def test_few_draws_of_many_targets_claim_next_to_nothing():
    assert detectable_tvd(tuple(equal(2000).tolist()), 50) > 0.7


@pytest.mark.parametrize("n", [1, 2, 4, 10])
def test_a_few_draws_that_miss_even_a_model_of_one_answer_claim_nothing(n):
    """Three of four are yes: n answers that are all yes have the probability .75^n, .056 for ten, so the test cannot reject them."""
    assert detectable_tvd((0.75, 0.25), n) == 1
