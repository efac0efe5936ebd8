"""Compute figures with their sampling error from a target distribution and counted samples.

Takes prompts and counts; no files, models or rendering. `verdicts.py` summarises the figures. Natural logarithms, nats. Each function's
docstring has the formula and its source. Symbols: N samples, k on target, K targets, c_i counts, p_i weights.

A worked check. Targets a, b with p = 1/2, 1/2 and counts 6, 4 (N = 10): TVD = |.6 - .5| / 2 +
|.4 - .5| / 2 = .1; G = 2 (6 ln 1.2 + 4 ln .8) = .4027; plug-in entropy = -.6 ln .6 - .4 ln .4 =
.6730 and with Miller and Madow's (m - 1) / 2N = .05 it is .7230; a perfect sampler is expected
to show 2 - 2 (1/2)^10 = 1.998 distinct targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffusecli.evaluation.binomials import at_most, clopper_pearson, false_discoveries, more_than
from diffusecli.evaluation.distance import expected_excess, total_variation, tvd_interval
from diffusecli.evaluation.fit import SIGNIFICANCE, detectable_tvd, goodness_of_fit
from diffusecli.evaluation.perfect import FLOOR_REPEATS, REPEATS, TINY, mean_tvd, perfect_sampler
from diffusecli.prompts.divergence import exact_kl, exact_tvd
from diffusecli.prompts.matching import Tally
from diffusecli.prompts.prompt import Prompt


@dataclass(frozen=True)
class Figures:
    """Samples compared with a target distribution. A figure that cannot be computed (N = 0, nothing on target) is nan."""

    n: int  # samples
    valid: float  # share on target
    valid_low: float  # Clopper-Pearson (exact), 95 %
    valid_high: float  # the other end
    unfinished: int  # samples that were cut at the limit of tokens; never valid
    entropy: float  # Miller-Madow over all distinct samples, nats
    entropy_plugin: float  # the same uncorrected
    effective: float  # exp(entropy): number of equally likely outcomes with the same entropy
    target_entropy: float  # of the weights, nats
    entropy_perfect: float  # Miller-Madow of a perfect sampler at this N, mean
    seen: int  # distinct targets
    targets: int  # of positive weight
    seen_expected: float  # of a perfect sampler at this N
    weight_covered: float  # of the targets seen
    tvd: float  # total variation distance; off-target samples are a separate cell
    tvd_floor: float  # mean of a perfect sampler at this N
    tvd_floor_95: float  # its 95 % quantile
    excess_tvd: float  # tvd - tvd_floor
    tvd_low: float  # conservative 95 % interval of the true TVD, without sampling noise
    tvd_high: float  # the other end
    kl_plugin: float  # KL(samples on target || target), nats
    g: float  # conditional on being on target, as all below
    pearson: float  # X2
    df: int  # degrees of freedom
    p_value: float  # of the test of fit: G, TVD and distinct targets jointly, Monte Carlo
    g_p_value: float  # of G alone, two-sided
    tvd_p_value: float  # of the TVD among valid answers alone
    seen_p_value: float  # of the number of distinct targets alone, two-sided
    too_even: bool  # the test rejects because shares are closer to the weights than in independent draws
    pearson_p_value: float  # of X2, not part of the test
    repeats: int  # B of the Monte Carlo
    cohens_w: float  # effect size, bias subtracted
    detectable_tvd: float  # by simulation

    @property
    def least_p(self) -> float:
        """The lowest p-value that B draws can give, 1 / (B + 1); 0 without a test."""
        return 1 / (self.repeats + 1) if self.repeats else 0.0

    @property
    def at_least_p(self) -> bool:
        """Whether the p-value is this lowest one, so that the true one may be lower."""
        return self.p_value <= self.least_p * 1.001


@dataclass(frozen=True)
class Cell:
    """One target."""

    target: str  # as in the prompt
    weight: float  # normalised
    count: int  # of samples
    expected: float  # among as many valid answers
    residual: float  # standardised
    p_value: float  # exact binomial, two-sided
    differs: bool  # after false-discovery control at 5 %


def figures(prompt: Prompt, tallied: Tally, *, seed: int = 0, level: float = SIGNIFICANCE) -> Figures:
    """All figures of one prompt's samples; `seed` is for the Monte Carlo draws, `level` that of the test of fit, for `detectable_tvd`."""
    n, k = tallied.n, tallied.on_target
    p, counts = np.array(prompt.probabilities), np.array(tallied.counts)
    plugin, corrected = entropy(tallied.cells)
    low, high = clopper_pearson(k, n)
    tvd, floor = total_variation(counts, n, p), mean_tvd(n, p)
    perfect = perfect_sampler(prompt.probabilities, n, seed, REPEATS if n == k else FLOOR_REPEATS) if n else None
    tvd_low, tvd_high = tvd_interval(counts, n, p, perfect) if perfect else (math.nan, math.nan)
    fit = goodness_of_fit(counts, prompt.probabilities, seed)
    return Figures(
        n=n,
        valid=k / n if n else math.nan,
        valid_low=low,
        valid_high=high,
        unfinished=tallied.unfinished.total(),
        entropy=corrected,
        entropy_plugin=plugin,
        effective=math.exp(corrected),
        target_entropy=prompt.entropy,
        entropy_perfect=float(perfect.entropy.mean()) if perfect else math.nan,
        seen=int(((counts > 0) & (p > TINY)).sum()),
        targets=int((p > TINY).sum()),
        seen_expected=prompt.expected_distinct(n),
        weight_covered=float(p[counts > 0].sum()),
        tvd=tvd,
        tvd_floor=floor,
        tvd_floor_95=float(np.quantile(perfect.tvd, 0.95)) if perfect else math.nan,
        excess_tvd=round(tvd - floor, 12),
        tvd_low=tvd_low,
        tvd_high=tvd_high,
        kl_plugin=fit.g / (2 * k) if k else math.nan,
        g=fit.g,
        pearson=fit.pearson,
        df=fit.df,
        p_value=fit.p_value,
        g_p_value=fit.g_p_value,
        tvd_p_value=fit.tvd_p_value,
        seen_p_value=fit.seen_p_value,
        too_even=fit.too_even,
        pearson_p_value=fit.pearson_p_value,
        repeats=fit.repeats,
        cohens_w=math.sqrt(max(0.0, fit.pearson - fit.df) / k) if k else math.nan,
        detectable_tvd=detectable_tvd(prompt.probabilities, k, seed, level),
    )


@dataclass(frozen=True)
class Worded:
    """Exact figures of one wording of a prompt, of the prompt in one context, or of one part of its answers.

    A part is a draw or a field; its figures are given the parts before it.
    """

    kind: Literal[
        "trained", "held-out", "context", "draw", "field"
    ]  # trained: a request of the prompt, whether this run was trained on it or not
    name: str  # the request, the context, the draw, or the field
    kl: float  # KL(target || model), nats
    on_target: float
    tvd: float


FIRST_DRAW = "first draw: "
"""Prefix of verdicts on answers with several draws."""
OTHER_FIELDS = "other fields: "
"""Prefix of verdicts on answers with independent fields."""
KINDS = {"trained": "wording", "held-out": "held-out wording", "context": "held-out context", "draw": "draw", "field": "field"}
"""Names of the kinds."""


@dataclass(frozen=True)
class ExactFigures:
    """Figures from the model's own probabilities q of the targets: no sampling noise, temperature 1, nothing cut.

    A text has several tokenisations, and q is that of the usual one: the mass on target is a lower bound, KL and TVD are upper bounds.
    For a prompt with several wordings, KL and TVD are means over them. All other figures are of answers pooled evenly over the wordings,
    whose errors may cancel.
    """

    kl: float  # KL(target || model), nats
    on_target: float  # summed probability of the targets
    tvd: float = math.nan
    seen_expected: float = math.nan  # targets among N answers
    q: tuple[float, ...] = ()  # of each target
    excess_tvd: float = math.nan  # expected for `at_n` draws from q
    wordings: tuple[Worded, ...] = ()  # of a prompt in several wordings or contexts, or whose answers are in parts: one for each
    pooled_tvd: float = math.nan  # of answers pooled over several wordings; nan with one wording
    kl_error: float = 0.0  # standard error of an estimated KL; 0 if it is exact
    rounding: float = 0.0  # how far the rounding of a 16-bit model may change the KL, nats; nan if unknown
    tvd_rounding: float = 0.0  # the same for the TVD; nan if unknown

    @property
    def highest_kl(self) -> float:
        """The KL with its rounding, or the upper end of its 95 % interval if it is estimated."""
        return self.kl + 1.96 * self.kl_error + self.rounding

    @property
    def tvd_of_answers(self) -> float:
        """The TVD of the distribution from which the answers are drawn."""
        return self.tvd if math.isnan(self.pooled_tvd) else self.pooled_tvd


AT_N = 500
"""Default number of draws for the excess TVD of exact figures."""


def exact_figures(prompt: Prompt, log_q: np.ndarray, n: int, at_n: int = AT_N) -> ExactFigures:
    """KL(p || q), sum q, TVD = 1/2 (sum |p - q| + 1 - sum q), sum 1 - (1 - q)^N and the excess TVD at `at_n` from ln q of each target [K].

    >>> both = Prompt(request="r", targets=("a", "b"))
    >>> found = exact_figures(both, np.log([0.4, 0.4]), 2)
    >>> round(found.kl, 4), round(found.on_target, 4), round(found.tvd, 4), round(found.seen_expected, 4)
    (0.2231, 0.8, 0.2, 1.28)
    """
    p, q = np.array(prompt.probabilities), np.exp(log_q)
    seen = float((1 - (1 - np.minimum(q, 1)) ** n).sum())
    return ExactFigures(exact_kl(p, log_q), float(q.sum()), exact_tvd(p, q), seen, tuple(q.tolist()), expected_excess(at_n, q, p))


def entropy(counts: Sequence[int]) -> tuple[float, float]:
    """Plug-in entropy in nats, and with the bias correction (m - 1) / 2N of Miller and Madow (Miller 1955).

    >>> [round(value, 4) for value in entropy([6, 4])]
    [0.673, 0.723]
    """
    seen = np.array([count for count in counts if count > 0], dtype=float)
    if not len(seen):
        return math.nan, math.nan
    shares = seen / seen.sum()
    plugin = float((shares * -np.log(shares)).sum())
    return plugin, plugin + (len(seen) - 1) / (2 * float(seen.sum()))


def cells(prompt: Prompt, tallied: Tally, *, rejected: bool = True) -> tuple[Cell, ...]:
    """Each target among the k on-target samples: residual (c - kp) / sqrt(kp(1 - p)), exact binomial p-value, and whether it
    differs after Benjamini and Hochberg's (1995) control of false discoveries at 5 %. None differs unless the test of fit `rejected` the weights: otherwise marks contradict its verdict.
    """  # noqa: D205 (one sentence)
    p, counts, k = np.array(prompt.probabilities), np.array(tallied.counts), tallied.on_target
    if not k:  # nothing to test: thousands of prompts may have exact figures only
        return tuple(Cell(t, w, 0, 0.0, 0.0, 1.0, False) for t, w in zip(prompt.targets, prompt.probabilities, strict=True))
    spread = np.sqrt(k * p * (1 - p))
    impossible = (p <= TINY) & (counts > 0)
    residual = np.divide(counts - k * p, spread, out=np.where(impossible, np.inf, 0.0), where=(p > TINY) & (spread > 0))
    exact = np.clip(2 * np.minimum(at_most(counts, k, p), more_than(counts - 1, k, p)), 0, 1)
    differs = (false_discoveries(exact) <= SIGNIFICANCE) & rejected
    columns = zip(counts.tolist(), (k * p).tolist(), residual.tolist(), exact.tolist(), differs.tolist(), strict=True)
    return tuple(Cell(t, w, *rest) for t, w, rest in zip(prompt.targets, prompt.probabilities, columns, strict=True))
