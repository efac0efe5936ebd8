"""Ctrl-C and similar signals as a flag that long-running code checks where it can stop cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that the system, a scheduler or a closed terminal sends."""


class Interrupts(AbstractContextManager["Interrupts"]):
    """Inside, the first signal sets `asked`. The second raises `KeyboardInterrupt` at once, unless `patient`.

    Launchers of several processes forward signals, so the same signal can arrive twice.
    """

    def __init__(self, notice: Callable[[str], None], promise: str, *, patient: bool) -> None:
        """`promise` is shown at the first signal: what will happen now."""
        self.asked = False
        self._patient = patient
        self._notice, self._promise = notice, promise
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # handlers can be set only there
            handled = [n for n in (signal.SIGINT, *ENDINGS) if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._on_signal) for number in handled}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            if self._patient:
                return
            raise KeyboardInterrupt
        self.asked = True
        self._notice(self._promise)
