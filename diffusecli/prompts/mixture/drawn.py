"""What a family of the mixture is: a function that draws parameters and returns their distribution, with the facts that questions state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from diffusecli.prompts.distributions import Distribution, merge_equal, rounded_shares
from diffusecli.prompts.facts import with_article

_SPOKEN = ("noun", "container", "kind", "percent", "wheel", "sides", "first", "second")  # facts that questions also state as "a …"
_Draw = Callable[[Random], Distribution]


@dataclass(frozen=True)
class DrawsFamily:
    """A family of the mixture. A distribution of `families.py` is asked for by that family's wordings, others by `questions/NAME.txt`."""

    name: str
    draw: _Draw
    share: float  # how much of the mixture, relative to the others
    held_out: bool  # a whole family that is never trained

    def __call__(self, rng: Random) -> Distribution:
        """A distribution with parameters drawn at random."""
        return self.draw(rng)


def draws(share: float = 1.0, *, held_out: bool = False) -> Callable[[_Draw], DrawsFamily]:
    """Make a function a family of the mixture; its name, with dashes, is the family's."""

    def made(draw: _Draw) -> DrawsFamily:
        return DrawsFamily(draw.__name__.replace("_", "-"), draw, share, held_out)

    return made


def weighted(outcomes: Sequence[str], weights: Sequence[float] | None, noun: str, /, **facts: str) -> Distribution:
    """Outcomes with weights, which are divided by their sum; equal outcomes are merged, equal weights left out.

    For some facts there is another with an article, such as `a_noun`.

    >>> weighted(["red", "blue"], [3, 1], "colour").weights
    (0.75, 0.25)
    """
    names, sums = merge_equal(zip(outcomes, weights or [1.0] * len(outcomes), strict=True))
    spoken = {f"a_{name}": with_article(text) for name, text in facts.items() if name in _SPOKEN}
    return Distribution(names, None if sums is None else rounded_shares(sums), "", noun, facts={**spoken, **facts})
