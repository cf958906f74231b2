"""The real kernel loses 30 % of the datagrams each way: a real server, a real client, a network of their own.

It takes some 20 s of real time: a try is answered with a probability of 0.49, so the least lucky of 1,000 calls is
expected to need ten or eleven, of which the later ones are 3 s apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest

from tests.binomial import binomial_bounds
from tests.integration.netns import Wire, missing_for_namespaces
from tests.integration.sockets import RealTestCase
from tests.integration.twistd import Directory, RunningTwistd
from twistedudp import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twistedudp import UDPClientService

CALLS = 1000
AT_ONCE = 128
KNOWN = 20
"""Calls before the loss begins, from which the client learns how near the server is."""
DEADLINE = 60.0
LOST = 30  # per cent each way

TALLY = """
from collections import Counter
from twistedudp import RPCMethods, method

class Tally(RPCMethods):
    def __init__(self):
        self.runs = Counter()

    @method
    def count(self, number: int) -> int:
        self.runs[number] += 1
        return -number

    @method(idempotent=True)
    def summary(self) -> list[int]:
        return [len(self.runs), sum(self.runs.values())]
"""

PLUGIN = """
from twistedudp import DatagramPlugin
tally = DatagramPlugin("tally", "tally:Tally", "Counts how often it is asked.")
"""


@pytest.mark.heavy
class LossTests(RealTestCase):
    """Client and server in two namespaces, joined by a wire."""

    timeout = 180

    def setUp(self) -> None:
        """Make the namespaces, start the server in one, and enter the other until the end of the test."""
        super().setUp()
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.wire = Wire()
        self.addCleanup(self.wire.__exit__)
        directory = Directory()
        self.addCleanup(directory.__exit__, None, None, None)
        directory.write("tally.py", TALLY)
        directory.plugin_file("tally_plugin", PLUGIN)
        with self.wire.there.entered():
            serving = RunningTwistd(
                "--interface", Wire.THERE, "--protocol", "tally", python_path=[directory.path]
            )  # fmt: skip
        self.addCleanup(serving.__exit__, None, None, None)
        self.address = serving.address
        inside = self.wire.here.entered()
        inside.__enter__()
        self.addCleanup(inside.__exit__, None, None, None)

    async def run_calls(self, client: UDPClientService) -> list[int]:
        """Make all the calls, some of them at any time, and return the numbers of those that were answered."""
        numbers = iter(range(1, CALLS + 1))
        answered: list[int] = []

        async def worker(numbers: Iterator[int]) -> None:
            for number in numbers:
                try:
                    result = await client.call("count", number)
                except errors.RequestTimedOut:
                    continue
                self.assertEqual(result, -number)
                answered.append(number)

        await gatherResults(
            [Deferred.fromCoroutine(worker(numbers)) for _ in range(AT_ONCE)], consumeErrors=True
        )  # fmt: skip
        return answered

    async def test_calls_are_answered(self) -> None:
        """Of 1,000 calls 99.9 % are answered within 60 s, each method ran once, and the loss was there."""
        wire = self.wire
        host, port = self.address
        client = self.client(host, port, timeout=DEADLINE, window=AT_ONCE)
        for number in range(KNOWN):
            await client.call("count", CALLS + 1 + number)
        stats: Any = client.stats
        before = stats.transmitted
        wire.lose(wire.there, f"udp dport {port}", LOST)
        wire.lose(wire.here, f"udp sport {port}", LOST)

        answered = await self.run_calls(client)

        self.assertGreaterEqual(len(answered), 0.999 * CALLS)
        self.assertEqual(len(set(answered)), len(answered))
        requests, responses = wire.passage(wire.there), wire.passage(wire.here)
        transmitted = stats.transmitted - before
        self.assertEqual((requests.arrived, stats.not_sent), (transmitted, 0))
        for passage in (requests, responses):
            least, most = binomial_bounds(passage.arrived, LOST / 100)
            self.assertTrue(least <= passage.dropped <= most, passage)
        # A try is answered if neither its request nor its response is lost.
        least, most = binomial_bounds(transmitted, (1 - LOST / 100) ** 2)
        self.assertTrue(least <= len(answered) <= most, (transmitted, len(answered)))

        distinct, runs = await client.call("summary")
        self.assertEqual(distinct, runs)
        self.assertTrue(len(answered) <= runs - KNOWN <= CALLS, runs)
