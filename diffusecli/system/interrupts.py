"""Ctrl-C and its like as a question that long work answers when it can stop cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""What a system, a scheduler or a closed terminal sends."""


class Interrupts(AbstractContextManager["Interrupts"]):
    """While inside, the first signal sets `asked`; the second raises `KeyboardInterrupt` on the spot, unless `patient`.

    Launchers of several processes pass signals on, and so repeat them.
    """

    def __init__(self, notice: Callable[[str], None], promise: str, *, patient: bool) -> None:
        """`promise` is told at the first signal: what will happen now."""
        self.asked = False
        self._patient = patient
        self._notice, self._promise = notice, promise
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            heard = [n for n in (signal.SIGINT, *ENDINGS) if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            if self._patient:
                return
            raise KeyboardInterrupt
        self.asked = True
        self._notice(self._promise)
