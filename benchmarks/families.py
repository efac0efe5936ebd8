"""Does training on a few families of distributions transfer to others? 600 prompts of 1, 5, 24 and all families of a mixture.

Measured on prompts that no run is trained on: new parameters of the family in every run, of five families, of all, and families in no run.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import read_config
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.init_mixture import write_mixture
from diffusecli.verbs.train import train

CONFIG = "configs/mixture.yaml"
DRAWN = 60_000  # prompts of the mixture, so that one family has enough of them
TRAINED = 600  # prompts of each run
FIVE = ("uniform", "binomial", "dice", "choices", "bernoulli")
MEASURED = {"uniform": 48, "five": 50, "every": 51, "families": 60}  # prompts of each set


def main() -> None:
    """Print one row per number of families."""
    print("| families | " + " | ".join(f"{name}: median TVD / excess TVD / KL" for name in MEASURED) + " | drift |")
    print("|---" * (len(MEASURED) + 2) + "|")
    with tempfile.TemporaryDirectory() as folder:
        mixture = Path(folder, "mix")
        write_mixture(DRAWN, mixture, seed=0, force=False)
        for families in chosen(mixture, Path(folder)):
            print(f"| {families} | {' | '.join(measured(Path(folder), str(families)))} |", flush=True)


def chosen(mixture: Path, into: Path) -> list[int]:
    """Copy prompts into `into/train-N` for N families (equal numbers) and test prompts into `into/held`; returns the numbers N."""
    rng, every = random.Random(1), _names(mixture / "train")
    others = [name for name in every if name not in FIVE]
    rng.shuffle(others)
    of_runs: Sequence[Sequence[str]] = (["uniform"], FIVE, [*FIVE, *others[:19]], every)
    runs = {len(some): some for some in of_runs}
    for number, some in runs.items():
        _copy(rng, mixture / "train", some, TRAINED, into / f"train-{number}", by_family=True)
    parameters, unseen = mixture / "held-out" / "parameters", mixture / "held-out" / "families"
    sets: Mapping[str, tuple[Path, Sequence[str]]] = {
        "uniform": (parameters, ["uniform"]), "five": (parameters, FIVE),
        "every": (parameters, [name for name in every if (parameters / name).is_dir()]), "families": (unseen, _names(unseen)),
    }  # fmt: skip
    for name, (split, some) in sets.items():
        _copy(rng, split, some, MEASURED[name], into / "held" / name, by_family=False)
    return list(runs)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _copy(rng: random.Random, source: Path, families: Sequence[str], count: int, into: Path, *, by_family: bool) -> None:
    """Choose a total number of prompts, evenly over families (to within one)."""
    for place, family in enumerate(families):
        files = sorted((source / family).iterdir())
        rng.shuffle(files)
        for file in files[: count // len(families) + (place < count % len(families))]:
            to = into / family / file.name if by_family else into / f"{family}-{file.name}"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)


def measured(folder: Path, families: str) -> list[str]:
    """Train on N families with the config of the mixture, and measure each set."""
    settings = read_config(Path(CONFIG)).model_dump()
    settings |= {
        "train_prompts": [str(folder / f"train-{families}")],
        "output_dir": str(folder / f"run-{families}"),
        "made_by": None,
    }
    trained = train(Config.model_validate(settings), report=lambda _: None, notice=lambda _: None)
    found = evaluate([trained.run.path], Question(exact=True, prompts=(folder / "held",)))
    tuned = [row for row in found.rows if row.mode == "lora"]
    drift = next(iter(found.drift.values()))
    return [*(_medians([row for row in tuned if Path(row.prompt.alias).parent.name == name]) for name in MEASURED), f"{drift:.3f}"]


def _medians(rows: Sequence[Evaluated]) -> str:
    exact = [row.exact for row in rows if row.exact is not None]
    return " / ".join(f"{median(getattr(one, name) for one in exact):.2f}" for name in ("tvd", "excess_tvd", "kl"))


if __name__ == "__main__":
    main()
