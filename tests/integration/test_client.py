"""The client on real sockets: its promises about time, addresses and ports, and peers that are not ours."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from tests.integration.sockets import LIMIT, RealTestCase, address_of, has_ipv6_loopback, plain_socket
from twistedudp import errors
from twistedudp.client import UDPClientService
from twistedudp.echo import EchoProtocol
from twistedudp.methods import RPCMethods, current_peer, method

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

SOON = 0.05
"""Seconds within which a refusal must be known."""

NUMBERS = [3.14159, 2.71828, 1.41421]


class Calculator(RPCMethods):
    """What is served."""

    def __init__(self) -> None:
        self.noted: list[object] = []
        self.held: list[tuple[int, Deferred[int]]] = []

    @method
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    @method
    def note(self, what: object) -> None:
        """Take a note."""
        self.noted.append(what)

    @method
    def hold(self, number: int) -> Deferred[int]:
        """Answer when the test says so."""
        self.held.append((number, Deferred()))
        return self.held[-1][1]

    @method
    async def who(self) -> int:
        """Tell the caller's port."""
        return current_peer().port


class TimeTests(RealTestCase):
    """How long a call takes to fail."""

    async def test_stopped_server(self) -> None:
        """When the server is stopped the next call knows at once, and so does an echo."""
        server = self.server(Calculator())
        client = self.client_of(server)
        self.assertEqual(await client.call("add", 1, 2), 3)
        stopped: Any = server.stopService()
        await stopped
        requests: list[Callable[[], Deferred[Any]]] = [lambda: client.call("add", 1, 2), lambda: client.echo_bytes(b"")]
        for request in requests:
            took = []
            for _ in range(5):  # the quickest counts: on a busy machine this process may have to wait for its turn
                started = self.reactor.seconds()
                error = await self.assertFailure(request(), errors.PeerUnreachable)
                took.append(self.reactor.seconds() - started)
                self.assertEqual(error.reason, "Connection refused")
            self.assertLess(min(took), SOON)

    async def test_server_comes_back(self) -> None:
        """The same client goes on when a server is there again."""
        port = self.plain()
        address = address_of(port)
        port.close()
        client = self.client(*address)
        await self.assertFailure(client.call("add", 1, 2), errors.PeerUnreachable)
        again = plain_socket(*address)
        self.addCleanup(again.close)
        call = client.call("add", 1, 2)
        await self.turn()
        request, caller = again.recvfrom(LIMIT)
        again.sendto(msgpack.packb([1, msgpack.unpackb(request)[1], None, 3]), caller)
        self.assertEqual(await call, 3)

    async def test_silent_server(self) -> None:
        """A server that keeps silent ends the call after 2 s, and has got the same datagram four times."""
        silent = self.plain()
        client = self.client(*address_of(silent))
        started = self.reactor.seconds()
        error = await self.assertFailure(client.call("add", 1, 2), TimeoutError)
        took = self.reactor.seconds() - started
        self.assertTrue(2.0 <= took <= 2.5, took)
        self.assertIsInstance(error, errors.RequestTimedOut)
        self.assertTrue(2.0 <= error.elapsed <= 2.5, error.elapsed)
        datagrams = {silent.recvfrom(LIMIT) for _ in range(error.attempts)}
        self.assertEqual((error.attempts, len(datagrams)), (4, 1))


class AddressTests(RealTestCase):
    """Names and addresses."""

    async def test_localhost(self) -> None:
        """The name localhost works with the server on one of its two addresses only."""
        if not has_ipv6_loopback():
            raise SkipTest("this machine has no IPv6 loopback address")
        self.names({"localhost": ("::1", "127.0.0.1")})  # as RFC 6761 has it, and /etc/hosts perhaps has not
        for interface in ("::1", "127.0.0.1"):
            server = self.server(EchoProtocol(), interface)
            assert server.address is not None
            client = self.client("localhost", server.address[1])
            started = self.reactor.seconds()
            self.assertEqual(await client.echo(NUMBERS), NUMBERS)
            self.assertEqual(await client.echo_bytes(b"bytes"), b"bytes")
            self.assertLess(self.reactor.seconds() - started, 1.0)
            self.assertEqual(client.stats.refused, 0 if interface == "::1" else 1)

    async def test_this_machines_localhost(self) -> None:
        """The name localhost works as this machine resolves it, with the server on its IPv4 address."""
        server = self.server(Calculator())
        assert server.address is not None
        self.assertEqual(await self.client("localhost", server.address[1]).call("add", 1, 2), 3)

    async def test_unknown_host(self) -> None:
        """A name that does not resolve is HostNotFound."""
        client = self.client("nosuch.invalid", 7, timeout=60.0)
        error = await self.assertFailure(client.call("add", 1, 2), errors.HostNotFound)
        self.assertEqual(error.host, "nosuch.invalid")

    async def test_no_backend(self) -> None:
        """A TWISTEDUDP_BACKEND that is none fails each call with what says so, for names and numbers alike."""
        self.patch(os, "environ", {**os.environ, "TWISTEDUDP_BACKEND": "fast"})
        self.names({"there.example": ("127.0.0.1",)})
        port = address_of(self.plain())[1]
        for host in ("there.example", "127.0.0.1"):
            client = self.client(host, port)
            for _ in range(2):
                for request in (client.call("x"), client.echo_bytes(b"x")):
                    error = await self.assertFailure(request, errors.LocalError)
                    self.assertIn("there is no backend 'fast'", str(error))
            self.assertEqual(client.stats.aborted, 0)
            await client.stopService()
            self.assertEqual(client.stats.aborted, 0)

    async def test_largest(self) -> None:
        """The largest datagrams of both families are echoed whole, and so is the empty one."""
        for interface, largest in (("127.0.0.1", 65507), ("::1", 65527)):
            if ":" in interface and not has_ipv6_loopback():
                continue
            client = self.client_of(self.server(EchoProtocol(), interface))
            for data in (b"", b"x", bytes(range(256)) * 255, b"y" * largest):
                self.assertEqual(await client.echo_bytes(data), data)
            too_large: Deferred[Any] = client.echo_bytes(b"z" * (largest + 1))
            error = await self.assertFailure(too_large, errors.DatagramTooLarge)
            self.assertEqual((error.size, error.limit), (largest + 1, largest))

    async def test_broadcast(self) -> None:
        """Loopback's own broadcast address, which only the kernel knows for one, is a BroadcastNotSupported."""
        client = self.client("127.255.255.255", 9)
        error = await self.assertFailure(client.call("add", 1, 2), errors.BroadcastNotSupported)
        self.assertEqual(error.host, "127.255.255.255")


class ManyTests(RealTestCase):
    """Many requests at once."""

    async def test_thousand_calls(self) -> None:
        """A thousand calls in flight, answered in the opposite order, get each its own answer."""
        methods = Calculator()
        client = self.client_of(self.server(methods), timeout=60.0, window=1000)
        calls = [client.call("hold", number) for number in range(1000)]
        await self.until(lambda: len({number for number, _ in methods.held}) == 1000)
        for number, held in reversed(methods.held):
            held.callback(number * number)
        self.assertEqual(await gatherResults(calls), [number * number for number in range(1000)])

    async def test_thousand_echoes(self) -> None:
        """A thousand different raw echoes and values through one client's port."""
        server = self.server(EchoProtocol())
        client = self.client_of(server, timeout=60.0)
        values = await gatherResults([client.echo({"number": number}) for number in range(500)])
        self.assertEqual(values, [{"number": number} for number in range(500)])
        raw = await gatherResults([client.echo_bytes(b"%d" % number) for number in range(500)])
        self.assertEqual(raw, [b"%d" % number for number in range(500)])
        self.assertEqual(len(client._pump._ports), 1)

    async def test_stop_in_flight(self) -> None:
        """Stopping with calls in flight fails each of them, and leaves the ports free."""
        silent = self.plain()
        client = self.client(*address_of(silent), window=100)
        calls = [client.call("add", number, 1) for number in range(50)]
        calls += [client.echo_bytes(b"same") for _ in range(3)]
        bound = {silent.recvfrom(LIMIT)[1] for _ in range(53)}
        self.assertEqual(len(bound), 3)
        stopped = client.stopService()
        for call in calls:
            self.failureResultOf(call, errors.RequestAborted)
        await stopped
        for host, port in bound:
            plain_socket(host, port).close()
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if "_pump" in str(call)], [])

    async def test_async_with(self) -> None:
        """A whole program in an ``async with``: results, errors, a notification, and a free port behind it."""
        methods = Calculator()
        server = self.server(methods)
        assert server.address is not None
        async with UDPClientService(self.reactor, *server.address) as client:
            self.assertEqual(await client.echo(NUMBERS), NUMBERS)
            port: int = await client.call("who")
            error = await self.assertFailure(client.call("add", 1, "x"), errors.ErrorReplyReceived)
            self.assertEqual(error.code, "wrong_parameter_type")
            client.notify("note", {"bye": dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)})
        await self.until(lambda: bool(methods.noted))
        self.assertEqual(methods.noted, [{"bye": dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)}])
        plain_socket("127.0.0.1", port).close()


class ForeignPeerTests(RealTestCase):
    """Peers written with msgpack and a plain socket after the published specification."""

    async def test_foreign_client(self) -> None:
        """A foreign client calls our server; the answers are what the specification says."""
        methods = Calculator()
        server = self.server(methods)

        def program(address: Any) -> list[Any]:
            answers = []
            with plain_socket() as plain:
                plain.sendto(msgpack.packb([2, "note", ["from afar"]]), address)
                for msgid, name, params in (
                    (0, "add", [1, 2]),
                    (1, "add", [1]),
                    (2**32 - 1, "echo", [{"list": NUMBERS}]),
                    (127, "subtract", [1, 2]),
                    (128, "note", [None]),
                ):
                    plain.sendto(msgpack.packb([0, msgid, name, params]), address)
                    answers.append(msgpack.unpackb(plain.recv(LIMIT)))
            return answers

        answers = await deferToThread(program, server.address)
        self.assertEqual(answers[0], [1, 0, None, 3])
        self.assertEqual(answers[1][:2] + answers[1][3:], [1, 1, None])
        self.assertEqual(answers[1][2]["code"], "wrong_parameter_count")
        self.assertEqual(answers[2], [1, 2**32 - 1, None, {"list": NUMBERS}])
        self.assertEqual((answers[3][1], answers[3][2]["code"], answers[3][3]), (127, "unknown_method", None))
        self.assertEqual(answers[4], [1, 128, None, None])
        self.assertEqual(methods.noted, ["from afar", None])

    def foreign_server(self, plain: socket.socket, answer: Callable[[str, list[Any]], tuple[Any, Any]]) -> None:
        """Answer until a notification says that it is enough."""
        while True:
            datagram, caller = plain.recvfrom(LIMIT)
            message = msgpack.unpackb(datagram)
            if message[0] == 2:
                return
            _, msgid, name, params = message
            plain.sendto(msgpack.packb([1, msgid, *answer(name, params)]), caller)

    async def test_foreign_server(self) -> None:
        """Our client calls a foreign server, whose errors are what it likes."""

        def answer(name: str, params: list[Any]) -> tuple[Any, Any]:
            if name == "sum":
                return None, sum(params)
            return {"unknown": ("no such method", None), "wrong": ([17, "wrong"], None)}[name]

        plain = self.plain()
        server = deferToThread(self.foreign_server, plain, answer)
        client = self.client(*address_of(plain))
        self.assertEqual(await client.call("sum", 1, 2.5, -4), -0.5)
        error = await self.assertFailure(client.call("unknown"), errors.ErrorReplyReceived)
        self.assertEqual((error.code, error.message, error.data), ("", "no such method", "no such method"))
        error = await self.assertFailure(client.call("wrong"), errors.ErrorReplyReceived)
        self.assertEqual((error.code, error.data), ("", [17, "wrong"]))
        client.notify("enough")
        await server
