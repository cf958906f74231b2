"""Addresses that are proven, on the real kernel and on addresses that are no loopback: a namespace has some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.sockets import LIMIT, RealTestCase, plain_socket, waiting_in
from twistedudp.core._amplification import ALLOWANCE, FACTOR
from twistedudp.methods import RPCMethods, method

if TYPE_CHECKING:
    import socket

    from twistedudp.address import Address
    from twistedudp.server import UDPServerService

SERVER: Final = "198.18.0.1"
SERVER6: Final = "fd00::1"
SOURCES: Final = "198.18.1"
"""All addresses that begin so are the namespace's own: one can speak in the name of each."""


class Library(RPCMethods):
    """What is served."""

    def __init__(self) -> None:
        self.runs = 0

    @method
    def read(self, number: int) -> str:
        """Return a page."""
        self.runs += 1
        return f"page {number} " * 100


class AddressProofTests(RealTestCase):
    """A server on an address of a namespace, and who asks it."""

    def setUp(self) -> None:
        """Make the namespace, be inside until the end of the test, and start the server."""
        super().setUp()
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        namespace = NetworkNamespace()
        self.addCleanup(namespace.close)
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
        namespace.run("ip", "address", "add", f"{SERVER6}/128", "dev", "lo", "nodad")
        namespace.run("ip", "route", "add", "local", f"{SOURCES}.0/24", "dev", "lo")
        inside = namespace.entered()
        inside.__enter__()
        self.addCleanup(inside.__exit__, None, None, None)
        self.library = Library()

    def address(self, service: UDPServerService) -> Any:
        """Return where a server is."""
        assert service.address is not None
        return service.address

    def stats(self, service: UDPServerService) -> Any:
        """Return a server's counters."""
        protocol: Any = service.protocol
        return protocol.stats

    async def test_foreign_client(self) -> None:
        """A client after the published specification reads what it is told, does it, and gets the response."""
        service = self.server(self.library, SERVER)
        plain = plain_socket(f"{SOURCES}.7")
        self.addCleanup(plain.close)
        address = self.address(service)

        def program() -> tuple[bytes, Any]:
            request = msgpack.packb([0, 1, "read", [1]])
            plain.sendto(request, address)
            told = plain.recv(LIMIT)
            plain.sendto(msgpack.packb([2, "rpc.prove", [msgpack.unpackb(told)[2]["data"]]]), address)
            plain.sendto(request, address)
            return told, msgpack.unpackb(plain.recv(LIMIT))

        told, answer = await deferToThread(program)
        self.assertLessEqual(len(told), ALLOWANCE)
        kind, msgid, error, result = msgpack.unpackb(told)
        self.assertEqual((kind, msgid, result), (1, 1, None))
        self.assertEqual(sorted(error), ["code", "data", "message"])
        self.assertEqual((error["code"], type(error["data"]), len(error["data"])), ("unproven_address", bytes, 16))
        self.assertEqual(error["message"], "send the notification rpc.prove [data], then this again")
        self.assertEqual(answer, [1, 1, None, "page 1 " * 100])
        self.assertEqual((self.library.runs, self.stats(service).proofs), (1, 1))

    async def test_own_client(self) -> None:
        """Our client's caller notices nothing, over IPv4 and IPv6, from one port or many."""
        for host in (SERVER, SERVER6):
            service = self.server(self.library, host)
            client = self.client_of(service, window=16, timeout=20.0)
            before = self.library.runs
            pages = await gatherResults([client.call("read", number) for number in range(50)])
            self.assertEqual(pages, [f"page {number} " * 100 for number in range(50)])
            self.assertEqual(self.library.runs - before, 50)
            stats = self.stats(service)
            self.assertGreaterEqual(stats.proofs, 1)
            self.assertEqual(stats.rejected, {})
            self.assertEqual((await client.call("rpc.methods"))[0]["name"], "echo")

    async def test_hundred_sources(self) -> None:
        """A hundred addresses that prove nothing are sent 3 times that and 128 bytes, whatever they ask for."""
        service = self.server(self.library, SERVER)
        address: Address = self.address(service)
        sources = [plain_socket(f"{SOURCES}.{number}") for number in range(1, 101)]
        for source in sources:
            self.addCleanup(source.close)
        came, went = dict.fromkeys(sources, 0), dict.fromkeys(sources, 0)

        def send(source: socket.socket, payload: bytes) -> None:
            came[source] += source.sendto(payload, address)

        for msgid in range(20):
            for number, source in enumerate(sources):
                send(source, msgpack.packb([0, msgid // 2, "read", [number]]))
                send(source, msgpack.packb([0, msgid, "rpc.methods", [] if number % 2 else [bytes(number)]]))
                send(source, msgpack.packb([0, msgid, "x" * (number % 7), []]))
            await self.taken(service, (msgid + 1) * 3 * len(sources))
            for source in sources:
                went[source] += sum(map(len, waiting_in(source)))
                self.assertLessEqual(went[source], FACTOR * came[source] + ALLOWANCE)
        self.assertGreaterEqual(min(went.values()), 119)
        stats = self.stats(service)
        self.assertEqual(self.library.runs, 1000)
        self.assertGreater(stats.withheld, 100)

    async def taken(self, service: UDPServerService, count: int) -> None:
        """Wait until a server has dealt with so many datagrams."""
        stats = self.stats(service)
        await self.until(lambda: stats.requests + stats.repeated + stats.rejected.total() >= count)

    async def test_tokens(self) -> None:
        """A token of one address does not prove another, on the same server and over the real network."""
        service = self.server(self.library, SERVER)
        address = self.address(service)
        one, other = plain_socket(f"{SOURCES}.1"), plain_socket(f"{SOURCES}.2")
        for plain in (one, other):
            self.addCleanup(plain.close)
        request = msgpack.packb([0, 1, "read", [1]])
        one.sendto(request, address)
        await self.until(lambda: self.stats(service).errors["unproven_address"] == 1)
        await self.turn()
        [told] = waiting_in(one)
        proof = msgpack.packb([2, "rpc.prove", [msgpack.unpackb(told)[2]["data"]]])
        other.sendto(proof, address)
        other.sendto(request, address)
        await self.until(lambda: self.stats(service).errors["unproven_address"] == 2)
        self.assertEqual(self.stats(service).rejected, {"bad_token": 1})
        one.sendto(proof, address)
        one.sendto(request, address)
        await self.until(lambda: self.stats(service).repeated == 1)
        await self.turn()
        self.assertEqual([len(datagram) > 700 for datagram in waiting_in(one)], [True])
        self.assertEqual([len(datagram) for datagram in waiting_in(other)], [119])
