"""What the user is told while a command works; the command line decides where it is shown."""

from __future__ import annotations

from collections.abc import Callable

Notice = Callable[[str], None]
