"""The floor: a Twisted DatagramProtocol that echoes, and one that asks it, without any RPC, on two kinds of port.

What remains of a call when all that makes it a call is taken away: the socket, the reactor, the delivery of a datagram.
A datagram that is lost is not sent again; the program that started this one waits for a while and then says so.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from _session import Tally, texts
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import react

import twistedudp

if TYPE_CHECKING:
    from collections.abc import Callable

    from _session import Session

__all__ = ["ask", "serve"]

_reactor: Any = reactor  # Twisted declares a module here


def _listen(name: str, protocol: DatagramProtocol) -> Any:
    if name == "twisted-port":
        return _reactor.listenUDP(0, protocol, interface="127.0.0.1")
    return twistedudp.listen(_reactor, 0, protocol, interface="127.0.0.1")


class Echo(DatagramProtocol):
    """Send back what comes."""

    transport: Any

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Send it back."""
        self.transport.write(datagram, addr)


class Asker(DatagramProtocol):
    """Keep a number of datagrams in flight and compare what comes back."""

    transport: Any

    def __init__(self, session: Session) -> None:
        self._session = session
        self._peer = ("127.0.0.1", session.port)
        self._payloads = [text.encode() for text in texts()]
        self._sent: dict[bytes, float] = {}
        self._tally = Tally(0)
        self._done: Deferred[Tally] = Deferred()

    def run(self, calls: int) -> Deferred[Tally]:
        """Make so many exchanges; the Deferred fires with their tally."""
        self._tally = Tally(calls)
        self._done = Deferred()
        for _ in range(min(self._session.in_flight, calls)):
            self._ask()
        return self._done

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002  # Twisted's signature
        """Compare it with what was sent, and send the next."""
        tally = self._tally
        began = self._sent.pop(datagram, None)
        if began is None:
            tally.wrong += 1
            # Which of them it should have been is not known: forget any, so that the run ends.
            self._sent.popitem()
        else:
            tally.latencies.append(perf_counter() - began)
        if tally.left:
            self._ask()
        elif not self._sent:
            self._done.callback(tally)

    def _ask(self) -> None:
        tally = self._tally
        tally.left -= 1
        payload = self._payloads[tally.left % len(self._payloads)]
        self._sent[payload] = perf_counter()
        self.transport.write(payload, self._peer)


def serve(name: str, ready: Callable[[int], None]) -> None:
    """Serve for ever."""
    ready(_listen(name, Echo()).getHost().port)
    _reactor.run()


def ask(name: str, session: Session) -> None:
    """Make the exchanges of a session; ends with SystemExit."""

    async def main() -> None:
        asker = Asker(session)
        port = _listen(name, asker)
        await session.measure(asker.run)
        await port.stopListening()

    react(lambda _: Deferred.fromCoroutine(main()))
