"""Somebody off the path who knows everything and must achieve nothing.

Theory of operation: a forger is told of each datagram that a client sends, and now and then sends one of his own: an
answer to it, the same request again, or an ICMP error. None of them has both an address and an id that fit,
so none may have any effect but a counter's, and a run for the forger himself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import DatagramProtocol

from twistedudp._msgpack import encode_response, peek_msgid_untrusted
from twistedudp.impairment import Datagram
from twistedudp.impairment._link import derived_rng
from twistedudp.impairment._packets import port_unreachable
from twistedudp.messages import TYPE_REQUEST

if TYPE_CHECKING:
    from tests.simulated.world import World
    from twistedudp.testing._host import Host

__all__ = ["FORGED", "Forger"]

FORGED: Final = "forged"
"""The result in the forger's responses; no method returns it."""


class Forger(DatagramProtocol):
    """Somebody who sees all that clients send, but has no part in it: all that he sends must be without effect."""

    noisy = False

    def __init__(self, world: World, share: float) -> None:
        self._world = world
        self._rng = derived_rng(world.plan.seed, "forger")
        self._share = share
        self._reactor = world.network.reactor("192.0.2.200", "2001:db8::c8", name="forger.example")
        self._reactor.listenUDP(4000, self, "::")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take what servers answer him."""

    def saw(self, host: Host, datagram: Datagram) -> None:
        """See a datagram, and perhaps make use of it."""
        if host.name in self._world.client_hosts and self._rng.random() < self._share:
            self._world.network.clock.callLater(self._rng.uniform(0.0, 0.02), self._forge, host, datagram)

    def _forge(self, host: Host, datagram: Datagram) -> None:
        self._world.ledger.occurred["forged"] += 1
        client, server, payload, error = datagram
        ipv6 = ":" in server[0]
        me = ("2001:db8::c8" if ipv6 else "192.0.2.200", 4000)
        other_port = (client[0], 4000)
        msgid = peek_msgid_untrusted(payload, TYPE_REQUEST)
        which = self._rng.randrange(5)
        if which == 0:  # an answer from the wrong address
            answer = payload if msgid is None else encode_response(msgid, None, FORGED)
            self._send(Datagram(me, client, answer))
        elif which == 1:  # from the right one with a msgid of nobody's
            self._send(Datagram(server, client, encode_response(self._rng.getrandbits(32), None, FORGED)))
        elif which == 2:  # the same request from another address
            self._send(Datagram(me, server, payload))
        elif which == 3:  # from another port of the client's own host
            self._world.network.forge(host, Datagram(other_port, server, payload))
        else:  # an ICMP error that quotes something else
            wrong = bytes(byte ^ 0x5A for byte in payload) or b"?"
            self._send(port_unreachable(Datagram(client, server, wrong, error)))

    def _send(self, datagram: Datagram) -> None:
        self._world.network.forge(self._reactor.host, datagram)
