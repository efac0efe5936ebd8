"""What a call shows on its way: nothing by default. Notices go to `logging`, as those of `datasets` do."""

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
    """Within a call: where its notices go, the libraries' warnings for developers off, and a lack of memory as a `MachineError`."""
    taker = _log if notice is None else notice
    with library_notices(taker), warnings.catch_warnings():
        if not os.environ.get("DIFFUSE_WARNINGS"):
            warnings.simplefilter("ignore")
        try:
            yield taker
        except Exception as error:
            if out_of_memory(error):
                raise MachineError("the memory of this machine does not suffice, ask for less at once") from error
            raise


def _log(message: str) -> None:
    """A warning as such, all else as information, which Python hides by default."""
    _logger.log(logging.WARNING if message.startswith(_WARNING) else logging.INFO, "%s", message.removeprefix(_WARNING))
