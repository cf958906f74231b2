"""What the options of every ``twistd`` command of ours share: how they are parsed, and how an error is told.

Theory of operation: an error ends the process with one line and exit status 1; Twisted's own way, ``UsageError``, would
print every option first. The line begins with the command, names the option, and says what to write instead.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from twisted.python import usage

from .address import is_group, is_ip
from .errors import LocalError
from .plugins import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from getopt import GetoptError

__all__ = ["ServiceOptions", "print_and_exit"]


class ServiceOptions(usage.Options):
    """The options of a ``twistd`` command that listens on a UDP port.

    Attributes:
        command: What stands behind ``twistd``.
    """

    command: ClassVar[str]
    synopsis = "[options]"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no annotation here

    def opt_version(self) -> NoReturn:
        """Show the versions of twistedudp and Twisted, and exit."""
        from importlib.metadata import version  # noqa: PLC0415  # 10 ms that only this option spends

        print_and_exit(self.command, f"twistedudp {version('twistedudp')}, Twisted {version('twisted')}\n")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse, check, and bind the port.

        Raises:
            SystemExit: Something is wrong; its text is the one line that Python prints for it, with exit status 1.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        except (usage.UsageError, LocalError) as error:
            raise SystemExit(f"twistd {self.command}: {self._explained(error)}") from None

    def _explained(self, error: Exception) -> str:
        """Return an error's text; with the nearest option, where getopt did not know one."""
        unknown: GetoptError | Any = error.__context__
        option = getattr(unknown, "opt", "")
        if not option:
            return str(error)
        if len(option) == 1 and "not recognized" in str(error):
            return f"there is no option -{option}; --help lists them all"
        known = [f"--{name.rstrip('=')}" for name in self.longOpt]
        if "not recognized" in str(error):
            return f"there is no option --{option}{nearest(f'--{option}', known)}; --help lists them all"
        if "unique prefix" in str(error):
            meant = " or ".join(name for name in known if name.startswith(f"--{option}"))
            return f"the option --{option} may mean {meant}; write it out"
        return str(error)

    def parseArgs(self, *arguments: str) -> None:
        """Refuse what is not an option."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option: options begin with --; --help lists them all")

    def whole_number(self, option: str, least: int, most: int) -> int:
        """Return the value of an option that is a number.

        Raises:
            UsageError: It is none, or out of range.
        """
        text = self[option]
        # At most ten digits: int() of thousands takes its time and is refused by some versions of Python.
        if text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most:
            return int(text)
        raise usage.UsageError(f"--{option}: {text!r} is not a whole number from {least} to {most}")

    def check_interface(self) -> None:
        """Check the value of ``--interface``.

        Raises:
            UsageError: It is not the numeric address of one host.
        """
        interface = self["interface"]
        if not is_ip(interface):
            raise usage.UsageError(
                f"--interface: {interface!r} is not a numeric address; write one of this machine, such as 127.0.0.1 or "
                "::1, or 0.0.0.0 or :: for all of them"
            )
        if is_group(interface):
            raise usage.UsageError(
                f"--interface: {interface} is a broadcast or multicast address; write an address of this machine"
            )


def print_and_exit(command: str, text: str) -> NoReturn:
    """Print a text and exit; where nobody reads it, that is no reason for a traceback."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, end="", flush=True)  # noqa: T201  # what was asked for; print() copes with a closed stream
    except OSError as error:
        with suppress(OSError):  # Python would complain once more at its end, of what is left in the buffer
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(f"twistd {command}: standard output cannot be written: {error.strerror}") from None
    raise SystemExit(0)
