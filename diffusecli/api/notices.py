"""Notices of API calls: they go to `logging`, as in `datasets`, and are not shown by default."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from diffusecli.files.paths import library_notices
from diffusecli.system.errors import MachineError
from diffusecli.system.memory import out_of_memory
from diffusecli.system.notices import Notice

_WARNING = "warning: "
_logger = logging.getLogger("diffusecli")


@contextmanager
def calling(notice: Notice | None) -> Iterator[Notice]:
    """Context of a call: routes notices, hides developer warnings of libraries, and raises `MachineError` if memory runs out."""
    taker = _log if notice is None else notice
    with library_notices(taker), warnings.catch_warnings():
        if not os.environ.get("DIFFUSE_WARNINGS"):
            warnings.simplefilter("ignore")
        try:
            yield taker
        except Exception as error:
            if out_of_memory(error):
                raise MachineError("there is not enough memory on this machine. Request less at once") from error
            raise


def _log(message: str) -> None:
    """Log warnings as warnings and all other notices as information, which Python hides by default."""
    _logger.log(logging.WARNING if message.startswith(_WARNING) else logging.INFO, "%s", message.removeprefix(_WARNING))
