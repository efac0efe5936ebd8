"""Code that the charts of a report share: scales of samplers, axes of targets, filled and hollow points.

Altair only; no statistics here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusecli.report.palette import Palette
from diffusecli.report.views import WEIGHT, Sampler

if TYPE_CHECKING:
    import altair as alt

LANE = 6  # pixels that a sampler takes in a row
_LONG = 12  # labels with more characters are rotated below bars


@dataclass(frozen=True)
class Chart:
    """A chart with its title, how to read it, and a description in words and numbers."""

    kind: str
    title: str
    reading: str
    description: str
    spec: Mapping[str, Any]
    legend: tuple[int, ...] = ()  # characters of each entry

    def columns(self, width: int) -> int:
        """Columns of the legend that fit beside the axis labels."""
        room, entries = width - 150, [6.4 * length + 34 for length in self.legend]
        return len(entries) if sum(entries) <= room else max(1, int(room // max(entries)))


@dataclass(frozen=True)
class Frame:
    """How to draw a chart: colours, width, samplers, vertical or horizontal bars."""

    palette: Palette
    width: int  # pixels
    names: tuple[Sampler, ...] = ()
    upright: bool = False

    def to(self, names: Iterable[Sampler], *, upright: bool = False) -> Frame:
        """The same settings for these samplers."""
        return Frame(self.palette, self.width, tuple(names), upright)

    @property
    def labels(self) -> list[str]:
        """The samplers' names."""
        return [sampler.label for sampler in self.names]

    def colours(self, *first: str) -> alt.Scale:
        """A colour for each sampler; grey for the entries in `first`."""
        import altair as alt

        own = [self.palette[sampler.colour] for sampler in self.names]
        return alt.Scale(domain=[*first, *self.labels], range=[*(self.palette["target"] for _ in first), *own])

    def shapes(self, *first: str) -> alt.Scale:
        """A shape for each sampler; squares for the entries in `first`."""
        import altair as alt

        own = [sampler.shape for sampler in self.names]
        return alt.Scale(domain=[*first, *self.labels], range=[*("square" for _ in first), *own])

    def along(self, field: str, domain: Sequence[str]) -> Any:
        """The axis of targets or prompts."""
        import altair as alt

        long = max(map(len, domain), default=0) > _LONG
        vertical: dict[str, Any] = (
            {"labelAngle": -45 if long else 0, "labelOverlap": "greedy", "labelSeparation": 4} if self.upright else {}
        )
        axis = alt.Axis(grid=False, ticks=False, domain=self.upright, **vertical)
        return (alt.X if self.upright else alt.Y)(
            f"{field}:N", title=None, sort=None, scale=alt.Scale(domain=list(domain)), axis=axis
        )

    def across(self, field: str, **kwargs: Any) -> Any:
        """The axis of figures."""
        import altair as alt

        return (alt.Y if self.upright else alt.X)(f"{field}:Q", **kwargs)

    def end(self, field: str) -> Any:
        """The end of a span along the axis of figures."""
        import altair as alt

        return (alt.Y2 if self.upright else alt.X2)(f"{field}:Q")

    def lane(self) -> Any:
        """The offset that places samplers side by side."""
        import altair as alt

        return (alt.XOffset if self.upright else alt.YOffset)("sampler:N", scale=alt.Scale(domain=self.labels, paddingOuter=0.3))

    def height(self, rows: int, upright: int = 250) -> int:
        """Pixels; with horizontal bars as many lanes as the rows need."""
        return upright if self.upright else rows * max(19, LANE * len(self.names) + 8)


@contextmanager
def unchecked() -> Iterator[None]:
    """Skip Altair's checks of the Vega-Lite schema, which take most of the time. Tests make charts with these checks."""
    from altair.utils.schemapi import debug_mode

    with debug_mode(False):
        yield


def points(base: Any, frame: Frame, *channels: Any, legend: bool = True, **encodings: Any) -> Any:
    """A shape per sampler, filled where the field `differs` is true."""
    import altair as alt

    first = (WEIGHT,) if legend else ()
    shown: dict[str, Any] = {} if legend else {"legend": None}
    colours, shapes = frame.colours(*first), frame.shapes(*first)
    looks = [
        alt.Stroke("sampler:N", scale=colours, **shown),
        alt.Fill("sampler:N", scale=colours, **shown),
        alt.Shape("sampler:N", scale=shapes, **shown),
    ]
    mark = base.mark_point(size=42, opacity=1, strokeWidth=1.5)
    return mark.encode(*channels, frame.lane(), *looks, fillOpacity=filled("differs"), **encodings)


def filled(field: str) -> Any:
    """Opaque where the field is true."""
    import altair as alt

    return alt.condition(f"datum.{field}", alt.value(1), alt.value(0))


def tips(**titles: tuple[str, str]) -> Any:
    """Tooltips: field = (title, format)."""
    import altair as alt

    forms: dict[str, dict[str, Any]] = {form: {"format": form} if form else {} for _, form in titles.values()}
    return [alt.Tooltip(f"{field}:{'Q' if form else 'N'}", title=title, **forms[form])
            for field, (title, form) in titles.items()]  # fmt: skip


def inline(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Data within the chart."""
    import altair as alt

    return alt.InlineData(values=[dict(row) for row in rows])


def finished(chart: Any, frame: Frame, height: int, legend: Sequence[str] = (), **about: str) -> Chart:
    """The specification, without the look and version, which the file adds."""
    from altair.utils import schemapi

    spec = chart.properties(width=frame.width, height=height).to_dict(validate=schemapi.DEBUG_MODE)
    bare = {key: value for key, value in spec.items() if key not in ("$schema", "config")}
    lengths = tuple(len(entry) for entry in (legend or (WEIGHT, *frame.labels)))
    return Chart(spec={**bare, "description": about["description"]}, legend=lengths, **about)
