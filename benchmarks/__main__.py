"""`python -m benchmarks [NAME …]`: run the named benchmarks, or all. Each prints both sides of its comparison."""

import sys
import warnings
from collections.abc import Callable

from benchmarks import convergence, evaluation, families, large, packing, peers, rate, recipe, sampling, size, startup, wordings

BENCHMARKS: dict[str, Callable[[], None]] = {
    "startup": startup.main,
    "packing": packing.main,
    "rate": rate.main,
    "size": size.main,
    "convergence": convergence.main,
    "recipe": recipe.main,
    "sampling": sampling.main,
    "peers": peers.main,
    "evaluation": evaluation.main,
    "wordings": wordings.main,
    "families": families.main,
    "large": large.main,
}


def run(names: list[str]) -> None:
    """Run benchmarks in the given order; an unknown name exits with the list of known ones."""
    warnings.simplefilter("ignore")
    if unknown := set(names) - set(BENCHMARKS):
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}: known are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        print(f"\n## {name}\n")
        BENCHMARKS[name]()


if __name__ == "__main__":
    run(sys.argv[1:])
