"""Free memory, peak memory, and errors that mean out of memory."""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusecli.system.errors import DiffuseError, MachineError, sentence

_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "std::bad_alloc",
    "out of memory",
    "can't start new thread",
    "failed to map segment",
)
"""Messages of torch on a CPU, the system, its library loader, C++ and Python. None of them has a separate error class."""

SMALLER = "use a smaller model or precision bf16"
"""The fix for too little memory."""


def free_memory() -> float:
    """Free memory in bytes, within the limits of control groups and `ulimit -v`."""
    import psutil

    return max(0.0, min(float(psutil.virtual_memory().available), cgroup_room(), _address_room()))


def cgroup_room(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes left by this process's control groups (version 1 or 2) and all their parents. Infinite without a limit."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return math.inf
    room = math.inf
    for _, controllers, path in lines:
        if controllers == "":
            top, names, caches = mounted, ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):
            top, names, caches = mounted / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in [group, *group.parents]:
            room = min(room, _room_in(folder, names, caches))
            if folder == top:
                break
    return room


def _room_in(group: Path, names: tuple[str, str], caches: str) -> float:
    try:
        limit, used = (int((group / name).read_text()) for name in names)
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return math.inf
    return limit - used + int(kinds.get(caches, 0))  # file caches can be freed


def _address_room() -> float:
    """Bytes left by `ulimit -v`."""
    import resource

    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory, on any device.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(RuntimeError("shapes"))
    (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's class for accelerators
        return True
    return getattr(error, "errno", None) == errno.ENOMEM or any(sign in str(error) for sign in _SIGNS)


@contextmanager
def enough_memory(who: str, remedy: str) -> Iterator[None]:
    """Raise `MachineError` instead of out-of-memory errors, for work that cannot be split."""
    try:
        yield
    except DiffuseError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise MachineError(f"{who}: too little memory. {sentence(remedy)}") from error


def peak_memory_mb() -> int:
    """Peak memory of the process in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's getrusage includes the parent's memory at the start of this process
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(peak.split()[1]) * 1024 / 1e6)
    import resource

    held: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(held / 1e6 if sys.platform == "darwin" else held * 1024 / 1e6)
