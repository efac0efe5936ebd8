"""What the study trains, samples and measures, piece by piece: its own experiments, and the tasks of published work (`literature.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks.study import fields, kept, literature, losses_plan, surveys, wordings
from benchmarks.study.groups import GROUPS
from benchmarks.study.stages import WHERE, Stage
from benchmarks.study.tasks import TASKS, Distribution, file_name

NUMBERS = ("prompts/numbers/rng-0.json", "prompts/numbers/rng-1.json")
MADE = WHERE / "prompts"
"""Prompts that the study writes for itself with `diffuse init-prompt`."""

SINGLES = {
    "binomial": "prompts/weighted/binomial-10-0.2.json",
    "dice": "prompts/weighted/dice-2d6.json",
    "weighted-names": "prompts/names/first-names-weighted.json",
    "survey": "prompts/surveys/political-views.json",
    "iq-scores": "prompts/weighted/iq-scores.json",
}
TOGETHER = ("prompts/weighted", "prompts/surveys", "prompts/names/first-names-weighted.json")

BINOMIALS: list[Distribution] = [("--binomial", n, p) for n, p in product(("5", "10", "20"), ("0.1", "0.3", "0.5", "0.7", "0.9"))]
OTHER_BINOMIALS: list[Distribution] = [
    ("--binomial", n, p)
    for n, p in [("10", "0.2"), ("10", "0.4"), ("10", "0.6"), ("10", "0.8"), ("15", "0.3"), ("15", "0.5"), ("8", "0.25"), ("12", "0.65")]
]  # fmt: skip
FAMILIES: list[Distribution] = [
    ("--uniform", "1", "10"), ("--uniform", "1", "20"), ("--uniform", "5", "15"),
    ("--binomial", "10", "0.3"), ("--binomial", "10", "0.7"), ("--binomial", "20", "0.5"),
    ("--poisson", "2"), ("--poisson", "6"), ("--poisson", "10"),
    ("--geometric", "0.3"), ("--geometric", "0.5"),
    ("--dice", "1d6"), ("--dice", "3d6"), ("--dice", "2d4"),
]  # fmt: skip
OTHER_PARAMETERS: list[Distribution] = [
    ("--uniform", "1", "15"),
    ("--binomial", "10", "0.5"),
    ("--poisson", "4"),
    ("--geometric", "0.4"),
    ("--dice", "2d6"),
]
OTHER_FAMILIES: list[Distribution] = [
    ("--zipf", "1", "20"), ("--benford",), ("--scipy", "nbinom(5, 0.5)"), ("--scipy", "hypergeom(20, 7, 12)"),
    ("--scipy", "norm(20, 4)", "--decimals", "0"),
]  # fmt: skip

_MANY = ("alg_config.warmup=0.1", "lora.r=16", "lora.alpha=16")
"""What configs/all.yaml found to suit many prompts at once."""


def prompt_file(distribution: Distribution) -> Path:
    """Where the study writes the prompt of a distribution."""
    return MADE / file_name(distribution)


def _paths(distributions: list[Distribution]) -> tuple[str, ...]:
    return tuple(str(prompt_file(one)) for one in distributions)


@dataclass(frozen=True)
class Experiment:
    """A training and what is measured of it."""

    piece: str
    name: str
    config: str
    measured: tuple[str, ...]
    settings: tuple[str, ...] = ()
    seeds: int = 1  # how many, where time allows
    n: int = 1000  # samples a prompt
    tokens: int = 16
    untuned: int = 0  # samples a prompt of the untuned model, with seed 0 only
    exact: bool = True
    needs: tuple[Distribution, ...] = field(default=())  # distributions whose prompts are written first

    def run(self, seed: int) -> Path:
        """The run directory."""
        return WHERE / self.piece / f"{self.name}-{seed}"

    def evaluation(self, seed: int) -> Path:
        """What `diffuse evaluate --json` said."""
        return WHERE / "evaluations" / self.piece / f"{self.name}-{seed}.json"

    def stages(self, seed: int) -> Iterator[Stage]:
        """Prompts, training, samples, figures."""
        run, name = self.run(seed), f"{self.piece}/{self.name}-{seed}"
        for one in self.needs:
            file = prompt_file(one)
            yield Stage(f"prompts/{file.stem}", ("diffusecli", "init-prompt", *one, "--force", "-o", str(file)), file)
        settings = [*self.settings, "generate=false", f"seed={seed}", f"output_dir={run}"]
        options = tuple(word for setting in settings for word in ("--set", setting))
        starts = tuple(Path(setting.partition("=")[2]) / "run.json" for setting in settings if setting.startswith("ckpt_dir="))
        trained = run / "run.json"
        reads = (*(prompt_file(one) for one in self.needs), *starts)
        yield Stage(f"{name}/train", ("diffusecli", "train", self.config, *options), trained, reads, fills_folder=True)
        prompts = tuple(word for prompt in self.measured for word in ("--prompt", prompt))
        modes = [("lora", self.n)] + ([("untuned", self.untuned)] if self.untuned and seed == 0 else [])
        for mode, n in modes:
            how = ("--mode", mode, "-n", str(n), "--max-new-tokens", str(self.tokens), "--seed", str(seed), "--format", "json")
            yield Stage(f"{name}/{mode}", ("diffusecli", "sample", str(run), *prompts, *how), run / f"gen.{mode}.json", (trained,))
        exact = ("--exact",) if self.exact else ()
        samples = tuple(run / f"gen.{mode}.json" for mode, _ in modes)
        command = ("diffusecli", "evaluate", str(run), *exact, "--json")
        yield Stage(f"{name}/evaluate", command, self.evaluation(seed), (trained, *samples), prints=True)


def _rng() -> Iterator[Experiment]:
    for name in ("1-10", "1-100", "both"):
        untuned = 1000 if name == "both" else 0
        yield Experiment("rng", name, f"configs/rng/{name}.yaml", NUMBERS, seeds=3, untuned=untuned)


def _groups() -> Iterator[Experiment]:
    everything = tuple(GROUPS.values())
    for group in GROUPS:
        yield Experiment(
            "groups", f"in-{group}", f"configs/leave-one-in/{group}.yaml", everything, ("alg_config.n_iters=12", "test_prompts=[]"),
            n=200, untuned=200 if group == "numbers" else 0,
        )  # fmt: skip
    for group in GROUPS:
        yield Experiment(
            "groups", f"out-{group}", f"configs/leave-one-out/{group}.yaml", everything,
            ("alg_config.n_iters=8", "test_prompts=[]", *_MANY), n=200,
        )  # fmt: skip


def _names() -> Iterator[Experiment]:
    for gamma in ("0.4", "0.2", "0.1", "0.05"):
        yield Experiment(
            "names", f"gamma-{gamma}", "configs/names.yaml", (GROUPS["names"],), (f"alg_config.gamma={gamma}",), seeds=3,
            untuned=1000 if gamma == "0.2" else 0,
        )  # fmt: skip
    yield Experiment("names", "to-the-end", "configs/names.yaml", (GROUPS["names"],), ("alg_config.early_stop=false",), seeds=3)


def _weighted() -> Iterator[Experiment]:
    for name, prompt in SINGLES.items():
        yield Experiment(
            "weighted", name, "configs/all.yaml", (prompt,),
            (f"train_prompts=[{prompt}]", "alg_config.n_iters=50", "alg_config.warmup=0", "lora.r=4", "lora.alpha=8"), seeds=3,
        )  # fmt: skip
    yield Experiment(
        "weighted", "together", "configs/all.yaml", TOGETHER, (f"train_prompts=[{','.join(TOGETHER)}]", "alg_config.n_iters=20"),
        seeds=3, untuned=200,
    )  # fmt: skip
    for name, trained, others in (
        ("binomials", BINOMIALS, OTHER_BINOMIALS),
        ("families", FAMILIES, [*OTHER_PARAMETERS, *OTHER_FAMILIES]),
    ):
        yield Experiment(
            "weighted", name, "configs/all.yaml", (*_paths(trained), *_paths(others)),
            (f"train_prompts=[{','.join(_paths(trained))}]", "alg_config.n_iters=12"), seeds=3, n=500,
            untuned=200 if name == "binomials" else 0, needs=(*trained, *others),
        )  # fmt: skip


def _people() -> Iterator[Experiment]:
    people = ("prompts/people/fictitious-people.json",)
    every = Experiment("people", "all", "configs/all.yaml", people, n=300, tokens=160, untuned=300, exact=False)
    yield every
    yield Experiment(
        "people", "people", "configs/fictitious-people.yaml", people, (f"ckpt_dir={every.run(0)}",), n=300, tokens=160, exact=False
    )


def _retention() -> Iterator[Experiment]:
    for name, config, more in (
        ("both", "configs/rng/both.yaml", ()),
        ("names", "configs/names.yaml", ("alg_config.early_stop=false",)),
        ("all", "configs/all.yaml", ()),
    ):
        measured = (*NUMBERS, GROUPS["names"])
        yield Experiment("retention", f"{name}-free", config, measured, (*more, "retain=off"), n=200)


def _ablations() -> Iterator[Experiment]:
    def one(name: str, *settings: str) -> Experiment:
        return Experiment("ablations", name, "configs/rng/both.yaml", NUMBERS, ("alg_config.n_iters=25", *settings))

    yield one("defaults")
    for rate in ("3.0e-4", "4.0e-3", "1.0e-2"):
        yield one(f"rate-{rate}", f"alg_config.learning_rate={rate}")
    for rank in (1, 16):
        yield one(f"rank-{rank}", f"lora.r={rank}", f"lora.alpha={2 * rank}")
    yield one("retain-0", "retain=off")
    yield one("retain-16", "retain.weight=16")
    yield one("constant", "alg_config.schedule=constant")
    yield one("early-stop", "alg_config.early_stop=true", "alg_config.gamma=0.05")


EXPERIMENTS: dict[str, list[Experiment]] = {
    "rng": list(_rng()),
    "weighted": list(_weighted()),
    "names": list(_names()),
    "ablations": list(_ablations()),
    "groups": list(_groups()),
    "people": list(_people()),
    "retention": list(_retention()),
}


def ability_stages() -> Iterator[tuple[str, Stage]]:
    """What is measured of other abilities: the untuned model and pairs of runs with and without retention."""
    runs = {"untuned": None, "both": WHERE / "rng/both-0", "names": WHERE / "names/to-the-end-0", "all": WHERE / "people/all-0"}
    free = {f"{name}-free": WHERE / f"retention/{name}-free-0" for name in ("both", "names", "all")}
    for name, run in {**runs, **free}.items():
        file = WHERE / "abilities" / f"{name}.json"
        asked = "--untuned" if run is None else str(run)
        reads = () if run is None else (run / "run.json",)
        yield name, Stage(f"abilities/{name}", ("benchmarks.study.abilities", asked), file, reads, prints=True)


ROWS = Stage("ablations/rows", ("benchmarks.study.rows",), WHERE / "rows.csv", prints=True)
"""Packed against one row per target: the same training twice."""


def _own(piece: str, seed: int) -> Iterator[Stage]:
    """The experiments of this study, and what some pieces measure beside them."""
    for experiment in EXPERIMENTS[piece]:
        if seed < experiment.seeds:
            yield from experiment.stages(seed)
    if seed == 0 and piece == "ablations":
        yield ROWS
    if seed == 0 and piece == "retention":
        yield from (stage for _, stage in ability_stages())


def _kept() -> Iterator[Stage]:
    yield from _trainings(path for stage in kept.stages() for path in stage.reads)
    yield from kept.stages()


def _once(stages: Callable[[], Iterable[Stage]]) -> OfSeed:
    return lambda seed: () if seed else stages()


OfSeed = Callable[[int], Iterable[Stage]]
PIECES: dict[str, OfSeed] = {
    **{piece: partial(_own, piece) for piece in EXPERIMENTS},
    **{task: _once(partial(literature.stages, task)) for task in TASKS},
    "losses": losses_plan.stages,
    **{piece: partial(wordings.stages, piece) for piece in wordings.SEEDS},
    fields.PIECE: _once(fields.stages),
    kept.PIECE: _once(_kept),
    surveys.PIECE: surveys.stages,
}
"""Piece -> its commands with a seed, none if the piece has fewer seeds."""


def stages_of(pieces: Iterable[str], seed: int) -> Iterator[Stage]:
    """All commands of the pieces with this seed."""
    for piece in pieces:
        yield from PIECES[piece](seed)


def _trainings(runs: Iterable[Path]) -> Iterator[Stage]:
    """The stages of other pieces that leave these files, after those whose files they read."""
    left_by = {stage.product: stage for stage in stages_of(["rng", "retention", "stated"], 0)}
    for path in runs:
        yield from _trainings(left_by[path].reads)
        yield left_by[path]
