"""The interval of a sampler's own TVD covers the truth, whatever the sampler and however few the answers."""

import numpy as np
import pytest

from diffusecli.evaluation.distance import tvd_interval
from diffusecli.evaluation.perfect import perfect_sampler

SETS = 60


def _normal(weights):
    return np.asarray(weights) / np.sum(weights)


EQUAL_10, EQUAL_200, EQUAL_500 = (np.full(k, 1 / k) for k in (10, 200, 500))
ZIPF = _normal(1 / np.arange(1, 1001) ** 1.2)
GEOMETRIC = _normal(0.9 ** np.arange(100))


def off(q, share):
    """Answers of q, a share of them off target."""
    return np.append(q * (1 - share), share)


def one_too_often(p, share):
    q = p * (1 - share / (1 - p[0]))
    q[0] = p[0] + share
    return q


def half(p):
    return _normal(p * (np.arange(len(p)) % 2 == 0))


@pytest.mark.parametrize("n", [20, 200, 5000])
@pytest.mark.parametrize(
    ("p", "q", "true"),
    [
        pytest.param(EQUAL_200, off(EQUAL_200, 0.05), 0.05, id="5 % off target, the rest perfect"),
        pytest.param(EQUAL_200, off(one_too_often(EQUAL_200, 0.05), 0), 0.05, id="one of 200 too often by 5 %"),
        pytest.param(EQUAL_500, off(half(EQUAL_500), 0), 0.5, id="half of 500 never said"),
        pytest.param(EQUAL_10, off(EQUAL_10, 0), 0, id="perfect"),
        pytest.param(EQUAL_10, off(EQUAL_10, 0.01), 0.01, id="1 % off target"),
        pytest.param(EQUAL_10, off(half(EQUAL_10), 0.3), None, id="half of ten, 30 % off target"),
        pytest.param(ZIPF, off(_normal(ZIPF**1.25), 0), None, id="Zipf at temperature .8"),
        pytest.param(ZIPF, off(_normal(ZIPF * (np.arange(1000) < 150)), 0), None, id="Zipf, its tail never said"),
        pytest.param(GEOMETRIC, off(_normal(GEOMETRIC**0.8), 0.1), None, id="geometric at temperature 1.25, 10 % off target"),
        pytest.param(np.array([0.999, 0.001]), np.array([0.97, 0.03, 0]), 0.029, id="a rare target thirty times too often"),
    ],
)
def test_the_interval_holds_the_true_distance_in_95_of_100_cases(p, q, true, n):
    distance = (np.abs(q[:-1] - p).sum() + q[-1]) / 2
    assert true is None or distance == pytest.approx(true)
    perfect = perfect_sampler(tuple(p.tolist()), n, 0, 999)
    bounds = [tvd_interval(counts[:-1], n, p, perfect) for counts in np.random.default_rng(1).multinomial(n, q, size=SETS)]
    assert all(0 <= low <= high <= 1 for low, high in bounds)
    covered = np.mean([low - 1e-9 <= distance <= high + 1e-9 for low, high in bounds])
    assert covered >= 0.95 - 2 * (0.95 * 0.05 / SETS) ** 0.5


def test_the_interval_of_enough_answers_is_narrow():
    p, q = EQUAL_10, one_too_often(EQUAL_10, 0.05)
    counts = np.random.default_rng(2).multinomial(100_000, q)
    low, high = tvd_interval(counts, 100_000, p, perfect_sampler((0.1,) * 10, 100_000, 0, 999))
    assert 0.04 < low < 0.05 < high < 0.06


def test_a_target_of_weight_zero_counts_as_off_target():
    low, high = tvd_interval(np.array([70, 30]), 100, np.array([1.0, 0.0]), perfect_sampler((1.0, 0.0), 100, 0, 999))
    assert 0.2 < low < 0.3 < high < 0.41


@pytest.mark.parametrize("counts", [[0, 0], [1, 0]])
def test_hardly_any_answers_on_target_claim_little(counts):
    low, high = tvd_interval(np.array(counts), 1, np.array([0.5, 0.5]), perfect_sampler((0.5, 0.5), 1, 0, 999))
    assert (low <= 0.03, high) == (True, 1)


def test_targets_that_are_never_said_give_a_lower_bound_though_each_is_rare():
    """All targets expected less than once weigh .176 and are never said; no sample of 1000 comes within .13 of that by chance."""
    rare = 1000 * ZIPF < 1
    counts = np.random.default_rng(3).multinomial(1000, _normal(ZIPF * ~rare))
    low, high = tvd_interval(counts, 1000, ZIPF, perfect_sampler(tuple(ZIPF.tolist()), 1000, 0, 999))
    assert 0.12 < low < ZIPF[rare].sum() < high
