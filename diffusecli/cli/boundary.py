"""Turns errors into a message on stderr and an exit code: wrong input, interruptions, closed pipes, a full disk, no memory."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from diffusecli.cli.groups import with_options
from diffusecli.cli.missing_values import help_of
from diffusecli.cli.options import meant_paths
from diffusecli.cli.printing import LOCAL_MAIN_PROCESS, MAIN_PROCESS, is_quiet, is_verbose, notice, show
from diffusecli.cli.unknown_options import loose_words, out_of_range, text_options, unknown_option, wrong_number
from diffusecli.files.paths import library_notices
from diffusecli.system import terminal
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import DiffuseError, InputError, InterruptedRun, MachineError
from diffusecli.system.exits import EXIT_INTERRUPTED
from diffusecli.system.memory import out_of_memory

if TYPE_CHECKING:
    from diffusecli.cli.groups import Body


_AFTER = 0.1
"""Seconds until an ignored interruption comes again."""


def start(app: typer.Typer) -> None:
    """Run the app. Escape characters that the terminal's encoding does not have."""
    terminal.spell_what_is_lacking()
    if "_DIFFUSE_COMPLETE" not in os.environ:  # shell completions contain tabs, and no untrusted text
        terminal.guard()
    sys.unraisablehook = _unraisable
    try:
        with collector_off():  # thousands of objects that stay
            command = typer.main.get_command(app)
        code = command(standalone_mode=False)
    except InputError as error:  # before the body of a command
        _print_error(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if not hasattr(error, "format_message"):  # the command line's own errors have one
            raise
        _refuse(error)
    sys.exit(code if isinstance(code, int) else 0)


def _unraisable(ignored: sys.UnraisableHookArgs) -> None:
    """Interrupt again if Python ignored an interruption, because it arrived in a destructor; report other errors there as usual."""
    if isinstance(ignored.exc_value, KeyboardInterrupt):
        again = threading.Timer(_AFTER, os.kill, (os.getpid(), signal.SIGINT))  # not here: it would be ignored, too
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(ignored)


def _refuse(error: Any) -> NoReturn:
    """Print an error of the command line (an unknown option, a missing argument) as ours are printed."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if context is not None and message == context.get_help():  # no command at all: the help is all there is to say
        error.show()
    else:
        message = _in_our_words(message, error)
        end = "" if message.endswith((".", "?")) else "."
        _print_error(f"{message}{end} {help_of(context)}")
    sys.exit(error.exit_code)


def _in_our_words(message: str, error: Any) -> str:
    """The message of the command line's parser, for unknown options and wrong numbers with what was meant."""
    context = getattr(error, "ctx", None)
    if hasattr(error, "possibilities") and getattr(error, "option_name", None) and context is not None:
        return unknown_option(error, sys.argv)
    message = message.replace(": Input should be ", ": must be ")
    texts = text_options(context.command) if context is not None else []
    return wrong_number(message, sys.argv) or out_of_range(message, sys.argv) or loose_words(message, sys.argv, texts) or message


def guarded(body: Body) -> Body:
    """Wrap the body of a command: each error becomes one message on stderr and the documented exit code."""
    own = inspect.signature(body, eval_str=True).parameters

    @functools.wraps(body)
    def run(*, quiet: bool = False, verbose: bool = False, **options: Any) -> None:
        try:
            show(quiet=quiet or is_quiet(), verbose=verbose or is_verbose())
            if "verbose" in own:
                options["verbose"] = is_verbose()
            with library_notices(notice if MAIN_PROCESS else lambda _: None):
                body(**{name: meant_paths(name, value) for name, value in options.items()})
            sys.stdout.flush()
        except DiffuseError as error:
            if not _prints(error):
                raise typer.Exit(error.exit_code) from error
            _stop(str(error), error.exit_code, error.lines)
        except KeyboardInterrupt as interrupt:
            if not MAIN_PROCESS:
                raise typer.Exit(EXIT_INTERRUPTED) from interrupt
            _stop("interrupted. Run the same command again", EXIT_INTERRUPTED)
        except BrokenPipeError as error:  # the reader of our output is gone, and the work may not be finished
            _forget_stdout()
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except Exception as error:
            if (refused := _refused(error)) is None:
                raise
            _stop(str(refused), refused.exit_code)

    options = [*own.values(), *(option for option in _OF_ALL if option.name not in own)]
    return with_options(run, [option.replace(kind=option.KEYWORD_ONLY) for option in options])


_OF_ALL = [
    inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, typer.Option(f"--{name}", short, help=text)]
    )
    for name, short, text in (
        ("verbose", "-v", "Print internal checks to stderr, too."),
        ("quiet", "-q", "Print only warnings and errors to stderr."),
    )
]
"""Options of every command."""


def _prints(error: DiffuseError) -> bool:
    """Whether this process prints the error. Other processes of the same training may have the same error."""
    if error.shared or isinstance(error, InterruptedRun):
        return MAIN_PROCESS
    return MAIN_PROCESS or LOCAL_MAIN_PROCESS or isinstance(error, MachineError)


def _refused(error: Exception) -> DiffuseError | None:
    """The user-fixable error for a failure of memory, disk, a path or stdout. None for a bug."""
    if out_of_memory(error):
        return MachineError("this machine has too little memory. Ask for less at once")
    if not isinstance(error, OSError) or sys.stdout.closed:
        return None
    if error.filename is not None:
        of_the_machine = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EROFS)
        kind = MachineError if of_the_machine else InputError
        return kind(f"{error.filename}: {error.strerror or error}. Check the path and the disk")
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):
        return MachineError(f"{type(error).__name__}: {error}. Fix the cause and run the same command again")
    _forget_stdout()
    return MachineError(f"cannot write to standard output: {error.strerror or error}. Free some space")


def _forget_stdout() -> None:
    """Discard the unwritten output. It would fail again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(message: str, code: int, lines: Sequence[str] = ()) -> NoReturn:
    """Print the message, or each of its `lines`, and end the command."""
    if code == EXIT_INTERRUPTED:  # half-built objects of libraries would print errors at exit
        sys.unraisablehook = lambda _: None
    for line in lines or (message,):
        _print_error(line)
    raise typer.Exit(code)


def _print_error(message: str) -> None:
    terminal.error_line(terminal.message(f"diffuse: {message}"))
