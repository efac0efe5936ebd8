"""Columns as a data frame and as a table for notebooks. Escapes HTML and unprintable characters in texts of prompts and models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from diffusecli.system.errors import many, printable, shortened

if TYPE_CHECKING:
    from pandas import DataFrame

Columns = Mapping[str, Sequence[Any]]
"""Name -> a value per row. None if unknown."""

_MOST_ROWS = 60
_MOST_TEXT = 200  # characters of one cell
_LITERAL = "tex2jax_ignore mathjax_ignore"  # notebooks must not read `$…$` in an answer as a formula


def frame(columns: Columns) -> DataFrame:
    """The columns unchanged, nan for unknown values."""
    from pandas import DataFrame

    return DataFrame({name: [math.nan if value is None else value for value in values] for name, values in columns.items()})


def html_table(columns: Columns, caption: str = "") -> str:
    """The first rows, and the number of other rows.

    >>> html_table({"answer": ["<b>"], "share": [0.25]}).partition("<tbody>")[2]
    '<tr><td style="text-align:left;white-space:pre-wrap">&lt;b&gt;</td><td>0.25</td></tr></tbody></table>'
    """
    rows = list(zip(*columns.values(), strict=True))
    head = "".join(f"<th>{_escaped(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:_MOST_ROWS])
    above = f"<caption>{_escaped(caption)}</caption>" if caption else ""
    below = f"<p>and {many(len(rows) - _MOST_ROWS, 'more row')}</p>" if len(rows) > _MOST_ROWS else ""
    return f'<table class="{_LITERAL}">{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}'


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f'<td style="text-align:left;white-space:pre-wrap">{_escaped(value)}</td>'
    unknown = value is None or (isinstance(value, float) and math.isnan(value))
    return f"<td>{'–' if unknown else f'{value:.4g}' if isinstance(value, float) else value}</td>"


def _escaped(text: str) -> str:
    plain = printable(text)
    return escape(shortened(plain, _MOST_TEXT))
