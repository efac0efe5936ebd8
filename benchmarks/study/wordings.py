"""Groups never trained on, again, with prompts in many wordings: the commands, and the lines of their tables.

"All but GROUP" is trained on the other five groups, in twelve wordings per prompt. Then the model's own probabilities of the answers to all 26 prompts are
measured: to their own requests, and to requests with questions that no prompt is trained on. The control has one wording, and all else the same.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.study.groups import GROUPS
from benchmarks.study.literature import MIXTURE, run_of, training
from benchmarks.study.stages import WHERE, Journal, Stage, is_done
from benchmarks.study.worded_groups import MEASURED, OTHER, OWN, TRAINED, names
from diffusecli.evaluation.distance import expected_excess
from diffusecli.evaluation.metrics import exact_figures
from diffusecli.prompts.divergence import exact_tvd
from diffusecli.prompts.prompt import Prompt

PIECE, CONTROL = "wordings", "one-wording"
MANY, ONE, BEFORE, UNTUNED = "12 wordings", "1 wording", "1 wording, the table above", "untuned"
SEEDS = {PIECE: 3, CONTROL: 1}
FOLDER = WHERE / PIECE
PROMPTS = FOLDER / "prompts"
DRAWS = 200  # answers per prompt, as in the tables of groups
SETTINGS = (
    "alg_config.n_iters=5", "alg_config.prompts_per_step=1", "alg_config.targets_per_step=16", "alg_config.wordings_per_step=2",
)  # fmt: skip
"""90 to 125 steps of 1.9 seconds with one thread. A step trains two wordings of a prompt, on 16 drawn targets each."""

WRITTEN = Stage(f"{PIECE}/prompts", ("benchmarks.study.worded_groups", str(PROMPTS)), FOLDER / "written", prints=True, minutes=0.2)

Line = dict[str, Any]
Old = Mapping[tuple[str, str], Mapping[str, str]]
"""Held-out group and prompt -> the line of `results/groups.csv`."""


@dataclass(frozen=True)
class Held:
    """A training on all groups but one."""

    group: str
    model: str  # MANY or ONE
    seed: int

    @property
    def run(self) -> Path:
        """The run directory."""
        return FOLDER / f"{'out' if self.model == MANY else 'one'}-{self.group}-{self.seed}"

    @property
    def training(self) -> Stage:
        """The command that trains it."""
        folder = PROMPTS / (TRAINED if self.model == MANY else OWN)
        prompts = ",".join(str(folder / group) for group in GROUPS if group != self.group)
        settings = (f"train_prompts=[{prompts}]", *SETTINGS, "generate=false", f"seed={self.seed}", f"output_dir={self.run}")
        options = tuple(word for setting in settings for word in ("--set", setting))
        return Stage(
            f"{PIECE}/{self.run.name}/train", ("diffusecli", "train", "configs/all.yaml", *options), self.run / "run.json",
            (WRITTEN.product,), fills_folder=True, minutes=4.5,
        )  # fmt: skip


def stages(piece: str, seed: int) -> Iterator[Stage]:
    """All commands with this seed. The model that is trained on the mixture is measured, too."""
    if seed >= SEEDS[piece]:
        return
    yield WRITTEN
    for held in _trainings(piece, seed):
        yield held.training
        yield measured(held.run)
    if piece == PIECE and seed == 0:
        yield from training(MIXTURE)
        yield measured(run_of(MIXTURE))


def measured(run: Path) -> Stage:
    """Exact figures of all 26 prompts, of the run and of the untuned model."""
    command = ("diffusecli", "evaluate", str(run), "--exact", "--prompts", str(PROMPTS / MEASURED), "--json")
    file = WHERE / "evaluations" / PIECE / f"{run.name}.json"
    reads = (run / "run.json", WRITTEN.product)
    return Stage(f"{PIECE}/{run.name}/evaluate", command, file, reads, prints=True, minutes=2.5)


def _trainings(piece: str, seed: int) -> Iterator[Held]:
    for group in GROUPS:
        yield Held(group, MANY if piece == PIECE else ONE, seed)


def lines(journal: Journal, groups: Path) -> Iterator[Line]:
    """A line per model, held-out group, seed, measured group and kind of request; the untuned model's figures come from the first run.

    `groups` is the CSV file of the tables of groups, whose models were trained with one wording.
    """
    old = _old(groups)
    found = list(_of_runs(journal, old))
    yield from [*found, *_of_old(old)] if found else ()


def _of_runs(journal: Journal, old: Old) -> Iterator[Line]:
    of_untuned = True
    for piece, seeds in SEEDS.items():
        for held in (one for seed in range(seeds) for one in _trainings(piece, seed)):
            if is_done(measured(held.run), journal):
                document = json.loads(measured(held.run).product.read_text(encoding="utf-8"))
                if of_untuned:
                    yield from _of_run(UNTUNED, "", 0, document, "untuned", old)
                    of_untuned = False
                yield from _of_run(held.model, held.group, held.seed, document, "lora", old)
    if is_done(measured(run_of(MIXTURE)), journal):
        document = json.loads(measured(run_of(MIXTURE)).product.read_text(encoding="utf-8"))
        yield from _of_run(MIXTURE, "", 0, document, "lora", old)


def _of_run(model: str, held: str, seed: int, document: Mapping[str, Any], mode: str, old: Old) -> Iterator[Line]:
    rows = [row for row in document["rows"] if row["mode"] == mode and row["exact"] is not None]
    for group in GROUPS:
        for kind in (OWN, OTHER):
            some = [row for row in rows if Path(row["prompt"]).is_relative_to(PROMPTS / kind / group)]
            if some:
                of_prompts = [figures_of(row, _as_many(old, held or group, names(row["prompt"]))) for row in some]
                yield {
                    "model": model, "held_out": held, "seed": seed, "group": group, "requests": kind.removeprefix(f"{MEASURED}/"),
                    **means(of_prompts),
                }  # fmt: skip


def figures_of(row: Mapping[str, Any], as_many: int) -> Line:
    """Of one prompt's exact probabilities: what 200 answers show on average, and how even those on target are.

    `tvd_among` is the TVD of the distribution of the answers on target. `excess_among` is the excess TVD of `as_many` of them.
    """
    p, q = (np.array([target["weight"] for target in row["targets"]]), np.array(row["exact"]["q"]))
    prompt = Prompt(request="-", targets=tuple(target["target"] for target in row["targets"]), weights=tuple(p))
    found, perfect = (exact_figures(prompt, np.log(some), DRAWS, DRAWS) for some in (q, p))
    among = q / q.sum()
    return {
        "kl": found.kl, "on_target": found.on_target, "tvd_among": exact_tvd(p, among),
        "excess_among": expected_excess(as_many, among, p) if as_many else None, "excess_tvd": found.excess_tvd,
        "coverage": found.seen_expected / perfect.seen_expected,
    }  # fmt: skip


def means(of_prompts: Iterable[Mapping[str, float | None]]) -> Line:
    """Means over prompts, each over those that have the figure.

    >>> means([{"kl": 1.0, "excess_among": None}, {"kl": 2.0, "excess_among": 0.5}])
    {'kl': 1.5, 'excess_among': 0.5}
    """
    every = list(of_prompts)
    known = {name: [value for one in every if (value := one[name]) is not None] for name in every[0]}
    return {name: mean(values) if values else None for name, values in known.items()}


def _old(groups: Path) -> dict[tuple[str, str], dict[str, str]]:
    found = csv.DictReader(groups.read_text(encoding="utf-8").splitlines()) if groups.is_file() else ()
    return {
        (line["run"].removeprefix("out-"), Path(line["prompt"]).stem): line
        for line in found
        if line["run"].startswith("out-") and line["mode"] == "lora" and line["n"]
    }


def _as_many(old: Old, held: str, prompt: str) -> int:
    """How many of the answers in the tables of groups are on target."""
    line = old.get((held, prompt))
    return round(float(line["n"]) * float(line["valid"])) if line else DRAWS


def _of_old(old: Old) -> Iterator[Line]:
    """The figures of the tables of groups, as means over prompts. Those on 200 answers are sampled."""
    for held in GROUPS:
        for group in GROUPS:
            some = [line for (out, _), line in old.items() if out == held and _is_in(group, line["prompt"])]
            if some:
                yield {
                    "model": BEFORE, "held_out": held, "seed": 0, "group": group, "requests": OWN.removeprefix(f"{MEASURED}/"),
                    **means(map(_figures_of_old, some)),
                }  # fmt: skip


def _is_in(group: str, prompt: str) -> bool:
    return prompt == GROUPS[group] or prompt.startswith(f"{GROUPS[group]}/")


def _figures_of_old(line: Mapping[str, str]) -> dict[str, float | None]:
    among = float(line["on_target_tvd"]) - float(line["on_target_floor"]) if line["on_target_tvd"] else None
    return {
        "kl": float(line["exact_kl"]), "on_target": float(line["exact_on_target"]), "tvd_among": None, "excess_among": among,
        "excess_tvd": float(line["excess_tvd"]), "coverage": float(line["seen"]) / float(line["seen_expected"]),
    }  # fmt: skip
