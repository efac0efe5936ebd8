"""`python -m benchmarks.study.generator`: what a pseudo-random generator scores in the tasks of published work, as CSV.

It draws from the targets themselves (PCG64 of NumPy), as often as a model is asked. Mean, and 2.5 and 97.5 % quantiles of many repeats.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from statistics import mean

import numpy as np

from benchmarks.study.divergences import jensen_shannon
from benchmarks.study.literature import DRAWS
from benchmarks.study.tasks import BERNOULLI, CHOICES, LAWS, law_of
from diffusecli.evaluation.fit import SIGNIFICANCE, goodness_of_fit

REPEATS = 10_000
TESTED = 200  # repeats of the fifteen tests, which take longer

Scored = tuple[str, str, int, list[float]]


def scored() -> Iterator[Scored]:
    """Task, what is scored, draws per prompt, and the score of each repeat."""
    rng = np.random.default_rng(0)
    for name, distribution in CHOICES.items():
        p, n = _weights(distribution), DRAWS["choices"]
        yield "choices", name, n, list(map(float, jensen_shannon(p, rng.multinomial(n, p, size=REPEATS) / n)))
    n = DRAWS["bernoulli"]
    chances = np.arange(len(BERNOULLI)) / 100
    drawn = rng.binomial(n, chances, size=(REPEATS, len(chances))) / n
    yield "bernoulli", "sum", n, list(map(float, np.abs(drawn - chances).sum(1)))
    n, passed = DRAWS["laws"], np.zeros(TESTED)
    for distribution in LAWS.values():
        p = _weights(distribution)
        for repeat, counts in enumerate(rng.multinomial(n, p, size=TESTED)):
            passed[repeat] += goodness_of_fit(counts, tuple(p), 0).p_value >= SIGNIFICANCE
    yield "laws", "passed", n, list(map(float, passed))


def _weights(distribution: tuple[str, ...]) -> np.ndarray:
    law = law_of(distribution)
    p = np.array(law.weights or [1.0] * len(law.outcomes))
    return np.asarray(p / p.sum())


def main() -> None:
    """Print a line of CSV per score."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["task", "score", "draws", "repeats", "mean", "low", "high"])
    for task, name, draws, scores in scored():
        low, high = np.quantile(scores, (0.025, 0.975))
        writer.writerow([task, name, draws, len(scores), *(f"{value:.6g}" for value in (mean(scores), low, high))])


if __name__ == "__main__":
    main()
