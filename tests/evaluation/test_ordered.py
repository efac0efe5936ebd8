"""Targets that are numbers or dates, and how far answers lie from them."""

import numpy as np
import pytest
from scipy import stats

from diffusecli.evaluation.ordered import ordered, values_of


@pytest.mark.parametrize(
    ("targets", "values"),
    [
        (("{1}", "{2}", "{10}"), ((1, 2, 10), "")),
        (("-1.5", "2"), ((-1.5, 2), "")),
        (("1,000 people", "20 people"), ((1000, 20), "")),
        (("{December 31}", "{January 1}"), ((0, 1), "days")),
        (("2024-02-28", "2024-03-01"), ((0, 2), "days")),
        (("{a}", "{b}"), None),
        (("1 cat", "2 dogs"), None),
        (("1-2", "3-4"), None),
        (("0.5", "-2", "1e3"), ((0.5, -2, 1000), "")),
        (("w1", "w2"), None),
        (("03/04/2024", "04/04/2024"), None),
        (("{June 3}", "{June 1}"), ((0, -2), "days")),
        (("{7}",), None),
        (("1", "1.0"), None),
    ],
)
def test_what_targets_stand_for(targets, values):
    assert values_of(targets) == values


def test_the_distance_by_hand():
    """Values 0, 1, 3 of weights 1/4, 1/4, 1/2; counts 2, 0, 2: only between 0 and 1 do both functions differ, by 1/4."""
    found = ordered((0.0, 1.0, 3.0), "", np.array([2, 0, 2]), np.array([0.25, 0.25, 0.5]))
    assert found.wasserstein == pytest.approx(0.25)
    assert (found.mean, found.target_mean) == (1.5, 1.75)
    assert (found.variance, found.target_variance) == (pytest.approx(2.25), pytest.approx(1.6875))


def test_the_floor_of_the_distance_is_the_mean_of_perfect_samplers():
    p, at = np.array([0.2, 0.3, 0.5]), (5.0, 1.0, 2.0)
    drawn = [ordered(at, "", c, p) for c in np.random.default_rng(0).multinomial(50, p, size=2000)]
    assert drawn[0].wasserstein_floor == pytest.approx(np.mean([found.wasserstein for found in drawn]), rel=0.03)


def test_the_distance_is_that_of_scipy():
    random = np.random.default_rng(1)
    for k in (2, 5, 40):
        at, p, counts = random.normal(size=k), random.dirichlet(np.ones(k)), random.integers(0, 9, size=k) + 1
        found = ordered(tuple(at), "", counts, p)
        assert found.wasserstein == pytest.approx(stats.wasserstein_distance(at, at, counts, p), rel=1e-12)
