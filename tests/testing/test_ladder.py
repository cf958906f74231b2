"""The ladder diagram, as a picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Echo, Recorder
from twistedudp import _msgpack
from twistedudp.impairment import MTU, BurstLoss, Corrupt, Delay, Duplicate, Loss, PortUnreachable, Truncate
from twistedudp.testing import Arrival, SimulatedNetwork

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from twistedudp.testing import Datagram, LinkEffect, SimulatedPort, SimulatedReactor

SERVER = "192.0.2.1"
CLIENT = "192.0.2.2"
THIRD = "192.0.2.3"


class Skip:
    """An effect: loses, delays or passes, as it is told in order."""

    def __init__(self, *delays: float | None) -> None:
        self.delays = list(delays)

    def __call__(self, datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
        """Take the next: ``None`` loses."""
        delay = self.delays.pop(0) if self.delays else 0.0
        return [] if delay is None else [Arrival(datagram, delay)]


class LadderTestCase(SynchronousTestCase):
    """A client and an echo server."""

    maxDiff = None

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(delay=0.01)
        self.client = self.network.reactor(CLIENT, name="client")
        self.server = self.network.reactor(SERVER, name="server")
        self.server.listenUDP(7000, Echo())
        self.port = self.bind(self.client)
        self.there, self.back = self.network.links(self.client, self.server)

    def bind(self, reactor: SimulatedReactor, number: int = 40123, interface: str = "") -> SimulatedPort:
        """Bind a port that only listens."""
        port = reactor.listenUDP(number, Recorder(reactor), interface)
        port.setBroadcastAllowed(enabled=True)
        return port

    def send(self, *payloads: bytes, to: str = SERVER, port: int = 7000) -> None:
        """Send these, one after the other, each with its answer."""
        for payload in payloads:
            self.port.write(payload, (to, port))
            self.network.advance(0.1)

    def assert_picture(self, expected: str, **options: float) -> None:
        """Compare the diagram with one; its indentation counts nothing."""
        diagram = self.network.explain(**options)  # type: ignore[arg-type]  # passed on
        indentation = " " * 12
        self.assertEqual(
            diagram.rstrip().splitlines(), [line.removeprefix(indentation) for line in expected.splitlines()[1:-1]]
        )

    def words(self, *hosts: str) -> str:
        """Return the diagram's words on one line, to look for something in it."""
        lines = self.network.explain(*hosts, width=400).splitlines()
        return " / ".join(line.split("|  ")[-1].strip() for line in lines)


class PictureTests(LadderTestCase):
    """Whole diagrams."""

    def test_conversation(self) -> None:
        """A request that is lost, tried again, answered; and the answer to the first, which came late."""
        request = _msgpack.encode_request(0x1A2B, "add", [1, 2])
        self.there.add(Skip(None, 0.0))
        self.back.add(Skip(0.2))
        self.send(request, request)
        self.send(b"more")
        self.network.advance(1)
        self.assert_picture(
            """
                     client             server
                     192.0.2.2          192.0.2.1
                     |                  |
              0.000  |40123 ----x       |  request 0x1a2b "add", 12 B: lost by Skip
              0.100  |40123 ------> 7000|  request 0x1a2b "add", 12 B, try 2, +10 ms
              0.110  |        2---- 7000|  request 0x1a2b "add", 12 B
              0.200  |40123 ------> 7000|  "more", 4 B, +10 ms
              0.210  |40123 <------ 7000|  "more", 4 B, +10 ms
              0.320  |40123 <---2       |  request 0x1a2b "add", +210 ms
            """
        )

    def test_three_hosts(self) -> None:
        """An arrow passes behind the lanes between; a host that nobody names has its address; remarks have a mark."""
        third = self.network.reactor(THIRD)
        self.network.advance(0.5)
        self.bind(third, 50000).write(b"hello", (CLIENT, 40123))
        self.network.note("here it ends", third)
        self.network.note("and so does the world")
        self.network.run_until_idle()
        self.send(b"x")
        self.assert_picture("""
                     client          server          192.0.2.3
                     192.0.2.2       192.0.2.1
                     |               |               |
              0.500  |40123 <--------|--------- 50000|  "hello", 5 B, +10 ms
                     |               |               *  here it ends
                     |               |               |  and so does the world
              0.510  |40123 ---> 7000|               |  "x", 1 B, +10 ms
              0.520  |40123 <--- 7000|               |  "x", 1 B, +10 ms
            """)

    def test_long_addresses(self) -> None:
        """Headings that are too wide for their lanes are put above, and letters in their place."""
        network = SimulatedNetwork()
        one = network.reactor("2001:db8:1111:2222:3333:4444:5555:6666", "192.0.2.9", name="one")
        two = network.reactor("2001:db8:1111:2222:3333:4444:5555:7777")
        two.listenUDP(7, Echo(), "::")
        self.network = network
        self.bind(one, 40123, "::").write(b"\x00\x01", (two.addresses[0], 7))
        network.run_until_idle()
        self.assert_picture(
            """
            A = one, 2001:db8:1111:2222:3333:4444:5555:6666, 192.0.2.9
            B = 2001:db8:1111:2222:3333:4444:5555:7777
                     A                  B
                     |                  |
              0.000  |40123 ---------> 7|  00 01, 2 B, +1 ms
              0.001  |40123 <--------- 7|  00 01, 2 B, +1 ms
            """
        )

    def test_many_long_addresses(self) -> None:
        """Where the letters end, numbers follow."""
        network = SimulatedNetwork()
        for number in range(28):
            network.reactor(f"2001:db8:1111:2222:3333:4444:5555:{number + 16:x}")
        network.note("here")
        lines = network.explain(*[host.addresses[0] for host in network._hosts]).splitlines()
        self.assertEqual([line.split()[0] for line in lines[25:28]], ["Z", "H27", "H28"])
        self.assertEqual(lines[28].split()[-3:], ["Z", "H27", "H28"])

    def test_refused(self) -> None:
        """A refusal has its ICMP error, in dots; a crash leaves nothing."""
        self.send(b"a", port=9)
        self.server.crash()
        self.send(b"b")
        self.server.restart()
        self.assert_picture("""
                     client             server
                     192.0.2.2          192.0.2.1
                     |                  |
              0.000  |40123 ---------x 9|  "a", 1 B: refused, nobody listens
              0.010  |40123 <......... 9|  ICMP port unreachable, +10 ms
              0.100  |                  *  crashed
                     |40123 ------x 7000|  "b", 1 B: nobody listens
              0.200  |                  *  restarted
            """)

    def test_long_words(self) -> None:
        """Words that need more room go on below, and no line is longer than the width."""
        self.there.add(Loss(1.0), "the-effect-with-the-longest-name-of-all-effects")
        self.send(b"123456789 123456789 1234567890")
        self.assert_picture("""
                     client             server
                     192.0.2.2          192.0.2.1
                     |                  |
              0.000  |40123 ----x       |  "123456789 123456789 1234...", 30 B: lost by
                     |                  |    the-effect-with-the-longest-name-of-all-effects
            """)
        self.assertLessEqual(max(map(len, self.network.explain().splitlines())), 80)

    def test_to_itself(self) -> None:
        """What a host sends to itself stands beside its lane."""
        self.client.listenUDP(7, Recorder(self.client))
        self.send(b"me", to="127.0.0.1", port=7)
        self.assert_picture(
            """
                     client
                     192.0.2.2
                     |
              0.000  |40123 ---> 7         "me", 2 B, to itself, to 127.0.0.1, +10 ms
            """
        )

    def test_printed(self) -> None:
        """The diagram can be printed as well."""
        self.send(b"x")
        file = io.StringIO()
        self.assertEqual(self.network.explain(file=file), file.getvalue())

    def test_nothing(self) -> None:
        """Without datagrams there is nothing to draw; a remark has its line."""
        network = SimulatedNetwork()
        network.note("alone")
        self.assertEqual(network.explain(), "(nothing was sent)\n")
        self.assertEqual(self.network.explain(), "(nothing was sent)\n")
        self.network.note("still here")
        self.assert_picture("""
                     client             server
                     192.0.2.2          192.0.2.1
                     |                  |
              0.000  |                  |  still here
            """)


class WordsTests(LadderTestCase):
    """What is said of a datagram."""

    def test_messages(self) -> None:
        """MessagePack-RPC messages are named; what only begins like one shows its bytes."""
        self.send(
            _msgpack.encode_response(7, None, 5),
            _msgpack.encode_response(8, {"code": "busy", "message": ""}, None),
            _msgpack.encode_response(9, "no", None),
            _msgpack.encode_notification("log", ["x"]),
            _msgpack.encode_request(2**32 - 1, "caf\xe9\n", []),
            b"\x93\x00",
            b"\x94",
        )
        for expected in (
            "response 0x7, 5 B",
            'response 0x8 error "busy", ',
            'response 0x9 error "no", ',
            'notification "log", ',
            'request 0xffffffff "caf\\u00e9\\n", ',
            "93 00, 2 B",
            "94, 1 B",
        ):
            self.assertIn(expected, self.words())

    def test_other_payloads(self) -> None:
        """Text is quoted, other bytes are in hexadecimal, both cut; nothing is printed that a terminal would obey."""
        self.send(b"", b"text 'and' \"quotes\"", b"x" * 30, b"\x1b[31mred", bytes(range(20)), "caf\xe9".encode())
        for expected in (
            "empty, 0 B",
            '"text \'and\' \\"quotes\\"", 19 B',
            f'"{"x" * 24}...", 30 B',
            "1b 5b 33 31 6d 72 65 64, 8 B",
            "00 01 02 03 04 05 06 07 ..., 20 B",
            "63 61 66 c3 a9, 5 B",
        ):
            self.assertIn(expected, self.words())
        diagram = self.network.explain()
        self.assertTrue(diagram.isascii())
        self.assertTrue(diagram.replace("\n", "").isprintable())

    def test_names_are_escaped(self) -> None:
        """Names of hosts, effects and remarks are printable ASCII on one line, whatever they were."""
        self.network.names["b\xfccher\x1b.example"] = [THIRD]
        third = self.network.reactor(THIRD)
        self.network.link(CLIENT, third).add(Loss(1.0), "verl\xf6re\n")
        self.send(b"x", to=THIRD)
        self.network.note("\u2603\n", third)
        diagram = self.network.explain()
        for expected in ("b\\xfccher\\x1b.example", "lost by verl\\xf6re\\n", "\\u2603\\n"):
            self.assertIn(expected, diagram)
        self.assertTrue(diagram.isascii())

    def test_fates(self) -> None:
        """Each fate is told, with its cause."""
        self.send(b"gone", to="192.0.2.99")
        self.there.add(MTU(1000, True))
        self.send(b"x" * 2000)
        self.there.clear()
        self.there.add(PortUnreachable(1.0))
        self.send(b"refused")
        self.there.clear()
        self.server.listenUDP(7001, Recorder(self.server), "", 10)
        self.send(b"y" * 11, port=7001)
        self.server.silent = True
        self.send(b"silent", port=9)
        self.port.write(b"late", (SERVER, 7000))
        for expected in (
            '"gone", 4 B: no host has 192.0.2.99',
            "2,000 B: refused by MTU",
            "ICMP 3/4 Message too long by MTU, +10 ms",
            '"refused", 7 B: refused by PortUnreachable',
            "ICMP port unreachable by PortUnreachable, +10 ms",
            "11 B: too large for the port",
            '"silent", 6 B: nobody listens',
            '"late", 4 B: still in flight',
        ):
            self.assertIn(expected, self.words())

    def test_no_way(self) -> None:
        """What the own host could not route is told."""
        self.bind(self.client, 1, "::").write(b"x", ("2001:db8::1", 7))
        self.assertIn('"x", 1 B: no way to 2001:db8::1', self.words())

    def test_changes(self) -> None:
        """What an effect made of a datagram is told: a copy, a cut, other bits."""
        self.there.add(Truncate(1.0, 3))
        self.there.add(Duplicate(1.0))
        self.back.add(Corrupt(1.0))
        self.send(b"abcdef")
        words = self.words()
        self.assertIn('"abcdef", 6 B, cut to 3 B on the way, +10 ms', words)
        self.assertIn('"abc", 3 B, copy by Duplicate', words)
        self.assertIn('"abc", 3 B, changed on the way, +10 ms', words)

    def test_copy_that_is_refused(self) -> None:
        """A copy that nobody takes was refused by the host, not by the effect that made it."""
        self.there.add(Duplicate(1.0))
        self.send(b"x", port=9)
        self.assertIn("copy by Duplicate", self.words())
        self.assertNotIn("refused by", self.words())

    def test_addresses(self) -> None:
        """Addresses beyond the first of a host are told, also those of a NAT, and IPv6 where a host has both."""
        both = self.network.reactor("192.0.2.11", "192.0.2.12", "2001:db8::11")
        both.listenUDP(7000, Echo(), "::")
        port = self.bind(self.network.reactor("192.0.2.21", "2001:db8::21"), 5, "::")
        for address in ("192.0.2.11", "192.0.2.12", "2001:db8::11"):
            port.write(address.encode(), (address, 7000))
        self.there.add(lambda datagram, *_: [Arrival(datagram._replace(source=("203.0.113.1", 9)))], "nat")
        self.send(b"out")
        for expected in (
            '"192.0.2.11", 10 B, +10 ms',
            '"192.0.2.12", 10 B, to 192.0.2.12, +10 ms',
            '"192.0.2.12", 10 B, from 192.0.2.12, +10 ms',
            '"2001:db8::11", 12 B, IPv6, +10 ms',
            '"out", 3 B, from 203.0.113.1, +10 ms',
        ):
            self.assertIn(expected, self.words())

    def test_durations(self) -> None:
        """Times under way are in the unit that suits them, the times of lines as exact as they need to be."""
        for delay in (0.0, 0.00025, 0.0123456, 1.5, 20.0):
            self.there.delay = delay
            self.send(b"x")
            self.network.advance(30)
        for expected in ("+0 us", "+250 us", "+12.35 ms", "+1.5 s", "+20 s"):
            self.assertIn(expected, self.words())
        self.assertIn("\n   30.100000  |", self.network.explain())


class TriesTests(LadderTestCase):
    """Bytes that are sent again."""

    def test_request_at_another_server(self) -> None:
        """A request counts over all servers and ports; other bytes count for each destination."""
        other = self.network.reactor(THIRD)
        other.listenUDP(7000, Recorder(other))
        request = _msgpack.encode_request(1, "m", [])
        for payload in (request, b"text"):
            self.send(payload)
            self.send(payload, to=THIRD)
        self.bind(self.client, 8).write(request, (SERVER, 7000))
        words = self.words()
        self.assertIn('request 0x1 "m", 6 B, try 2', words)
        self.assertIn('request 0x1 "m", 6 B, try 3', words)
        self.assertNotIn('"text", 4 B, try', words)

    def test_not_copies(self) -> None:
        """Copies that the network made are no tries, nor is what goes to a group once, nor what is empty."""
        self.server.silent = True
        self.there.add(Duplicate(1.0))
        self.port.write(b"who?", ("255.255.255.255", 7))
        self.send(b"a", b"", b"", port=9)
        self.assertNotIn("try", self.words())
        self.send(b"a", port=9)
        self.assertIn("try 2", self.words())

    def test_counted_before_the_window(self) -> None:
        """Tries count from the beginning, also where only the end is drawn."""
        self.there.add(Loss(1.0))
        self.send(b"a", b"a", b"a")
        self.assertIn("try 3", self.network.explain(last=1))


class WindowTests(LadderTestCase):
    """Parts of a trace."""

    def test_hosts(self) -> None:
        """Hosts are drawn in the order asked for, with what went between them alone, and lost ways."""
        third = self.bind(self.network.reactor(THIRD))
        self.send(b"x")
        self.send(b"away", to="192.0.2.99")
        third.write(b"not this", (SERVER, 7000))
        diagram = self.network.explain(SERVER, self.client)
        header = diagram.splitlines()[1]
        self.assertLess(header.index("server"), header.index("client"))
        self.assertIn('"away"', diagram)
        self.assertNotIn("not this", diagram)
        self.assertTrue(diagram.startswith("(1 more datagrams were sent, which are not shown)\n"), diagram)
        self.assertRaises(ValueError, self.network.explain, "192.0.2.99")

    def test_time(self) -> None:
        """Only what happened in the time asked for is drawn: an arrival whose sending was before, has its own line."""
        self.there.delay = 0.5
        self.send(b"a", b"b", b"c")
        self.network.advance(2)
        self.network.note("too late")
        diagram = self.network.explain(since=0.55, until=0.65)
        told = [line.split("|  ")[-1].strip() for line in diagram.splitlines()[4:]]
        self.assertEqual(told, ['"b", +500 ms', '"b", 1 B, +10 ms'])
        self.assertEqual([line[:9].strip() for line in diagram.splitlines()[4:]], ["0.600", ""])
        self.assertTrue(diagram.startswith("(4 more"), diagram)

    def test_last(self) -> None:
        """Only the last datagrams are drawn, with what is left out counted; none at all leaves nothing."""
        self.send(b"a", b"b", b"c")
        diagram = self.network.explain(last=2)
        self.assertEqual(diagram.count('"c"'), 2)
        self.assertNotIn('"b"', diagram)
        self.assertTrue(diagram.startswith("(4 more"), diagram)
        self.assertIn("(nothing was sent)", self.network.explain(last=0))
        self.assertEqual(self.network.explain(last=100), self.network.explain())

    def test_forgotten(self) -> None:
        """What the trace has forgotten is counted as well."""
        self.send(b"a")
        self.network.trace.clear()
        self.send(b"b")
        self.assertTrue(self.network.explain().startswith("(2 more"))

    def test_width(self) -> None:
        """More room is used for words; where the hosts need more than there is, the lines are longer."""
        for number in range(10, 16):
            self.bind(self.network.reactor(f"192.0.2.{number}")).write(b"a rather long text", (SERVER, 7000))
        self.network.run_until_idle()
        self.assertGreater(max(map(len, self.network.explain().splitlines())), 120)
        wide = self.network.explain(SERVER, "192.0.2.10", width=200)
        self.assertLess(len(wide.splitlines()), len(self.network.explain(SERVER, "192.0.2.10", width=50).splitlines()))


class OrderTests(LadderTestCase):
    """No two lines contradict each other."""

    def test_burst(self) -> None:
        """Datagrams that arrive in the order of sending have one line each, however many are in flight."""
        for number in range(5):
            self.port.write(b"%d" % number, (SERVER, 7))
        self.network.run_until_idle()
        self.assertEqual(len(self.network.explain().splitlines()), 3 + 10)

    def test_overtaken(self) -> None:
        """One that is overtaken has two lines, and the others one."""
        self.there.add(Skip(0.5, 0.0, 0.0))
        for payload in (b"first", b"second", b"third"):
            self.port.write(payload, (SERVER, 9))
        self.server.silent = True
        self.network.run_until_idle()
        told = [line.split("|  ")[-1] for line in self.network.explain().splitlines()[3:]]
        self.assertEqual(
            told,
            [
                '"first", 5 B',
                '"second", 6 B: nobody listens',
                '"third", 5 B: nobody listens',
                '"first": nobody listens',
            ],
        )

    def test_crossing(self) -> None:
        """Where both send before they have heard of each other, the one that was sent first has two lines."""
        server = self.bind(self.server, 5)
        self.port.write(b"ping", (SERVER, 5))
        server.write(b"pong", (CLIENT, 40123))
        self.network.run_until_idle()
        told = [line.split("|  ")[-1] for line in self.network.explain().splitlines()[3:]]
        self.assertEqual(told, ['"ping", 4 B', '"pong", 4 B, +10 ms', '"ping", +10 ms'])

    def test_crash_on_the_way(self) -> None:
        """What arrives after its host has crashed is told after the crash."""
        self.port.write(b"x", (SERVER, 7000))
        self.server.crash()
        self.network.run_until_idle()
        told = [line.split("|  ")[-1].split("*  ")[-1] for line in self.network.explain().splitlines()[3:]]
        self.assertEqual(told, ['"x", 1 B', "crashed", '"x": nobody listens'])

    def test_lines_are_true(self) -> None:
        """Over random traffic, the lines of each host are in the order in which it sent and received."""

        def effects() -> list[LinkEffect]:
            return [BurstLoss(0.1, 0.5), Delay(0.01), Duplicate(0.3, 0.02), Skip(*[0.01, 0.3, 0.0] * 9)]

        network = SimulatedNetwork(2, effects=effects)
        reactors = [network.reactor(f"192.0.2.{number}") for number in range(1, 5)]
        ports = [self.bind(reactor, 1000 + number) for number, reactor in enumerate(reactors)]
        for turn in range(40):
            sender = ports[turn % 4]
            for number, reactor in enumerate(reactors):
                if number != turn % 4:
                    sender.write(b"%d-%d" % (turn, number), (reactor.addresses[0], 1000 + number))
            network.advance(0.005)
        network.run_until_idle()
        for reactor in reactors:
            received = [payload for _, payload, _ in reactor.ports[0].protocol.received]  # type: ignore[attr-defined]  # a Recorder
            self.assertGreater(len(received), 20)
        self.check_order(network, [reactor.addresses[0] for reactor in reactors])

    def check_order(self, network: SimulatedNetwork, hosts: list[str]) -> None:
        """Read the arrivals of each host out of the diagram, and compare them with what its protocol got."""
        ladder = network.explain(width=300).splitlines()
        lanes = [index for index, character in enumerate(ladder[1]) if character == "|"]
        for host, lane in zip(hosts, lanes, strict=True):
            drawn = []
            for line in ladder[2:]:
                words = line[lanes[-1] + 3 :]
                into = line[lane - 6 : lane].rstrip().endswith(f" {1000 + hosts.index(host)}") and ">" in line[:lane]
                back = line[lane + 1 :].startswith(f"{1000 + hosts.index(host)} <")
                if (into or back) and "+" in words:
                    drawn.append(words.split('"')[1].encode())
            port = network._host_of[host].ports[0]
            got = [payload for _, payload, _ in port.protocol.received]  # type: ignore[attr-defined]  # a Recorder
            self.assertEqual(drawn, got, host)
