"""The piece `losses`: its lines, its tables and its picture, from the curves that its trainings printed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import mean
from typing import Any

from benchmarks.study.losses_plan import HARD, SEEDS, SETS, TREE, WAYS, stage
from benchmarks.study.spread import spread
from benchmarks.study.stages import Journal, is_done
from benchmarks.study.tasks import TRAINED
from diffusecli.report.curves import Training
from diffusecli.report.line_charts import LineChart, of_training

Line = dict[str, str]
Lines = Callable[[str], list[Line]]
Table = Iterator[Sequence[str]]

Curves = dict[str, dict[str, list[Line]]]
"""Seed -> set of prompts -> points."""

CPU, TOKENS = "cpu_seconds", "tokens"


def lines(journal: Journal) -> Iterator[dict[str, Any]]:
    """A line per training, time and set of prompts, of all that is done."""
    for seed in range(SEEDS):
        for way, told in WAYS.items():
            one = stage(way, seed)
            if seed < told.seeds and is_done(one, journal):
                for point in json.loads(one.product.read_text(encoding="utf-8"))["curve"]:
                    yield {"way": way, "seed": seed, **point}


def reached(curve: Sequence[Line], goal: float, cost: str = CPU) -> float | None:
    """What a training cost until its KL was at most `goal` and stayed so; None if it ended above.

    Between two measurements the logarithm of the KL is taken as linear.

    >>> curve = [{"cpu_seconds": x, "kl": kl} for x, kl in (("0", "4"), ("10", "1"), ("20", "0.25"))]
    >>> reached(curve, 2), reached(curve, 1), reached(curve, 0.5), reached(curve, 0.1)
    (5.0, 10.0, 15.0, None)
    >>> reached([*curve, {"cpu_seconds": "30", "kl": "1"}, {"cpu_seconds": "40", "kl": "0.5"}], 0.5)  # lower before, but not for good
    40.0
    >>> reached(curve, 5)  # from the start
    0.0
    """
    if float(curve[-1]["kl"]) > goal:
        return None
    for before, after in reversed(list(pairwise(curve))):
        high, low = float(before["kl"]), float(after["kl"])
        if low <= goal < high:
            share = math.log(high / goal) / math.log(high / low)
            return float(before[cost]) + share * (float(after[cost]) - float(before[cost]))
    return float(curve[0][cost])


def table(read: Lines) -> Table:
    """The figures at the start and at the end: means over seeds, with their range."""
    found = read("losses")
    of_ways = {way: list(_curves(found, way).values()) for way in WAYS}
    if not found:
        return
    yield (
        "loss",
        "steps",
        "tokens fed",
        *(f"{name}: {figure}" for name in SETS.values() for figure in ("KL, nats", "W1, % of range")),
    )
    start = next(curves[0] for curves in of_ways.values() if curves)  # a new adapter changes nothing, so all start alike
    yield "before training", "0", "0", *_figures([start], 0)
    for way, curves in of_ways.items():
        if curves:
            yield (
                WAYS[way].label,
                *(spread([float(one[TRAINED][-1][name]) for one in curves], 0) for name in ("steps", TOKENS)),
                *_figures(curves, -1),
            )


def sooner(read: Lines) -> Table:
    """How much sooner each loss reaches the KL that plain samples have at the end."""
    found = read("losses")
    yield from _compared("loss", [(WAYS[way].label, _curves(found, way), _curves(found, HARD)) for way in WAYS if way != HARD])


def tree_sooner(read: Lines) -> Table:
    """How much sooner the whole tree reaches the KL that each other loss has at the end."""
    found = read("losses")
    yield from _compared(
        "the KL at the end of", [(WAYS[way].label, _curves(found, TREE), _curves(found, way)) for way in WAYS if way != TREE]
    )


def _compared(head: str, pairs: Sequence[tuple[str, Curves, Curves]]) -> Table:
    """A row per pair of losses: by seed, the first is measured by the KL that the second has at the end."""
    rows = [(label, [(own[seed], goals[seed]) for seed in goals if seed in own]) for label, own, goals in pairs]
    if any(both for _, both in rows):
        yield head, *(f"{name}: {figure}" for name in SETS.values() for figure in ("CPU seconds", "sooner", "fewer tokens"))
    for label, both in rows:
        if both:
            yield label, *(cell for name in SETS for cell in _sooner([(own[name], goal[name]) for own, goal in both]))


def chart(found: Sequence[Line]) -> LineChart:
    """Exact KL of trained settings against seconds of training; means over seeds."""
    points = [
        {"series": told.label, "x": mean(float(one[CPU]) for one in some), "y": mean(float(one["kl"]) for one in some)}
        for way, told in WAYS.items()
        for some in zip(*(curve[TRAINED] for curve in _curves(found, way).values()), strict=False)
    ]
    (drawn,) = of_training(Training(points, [], [], [], "", ended=False))
    ends = "; ".join(f"{curve.name} ends at {curve.value} nats" for curve in drawn.curves)
    return replace(
        drawn, title="Exact KL by loss", across="CPU seconds of training, one thread",
        reading="Trained settings, in nats, on a logarithmic scale.", description=f"Exact KL by seconds of training. {ends}.",
    )  # fmt: skip


def _curves(found: Sequence[Line], way: str) -> Curves:
    """The points of a loss, in order."""
    own = [line for line in found if line["way"] == way]
    return {
        seed: {name: [line for line in own if (line["seed"], line["set"]) == (seed, name)] for name in SETS}
        for seed in dict.fromkeys(line["seed"] for line in own)
    }


def _figures(curves: Sequence[dict[str, list[Line]]], place: int) -> Iterator[str]:
    """KL and Wasserstein distance by set, at one place of several curves."""
    for name in SETS:
        points = [curve[name][place] for curve in curves]
        yield spread([float(point["kl"]) for point in points], 3)
        yield spread([100 * float(point["wasserstein"]) for point in points if point["wasserstein"]], 1)


def _sooner(pairs: Sequence[tuple[list[Line], list[Line]]]) -> Iterator[str]:
    """Seconds of one training until it has the KL that another has at the end; how many times sooner that is, and with fewer tokens."""
    both = [[(reached(own, float(goal[-1]["kl"]), cost), float(goal[-1][cost])) for own, goal in pairs] for cost in (CPU, TOKENS)]
    missing = sum(until is None for until, _ in both[0])
    if missing:
        yield from (f"not reached ({missing} of {len(pairs)} seeds)", "-", "-")
        return
    yield spread([until for until, _ in both[0] if until is not None], 0)
    for some in both:
        yield spread([end / until for until, end in some if until], 1, "×")
