"""A port that is flooded leaves time for everything else: timers stay punctual, whatever the size of the datagrams."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.contracts.providers import TwistedPorts
from tests.integration.compiling import missing_compiler
from tests.integration.generators import Generator, RunDelay
from tests.integration.reactors import IPV4, REACTORS, PortCase, variants
from twistedudp.echo import EchoProtocol
from twistedudp.transport import DEFAULT_RECEIVE_BUFFER

if TYPE_CHECKING:
    from tests.contracts.providers import OurPorts

TICK = 0.01
"""Seconds between two calls of the timer."""

MOST_LATE = 0.05
"""Seconds by which a call may be late."""

LONG = 5
"""Seconds."""
SHORT = 1

FLOOD = 5000
"""Datagrams a second that must come through to call it a flood, on a machine that is slow and busy."""

ATTEMPTS = 10


class Punctuality:
    """A timer that sets itself again, and knows how late it was at most."""

    def __init__(self, ports: OurPorts | TwistedPorts) -> None:
        self.ticks = 0
        self.worst = 0.0
        self._ports = ports
        self._waited = RunDelay()
        self._due = 0.0
        self._set()

    def _set(self) -> None:
        self._due = self._ports.reactor.seconds() + TICK
        self._ports.call_later(TICK, self._tick)

    def _tick(self) -> None:
        late = self._ports.reactor.seconds() - self._due - self._waited.since_last()
        self.ticks += 1
        self.worst = max(self.worst, late)
        self._set()


class Echo(DatagramProtocol):
    """A tutorial's echo, on any port."""

    noisy = False
    transport: Any

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Send a datagram back."""
        self.transport.write(datagram, addr)


class BatchEcho(EchoProtocol):
    """Our own echo, with the batch interface."""

    def datagrams_received(self, datagrams: Any) -> None:
        """Send a batch back."""
        self.transport.write_batch(datagrams)


def flood(ports: OurPorts | TwistedPorts, port: Any, size: int, seconds: int) -> tuple[int, Punctuality]:
    """Flood a port for so long; return how many datagrams were sent, and how late the timer was."""
    host = port.getHost()
    with Generator("flood", (host.host, host.port), size, seconds) as generator:
        timer = Punctuality(ports)
        ports.run_until(lambda: generator.ended)
        return generator.figures()["sent"], timer


class FloodedCase(PortCase):
    """Ports that are flooded."""

    patience = 60.0

    def setUp(self) -> None:
        """Look for a compiler."""
        if reason := missing_compiler():
            raise SkipTest(reason)
        super().setUp()

    def check(self, protocol: DatagramProtocol, size: int, seconds: int) -> None:
        """Flood an echo with datagrams of one size."""
        port = self.listen(protocol)
        sent, timer = flood(self.ports, port, size, seconds)
        stats = port.stats
        self.assertLess(timer.worst, MOST_LATE)
        self.assertGreater(timer.ticks, seconds / (TICK + MOST_LATE))
        self.assertGreater(stats.datagrams_received, FLOOD * seconds)
        self.wait(lambda: port.stats.datagrams_received + port.stats.dropped_by_kernel == sent, lambda: port.stats)
        self.assertEqual(stats.callback_errors, 0)


@variants(globals())
@pytest.mark.heavy
class Flooded(FloodedCase):
    """For a second, on everything."""

    def test_empty(self) -> None:
        """Empty datagrams count as any other: a bound in bytes would not see them."""
        self.check(Echo(), 0, SHORT)


@variants(globals(), reactors=["EPoll"], families=[IPV4])
@pytest.mark.heavy
class FloodedLong(FloodedCase):
    """For as long as an operator would notice, with each size."""

    def test_empty(self) -> None:
        """Empty datagrams."""
        self.check(Echo(), 0, LONG)

    def test_1_byte(self) -> None:
        """The smallest that have a byte."""
        self.check(Echo(), 1, LONG)

    def test_64_bytes(self) -> None:
        """Usual requests."""
        self.check(Echo(), 64, LONG)

    def test_1400_bytes(self) -> None:
        """The largest that fit most networks."""
        self.check(Echo(), 1400, LONG)

    def test_own_echo(self) -> None:
        """The echo of ``twistd udpecho``."""
        self.check(EchoProtocol(), 64, LONG)

    def test_batches(self) -> None:
        """A protocol that takes batches, empty ones and others."""
        for size in (0, 64):
            self.check(BatchEcho(), size, LONG)


class StockPortTests(SynchronousTestCase):
    """The same on ``reactor.listenUDP``."""

    def test_empty(self) -> None:
        """It is late by more than is allowed: this check sees what it is there to see.

        Where other programs keep the sender from its processor there is no flood, hence several attempts.
        """
        if reason := missing_compiler():
            raise SkipTest(reason)

        class Stock(TwistedPorts):
            make_reactor = staticmethod(REACTORS["EPoll"])
            patience = 60.0

        ports = Stock()
        self.addCleanup(ports.close)
        port = ports.listen(Echo(), "127.0.0.1")
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEFAULT_RECEIVE_BUFFER)  # as ours
        worst = [flood(ports, port, 0, SHORT)[1].worst]
        while worst[-1] < MOST_LATE and len(worst) < ATTEMPTS:
            worst.append(flood(ports, port, 0, SHORT)[1].worst)
        port.stopListening()
        ports.settle()
        self.assertGreater(worst[-1], MOST_LATE, worst)
