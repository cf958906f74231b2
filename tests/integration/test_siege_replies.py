"""Forged replies at a client, by raw sockets: from the right address and from others, with the right number or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.trial.unittest import SkipTest

from tests.integration.compiling import missing_compiler
from tests.integration.netns import missing_for_namespaces
from tests.integration.sockets import LIMIT, RealTestCase, address_of
from tests.siege import payloads
from tests.siege.field import CLIENTS, SERVER, Field
from tests.siege.payloads import Payload
from tests.siege.processes import Forgery
from twistedudp import _msgpack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from twistedudp.address import Address


@pytest.mark.heavy
class ReplyTests(RealTestCase):
    """A client that waits for its server's reply."""

    def setUp(self) -> None:
        """Make the hosts, and begin a call whose request has arrived."""
        super().setUp()
        if reason := missing_for_namespaces() or missing_compiler():
            raise SkipTest(reason)
        self.field = field = Field()
        self.addCleanup(field.__exit__, None, None, None)
        with field.server.entered():
            self.true = self.plain(SERVER)
        entered = field.clients.entered()
        entered.__enter__()
        self.addCleanup(entered.__exit__, None, None, None)

    def forge(self, client: Address, sent: Sequence[Payload], source: Address, count: int = 1) -> None:
        """Send forged replies to the client, each payload so often, without waiting for the client to read them."""
        host, port = source
        with Forgery(
            self.field.attacker,
            client,
            [one for one in sent for _ in range(count)],
            sources=f"{host}/32",
            count=1,
            source_ports=(port,),
            rate=50_000,
            seconds=len(sent) * count / 50_000,
        ) as forgery:
            self.sent += forgery.figures()["sent"]

    async def test_replies(self) -> None:
        """None of them is taken, all are counted, and the true reply is."""
        self.sent = 0
        true = address_of(self.true)
        client = self.client(*true, timeout=60.0)
        call = client.call("wait")
        await self.turn()
        request, (host, port) = self.true.recvfrom(LIMIT)
        message = _msgpack.decode_untrusted(request)
        msgid: Any = getattr(message, "msgid", None)
        right = Payload(_msgpack.encode_response(msgid, None, "forged"))
        self.assertEqual(host, CLIENTS)
        kinds: list[tuple[Sequence[Payload], Address]] = [
            (payloads.replies(), true),
            ([right], (SERVER, true[1] ^ 1)),
            ([right], ("10.0.0.1", true[1])),
            (payloads.noise(1), true),
            (payloads.bombs(), true),
        ]
        stats: Any = client.stats
        for sent, source in kinds:
            for _ in range(10):  # as many as its buffer holds, and then it reads them
                before = self.sent
                self.forge((host, port), sent, source, max(1, 1500 // len(sent)))
                self.assertGreater(self.sent, before)
                await self.until(lambda: sum(stats.rejected.values()) >= self.sent)
                self.assertNoResult(call)
        self.assertGreater(self.sent, 50_000)
        self.true.sendto(_msgpack.encode_response(msgid, None, "true"), (host, port))
        self.assertEqual(await call, "true")
        self.assertEqual(stats.answered, 1)
