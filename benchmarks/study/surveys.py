"""Groups of a survey that were never trained: a model per group, trained on all other groups, and its errors beside those of simple predictions.

`survey_prompts.py` has the groups and questions, `survey_baselines.py` the predictions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.study.stages import WHERE, Journal, Stage, is_done
from benchmarks.study.survey_baselines import by_groups, predictions, shares, tvd
from benchmarks.study.survey_prompts import QUESTIONS, Group, read_counts
from diffusecli.evaluation.perfect import mean_tvd

PIECE = "surveys"
SEEDS = 3
VISITS = 16
"""Of every prompt in a training: 96 steps of seven prompts. After five visits a trial still answered most questions alike (mean KL .086 nats)."""

_FOLDER = WHERE / PIECE
_PROMPTS = _FOLDER / "prompts"
_WRITTEN = Stage(
    "surveys/prompts", ("benchmarks.study.survey_prompts", str(_FOLDER)), _FOLDER / "written", prints=True, minutes=0.1
)

Line = dict[str, Any]
Read = Mapping[str, str]


def stages(seed: int) -> Iterator[Stage]:
    """The prompts, the untuned model, then a training and its figures per group."""
    if seed >= SEEDS:
        return
    yield _WRITTEN
    yield _untuned()
    for group in read_counts():
        yield from _fold(group, seed)


def _untuned() -> Stage:
    command = ("benchmarks.study.survey_measure", str(_PROMPTS))
    return Stage("surveys/untuned", command, _FOLDER / "untuned.json", (_WRITTEN.product,), prints=True, minutes=0.5)


def run_of(group: Group, seed: int) -> Path:
    """The run that never saw a group."""
    return _FOLDER / f"without-{group.name}-{seed}"


def _fold(group: Group, seed: int) -> Iterator[Stage]:
    """The training on all other groups, and the probabilities of this group's answers."""
    run, own = run_of(group, seed), _PROMPTS / group.name
    others = ",".join(str(_PROMPTS / other.name) for other in read_counts() if other != group)
    settings = (
        f"train_prompts=[{others}]", f"alg_config.n_iters={VISITS}", "alg_config.prompts_per_step=7", "retain.answers_per_step=1",
        "generate=false", f"seed={seed}", f"output_dir={run}",
    )  # fmt: skip
    options = tuple(word for setting in settings for word in ("--set", setting))
    name = f"surveys/without-{group.name}-{seed}"
    trained = run / "run.json"
    command = ("diffusecli", "train", "configs/mixture.yaml", *options)
    yield Stage(f"{name}/train", command, trained, (_WRITTEN.product,), fills_folder=True, minutes=5)
    measured = ("benchmarks.study.survey_measure", str(own), str(run))
    file = _FOLDER / "measured" / f"{group.name}-{seed}.json"
    yield Stage(f"{name}/measure", measured, file, (trained, _WRITTEN.product), prints=True, minutes=0.2)


def lines(journal: Journal) -> Iterator[Line]:
    """A line per seed, group and question of all that is done: the TVD of every prediction from the group's shares."""
    if not is_done(_untuned(), journal):
        return
    untuned = json.loads(_untuned().product.read_text(encoding="utf-8"))
    for seed in range(SEEDS):
        for group in read_counts():
            train, measured = _fold(group, seed)
            if is_done(train, journal) and is_done(measured, journal):
                manifest = json.loads(train.product.read_text(encoding="utf-8"))
                about = {"drift": manifest["retention_kl"], "train_seconds": manifest["training_seconds"]}
                tuned = json.loads(measured.product.read_text(encoding="utf-8"))
                for question in QUESTIONS:
                    name = f"{group.name}/{question}"
                    models = {"untuned": np.array(untuned[name]), "tuned": np.array(tuned[name])}
                    yield {
                        "seed": seed,
                        **line_of(group, question, models),
                        **about,
                        "trained_kl": mean(manifest["exact_kl"].values()),
                    }


def line_of(group: Group, question: str, models: Mapping[str, np.ndarray]) -> Line:
    """What is measured of one group and question, from the models' probabilities of its answers."""
    counts = read_counts()
    people = counts[group][question]
    p = shares(people)
    valid = {f"{name}_valid": q / q.sum() for name, q in models.items()}
    errors = {name: tvd(p, q) for name, q in {**models, **valid, **predictions(counts, group, question)}.items()}
    return {
        "group": group.name, "question": question, "people": int(people.sum()), "floor": mean_tvd(int(people.sum()), p),
        **{f"tvd_{name}": error for name, error in errors.items()},
        **{f"on_target_{name}": float(q.sum()) for name, q in models.items()},
    }  # fmt: skip


_NAMES = {
    "untuned": "untuned model, exact",
    "untuned_valid": "untuned model, valid answers only",
    "uniform": "equal shares",
    "mean": "all people of the trained groups",
    "nearest": "the trained group with most attributes in common",
    "alike": "the trained group most alike on the other questions",
    "effects": "main effects of party, sex and age (least squares)",
    "tuned": "**tuned model, exact**",
}


def table(read: Callable[[str], Sequence[Read]]) -> Iterator[Sequence[str]]:
    """A row per prediction: its errors over all groups that are done, and how much closer the tuned model is."""
    found = read(PIECE)
    if not found:
        return
    groups = list(dict.fromkeys(line["group"] for line in found))

    def values(column: str) -> np.ndarray:
        """[groups, questions], the mean over seeds."""
        return np.array([
            [mean(float(line[column]) for line in found if (line["group"], line["question"]) == (group, question)) for question in QUESTIONS]
            for group in groups
        ])  # fmt: skip

    floor, tuned = values("floor"), values("tvd_tuned")
    seeds = len({line["seed"] for line in found})
    trained_kl, drift = (mean(float(line[column]) for line in found) for column in ("trained_kl", "drift"))
    yield (
        f"prediction ({len(groups)} groups × {len(QUESTIONS)} questions, {seeds} {'seed' if seeds == 1 else 'seeds'}; "
        f"tuned models: mean KL on trained prompts {trained_kl:.3f} nats, drift {drift:.3f})",
        "on target, %",
        "TVD",
        "excess TVD",
        "TVD minus that of the tuned model",
        "the tuned model is closer, %",
    )
    for name, described in _NAMES.items():
        errors = values(f"tvd_{name}")
        on_target = f"{100 * values(f'on_target_{name}').mean():.1f}" if name in ("untuned", "tuned") else "100"
        versus = ("-", "-") if name == "tuned" else (_interval(errors - tuned, "+"), f"{100 * (tuned < errors).mean():.0f}")
        yield described, on_target, _interval(errors), _interval(errors - floor), *versus
    yield "sampling floor: the group's own people, drawn again", "100", _interval(floor), "0", "-", "-"


def _interval(values: np.ndarray, sign: str = "") -> str:
    """Mean and 95 % interval; of fewer than three groups the mean alone."""
    middle, low, high = by_groups(values)
    told = f"{middle:{sign}.3f}"
    return f"{told} [{low:{sign}.3f} to {high:{sign}.3f}]" if len(values) > 2 else told
