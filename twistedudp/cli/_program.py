"""From the arguments to the exit status: what surrounds every command.

Theory of operation: Click runs without its "standalone mode", whose usage errors take three lines; here every error
is one line on standard error, and its exit status says whose fault it was (:mod:`._failures`).
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from ._arguments import Misuse
from ._commands import udpecho
from ._failures import USAGE, Interrupted, explain
from ._output import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["run"]

ANSWERED = 0
BROKEN_PIPE = 141
"""128 and the number of SIGPIPE: the reader of the output went away, as with ``udpecho methods HOST | head -1``."""


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name and return the exit status."""
    previous = signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale that lacks a character shall cost that character, and no traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run_command(arguments)
    except Interrupted:
        status = 128 + signal.SIGINT
    except Exception:
        if threading.active_count() > 1:  # a fault of ours must not make the program wait for a thread for ever
            traceback.print_exc()
        _leave_threads_behind(1)
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    _leave_threads_behind(status)
    return status


def _run_command(arguments: Sequence[str]) -> int:
    try:
        returned = udpecho.main(list(arguments), prog_name=udpecho.name, standalone_mode=False)
    except Misuse as error:
        _complain(error.message)
        return USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else udpecho.name
        _complain(f"{error.format_message().rstrip('.')}; try '{path} --help'")
        return USAGE
    except SystemExit:
        # Click's answer to a broken pipe, the only case in which it ends the program itself.
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # explain() raises again what was not foreseen
        status, text = explain(error)
        _complain(text)
        return status
    # Click's --help and --version come back as the status 0, a command as None.
    return returned if isinstance(returned, int) else ANSWERED


def _complain(text: str) -> None:
    click.echo(f"udpecho: {one_line(text)}", err=True)


def _interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signum, signal.SIG_IGN)
    raise Interrupted


def _leave_threads_behind(status: int) -> None:
    """End at once where a look-up of a name is still waiting in its thread.

    The C library's look-ups cannot be cancelled, and Python waits for every thread before it ends: for as long as the
    name servers are silent, however short ``--timeout`` was.
    """
    if threading.active_count() > 1:
        # click.echo has flushed all that was printed.
        os._exit(status)
