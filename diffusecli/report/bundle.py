"""The script that draws a report's charts: Vega, Vega-Lite and Vega-Embed in one file. Built once per version and cached for the user."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from diffusecli.files.cache import cache_folder, private_cache
from diffusecli.files.writing import write_text
from diffusecli.report.charts import vega_lite_version
from diffusecli.system.errors import MachineError

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_FOLDER = "reports"


@lru_cache(maxsize=1)
def vega_bundle() -> str:
    """About 1 MB of JavaScript that is safe inside `<script>`. Building it takes seconds. It is built each time if the cache cannot be used."""
    with suppress(OSError, ValueError, MachineError):
        return _read(_place())
    script = _build()
    with suppress(OSError, MachineError):
        private_cache(_FOLDER)
        write_text(_place(), f"{_digest(script)}\n{script}")
    return script


def _place() -> Path:
    """The cache file. Its name is a hash of everything that the script depends on."""
    import vl_convert

    made_of = f"{vl_convert.__version__}\n{vega_lite_version()}\n{_SNIPPET}"  # type: ignore[attr-defined]
    return cache_folder() / _FOLDER / f"vega-{_digest(made_of)[:16]}.js"


def _read(path: Path) -> str:
    """Raises `OSError` if there is no script, and `ValueError` if it was changed after it was written."""
    digest, _, script = path.read_bytes().decode().partition("\n")
    if digest != _digest(script):
        raise ValueError(f"{path} was changed")
    return script


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _build() -> str:
    import vl_convert

    made = vl_convert.javascript_bundle(snippet=_SNIPPET, vl_version=vega_lite_version())
    return made.replace("</script", "<\\/script").replace("\r\n", "\n").replace("\r", "\n")
