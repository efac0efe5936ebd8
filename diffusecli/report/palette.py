"""Colours of reports in light and dark mode.

Okabe and Ito's colours, which colour-blind readers can distinguish. The page has them as CSS variables. "good", "near" and "bad" are
colours of text: their contrast with the paper is at least 4.5. That of "target", the bars, is at least 3.
"""

from __future__ import annotations

from collections.abc import Mapping

Palette = Mapping[str, str]

LIGHT: Palette = {
    "paper": "#fdfdfb", "raised": "#f4f5f2", "ink": "#20262b", "muted": "#626c75", "line": "#e2e4e0", "target": "#8a9298",
    "orange": "#d98e00", "blue": "#0072b2", "green": "#009e73", "purple": "#b8609a", "vermilion": "#d55e00", "sky": "#4aa3d9",
    "good": "#00704f", "near": "#8a5a00", "bad": "#b23a00",
}  # fmt: skip
DARK: Palette = {
    "paper": "#14171a", "raised": "#1c2125", "ink": "#e3e6e8", "muted": "#98a2aa", "line": "#2c3237", "target": "#68717a",
    "orange": "#e69f00", "blue": "#56b4e9", "green": "#2fbf95", "purple": "#d98cbb", "vermilion": "#f07f3c", "sky": "#9ad0f0",
    "good": "#45c797", "near": "#e3b04b", "bad": "#ff9162",
}  # fmt: skip
