"""How much of a flood from forged addresses honest clients stand: at one rate, and the rate at which they no longer do.

Theory of operation: a server reads, decides and drops so many datagrams a second; that is its capacity, measured with
sources that it denies. Then as many sources as there are send requests that it would run, at a part of that. What the
kernel drops, because the server's buffer is full, hits honest clients as much as attackers: nobody can tell them apart
before they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.siege import payloads
from tests.siege.field import SERVER
from tests.siege.processes import Forgery, HonestClients, Watched

if TYPE_CHECKING:
    from tests.integration.twistd import RunningTwistd
    from tests.siege.field import Field

__all__ = ["DENIED", "Flooded", "capacity_of", "flood", "search"]

DENIED: Final = "11.0.0.0/8"
"""The network whose datagrams measure the capacity: the server's option ``--deny``."""

_EVERYWHERE: Final = "10.0.0.0/8"
_CALLS: Final = 50
"""Honest calls per second."""


class Flooded(NamedTuple):
    """What became of a server and its clients."""

    rate: float
    """Datagrams per second that were sent."""
    sent: int
    read: int
    dropped: int
    """By the kernel, for want of room."""
    grown: int
    """Bytes by which the server grew, at the most."""
    processor: float
    """The part of one processor that the server took."""
    clients: dict[str, Any]

    @property
    def success(self) -> float:
        """The part of the honest calls that were answered."""
        return float(self.clients["answered"] / self.clients["calls"])


def capacity_of(field: Field, server: RunningTwistd, seconds: float = 1.0) -> float:
    """Return how many datagrams a second a server reads and refuses, or as many as can be sent here if that is less."""
    before = field.kernel()
    target = (SERVER, server.address[1])
    with Forgery(field.attacker, target, payloads.requests("count", 1, 2), sources=DENIED, seconds=seconds) as forgery:
        took = forgery.figures()["seconds"]
    return float((field.kernel()["InDatagrams"] - before["InDatagrams"]) / took)


def flood(field: Field, server: RunningTwistd, rate: float, seconds: float, kind: str = "rpc") -> Flooded:
    """Flood a server from a million addresses while trusted clients call it.

    Args:
        field: Where.
        server: It trusts the clients' host.
        rate: Datagrams per second; 0 as many as possible.
        seconds: For how long.
        kind: What it serves: ``rpc`` or ``echo``.
    """
    target = (SERVER, server.address[1])
    sends = payloads.echoes() if kind == "echo" else payloads.requests("count", 1, 2)
    with HonestClients(field.clients, target, kind, rate=_CALLS, seconds=seconds, clients=2) as clients:
        clients.wait()
        before, pid = field.kernel(), server.process.pid
        with (
            Watched({"server": pid}) as watched,
            Forgery(field.attacker, target, sends, sources=_EVERYWHERE, rate=rate, seconds=seconds) as forgery,
        ):
            sent = forgery.figures(seconds + 60)
        after = field.kernel()
        figures = clients.figures(seconds + 60)
    return Flooded(
        sent["sent"] / sent["seconds"],
        sent["sent"],
        after["InDatagrams"] - before["InDatagrams"],
        after["RcvbufErrors"] - before["RcvbufErrors"],
        watched.grown("server"),
        watched.processor("server") / sent["seconds"],
        figures,
    )


def search(field: Field, server: RunningTwistd, most: float, kind: str = "rpc", seconds: float = 4.0) -> list[Flooded]:
    """Return floods of rising rates up to the one that trusted clients do not stand, and then closer to that.

    Args:
        field: Where.
        server: See :func:`flood`.
        most: Datagrams per second to begin and end with: an eighth of it is the first rate.
        kind: See :func:`flood`.
        seconds: For how long each.
    """
    tried: list[Flooded] = []
    held, broke, rate = 0.0, 0.0, most / 8
    while len(tried) < 8 and (not broke or broke > 1.1 * held):
        tried.append(flood(field, server, rate, seconds, kind))
        if tried[-1].success >= 0.99:
            held = rate
        else:
            broke = rate
        rate = (held + broke) / 2 if broke else 2 * held
        if not broke and held >= 2 * most:
            break
    return tried
