"""Read a file as a table of text. Detects its format and encoding if they are certain, else raises an error.

Knows files and pandas; not what the cells mean.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from diffusecli.files.cells import as_cell
from diffusecli.files.delimited import OF_ENDING, table_of_text
from diffusecli.files.hub_paths import is_address
from diffusecli.files.json_tables import table_of_json
from diffusecli.files.paths import find, look_again
from diffusecli.files.reading import TooLargeError, require_size
from diffusecli.files.tables import MOST_BYTES, Layout, Table, numbered, require_no, with_header
from diffusecli.files.text import canonical
from diffusecli.system.errors import InputError, did_you_mean, sentence, why_unreadable

if TYPE_CHECKING:
    import pandas as pd

TABULAR = (*OF_ENDING, ".parquet", ".xlsx", ".xlsm", ".xls")
"""Extensions of files that are always tables."""

_PACKED: Mapping[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_OTHERS = {
    b"%PDF": "a PDF", b"SQLite format 3": "an SQLite database", b"$FL": "an SPSS file", b"<stata_dta>": "a Stata file",
    b"ARROW1": "an Arrow file", b"\x93NUMPY": "a NumPy array", b"\x28\xb5\x2f\xfd": "packed by Zstandard",
    b"\x89HDF": "an HDF5 file", b"RDX": "an R workspace", b"{\\rtf": "a text processor's file", b"7z\xbc\xaf": "a 7z archive",
}  # fmt: skip
_PAGE = re.compile(r"\s*<(?:!doctype html|html|table|\?xml|meta)\b", re.IGNORECASE)
_BOMS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_GUESSES = ("cp1252", "cp1250", "cp1251", "mac_roman", "shift_jis", "gb18030")


def read_table(path: Path, layout: Layout | None = None, named: Sequence[str] = ()) -> Table:
    """Read the table in a file. Cells stay as written: a name may be `NA`, `None` or `007`.

    `named` are the columns that the user names. Raises `InputError` for a file that is not a table or could be read in two ways.
    """
    layout = layout or Layout()
    path = find(path).place if is_address(path) else path
    if path.suffix in (".yaml", ".yml"):
        raise InputError(f"{path}: is YAML, and a table is CSV, JSON, Parquet or Excel. Use one of these")
    with _in_sentences(path):
        require_size(path, MOST_BYTES)
        content, name = _content(path)
        table = _read(path, Path(name).suffix.lower(), content, layout, [canonical(word) for word in named])
    if not table.columns or not len(table):
        raise InputError(f"{path}: contains no rows. Check the file")
    return table


def holds_plain_text(path: Path) -> bool:
    """Whether a file is neither packed nor of a binary format nor in UTF-16."""
    with path.open("rb") as file:
        head = file.read(4096)
    return b"\0" not in head and not head.startswith((*_PACKED, *_OTHERS, b"PK\x03\x04", b"PAR1", *_BOMS))


def _read(path: Path, ending: str, content: bytes, layout: Layout, named: Sequence[str]) -> Table:
    if content.startswith(b"PAR1") or ending == ".parquet":
        require_no(layout, path, "Parquet", "delimiter", "encoding", "header_rows", "skip_rows", "sheet")
        return _parquet(path, content)
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        require_no(layout, path, "an Excel workbook", "delimiter", "encoding")
        return _excel(path, content, layout, named)
    for signature, what in _OTHERS.items():
        if content.startswith(signature):
            raise InputError(f"{path}: is {what}, not a table that can be read. Save it as CSV or Parquet")
    require_no(layout, path, "text", "sheet")
    text, notices = _decoded(path, content, layout.encoding)
    if _PAGE.match(text):
        raise InputError(f"{path}: is an HTML or XML page. Open it in a spreadsheet and save it as CSV")
    if ending in (".xls", ".xlsx", ".xlsm"):
        notices.append(f"{path} is text, not a workbook")
    table = table_of_json(path, text, ending, layout, named) if layout.separator is None else None
    if table is None:
        table = table_of_text(path, text, ending, layout, named)
    return replace(table, notices=(*notices, *table.notices))


@contextmanager
def _in_sentences(path: Path) -> Iterator[None]:
    """Convert errors of readers to `InputError`."""
    try:
        yield
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise InputError(f"{path}: is compressed but incomplete. Download or compress it again") from error
    except OSError as error:
        raise InputError(
            f"{path}: {why_unreadable(error)}. {sentence(look_again(path, 'name a file in it' if isinstance(error, IsADirectoryError) else 'check the path'))}"
        ) from error
    except TooLargeError as error:
        raise InputError(f"{path}: {error}. Use a part of it or count first") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply. Flatten it") from error
    except (ValueError, NotImplementedError, LookupError, csv.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as {path.suffix.lower() or 'text'}: {reason}. Correct the file") from error


def _content(path: Path) -> tuple[bytes, str]:
    """The decompressed bytes of a file, and its name without the extension of the compression."""
    with path.open("rb") as file:
        content = _at_most(file)
    for signature, unpack in _PACKED.items():
        if content.startswith(signature):
            with unpack(io.BytesIO(content)) as file:
                content = _at_most(file)
            return content, path.stem if path.suffix.lower() in (".gz", ".bz2", ".xz") else path.name
    return content, path.name


def _at_most(file: IO[bytes]) -> bytes:
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise TooLargeError(f"is larger than {MOST_BYTES / 1e6:g} MB")
    return content


def _decoded(path: Path, content: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """The text, and a notice unless it is plain UTF-8. Raises `InputError` that names --encoding if it is not certain."""
    marked = next((name for bom, name in _BOMS.items() if content.startswith(bom)), None)
    chosen = encoding or marked or "utf-8"
    if codecs.lookup(chosen).name == "utf-8":
        chosen = "utf-8-sig"
    try:
        text = content.decode(chosen)
    except UnicodeDecodeError as error:
        if encoding or marked:
            raise InputError(f"{path}: byte {error.start} is not {chosen}. Choose another --encoding") from error
        raise InputError(_which_encoding(path, content, error.start)) from error
    if text.count("\0") > 0.01 * len(text):  # ignore a stray one
        even, odd = content[::2].count(0), content[1::2].count(0)
        if not encoding and max(even, odd) > 0.4 * len(content) / 2 > 3 * min(even, odd):
            raise InputError(
                f"{path}: looks like UTF-16 without a byte order mark. Add --encoding {'utf-16-le' if odd > even else 'utf-16-be'}"
            )
        raise InputError(f"{path}: is a binary file. Save it as CSV, JSON or Parquet")
    return text.removeprefix("\ufeff"), [f"{path} is read as {marked.upper()}"] if marked and not encoding else []


def _which_encoding(path: Path, content: bytes, at: int) -> str:
    """The message with the first non-UTF-8 word in several encodings."""
    word = re.search(rb"[^\s,;|\"]*\Z", content[max(0, at - 20) : at])
    rest = re.match(rb"[^\s,;|\"]*", content[at : at + 20])
    piece = (word[0] if word else b"") + (rest[0] if rest else b"")
    readings: dict[str, str] = {}
    for name in _GUESSES:
        try:
            readings.setdefault(piece.decode(name), name)
        except UnicodeDecodeError:
            continue
    shown = ", ".join(f"{name} reads {text!r}" for text, name in list(readings.items())[:4])
    line = content.count(b"\n", 0, at) + 1
    return f"{path}:{line}: is not UTF-8. Choose its encoding with --encoding" + (f": {shown}" if shown else "")


def _parquet(path: Path, content: bytes) -> Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(content))
        if frame.index.names != [None] or not isinstance(frame.index, pd.RangeIndex):
            frame = frame.reset_index()
        orders = {}
        for index in range(frame.shape[1]):
            if isinstance(kind := frame.dtypes.iloc[index], pd.CategoricalDtype):
                orders[index] = _order_of(kind)
        columns = tuple([as_cell(value) for value in frame.iloc[:, i].astype(object)] for i in range(frame.shape[1]))
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow. Run `pip install pyarrow`") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Arrow's errors have no common class
        raise ValueError(str(error) or type(error).__name__) from error
    names = numbered(map(str, frame.columns))
    return Table(path, names, columns, decimal=".", orders={index: order for index, order in orders.items() if order})


def _order_of(kind: pd.CategoricalDtype) -> list[str]:
    """The categories in their order. Empty if they have none; pandas then sorts them as text."""
    categories = [str(as_cell(value)) for value in kind.categories]
    return categories if kind.ordered or categories != sorted(categories) else []


def _excel(path: Path, content: bytes, layout: Layout, named: Sequence[str]) -> Table:
    import pandas as pd

    module = "xlrd"
    if content.startswith(b"PK"):
        module = "openpyxl"
        _require_workbook(path, content)
    try:
        sheets = pd.read_excel(io.BytesIO(content), sheet_name=None, header=None, dtype=object, na_filter=False)
    except ImportError as error:
        raise InputError(f"{path}: reading an Excel workbook needs {module}. Run `pip install {module}`") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # its readers raise many kinds of errors
        raise ValueError(str(error) or type(error).__name__) from error
    filled = {str(name): frame for name, frame in sheets.items() if not frame.empty}
    if layout.sheet is not None and layout.sheet not in filled:
        raise InputError(
            f"{path}: has no sheet '{layout.sheet}' with cells (--sheet). {sentence(did_you_mean(layout.sheet, list(filled)))}"
        )
    if layout.sheet is None and len(filled) > 1:
        raise InputError(f"{path}: has {len(filled)} sheets. Choose one with --sheet: {', '.join(filled)}")
    frame = filled[layout.sheet] if layout.sheet is not None else next(iter(filled.values()), pd.DataFrame())
    rows = [[as_cell(value) for value in row] for row in frame.astype(object).to_numpy().tolist()]
    return with_header(path, [row for row in rows if any(row)][layout.skip_rows :], layout, named, ".")


def _require_workbook(path: Path, content: bytes) -> None:
    """Raise `InputError` for a ZIP archive that is not .xlsx, and `TooLargeError` before unpacking one that is too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {part.filename: part.file_size for part in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is an incomplete workbook or archive. Download or save it again") from error
    if "xl/workbook.xml" not in parts:
        remedy = "Save it as .xlsx or CSV" if {"mimetype", "xl/workbook.bin"} & set(parts) else "Unpack it"
        raise InputError(f"{path}: is a ZIP archive, not an .xlsx workbook. {remedy}")
    if sum(parts.values()) > MOST_BYTES:
        raise TooLargeError(f"is larger than {MOST_BYTES / 1e6:g} MB after unpacking")
