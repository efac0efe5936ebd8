"""Tasks of published work: the commands that measure the untuned model, prompting, and tuned models on them, and the lines of their tables.

Each task has its prompts in `results/study/NAME/prompts/`. Exact figures of the untuned model come first: they need neither samples nor a training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.divergences import of_counts, of_probabilities
from benchmarks.study.stages import WHERE, Journal, Stage, is_done
from benchmarks.study.tasks import FIFTHS, PARAMETERS, TRAINED

MIXTURE, EIGHTY = "mixture", "eighty"
DRAWS = {"choices": 100, "bernoulli": 100, "laws": 1000, "stated": 500}
"""Answers per prompt, as in the papers."""

ASKED = 100  # answers per prompt by methods of prompting, which take longer

EXPECTED = {"choices": 0.5, "bernoulli": 1.0, "laws": 0.5, "stated": 3.0}
"""Minutes of exact figures of one model with one thread: half of what they took while four times as many processes as cores were busy. Sampling a tuned
model is assumed to take as long."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Sampling:
    """Answers of the untuned model: to the plain question, or by a method of prompting."""

    ask: str  # the method; "" is the plain question
    n: int
    tokens: int
    part: str = ""  # the folder of prompts, all by default
    minutes: float = 0.0

    @property
    def name(self) -> str:
        """In names of files and stages."""
        return f"ask-{self.ask}" if self.ask else "plain"


SAMPLINGS: dict[str, tuple[Sampling, ...]] = {
    "choices": (
        Sampling("", 100, 16, minutes=1),
        Sampling("direct", ASKED, 34, minutes=2),
        Sampling("rejection", ASKED, 34, minutes=6),
        Sampling("verbalized", ASKED, 200, minutes=7),
        Sampling("string-seed", ASKED, 200, minutes=13),
    ),
    "bernoulli": (
        Sampling("", 100, 8, minutes=8),
        Sampling("direct", ASKED, 34, FIFTHS, minutes=8),
        Sampling("rejection", ASKED, 34, FIFTHS, minutes=15),
    ),
    "laws": (Sampling("", 200, 16, minutes=4), Sampling("direct", ASKED, 34, minutes=6)),
    "stated": (Sampling("direct", ASKED, 34, PARAMETERS, minutes=6),),
}
"""Minutes are estimates for one thread: 100 answers to one prompt took 7 s (16 tokens) and 22 s (`direct`) on a busy machine; the other methods in
proportion to the table of docs/benchmarks.md, Prompting."""


def run_of(model: str) -> Path:
    """The run directory of a tuned model."""
    return WHERE / model / f"{model}-0"


def prompts_of(task: str) -> Path:
    """The folder of a task's prompts."""
    return WHERE / task / "prompts"


def models_of(task: str) -> tuple[str, ...]:
    """The tuned models that a task measures."""
    return (EIGHTY, MIXTURE) if task == "stated" else (MIXTURE,)


GENERATOR = Stage("generator", ("benchmarks.study.generator",), WHERE / "generator.csv", prints=True, minutes=2)


def stages(task: str) -> Iterator[Stage]:
    """All commands of a task: the cheap ones first."""
    yield GENERATOR
    yield _written(task)
    yield exact_of(task)
    for sampling in SAMPLINGS[task]:
        yield from _of_untuned(task, sampling)
    for model in models_of(task):
        yield from training(model)
        yield from _of_tuned(task, model)


def _written(task: str) -> Stage:
    """The prompts of a task."""
    command = ("benchmarks.study.tasks", task, str(WHERE / task))
    return Stage(f"{task}/prompts", command, WHERE / task / "written", prints=True, minutes=0.2)


def exact_of(task: str) -> Stage:
    """Exact figures of the untuned model."""
    command = ("diffusecli", "evaluate", str(WHERE / task / "untuned"), "--exact", "--prompts", str(prompts_of(task)), "--json")
    return Stage(f"{task}/untuned/exact", command, WHERE / task / "exact.json", (_written(task).product,), prints=True, minutes=2)


def _of_untuned(task: str, sampling: Sampling) -> Iterator[Stage]:
    """Samples of the untuned model and their figures."""
    file, name = WHERE / task / f"{sampling.name}.json", f"{task}/untuned/{sampling.name}"
    ask = ("--ask", sampling.ask) if sampling.ask else ()
    how = ("--mode", "untuned", *ask, "-n", str(sampling.n), "--max-new-tokens", str(sampling.tokens), "--seed", "0")
    command = ("diffusecli", "sample", str(WHERE / task / "untuned"), "--prompt", str(prompts_of(task) / sampling.part), *how)
    yield Stage(name, (*command, "-o", str(file)), file, (_written(task).product,), minutes=sampling.minutes)
    yield _evaluated(task, f"untuned-{sampling.name}", (str(file),), (file,), 0.3)


def _evaluated(task: str, name: str, command: tuple[str, ...], reads: tuple[Path, ...], minutes: float) -> Stage:
    """What `diffuse evaluate` prints."""
    file, whole = WHERE / "evaluations" / task / f"{name}.json", ("diffusecli", "evaluate", *command, "--json")
    return Stage(f"{task}/{name}/evaluate", whole, file, reads, prints=True, minutes=minutes)


def training(model: str) -> Iterator[Stage]:
    """The training of a model: 1500 and 400 steps of two seconds with two threads (docs/benchmarks.md, A mixture)."""
    run, prompts = run_of(model), WHERE / MIXTURE / "prompts"
    if model == MIXTURE:
        command = ("diffusecli", "init-prompt", "--mixture", "6000", "--seed", "0", "--force", "-o", str(prompts))
        written = Stage("mixture/prompts", command, prompts / "README.md", minutes=0.5)
        trained, iterations, minutes = prompts / "train", 1, 51
    else:
        written = _written("stated")
        trained, iterations, minutes = prompts_of("stated") / TRAINED, 20, 14
    yield written
    settings = (f"train_prompts=[{trained}]", f"alg_config.n_iters={iterations}", "generate=false", "seed=0", f"output_dir={run}")
    options = tuple(word for setting in settings for word in ("--set", setting))
    yield Stage(
        f"{model}/train", ("diffusecli", "train", "configs/mixture.yaml", *options), run / "run.json", (written.product,),
        fills_folder=True, minutes=minutes,
    )  # fmt: skip


def _of_tuned(task: str, model: str) -> Iterator[Stage]:
    """Samples of a tuned model, and their figures beside the exact ones."""
    run, file = run_of(model), WHERE / task / f"{model}.json"
    prompts = str(prompts_of(task))
    how = ("--prompt", prompts, "-n", str(DRAWS[task]), "--max-new-tokens", "16", "--seed", "0", "-o", str(file))
    trained = (run / "run.json", _written(task).product)
    yield Stage(f"{task}/{model}/lora", ("diffusecli", "sample", str(run), *how), file, trained, minutes=EXPECTED[task])
    exact = (str(run), str(file), "--exact", "--prompts", prompts)
    yield _evaluated(task, model, exact, (*trained, file), 2 * EXPECTED[task])  # of the untuned model, too


def lines(task: str, journal: Journal) -> Iterator[Line]:
    """A line per model, kind of figures and prompt, of all that is done."""
    yield from _lines(task, "untuned", exact_of(task), journal)
    for sampling in SAMPLINGS[task]:
        *_, stage = _of_untuned(task, sampling)
        yield from _lines(task, f"untuned, {sampling.ask}" if sampling.ask else "untuned", stage, journal)
    for model in models_of(task):
        *_, stage = _of_tuned(task, model)
        yield from _lines(task, model, stage, journal)


def _lines(task: str, model: str, stage: Stage, journal: Journal) -> Iterator[Line]:
    if not is_done(stage, journal):
        return
    document = json.loads(stage.product.read_text(encoding="utf-8"))
    tuned = model in models_of(task)
    drift = document["retention_kl"].get(str(run_of(model))) if tuned else 0.0
    for row in document["rows"]:
        if not tuned or (row["mode"] == "lora" and row["n"]):  # the run's own rows have the same exact figures, and no samples
            for line in figures_of(task, model, row):
                yield {**line, "drift": drift}


def figures_of(task: str, model: str, row: dict[str, Any]) -> Iterator[Line]:
    """The exact and the sampled figures of one row of `evaluate --json`, where it has them."""
    name = str(Path(row["prompt"]).relative_to(prompts_of(task)).with_suffix(""))
    about = {"model": model, "prompt": name}
    p = np.array([target["weight"] for target in row["targets"]])
    if row["exact"] is not None:
        yield {**about, "kind": "exact", **of_probabilities(p, np.array(row["exact"]["q"]), DRAWS[task])}
    if row["n"]:
        counts = np.array([target["count"] for target in row["targets"]])
        yield {**about, "kind": "sampled", **of_counts(p, counts, row["n"]), "p_value": row["figures"]["p_value"]}
