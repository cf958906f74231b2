"""Our echo server and foreign ones that a forged datagram sets upon it, and a client that repeats itself."""

from __future__ import annotations

import time

import pytest
from twisted.trial.unittest import SkipTest

from tests.integration.foreign import foreign_server, missing_program
from tests.integration.netns import missing_for_namespaces
from tests.integration.reactors import IPV4, PortCase, variants
from twistedudp.client import UDPClientService
from twistedudp.echo import EchoProtocol
from twistedudp.server import UDPServerService

pytestmark = pytest.mark.heavy

CUT_WITHIN = 10.0
"""Seconds in which a loop is to be recognised and dead."""


@variants(globals(), reactors=["EPoll"], backends=["mmsg"], families=[IPV4])
class EchoLoop(PortCase):
    """On a loopback where a foreign echo server is."""

    def check(self, name: str) -> None:
        """Send one datagram from our server to another, and see the loop begin, and end."""
        if reason := missing_program(name) or missing_for_namespaces():
            raise SkipTest(reason)
        with foreign_server(name, self.family.host) as foreign:
            server = self.serve(UDPServerService(self.reactor, 0, EchoProtocol, self.family.host))
            began = time.monotonic()
            server.protocol.transport.write(b"as if it were forged", foreign)
            stats = server.protocol.stats
            self.wait(lambda: stats.held > 0, "the loop was not noticed")
            self.wait(lambda: stats.reflectors_cut == 1, "the reflector was not recognised")
            self.assertLess(time.monotonic() - began, CUT_WITHIN)
            self.assertGreater(stats.echoed, 10)
            received = server.stats.datagrams_received
            self.run_for(0.2)
            self.assertEqual(server.stats.datagrams_received, received)
            [warning] = self.log.warnings
            self.log.events.clear()
            self.assertIn("sends back whatever it gets", str(warning))

    def test_inetd(self) -> None:
        """The echo service of an inetd."""
        self.check("inetutils-inetd")

    def test_own_client(self) -> None:
        """A client of ours that asks for the same bytes again and again, one after the other, misses no answer."""
        server = self.serve(UDPServerService(self.reactor, 0, EchoProtocol, self.family.host))
        client = self.serve(UDPClientService(self.reactor, *server.address))
        ends = time.monotonic() + 3.5
        answered = 0
        while time.monotonic() < ends:
            self.assertEqual(self.fired(client.echo_bytes(b"the same")), b"the same")
            answered += 1
        self.assertEqual(server.protocol.stats.reflectors_cut, 0)
        self.assertGreater(server.protocol.stats.held, 0)  # it was on trial meanwhile, and passed
        self.assertGreater(answered, 100)
