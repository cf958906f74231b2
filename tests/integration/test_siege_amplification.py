"""A server is no amplifier: what forged addresses are sent is at most three times what came from them, and 128 bytes.

What is sent and received is counted by a packet socket on the server's card, outside of our code.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.siege import payloads
from tests.siege.case import RPC, SiegeTestCase
from tests.siege.field import CLIENTS, SERVER, SERVER6, STRANGERS, Traffic
from tests.siege.processes import HonestClients
from tests.siege.siege import ALLOWANCE, FACTOR
from twistedudp import _msgpack
from twistedudp._address_tokens import AddressTokens
from twistedudp.errors import ErrorReplyReceived
from twistedudp.messages import CODE_UNPROVEN_ADDRESS, Response

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from tests.siege.field import Datagram

PREFIXES = 100
ROUNDS = 5
LARGE = 4000
LONGEST_ERROR = 128
HOUR = 3600 * 10**9


def answered(datagram: bytes) -> Response:
    """Return what a server answered."""
    message = _msgpack.decode_untrusted(datagram)
    assert isinstance(message, Response)
    return message


def code_of(datagram: bytes) -> str:
    """Return the code of the error that a server answered with, empty if it is none."""
    error = answered(datagram).error
    return ErrorReplyReceived.from_untrusted(error).code if error is not None else ""


@pytest.mark.heavy
class PrefixTests(SiegeTestCase):
    """A hundred forged prefixes ask for large responses, again and again."""

    def attack(self, server: str, sources: str, hosts: int, interface: str) -> list[Datagram]:
        """Have every source ask so often, and return what passed the server's card."""
        port = self.serve(*RPC, interface=interface)
        traffic = Traffic(self.field, port)
        self.addCleanup(traffic.close)
        for _ in range(ROUNDS):
            self.forge(port, payloads.requests("large", LARGE), server, sources=sources, count=hosts)
        self.settle(port, server)
        return [one for one in traffic.take() if ipaddress.ip_address(one.peer) in ipaddress.ip_network(sources)]

    def check(self, seen: Iterable[Datagram], prefix_of: Callable[[str], str]) -> None:
        """Check that no prefix was sent too much, and that each was told how to prove its address."""
        came, went, told = defaultdict[str, int](int), defaultdict[str, int](int), set()
        for one in seen:
            prefix = prefix_of(one.peer)
            (came if one.coming else went)[prefix] += len(one.payload)
            if not one.coming:
                self.assertEqual(code_of(one.payload), CODE_UNPROVEN_ADDRESS)
                told.add(prefix)
        self.assertEqual(len(came), PREFIXES)
        self.assertEqual(told, set(came))
        too_much = {
            prefix: (came[prefix], went[prefix]) for prefix in came if went[prefix] > self.allowed(came[prefix])
        }
        self.assertEqual(too_much, {})

    @staticmethod
    def allowed(came: int) -> int:
        """Return how many bytes may be sent for those that came."""
        return FACTOR * came + ALLOWANCE

    def test_ipv4(self) -> None:
        """No IPv4 address gets more than it may, and every one is told how to prove itself."""
        self.check(self.attack(SERVER, "10.1.0.0/16", PREFIXES, "0.0.0.0"), str)  # noqa: S104  # all of a namespace

    def test_ipv6(self) -> None:
        """Nor does any /64, whose addresses share one budget."""
        seen = self.attack(SERVER6, "2001:db8:64::/48", PREFIXES, "::")
        self.check(seen, lambda host: str(ipaddress.ip_network((host, 64), strict=False)))

    def test_one_network(self) -> None:
        """A thousand addresses of one /64 get together what one may."""
        seen = self.attack(SERVER6, "2001:db8:64:1::/64", 1000, "::")
        came, went = (sum(len(one.payload) for one in seen if one.coming is coming) for coming in (True, False))
        self.assertEqual(came, ROUNDS * 1000 * len(payloads.requests("large", LARGE)[0].data))
        self.assertLessEqual(went, self.allowed(came))
        self.assertGreater(went, 0)


@pytest.mark.heavy
class ProofTests(SiegeTestCase):
    """Who proves its address gets everything, and nobody else does."""

    def setUp(self) -> None:
        """Start a server with a known secret."""
        super().setUp()
        self.key = os.urandom(32)
        path = self.directory.path / "token.key"
        path.write_bytes(self.key)
        path.chmod(0o600)
        self.options = (*RPC, "--token-key-file", str(path))
        self.port = self.serve(*self.options)

    def token(self, host: str, ago: int = 0, key: bytes = b"") -> bytes:
        """Return a host's token as the server made it so many nanoseconds ago."""
        return AddressTokens(key or self.key, lambda: time.time_ns() - ago).token_of(host)

    def ask(self, asking: socket.socket, msgid: int, *tokens: object) -> str | object:
        """Prove an address by tokens, ask for a large response, and return it or the error's code."""
        for token in tokens:
            asking.sendto(_msgpack.encode_notification("rpc.prove", [token]), (SERVER, self.port))
        # Long enough for the error to be allowed each time.
        asking.sendto(_msgpack.encode_request(msgid, "tally", [LARGE, "-" * 64]), (SERVER, self.port))
        datagram = asking.recv(65535)
        return code_of(datagram) or answered(datagram).result

    def test_client(self) -> None:
        """A client of ours gets every large response without its user noticing anything."""
        with HonestClients(self.field.strangers, (SERVER, self.port), "large", rate=20, seconds=0.5) as clients:
            figures = clients.figures()
        self.assertEqual((figures["calls"], figures["answered"]), (10, 10), figures)

    def test_by_hand(self) -> None:
        """A foreign client reads the error, sends its token back, repeats its request, and the method has run once."""
        asking = self.socket_in(self.field.strangers)
        request = _msgpack.encode_request(1, "tally", [LARGE, ""])
        asking.sendto(request, (SERVER, self.port))
        refusal = asking.recv(65535)
        self.assertLessEqual(len(refusal), LONGEST_ERROR)
        self.assertEqual(code_of(refusal), CODE_UNPROVEN_ADDRESS)
        error = answered(refusal).error
        assert isinstance(error, dict)
        asking.sendto(_msgpack.encode_notification("rpc.prove", [error["data"]]), (SERVER, self.port))
        for _ in range(2):
            asking.sendto(request, (SERVER, self.port))
            self.assertEqual(answered(asking.recv(65535)).result, [1, "x" * LARGE])

    def test_bad_tokens(self) -> None:
        """A token that is forged, too old, cut, another host's or made by another secret proves nothing."""
        asking = self.socket_in(self.field.strangers)
        mine = self.token(STRANGERS)
        bad: list[object] = [
            *(os.urandom(16) for _ in range(20)),
            *(mine[:1] + os.urandom(15) for _ in range(20)),
            *(mine[:at] + bytes([mine[at] ^ 1]) + mine[at + 1 :] for at in range(16)),
            *(self.token(STRANGERS, ago) for ago in (HOUR // 6, HOUR, 24 * HOUR, -HOUR, -24 * HOUR)),
            *(mine[:8], b"", mine * 2, mine.hex(), None, [mine]),
            self.token(CLIENTS),
            self.token(STRANGERS, key=os.urandom(32)),
        ]
        for number, token in enumerate(bad):
            self.assertEqual(self.ask(asking, number, token), CODE_UNPROVEN_ADDRESS, token)
        self.assertEqual(self.ask(asking, len(bad), mine), [len(bad) + 1, "x" * LARGE])
        # The other host's token was a good one, and its own address is not proven by its neighbour's.
        other = self.socket_in(self.field.clients)
        self.assertEqual(self.ask(other, 0), CODE_UNPROVEN_ADDRESS)
        self.assertEqual(self.ask(other, 1, self.token(CLIENTS)), [len(bad) + 3, "x" * LARGE])

    def test_second_server(self) -> None:
        """What one server asks for satisfies another with the same secret, as behind one address; a restart is none."""
        asking = self.socket_in(self.field.strangers)
        self.assertEqual(self.ask(asking, 1), CODE_UNPROVEN_ADDRESS)
        token = self.token(STRANGERS)
        self.port = self.serve(*self.options)
        self.assertEqual(self.ask(asking, 2), CODE_UNPROVEN_ADDRESS)
        self.assertEqual(self.ask(asking, 2, token), [1, "x" * LARGE])
