"""Colours of reports in light and dark mode, and the look of all charts.

Okabe and Ito's colours, which colour-blind readers can distinguish. The page has them as CSS variables. "good", "near" and "bad" are
colours of text: their contrast with the paper is at least 4.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Palette = Mapping[str, str]

LIGHT: Palette = {
    "paper": "#fdfdfb", "raised": "#f4f5f2", "ink": "#20262b", "muted": "#626c75", "line": "#e2e4e0", "target": "#bcc1c4", "band": "#d9dcdd",
    "orange": "#d98e00", "blue": "#0072b2", "green": "#009e73", "purple": "#b8609a", "vermilion": "#d55e00", "sky": "#4aa3d9",
    "good": "#00704f", "near": "#8a5a00", "bad": "#b23a00",
}  # fmt: skip
DARK: Palette = {
    "paper": "#14171a", "raised": "#1c2125", "ink": "#e3e6e8", "muted": "#98a2aa", "line": "#2c3237", "target": "#5c656d", "band": "#363d43",
    "orange": "#e69f00", "blue": "#56b4e9", "green": "#2fbf95", "purple": "#d98cbb", "vermilion": "#f07f3c", "sky": "#9ad0f0",
    "good": "#45c797", "near": "#e3b04b", "bad": "#ff9162",
}  # fmt: skip

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"


def look(palette: Palette, *, background: str | None = None) -> dict[str, Any]:
    """Vega-Lite config: unobtrusive axes, a faint grid, no frames."""
    text = {
        "labelColor": palette["muted"],
        "titleColor": palette["muted"],
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    }
    return {
        "background": background,
        "font": _FONT,
        "padding": 2,
        "view": {"stroke": None},
        "axis": {**text, "gridColor": palette["line"], "domainColor": palette["line"], "tickColor": palette["line"],
                 "labelPadding": 5, "titlePadding": 8, "tickSize": 4, "labelLimit": 190},
        "legend": {**text, "labelColor": palette["ink"], "title": None, "orient": "top", "labelFontSize": 12, "symbolSize": 70,
                   "offset": 6, "columnPadding": 18, "labelLimit": 260,  "symbolStrokeWidth": 1.5},
        "bar": {"cornerRadiusEnd": 1.5},
        "mark": {"aria": False},
        "scale": {"bandPaddingInner": 0.22, "bandPaddingOuter": 0.12},
    }  # fmt: skip
