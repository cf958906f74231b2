"""Running a command at each change of a target's state.

Theory of operation: the command is started without a shell, and what has changed is in its environment, where no
target's name can become a part of the command line. A few run at once, but never two for one target, so that the last
one to run for it knows its last state. One that does not end is ended.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol

from .._alarm import steady_clock
from ..errors import LocalError
from ._notify import Outbox, as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from ._watched import StateChange

__all__ = ["COMMAND_TIMEOUT", "MAX_COMMANDS", "OnChangeCommand", "parse_command"]

MAX_COMMANDS: Final = 4
"""Commands running at once: a machine that watches must stay able to."""

COMMAND_TIMEOUT: Final = 30.0
"""Seconds after which a command is killed: it is to hand a message on, not to deliver it."""

_PREFIX: Final = "UDPPROBE_"
_MOST_OUTPUT: Final = 200  # bytes of its error output that are logged


def parse_command(text: str) -> list[str]:
    """Return a command with its arguments, split as a shell would, and its program's path.

    Raises:
        LocalError: It is none that can be run.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise LocalError(f"--on-change: {text!r} is not a command line: {error}") from None
    if not words:
        raise LocalError("--on-change: it is empty; write a program with its arguments, such as /usr/local/bin/page-me")
    program = shutil.which(words[0])
    if program is None:
        raise LocalError(
            f"--on-change: {words[0]!r} is no program that can be run; write the path of one. It is run without a "
            "shell: for pipes and the like name a script"
        )
    return [os.path.abspath(program), *words[1:]]  # noqa: PTH100  # a link stays one: venvs and busybox go by its name


class OnChangeCommand:
    """Runs a command at each change.

    Args:
        reactor: Provides IReactorProcess and the time.
        command: The program's path, and its arguments.
    """

    def __init__(self, reactor: Any, command: Sequence[str]) -> None:
        self._reactor = reactor
        self._command = list(command)
        self._outbox = Outbox("command", steady_clock(reactor))
        self._running: dict[str, _Run] = {}
        self._ended: Deferred[None] | None = None

    @property
    def counters(self) -> Mapping[str, tuple[str, Callable[[], int]]]:
        """See :class:`Notifier`."""
        return self._outbox.counters

    @property
    def running(self) -> int:
        """How many commands run."""
        return len(self._running)

    def tell(self, change: StateChange) -> None:
        """Run the command for a change when its turn comes."""
        if self._ended is None:
            self._outbox.add(change)
            self._start()

    def stop(self) -> Deferred[Any]:
        """Run no more, and kill what runs; the Deferred fires when all have ended."""
        self._outbox.waiting.clear()
        self._ended = Deferred()
        for run in list(self._running.values()):
            run.kill()
        return self._ended if self._running else succeed(None)

    def _start(self) -> None:
        waiting = self._outbox.waiting
        while len(self._running) < MAX_COMMANDS:
            change = next((one for one in waiting if one.target not in self._running), None)
            if change is None:
                return
            waiting.remove(change)
            run = self._running[change.target] = _Run(self, change)
            values = {_PREFIX + name.upper(): value for name, value in as_text(change).items()}
            try:
                self._reactor.spawnProcess(
                    run, self._command[0], self._command, env={**os.environ, **values}, path=None
                )
            except OSError as error:  # out of processes or of memory
                del self._running[change.target]
                self._outbox.fail(change, f"{self._command[0]} cannot be started: {error.strerror or error}")
            else:
                run.limit(self._reactor.callLater(COMMAND_TIMEOUT, run.overdue))

    def ended(self, change: StateChange, failure: str) -> None:
        """Take note that a command has ended; called by its :class:`_Run`.

        Args:
            change: What it was told.
            failure: What went wrong; empty where nothing did.
        """
        del self._running[change.target]
        if self._ended is not None:
            if not self._running:
                self._ended.callback(None)
            return
        if failure:
            self._outbox.fail(change, failure)
        else:
            self._outbox.told += 1
        self._start()


class _Run(ProcessProtocol):
    """One command while it runs."""

    def __init__(self, owner: OnChangeCommand, change: StateChange) -> None:
        self._owner = owner
        self._change = change
        self._timer: IDelayedCall | None = None
        self._overdue = False
        self._errors = b""

    def limit(self, timer: IDelayedCall) -> None:
        """Have its time limited by this timer."""
        self._timer = timer

    def connectionMade(self) -> None:
        """Give it nothing to read."""
        assert self.transport is not None  # noqa: S101  # for mypy
        self.transport.closeStdin()

    def errReceived(self, data: bytes) -> None:
        """Keep the start of what it complains of."""
        self._errors = (self._errors + data)[:_MOST_OUTPUT]

    def overdue(self) -> None:
        """End it: its time is up."""
        self._timer = None
        self._overdue = True
        self.kill()

    def kill(self) -> None:
        """End it."""
        if self.transport is None:
            return
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        # What it has started may still hold its output, whose end would be waited for.
        self.transport.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        """Take note of its end."""
        if self._timer is not None:
            self._timer.cancel()
        self._owner.ended(self._change, "" if isinstance(reason.value, ProcessDone) else self._explained(reason))

    def _explained(self, reason: Failure) -> str:
        if self._overdue:
            return f"the command had not ended after {COMMAND_TIMEOUT:g} s"
        ended: Any = reason.value
        how = (
            f"the command ended with exit status {ended.exitCode}"
            if ended.exitCode is not None
            else f"the command was ended by {signal.Signals(ended.signal).name}"
        )
        said = " ".join(self._errors.decode("utf-8", "replace").split())
        return f"{how}: {said}" if said else how
