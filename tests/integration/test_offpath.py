"""Forged replies and ICMP errors through the real kernel: the client waits on, and the true answer still counts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest

from tests.integration import icmp
from tests.integration.netns import Wire, missing_for_namespaces
from tests.integration.sockets import LIMIT, RealTestCase, address_of, plain_socket
from twistedudp import _msgpack, errors
from twistedudp.messages import TYPE_REQUEST

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from twistedudp import UDPClientService
    from twistedudp.address import Address

ROUNDS = 50
HEAP = 100
"""Forged datagrams that are sent before the reactor turns: no more than the smallest receive buffer takes."""


def response(msgid: int, result: object) -> bytes:
    """Return a response's bytes."""
    return _msgpack.encode_response(msgid, None, result)


def msgid_of(request: bytes) -> int:
    """Return a request's message id."""
    msgid = _msgpack.peek_msgid_untrusted(request, TYPE_REQUEST)
    assert msgid is not None
    return msgid


class OffPathTestCase(RealTestCase):
    """A client that is attacked.

    Attributes:
        waiter: The client.
    """

    waiter: UDPClientService

    async def rejected(self, count: int) -> None:
        """Wait until the client has rejected so many datagrams and ICMP errors."""
        stats = self.waiter.stats
        await self.until(lambda: sum(stats.rejected.values()) + stats.duplicate >= count)


class RepliesTests(OffPathTestCase):
    """A client, its server, and whoever else can send to the client's port, on loopback."""

    def setUp(self) -> None:
        """Open the server's socket, one on another port of its host, and one on its port of another address."""
        super().setUp()
        self.true = self.plain()
        self.waiter = self.client(*address_of(self.true), timeout=60.0)
        self.other_port = self.plain()
        self.other_address = plain_socket("127.0.0.2", address_of(self.true)[1])
        self.addCleanup(self.other_address.close)

    async def test_replies(self) -> None:
        """Of thousands of forged replies none is accepted, and each is counted by its reason."""
        rng = random.Random(20261122)  # noqa: S311  # to be repeatable
        first = self.waiter.call("first")
        request, client = self.true.recvfrom(LIMIT)
        answered = msgid_of(request)
        self.true.sendto(response(answered, "true"), client)
        self.assertEqual(await first, "true")
        call = self.waiter.call("wait")
        await self.turn()
        msgid = msgid_of(self.true.recv(LIMIT))
        forged: list[tuple[socket.socket, Callable[[], bytes]]] = [
            (self.other_port, lambda: response(msgid, "forged")),
            (self.other_address, lambda: response(msgid, "forged")),
            (self.other_port, lambda: response(msgid ^ rng.randrange(1, 2**32), "forged")),
            (self.true, lambda: response(msgid ^ rng.randrange(1, 2**32), "forged")),
            (self.true, lambda: response(answered, "true")),
        ]
        for number in range(1, ROUNDS + 1):
            for _ in range(HEAP // len(forged)):
                for by, make in forged:
                    by.sendto(make(), client)
            await self.rejected(number * HEAP)
            self.assertNoResult(call)
        each = ROUNDS * HEAP // len(forged)
        self.assertEqual(self.waiter.stats.rejected, {"wrong_peer": 2 * each, "unmatched": 2 * each})
        self.assertEqual(self.waiter.stats.duplicate, each)
        self.true.sendto(response(msgid, "true"), client)
        self.assertEqual(await call, "true")
        self.assertEqual(self.waiter.stats.answered, 2)


class UnreachableTests(OffPathTestCase):
    """A client and its server in two network namespaces; the server's machine can send any ICMP message."""

    def setUp(self) -> None:
        """Make the namespaces, open the server's sockets in one, and enter the other until the end of the test."""
        super().setUp()
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        wire = Wire()
        self.addCleanup(wire.__exit__)
        with wire.there.entered():
            self.true = self.plain(Wire.THERE)
            self.raw = icmp.raw_socket(Wire.THERE)
            self.addCleanup(self.raw.close)
        inside = wire.here.entered()
        inside.__enter__()
        self.addCleanup(inside.__exit__, None, None, None)
        self.waiter = self.client(*address_of(self.true), timeout=60.0)

    def forge(self, client: Address, receiver: Address, payload: bytes) -> None:
        """Tell the client that a datagram that it sent did not arrive."""
        self.raw.sendto(icmp.error_about(client, receiver, payload, kind=icmp.PORT_UNREACHABLE), (client[0], 0))

    async def test_forged(self) -> None:
        """Errors that quote nothing of ours, or what we sent as if to another address, are counted, and that is all."""
        call = self.waiter.call("wait")
        request, client = self.true.recvfrom(LIMIT)
        server = address_of(self.true)
        forged: list[tuple[Address, bytes]] = [
            (server, b""),
            (server, b"noise"),
            (server, request[:3]),
            (server, _msgpack.encode_request(msgid_of(request) ^ 1, "wait", ())),
            (server, request[:-1] + b"\xc0"),
            ((server[0], server[1] ^ 1), request),
            (("198.18.0.3", server[1]), request),
        ]
        stats: Any = self.waiter.stats
        for number in range(1, ROUNDS + 1):
            for receiver, quoted in forged:
                self.forge(client, receiver, quoted)
            await self.rejected(number * len(forged))
            self.assertNoResult(call)
        self.assertEqual((stats.rejected["unmatched_icmp"], stats.refused), (ROUNDS * len(forged), 0))
        self.true.sendto(response(msgid_of(request), "true"), client)
        self.assertEqual(await call, "true")

    async def test_true(self) -> None:
        """One that quotes the request and where it was sent to ends the call: what is forged above does arrive."""
        call = self.waiter.call("wait")
        request, client = self.true.recvfrom(LIMIT)
        self.forge(client, address_of(self.true), request)
        error = await self.assertFailure(call, errors.PeerUnreachable)
        self.assertEqual(error.peer, address_of(self.true))
