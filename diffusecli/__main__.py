"""`diffuse` and `python -m diffusecli`: signals first, so that a command can be interrupted from its first moment."""

from __future__ import annotations

import os
import signal
import sys

from diffusecli.interrupts import ENDINGS


def main() -> None:
    """Run the command line. SIGTERM and SIGHUP end it like Ctrl-C: what is under way is told, cleaned up and left with 130."""
    for number in ENDINGS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup leaves SIGHUP ignored
            signal.signal(number, signal.default_int_handler)
    try:
        from diffusecli import cli

        cli.main()
    except MemoryError:
        sys.stderr.write("diffuse: the memory of this machine does not even suffice to start\n")
        sys.exit(3)
    except KeyboardInterrupt:
        sys.stderr.write("diffuse: interrupted\n")
        sys.exit(130)
    finally:
        for number in (signal.SIGINT, *ENDINGS):  # nothing is left to do but to end, and no traceback to be seen
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: os._exit(130))


if __name__ == "__main__":
    main()
