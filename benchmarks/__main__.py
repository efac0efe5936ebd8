"""`python -m benchmarks [NAME …]`: run the named measurements, or all. Each prints both sides of what it compares.

`--examples N` says how many files `junk` makes.
"""

import argparse
import functools
import sys
import warnings
from collections.abc import Callable

from benchmarks import convergence, evaluation, junk, monsters, packing, rate, recipe, sampling, size, startup

BENCHMARKS: dict[str, Callable[[], None]] = {
    "startup": startup.main,
    "packing": packing.main,
    "rate": rate.main,
    "size": size.main,
    "convergence": convergence.main,
    "recipe": recipe.main,
    "sampling": sampling.main,
    "evaluation": evaluation.main,
    "monsters": monsters.main,
    "junk": junk.main,
}


def run(words: list[str]) -> None:
    """Run in the order given; an unknown name ends with the list of known ones."""
    options = argparse.ArgumentParser(prog="python -m benchmarks")
    options.add_argument("names", nargs="*")
    options.add_argument("--examples", type=int, default=junk.EXAMPLES)
    asked = options.parse_args(words)
    names, examples = asked.names, asked.examples
    warnings.simplefilter("ignore")
    if unknown := set(names) - set(BENCHMARKS):
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}: known are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        print(f"\n## {name}\n")
        functools.partial(junk.main, examples)() if name == "junk" else BENCHMARKS[name]()


if __name__ == "__main__":
    run(sys.argv[1:])
