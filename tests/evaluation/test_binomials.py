"""The binomial distribution against hand counts and against scipy.stats, and adjusted p-values against scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diffusecli.evaluation.binomials import at_most, clopper_pearson, exactly, false_discoveries, more_than

SHARES = st.one_of(st.sampled_from([0.0, 1.0, 1e-300, 0.5]), st.floats(1e-300, 1))  # below, scipy's own pmf overflows


def test_two_draws_of_a_half_are_none_one_or_two_in_one_two_and_one_of_four_cases():
    k = np.array([-1, 0, 1, 2, 3])
    np.testing.assert_allclose(at_most(k, 2, 0.5), [0, 1 / 4, 3 / 4, 1, 1], atol=1e-15)
    np.testing.assert_allclose(more_than(k, 2, 0.5), [1, 3 / 4, 1 / 4, 0, 0], atol=1e-15)
    np.testing.assert_allclose(exactly(k[1:], 2, 0.5), [1 / 4, 1 / 2, 1 / 4, 0], atol=1e-15)


def test_no_draws_are_none_of_a_kind():
    assert (float(at_most(0, 0, 0.3)), float(more_than(-1, 0, 0.3)), float(more_than(0, 0, 0.3)), float(exactly(0, 0, 0.3))) == (
        1,
        1,
        0,
        1,
    )


@given(st.integers(0, 5000), st.lists(SHARES, min_size=1, max_size=4), st.data())
def test_it_is_the_binomial_distribution_of_scipy(n, p, data):
    k = np.array(data.draw(st.lists(st.integers(-1, n + 1), min_size=len(p), max_size=len(p))))
    p = np.array(p)
    np.testing.assert_allclose(at_most(k, n, p), stats.binom.cdf(k, n, p), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(more_than(k, n, p), stats.binom.sf(k, n, p), rtol=1e-9, atol=1e-300)
    whole = np.maximum(k, 0)
    np.testing.assert_allclose(exactly(whole, n, p), stats.binom.pmf(whole, n, p), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 100_000])
def test_intervals_are_those_of_scipy(n):
    for k in sorted({0, 1, n // 3, n - 1, n}):
        theirs = stats.binomtest(k, n).proportion_ci(method="exact")
        np.testing.assert_allclose(clopper_pearson(k, n), (theirs.low, theirs.high), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "of_wilson", "of_the_exact"),
    [(50, 0.0894, 0.0138), (100, 0.0794, 0.0184), (300, 0.0328, 0.0115), (1000, 0.0264, 0.0138), (10_000, 0.0276, 0.0221)],
)
def test_one_percent_off_target_is_called_more_than_that_in_at_most_one_of_forty_cases(n, of_wilson, of_the_exact):
    """The verdict's question, whether certainly more than 1 % is off target, with a true share of exactly 1 %: binomial sums of the errors."""

    def wilson(k: int) -> float:
        return float(stats.binomtest(k, n).proportion_ci(method="wilson").low)

    errors = []
    for lower_end in (wilson, lambda k: clopper_pearson(k, n)[0]):
        first = next(k for k in range(n) if lower_end(k) > 0.01)
        errors.append(float(more_than(first - 1, n, 0.01)))
    assert errors == pytest.approx([of_wilson, of_the_exact], abs=5e-5)
    assert errors[1] <= 0.025


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_values_are_those_of_scipy(p_values):
    np.testing.assert_allclose(false_discoveries(np.array(p_values)), stats.false_discovery_control(p_values), rtol=1e-12)
