"""`main`: runs a verb and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from compiler.cli.signals import Stopped, stopping_cleanly
from compiler.support.errors import InternalError, KilnError

USER, INTERNAL = 2, 1
_BROKEN_PIPE = 141
"""What a shell reports for a program that writes to a pipe nobody reads (128 + SIGPIPE)."""

_SHARED = {"--debug": "--debug", "--quiet": "--quiet", "-q": "--quiet"}
_THE_USERS = {
    number
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG", "EIO")
    if (number := getattr(errno, name, None)) is not None
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line `args` (by default this process's) and return the exit code."""
    words = list(sys.argv[1:] if args is None else args)
    shared = {_SHARED[word] for word in _options(words) if word in _SHARED}
    debug = "--debug" in shared
    try:
        with stopping_cleanly(), _surroundings(debug, "--quiet" in shared):
            code = _run(words or ["--help"])
            sys.stdout.flush()
            return code
    except Stopped as stop:
        return _say(f"{stop}", stop.exit_code)
    except BrokenPipeError:
        return _nobody_reads()
    except SystemExit as wish:
        # This is what rich makes of a broken pipe.
        if isinstance(wish.__context__, BrokenPipeError):
            return _nobody_reads()
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _say(*describe(error, debug))


def _run(words: list[str]) -> int:
    """Run one verb; return 0, or what it asked for."""
    from typer import Exit
    from typer.main import get_command

    from compiler.cli.app import app

    command: Any = get_command(app)
    try:
        with command.make_context("kiln", _shared_first(words, command)) as context:
            command.invoke(context)
    except Exit as wish:
        return int(wish.exit_code)
    return 0


def describe(error: Exception, debug: bool = False) -> tuple[str, int]:
    """Return the line to show for `error`, and the exit code."""
    if isinstance(error, InternalError):
        return f"internal error: {error}", INTERNAL
    if isinstance(error, KilnError):
        return f"error: {error}", error.exit_code
    if hasattr(error, "format_message"):
        return f"error: {_usage(error)}", USER
    if isinstance(error, OSError) and error.errno in _THE_USERS:
        where = f"'{error.filename}': " if error.filename else ""
        return f"error: {where}{error.strerror}", USER
    if isinstance(error, MemoryError):
        return "error: there is not enough memory", USER
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    hint = "" if debug else "; run with --debug for the traceback, and please report it"
    return f"internal error: {type(error).__name__}{f': {first}' if first else ''}{hint}", INTERNAL


def _usage(error: Any) -> str:
    """Write typer's complaint about the command line as one line."""
    message = " ".join(error.format_message().split()).rstrip(".")
    path = error.ctx.command_path if getattr(error, "ctx", None) else "kiln"
    return f"{message}; see '{path} --help'"


def _options(words: Sequence[str]) -> list[str]:
    return list(words[: words.index("--")] if "--" in words else words)


def _shared_first(words: Sequence[str], command: Any) -> list[str]:
    """Move the options that every verb shares to the front, so that they may stand anywhere.

    A verb with an option of that name gets it, too.
    """
    head = _options(words)
    verb = next((word for word in head if not word.startswith("-")), "")
    own = {name for param in getattr(command.commands.get(verb), "params", []) for name in param.opts}
    shared = dict.fromkeys(_SHARED[word] for word in head if word in _SHARED)
    kept = [word for word in head if word not in _SHARED or word in own]
    return [*shared, *kept, *words[len(head) :]]


@contextlib.contextmanager
def _surroundings(debug: bool, quiet: bool) -> Iterator[None]:
    """Show progress; with --debug also all that libraries say."""
    from compiler.cli.console import Console, hushed
    from compiler.support.progress import watching

    with contextlib.ExitStack() as stack:
        if not debug:
            stack.enter_context(hushed())
        if not quiet:
            stack.enter_context(watching(stack.enter_context(Console(sys.stderr, live=not debug))))
        yield


def _say(line: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    return code


def _nobody_reads() -> int:
    # Python flushes stdout once more at exit, and would complain then.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE
