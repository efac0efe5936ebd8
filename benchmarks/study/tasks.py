"""`python -m benchmarks.study.tasks NAME FOLDER`: write the prompts of a published task, as `diffuse init-prompt` writes them.

The tasks are rebuilt from what could be read of their papers, in our own words. Where a paper's options or parameters could not be read, they are
chosen by the rules below. `docs/study.md` says which.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from diffusecli.files.writing import write_text
from diffusecli.prompts.catalogue import make_distribution
from diffusecli.prompts.distributions import Distribution as Law
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.request_wording import Wording, prompt_from

Distribution = tuple[str, ...]
"""A family and its parameters, as `diffuse init-prompt` takes them."""

MODEL = "smollm2-135m-instruct"


def file_name(distribution: Distribution) -> str:
    """The name of a distribution's prompt file.

    >>> file_name(("--scipy", "norm(20, 4)", "--decimals", "0"))
    'scipy-norm-20-4-decimals-0.json'
    """
    words = "".join(c if c.isalnum() or c == "." else " " for c in " ".join(distribution)).split()
    return f"{'-'.join(words)}.json"


def _grid(template: str, parameters: str) -> list[Distribution]:
    """One distribution per word of `parameters`, whose values are separated by commas.

    >>> _grid("--uniform {} {}", "1,6 3,9")
    [('--uniform', '1', '6'), ('--uniform', '3', '9')]
    """
    return [tuple(template.format(*values.split(",")).split()) for values in parameters.split()]


CHOICES: dict[str, Distribution] = {
    "two": ("--choices", "chalk,flint"),
    "biased-two": ("--choices", "slate=0.3,shale=0.7"),
    "three": ("--choices", "granite,basalt,gneiss"),
    "biased-three": ("--choices", "flint=0.45,pumice=0.35,sandstone=0.2"),
    "biased-nine": (
        "--choices",
        "granite=0.3,basalt=0.2,gneiss=0.15,slate=0.1,shale=0.08,chalk=0.06,flint=0.05,pumice=0.04,sandstone=0.02",
    ),
}
"""The five kinds of choices of string seed of thought (arXiv 2510.21150). The mixture never trains these words, nor their unequal shares."""

FIFTHS, OTHERS = "fifths", "others"
BERNOULLI: dict[str, Distribution] = {
    f"{OTHERS if percent % 5 else FIFTHS}/{percent:03}": ("--bernoulli", f"{percent / 100:g}") for percent in range(101)
}
"""The sweep of verbalized rejection sampling (arXiv 2506.09998). Every fifth parameter is in a folder of its own, for methods that take long."""

LAWS: dict[str, Distribution] = {
    file_name(law).removesuffix(".json"): law
    for law in (
        ("--uniform", "1", "30"), ("--bernoulli", "0.3"), ("--binomial", "12", "0.4"), ("--poisson", "5"), ("--geometric", "0.35"),
        ("--scipy", "nbinom(4, 0.5)"), ("--scipy", "norm(50, 4)", "--decimals", "0"), ("--scipy", "expon(0, 4)", "--decimals", "0"),
        ("--scipy", "gamma(3, 0, 2)", "--decimals", "0"), ("--scipy", "beta(2, 5)", "--decimals", "2"),
        ("--scipy", "lognorm(0.5, 0, 6)", "--decimals", "0"), ("--scipy", "t(5, 0, 3)", "--decimals", "0"),
        ("--scipy", "chi2(4)", "--decimals", "0"), ("--scipy", "laplace(0, 2)", "--decimals", "0"),
        ("--scipy", "weibull_min(1.5, 0, 8)", "--decimals", "0"),
    )
}  # fmt: skip
"""Fifteen common laws, in the manner of "Bad dice players" (arXiv 2601.05414). Continuous ones are rounded."""

TRAINED, PARAMETERS, FAMILIES = "trained", "parameters", "families"

_TRAINED_FAMILIES = (
    ("--uniform {} {}", "1,6 1,12 3,9 0,9 10,40 5,24"),
    ("--bernoulli {}", "0.1 0.25 0.5 0.6 0.9 0.35"),
    ("--binomial {} {}", "5,0.5 8,0.3 10,0.6 15,0.2 20,0.4 12,0.5"),
    ("--poisson {}", "1 2 4 6 9 5"),
    ("--geometric {}", "0.2 0.3 0.5 0.6 0.8 0.4"),
    ("--dice {}", "1d4 1d8 2d6 3d4 1d20 2d8"),
    ("--zipf {} {}", "1,6 1,12 0.5,10 2,8 1.5,15 1,9"),
    ("--scipy nbinom({},{})", "2,0.5 3,0.4 5,0.6 4,0.3 8,0.7 3,0.6"),
    ("--scipy hypergeom({},{},{})", "20,7,12 30,10,6 15,5,5 40,8,10 52,13,5 25,10,8"),
    ("--scipy norm({},{}) --decimals 0", "10,2 20,3 50,5 0,4 100,6 30,4"),
    ("--scipy expon(0,{}) --decimals 0", "1 2 4 6 8 3"),
    ("--scipy beta({},{}) --decimals 1", "2,2 2,5 5,1 0.5,0.5 3,3 4,2"),
    ("--scipy triang({},{},{}) --decimals 0", "0.5,0,10 0.2,0,20 0.8,5,10 0.5,10,20 0.1,0,15 0.4,0,12"),
    ("--choices heads={},tails={}", "3,7 1,1 1,4 9,1 2,3 3,1"),
    ("--choices red={},green={},blue={}", "1,1,1 5,3,2 6,3,1 8,1,1 2,2,1 4,3,3"),
    ("--choices north={},east={},south={},west={}", "1,1,1,1 4,3,2,1 7,1,1,1 5,5,2,8 1,2,3,4 3,3,2,2"),
)
"""Sixteen families: five parameters each that are trained, and one that is not."""

_UNSEEN_FAMILIES = (
    ("--scipy gamma({},0,{}) --decimals 0", "2,1 2,3 3,2 5,1 1.5,4"),
    ("--scipy lognorm({},0,{}) --decimals 0", "0.3,10 0.5,6 0.5,12 0.8,4 1,2"),
    ("--scipy weibull_min({},0,{}) --decimals 0", "1.5,6 1.5,12 2,8 3,10 0.9,4"),
    ("--scipy laplace({},{}) --decimals 0", "0,2 10,1 20,3 50,4 30,5"),
    ("--scipy logistic({},{}) --decimals 0", "0,1 10,2 25,3 50,2 15,4"),
    ("--scipy t({},0,{}) --decimals 0", "3,2 4,3 5,2 8,4 12,3"),
    ("--scipy chi2({}) --decimals 0", "3 4 5 6 10"),
    ("--scipy gumbel_r({},{}) --decimals 0", "5,1 5,3 10,2 20,4 0,2"),
    ("--scipy rayleigh(0,{}) --decimals 0", "2 3 5 7 10"),
    ("--scipy maxwell(0,{}) --decimals 0", "2 3 4 6 8"),
    ("--scipy powerlaw({},0,{}) --decimals 0", "2,10 3,10 0.5,20 2,25 4,30"),
    ("--scipy arcsine(0,{}) --decimals 0", "8 10 15 20 30"),
    ("--scipy dlaplace({})", "0.3 0.5 0.8 1 1.5"),
    ("--scipy skellam({},{})", "1,1 3,1 2,5 6,4 4,4"),
    ("--scipy betabinom({},{},{})", "6,2,2 10,1,3 10,0.5,0.5 15,3,2 20,2,5"),
    ("--scipy nhypergeom({},{},{})", "20,7,4 20,10,3 30,12,5 15,5,6 40,15,8"),
    ("--scipy logser({})", "0.3 0.5 0.6 0.75 0.85"),
    ("--scipy bradford({},0,{}) --decimals 0", "1,10 3,10 3,20 8,15 20,30"),
    ("--scipy boltzmann({},{})", "0.2,10 0.5,8 0.3,15 0.1,20 1,6"),
    ("--scipy semicircular({},{}) --decimals 0", "5,5 10,4 10,8 20,6 50,12"),
)
"""Twenty other families, five parameters each."""


def _stated() -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for families, split, others in ((_TRAINED_FAMILIES, TRAINED, PARAMETERS), (_UNSEEN_FAMILIES, FAMILIES, FAMILIES)):
        for template, parameters in families:
            *first, last = _grid(template, parameters)
            found |= {f"{split}/{file_name(one)}".removesuffix(".json"): one for one in first}
            found |= {f"{others}/{file_name(last)}".removesuffix(".json"): last}
    return found


STATED = _stated()
"""80 targets to train on, 16 unseen parameters and 100 targets of unseen families, as in "Sample what you say" (arXiv 2609.34929)."""

TASKS: Mapping[str, Mapping[str, Distribution]] = {"choices": CHOICES, "bernoulli": BERNOULLI, "laws": LAWS, "stated": STATED}

_TAIL = 1e-3  # of infinite laws; the targets beyond it would hardly occur in 1000 answers


def law_of(distribution: Distribution) -> Law:
    """The outcomes and weights of a distribution. Infinite tails are cut at a thousandth of the mass."""
    family, rest = distribution[0].removeprefix("--"), list(distribution[1:])
    decimals = int(rest.pop(rest.index("--decimals") + 1)) if "--decimals" in rest else None
    values = [word for word in rest if word != "--decimals"]
    types = {"bernoulli": (float,), "binomial": (int, float), "poisson": (float,), "geometric": (float,), "zipf": (float, int)}
    typed = [kind(value) for kind, value in zip(types.get(family, (str,) * len(values)), values, strict=True)]
    modifiers = {"decimals": decimals, "tail": _TAIL if family in ("poisson", "geometric", "scipy") else None}
    return make_distribution(family, typed[0] if len(typed) == 1 else typed, modifiers)


def prompt_of(distribution: Distribution) -> Prompt:
    """Its prompt: the request of `diffuse init-prompt`, answers in curly braces."""
    return prompt_from(law_of(distribution), Wording())


def write(name: str, folder: Path) -> None:
    """Write the prompts of a task, and the config of the untuned model that `evaluate --exact` needs, into a new folder."""
    shutil.rmtree(folder / "prompts", ignore_errors=True)
    for path, distribution in TASKS[name].items():
        write_text(folder / "prompts" / f"{path}.json", prompt_of(distribution).to_json())
    untuned = folder / "untuned"
    text = f"model: {MODEL}\ntrain_prompts: [{folder / 'prompts'}]\ntest_prompts: []\noutput_dir: {untuned}\n"
    write_text(untuned / "config.yaml", text)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
    print(sys.argv[2])
