"""Limits on time and memory for untrusted input, such as chat templates and patterns.

Python checks signals between its own steps and inside `re`, so an alarm ends both. Without alarms (Windows, threads other than the
main one) there is no timeout. Memory is limited on Linux only.
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


class _TimedOut(BaseException):
    """Not an `Exception`, so that no `except Exception` catches it."""


def _on_alarm(_signal: int, _frame: FrameType | None) -> None:
    raise _TimedOut


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """Raise `MemoryError` if the code inside takes this much more memory. A single string could exceed the machine's memory."""
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
    """Raise `otherwise` if the code inside takes more CPU time. Other processes and a suspended laptop do not count."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    started = time.process_time()
    handler = signal.signal(signal.SIGPROF, _on_alarm)
    left, _ = signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _TimedOut:
        raise otherwise from None
    finally:
        signal.signal(signal.SIGPROF, handler)
        if left:  # an alarm of the caller
            signal.setitimer(signal.ITIMER_PROF, max(0.001, left - (time.process_time() - started)))
