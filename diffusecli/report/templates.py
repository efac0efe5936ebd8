"""The Jinja templates of this folder, and the optional package that pictures need."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from diffusecli.report.numbers import known
from diffusecli.report.palette import Palette
from diffusecli.report.wording import FILTERS, mark_of
from diffusecli.system.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent


def require_extra() -> None:
    """Raises `InputError` if the extra `report` is not installed."""
    try:
        import_module("vl_convert")
    except ImportError as error:
        raise InputError("--plots needs vl-convert-python. Run `pip install 'diffuse-lm[report]'`") from error


def engine(colour: Callable[[str], str]) -> Environment:
    """Templates that escape every text. `colour` writes a colour of the palette: as a CSS variable or as its value."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= FILTERS
    found.globals |= {"mark_of": mark_of, "known": known, "colour": colour}
    found.tests["finite"] = lambda value: known(value) is not None
    return found


def source(name: str) -> str:
    """The text of a file of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


def with_values(css: str, palette: Palette) -> str:
    """Style rules with the colours of a palette instead of CSS variables, for programs that know no variables.

    >>> with_values(".noise { fill: var(--ink); }", {"ink": "#20262b"})
    '.noise { fill: #20262b; }'
    """
    return re.sub(r"var\(--([a-z]+)\)", lambda found: palette[found[1]], css)
