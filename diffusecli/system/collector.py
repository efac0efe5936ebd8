"""Switch Python's garbage collector off while many long-lived objects are created: modules, models.

It runs after a number of new objects, and each full run traverses all objects. Libraries and models create half a million long-lived
objects. Traversing them takes a tenth of the start-up time, and up to two seconds at the end of the process.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """Disable garbage collection inside; reference counting still works. Restores the previous state afterwards.

    Objects created inside then belong to the oldest generation, so only the next full run traverses them. As young objects they would be
    traversed at once, and again. Does not touch objects that a program has frozen itself (`gc.freeze`).
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
    """Skip the collection at exit: the system frees the memory at once. `atexit` functions still run.

    Does nothing if a launcher started several processes: their connections have threads that must be joined before exit.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        gc.freeze()
