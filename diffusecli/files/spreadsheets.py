"""Cells that no spreadsheet runs as a formula, and the columns of a CSV file of samples."""

from __future__ import annotations

import re

COLUMNS = ["prompt", "text", "count"]
"""Columns of a table of samples."""


_FORMULA = re.compile(r"'*(?:[=+@\t\r\n＝＋＠－]|-(?!\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\Z))", re.ASCII)
"""What spreadsheets may run as a formula, after any apostrophes. Not a negative number."""


def as_cell(text: str) -> str:
    """The text as a cell that no spreadsheet runs as a formula: adds a leading apostrophe if needed.

    Texts that already start with apostrophes and such a character get one more, so that `from_cell` restores every text.

    >>> as_cell("=1+1"), as_cell("'=1+1"), as_cell("-5.2e3"), as_cell("-A1"), as_cell("it's")
    ("'=1+1", "''=1+1", '-5.2e3', "'-A1", "it's")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The inverse of `as_cell`.

    >>> from_cell("'=1+1"), from_cell("''=1+1"), from_cell("-5"), from_cell("'tis")
    ('=1+1', "'=1+1", '-5', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
