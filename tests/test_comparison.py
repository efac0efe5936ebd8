"""Differences between two samplers: their value by hand, their interval by simulation."""

import math
from collections import Counter

import numpy as np
import pytest

from diffusecli.comparison import Estimate, difference, resample
from diffusecli.matching import Tally

TEN = (0.1,) * 10
LEANING = (0.4, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05, 0.04, 0.03, 0.03)


def drawn(rng, q, n=300):
    return Tally(tuple(rng.multinomial(n, q).tolist()), Counter())


def test_a_difference_is_that_of_the_figures():
    a, b = resample(Tally((6, 4), Counter()), (0.5, 0.5), 0), resample(Tally((5, 5), Counter()), (0.5, 0.5), 1)
    found = difference(a.excess_tvds, b.excess_tvds, b.excess_tvd - a.excess_tvd)
    assert found.value == pytest.approx(-0.1)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(("one", "other"), [(LEANING, TEN), (TEN, TEN), (LEANING, LEANING)])
def test_intervals_cover_the_difference_about_as_often_as_they_say(one, other):
    rng = np.random.default_rng(0)
    tvd = [np.mean(np.abs(rng.multinomial(300, q, size=4000) / 300 - 0.1).sum(1) / 2) for q in (one, other)]
    h = [-sum(p * math.log(p) for p in q) for q in (one, other)]
    covered = np.zeros(2)
    for seed in range(150):
        a, b = resample(drawn(rng, one), TEN, seed), resample(drawn(rng, other), TEN, seed + 1000)
        excess = difference(a.excess_tvds, b.excess_tvds, b.excess_tvd - a.excess_tvd)
        entropy = difference(a.entropies, b.entropies, b.entropy - a.entropy)
        covered += [excess.low <= tvd[1] - tvd[0] <= excess.high, entropy.low <= h[1] - h[0] <= entropy.high]
    assert (covered / 150 >= 0.89).all()


def test_off_target_answers_count_in_both():
    found = resample(Tally((5, 5), Counter({"x": 5, "y": 5})), (0.5, 0.5), 0)
    assert found.excess_tvd == pytest.approx(0.5 - 0.0881, abs=1e-3)  # floor: E|X/20 - .5| of a fair coin
    assert found.entropy == pytest.approx(math.log(4) + 3 / 40)


def test_too_many_different_answers_have_no_interval():
    off = Counter({str(i): 1 for i in range(150_000)})
    found = resample(Tally((0,), off), (1.0,), 0)
    estimate = difference(found.entropies, found.entropies, 0.0)
    assert math.isnan(estimate.low)
    assert not estimate.apart


@pytest.mark.parametrize(("low", "high", "apart"), [(-1, 1, False), (0.1, 1, True), (-2, -1, True), (0, 1, False)])
def test_an_estimate_stands_apart_when_its_interval_leaves_zero_out(low, high, apart):
    assert Estimate(0.5, low, high).apart is apart
