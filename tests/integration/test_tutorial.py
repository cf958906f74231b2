"""Programs as a tutorial on Python's socket module teaches them, on the other side of our server and our client.

Blocking sockets, one ``sendto`` and one ``recvfrom``, in threads of their own; nothing of them knows of twistedudp.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from tests.integration.sockets import LIMIT, PATIENCE, RealTestCase, address_of, more_open_files, plain_socket
from twistedudp import errors
from twistedudp.echo import EchoProtocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twistedudp.address import Address

NUMBERS = (3.14159, 2.71828, 1.41421)
CLIENTS = 1000


def echo_client(server: Address, message: bytes) -> bytes:
    """Send one message to an echo server and return what comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.sendto(message, server)
        answer, sender = client.recvfrom(LIMIT)
    if sender != server:
        raise AssertionError(f"the answer came from {sender}")
    return answer


def echo_server(server: socket.socket, count: int) -> list[bytes]:
    """Echo so many datagrams and return what they were."""
    received = []
    for _ in range(count):
        datagram, client = server.recvfrom(LIMIT)
        received.append(datagram)
        server.sendto(datagram, client)
    return received


def many_clients(server: Address) -> list[bytes]:
    """Let a thousand sockets each send a message at the same time; return what each got back.

    A client that hears nothing within a second sends its message again, as everybody has to who uses UDP.
    """
    answers = [b""] * CLIENTS
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        clients = [stack.enter_context(plain_socket()) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            selector.register(client, selectors.EVENT_READ, number)
        for _ in range(10):
            for number, client in enumerate(clients):
                if not answers[number]:
                    client.sendto(b"message of client %d" % number, server)
            while not all(answers) and (ready := selector.select(1.0)):
                for key, _ in ready:
                    answers[key.data] = clients[key.data].recv(LIMIT)
            if all(answers):
                break
    return answers


class OurServerTests(RealTestCase):
    """The tutorial's clients with our echo server."""

    async def test_message(self) -> None:
        """A text comes back as it was."""
        server: Any = self.server(EchoProtocol()).address
        message = b"Here is a message, and here it comes again."
        self.assertEqual(await deferToThread(echo_client, server, message), message)

    async def test_packed_numbers(self) -> None:
        """Three numbers packed with struct come back as they were."""
        server: Any = self.server(EchoProtocol()).address
        answer: bytes = await deferToThread(echo_client, server, struct.pack("3d", *NUMBERS))
        self.assertEqual(struct.unpack("3d", answer), NUMBERS)

    async def test_full_size(self) -> None:
        """A datagram that a buffer of 4,096 bytes would cut comes back whole, and so does the largest."""
        server: Any = self.server(EchoProtocol()).address
        for size in (4097, 8193, 65507):
            self.assertEqual(await deferToThread(echo_client, server, b"x" * size), b"x" * size)

    async def test_thousand_clients(self) -> None:
        """A thousand client sockets at once get each its own message back."""
        self.addCleanup(more_open_files(CLIENTS + 500))
        service = self.server(EchoProtocol())
        server: Any = service.address
        answers = await deferToThread(many_clients, server)
        self.assertEqual(answers, [b"message of client %d" % number for number in range(CLIENTS)])
        protocol: Any = service.protocol
        self.assertGreaterEqual(protocol.stats.echoed, CLIENTS)


class OurClientTests(RealTestCase):
    """Our client with the tutorial's server."""

    async def test_message(self) -> None:
        """Bytes, packed numbers and structured values come back."""
        plain = self.plain()
        server = deferToThread(echo_server, plain, 4)
        client = self.client(*address_of(plain), timeout=PATIENCE)
        self.assertEqual(await client.echo_bytes(b"Here is a message."), b"Here is a message.")
        packed = struct.pack("3d", *NUMBERS)
        self.assertEqual(struct.unpack("3d", await client.echo_bytes(packed)), NUMBERS)
        self.assertEqual(await client.echo(list(NUMBERS)), list(NUMBERS))
        self.assertEqual(await client.echo({"nested": {"map": [None, True]}}), {"nested": {"map": [None, True]}})
        self.assertEqual((await server)[:2], [b"Here is a message.", packed])

    async def test_twenty_at_once(self) -> None:
        """Twenty of our clients at once, with one plain server."""
        plain = self.plain()
        server = deferToThread(echo_server, plain, 20)
        clients = [self.client(*address_of(plain), timeout=PATIENCE) for _ in range(20)]
        messages = [b"client %d" % number for number in range(20)]
        echoes = [client.echo_bytes(message) for client, message in zip(clients, messages, strict=True)]
        self.assertEqual(await gatherResults(echoes), messages)
        await server

    async def test_no_rpc_server(self) -> None:
        """A call to a plain echo server says what is wrong instead of hanging."""
        plain = self.plain()
        server = deferToThread(echo_server, plain, 1)
        client = self.client(*address_of(plain), timeout=PATIENCE)
        error = await self.assertFailure(client.call("add", 1, 2), errors.PeerReflects)
        self.assertIn("an echo server listens there", str(error))
        await server

    async def test_server_that_is_gone(self) -> None:
        """The client that would hang for ever ends: at once where nobody listens, else by its timeout."""
        silent = self.plain()
        client = self.client(*address_of(silent))
        unanswered: Deferred[Any] = client.echo_bytes(b"hello", timeout=0.2)
        error = await self.assertFailure(unanswered, errors.RequestTimedOut)
        self.assertGreaterEqual(error.elapsed, 0.2)
        silent.close()
        await self.assertFailure(client.echo_bytes(b"hello"), errors.PeerUnreachable)
