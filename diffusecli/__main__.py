"""`diffuse` and `python -m diffusecli`: signals first, so that a command can be interrupted from its first moment."""

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
    """Run the command line, see `_run`. A process that a launcher started beside others then ends at once."""
    try:
        _run()
    except SystemExit as ending:
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            _end(ending.code)
        raise


def _end(code: object) -> None:
    """Without the interpreter's own end: now and then threads of the process group abort it, and the launcher then ends the others."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _run() -> None:
    """Run the command line. SIGTERM and SIGHUP end it like Ctrl-C: what is under way is told, cleaned up and left with 130."""
    _open_what_is_closed()
    for number in ENDINGS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup leaves SIGHUP ignored
            signal.signal(number, signal.default_int_handler)
    try:
        from diffusecli.cli import app

        app.main()
    except MemoryError:
        sys.stderr.write("diffuse: the memory of this machine does not even suffice to start\n")
        sys.exit(EXIT_ENVIRONMENT)
    except KeyboardInterrupt:
        sys.stderr.write("diffuse: interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for number in (signal.SIGINT, *ENDINGS):  # nothing is left to do but to end, and no traceback to be seen
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: os._exit(EXIT_INTERRUPTED))
        skip_last_collection()


def _open_what_is_closed() -> None:
    """A daemon's child may be born without standard streams; the next file that is opened would take their places."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # takes the lowest number that is free
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for good)


if __name__ == "__main__":
    main()
