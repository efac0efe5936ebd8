"""Scales of charts: values become percent of a plot's width or height, so that one drawing fits every screen."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FIRST, _LAST = 2.0, 97.0  # percent: room at both ends, so that no mark touches the frame
_ENOUGH = 5  # ticks of an axis
_HIGHEST = 308  # power of ten that is a number


@dataclass(frozen=True)
class Tick:
    """A value of an axis: its position in percent and its text."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis from `low` to `high`."""

    low: float
    high: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The position of a value in percent; a value outside the axis is at its end.

        >>> Scale(0, 2).at(1), Scale(0, 2).at(9), Scale(1, 100, logarithmic=True).at(10)
        (49.5, 97.0, 49.5)
        """
        low, high, value = (self._on(some) for some in (self.low, self.high, value))
        part = (
            (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
        )  # halves: a difference may be above the largest number
        return round(_FIRST + (_LAST - _FIRST) * min(1.0, max(0.0, part)), 2)

    def length(self, start: float, end: float) -> float:
        """The distance between two values in percent."""
        return round(max(0.0, self.at(end) - self.at(start)), 2)

    def beyond(self, value: float) -> bool:
        """Whether the value lies outside the axis."""
        return not self.low <= value <= self.high * (1 + 1e-9)

    def _on(self, value: float) -> float:
        return math.log(max(value, self.low)) if self.logarithmic else value

    def rounded(self) -> Scale:
        """The same axis between ticks: an axis of numbers begins and ends with a round one.

        >>> Scale(0, 11.7).rounded(), Scale(0.004, 8, logarithmic=True).rounded()
        (Scale(low=0, high=15.0, logarithmic=False), Scale(low=0.001, high=10.0, logarithmic=True))
        """
        if self.logarithmic:
            low, high = math.floor(math.log10(self.low) + 1e-9), math.ceil(math.log10(self.high) - 1e-9)
            return Scale(10.0**low, 10.0 ** min(max(high, low + 1), _HIGHEST), logarithmic=True)
        step = self._step()
        return Scale(self.low, step * math.ceil(self.high / step - 1e-9)) if step else self

    def ticks(self, form: str = "number") -> tuple[Tick, ...]:
        r"""Round values inside the axis: powers of ten if it is logarithmic.

        >>> [tick.label for tick in Scale(0, 0.17).ticks("share")]
        ['0\u202f%', '5\u202f%', '10\u202f%', '15\u202f%']
        >>> [tick.label for tick in Scale(0.004, 20, logarithmic=True).ticks()]
        ['0.01', '0.1', '1', '10']
        """
        values = self._powers() if self.logarithmic else self._steps()
        return tuple(Tick(self.at(value), _written(value, form)) for value in values)

    def _powers(self) -> list[float]:
        powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        every = math.ceil(len(powers) / (_ENOUGH + 1)) or 1
        return [10.0**power for power in powers[::every]]

    def _steps(self) -> list[float]:
        step = self._step()
        if not step:
            return [self.low]
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _step(self) -> float:
        reach = self.high - self.low
        if not 1e-300 < reach < 1e300:
            return 0.0
        unit = 10.0 ** math.floor(math.log10(reach / _ENOUGH))
        return next(unit * factor for factor in (1, 2, 5, 10) if reach / (unit * factor) <= _ENOUGH)


def _written(value: float, form: str) -> str:
    text = {"share": f"{100 * value:.6g}\u202f%", "difference": f"{value + 0.0:+.6g}" if value else "0"}.get(form, f"{value:,.6g}")
    return text.replace("-", "−").replace(",", "\u202f")
