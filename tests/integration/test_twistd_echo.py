"""The echo server as a process, asked by plain sockets and by ``socat``."""

from __future__ import annotations

import os
import resource
import selectors
import shutil
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.twistd import PATIENCE, RunningTwistd
from twistedudp.address import is_ipv6
from twistedudp.echo import EchoProtocol

if TYPE_CHECKING:
    from twistedudp.address import Address

SIZES = (0, 1, 1472, 8193, 65507)

ANY = "0.0.0.0"  # noqa: S104  # served on loopback's behalf: a test of what a wildcard bind answers


def payload(size: int) -> bytes:
    """Return bytes of every value, in no simple order."""
    return bytes(index * 31 % 251 for index in range(size))


def ipv6_works() -> bool:
    """Tell whether this machine has IPv6 on loopback."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


def client_for(host: str) -> socket.socket:
    """Return a plain socket that can reach a host, with room for the largest datagram."""
    client = socket.socket(socket.AF_INET6 if is_ipv6(host) else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
    return client


def ask(client: socket.socket, data: bytes, address: Address) -> tuple[bytes, Address]:
    """Send a datagram and return what comes back, and from where."""
    client.sendto(data, address)
    answer, sender = client.recvfrom(65536)
    return answer, sender[:2]


class SizeTests(SynchronousTestCase):
    """Byte for byte, by every address."""

    def check(self, interface: str, *hosts: str, sizes: tuple[int, ...] = SIZES) -> None:
        """Serve on an interface and ask by each of these addresses."""
        with RunningTwistd("--interface", interface) as server:
            for host in hosts:
                address = (host, server.address[1])
                with client_for(host) as client:
                    for size in sizes:
                        data = payload(size)
                        self.assertEqual(ask(client, data, address), (data, address))
            self.assertNotIn("Traceback", server.output)

    def test_ipv4(self) -> None:
        """On the default address."""
        self.check("127.0.0.1", "127.0.0.1")

    def test_all_of_ipv4(self) -> None:
        """On all addresses the answer comes from the one that was asked."""
        self.check(ANY, "127.0.0.1", "127.0.0.5")

    def test_ipv6(self) -> None:
        """Over IPv6, which carries twenty bytes more."""
        if not ipv6_works():
            raise SkipTest("this machine has no IPv6")
        self.check("::1", "::1", sizes=(*SIZES, 65527))

    def test_both(self) -> None:
        """``::`` serves both."""
        if not ipv6_works():
            raise SkipTest("this machine has no IPv6")
        self.check("::", "::1", "127.0.0.1", "127.0.0.5")

    def test_larger_than_the_limit(self) -> None:
        """Above --max-datagram-size nothing comes back, least of all a part; the next datagram is answered."""
        with RunningTwistd("--max-datagram-size", "1000") as server, client_for("127.0.0.1") as client:
            client.sendto(payload(1001), server.address)
            self.assertEqual(ask(client, payload(1000), server.address)[0], payload(1000))


class ManyClientsTests(SynchronousTestCase):
    """Many at once."""

    CLIENTS = 1000

    def test_thousand_sockets(self) -> None:
        """A thousand sockets ask at once, and each gets its own datagram back."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < self.CLIENTS + 200:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, self.CLIENTS + 200), hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        waiting: dict[socket.socket, bytes] = {}
        with RunningTwistd() as server, selectors.DefaultSelector() as selector:
            for number in range(self.CLIENTS):
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.addCleanup(client.close)
                client.setblocking(False)
                client.connect(server.address)
                selector.register(client, selectors.EVENT_READ)
                waiting[client] = b"client %d" % number
            deadline = time.monotonic() + PATIENCE
            while waiting and time.monotonic() < deadline:
                for client, data in waiting.items():  # again, what a full receive buffer has cost
                    client.send(data)
                while ready := selector.select(timeout=1):
                    for key, _ in ready:
                        sock = key.fileobj
                        assert isinstance(sock, socket.socket)
                        expected = waiting.pop(sock, None)
                        received = sock.recv(100)
                        if expected is not None:
                            self.assertEqual(received, expected)
            self.assertEqual(len(waiting), 0)


class SourceTests(SynchronousTestCase):
    """Who is answered and who is not."""

    def test_own_addresses(self) -> None:
        """What a wildcard bind takes for its own: what the kernel lets a socket bind to."""
        self.assertTrue(EchoProtocol._can_be_bound("127.0.0.1"))
        self.assertFalse(EchoProtocol._can_be_bound("192.0.2.77"))
        self.assertFalse(EchoProtocol._can_be_bound("2001:db8::77"))

    def test_forged_own_address(self) -> None:
        """A datagram that claims to come from the server itself is seen once and echoed never, on either bind."""
        if os.geteuid() != 0:
            raise SkipTest("only root can forge a source address")
        for interface in ("127.0.0.1", ANY):
            with RunningTwistd("--verbose", "--interface", interface) as server:
                port = server.address[1]
                self.forge(port, port)
                server.wait_for(f"6 bytes from 127.0.0.1:{port}")
                self.forge(0, port)
                server.wait_for("6 bytes from 127.0.0.1:0")
                with client_for("127.0.0.1") as client:
                    self.assertEqual(ask(client, b"hello", ("127.0.0.1", port))[0], b"hello")
                server.wait_for("5 bytes from 127.0.0.1:")
                self.assertEqual(server.output.count(" bytes from "), 3)
                self.assertNotIn("Traceback", server.output)

    def forge(self, source_port: int, port: int) -> None:
        """Send a UDP datagram over loopback with a source port that no socket of ours has."""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            # RFC 768: source, destination, length, checksum (0: none)
            raw.sendto(struct.pack("!HHHH", source_port, port, 8 + 6, 0) + b"forged", ("127.0.0.1", 0))

    def test_privileged_port_on_loopback(self) -> None:
        """On loopback a source port below 1024 is answered."""
        if os.geteuid() != 0:
            raise SkipTest("only root has such a port")
        with RunningTwistd() as server, client_for("127.0.0.1") as client:
            self.bind_privileged(client)
            self.assertEqual(ask(client, b"root", server.address)[0], b"root")

    def bind_privileged(self, client: socket.socket) -> None:
        """Bind a socket to some free port below 1024."""
        for port in range(1023, 511, -1):
            try:
                client.bind(("127.0.0.1", port))
            except OSError:
                continue
            return
        self.fail("no port from 512 to 1023 is free")

    def test_broadcast(self) -> None:
        """A datagram to loopback's broadcast address arrives and is not answered; the next one to the server is."""
        with RunningTwistd("--verbose", "--interface", ANY) as server, client_for("127.0.0.1") as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.sendto(b"everybody", ("127.255.255.255", server.address[1]))
            server.wait_for("9 bytes from")
            self.assertEqual(
                ask(client, b"you", ("127.0.0.1", server.address[1])), (b"you", ("127.0.0.1", server.address[1]))
            )


class SocatTests(SynchronousTestCase):
    """A client that others wrote."""

    def test_socat(self) -> None:
        """Debian's socat gets back what it sent."""
        socat = shutil.which("socat")
        if socat is None:
            raise SkipTest("socat is not installed")
        with RunningTwistd() as server:
            # -t: seconds that socat waits for the answer after its input has ended; it ends earlier with readbytes
            finished = subprocess.run(
                [socat, "-t", str(PATIENCE), "-b", "65507", "-", f"UDP4:127.0.0.1:{server.address[1]},readbytes=5000"],
                input=payload(5000),
                capture_output=True,
                timeout=PATIENCE,
                check=True,
            )
        self.assertEqual(finished.stdout, payload(5000))
