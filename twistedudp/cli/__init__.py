"""The ``udpecho`` command: ask a UDP server something and print what it answers.

Theory of operation: the program is made of thin modules with one job each: ``_commands`` (what Click parses),
``_arguments`` (texts to values), ``_ask`` (one question on the reactor), ``_output`` (values to texts that are safe on
a terminal), ``_failures`` (an exception to one line and an exit status) and ``_program``, which puts them together.
Click is imported at once; Twisted, msgpack and Rich only by the command that needs them, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


def main() -> None:
    """Run the program that setup.cfg installs as ``udpecho``; ends with SystemExit."""
    try:
        from ._program import run  # noqa: PLC0415  # inside, so that Ctrl-C during the imports is quiet as well

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)
