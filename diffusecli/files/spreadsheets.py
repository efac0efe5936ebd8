"""Cells that no spreadsheet takes for a formula, and the columns of the CSV that answers are kept in."""

from __future__ import annotations

import re

COLUMNS = ["prompt", "text", "count"]
"""Of a table of samples."""


_FORMULA = re.compile(r"'*(?:[=+@\t\r\n＝＋＠－]|-(?!\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\Z))", re.ASCII)
"""What spreadsheets may compute, after any apostrophes; a negative number is none."""


def as_cell(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula: with an apostrophe in front where one might.

    Texts that already begin with apostrophes and then such a sign get one more, so that `from_cell` gives every text back.

    >>> as_cell("=1+1"), as_cell("'=1+1"), as_cell("-5.2e3"), as_cell("-A1"), as_cell("it's")
    ("'=1+1", "''=1+1", '-5.2e3', "'-A1", "it's")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text that `as_cell` made the cell of.

    >>> from_cell("'=1+1"), from_cell("''=1+1"), from_cell("-5"), from_cell("'tis")
    ('=1+1', "'=1+1", '-5', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
