"""A perfect sampler's statistics, drawn cell by cell or draw by draw."""

import numpy as np
import pytest
from scipy import stats

from diffusecli.evaluation import perfect
from diffusecli.evaluation.distance import _smoothed
from diffusecli.evaluation.perfect import drawn_from, mean_tvd, statistics


def test_statistics_are_those_of_the_formulas():
    counts, p = np.array([[3, 0, 5, 2], [10, 0, 0, 0]]), np.array([0.4, 0.1, 0.3, 0.2])
    found = statistics(counts, p)
    expected = stats.power_divergence(counts[0], 10 * p, lambda_="log-likelihood").statistic
    assert found.g[0] == pytest.approx(expected)
    assert found.g[1] == pytest.approx(2 * 10 * np.log(1 / 0.4))
    assert found.pearson == pytest.approx([stats.chisquare(row, 10 * p).statistic for row in counts])
    assert found.tvd == pytest.approx(abs(counts / 10 - p).sum(1) / 2)
    assert found.seen.tolist() == [3, 1]
    assert found.entropy == pytest.approx([stats.entropy(counts[0]) + 2 / 20, 0])


def test_the_distance_is_right_for_weights_that_do_not_sum_to_1():
    counts, p = np.array([[3, 0, 5, 2]]), np.array([0.4, 0.1, 0.3, 0.35])
    assert statistics(counts, p).tvd == pytest.approx(abs(counts / 10 - p).sum(1) / 2)


def test_the_smoothed_sample_is_a_distribution():
    seen, p = np.array([40, *[1] * 60, *[0] * 940]), np.array([0.9, *[0.0001] * 1000])
    found = _smoothed(seen, 200, p)
    assert found.sum() == pytest.approx(1)
    assert found[-1] == pytest.approx(0.5 * 0.7), "of the mass that is seen, half is off target"
    assert found[61:-1].sum() == pytest.approx(0.3)


def test_draw_by_draw_follows_the_law_of_cell_by_cell():
    """More cells than draws are drawn one draw at a time."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(60, 0.5))
    q = np.where(np.arange(60) % 7 == 0, 0, p)
    q /= q.sum()
    n, repeats = 59, 4000  # fewer draws than cells
    by_draw = drawn_from(p, q, n, np.random.default_rng(2), repeats)
    by_cell = statistics(np.random.default_rng(3).multinomial(n, q, size=repeats), p)
    for name in ("g", "pearson", "tvd", "seen", "entropy"):
        assert stats.ks_2samp(getattr(by_draw, name), getattr(by_cell, name)).pvalue > 1e-4, name


def test_cells_of_weight_zero_are_never_drawn(monkeypatch):
    drawn = []
    found = perfect._of_seen
    monkeypatch.setattr(perfect, "_of_seen", lambda rows, cells, *rest: drawn.append(cells) or found(rows, cells, *rest))
    q = np.zeros(1000)
    q[[3, 500]] = 0.25, 0.75

    class Edges:
        """The random numbers at which another cell begins, and the least there is."""

        def random(self, shape):
            return np.resize([0.0, 0.25, np.nextafter(1, 0)], shape)

    drawn_from(np.full(1000, 0.001), q, 50, Edges(), 200)
    assert set(np.concatenate(drawn).tolist()) == {3, 500}


def test_a_million_targets_cost_what_the_draws_cost():
    """The mean TVD of the draws is the exact one; dense draws of so many cells would take minutes and gigabytes."""
    p = 1 / np.arange(1, 1_000_001)
    p /= p.sum()
    drawn = drawn_from(p, p, 500, np.random.default_rng(0), 300)
    assert drawn.tvd.mean() == pytest.approx(mean_tvd(500, p), abs=4 * drawn.tvd.std() / 300**0.5)
    assert drawn.seen.mean() == pytest.approx((1 - (1 - p) ** 500).sum(), rel=0.01)
