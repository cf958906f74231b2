"""The client's counters: what each of them counts, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, STRANGER, Client
from twistedudp._msgpack import encode_response
from twistedudp.core import RequesterSettings, RequesterStats, Responder, Transmit
from twistedudp.errors import CircuitOpen, DatagramTooLarge, EncodeError, HostNotFound, LocalError, TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.core import PendingRequest

BUSY = {"code": "busy", "message": "later"}


def counters(stats: RequesterStats) -> dict[str, int]:
    """Return all counters that are not zero, the reasons of rejections among them."""
    plain = {name: getattr(stats, name) for name in stats.__slots__ if name not in {"_servers", "rejected"}}
    return {name: count for name, count in {**plain, **stats.rejected}.items() if count}


class ShownTests(SynchronousTestCase):
    """What people see of them."""

    def test_client(self) -> None:
        """The counters that are not zero are shown."""
        client = Client(FIRST)
        self.assertEqual(repr(client.requester.stats), "<RequesterStats >")
        client.receive(b"?")
        client.call()
        self.assertEqual(
            repr(client.requester.stats), "<RequesterStats rejected=Counter({'malformed': 1}) requests=1 transmitted=1>"
        )

    def test_server(self) -> None:
        """Those of a server too."""
        responder = Responder()
        responder.datagram_received(b"?", FIRST, now=0.0)
        self.assertEqual(repr(responder.stats), "<ResponderStats rejected=Counter({'malformed': 1})>")


class CounterTests(SynchronousTestCase):
    """One input or command after the other."""

    def setUp(self) -> None:
        """Begin with one server, and with counters that were not seen to change yet."""
        self.client = Client(FIRST, settings=RequesterSettings(max_outstanding=6))
        self.seen: set[str] = set()

    def assertCounts(self, do: Callable[[], object], **expected: int) -> None:
        """Do something, and check by how much each counter has changed."""
        before = counters(self.client.requester.stats)
        do()
        after = counters(self.client.requester.stats)
        changes = {name: count - before.get(name, 0) for name, count in after.items()}
        self.assertEqual({name: change for name, change in changes.items() if change}, expected)
        self.seen.update(expected)

    def call(self, timeout: float = 60.0, *, idempotent: bool = False) -> PendingRequest:
        """Make a call without counting."""
        return self.client.call(timeout=timeout, idempotent=idempotent)

    def test_begin(self) -> None:
        """All begin with zero."""
        self.assertEqual(counters(Client().requester.stats), {})

    def test_all(self) -> None:
        """Every counter, and that there is none that is not tested here."""
        self.calls()
        self.ends()
        self.without_an_address()
        self.ports()
        self.rejected()
        self.client = Client(FIRST)
        for _ in range(5):
            self.call(1.0)
            self.client.run(1.0)
        self.assertCounts(lambda: self.assertRaises(CircuitOpen, self.client.call), suspended=1)
        names = {name for name in RequesterStats.__slots__ if name not in {"_servers", "rejected"}}
        reasons = {"malformed", "not_a_response", "unmatched", "wrong_peer", "unmatched_icmp"}
        self.assertEqual(self.seen - {"not_sent"}, (names - {"not_sent"}) | reasons)  # not_sent: see test_pump.py

    def calls(self) -> None:
        """Commands."""
        client, requester = self.client, self.client.requester
        self.assertCounts(client.call, requests=1, transmitted=1)
        self.assertCounts(lambda: client.call(bytes(1200)), requests=1, transmitted=1, large=1)
        self.assertCounts(lambda: client.echo(bytes(1300)), requests=1, transmitted=1)
        self.assertCounts(lambda: client.echo(b"a"), requests=1, transmitted=1)
        self.assertCounts(client.call, requests=1, queued=1)
        self.assertCounts(client.call, requests=1, queued=1)
        for refused in (client.call, lambda: client.echo(b"b")):
            self.assertCounts(lambda refused=refused: self.assertRaises(TooManyRequests, refused), too_many=1)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        self.assertCounts(lambda: self.assertRaises(EncodeError, client.call, object()))
        self.assertCounts(lambda: self.assertRaises(DatagramTooLarge, client.call, bytes(9000)))
        self.assertCounts(lambda: requester.send_notification("m", []), notifications=1, transmitted=1)
        self.assertCounts(
            lambda: requester.send_notification("m", [bytes(1200)]), notifications=1, transmitted=1, large=1
        )
        self.assertCounts(requester.close, aborted=6)

    def ends(self) -> None:
        """What ends a request, or does not."""
        client = self.client
        request = self.call()
        self.assertCounts(lambda: client.receive(encode_response(request.msgid, BUSY, None)), busy=1)
        unproven = encode_response(request.msgid, {"code": "unproven_address", "message": "", "data": bytes(16)}, None)
        self.assertCounts(lambda: client.receive(unproven), unproven=1, transmitted=2)
        self.assertCounts(lambda: client.answer(request), answered=1)
        self.assertCounts(lambda: client.answer(request), duplicate=1)
        request = self.call()
        self.assertCounts(lambda: client.receive(encode_response(request.msgid, "bad", None)), errors=1)
        self.assertCounts(lambda: client.receive(encode_response(request.msgid, "bad", None)), duplicate=1)
        request = self.call()
        self.assertCounts(lambda: client.cancel(request), cancelled=1)
        self.assertCounts(lambda: client.answer(request), late=1)
        request = self.call()
        self.assertCounts(lambda: client.refuse(request), refused=1)
        request = self.call()
        self.assertCounts(lambda: client.receive(request.payload), failed=1)
        request = self.call()
        failed = Transmit(request.payload, FIRST, 0)
        self.assertCounts(lambda: client.requester.send_failed(failed, LocalError("no"), now=client.now), failed=1)
        request = self.call(0.8)
        self.assertCounts(lambda: client.run(0.8), transmitted=2, retransmitted=2, timed_out=1)

    def without_an_address(self) -> None:
        """Before the server's address is known."""
        self.client = client = Client(settings=RequesterSettings(max_queued_notifications=1))
        self.assertCounts(client.call, requests=1)
        self.assertCounts(lambda: client.requester.send_notification("m", []), notifications=1)
        self.assertCounts(lambda: client.requester.send_notification("m", []), notifications=1, notifications_dropped=1)
        error = HostNotFound("no.example")
        self.assertCounts(lambda: client.requester.resolution_failed(error), failed=1, notifications_dropped=1)

    def ports(self) -> None:
        """The ports of retries."""
        self.client = client = Client(FIRST, SECOND, settings=RequesterSettings(max_retry_ports=1))
        self.call(2.0, idempotent=True)
        self.assertCounts(lambda: client.run(0.3), transmitted=1, retransmitted=1)
        self.assertCounts(lambda: client.run(0.6), transmitted=1, retransmitted=1, retry_ports_short=1)

    def rejected(self) -> None:
        """Datagrams that are no answers."""
        client = self.client
        request = self.call()
        for reason, payload, peer in (
            ("malformed", b"", FIRST),
            ("not_a_response", b"\x93\x02\xa1m\x90", FIRST),
            ("unmatched", encode_response(12345, None, 1), FIRST),
            ("wrong_peer", encode_response(request.msgid, None, 1), STRANGER),
        ):
            self.assertCounts(lambda payload=payload, peer=peer: client.receive(payload, peer), **{reason: 1})  # type: ignore[misc]  # as above
        self.assertCounts(lambda: client.refuse_bytes(b"?"), unmatched_icmp=1)
