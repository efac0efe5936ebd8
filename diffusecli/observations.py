"""Tables and lists of what was observed become distributions: one per file, or one per group of rows.

Knows pandas and files; knows nothing of prompts.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusecli.distributions import Distribution
from diffusecli.documents import TooLargeError, require_size
from diffusecli.errors import InputError, did_you_mean, many
from diffusecli.places import look_again
from diffusecli.prompt import canonical
from diffusecli.samples import COLUMNS, from_cell

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES = 500_000_000  # of a table
_MOST_LINE = 1_000_000  # signs

REQUEST = "Pick one at random."


@dataclass(frozen=True)
class Reading:
    """Which part of a file counts, and how."""

    column: str | None = None
    weight_column: str | None = None
    count: bool = False
    top: int | None = None
    min_count: float = 0.0
    alpha: float = 0.0
    group_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises `InputError` for options that make no sense, alone or together."""
        if not math.isfinite(self.alpha) or not math.isfinite(self.min_count):
            raise InputError("--alpha and --min-count must be finite numbers")
        if (self.alpha or self.min_count or self.top) and not self.count and self.weight_column is None:
            raise InputError("--alpha, --min-count and --top need weights: add --count or --weight-column")
        if len(set(self.group_by)) < len(self.group_by):
            raise InputError(f"--group-by {','.join(self.group_by)}: names a column twice")


def distributions_in(path: Path, reading: Reading) -> dict[tuple[str, ...], Distribution]:
    """The distribution of each group of rows; without `group_by` a single one under the key ().

    Each group keeps the order of the file, or the heaviest first once rows are counted or cut. Raises
    `InputError` when the file, a column or a weight is not what it must be.
    """
    table = read_table(path)
    column = _column(table, reading.column, path, "--column")
    for name in reading.group_by:
        _column(table, name, path, "--group-by")
    empty = table[column].str.strip() == ""
    weights = _weights(table, path, reading)
    table = table.assign(**{"\0target": table[column].map(canonical), "\0weight": weights})[~empty]
    if table.empty:
        raise InputError(f"{path}: no targets in it, check the file and --column")
    groups = table.groupby(list(reading.group_by), sort=False) if reading.group_by else [((), table)]
    notice = f"empty rows left out: {int(empty.sum())}" if empty.any() else ""
    return {tuple(map(str, key)): _distribution(rows, path, reading, notice) for key, rows in groups}


def _distribution(rows: pd.DataFrame, path: Path, reading: Reading, notice: str) -> Distribution:
    counted = reading.count or reading.weight_column is not None
    sums = rows.groupby("\0target", sort=False)["\0weight"].agg(["sum", "size"])
    if not counted and (sums["size"] > 1).any():
        twice = sums.index[sums["size"] > 1][0]
        raise InputError(
            f"{path}: the target {twice!r} is there {sums['size'].loc[twice]} times, add --count to count observations"
        )
    totals = sums["sum"].sort_values(ascending=False, kind="stable") if counted else sums["sum"]
    kept = totals[totals >= reading.min_count].head(reading.top) if reading.top else totals[totals >= reading.min_count]
    if kept.empty:
        raise InputError(f"{path}: nothing is left, lower --min-count {reading.min_count:g}")
    smoothed = kept + reading.alpha
    if counted and not smoothed.sum() > 0:
        raise InputError(f"{path}: all weights are zero, give at least one target a positive weight")
    if len(kept) < len(totals):
        share = kept.sum() / totals.sum()
        cut = f"kept {len(kept)} of {many(len(totals), 'target')}, {share:.1%} of the weight"
        notice = f"{notice}, {cut}" if notice else cut
    weights = tuple(float(f"{share:.9g}") for share in smoothed / smoothed.sum()) if counted else None
    return Distribution(tuple(kept.index), weights, REQUEST, "answer", notice)


def _weights(table: pd.DataFrame, path: Path, reading: Reading) -> pd.Series:
    import pandas as pd

    if reading.weight_column is None:
        return pd.Series(1.0, index=table.index)
    name = _column(table, reading.weight_column, path, "--weight-column")
    numbers = pd.to_numeric(table[name].str.strip(), errors="coerce")
    bad = table.index[~(numbers >= 0) | numbers.isin([float("inf")])]
    if len(bad):
        text = table[name][bad[0]]
        raise InputError(
            f"{path}: row {bad[0] + 1} of column {name} has the weight {text!r}, write a finite number that is zero or more"
        )
    return numbers.astype(float)


def _column(table: pd.DataFrame, name: str | None, path: Path, option: str) -> str:
    known = [str(column) for column in table.columns]
    if name is None and len(known) == 1:
        return known[0]
    if name is None:
        raise InputError(f"{path}: has {len(known)} columns, name the targets' one with {option}: {', '.join(known)}")
    if name not in known:
        raise InputError(f"{path}: has no column '{name}' ({option}), {did_you_mean(name, known)}")
    return name


def read_table(path: Path) -> pd.DataFrame:
    """Every cell as text: a name may be `NA`, `None` or `007`. Raises `InputError` for what is no such table."""
    import pandas as pd

    ending = path.suffix.lower()
    try:
        require_size(path, _MOST_BYTES)
        if ending in (".csv", ".tsv"):
            table = _separated(path, "," if ending == ".csv" else "\t")
        elif ending == ".jsonl":
            lines = _bounded(path, path.read_text(encoding="utf-8-sig").split("\n"))  # not splitlines: a string may hold U+2028
            rows = [json.loads(line) for line in lines if line.strip()]
            if len({(isinstance(row, dict), isinstance(row, list)) for row in rows}) > 1:
                raise ValueError("some lines are mappings and some are not")
            table = pd.DataFrame(rows, dtype=object).map(_text)
        elif ending == ".parquet":
            table = _parquet(path)
        else:
            lines = _bounded(path, path.read_text(encoding="utf-8-sig").splitlines())
            table = pd.DataFrame({"target": [line for line in lines if line.strip()]}, dtype=str)
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow, run `pip install pyarrow`") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}, {look_again(path, 'check the path')}") from error
    except TooLargeError as error:
        raise InputError(f"{path}: {error}, take a part of it or count before") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply, flatten it") from error
    except (ValueError, NotImplementedError, LookupError, csv.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as {ending or 'text'}: {reason}, mend the file") from error
    if table.empty:
        raise InputError(f"{path}: holds no rows, check the file")
    return table.rename(columns=str)


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path).astype(object).map(_text)
    except (ImportError, OSError, MemoryError):
        raise
    except Exception as error:  # Arrow has errors that are of no kind
        raise ValueError(str(error) or type(error).__name__) from error


def _bounded(path: Path, lines: list[str]) -> list[str]:
    """The lines; raises `InputError` for one that no target can fill."""
    if (longest := max(map(len, lines), default=0)) > _MOST_LINE:
        number = next(number for number, line in enumerate(lines, 1) if len(line) == longest)
        raise InputError(f"{path}:{number}: has more than {_MOST_LINE} signs, mend the line")
    return lines


def _separated(path: Path, separator: str) -> pd.DataFrame:
    """CSV with quotes, TSV without; a row of another width than the header's is a mistake, not data."""
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE, strict=True)
        header = next(rows, [])
        cells = []
        for row in rows:
            if row and len(row) != len(header):
                raise InputError(f"{path}:{rows.line_num}: has {len(row)} fields, the header {len(header)}: mend the row")
            if row:
                cells.append(row)
    if len(set(header)) < len(header):
        raise InputError(f"{path}:1: names a column twice, rename one")
    table = pd.DataFrame(cells, columns=header, dtype=str)
    return table.map(from_cell) if header == COLUMNS else table  # of samples as we write them


def _text(value: Any) -> str:
    """A cell as a person would write it: 3.0 counts as 3, nothing as empty, lists and the like as they print."""
    import pandas as pd

    if isinstance(value, str):
        return value
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
