"""The script that draws a report's charts: Vega, Vega-Lite and Vega-Embed in one. Made once for each version and kept in the user's cache."""

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
    """About 1 MB of JavaScript that is safe inside of `<script>`; making it takes seconds. Where the cache cannot be used it is made each time."""
    with suppress(OSError, ValueError, MachineError):
        return _read(_place())
    script = _made()
    with suppress(OSError, MachineError):
        private_cache(_FOLDER)
        write_text(_place(), f"{_digest(script)}\n{script}")
    return script


def _place() -> Path:
    """Named after all that the script depends on."""
    import vl_convert

    made_of = f"{vl_convert.__version__}\n{vega_lite_version()}\n{_SNIPPET}"  # type: ignore[attr-defined]
    return cache_folder() / _FOLDER / f"vega-{_digest(made_of)[:16]}.js"


def _read(path: Path) -> str:
    """Raises `OSError` or `ValueError` where there is no script, or not the one that was written."""
    digest, _, script = path.read_bytes().decode().partition("\n")
    if digest != _digest(script):
        raise ValueError(f"{path} was changed")
    return script


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _made() -> str:
    import vl_convert

    made = vl_convert.javascript_bundle(snippet=_SNIPPET, vl_version=vega_lite_version())
    return made.replace("</script", "<\\/script").replace("\r\n", "\n").replace("\r", "\n")
