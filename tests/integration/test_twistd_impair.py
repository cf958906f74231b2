"""``twistd udpimpair`` as a process, between plain sockets: start, stop, what it does to datagrams, what it refuses."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import twistedudp
from tests.binomial import binomial_bounds
from tests.integration.sockets import address_of, has_ipv6_loopback, more_open_files, plain_socket, waiting_in
from tests.integration.test_twistd_echo import ANY, SIZES, ask, client_for, payload
from tests.integration.test_twistd_life import EMPTY_PLUGIN, EMPTY_TAP
from tests.integration.twistd import (
    PATIENCE,
    Directory,
    RunningTwistd,
    daemon_ended,
    environment,
    pid_in,
    run_twistd,
    started_address,
)
from twistedudp.address import format_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

NOBODY = 65534

PROMPT = 10.0
"""Seconds within which a process ends that has nothing left to do, also on a busy machine."""


def relay_to(server: Address, *options: str, interface: str = "127.0.0.1", **settings: object) -> RunningTwistd:
    """Start a relay on a free port."""
    command = ("udpimpair", "--listen", "0", "--to", format_address(server), "--interface", interface, *options)
    return RunningTwistd(command=command, **settings)  # type: ignore[arg-type]  # passed on


def descriptors(relay: RunningTwistd) -> int:
    """Return how many files a process has open."""
    return len(list(Path(f"/proc/{relay.process.pid}/fd").iterdir()))


class Statistics:
    """The lines of statistics of a relay."""

    def __init__(self, relay: RunningTwistd) -> None:
        self._relay = relay
        self._asked = 0

    def ask(self) -> str:
        """Return a new line."""
        self._asked += 1
        self._relay.process.send_signal(signal.SIGUSR2)
        return self._relay.wait_for("statistics: ", self._asked)

    def wait_for(self, pattern: str) -> str:
        """Ask until a line has something."""
        ends = time.monotonic() + PATIENCE
        while not re.search(pattern, line := self.ask()):
            if time.monotonic() > ends:
                raise AssertionError(f"{pattern!r} is not in {line}")
        return line


class LifeTests(SynchronousTestCase):
    """Start and stop."""

    def test_start_and_stop(self) -> None:
        """SIGTERM and SIGINT end it: what it does, that it listens, statistics, and that it has stopped are logged."""
        for by in (signal.SIGTERM, signal.SIGINT):
            with (
                RunningTwistd() as server,
                relay_to(server.address, "--effects", "delay=1ms±1ms,seed=7") as relay,
                client_for("127.0.0.1") as client,
            ):
                self.assertEqual(ask(client, b"a", relay.address), (b"a", relay.address))
                self.assertEqual(relay.stop(by), -by)
                lines = [line.partition("] ")[2] for line in relay.output.splitlines() if "[twistedudp#" in line]
                to = f"127.0.0.1:{server.address[1]}"
                own = f"127.0.0.1:{relay.address[1]}"
                one = "1 received, 1 sent, 0 lost"
                self.assertEqual(
                    lines,
                    [
                        f"udpimpair relays to {to} with --effects delay=1ms+-1ms,seed=7",
                        f"udpimpair is listening on {own} (UDP)",
                        f"statistics: to server: {one}; to client: {one}; under way: 0; sessions: 1 open, 1 opened",
                        f"udpimpair has stopped listening on {own} (UDP)",
                    ],
                )
                self.assertEqual(relay.errors, "")
                self.assertNotIn("Traceback", relay.output)

    def test_stop_with_datagrams_under_way(self) -> None:
        """It does not wait for what is under way; the port is free afterwards."""
        with (
            plain_socket() as server,
            relay_to(address_of(server), "--effects", "delay=1000s") as relay,
            client_for("127.0.0.1") as client,
        ):
            for _ in range(100):
                client.sendto(b"a", relay.address)
            Statistics(relay).wait_for("under way: 100;")
            begun = time.monotonic()
            self.assertEqual(relay.stop(), -signal.SIGTERM)
            self.assertLess(time.monotonic() - begun, PROMPT)
            self.assertIn("under way: 100;", relay.output.splitlines()[-4])
            self.assertNotIn("Traceback", relay.output)
            plain_socket(port=relay.address[1]).close()

    def test_help(self) -> None:
        """``twistd --help`` lists the command."""
        with Directory() as directory:
            finished = run_twistd("--help", directory=directory.path)
        self.assertRegex(finished.stdout, r"(?m)^\s+udpimpair\s+Relay UDP")

    def test_daemon(self) -> None:
        """In the background: SIGUSR2 logs statistics, SIGUSR1 still rotates the log, SIGTERM leaves no pid file."""
        with Directory() as directory, RunningTwistd() as server:
            options = ("udpimpair", "--listen", "0", "--to", format_address(server.address))
            finished = run_twistd(*options, directory=directory.path)
            self.assertEqual((finished.returncode, finished.stdout, finished.stderr), (0, "", ""))
            pid = pid_in(directory.path)
            log = directory.path / "twistd.log"
            try:
                address = started_address(log.read_text(encoding="utf-8"))
                with client_for("127.0.0.1") as client:
                    self.assertEqual(ask(client, b"a", address)[0], b"a")
                os.kill(pid, signal.SIGUSR2)
                self.wait_until(lambda: "statistics: to server: 1 received" in log.read_text(encoding="utf-8"))
                os.kill(pid, signal.SIGUSR1)
                self.wait_until(lambda: len(list(directory.path.glob("twistd.log.*"))) == 1)
            finally:
                self.assertTrue(daemon_ended(pid))
            self.assertFalse((directory.path / "twistd.pid").exists())
            self.assertIn("udpimpair has stopped listening", log.read_text(encoding="utf-8"))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look again and again until something has happened."""
        ends = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), ends)

    def test_other_user(self) -> None:
        """With ``--uid``: the port is bound by root, everything later is done by the user, sockets included."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        package = Path(twistedudp.__file__).parent
        if not all(directory.stat().st_mode & 0o005 == 0o005 for directory in (package, *package.parents)):
            raise SkipTest(f"the package is installed where the user {NOBODY} cannot read it")
        with RunningTwistd() as server:
            for port in range(1023, 511, -1):
                try:
                    plain_socket(port=port).close()
                except OSError:
                    continue
                break
            command = ("udpimpair", "--listen", str(port), "--to", format_address(server.address))
            options = ["--uid", str(NOBODY)]
            with RunningTwistd(command=command, twistd_options=options) as relay, client_for("127.0.0.1") as client:
                self.assertEqual(ask(client, b"a", ("127.0.0.1", port))[0], b"a")
                status = Path(f"/proc/{relay.process.pid}/status").read_text(encoding="ascii")
                self.assertRegex(status, rf"(?m)^Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t")


class RelayTests(SynchronousTestCase):
    """What passes."""

    def check(self, interface: str, *hosts: str, sizes: tuple[int, ...] = SIZES) -> None:
        """Relay from an interface to an echo server, asked by each of these addresses."""
        server_interface = "::1" if ":" in interface else "127.0.0.1"
        with (
            RunningTwistd("--interface", server_interface) as server,
            relay_to(server.address, "--effects", "delay=1ms", interface=interface) as relay,
        ):
            for host in hosts:
                address = (host, relay.address[1])
                with client_for(host) as client:
                    for size in sizes:
                        data = payload(size)
                        self.assertEqual(ask(client, data, address), (data, address))
            self.assertNotIn("Traceback", relay.output)

    def test_ipv4(self) -> None:
        """Any size, byte for byte."""
        self.check("127.0.0.1", "127.0.0.1")

    def test_all_of_ipv4(self) -> None:
        """On all addresses the reply comes from the one that was asked, delayed or not."""
        self.check(ANY, "127.0.0.1", "127.0.0.5", sizes=(5,))

    def test_ipv6(self) -> None:
        """Over IPv6, and on all addresses of both."""
        if not has_ipv6_loopback():
            raise SkipTest("this machine has no IPv6")
        self.check("::1", "::1", sizes=(*SIZES, 65527))
        self.check("::", "::1", "127.0.0.1", "127.0.0.5", sizes=(5,))

    def test_name(self) -> None:
        """A name is looked up; the address taken is told."""
        with RunningTwistd() as server:
            command = ("udpimpair", "--listen", "0", "--to", f"localhost:{server.address[1]}")
            with RunningTwistd(command=command) as relay, client_for("127.0.0.1") as client:
                self.assertEqual(ask(client, b"a", relay.address)[0], b"a")
                relay.wait_for(rf"relays to 127\.0\.0\.1:{server.address[1]} \(localhost:{server.address[1]}\) without")

    def test_only_the_server_answers(self) -> None:
        """What a stranger sends to an upstream socket reaches nobody."""
        with (
            plain_socket() as server,
            plain_socket() as stranger,
            plain_socket() as client,
            relay_to(address_of(server)) as relay,
        ):
            client.sendto(b"a", relay.address)
            upstream = server.recvfrom(100)[1]
            stranger.sendto(b"forged", upstream)
            server.sendto(b"true", upstream)
            self.assertEqual(client.recvfrom(100), (b"true", relay.address))
            self.assertEqual(waiting_in(client), [])

    def test_server_gone_and_back(self) -> None:
        """ICMP errors of the server's host are counted and told once, and the relay works on."""
        with plain_socket() as server, plain_socket() as client:
            address = address_of(server)
            with relay_to(address) as relay:
                client.sendto(b"1", relay.address)
                server.recvfrom(100)
                server.close()
                counters = Statistics(relay)
                for count in range(1, 4):
                    client.sendto(b"2", relay.address)
                    counters.wait_for(f" {count} ICMP errors about the server")
                with plain_socket(port=address[1]) as again:
                    client.sendto(b"3", relay.address)
                    self.assertEqual(again.recvfrom(100)[0], b"3")
                lines = [line for line in relay.output.splitlines() if "cannot be reached" in line]
                self.assertEqual(len(lines), 1)
                self.assertIn(f"{format_address(address)} cannot be reached: Connection refused", lines[0])
                self.assertNotIn("Traceback", relay.output)

    def test_socat(self) -> None:
        """Between Debian's socat as a client and as a server, over a bad network that loses nothing."""
        socat = shutil.which("socat")
        if socat is None:
            raise SkipTest("socat is not installed")
        with plain_socket() as probe:
            port = probe.getsockname()[1]
        with subprocess.Popen([socat, f"UDP4-RECVFROM:{port},bind=127.0.0.1,fork", "EXEC:/bin/cat"]) as server:
            try:
                self.wait_for_port(port)
                with relay_to(("127.0.0.1", port), "--effects", "delay=20ms±5ms") as relay:
                    finished = subprocess.run(
                        [socat, "-t", str(PATIENCE), "-", f"UDP4:127.0.0.1:{relay.address[1]},readbytes=500"],
                        input=payload(500),
                        capture_output=True,
                        timeout=PATIENCE,
                        check=True,
                    )
            finally:
                server.terminate()
        self.assertEqual(finished.stdout, payload(500))

    def wait_for_port(self, port: int) -> None:
        """Wait until somebody listens on a UDP port of loopback."""
        ends = time.monotonic() + PATIENCE
        while f":{port:04X} " not in Path("/proc/net/udp").read_text(encoding="ascii"):
            self.assertLess(time.monotonic(), ends)


class EffectTests(SynchronousTestCase):
    """What becomes of datagrams: measured from outside."""

    COUNT = 2000
    BATCH = 100
    """Datagrams sent without waiting: they fit into any receive buffer."""

    def survivors(self, *options: str, count: int = COUNT) -> list[int]:
        """Send numbered datagrams through a relay and return those that arrive, in order."""
        arrived: list[int] = []
        with plain_socket() as server, relay_to(address_of(server), *options) as relay, plain_socket() as client:
            counters = Statistics(relay)
            for first in range(0, count, self.BATCH):
                for number in range(first, first + self.BATCH):
                    client.sendto(b"%d" % number, relay.address)
                counters.wait_for(rf"to server: {first + self.BATCH} received.*under way: 0;")
                arrived += map(int, waiting_in(server))
            line = counters.ask()
        self.assertIn(f" {len(arrived)} sent,", line)
        return arrived

    def test_loss(self) -> None:
        """5 % loss is 5 %, as far as chance goes (one in a million on each side); the same ones with the same seed."""
        first = self.survivors("--effects", "loss=5%,seed=7")
        least, most = binomial_bounds(self.COUNT, 0.95)
        self.assertTrue(least <= len(first) <= most, f"{least} <= {len(first)} <= {most}")
        self.assertEqual(self.survivors("--effects", "loss=5%,seed=7"), first)
        self.assertNotEqual(self.survivors("--effects", "loss=5%,seed=8"), first)

    def test_duplicates(self) -> None:
        """20 % duplicates, each once more; nothing is lost."""
        arrived = self.survivors("--effects-to-server", "duplicate=20%,seed=7")
        least, most = binomial_bounds(self.COUNT, 0.2)
        self.assertTrue(least <= len(arrived) - self.COUNT <= most, f"{least} <= {len(arrived)} - 2000 <= {most}")
        self.assertEqual(sorted(set(arrived)), list(range(self.COUNT)))

    def test_other_direction(self) -> None:
        """The effects of one direction leave the other alone."""
        arrived = self.survivors("--effects-to-client", "loss=100%", count=self.BATCH)
        self.assertEqual(arrived, list(range(self.BATCH)))

    def test_delay(self) -> None:
        """20 ms each way: never less, and at best not much more."""
        with (
            RunningTwistd() as server,
            client_for("127.0.0.1") as client,
            relay_to(server.address, "--effects", "delay=20ms") as relay,
        ):
            client.connect(relay.address)
            times = []
            for number in range(30):
                begun = time.perf_counter()
                client.send(b"%d" % number)
                self.assertEqual(client.recv(100), b"%d" % number)
                times.append(time.perf_counter() - begun)
        self.assertGreaterEqual(min(times), 0.04)
        self.assertLess(min(times), 0.06, times)

    def test_rate(self) -> None:
        """100 datagrams of 972 bytes and their headers at 1 Mbit/s take 0.8 s, whoever of two clients sent them."""
        with (
            plain_socket() as server,
            plain_socket() as first,
            plain_socket() as second,
            relay_to(address_of(server), "--effects", "rate=1mbit:1MB") as relay,
        ):
            begun = time.perf_counter()
            for _ in range(50):
                for client in (first, second):
                    client.sendto(bytes(972), relay.address)
            for _ in range(100):
                server.recv(2000)
            elapsed = time.perf_counter() - begun
        self.assertTrue(0.8 <= elapsed < 2.4, elapsed)  # a busy machine takes longer

    def test_nat(self) -> None:
        """A NAT that forgets: the server sees the client under a new port."""
        with (
            plain_socket() as server,
            plain_socket() as client,
            relay_to(address_of(server), "--effects", "nat=50ms") as relay,
        ):
            senders: set[Address] = set()
            while len(senders) < 3:
                client.sendto(b"there", relay.address)
                sender = server.recvfrom(100)[1]
                senders.add(sender)
                server.sendto(b"back", sender)
            self.assertEqual(client.recv(100), b"back")


class ManyClientsTests(SynchronousTestCase):
    """More clients than may be."""

    CLIENTS = 1000
    SESSIONS = 300
    BATCH = 100

    def test_thousand_clients(self) -> None:
        """A thousand clients, of whom 300 may have a socket: all are answered, and there are never more descriptors."""
        self.addCleanup(more_open_files(self.CLIENTS + 200))
        with RunningTwistd() as server, relay_to(server.address, "--max-sessions", str(self.SESSIONS)) as relay:
            before = descriptors(relay)
            clients = [plain_socket() for _ in range(self.CLIENTS)]
            for client in clients:
                self.addCleanup(client.close)
            for first in range(0, self.CLIENTS, self.BATCH):
                for number, client in enumerate(clients[first : first + self.BATCH], first):
                    client.sendto(b"client %d" % number, relay.address)
                for number, client in enumerate(clients[first : first + self.BATCH], first):
                    self.assertEqual(client.recv(100), b"client %d" % number)
                ends = time.monotonic() + 10.0  # an evicted session's socket is closed in the turn after the eviction
                while (more := descriptors(relay) - before) > 2 * (self.SESSIONS + 1) and time.monotonic() < ends:
                    pass
                self.assertLessEqual(more, 2 * (self.SESSIONS + 1))
            line = Statistics(relay).ask()
        self.assertIn("sessions: 300 open, 1000 opened, 700 evicted", line)
        self.assertNotIn("Traceback", relay.output)

    def test_no_descriptor_left(self) -> None:
        """Where the limit of open files is low, clients without a socket are counted and told; the others work on."""
        with plain_socket() as server, relay_to(address_of(server), "--max-sessions", "500") as relay:
            resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (60, 60))
            clients = [plain_socket() for _ in range(60)]
            for client in clients:
                self.addCleanup(client.close)
                client.sendto(b"a", relay.address)
            Statistics(relay).wait_for("to server: 60 received")
            relay.wait_for("no file descriptor is left for another client, [0-9]+ have theirs; raise the limit")
            open_ones = len(waiting_in(server))
            self.assertTrue(10 < open_ones < 30, open_ones)
            clients[0].sendto(b"again", relay.address)
            self.assertEqual(server.recv(100), b"again")
            self.assertNotIn("Traceback", relay.output)


class RefusedTests(SynchronousTestCase):
    """What keeps it from starting: one line, exit status 1, no pid file, no parent that waits; in both modes."""

    def refused(self, *options: str, prefix: tuple[str, ...] = ()) -> str:
        """Start a relay that cannot start, in both modes; return the line."""
        lines = []
        for mode in (("-n",), ()):
            with Directory() as directory:
                finished = run_twistd(*mode, "udpimpair", *options, directory=directory.path, prefix=prefix)
                self.assertEqual((finished.returncode, finished.stdout), (1, ""))
                self.assertEqual(list(directory.path.iterdir()), [])
            self.assertEqual(finished.stderr.count("\n"), 1, finished.stderr)
            self.assertTrue(finished.stderr.startswith("twistd udpimpair: "), finished.stderr)
            lines.append(finished.stderr)
        self.assertEqual(lines[0], lines[1])
        return lines[0]

    def test_port_in_use(self) -> None:
        """The port, the process that holds it, and the option by which another is chosen."""
        with plain_socket() as holder:
            port = str(holder.getsockname()[1])
            line = self.refused("--listen", port, "--to", "127.0.0.1:9")
            self.assertIn(f"UDP port 127.0.0.1:{port} is in use by ", line)
            self.assertIn(f"(pid {os.getpid()})", line)
            self.assertIn("with --listen", line)

    def test_wrong_options(self) -> None:
        """One line for each kind of mistake."""
        for options, expected in (
            ((), "--listen is missing"),
            (("--listen", "many", "--to", "127.0.0.1:9"), "--listen: 'many'"),
            (("--listen", "0"), "--to is missing"),
            (("--listen", "0", "--to", "127.0.0.1"), "has no port"),
            (("--listen", "0", "--to", "no-such-host.invalid:9"), "'no-such-host.invalid' does not resolve"),
            (("--listen", "7", "--to", "127.0.0.1:7"), "127.0.0.1:7 is the port that the relay would listen on itself"),
            (("--listen", "0", "--to", "127.0.0.1:9", "--effects", "los=5%"), "did you mean loss?"),
            (
                ("--listen", "0", "--to", "127.0.0.1:9", "--interface", "192.0.2.77"),
                "is not an address of this machine",
            ),
            (("--lissen", "0"), "did you mean '--listen'?"),
            (("10000",), "'10000' is not an option"),
        ):
            self.assertIn(expected, self.refused(*options))

    def test_no_backend(self) -> None:
        """A name in TWISTEDUDP_BACKEND that is no backend's."""
        prefix = ("env", "TWISTEDUDP_BACKEND=fast")
        line = self.refused("--listen", "0", "--to", "localhost:9", prefix=prefix)
        self.assertIn("no backend 'fast' (TWISTEDUDP_BACKEND asks for it); the backends are mmsg", line)


class ReadinessTests(SynchronousTestCase):
    """How soon it is ready."""

    RUNS = 5
    LIMIT = 0.1
    """Seconds that a relay may be ready later than a twistd with an empty plugin."""

    def test_ready_soon(self) -> None:
        """The median start takes at most 100 ms more than that of a twistd whose plugin does nothing."""
        ours = ("udpimpair", "--listen", "0", "--to", "127.0.0.1:9", "--effects", "loss=5%,delay=20ms±5ms,seed=7")
        with Directory() as directory:
            directory.plugin_file("empty_plugin", EMPTY_PLUGIN)
            directory.write("empty_tap.py", EMPTY_TAP)
            seconds: dict[str, list[float]] = {"empty": [], "udpimpair": []}
            self.seconds_to_start(directory.path, "empty")  # this one writes caches
            for _ in range(self.RUNS):
                for command in (("empty",), ours):
                    seconds[command[0]].append(self.seconds_to_start(directory.path, *command))
        later = statistics.median(seconds["udpimpair"]) - statistics.median(seconds["empty"])
        self.assertLessEqual(later, self.LIMIT, seconds)

    def seconds_to_start(self, directory: Path, *command: str) -> float:
        """Return the processor time until the service says that it has started.

        Nothing in a start waits, so on an idle machine it is the time that passes; on a busy one it is still the same.
        """
        with RunningTwistd(
            python_path=[directory], command=command, started=re.compile("has started|is listening")
        ) as server:
            # proc(5), of the main thread: nanoseconds on a processor, nanoseconds waiting for one, turns.
            nanoseconds = int(Path(f"/proc/{server.process.pid}/schedstat").read_text(encoding="ascii").split()[0])
            server.stop()
        return nanoseconds / 1e9

    def test_imports(self) -> None:
        """A relay loads neither codec nor client; for its help not even what opens sockets."""
        script = (
            "import sys; import twistedudp.impair_tap; light = set(sys.modules); import twistedudp.relay; "
            "heavy = {'msgpack', 'msgspec', 'click', 'rich', 'twistedudp.methods', 'twistedudp.core'}; "
            "later = {'twisted.internet.reactor', 'twistedudp.transport', 'twistedudp.impairment'}; "
            "print(sorted(light & (heavy | later)), sorted(set(sys.modules) & heavy))"
        )
        finished = subprocess.run(
            [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True, timeout=60
        )
        self.assertEqual(finished.stdout, "[] []\n")
