"""`python -m benchmarks.study [PIECE …] [--seeds N] [--jobs N] [--plan] [--tables]`: run the study, or what is left of it, and write its tables.

From the repository's folder. Interrupt it at any time; the same command goes on. Pieces: rng, weighted, names, ablations, groups,
people, retention (which wants rng, names and people first); choices, bernoulli, laws, stated: tasks of published work;
losses: the same training with other losses (--seeds 3); wordings, one-wording: groups never trained on, in many wordings;
fields: people with fields; kept: abilities on thousands of questions; surveys: groups of a survey never trained on.
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.study import page, pictures, stages
from benchmarks.study.collect import collect
from benchmarks.study.plan import PIECES, stages_of
from diffusecli.system.errors import InputError


def main() -> None:
    """Seed by seed, so that every piece has its first figures before any has its second."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=", ".join(PIECES))
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, at most 3 (default 1)")
    parser.add_argument(
        "--jobs", type=int, default=cores, help=f"commands at a time, each on one thread (default: one per core, {cores} here)"
    )
    parser.add_argument("--tables", action="store_true", help="write the tables of what is done, and stop")
    parser.add_argument("--plan", action="store_true", help="print the commands, what is done and what it took, and stop")
    asked = parser.parse_args()
    if unknown := set(asked.pieces) - set(PIECES):
        parser.error(f"unknown piece {', '.join(sorted(unknown))}: known are {', '.join(PIECES)}")
    pieces = asked.pieces or PIECES
    plan = list(dict.fromkeys(stage for seed in range(asked.seeds) for stage in stages_of(pieces, seed)))
    if asked.plan:
        journal = stages.read_journal()
        for stage in plan:
            done, seconds = stages.is_done(stage, journal), stages.seconds_of([stage], journal)
            expected = f"{stage.minutes:5.1f} min expected" if stage.minutes and not done else ""
            print("done" if done else "    ", f"{seconds:7.1f} s  {expected:18}", stage.told)
        left = sum(stage.minutes for stage in plan if not stages.is_done(stage, journal))
        print(
            f"{len(plan)} commands, {stages.seconds_of(plan, journal) / 60:.0f} minutes so far, {left:.0f} more expected on one thread"
        )
        return
    if not asked.tables:
        try:
            stages.run(plan, max(1, asked.jobs))
        except InputError as error:
            sys.exit(f"{parser.prog}: {error}")
    for path in [*collect(), *pictures.draw()]:
        print(path)
    page.write()


if __name__ == "__main__":
    main()
