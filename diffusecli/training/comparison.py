"""How a probe of the loaded model compares a pass with rows: a 16-bit model in float32, because rounding hides differences."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

from diffusecli.models.probing import UNSUPPORTED
from diffusecli.models.unrounded import Unrounded, can_be_unrounded
from diffusecli.models.wide_output import NARROW
from diffusecli.system.memory import out_of_memory

T = TypeVar("T")


class Comparison(NamedTuple):
    """The number format in which a pass and rows compute, and what they may differ by."""

    inside: Callable[[], AbstractContextManager[Any]]
    gap: float  # of log-probabilities, nats
    slope: float  # of gradients, relative

    def measured(self, measure: Callable[[], T]) -> T:
        """The result of `measure` in this number format."""
        with self.inside():
            return measure()


_OWN = Comparison(nullcontext, 1e-3, 1e-3)
_WIDE = Comparison(Unrounded, 1e-3, 0.02)  # measured slopes: up to .011, because the loss rounds its gradient to 16 bits
_GROSS = Comparison(
    nullcontext, 1.0, 1.0
)  # only errors such as an overflow; measured: rounding of up to .3 nats for unlikely answers
_ROUNDED = Comparison(nullcontext, 0.2, 0.1)  # if a 16-bit model can only be compared with rounding


def compared(model: Any, by_rows: Callable[[], T]) -> tuple[list[Comparison], list[T]]:
    """How to compare this model, and the result of rows in each number format.

    Some layers do not compute in another number format than that of their weights, such as adapters of PEFT on the experts of a mixture.
    """
    if model.dtype not in NARROW:
        return [_OWN], [by_rows()]
    if can_be_unrounded(model):
        try:
            return [_WIDE, _GROSS], [_WIDE.measured(by_rows), by_rows()]
        except UNSUPPORTED as error:
            if out_of_memory(error):
                raise
    return [_ROUNDED], [by_rows()]
