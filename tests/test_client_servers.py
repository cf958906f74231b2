"""The client and its servers: several, moving, silent; its windows, its ports, its warnings."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults
from twisted.internet.error import CannotListenError

from tests.simulation import CLIENT, CLIENT6, DELAY, PORT, SERVER, SERVER6, Echo, NoJitter, SimulatedTestCase
from twistedudp import errors
from twistedudp.client import UDPClientService
from twistedudp.impairment import Arrival
from twistedudp.methods import RPCMethods, method
from twistedudp.protocol import RPCServerProtocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from tests.simulation import Peer
    from twistedudp.testing import SimulatedReactor

SECOND = "192.0.2.3"
THIRD = "192.0.2.4"


class Who(RPCMethods):
    """A server that knows its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = 0

    @method(idempotent=True)
    def who(self) -> str:
        """Tell it."""
        self.runs += 1
        return self.name

    @method
    def once(self) -> str:
        """Tell it, and count."""
        self.runs += 1
        return self.name


class ServersTestCase(SimulatedTestCase):
    """Three hosts with servers."""

    def setUp(self) -> None:
        """Make two more hosts."""
        super().setUp()
        self.hosts: dict[str, SimulatedReactor] = {
            SERVER: self.there,
            SECOND: self.network.reactor(SECOND),
            THIRD: self.network.reactor(THIRD),
        }

    def answering(self, host: str, name: str) -> Who:
        """Let a server answer on a host."""
        methods = Who(name)
        protocol = RPCServerProtocol(methods, clock=self.network.clock.seconds)
        self.serve(protocol, interface=host, on=self.hosts[host])
        return methods

    def silent(self, host: str) -> Peer:
        """Let a server listen on a host that never answers."""
        return self.peer(interface=host, on=self.hosts[host])

    def several(self, *hosts: str, **options: Any) -> UDPClientService:
        """Return a started client of servers on several hosts."""
        options.setdefault("rng", NoJitter(1))
        client = UDPClientService(self.here, [(host, PORT) for host in hosts], **options)
        self.addCleanup(client.stopService)
        client.startService()
        return client

    def lose(self, client: UDPClientService, count: int = 1, timeout: float = 0.1) -> None:
        """Make calls that nobody answers, one after the other."""
        for _ in range(count):
            call = client.call("who", timeout=timeout)
            self.advance(timeout)
            self.error(call, errors.RequestTimedOut)


class SeveralServersTests(ServersTestCase):
    """``UDPClientService(reactor, [(host, port), ...])``."""

    def test_attributes(self) -> None:
        """The first server is the client's host and port; its text says how many there are."""
        client = self.several(SERVER, SECOND, THIRD)
        self.assertEqual((client.host, client.port), (SERVER, PORT))
        self.assertEqual(client.servers, ((SERVER, PORT), (SECOND, PORT), (THIRD, PORT)))
        self.assertEqual(repr(client), f"<UDPClientService for {SERVER} port {PORT} and 2 more, running>")

    def test_wrong(self) -> None:
        """What can be no server is refused when the client is made."""
        wrong: Any
        for wrong in ([], [SERVER], [(SERVER, 0)], [("", 1)]):
            self.assertRaises(errors.InvalidAddress, UDPClientService, self.here, wrong)
        self.assertRaises(errors.InvalidAddress, UDPClientService, self.here, SERVER)
        several: Any = [(SERVER, 1)]
        self.assertRaises(errors.InvalidAddress, UDPClientService, self.here, several, 1)

    def test_first_that_answers(self) -> None:
        """An idempotent call is answered though the first two servers are silent, and the next goes straight there."""
        silent = [self.silent(SERVER), self.silent(SECOND)]
        self.answering(THIRD, "third")
        client = self.several(SERVER, SECOND, THIRD)
        self.assertEqual(self.result(client.call("who", idempotent=True)), "third")
        self.assertEqual(self.result(client.call("once")), "third")
        self.assertEqual([len(peer.received) for peer in silent], [1, 1])
        self.assertEqual(client.stats.retransmitted, 2)

    def test_others_stay(self) -> None:
        """A call that is not idempotent stays with the server that may have run it, and fails."""
        silent = self.silent(SERVER)
        methods = self.answering(SECOND, "second")
        client = self.several(SERVER, SECOND)
        call = client.call("once")
        self.advance(2.0)
        self.assertEqual(self.error(call, errors.RequestTimedOut).peers, ((SERVER, PORT),))
        self.assertEqual((len(silent.received), methods.runs), (4, 0))
        self.assertEqual(len({addr for _, addr in silent.received}), 1)
        self.assertEqual(self.result(client.call("once")), "second")

    def test_refused(self) -> None:
        """A call that is refused goes on to the next server, whatever kind it is."""
        self.answering(SECOND, "second")
        client = self.several(SERVER, SECOND)
        self.assertEqual(self.result(client.call("once")), "second")
        self.assertEqual((client.stats.refused, client.stats.retransmitted), (1, 0))

    def test_comes_back(self) -> None:
        """A server that comes back is preferred only when the present one fails."""
        self.silent(SERVER)
        second = self.silent(SECOND)
        client = self.several(SERVER, SECOND)
        self.lose(client)
        for _ in range(3):
            call = client.call("who")
            self.advance()
            self.assertEqual([stats.in_flight for stats in client.stats.peers], [0, 1])
            second.respond("second")
            self.advance()
            self.assertEqual(self.successResultOf(call), "second")
        self.lose(client)
        call = client.call("who", timeout=0.1)
        self.assertEqual([stats.in_flight for stats in client.stats.peers], [1, 0])
        call.addErrback(lambda _: None)

    def test_both_families(self) -> None:
        """IPv4 and IPv6 servers may stand in one list; each is asked from a port of its family."""
        six = self.peer(interface=SERVER6)
        four = self.silent(SECOND)
        client = self.several(SERVER6, SECOND)
        call = client.call("who", idempotent=True)
        self.advance(0.3)
        self.assertEqual([six.received[0][1][0], four.received[0][1][0]], [CLIENT6, CLIENT])
        four.respond("here")
        self.advance()
        self.assertEqual(self.successResultOf(call), "here")

    def test_names_and_numbers(self) -> None:
        """Names and numeric hosts may be mixed, and a name that does not resolve does not matter where another does."""
        self.network.names["second.example"] = (SECOND,)
        self.answering(SECOND, "second")
        client = self.several("nobody.example", "second.example", SERVER)
        self.advance(0.0)
        call = client.call("once")
        self.assertEqual(self.result(call), "second")
        self.assertEqual([peer.address[0] for peer in client.stats.peers], [SECOND, SERVER])

    def test_stats(self) -> None:
        """The statistics tell of each address what is known of it."""
        self.answering(SERVER, "first")
        self.silent(SECOND)
        client = self.several(SERVER, SECOND)
        self.result(client.call("who"))
        first, second = client.stats.peers
        self.assertEqual((first.address, second.address), ((SERVER, PORT), (SECOND, PORT)))
        self.assertAlmostEqual(first.round_trip or 0.0, 0.002)
        self.assertEqual((first.timeout, second.round_trip, second.timeout), (0.2, None, None))
        self.assertEqual((first.window, first.in_flight, first.circuit_open), (4, 0, False))


class MovingServerTests(ServersTestCase):
    """Names are looked up again while the client runs."""

    names = {"server.example": (SERVER,)}  # noqa: RUF012  # changed for one network only

    def setUp(self) -> None:
        """Let the name belong to one host, and nobody to another."""
        super().setUp()
        self.network.names["server.example"] = (SERVER,)

    def test_within_a_minute(self) -> None:
        """A server that moves without a word of its old host is followed within a minute by calls that go well."""
        old, new = self.answering(SERVER, "old"), self.answering(SECOND, "new")
        client = self.client("server.example")
        self.assertEqual(self.result(client.call("once")), "old")
        self.network.names["server.example"] = (SECOND,)
        for _ in range(70):
            self.advance(1.0)
            self.result(client.call("once"))
        self.assertTrue(60 <= old.runs <= 62, old.runs)
        self.assertTrue(8 <= new.runs <= 10, new.runs)
        self.assertEqual(client.stats.answered, 71)

    def test_after_a_failure(self) -> None:
        """One whose old host falls silent is followed as soon as a call has failed and 3 s are over."""
        self.silent(SERVER)
        self.answering(SECOND, "new")
        client = self.client("server.example")
        self.advance(10.0)
        self.network.names["server.example"] = (SECOND,)
        self.lose(client)
        self.advance()
        self.assertEqual(self.result(client.call("once")), "new")

    def test_refused(self) -> None:
        """Likewise where the old host refuses."""
        self.answering(SECOND, "new")
        client = self.client("server.example")
        self.advance(10.0)
        self.network.names["server.example"] = (SECOND,)
        call = client.call("once")
        self.advance()
        self.error(call, errors.PeerUnreachable)
        self.assertEqual(self.result(client.call("once")), "new")

    def test_circuit_open(self) -> None:
        """Likewise where the calls fail at once because the old host does not answer."""
        self.silent(SERVER)
        self.answering(SECOND, "new")
        client = self.client("server.example", breaker_cooldown=1000.0)
        self.lose(client, 5)
        self.network.names["server.example"] = (SECOND,)
        self.advance(3.0)
        self.error(client.call("once"), errors.CircuitOpen)
        self.advance()
        self.assertEqual(self.result(client.call("once")), "new")

    def test_nothing_while_idle(self) -> None:
        """A client that nobody uses looks nothing up and has no timer."""
        client = self.client("server.example")
        self.advance()
        self.assertEqual(self.here.getDelayedCalls(), [])
        self.network.lookup_delay = 5.0
        self.advance(1000.0)
        self.assertEqual(self.here.getDelayedCalls(), [])
        client.notify("x")  # which is somebody
        self.assertEqual(len(self.here.getDelayedCalls()), 1)
        self.advance(5.0)

    def test_dead_name_server(self) -> None:
        """A name that resolves no more takes no server away."""
        self.answering(SERVER, "old")
        client = self.client("server.example")
        self.result(client.call("once"))
        del self.network.names["server.example"]
        for _ in range(5):
            self.advance(61.0)
            self.assertEqual(self.result(client.call("once")), "old")
        self.advance()
        self.assertEqual(self.result(client.call("once")), "old")

    def test_stop_during_a_lookup(self) -> None:
        """A client that is stopped while a name is looked up again takes no notice of the answer."""
        self.answering(SERVER, "old")
        client = self.client("server.example")
        self.result(client.call("once"))
        self.advance(61.0)
        self.network.lookup_delay = 0.5
        self.result(client.call("once"))
        client.stopService()
        self.advance(1.0)
        self.assertEqual((self.ports_bound(), client.running), ([], False))


class CircuitTests(ServersTestCase):
    """The breaker, seen by a caller."""

    def test_fails_at_once(self) -> None:
        """After some calls in a row that ran out the next ones fail at once, all kinds of them."""
        self.silent(SERVER)
        client = self.several(SERVER, breaker_threshold=2, breaker_cooldown=5.0)
        self.lose(client, 2)
        sent = len(self.sent())
        for call in (client.call("who"), client.echo("x"), client.echo_bytes(b"x")):
            error = self.error(call, errors.CircuitOpen)
            self.assertEqual((error.peers, round(error.retry_in, 6)), (((SERVER, PORT),), 5.0))
        self.assertEqual((len(self.sent()), client.stats.suspended), (sent, 3))
        self.assertTrue(client.stats.peers[0].circuit_open)

    def test_server_comes_back(self) -> None:
        """One call in each cool-down is sent; when that one is answered all is as before."""
        peer = self.silent(SERVER)
        client = self.several(SERVER)
        self.lose(client, 5)
        before = len(peer.received)
        outcomes = []
        for _ in range(100):
            call = client.call("who", timeout=0.08)
            self.advance(0.1)
            outcomes.append(type(self.failureResultOf(call).value).__name__)
        self.assertEqual(outcomes.count("RequestTimedOut"), 3)
        self.assertEqual(len(peer.received) - before, 3 * 4)
        self.advance(3.0)
        call = client.call("who")
        self.advance()
        peer.respond("back")
        self.advance()
        self.assertEqual(self.successResultOf(call), "back")
        calls = [client.call("who") for _ in range(2)]
        self.advance()
        for number in (-2, -1):
            peer.respond("up", number)
        self.assertEqual(self.result(gatherResults(calls)), ["up"] * 2)

    def test_queued_calls(self) -> None:
        """Calls that wait for their turn fail when the circuit opens, and their callbacks may call again."""
        self.silent(SERVER)
        client = self.several(SERVER, window=2, breaker_threshold=2)
        for _ in range(2):
            client.call("who", timeout=1.0).addErrback(lambda _: None)
        retried: list[Deferred[Any]] = []
        waiting = [
            client.call("who", timeout=60.0).addErrback(lambda _: retried.append(client.call("who"))) for _ in range(3)
        ]
        self.advance(1.0)
        for call in waiting:
            self.successResultOf(call)
        for call in retried:
            self.error(call, errors.CircuitOpen)
        self.assertEqual((len(retried), client.stats.suspended), (3, 6))

    def test_never(self) -> None:
        """A threshold of 0 means never."""
        self.silent(SERVER)
        client = self.several(SERVER, breaker_threshold=0)
        self.lose(client, 20)

    def test_notifications(self) -> None:
        """A notification to a server that answers nothing is dropped and counted, until it answers again."""
        peer = self.silent(SERVER)
        client = self.several(SERVER)
        self.lose(client, 5)
        before = len(peer.received)
        client.notify("x")
        self.advance()
        self.assertEqual((len(peer.received), client.stats.notifications_dropped), (before, 1))
        self.advance(3.0)
        self.result_of_probe(client, peer)
        client.notify("x")
        self.advance()
        self.assertEqual((len(peer.received), client.stats.notifications_dropped), (before + 2, 1))

    def result_of_probe(self, client: UDPClientService, peer: Peer) -> None:
        """Let the server answer the one call that is let through."""
        call = client.call("probe")
        self.advance(2 * DELAY)
        peer.respond("back")
        self.advance()
        self.assertEqual(self.successResultOf(call), "back")


class WindowTests(ServersTestCase):
    """The window, seen by a caller."""

    def test_grows(self) -> None:
        """Four calls are under way at first, then as many as the answers allow; all are answered in order."""
        peer = self.silent(SERVER)
        client = self.client(timeout=60.0)
        calls = [client.call("x", number) for number in range(30)]
        answered = 0
        for expected in (4, 8, 16):
            self.advance()
            self.assertEqual(len(peer.received) - answered, expected)
            while answered < len(peer.received):
                peer.respond(peer.request(answered).params[0], answered)
                answered += 1
        self.advance()
        while answered < 30:
            peer.respond(peer.request(answered).params[0], answered)
            answered += 1
        self.assertEqual(self.result(gatherResults(calls)), list(range(30)))
        self.assertEqual((client.stats.queued, client.stats.retransmitted), (26, 0))

    def test_turn_that_never_came(self) -> None:
        """A call whose turn did not come says so."""
        self.silent(SERVER)
        client = self.client(window=1)
        client.call("long", timeout=60.0).addErrback(lambda _: None)
        call = client.call("short", timeout=1.0)
        self.advance(1.0)
        error = self.error(call, errors.RequestTimedOut)
        self.assertEqual((error.attempts, error.peers), (0, ()))
        self.assertIn("its turn to be sent did not come", str(error))

    def test_fixed(self) -> None:
        """window= lets that many be under way from the beginning."""
        peer = self.silent(SERVER)
        client = self.client(window=64)
        calls = [client.call("x") for _ in range(65)]
        self.advance()
        self.assertEqual((len(peer.received), client.stats.queued), (64, 1))
        calls[3].cancel()
        self.failureResultOf(calls[3])
        self.advance()
        self.assertEqual(len(peer.received), 65)
        for call in calls:
            call.addErrback(lambda _: None)

    def test_answers_make_room_in_a_callback(self) -> None:
        """A call made in the callback of an answer does not overtake those that wait."""
        peer = self.silent(SERVER)
        client = self.client(window=1)
        client.call("first").addCallback(lambda _: client.call("late")).addErrback(lambda _: None)
        client.call("second").addErrback(lambda _: None)
        for _ in range(2):
            self.advance()
            peer.respond(None)
        self.advance()
        self.assertEqual([peer.request(number).method for number in range(3)], ["first", "second", "late"])

    def test_invalid(self) -> None:
        """What cannot be a window, a policy or a breaker is a ValueError that names it."""
        for name, values in (
            ("window", (0, -1, 262145)),
            ("policy", ("wan", "", "LAN")),
            ("breaker_threshold", (-1,)),
            ("breaker_cooldown", (0, -1.0, float("inf"), float("nan"))),
        ):
            for value in values:
                options: dict[str, Any] = {name: value}
                with self.assertRaisesRegex(ValueError, f"{name}="):
                    UDPClientService(self.here, SERVER, PORT, **options)

    def test_lan(self) -> None:
        """policy="lan" repeats sooner."""
        self.silent(SERVER)
        client = self.client(policy="lan")
        client.call("x", timeout=60.0).addErrback(lambda _: None)
        self.advance(1.0)
        self.assertEqual([round(at, 6) for at, _ in self.sent()], [0.0, 0.2, 0.6])


class FailingReactor:
    """A reactor that has only so many ports to give.

    Attributes:
        left: How many more can be opened; ``None`` for any number.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.left: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUDP(self, port: int, protocol: Any, interface: str, size: int) -> Any:
        """Open one, or fail as an operating system does that has none left."""
        if self.left is not None:
            if not self.left:
                raise CannotListenError(interface, port, OSError(errno.EMFILE, "Too many open files"))  # type: ignore[no-untyped-call]  # Twisted has no annotation here
            self.left -= 1
        return self._reactor.listenUDP(port, protocol, interface, size)


class PortTests(ServersTestCase):
    """The local ports from which idempotent calls are repeated."""

    def test_opened_and_closed(self) -> None:
        """Each retry leaves from a port of its own, and these are closed when the call ends."""
        peer = self.silent(SERVER)
        client = self.client()
        call = client.call("x", idempotent=True)
        self.advance(0.8)
        ports = [addr[1] for _, addr in peer.received]
        self.assertEqual((len(set(ports)), set(self.ports_bound())), (3, set(ports)))
        peer.respond("done", 1)
        self.advance()
        self.assertEqual(self.successResultOf(call), "done")
        self.assertEqual(self.ports_bound(), ports[:1])

    def test_closed_after_each_end(self) -> None:
        """... also by its deadline, by a cancel, by a refusal and by a stop."""
        self.silent(SERVER)
        client = self.client()
        for end in ("deadline", "cancel"):
            call = client.call("x", idempotent=True, timeout=1.0)
            self.advance(0.5)
            self.assertEqual(len(self.ports_bound()), 3)
            if end == "deadline":
                self.advance(1.0)
            else:
                call.cancel()
            self.failureResultOf(call)
            self.advance()
            self.assertEqual(len(self.ports_bound()), 1)
        call = client.call("x", idempotent=True, timeout=1.0)
        self.advance(0.5)
        client.stopService()
        self.error(call, errors.RequestAborted)
        self.advance()
        self.assertEqual(self.ports_bound(), [])

    def test_at_most_64(self) -> None:
        """However many calls are repeated, 64 such ports are open at once; the others leave from the usual one."""
        peer = self.silent(SERVER)
        client = self.client(window=1000)
        calls = [client.call("x", number, idempotent=True) for number in range(100)]
        self.advance(0.3)
        self.assertEqual((len(self.ports_bound()), len(peer.received)), (65, 200))
        self.assertEqual(client.stats.retry_ports_short, 36)
        for call in calls:
            call.cancel()
            self.failureResultOf(call)
        self.advance()
        self.assertEqual(len(self.ports_bound()), 1)

    def test_answered_in_spite_of_a_dead_port(self) -> None:
        """A call is answered where nothing gets through from the usual port any more, as behind a dead NAT mapping."""
        self.answering(SERVER, "here")
        client = self.client()
        self.result(client.call("who", idempotent=True))
        [usual] = self.ports_bound()
        self.network.link(self.here, self.there).add(
            lambda datagram, _now, _rng: [] if datagram.source[1] == usual else [Arrival(datagram)]
        )
        self.assertEqual(self.result(client.call("who", idempotent=True)), "here")
        call = client.call("once")
        self.advance(2.0)
        self.error(call, errors.RequestTimedOut)

    def test_too_many_open_files(self) -> None:
        """Where no further port can be had the call is repeated from the usual one, and nothing else is disturbed."""
        peer = self.silent(SERVER)
        reactor = FailingReactor(self.here)
        client = self.client(reactor=reactor)
        client.notify("x")
        self.advance()
        reactor.left = 0
        call, other = client.call("x", idempotent=True), client.call("y")
        self.advance(0.3)
        self.assertEqual((client.stats.not_sent, client.stats.retry_ports_short), (0, 1))
        self.assertEqual(len(peer.received), 5)
        self.assertEqual(len({addr for _, addr in peer.received}), 1)
        for number in range(1, 5):
            peer.respond(peer.request(number).method, number)
        self.advance()
        self.assertEqual((self.successResultOf(call), self.successResultOf(other)), ("x", "y"))
        self.assertEqual(len(self.ports_bound()), 1)
        reactor.left = None
        call = client.call("x", idempotent=True)
        self.advance(0.3)
        peer.respond("again")
        self.advance()
        self.assertEqual(self.successResultOf(call), "again")


class SizeTests(ServersTestCase):
    """Datagrams that may be cut into fragments on the way."""

    def test_warned_once_a_minute(self) -> None:
        """Requests and notifications above 1,200 bytes are counted each, and logged once a minute."""
        self.serve(Echo())
        client = self.client()
        own = 9 + len("echo")
        self.result(client.echo("x" * (1200 - own - 3)))
        self.assertEqual((client.stats.large, self.log.warnings), (0, []))
        for _ in range(3):
            self.result(client.echo("x" * (1201 - own - 3)))
        client.notify("note", "x" * 1300)
        self.assertEqual((client.stats.large, len(self.log.warnings)), (4, 1))
        self.assertIn("'echo' has 1,201 bytes: more than 1,200 may be cut into fragments", self.log.warnings[0])
        self.assertNotIn("xxx", self.log.warnings[0])
        self.advance(60.0)
        client.notify("note", "x" * 1300)
        self.assertEqual(len(self.log.warnings), 2)
        self.assertIn("'note' has 1,3", self.log.warnings[1])

    def test_not_on_loopback(self) -> None:
        """On loopback nothing is cut."""
        self.serve(Echo(), on=self.here)
        for host in ("127.0.0.1", "::1"):
            client = self.client(host)
            self.result(client.echo("x" * 2000))
            self.assertEqual((client.stats.large, self.log.warnings), (1, []))
        client = self.several("127.0.0.1", SERVER)
        self.result(client.echo("x" * 2000))
        self.assertEqual(len(self.log.warnings), 1)

    def test_raw_echoes(self) -> None:
        """Raw echoes are what a caller measures a path with: of these nothing is said."""
        self.serve(Echo())
        client = self.client()
        self.result(client.echo_bytes(bytes(5000)))
        self.assertEqual((client.stats.large, self.log.warnings), (0, []))
