"""The prober against the real kernel: its reactors and backends, ICMP, firewalls, sizes, and a stopped process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from twisted.trial.unittest import SkipTest

from tests.integration.icmp import PORT_UNREACHABLE, PORT_UNREACHABLE_6, error_about, raw_socket
from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.reactors import BatchPeer, PortCase, echo, variants
from tests.integration.twistd import environment
from twistedudp._prober import Prober, Schedule, new_series
from twistedudp.methods import RPCMethods
from twistedudp.protocol import RPCServerProtocol

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.probing import ProbeEvent, Summary

pytestmark = pytest.mark.heavy

MS: Final = 1_000_000

_PROGRAM: Final = """
import json, sys
from twisted.internet import task
from twistedudp._prober import Prober, Schedule, new_series

def main(reactor, host, port, count, interval_ns, timeout):
    peer = (host, int(port))
    series = new_series("server", peer, interval=int(interval_ns) / 1e9, timeout=float(timeout))
    first = []
    def told(event):
        if not first:
            first.append(event)
            print("begun", flush=True)
    running = Prober(reactor, peer, series, Schedule(int(interval_ns), int(count)), on_event=told).run()
    return running.addCallback(lambda summary: print(json.dumps(summary.as_json())))

task.react(main, sys.argv[1:])
"""


class ThreadedEcho:
    """An echo server that answers whatever the reactor does meanwhile; ended by :meth:`close`.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, host: str) -> None:
        self._handle = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._handle.bind((host, 0))
        self.address: Address = self._handle.getsockname()[:2]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._handle.sendto(b"", self.address)
        self._thread.join(10)
        self._handle.close()

    def _serve(self) -> None:
        while True:
            datagram, peer = self._handle.recvfrom(65535)
            if not datagram:
                return
            self._handle.sendto(datagram, peer)


class ProberPortCase(PortCase):
    """A prober on a real reactor.

    Attributes:
        events: What it has told.
    """

    def setUp(self) -> None:
        """Begin."""
        super().setUp()
        self.events: list[ProbeEvent] = []

    def prober(
        self, peer: Address, count: int | None = 50, *, interval_ns: int = 2 * MS, size: int = 64, timeout: float = 1.0,
        **options: Any,
    ) -> Prober:  # fmt: skip
        """Make a prober."""
        series = new_series("server", peer, size=size, interval=interval_ns / 1e9, timeout=timeout)
        return Prober(self.reactor, peer, series, Schedule(interval_ns, count), on_event=self.events.append, **options)

    def run_to_end(self, prober: Prober) -> Summary:
        """Run it until it fires, and check that nothing is left of it."""
        before = set(map(id, self.ports.leftovers()))
        summary = self.fired(prober.run())
        self.assertEqual([left for left in self.ports.leftovers() if id(left) not in before], [])
        return summary

    def echo_server(self) -> Address:
        """Return the address of an echo server of our own on the same reactor."""
        return self.address_of(self.listen(BatchPeer(echo)))

    def threaded_echo(self) -> Address:
        """Return the address of one in a thread."""
        server = ThreadedEcho(self.family.host)
        self.addCleanup(server.close)
        return server.address


# The timer, which is all that differs from reactor to reactor, is tested on each of them in test_probe_pacing.py.
@variants(globals(), reactors=["EPoll", "Asyncio"])
class Probing(ProberPortCase):
    """What works on each backend and family."""

    def test_echo(self) -> None:
        """Probes are answered, timed by the kernel, and nothing is left."""
        peer = self.echo_server()
        summary = self.run_to_end(self.prober(peer))
        self.assertEqual((summary.sent, summary.received, summary.lost, summary.protocol), (50, 50, 0, "echo"))
        self.assertEqual((summary.oddities, summary.kernel_times), ({}, True))
        self.assertGreater(summary.rtt.min or 0, 1e-6)
        self.assertLess(summary.rtt.min or 1, 0.05)
        self.assertLess(summary.duration, 5)

    def test_rpc(self) -> None:
        """An rpc server tells its times and counts."""
        peer = self.address_of(self.listen(RPCServerProtocol(RPCMethods())))
        summary = self.run_to_end(self.prober(peer, 20))
        self.assertEqual((summary.protocol, summary.received), ("rpc", 20))
        self.assertEqual((summary.lost_there, summary.lost_back, summary.duplicated_there), (0, 0, 0))
        self.assertEqual([event.kind for event in self.events][-1], "counts")
        self.assertGreaterEqual(summary.server_time.min or 0, 0)

    def test_refused(self) -> None:
        """Where nobody listens each probe is refused, and the series goes on to its end."""
        unused = self.plain()
        peer: Address = unused.getsockname()[:2]
        unused.close()
        summary = self.run_to_end(self.prober(peer, 10, timeout=0.05))
        self.assertEqual((summary.sent, summary.lost, summary.received), (10, 10, 0))
        self.assertGreater(summary.unreachable, 0)
        self.assertEqual(summary.oddities, {})
        told = next(event for event in self.events if event.kind == "unreachable")
        self.assertEqual(told.detail, f"Connection refused (says {self.family.host})")

    def test_fast(self) -> None:
        """Ten thousand a second leave without loss in the prober, though each turn of the reactor sends several."""
        summary = self.run_to_end(self.prober(self.threaded_echo(), 2000, interval_ns=100_000))
        self.assertEqual((summary.sent, summary.not_sent), (2000, 0))
        self.assertGreater(summary.received, 200)  # the thread that echoes has the interpreter half of the time
        self.assertEqual(summary.received + summary.lost, 2000)

    def test_stop(self) -> None:
        """A stop leaves nothing."""
        prober = self.prober(self.echo_server(), None)
        before = len(self.ports.leftovers())
        running = prober.run()
        self.wait(lambda: len(self.events) >= 5, "no probe was answered")
        prober.stop()
        summary = self.fired(running)
        self.assertGreaterEqual(summary.received, 5)
        self.assertEqual(summary.sent, summary.received + summary.lost)
        self.assertEqual(len(self.ports.leftovers()), before)

    def test_held_up(self) -> None:
        """Answers that came in time while the process did something else are received, and their times are right."""
        prober = self.prober(self.threaded_echo(), 5, interval_ns=MS, timeout=0.2)
        self.reactor.callLater(0.002, time.sleep, 0.5)
        summary = self.run_to_end(prober)
        self.assertEqual((summary.sent, summary.received, summary.lost, summary.late), (5, 5, 0, 0))
        self.assertLess(summary.rtt.max or 1, 0.2)

    def test_strangers(self) -> None:
        """Datagrams of others are told by their addresses."""
        prober = self.prober(self.threaded_echo(), 5)
        running = prober.run()
        stranger = self.plain()
        port: Any = prober.port
        for _ in range(3):
            stranger.sendto(b"hello", (self.family.host, port.getHost().port))
        summary = self.fired(running)
        self.assertEqual(prober.strangers, {stranger.getsockname()[:2]: 3})
        self.assertEqual((summary.received, summary.oddities), (5, {"from_another_address": 3}))

    def test_dont_fragment(self) -> None:
        """With dont_fragment the socket sets DF and asks the kernel for no opinion; without, it is as any other."""
        peer = self.threaded_echo()
        level, number = (socket.IPPROTO_IPV6, 23) if self.family.bits == 128 else (socket.IPPROTO_IP, 10)
        for wanted in (True, False):
            prober = self.prober(peer, 1, dont_fragment=wanted)
            running = prober.run()
            port: Any = prober.port
            self.assertEqual(port.getHandle().getsockopt(level, number) == 3, wanted)
            if level == socket.IPPROTO_IPV6:
                self.assertEqual(port.getHandle().getsockopt(level, 62), int(wanted))
            self.assertEqual(self.fired(running).received, 1)


@variants(globals(), reactors=["EPoll"])
class Namespaces(ProberPortCase):
    """What takes a network of its own."""

    def setUp(self) -> None:
        """Make one."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.namespace = NetworkNamespace()
        self.addCleanup(self.namespace.close)
        super().setUp()
        self.inside(self.namespace)
        self.namespace.run("ip", "link", "set", "lo", "up")

    def test_firewall(self) -> None:
        """What a firewall of this machine forbids is not sent, and not lost."""
        peer = self.threaded_echo()
        self.addCleanup(self.namespace.run, "nft", "flush", "ruleset")
        family = "ip6" if self.family.bits == 128 else "ip"
        self.namespace.run("nft", "add", "table", family, "t")
        self.namespace.run("nft", "add", "chain", family, "t", "c", "{ type filter hook output priority 0; }")
        self.namespace.run("nft", "add", "rule", family, "t", "c", "udp", "dport", str(peer[1]), "limit", "rate",
                           "over", "2/hour", "burst", "1", "packets", "drop")  # fmt: skip
        summary = self.run_to_end(self.prober(peer, 10))
        self.assertEqual(summary.sent + summary.not_sent, 10)
        self.assertGreater(summary.not_sent, 6)
        self.assertEqual((summary.received, summary.lost), (summary.sent, 0))
        told = {event.detail for event in self.events if event.kind == "not_sent"}
        self.assertEqual(told, {"a firewall on this machine forbids it (EPERM)"})

    def test_no_route(self) -> None:
        """Nor is what has no route."""
        summary = self.run_to_end(self.prober((self.family.far, 9), 5))
        self.assertEqual((summary.sent, summary.not_sent, summary.unreachable, summary.oddities), (0, 5, 0, {}))
        self.assertIn("unreach", self.events[0].detail.lower())

    def test_larger_than_the_device(self) -> None:
        """Nor what exceeds the device's MTU and may not be cut; without dont_fragment it is cut, and arrives."""
        peer = self.threaded_echo()
        self.namespace.run("ip", "link", "set", "lo", "mtu", "1500")
        size = 1501 - (48 if self.family.bits == 128 else 28)
        summary = self.run_to_end(self.prober(peer, 3, size=size, dont_fragment=True))
        self.assertEqual((summary.sent, summary.not_sent), (0, 3))
        self.assertIn("message too long", self.events[0].detail)
        self.assertEqual(self.run_to_end(self.prober(peer, 3, size=size - 1, dont_fragment=True)).received, 3)
        self.assertEqual(self.run_to_end(self.prober(peer, 3, size=size)).received, 3)

    def test_forged_icmp(self) -> None:
        """Forged ICMP errors change nothing and are counted: one quotes something else, one too little."""
        peer = self.threaded_echo()
        prober = self.prober(peer, 20)
        running = prober.run()
        port: Any = prober.port
        sender = (self.family.host, port.getHost().port)
        kind = PORT_UNREACHABLE_6 if self.family.bits == 128 else PORT_UNREACHABLE
        with raw_socket(self.family.host) as raw:
            for quoted in (b"x" * 64, b""):
                raw.sendto(error_about(sender, peer, quoted, kind=kind), (self.family.host, 0))
        summary = self.fired(running)
        self.assertEqual((summary.received, summary.lost, summary.unreachable), (20, 0, 0))
        self.assertEqual(summary.oddities, {"forged_icmp_error": 1, "icmp_error_without_quote": 1})


@variants(globals(), reactors=["EPoll"], backends=["scalar"])
class Stopped(ProberPortCase):
    """A process that is stopped and goes on."""

    def test_suspended(self) -> None:
        """What it missed is skipped and told, nothing leaves in a burst, and nothing that was answered is lost."""
        peer = self.threaded_echo()
        command = [sys.executable, "-c", _PROGRAM, *map(str, peer), "100", str(5 * MS), "1.0"]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            self.assertEqual(running.stdout.readline(), "begun\n")
            os.kill(running.pid, signal.SIGSTOP)
            time.sleep(1.5)  # it is time that has to pass
            os.kill(running.pid, signal.SIGCONT)
            summary = json.loads(running.stdout.readline())
        self.assertEqual((summary["sent"], summary["received"], summary["lost"]), (100, 100, 0))
        self.assertTrue(280 <= summary["oddities"].pop("skipped_deadlines") <= 320)
        self.assertEqual(summary["oddities"], {})
        self.assertLess(summary["max"], 0.5)
