"""The piece `losses`: the same training with five losses, for the same time. Which prompts, which losses, which commands.

The prompts are those of the task `stated` (`tasks.py`), split anew into 24 trained families and six held-out ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.study.stages import WHERE, Stage
from benchmarks.study.tasks import FAMILIES, PARAMETERS, STATED, TRAINED, Distribution

SEEDS = 3
SECONDS = 240.0
"""Training time of a run, in CPU seconds of one thread. Measuring is not counted."""
MEASURED = 6
"""Times at which a run is measured, log-spaced, besides the start."""


@dataclass(frozen=True)
class Way:
    """What a step sees of each prompt's target distribution."""

    label: str
    draws: int = 0  # sampled targets per prompt and step; 0: the whole tree
    soft: bool = False  # whether sampled paths have the exact conditional distribution at each node
    seeds: int = SEEDS


TREE, HARD = "tree", "hard"
WAYS = {
    TREE: Way("whole tree"),
    "path": Way("one path, soft targets", 1, soft=True),
    "path-8": Way("eight paths, soft targets", 8, soft=True, seeds=1),
    HARD: Way("one sample, plain", 1),
    "hard-8": Way("eight samples, plain", 8, seeds=1),
}

SETS = {TRAINED: "trained settings", PARAMETERS: "unseen settings", FAMILIES: "held-out families"}


EACH = 3
"""Trained settings of each family."""


def _split() -> tuple[list[Distribution], dict[str, list[Distribution]]]:
    """The trained settings, and the measured ones by set."""
    stated = {split: [one for name, one in STATED.items() if name.startswith(f"{split}/")] for split in SETS}
    eight, six = stated[FAMILIES][:40], stated[FAMILIES][40:70]
    settings = [*stated[TRAINED], *eight]  # five of each family
    trained = [one for place, one in enumerate(settings) if place % 5 < EACH]
    unseen = [*stated[PARAMETERS], *eight[4::5]]
    return trained, {TRAINED: trained[:: 2 * EACH], PARAMETERS: unseen[::2], FAMILIES: six[::5]}


TRAINING, MEASURING = _split()
"""72 settings of 24 families to train on. Measured: one trained and one other setting of every second family, and one of each of six others."""


def stage(way: str, seed: int) -> Stage:
    """One training and its curve."""
    command = ("benchmarks.study.losses", way, str(seed), "--seconds", f"{SECONDS:g}")
    return Stage(f"losses/{way}-{seed}", command, WHERE / "losses" / f"{way}-{seed}.json", prints=True, minutes=5.2)


def stages(seed: int) -> Iterator[Stage]:
    """All trainings with this seed."""
    yield from (stage(way, seed) for way, told in WAYS.items() if seed < told.seeds)
