"""Who is measured, and one round of one of them: a server process, a client process, and what both used meanwhile."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CONTESTANTS", "WARM_UP", "Contestant", "ContestantFailed", "Cores", "Round", "cores", "run_round"]

WARM_UP: Final = 2000
"""Calls made before those that count, or as many as count where these are fewer: the specialising interpreter has
settled after a few hundred, and a client of ours knows its round trip."""

_START_LIMIT: Final = 60.0
"""Seconds within which a process has imported what it needs and answers."""

_CALL_LIMIT: Final = 0.02
"""Seconds that a call may take on the average before a run counts as stuck: fifty times what the slowest needs."""

_CHILD: Final = str(Path(__file__).resolve().parent / "_child.py")


class ContestantFailed(Exception):
    """A contestant did not do its calls; the text says which and why."""


class Contestant(NamedTuple):
    """One row of the table."""

    name: str
    label: str
    module: str
    """The module beside this one that has both its sides."""
    share: float = 1.0
    """The part of the calls that it makes: those that take long make fewer, or a run would take ten minutes."""
    requirement: str = ""
    """What pip installs it by; empty for what is there anyway."""
    package: str = ""

    @property
    def installed(self) -> bool:
        """Tell whether it can take part."""
        return not self.package or find_spec(self.package) is not None


CONTESTANTS: Final = (
    Contestant("twistedudp", "twistedudp, each call runs once", "_ours"),
    Contestant("idempotent", "twistedudp, idempotent calls", "_ours"),
    Contestant("rpcudp", "rpcudp", "_rpcudp", 0.5, "rpcudp >= 5.0.1", "rpcudp"),
    Contestant("aiocoap", "aiocoap, confirmable POST", "_aiocoap", 0.1, "aiocoap >= 0.4.17", "aiocoap"),
    Contestant("own-port", "no RPC: twistedudp.listen", "_floor"),
    Contestant("twisted-port", "no RPC: reactor.listenUDP", "_floor"),
)
"""In the order of the table; the first is what the others are compared with."""


class Cores(NamedTuple):
    """Where the processes run; ``None`` for wherever the kernel puts them."""

    server: int | None
    client: int | None
    note: str
    """What to say of it."""


def cores() -> Cores:
    """Choose a core for each side, as far as this machine has them."""
    if not hasattr(os, "sched_setaffinity"):
        return Cores(None, None, "not pinned: this system has no sched_setaffinity")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return Cores(usable[0], usable[0], f"server and client share core {usable[0]}, the only one")
    return Cores(usable[0], usable[1], f"server on core {usable[0]}, client on core {usable[1]}")


class Round(NamedTuple):
    """What one round of one contestant gave. Times per call are in microseconds."""

    calls: int
    server: float
    """Processor time of the server process per call."""
    server_system: float
    """... of it in the kernel."""
    client: float
    client_system: float
    rate: float
    """Calls per second."""
    p50: float
    """The latency that half of the calls kept."""
    p99: float
    wrong: int
    failed: int
    failure: str
    """Why the first call failed that did."""


class _Process:
    """A process of the benchmark; it is gone when the ``with`` block is left."""

    def __init__(self, *arguments: object) -> None:
        self._arguments = [str(argument) for argument in arguments]

    def __enter__(self) -> Self:
        command = [sys.executable, _CHILD, *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        # A server ends with its standard input; a client has ended, unless something went wrong.
        process.__exit__(None, None, None) if self._ended() else self._kill()

    def _ended(self) -> bool:
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        try:
            self._process.stdin.close()
            self._process.wait(5.0)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return True

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stdin):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def tell(self) -> None:
        """Send the line that it waits for."""
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended_early() from None

    def heard(self, limit: float) -> dict[str, Any]:
        """Return what it tells next, within so many seconds."""
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        side, name = self._arguments[:2]
        ready, _, _ = select.select([self._process.stdout], [], [], limit)
        if not ready:
            raise ContestantFailed(f"{name}: '{side}' said nothing for {limit:.0f} s: a call was lost, or it hangs")
        line = self._process.stdout.readline()
        if not line:
            raise self._ended_early()
        heard: dict[str, Any] = json.loads(line)
        return heard

    def _ended_early(self) -> ContestantFailed:
        side, name = self._arguments[:2]
        return ContestantFailed(f"{name}: '{side}' ended with exit status {self._process.wait(_START_LIMIT)}")


def run_round(contestant: Contestant, where: Cores, *, calls: int, in_flight: int) -> Round:
    """Run one round: start both sides anew, warm up, make the calls, and return what they cost.

    Raises:
        ContestantFailed: It did not come to an end.
    """
    warm_up = min(calls, WARM_UP)
    server_core, client_core = ("-" if core is None else core for core in where[:2])
    with _Process("serve", contestant.name, contestant.module, server_core) as server:
        port = server.heard(_START_LIMIT)["port"]
        session = (calls, warm_up, in_flight, port)
        with _Process("ask", contestant.name, contestant.module, client_core, *session) as client:
            client.heard(_START_LIMIT + warm_up * _CALL_LIMIT)
            server.tell()
            before = server.heard(_START_LIMIT)
            client.tell()
            heard = client.heard(_START_LIMIT + calls * _CALL_LIMIT)
            server.tell()
            after = server.heard(_START_LIMIT)
    each = 1e6 / calls
    server_user, server_system = ((after[mode] - before[mode]) * each for mode in ("user", "system"))
    return Round(
        calls,
        server_user + server_system,
        server_system,
        (heard["user"] + heard["system"]) * each,
        heard["system"] * each,
        calls / heard["seconds"],
        heard["p50"] * 1e6,
        heard["p99"] * 1e6,
        heard["wrong"],
        heard["failed"],
        heard["failure"],
    )
