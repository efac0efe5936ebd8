"""Fills the disk at random moments of every command: `python -m tests.reliability.full_disk [MOMENTS [SEED]]`.

The disk is a small one in memory, mounted in a namespace of its own, where the system allows that. A command that meets
the end of it must say so in a sentence and end with 3; with room again the same command goes on to the same end.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.commands import HANG
from tests.reliability.kills import Activity, Killer, Tally, halves, main, tracebacks

_DISK = "DIFFUSE_TEST_DISK"


class Filler(Killer):
    """Takes the rest of the disk in place of killing."""

    def make_trouble(self, name: str, activity: Activity, folder: Path, seconds: float, tally: Tally) -> None:
        """One full disk."""
        process = self.start_and_wait(activity, folder, seconds)
        with full(Path(os.environ[_DISK])):
            process.join(HANG)
            if process.is_alive():
                tally.faults.append(f"{name}: hangs on a full disk")
                process.kill()
                process.join()
        told = self.told
        if process.exitcode == 3:
            tally.moments["3"] += 1
            if not any(word in told.lower() for word in ("free some", "mb free", "no space left")):
                tally.faults.append(f"{name}: does not name the full disk: {told[-300:]}")
        elif process.exitcode != 0 and activity.finished not in told:
            tally.faults.append(f"{name}: ends with {process.exitcode} on a full disk: {told[-500:]}")
        tally.faults += [f"{name}: on a full disk: {fault}" for fault in [*tracebacks(told), *halves(folder)]]


@contextmanager
def full(disk: Path):
    """Not a byte is left while inside."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_CREAT | os.O_WRONLY)
    try:
        for size in (2**24, 2**20, 2**12, 1):
            try:
                while True:
                    os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        yield
    finally:
        os.close(descriptor)
        filler.unlink()


def in_small_disk(words: list[str], folder: Path, size: str = "100m") -> subprocess.CompletedProcess[str]:
    """Run a Python module where `folder` is a small disk of its own."""
    script = f'mount -t tmpfs -o size={size} small "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(folder), sys.executable, "-m", *words],
        env={**os.environ, _DISK: str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


if __name__ == "__main__":
    if _DISK in os.environ:
        main(Filler, Path(os.environ[_DISK]))
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            done = in_small_disk(["tests.reliability.full_disk", *sys.argv[1:]], Path(place))
            print(done.stdout, done.stderr, sep="")
        sys.exit(done.returncode)
