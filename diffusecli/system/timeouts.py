"""Work whose length a file of somebody else's decides, such as a chat template or a pattern: it is stopped when it takes too much.

Python looks at signals between steps of its own and inside `re`, so an alarm ends both. Where there are no alarms (Windows, threads
other than the first) nothing is stopped; memory is bounded on Linux.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from diffusecli.system.errors import DiffuseError


class _TimeIsUp(BaseException):
    """No `except Exception` on the way may take it for a failure of its own."""


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise _TimeIsUp


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """Raises `MemoryError` when what is inside takes so much more than there was; one string may be larger than the machine."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        most = pages * resource.getpagesize() + megabytes * 1_000_000
        if before[0] not in (resource.RLIM_INFINITY, -1) and before[0] < most:
            most = before[0]
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def at_most(seconds: float, otherwise: DiffuseError) -> Iterator[None]:
    """Raises `otherwise` when what is inside takes more of the processor's time: neither other work nor a suspended laptop counts."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    started = time.process_time()
    handler = signal.signal(signal.SIGPROF, _ring)
    left, _ = signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _TimeIsUp:
        raise otherwise from None
    finally:
        signal.signal(signal.SIGPROF, handler)
        if left:  # an alarm of whoever called
            signal.setitimer(signal.ITIMER_PROF, max(0.001, left - (time.process_time() - started)))
