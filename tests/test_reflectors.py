"""Loops with foreign echo servers are recognised and cut, and clients that repeat themselves are not."""

from __future__ import annotations

import heapq
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from twistedudp import _reflectors
from twistedudp._reflectors import ReflectorWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twistedudp.address import Address

PEER = ("192.0.2.7", 40007)
LIMIT = 10.0
"""Seconds within which a loop is to be cut."""


class Server:
    """An echo server's part as EchoProtocol plays it: what comes at one time comes together."""

    def __init__(self) -> None:
        self.watch = ReflectorWatch()
        self.recognised: list[tuple[float, Address, bool]] = []
        self.now = 0.0

    def received(self, datagrams: list[tuple[bytes, Address]]) -> list[tuple[bytes, Address]]:
        """Return what is answered at once."""
        watch = self.watch
        answers: list[tuple[bytes, Address]] = []
        for datagram, peer in datagrams:
            answers += watch.hold(datagram, peer, self.now) if peer in watch.trials else [(datagram, peer)]
        if answers and self.now >= watch.next_look:
            watch.look(answers, self.now)
        return answers

    def time_passes(self, now: float) -> None:
        """Come to another time, by way of what is due before."""
        while (deadline := self.watch.next_deadline()) is not None and deadline <= now:
            self.recognised += [(deadline, *found) for found in self.watch.deadline_reached(deadline)]
        self.now = now


class World:
    """A server, and things that happen at times."""

    def __init__(self) -> None:
        self.server = Server()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.arrived: list[tuple[float, bytes, Address]] = []
        self.on_answer: Callable[[bytes, Address], object] = lambda *_: None

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._number += 1
        heapq.heappush(self._due, (time, self._number, action))

    def send(self, *datagrams: tuple[bytes, Address]) -> None:
        """Send to the server, whose answers come at once."""
        for datagram, peer in self.server.received(list(datagrams)):
            self.arrived.append((self.server.now, datagram, peer))
            self.on_answer(datagram, peer)

    def send_at(self, time: float, payload: bytes, peer: Address) -> None:
        """Let something be sent to the server at a time."""
        self.at(time, partial(self.send, (payload, peer)))

    def run(self, until: float) -> None:
        """Run for some seconds."""
        while self._due and self._due[0][0] <= until:
            time, _, action = heapq.heappop(self._due)
            self.server.time_passes(time)
            action()
        self.server.time_passes(until)


class LoopTests(SynchronousTestCase):
    """Reflectors: what is sent to them comes back a round trip later."""

    def loop(self, world: World, round_trip: float, payloads: list[bytes], *, jitter: float = 0.0) -> None:
        """Let some datagrams circulate from now on."""
        chance = Random(1)  # noqa: S311  # times under way, no secrets

        def reflect(datagram: bytes, peer: Address) -> None:
            if peer == PEER:
                late = 1.0 + jitter * chance.random()
                world.send_at(world.server.now + round_trip * late, datagram, peer)

        world.on_answer = reflect
        for number, payload in enumerate(payloads):
            world.send_at(world.server.now + number * round_trip / len(payloads), payload, PEER)

    def cases(self) -> Iterator[tuple[float, int, int]]:
        """Yield round trips, numbers of circulating datagrams, and of different ones among them."""
        for round_trip in (0.0005, 0.001, 0.0033, 0.02, 0.1, 0.2, 0.45):
            for count in (1, 2, 7, 50):
                if count / round_trip <= 4000:
                    for different in {1, min(3, count), count}:
                        yield round_trip, count, different

    def test_cut(self) -> None:
        """Whatever circulates, however fast, it is dead within ten seconds, and told of once."""
        for round_trip, count, different in self.cases():
            with self.subTest(round_trip=round_trip, count=count, different=different):
                world = World()
                self.loop(world, round_trip, [b"%d" % (number % different) for number in range(count)])
                world.run(15.0)
                [(when, peer, is_new)] = world.server.recognised
                self.assertEqual((peer, is_new), (PEER, True))
                self.assertLess(when, LIMIT)
                self.assertLess(world.arrived[-1][0], LIMIT)

    def test_many_and_large(self) -> None:
        """Many different datagrams, or large ones, are cut as well: as many as 1,000/s lets circulate."""
        for round_trip, count, size in ((0.1, 100, 10), (0.15, 150, 1400), (0.45, 450, 10), (0.05, 5, 60000)):
            with self.subTest(round_trip=round_trip, count=count, size=size):
                world = World()
                self.loop(world, round_trip, [b"%d" % number + bytes(size) for number in range(count)], jitter=0.1)
                world.run(15.0)
                self.assertEqual([peer for _, peer, _ in world.server.recognised], [PEER])
                self.assertLess(world.arrived[-1][0], LIMIT)

    def test_again(self) -> None:
        """One that is set upon the server anew is cut anew, and not told of again."""
        world = World()
        for _ in range(3):
            self.loop(world, 0.01, [b"again"])
            world.run(world.server.now + 20.0)
        self.assertEqual([is_new for _, _, is_new in world.server.recognised], [True, False, False])

    def test_crowd(self) -> None:
        """It is found among a crowd of clients that send thirty times as much."""
        world = World()
        jitter = Random(1)  # noqa: S311  # arrival times, no secrets
        self.loop(world, 0.002, [b"loop"])
        for number in range(300):
            client = ("198.51.100.1", 20000 + number)
            for turn in range(300):
                payload = b"%d %d" % (number, turn)
                world.send_at((turn + jitter.random()) / 50, payload, client)
        world.run(20.0)
        self.assertEqual([peer for _, peer, _ in world.server.recognised], [PEER])
        self.assertLess(world.server.recognised[0][0], LIMIT)


class ClientTests(SynchronousTestCase):
    """Clients that repeat one payload."""

    def test_own_pace(self) -> None:
        """Who goes on without waiting gets every answer, in order, at most a round trip's bound late."""
        for interval in (0.0005, 0.001, 0.01, 0.1, 0.4, 1.0, 3.0):
            with self.subTest(interval=interval):
                world = World()
                count = int(30 / interval)
                for number in range(count):
                    world.send_at(number * interval, b"the same", PEER)
                world.run(40.0)
                self.assertEqual(len(world.arrived), count)
                self.assertEqual(world.server.recognised, [])
                for number, (time, _, _) in enumerate(world.arrived):
                    self.assertLess(time - number * interval, _reflectors.ROUND_TRIP + max(interval, 0.01))

    def test_waiting(self) -> None:
        """Who waits for each answer and asks again after a timeout is answered at the latest by the second repeat."""
        for window in (1, 8):
            for timeout in (0.2, 0.6, 1.0, 2.9, 5.0):
                with self.subTest(window=window, timeout=timeout):
                    self.check_waiting(window, timeout)

    def check_waiting(self, window: int, timeout: float) -> None:
        """Let clients behind one port ask for 12 seconds, each again after a timeout, and each anew after an answer."""
        world = World()
        waiting = [0] * window  # the number of the try that is waited for, by client
        waits: list[float] = []

        def ask(client: int, since: float) -> None:
            waiting[client] += 1
            current = waiting[client]

            def again() -> None:
                if waiting[client] == current:
                    ask(client, since)

            pending.append((client, since))
            world.at(world.server.now + timeout, again)
            world.send((b"the same", PEER))

        pending: list[tuple[int, float]] = []

        def answered(*_: object) -> None:
            if not pending:
                return
            client, since = pending.pop(0)
            pending[:] = [(other, when) for other, when in pending if other != client]
            waits.append(world.server.now - since)
            waiting[client] += 1
            if world.server.now < 12:
                world.at(world.server.now + 0.005, partial(ask, client, world.server.now + 0.005))

        world.on_answer = answered
        for client in range(window):
            world.at(0.0001 * client, partial(ask, client, 0.0001 * client))
        world.run(60.0)
        self.assertLess(max(waits), max(2 * timeout, timeout + _reflectors.ROUND_TRIP + 0.1))
        self.assertEqual(world.server.recognised, [])
        late = [wait for wait in waits if wait > 0.01]
        self.assertLessEqual(len(late), window)  # all of one test, and no second test meanwhile
        self.assertGreater(len(waits), 1000)


class BoundTests(SynchronousTestCase):
    """Everything has a bound."""

    def test_candidates(self) -> None:
        """A million peers leave no more than a few hundred behind."""
        watch = ReflectorWatch()
        for number in range(1_000_000 // 20):
            watch.look([(b"x", ("192.0.2.1", number))], number * 0.001)
        self.assertEqual(len(watch._candidates), _reflectors.MAX_CANDIDATES)

    def test_trials(self) -> None:
        """No more peers are on trial at once than there is room for; the others are answered."""
        watch = ReflectorWatch()
        for turn in range(400):
            for number in range(50):
                peer = ("192.0.2.1", number)
                if peer not in watch.trials:
                    watch.look([(b"x", peer)], turn * 0.01)
        self.assertEqual(len(watch.trials), _reflectors.MAX_TRIALS)

    def test_held(self) -> None:
        """What is held of a peer is bounded in bytes, and what may come in number; then what was held is answered."""
        for payload, most in ((b"", _reflectors.MAX_HELD), (bytes(60000), _reflectors.MAX_HELD_BYTES // 60000)):
            watch = ReflectorWatch()
            now = 0.0
            while not watch.trials:
                now += 0.1
                watch.look([(payload, PEER)], now)
            for _ in range(_reflectors.MAX_HELD):
                self.assertEqual(watch.hold(payload, PEER, now), ())
            self.assertEqual(len(watch.hold(payload, PEER, now)), most + 1)
            self.assertFalse(watch.trials)

    def test_told(self) -> None:
        """Whoever forges the sources of loops by the hundred makes no more than twenty lines a minute of log."""
        watch = ReflectorWatch()
        told = []
        for number in range(0, 1200, 16):
            now = number * 0.6  # 600 s for all
            for turn in range(25):
                for forged in range(number, number + 16):
                    if ("192.0.2.1", forged) not in watch.trials:
                        watch.look([(b"x", ("192.0.2.1", forged))], now + turn * 0.1)
            told += [now for _, is_told in watch.deadline_reached(now + 9.0) if is_told]
        self.assertGreater(len(told), 100)
        for start in told:
            self.assertLessEqual(sum(start <= when < start + 60 for when in told), 2 * _reflectors.MAX_TOLD)

    def test_new_payloads(self) -> None:
        """Who says something new each time is never put to the test, and little is remembered of it."""
        watch = ReflectorWatch()
        for number in range(20000):
            self.assertFalse(watch.look([(b"%d" % number, PEER)], number * 0.001))
            for candidate in watch._candidates.values():
                self.assertLessEqual(len(candidate.payloads), _reflectors.MAX_PAYLOADS)
