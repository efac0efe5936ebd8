"""`diffuse` and `python -m diffusecli`: signals first, so that a command can be interrupted from its first moment."""

from __future__ import annotations

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
    except KeyboardInterrupt:
        sys.stderr.write("diffuse: interrupted\n")
        sys.exit(130)
    finally:
        for number in (signal.SIGINT, *ENDINGS):  # nothing is left to do but to end
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
