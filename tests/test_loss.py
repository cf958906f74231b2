"""What loss does to calls, against what the binomial distribution says that it must.

Theory of operation: a try of a call is answered if neither its request nor its response is lost, so with an independent
loss of ``p`` each way it fails with ``q = 1 - (1 - p)**2``, and a call of ``n`` tries with ``q**n``. More failures than
that explains are the client's fault; fewer mean that the loss was not applied. Everything is on the simulated network,
where an hour takes a second.
"""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from functools import partial
from math import comb
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from tests.binomial import binomial_bounds
from tests.simulation import CLIENT, PORT, SERVER
from twistedudp import RPCMethods, UDPClientService, UDPServerService, errors, method
from twistedudp.impairment import Arrival, Loss
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twistedudp.impairment import Datagram, LinkEffect

LOSSES = (0.05, 0.1, 0.2, 0.3)
"""The losses each way that are tried."""

TRIES = {2.0: 4, 12.0: 5, 15.0: 6, 21.0: 8}
"""How many tries a call makes in so many seconds where no round trip is known, whatever its jitter: after an eighth of
them but at most 1 s, stretched by up to a half, then doubling to 3 s."""


def failing(loss: float) -> float:
    """Return the probability that one try is not answered."""
    return 1 - (1 - loss) ** 2


class Tally(RPCMethods):
    """Counts how often it is asked to, by number."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()

    @method
    def count(self, number: int) -> int:
        """Count."""
        self.runs[number] += 1
        return -number


class Conversation:
    """A server and its clients on a network that spoils both directions alike.

    Args:
        seed: The network's, and that of the clients' message ids and jitter.
        make_effect: Makes the effect of one direction.
    """

    def __init__(self, seed: int, make_effect: Callable[[], LinkEffect]) -> None:
        self.network = SimulatedNetwork(seed)
        self.there, self.here = self.network.reactor(SERVER), self.network.reactor(CLIENT)
        for source, destination in ((self.here, self.there), (self.there, self.here)):
            self.network.link(source, destination).add(make_effect())
        self.methods = Tally()
        self.server = UDPServerService(self.there, PORT, self.methods, interface=SERVER)
        self.server.startService()
        self.clients: list[UDPClientService] = []
        self.answered: list[int] = []
        self.failed: list[errors.RequestTimedOut] = []
        self.suspended = 0
        self._rng = random.Random(seed)  # noqa: S311  # to be repeatable

    def client(self, **options: Any) -> UDPClientService:
        """Return a new client, started."""
        rng = random.Random(self._rng.getrandbits(64))  # noqa: S311  # to be repeatable
        client = UDPClientService(self.here, SERVER, PORT, rng=rng, **options)
        client.startService()
        self.clients.append(client)
        return client

    async def call(self, client: UDPClientService, number: int) -> None:
        """Make a call and note what became of it."""
        try:
            result = await client.call("count", number)
        except errors.RequestTimedOut as error:
            self.failed.append(error)
        except errors.CircuitOpen:
            self.suspended += 1
        else:
            assert result == -number, result
            self.answered.append(number)

    def run(self, calls: Iterable[Any]) -> None:
        """Run coroutines to their end."""
        self.network.run_until(gatherResults([Deferred.fromCoroutine(call) for call in calls]), timeout=7200.0)

    def run_calls(self, client: UDPClientService, calls: int, at_once: int) -> None:
        """Make calls, so many of them at any time, to their end."""
        numbers = iter(range(calls))

        async def worker(numbers: Iterator[int]) -> None:
            for number in numbers:
                await self.call(client, number)

        self.run(worker(numbers) for _ in range(at_once))

    def tries(self) -> Counter[int]:
        """Return how many calls made at least one try, two, and so on."""
        by_payload = Counter(record.payload for record in self.network.trace.select(destination=(SERVER, PORT)))
        return Counter(number for tries in by_payload.values() for number in range(1, tries + 1))

    def stop(self) -> None:
        """Stop everything; nothing is left."""
        for client in self.clients:
            self.network.run_until(client.stopService())
        stopped = self.server.stopService()
        if stopped is not None:
            self.network.run_until(stopped)
        self.network.run_until_idle()


class ConversationTestCase(SynchronousTestCase):
    """What is checked of every conversation."""

    def converse(self, seed: int, make_effect: Callable[[], LinkEffect]) -> Conversation:
        """Return a conversation that is stopped at the end of the test."""
        conversation = Conversation(seed, make_effect)
        self.addCleanup(conversation.stop)
        return conversation

    def assert_explained(self, count: int, trials: int, chance: float, what: str) -> None:
        """Check that chance explains a count, two-sided."""
        least, most = binomial_bounds(trials, chance)
        self.assertTrue(least <= count <= most, f"{what}: {count} of {trials}, expected {least} to {most}")

    def assert_ran_once(self, conversation: Conversation) -> None:
        """Check that no method ran twice and that no call was answered without a run."""
        runs = conversation.methods.runs
        self.assertEqual({number: count for number, count in runs.items() if count != 1}, {})
        self.assertEqual(set(conversation.answered) - set(runs), set())
        self.assertEqual(len(set(conversation.answered)), len(conversation.answered))
        self.assertEqual(conversation.suspended, 0)


@pytest.mark.heavy
class LossTests(ConversationTestCase):
    """Independent loss, the same each way."""

    def test_thirty_percent(self) -> None:
        """Of 1,000 calls 99.9 % are answered within 60 s, though a call's single try is answered in 49 % only."""
        for seed in range(10):
            conversation = self.converse(seed, partial(Loss, 0.3))
            conversation.run_calls(conversation.client(timeout=60.0), 1000, at_once=16)
            self.assertGreaterEqual(len(conversation.answered), 999, f"seed {seed}")
            self.assert_ran_once(conversation)
            sent = sum(conversation.tries().values())
            self.assert_explained(len(conversation.answered), sent, 1 - failing(0.3), f"tries answered, seed {seed}")

    def test_number_of_tries(self) -> None:
        """The failed calls are as many as their number of tries makes likely: clients that know nothing, one call each.

        A call that fails says how many tries it made, the same for all of one timeout.
        """
        calls = 300
        for loss in LOSSES:
            for timeout, tries in TRIES.items():
                conversation = self.converse(tries, partial(Loss, loss))
                conversation.run(
                    conversation.call(conversation.client(timeout=timeout), number) for number in range(calls)
                )
                what = f"loss {loss}, timeout {timeout}"
                self.assertEqual({error.attempts for error in conversation.failed} - {tries}, set(), what)
                self.assert_explained(len(conversation.failed), calls, failing(loss) ** tries, f"failed, {what}")
                retried = conversation.tries()[2]
                self.assert_explained(retried, calls, failing(loss), f"first tries without answer, {what}")
                self.assert_ran_once(conversation)

    def test_default_timeout(self) -> None:
        """One client with its default of 2 s, 16 calls at a time, all of them under way: four tries, and no less.

        What was learnt from the calls before, and lost with them, leaves later calls no fewer tries.
        """
        calls = 1000
        for loss in LOSSES:
            conversation = self.converse(7, partial(Loss, loss))
            conversation.run_calls(conversation.client(window=16), calls, at_once=16)
            self.assertEqual({error.attempts for error in conversation.failed} - {4}, set(), f"loss {loss}")
            self.assert_explained(len(conversation.failed), calls, failing(loss) ** 4, f"failed, loss {loss}")
            self.assert_each_try_explained(conversation, loss)
            self.assert_ran_once(conversation)

    def test_default_window(self) -> None:
        """The same with congestion control: calls that wait for their turn have fewer tries; each stands for itself.

        Random loss never makes the circuit breaker take the server for gone.
        """
        calls = 1000
        for loss in LOSSES:
            conversation = self.converse(11, partial(Loss, loss))
            conversation.run_calls(conversation.client(), calls, at_once=16)
            self.assertEqual(len(conversation.answered) + len(conversation.failed), calls, f"loss {loss}")
            self.assert_each_try_explained(conversation, loss)
            self.assert_ran_once(conversation)

    def assert_each_try_explained(self, conversation: Conversation, loss: float) -> None:
        """Check that of all first tries, of all second ones and so on the same share was not answered."""
        tries = conversation.tries()
        ran_out = Counter(error.attempts for error in conversation.failed)
        for number in sorted(tries):
            unanswered = tries[number + 1] + ran_out[number]
            self.assert_explained(unanswered, tries[number], failing(loss), f"try {number} unanswered, loss {loss}")


def blackhole(there: float, gone: float) -> Callable[[], LinkEffect]:
    """Return what makes an effect that passes everything for ``there`` seconds and nothing for ``gone`` seconds."""

    def effect(datagram: Datagram, now: float, rng: random.Random) -> list[Arrival]:
        del rng
        return [Arrival(datagram)] if now % (there + gone) < there else []

    return lambda: effect


@pytest.mark.heavy
class BlackholeTests(ConversationTestCase):
    """A network that is gone for seconds, again and again."""

    def test_comes_and_goes(self) -> None:
        """Five seconds there and two gone, or the other way round: a stream of calls of 60 s is answered in full."""
        for there, gone in ((5.0, 2.0), (2.0, 5.0)):
            conversation = self.converse(3, blackhole(there, gone))
            client = conversation.client(timeout=60.0)
            calls: list[Deferred[None]] = []
            for number in range(700):
                calls.append(Deferred.fromCoroutine(conversation.call(client, number)))
                conversation.network.advance(0.1)
            conversation.network.run_until(gatherResults(calls))
            self.assertEqual(len(conversation.answered), 700)
            self.assert_ran_once(conversation)
            self.assertGreater(client.stats.retransmitted, 0)


class BoundTests(SynchronousTestCase):
    """The bound itself, against the definition."""

    def test_definition(self) -> None:
        """Beyond the bounds lies less than the doubt, at the bounds more: by exact fractions."""
        doubt = Fraction(1, 1000)
        for trials, chance in ((20, Fraction(1, 4)), (50, Fraction(49, 100)), (30, Fraction(1, 1000))):
            least, most = binomial_bounds(trials, float(chance), float(doubt))
            chances = [
                comb(trials, count) * chance**count * (1 - chance) ** (trials - count) for count in range(trials + 1)
            ]
            self.assertTrue(sum(chances[:least]) <= doubt < sum(chances[: least + 1]), (trials, least))
            self.assertTrue(sum(chances[most + 1 :]) <= doubt < sum(chances[most:]), (trials, most))
