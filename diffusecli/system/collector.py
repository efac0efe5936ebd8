"""Python's garbage collector, out of the way while much is made that stays: modules, models.

It runs after so many new objects, and each full run looks through all there are. Libraries and models make half a million that stay:
looking through them takes a tenth of the time to start, and up to two seconds at the end of the process.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """Nothing is collected inside, but what reference counts free; afterwards it is as before.

    What was made inside counts as old then: the next full run looks through it. As young objects they would be looked through at once, and
    again. Where a program keeps objects from the collector itself (`gc.freeze`) that stays as it is.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()


def skip_last_collection() -> None:
    """Leave all objects to the end of the process: the system takes its memory back at once. What is registered with `atexit` still runs.

    Not where a launcher started several processes: their connections have threads that must be joined before the end.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        gc.freeze()
