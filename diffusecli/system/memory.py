"""How much memory there is, how much was used, and whether an error says that it does not suffice."""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusecli.system.errors import DiffuseError, MachineError

_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "std::bad_alloc",
    "out of memory",
    "can't start new thread",
    "failed to map segment",
)
"""What torch on a CPU, the system, its loader of libraries, C++ and Python say; none of them has a class of its own for it."""

SMALLER = "use a smaller model or precision bf16"
"""What to do when there is too little."""


def free_memory() -> float:
    """Bytes that can still be had, within the limits of control groups and `ulimit -v`."""
    import psutil

    return max(0.0, min(float(psutil.virtual_memory().available), cgroup_room(), _address_room()))


def cgroup_room(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this process's control groups, of either version, leave it; each group above may bind. Infinite without a limit."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return math.inf
    least = math.inf
    for _, controllers, path in lines:
        if controllers == "":
            top, names, caches = mounted, ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):
            top, names, caches = mounted / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in [group, *group.parents]:
            least = min(least, _room_in(folder, names, caches))
            if folder == top:
                break
    return least


def _room_in(group: Path, names: tuple[str, str], caches: str) -> float:
    try:
        limit, used = (int((group / name).read_text()) for name in names)
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return math.inf
    return limit - used + int(kinds.get(caches, 0))  # file caches give way


def _address_room() -> float:
    """What `ulimit -v` leaves, in bytes."""
    import resource

    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice, on any device.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(RuntimeError("shapes"))
    (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own, of accelerators
        return True
    return getattr(error, "errno", None) == errno.ENOMEM or any(sign in str(error) for sign in _SIGNS)


@contextmanager
def enough_memory(who: str, remedy: str) -> Iterator[None]:
    """Raises `MachineError` in place of errors that say that memory does not suffice: for work that cannot be made smaller."""
    try:
        yield
    except DiffuseError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise MachineError(f"{who}: memory does not suffice, {remedy}") from error


def peak_memory_mb() -> int:
    """The most memory the process held, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's getrusage counts what the parent held when it started this process
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(peak.split()[1]) * 1024 / 1e6)
    import resource

    held: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(held / 1e6 if sys.platform == "darwin" else held * 1024 / 1e6)
