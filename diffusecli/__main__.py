"""`diffuse` and `python -m diffusecli`. Sets signal handlers first, so that Ctrl-C works from the start."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress

from diffusecli.system.collector import skip_last_collection
from diffusecli.system.exits import EXIT_ENVIRONMENT, EXIT_INTERRUPTED
from diffusecli.system.interrupts import ENDINGS


def main() -> None:
    """Run the command line, see `_run`. If a launcher started several processes, exit without interpreter shutdown."""
    try:
        _run()
    except SystemExit as ending:
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            _end(ending.code)
        raise


def _end(code: object) -> None:
    """Exit without interpreter shutdown. Threads of the process group sometimes abort it; the launcher then kills the others."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _run() -> None:
    """Run the command line. SIGTERM and SIGHUP act like Ctrl-C: the command cleans up and exits with 130."""
    _open_missing_streams()
    for number in ENDINGS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup leaves SIGHUP ignored
            signal.signal(number, signal.default_int_handler)
    try:
        from diffusecli.cli import app

        app.main()
    except MemoryError:
        sys.stderr.write("diffuse: too little memory to start\n")
        sys.exit(EXIT_ENVIRONMENT)
    except KeyboardInterrupt:
        sys.stderr.write("diffuse: interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for number in (signal.SIGINT, *ENDINGS):  # only the exit is left: no traceback
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: os._exit(EXIT_INTERRUPTED))
        skip_last_collection()


def _open_missing_streams() -> None:
    """Open missing standard streams (child of a daemon). The next opened file would get their descriptors otherwise."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest free number
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (stays open)


if __name__ == "__main__":
    main()
