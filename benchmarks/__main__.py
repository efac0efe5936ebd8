"""`python -m benchmarks [NAME …]`: run the named benchmarks, or all. Each prints both sides of its comparison.

`python -m benchmarks gpu [OPTION …]` has options, see `gpu.py`.
"""

import sys
import warnings
from collections.abc import Callable

from benchmarks import (
    convergence,
    evaluation,
    families,
    gpu,
    large,
    packing,
    peers,
    rate,
    recipe,
    rounding,
    sampling,
    size,
    startup,
    wordings,
)

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
    "rounding": rounding.main,
    "gpu": gpu.main,
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
    if sys.argv[1:2] == ["gpu"]:
        warnings.simplefilter("ignore")
        gpu.main(sys.argv[2:])
    else:
        run(sys.argv[1:])
