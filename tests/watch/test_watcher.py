"""The watcher on a simulated network: when it sends, whose answer is whose, what becomes of names, what is odd."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol

from tests.simulation import CLIENT, DELAY, PORT, SERVER, SERVER6, Echo, SimulatedTestCase
from twistedudp import transport
from twistedudp.interfaces import Unreachable
from twistedudp.methods import RPCMethods, method
from twistedudp.transport._errors import invalid_address
from twistedudp.watch import Settings, Target, Watcher
from twistedudp.watch import _watched as watched_module
from twistedudp.watch._names import AGAIN_AFTER, FAILURES_BELIEVED, MAX_LOOKUPS
from twistedudp.watch._watcher import TICK

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.watch import StateChange
    from twistedudp.watch._watched import Watched

FAST = Settings(interval=1.0, jitter=0.0, timeout=0.5, window=20, down_after=3, up_after=2)


class Deaf(DatagramProtocol):
    """Gets probes and does with them what a test says.

    Attributes:
        received: The probes with their senders.
        answer: Called with each; its result is sent back unless it is None.
    """

    noisy = False

    def __init__(self, answer: Any = lambda _: None) -> None:
        self.received: list[tuple[bytes, Address]] = []
        self.answer = answer

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Keep it, and answer it perhaps."""
        self.received.append((datagram, addr))
        answers = self.answer(datagram)
        for answer in (answers,) if isinstance(answers, bytes) else answers or ():
            assert self.transport is not None
            self.transport.write(answer, addr)


class Methods(RPCMethods):
    """A server of ours."""

    @method
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b


class WatcherTestCase(SimulatedTestCase):
    """A watcher, started, without targets.

    Attributes:
        changes: What it told.
        watcher: The watcher.
    """

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.changes: list[StateChange] = []
        self.watcher = Watcher(self.here, self.changes.append, rng=random.Random(7))  # noqa: S311  # repeatable
        self.addCleanup(self.watcher.stop)
        self.watcher.start()

    def watch(self, *addresses: Address, settings: Settings = FAST) -> list[Watched]:
        """Watch targets with the names t0, t1, ..."""
        targets = [Target(f"t{number}", *address, settings) for number, address in enumerate(addresses)]
        self.watcher.set_targets({target.name: target for target in targets})
        return list(self.watcher.targets.values())

    def told(self) -> list[tuple[str, str, str]]:
        """Return what was told since this was last asked: names, states and reasons."""
        changes, self.changes[:] = [change[0:1] + change[2:3] + change[4:5] for change in self.changes], []
        return changes


class ScheduleTests(WatcherTestCase):
    """When probes leave."""

    def times(self, port: int = PORT) -> list[float]:
        """Return when probes to a port left."""
        return [time for time, _ in self.sent(to=(SERVER, port))]

    def test_interval(self) -> None:
        """One in each interval, on time to a tick."""
        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT))
        self.advance(20.5)
        times = self.times()
        self.assertIn(len(times), (20, 21))
        for number, time in enumerate(times):
            self.assertLess(abs(time - times[0] - number), TICK + 1e-6)
        self.assertEqual(watched.table.received, len(times))
        self.assertEqual(watched.sent, len(times))
        self.assertEqual(watched.skipped, 0)

    def test_jitter(self) -> None:
        """Each is put off by itself, within its share of the interval; none is missing in the long run."""
        self.serve(Echo())
        self.watch((SERVER, PORT), settings=Settings(interval=1.0, jitter=0.5))
        self.advance(200)
        phases = sorted((time - self.times()[0]) % 1.0 for time in self.times())
        self.assertIn(len(phases), (199, 200, 201))
        self.assertGreater(len({round(phase / TICK) for phase in phases}), 8)
        gaps = [late - soon for soon, late in zip(phases, [*phases[1:], phases[0] + 1], strict=True)]
        self.assertGreater(max(gaps), 0.4)  # half of the interval has none

    def test_spread(self) -> None:
        """A hundred targets leave spread over the interval, not together."""
        for number in range(100):
            self.serve(Echo(), PORT + number)
        self.watch(*((SERVER, PORT + number) for number in range(100)))
        self.advance(3)
        firsts = sorted(self.times(PORT + number)[-1] % 1.0 for number in range(100))
        in_slots = [round(time / TICK) for time in firsts]
        self.assertLessEqual(max(in_slots.count(slot) for slot in in_slots), 8)
        self.assertGreaterEqual(len(set(in_slots)), 19)

    def test_one_timer_one_port(self) -> None:
        """However many targets: one timer, and one port for each address family that is needed."""
        for number in range(50):
            self.serve(Echo(), PORT + number)
        self.watch(*((SERVER, PORT + number) for number in range(50)))
        self.advance(2)
        self.assertEqual(len(self.watcher.ports), 1)
        timers = [call for call in self.here.getDelayedCalls() if call.getTime() > self.here.seconds() + 2 * DELAY]
        self.assertLessEqual(len(timers), 1)
        self.watch((SERVER, PORT), (SERVER6, PORT))
        self.advance(2)
        self.assertEqual(len(self.watcher.ports), 2)
        self.assertEqual([one.health.state for one in self.watcher.targets.values()], ["up", "up"])

    def test_suspended(self) -> None:
        """A process that could not run for a while sends one probe then, not those that it missed."""
        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT))
        self.advance(5)
        sent = watched.sent
        clock = self.network.clock
        clock.rightNow += 100.0  # nothing runs meanwhile
        self.advance(2)
        self.assertLessEqual(watched.sent - sent, 5)
        self.assertIn(watched.skipped, (98, 99, 100))

    def test_stop(self) -> None:
        """Nothing is left: no timer, no port, no target; what arrives later reaches nobody."""
        self.serve(Echo())
        self.watch((SERVER, PORT), (SERVER6, PORT))
        self.advance(1.3)
        done = self.watcher.stop()
        self.advance()
        self.successResultOf(done)
        self.assertEqual(self.ports_bound(), [])
        self.assertEqual(self.here.getDelayedCalls(), [])
        self.assertEqual(self.watcher.targets, {})


class FateTests(WatcherTestCase):
    """What becomes of probes and what is told of it."""

    def test_up_down_up(self) -> None:
        """A server that comes, goes and comes back; each change with address and figures."""
        (watched,) = self.watch((SERVER, PORT))
        listening = self.serve(Echo())
        self.advance(5)
        self.assertEqual(self.told(), [("t0", "up", "answers")])
        listening.stopListening()
        self.advance(5)
        self.assertEqual(self.told()[0][:2], ("t0", "down"))
        self.serve(Echo())
        self.advance(5)
        self.assertEqual(self.told()[-1], ("t0", "up", "answers"))
        self.assertEqual(watched.changes, {"up": 2, "down": 1})

    def test_refused(self) -> None:
        """Where the network says why, the reason is that."""
        (watched,) = self.watch((SERVER, PORT))
        self.advance(5)
        ((name, state, reason),) = self.told()
        self.assertEqual((name, state, reason), ("t0", "down", "unreachable"))
        self.assertGreater(watched.table.unreachable, 2)
        self.assertEqual(watched.table.received, 0)

    def test_silent(self) -> None:
        """Without any word it is that; losses are told when the timeout has passed, not at the next probe."""
        self.serve(Deaf())
        (watched,) = self.watch((SERVER, PORT), settings=Settings(interval=100.0, jitter=0, timeout=0.5, down_after=1))
        for _ in range(2000):
            self.advance(0.1)
            if watched.sent:
                break
        self.advance(0.7)
        self.assertEqual(self.told(), [("t0", "down", "no_answer")])

    def test_figures(self) -> None:
        """Round trips are those of the network, in every figure."""
        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT))
        self.advance(30.5)
        self.assertEqual(watched.rolling.loss, 0.0)
        median = watched.rolling.percentile_ns(50)
        assert median is not None
        self.assertLess(abs(median / 1e9 - 2 * DELAY), 2 * DELAY / 16)
        self.assertEqual(sum(watched.rtt_counts), watched.table.received)
        self.assertAlmostEqual(watched.rtt_sum_ns / 1e9 / watched.table.received, 2 * DELAY, places=7)
        self.assertEqual(watched.rtt_counts[4], watched.table.received)  # 1 ms to 2.5 ms
        self.assertEqual((self.changes[0].time, self.changes[0].address), (self.changes[0].time, f"{SERVER}:{PORT}"))

    def test_slow(self) -> None:
        """Answers that take longer than they should make it degraded."""
        self.serve(Echo())
        self.watch((SERVER, PORT), settings=Settings(interval=0.1, jitter=0, window=20, degraded_rtt=DELAY))
        self.advance(5)
        self.assertEqual(self.told(), [("t0", "up", "answers"), ("t0", "degraded", "slow")])

    def test_protocols(self) -> None:
        """Echo and rpc servers count for auto; where one is asked for, the other is a failure with its own reason."""
        self.serve(Echo(), PORT + 1)
        self.serve_methods(Methods())
        for wanted, echo_state, rpc_state in (("auto", "up", "up"), ("echo", "up", "down"), ("rpc", "down", "up")):
            self.changes.clear()
            settings = Settings(interval=0.1, jitter=0.0, window=20, protocol=wanted)  # type: ignore[arg-type]  # one of three
            echo, rpc = self.watch((SERVER, PORT + 1), (SERVER, PORT), settings=settings)
            self.advance(5)
            self.assertEqual((echo.health.state, rpc.health.state), (echo_state, rpc_state), wanted)
            for watched in (echo, rpc):
                self.assertIn(watched.sent - watched.table.received, (0, 1))
                self.assertGreater(watched.table.received, 40)
                if watched.health.state == "down":
                    self.assertEqual((watched.health.reason, watched.rolling.loss), ("wrong_protocol", 1.0))
                    self.assertEqual(watched.wrong_protocol, watched.table.received)

    def test_error_answers(self) -> None:
        """An rpc server that knows no rpc.probe answers with an error, which is an answer of the protocol rpc."""

        def error(probe: bytes) -> bytes:
            return b"\x94\x01" + probe[2:7] + b"\x82\xa4code\xaeunknown_method\xa7message\xa1x\xc0"

        self.serve(Deaf(error))
        (watched,) = self.watch((SERVER, PORT), settings=Settings(interval=0.1, jitter=0.0, protocol="rpc"))
        self.advance(1)
        self.assertEqual((watched.health.state, watched.table.errors), ("up", watched.table.received))

    def test_oddities(self) -> None:
        """Duplicates, changed and foreign datagrams are counted for their target; the figures stay right."""
        answers = iter(range(10**6))

        def odd(probe: bytes) -> list[bytes]:
            number = next(answers) // 2 % 5
            return [
                [probe, probe],
                [probe, b"hello"],
                [probe[:-1] + bytes([probe[-1] ^ 1]), probe],
                [probe, probe[:28] + b"\x7f\xff\xff\xff" + probe[32:]],
                [probe],
            ][number]

        self.serve(Deaf(odd))
        (watched,) = self.watch((SERVER, PORT), settings=Settings(interval=0.1, jitter=0.0, window=20))
        self.advance(10)
        table = watched.table
        self.assertEqual((table.received, table.lost, watched.rolling.loss), (watched.sent, 0, 0.0))
        for count in (table.duplicated, table.corrupted, table.oddities["not_a_probe"]):
            self.assertGreater(count, 10)
        self.assertEqual(watched.health.state, "up")

    def test_unsendable(self) -> None:
        """What this machine refuses to send is a failure with that reason, and counts as not sent."""

        def refuse(datagrams: list[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
            return [(*datagram, OSError(errno.EINVAL, "Invalid argument")) for datagram in datagrams]

        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT))
        self.advance(2)
        sent = watched.sent
        self.patch(self.watcher.ports[0], "write_batch", refuse)
        self.advance(5)
        self.assertEqual((watched.sent, watched.health.reason, watched.table.lost), (sent, "not_sent", 0))
        self.assertEqual(watched.table.not_sent, 5)
        self.assertEqual(
            self.changes[-1].says,
            "3 probes in a row failed: this machine cannot send to it: [Errno 22] Invalid argument",
        )

    def test_wrong_zone(self) -> None:
        """An address that cannot be sent to is told with the reason, in words."""

        def refuse(datagrams: list[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
            return [
                (*datagram, invalid_address("fe80::1%nope", "there is no such interface")) for datagram in datagrams
            ]

        self.serve(Echo())
        self.watch((SERVER, PORT))
        self.advance(2)
        self.patch(self.watcher.ports[0], "write_batch", refuse)
        self.advance(5)
        self.assertIn("cannot send to it: fe80::1%nope: there is no such interface", self.changes[-1].says)

    def test_refused_by_the_kernel(self) -> None:
        """What the own kernel refuses, as for a firewall's rule, is not lost: only the first may be taken for that."""
        for number in range(30):
            self.serve(Echo(), PORT + number)
        targets = self.watch(*((SERVER, PORT + number) for number in range(30)))
        self.advance(3)
        (port,) = self.watcher.ports
        write, refused, batches = port.write, {PORT + 7, PORT + 8}, set()
        write_batch = port.write_batch

        def refuse(datagram: bytes, addr: Address) -> None:
            if addr[1] in refused:
                port.stats.count_send_error(errno.EPERM)
            else:
                write(datagram, addr)

        def send(datagrams: list[tuple[bytes, Address]]) -> Any:
            batches.add(len(datagrams))
            return write_batch(datagrams)

        self.patch(port, "write", refuse)
        self.patch(port, "write_batch", send)
        self.advance(8)
        for watched in targets:
            state, table = watched.health.state, watched.table
            if watched.target.port in refused:
                self.assertEqual((state, watched.health.reason), ("down", "not_sent"))
                self.assertIn(table.lost, (0, 1))
                self.assertGreaterEqual(table.not_sent, 6)
            else:
                self.assertEqual((state, table.lost, table.not_sent), ("up", 0, 0))
        self.assertGreater(max(batches), 1)
        self.assertIn(f"this machine cannot send to it: {os.strerror(errno.EPERM)}", self.changes[-1].says)
        refused.clear()
        self.advance(6)
        self.assertEqual({watched.health.state for watched in targets}, {"up"})
        self.assertFalse(any(watched.refused for watched in targets))

    def test_no_port(self) -> None:
        """Where no port can be opened, as on a machine without IPv6, that is the reason; others are probed."""
        self.serve(Echo())
        listen = transport.listen

        def refuse(reactor: Any, port: int, protocol: Any, interface: str, **options: Any) -> Any:
            if interface == "::":
                error = OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
                raise CannotListenError(interface, port, error)  # type: ignore[no-untyped-call]  # Twisted has none here
            return listen(reactor, port, protocol, interface, **options)

        self.patch(transport, "listen", refuse)
        ipv4, ipv6 = self.watch((SERVER, PORT), (SERVER6, PORT))
        self.advance(5)
        self.assertEqual((ipv4.health.state, ipv6.health.state, ipv6.health.reason), ("up", "down", "not_sent"))
        self.assertIn("Address family not supported", self.changes[-1].says)

    def test_late(self) -> None:
        """An answer after the timeout is late, its probe stays lost, and it makes nobody up."""
        self.network.impair(self.here, self.there, "delay=350ms")
        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT))
        self.advance(10)
        self.watcher.stop()
        self.advance(2)  # what is under way reaches a port that is closed
        table = watched.table
        self.assertEqual((watched.health.state, table.received, table.lost), ("down", 0, table.sent - table.waiting))
        self.assertIn(table.lost - table.late, (0, 1))
        self.assertGreater(table.late, 7)

    def test_just_late(self) -> None:
        """So does one that comes after the timeout, but before anybody has looked: it is a failure all the same."""
        self.network.impair(self.here, self.there, "delay=259ms")  # and back, with DELAY: 20 ms more than the timeout
        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT))
        self.advance(10)
        table = watched.table
        self.assertEqual((watched.health.state, watched.health.reason), ("down", "no_answer"))
        self.assertEqual((table.received, table.lost, watched.rolling.loss), (0, table.sent - table.waiting, 1.0))
        self.assertEqual(table.late, table.lost)

    def test_many_probes(self) -> None:
        """When sequence numbers come to their end another series begins, and no counter goes back."""
        self.patch(watched_module, "MOST_PROBES", 50)
        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT), settings=Settings(interval=0.1, jitter=0.0))
        self.advance(12)
        self.assertGreater(watched.table.received, 110)
        self.assertEqual((watched.table.lost, watched.table.foreign), (0, 0))
        self.assertLessEqual(watched.table.next_sequence, 50)


class WhoseTests(WatcherTestCase):
    """Which target a datagram belongs to."""

    def test_same_address(self) -> None:
        """Several targets with one address each get their own answers, of echo and of rpc servers, and errors."""
        self.serve(Echo(), PORT + 1)
        self.serve_methods(Methods())
        watched = self.watch(*[(SERVER, PORT)] * 3, *[(SERVER, PORT + 1)] * 3, *[(SERVER, PORT + 2)] * 3)
        self.advance(10)
        for one in watched[:6]:
            self.assertEqual((one.table.received, one.table.foreign, one.health.state), (one.sent, 0, "up"))
        for one in watched[6:]:
            self.assertEqual((one.table.unreachable, one.table.oddities), (one.sent, {}))

    def test_strangers(self) -> None:
        """What comes from an unknown address is a stranger's, unless it is an answer from another address."""
        echo = Echo()
        self.serve(echo)
        other = self.peer(PORT + 7)
        (watched,) = self.watch((SERVER, PORT))
        self.advance(2)
        (port,) = self.watcher.ports
        assert other.transport is not None
        probe = self.sent(to=(SERVER, PORT))[-1][1]
        other.transport.write(b"hello", (CLIENT, port.getHost().port))
        other.transport.write(probe, (CLIENT, port.getHost().port))
        self.advance()
        self.assertEqual((self.watcher.strangers, watched.table.oddities), (1, {"from_another_address": 1}))

    def test_forged_error(self) -> None:
        """An ICMP error that quotes no probe is counted as odd and changes nothing."""
        self.serve(Echo())
        (watched,) = self.watch((SERVER, PORT))
        self.advance(2)
        refused = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER)
        self.watcher.unreachable_received_untrusted((SERVER, PORT), refused, b"x" * 64)
        self.watcher.unreachable_received_untrusted((SERVER, 9), refused, b"x" * 64)
        self.assertEqual((watched.table.unreachable, watched.table.oddities), (0, {"forged_icmp_error": 1}))


class ArrivalTests(WatcherTestCase):
    """When answers arrived: what the kernel says counts, not when they are read."""

    def probe(self, watched: Watched) -> bytes:
        """Send a probe to a server that keeps silent, and return it."""
        sent = watched.sent
        while watched.sent == sent:
            self.advance(TICK)
        return self.sent(to=(SERVER, PORT))[-1][1]

    def test_kernel_time(self) -> None:
        """Answers read together, long after they came, have their own round trips each."""
        self.serve(Deaf())
        watched = self.watch((SERVER, PORT), settings=Settings(interval=2.0, jitter=0.0, timeout=2.0))[0]
        probe = self.probe(watched)
        sent_ns = int.from_bytes(probe[33:41], "big")
        self.advance(0.5)
        peer = (SERVER, PORT)
        self.watcher.replies_received_untrusted(
            [(b"noise", peer), (probe, peer)], [sent_ns + 1_000_000, sent_ns + 30_000_000]
        )
        self.assertEqual((watched.table.received, watched.rtt_sum_ns), (1, 30_000_000))

    def test_without(self) -> None:
        """Where the kernel says nothing, or what cannot be, it is the time of reading."""
        self.serve(Deaf())
        watched = self.watch((SERVER, PORT), settings=Settings(interval=2.0, jitter=0.0, timeout=2.0))[0]
        for times in ((), (1,), (2**62,)):
            before = watched.rtt_sum_ns
            probe = self.probe(watched)
            sent_ns = int.from_bytes(probe[33:41], "big")
            self.advance(0.25)
            self.watcher.replies_received_untrusted([(probe, (SERVER, PORT))], times)
            now_ns = round(self.here.seconds() * 1e9)
            self.assertEqual(watched.rtt_sum_ns - before, now_ns - sent_ns)


class NameTests(WatcherTestCase):
    """Targets with names."""

    names = {"server.example": (SERVER,), "both.example": (SERVER6, SERVER), "six.example": (SERVER6,)}  # noqa: RUF012  # never changed

    def setUp(self) -> None:
        """Keep the names of a test to itself."""
        super().setUp()
        self.network.names = dict(self.names)

    def test_resolved(self) -> None:
        """A name is looked up before it is probed; of several addresses the first is taken, or one of the family."""
        self.serve(Echo())
        self.watcher.set_targets(
            {
                name: Target(name, host, PORT, Settings(family=family))  # type: ignore[arg-type]  # one of three
                for name, host, family in (
                    ("a", "server.example", "any"),
                    ("b", "both.example", "any"),
                    ("c", "both.example", "ipv4"),
                )
            }
        )
        self.advance(5)
        self.assertEqual([one.address for one in self.watcher.targets.values()],
                         [(SERVER, PORT), (SERVER6, PORT), (SERVER, PORT)])  # fmt: skip
        self.assertEqual({one.health.state for one in self.watcher.targets.values()}, {"up"})

    def test_unknown(self) -> None:
        """A name without an address makes its target down at once, with that reason; when it has one it is probed."""
        self.serve(Echo())
        (watched,) = self.watch(("new.example", PORT))
        self.advance(1)
        self.assertEqual(self.told(), [("t0", "down", "name_unknown")])
        self.assertEqual((watched.sent, watched.lookup_failures), (0, 1))
        self.network.names["new.example"] = (SERVER,)
        self.advance(15)
        self.assertEqual(self.told(), [("t0", "up", "answers")])

    def test_no_address_of_the_family(self) -> None:
        """The reason says which family was wanted."""
        self.watch(("six.example", PORT), settings=Settings(family="ipv4"))
        self.advance(1)
        self.assertIn("'six.example' does not resolve (no ipv4 address)", self.changes[0].says)

    def test_moved(self) -> None:
        """A name is looked up again each minute or so, and probes follow it; its state and figures go on."""
        self.serve(Echo())
        other = self.network.reactor("192.0.2.9")
        self.serve(Echo(), on=other)
        (watched,) = self.watch(("server.example", PORT))
        self.advance(10)
        self.network.names["server.example"] = ("192.0.2.9",)
        self.advance(2 * AGAIN_AFTER)
        self.assertEqual((watched.address, watched.health.state), (("192.0.2.9", PORT), "up"))
        self.assertEqual(watched.table.received + 1, max(watched.sent, watched.table.received + 1))
        self.assertEqual(self.told(), [("t0", "up", "answers")])

    def test_looked_up_often(self) -> None:
        """However often its name is looked up, a target is probed once in each interval."""
        self.serve(Echo())
        (watched,) = self.watch(("server.example", PORT))
        self.advance(6 * AGAIN_AFTER)
        self.assertIn(watched.sent - round(6 * AGAIN_AFTER), range(-2, 3))

    def test_stays(self) -> None:
        """Of several addresses the one in use is kept as long as it is among them."""
        self.serve(Echo())
        self.network.names["server.example"] = (SERVER,)
        (watched,) = self.watch(("server.example", PORT))
        self.advance(5)
        self.network.names["server.example"] = ("192.0.2.9", SERVER)
        self.advance(2 * AGAIN_AFTER)
        self.assertEqual(watched.address, (SERVER, PORT))

    def test_another_address(self) -> None:
        """While a name with several addresses is down each look-up goes on to the next; what answers is kept."""
        self.serve(Echo(), interface=SERVER)
        self.network.names["three.example"] = ("192.0.2.9", SERVER6, SERVER)
        (watched,) = self.watch(("three.example", PORT))
        self.advance(5)
        self.assertEqual((watched.health.state, watched.address), ("down", ("192.0.2.9", PORT)))
        found = [watched.address]
        for _ in range(round(6 * AGAIN_AFTER)):
            self.advance(1)
            if watched.address != found[-1]:
                found.append(watched.address)
        self.assertEqual(found, [("192.0.2.9", PORT), (SERVER6, PORT), (SERVER, PORT)])
        self.assertEqual(watched.health.state, "up")

    def test_lost_name(self) -> None:
        """A name that stops resolving keeps its address for some look-ups, and is down after these."""
        self.serve(Echo())
        (watched,) = self.watch(("server.example", PORT))
        self.advance(5)
        del self.network.names["server.example"]
        while watched.lookup_failures < FAILURES_BELIEVED - 1:
            self.advance(1)
        self.assertEqual(watched.health.state, "up")
        self.advance(10)
        self.assertEqual((watched.health.state, watched.health.reason, watched.address), ("down", "name_unknown", None))
        sent = watched.sent
        self.advance(20)
        self.assertEqual(watched.sent, sent)
        self.network.names["server.example"] = (SERVER,)
        self.advance(30)
        self.assertEqual(watched.health.state, "up")
        before = watched.sent
        self.advance(20)
        self.assertIn(watched.sent - before, (19, 20, 21))  # not twice as many: it is planned once

    def test_bounded(self) -> None:
        """A few look-ups run at once, the others wait; meanwhile those that are known are probed."""
        self.network.lookup_delay = 7.0
        self.serve(Echo())
        self.watch((SERVER, PORT), *[("server.example", PORT)] * (3 * MAX_LOOKUPS))
        self.advance(5)
        self.assertEqual(self.told(), [("t0", "up", "answers")])
        self.assertEqual(len(self.watcher._lookups._running), MAX_LOOKUPS)
        self.advance(30)
        self.assertEqual(len(self.told()), 3 * MAX_LOOKUPS)
        self.watcher.stop()
        self.advance(10)


class ReloadTests(WatcherTestCase):
    """Other targets while it runs."""

    def test_kept(self) -> None:
        """A target that stays keeps its figures; a changed one begins anew; a removed one is probed no more."""
        self.serve(Echo())
        targets = {name: Target(name, SERVER, PORT, FAST) for name in "abc"}
        self.assertEqual(self.watcher.set_targets(targets), (3, 0, 0))
        self.advance(5)
        kept, changed, removed = self.watcher.targets.values()
        del targets["c"]
        targets["b"] = targets["b"]._replace(settings=Settings(interval=0.5))
        targets["d"] = Target("d", SERVER, PORT, FAST)
        self.assertEqual(self.watcher.set_targets(targets), (1, 1, 1))
        sent = removed.sent, changed.sent
        self.assertIs(self.watcher.targets["a"], kept)
        self.assertIsNot(self.watcher.targets["b"], changed)
        self.advance(5)
        self.assertEqual((removed.sent, changed.sent), sent)
        self.assertEqual([one.health.state for one in self.watcher.targets.values()], ["up"] * 3)
        self.assertEqual([one.table.foreign for one in self.watcher.targets.values()], [0] * 3)
        self.assertLessEqual(len(self.watcher._agenda), 2 * len(targets))

    def test_often(self) -> None:
        """A thousand reloads leave no more in memory than one."""
        self.serve(Echo())
        for number in range(1000):
            settings = Settings(interval=100.0 + number)
            self.watcher.set_targets({name: Target(name, SERVER, PORT, settings) for name in "abc"})
        self.assertLessEqual(len(self.watcher._agenda), 6)
        self.assertEqual(len(self.watcher._by_session), 3)
        self.advance(300)
        self.assertEqual(len(self.watcher._by_address), 1)
