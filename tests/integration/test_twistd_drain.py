"""``twistd udpecho`` at SIGTERM: what runs is answered, what is new is refused, and the port is free soon."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_twistd_service import Readers
from tests.integration.twistd import PATIENCE, Directory, RunningTwistd
from twistedudp import _msgpack
from twistedudp.messages import Response
from twistedudp.methods import RPCMethods, method
from twistedudp.server import UDPServerService

if TYPE_CHECKING:
    from twistedudp.address import Address

SLOW = """
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twistedudp import RPCMethods, method

class Slow(RPCMethods):
    def __init__(self):
        self.running = 0
        self.gate = []

    @method
    async def slow(self, seconds: float) -> float:
        from twisted.internet import reactor
        self.running += 1
        await deferLater(reactor, seconds)
        self.running -= 1
        return seconds

    @method
    def count(self) -> int:
        return self.running
"""

SERVED = ("--protocol", "rpc", "--protocol-option", "class=slow:Slow")


class DrainTestCase(SynchronousTestCase):
    """A module with slow methods, and clients that never repeat anything by themselves."""

    def setUp(self) -> None:
        """Write the module."""
        directory = Directory()
        self.addCleanup(directory.__exit__, None, None, None)
        directory.write("slow.py", SLOW)
        self.path = directory.path
        self.msgid = 0

    def serving(self, *options: str, port: int = 0) -> RunningTwistd:
        """Start a server."""
        command = ("udpecho", "--port", str(port), *SERVED)
        return RunningTwistd(*options, command=command, python_path=[self.path])

    def client(self) -> socket.socket:
        """Return a socket."""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(PATIENCE)
        self.addCleanup(client.close)
        return client

    def send(self, client: socket.socket, address: Address, name: str, *params: object) -> bytes:
        """Send a request and return it."""
        self.msgid += 1
        request = _msgpack.encode_request(self.msgid, name, list(params))
        client.sendto(request, address)
        return request

    def receive(self, client: socket.socket) -> object:
        """Return the result of the next response, or the code of its error."""
        response = _msgpack.decode_untrusted(client.recv(65536))
        assert isinstance(response, Response)
        return response.error["code"] if isinstance(response.error, dict) else response.result

    def ask(self, client: socket.socket, address: Address, name: str, *params: object) -> object:
        """Send a request and return what comes next."""
        self.send(client, address, name, *params)
        return self.receive(client)

    def wait_until_running(self, address: Address, wanted: int) -> None:
        """Wait until so many slow requests run."""
        client = self.client()
        deadline = time.monotonic() + PATIENCE
        while self.ask(client, address, "count") != wanted:
            self.assertLess(time.monotonic(), deadline)


class SignalTests(DrainTestCase):
    """A real process and real signals."""

    CLIENTS = 20
    REQUESTS = 10

    def test_under_load(self) -> None:
        """All that runs at SIGTERM is answered, once and unasked; new requests are refused; answers are repeated."""
        clients = [self.client() for _ in range(self.CLIENTS)]
        with self.serving("--drain-timeout", "60") as server:
            address = server.address
            late = self.client()
            answered = self.send(late, address, "count")
            self.assertEqual(self.receive(late), 0)
            for client in clients:
                for number in range(self.REQUESTS):
                    self.send(client, address, "slow", 1.0 + number / 10)
            self.wait_until_running(address, self.CLIENTS * self.REQUESTS)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("takes no new requests, and stops when those that run are answered, after 60 s at most")
            self.assertEqual(self.ask(late, address, "count"), "server_stopping")
            late.sendto(answered, address)
            self.assertEqual(self.receive(late), 0)
            self.assertEqual(server.process.wait(PATIENCE), -signal.SIGTERM)
            for client in clients:
                expected = [1.0 + number / 10 for number in range(self.REQUESTS)]
                self.assertEqual(sorted(float(str(self.receive(client))) for _ in range(self.REQUESTS)), expected)
                client.setblocking(False)
                self.assertRaises(BlockingIOError, client.recv, 100)
        self.assertNotIn("Traceback", server.output)
        self.assertEqual(server.errors, "")

    def test_time_is_over(self) -> None:
        """What takes longer than --drain-timeout is answered server_stopping, and the server ends."""
        client = self.client()
        with self.serving("--drain-timeout", "0.3") as server:
            self.send(client, server.address, "slow", 600.0)
            self.wait_until_running(server.address, 1)
            begun = time.monotonic()
            self.assertEqual(server.stop(), -signal.SIGTERM)
            self.assertGreaterEqual(time.monotonic() - begun, 0.3)
        self.assertEqual(self.receive(client), "server_stopping")
        self.assertIn("what still runs after 0.3 s is ended", server.output)
        self.assertNotIn("Traceback", server.output)

    def test_second_signal(self) -> None:
        """A second SIGTERM, or SIGINT, ends it at once, and is no error."""
        for second in (signal.SIGTERM, signal.SIGINT):
            client = self.client()
            with self.serving("--drain-timeout", "600") as server:
                self.send(client, server.address, "slow", 600.0)
                self.wait_until_running(server.address, 1)
                server.process.send_signal(signal.SIGTERM)
                server.wait_for("takes no new requests")
                self.assertEqual(server.stop(second), -signal.SIGTERM)
            self.assertEqual(self.receive(client), "server_stopping")
            self.assertNotIn("Traceback", server.output)
            self.assertNotIn("what still runs", server.output)

    def test_restart(self) -> None:
        """The next server has the same port without a second's delay, whatever the last one had to do at its end."""
        client = self.client()
        port = 0
        took: list[float] = []
        for _ in range(3):
            begun = time.monotonic()
            with self.serving(port=port) as server:
                port = server.address[1]
                self.assertEqual(self.ask(client, server.address, "count"), 0)
                took.append(time.monotonic() - begun)
                self.send(client, server.address, "slow", 0.2)
                self.wait_until_running(server.address, 1)
            self.assertEqual(self.receive(client), 0.2)
        self.assertLess(min(took[1:]) - took[0], 1.0, took)


class Waits(RPCMethods):
    """One method that the test ends."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []

    @method
    def wait(self) -> Deferred[object]:
        """Wait."""
        self.waiting.append(Deferred())
        return self.waiting[-1]


class CycleTests(SynchronousTestCase):
    """Start, drain and start again, in one process."""

    def test_cycles(self) -> None:
        """Twenty times on one port: each answers what runs, and no descriptor is left."""
        self.check(20)

    @pytest.mark.slow
    def test_many_cycles(self) -> None:
        """A thousand times."""
        self.check(1000)

    def check(self, cycles: int) -> None:
        """Do so many cycles."""
        reactor = Readers()
        methods = Waits()
        port = 0
        descriptors = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            for cycle in range(cycles):
                service = UDPServerService(reactor, port, methods)
                service.startService()
                assert service.address is not None
                port = service.address[1]
                begun = time.monotonic()
                client.sendto(_msgpack.encode_request(cycle, "wait", []), service.address)
                self.turn(reactor)
                drained = service.drain(5.0)
                methods.waiting.pop().callback(cycle)
                self.turn(reactor)
                self.assertIsNone(self.successResultOf(drained))
                self.assertLess(time.monotonic() - begun, 1.0)
                self.assertEqual(_msgpack.decode_untrusted(client.recv(100)), Response(cycle, None, cycle))
                self.assertEqual((reactor.readers, reactor.getDelayedCalls()), (set(), []))
                open_now = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # one list, without a descriptor per entry
                descriptors = descriptors or open_now
                self.assertEqual(open_now, descriptors)

    def turn(self, reactor: Readers) -> None:
        """Let the reactor read what there is and do what is due."""
        for reader in list(reactor.readers):
            reader.doRead()
        reactor.advance(0)
