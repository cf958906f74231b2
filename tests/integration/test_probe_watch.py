"""``twistd udpprobe`` as a process: real servers of ours, metrics over HTTP, who is told of changes, what it costs."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.binomial import binomial_bounds
from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.sockets import has_ipv6_loopback
from tests.integration.twistd import (
    PATIENCE,
    Directory,
    RunningTwistd,
    daemon_ended,
    pid_in,
    run_twistd,
)
from twistedudp.address import format_address
from twistedudp.watch._metrics_port import MAX_CONNECTIONS

try:
    from prometheus_client.parser import text_string_to_metric_families as parse
except ImportError as error:
    raise SkipTest(f"{error}: pip install 'twistedudp[probe]' brings it") from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

pytestmark = pytest.mark.heavy

WATCHES = re.compile(r"udpprobe watches \d+ targets")
METHODS = """
from twistedudp import RPCMethods, method


class Calculator(RPCMethods):
    @method
    def add(self, a: int, b: int) -> int:
        return a + b
"""


def probing(*options: str) -> RunningTwistd:
    """Start one, with metrics on a free port."""
    return RunningTwistd("--metrics", "0", *options, command=("udpprobe",), started=WATCHES)


class Scrape:
    """What the metrics of a running one say."""

    def __init__(self, probe: RunningTwistd) -> None:
        line = probe.wait_for("metrics are served on ")
        self.url = line.split("served on ")[1].strip()
        with urllib.request.urlopen(self.url, timeout=PATIENCE) as answer:  # noqa: S310  # loopback
            self.text = answer.read().decode()
        self.samples = [sample for family in parse(self.text) for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's values over all targets that have these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())


def scrape_until(probe: RunningTwistd, name: str, least: float, **labels: str) -> Scrape:
    """Scrape until a sum has been reached."""
    ends = time.monotonic() + PATIENCE
    while (scrape := Scrape(probe)).sum(name, **labels) < least:
        if time.monotonic() > ends:
            raise AssertionError(f"{name} stays below {least}:\n{scrape.text[:5000]}")
    return scrape


def wait_until(found: Callable[[], bool]) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + PATIENCE
    while not found():
        if time.monotonic() > ends:
            raise AssertionError("it did not come to that")
        threading.Event().wait(0.01)


class Receiver:
    """An HTTP server that keeps what is posted to it.

    Attributes:
        url: Where it is.
        posted: The bodies, decoded.
    """

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Keep the body."""
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(204)
                self.end_headers()
                with receiver._changed:
                    receiver.posted.append(body)
                    receiver._changed.notify_all()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its own name
                """Log nothing."""

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/changed"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def wait(self, count: int) -> list[Any]:
        """Return what was posted when it is so much."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.posted) >= count, PATIENCE):
                raise AssertionError(f"{len(self.posted)} were posted, not {count}")
            return list(self.posted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


class LifeTests(SynchronousTestCase):
    """From the start to the end."""

    def test_changes(self) -> None:
        """A server comes and goes: it is in the log, a command gets it, a webhook gets it, and metrics have it."""
        with Directory() as directory, Receiver() as receiver, RunningTwistd() as server:
            told = directory.path / "told"
            command = f"/bin/sh -c 'echo $UDPPROBE_TARGET $UDPPROBE_STATE $UDPPROBE_REASON $0 >> {told}' argument"
            with probing(
                *("--target", f"web={format_address(server.address)}", "--interval", "0.1", "--timeout", "0.1"),
                *("--on-change", command, "--webhook", receiver.url),
            ) as probe:
                probe.wait_for("web .* is up: it answers")
                up = scrape_until(probe, "udpprobe_probes_received_total", 10)
                server.stop()
                probe.wait_for("web .* is down: 5 probes in a row failed: the network says: Connection refused")
                self.assertEqual(
                    [(one["target"], one["state"], one["reason"]) for one in receiver.wait(2)],
                    [("web", "up", "answers"), ("web", "down", "unreachable")],
                )
                down = scrape_until(probe, "udpprobe_command_changes_told_total", 2)
                self.assertEqual(probe.stop(), -signal.SIGTERM)
                self.assertNotIn("Traceback", probe.output)
                self.assertIn("udpprobe has stopped", probe.output)
                self.assertEqual(probe.errors, "")
            self.assertEqual(
                told.read_text(encoding="utf-8"), "web up answers argument\nweb down unreachable argument\n"
            )
        self.assertEqual((up.sum("udpprobe_up"), down.sum("udpprobe_up")), (1, 0))
        self.assertEqual(up.sum("udpprobe_probes_lost_total"), 0)
        self.assertGreater(up.sum("udpprobe_window_rtt_seconds", quantile="0.5"), 0)
        self.assertLess(up.sum("udpprobe_window_rtt_seconds", quantile="0.5"), 0.05)
        self.assertEqual(down.sum("udpprobe_webhook_changes_told_total"), 2)

    def test_reload(self) -> None:
        """SIGHUP reads the file again; a bad one keeps the old targets and says why; IPv6 and names work as well."""
        with Directory() as directory, RunningTwistd(command=("udpecho", "-p0", "-i", "::")) as server:
            if not has_ipv6_loopback():
                self.skipTest("this machine has no IPv6 on loopback")
            port = server.address[1]
            file = directory.write("targets.toml", f'[targets]\na = "127.0.0.1:{port}"\n')
            with probing("--targets", str(file), "--interval", "0.1") as probe:
                probe.wait_for("a .* is up")
                file.write_text("[targets]\nb = 7\n", encoding="utf-8")
                probe.process.send_signal(signal.SIGHUP)
                line = probe.wait_for("the targets stay as they were")
                self.assertIn(f'{file}: targets.b: 7 is neither a text nor a table; write b = "HOST:PORT"', line)
                file.write_text(
                    f'[defaults]\ninterval = 0.2\n[targets]\nsix = "[::1]:{port}"\nname = "localhost:{port}"\n',
                    encoding="utf-8",
                )
                probe.process.send_signal(signal.SIGHUP)
                probe.wait_for("udpprobe watches 2 targets: 2 added, 1 removed, 0 changed")
                for name in ("six", "name"):
                    probe.wait_for(f"{name} .* is up")
                scrape = Scrape(probe)
                self.assertEqual((scrape.sum("udpprobe_reloads_total"), scrape.sum("udpprobe_up")), (1, 2))
                self.assertEqual(scrape.sum("udpprobe_reload_failures_total"), 1)

    def test_protocols(self) -> None:
        """An rpc server is up where rpc or either is asked for, and down for echo, with that reason."""
        with Directory() as directory:
            directory.write("calculator.py", METHODS)
            options = ("--protocol", "rpc", "--protocol-option", "class=calculator:Calculator")
            with RunningTwistd(*options, python_path=[directory.path]) as server:
                where = format_address(server.address)
                names = ("rpc", "echo", "auto")
                text = "".join(f'{name} = {{address = "{where}", protocol = "{name}"}}\n' for name in names)
                file = directory.write("targets.toml", f"[defaults]\ninterval = 0.1\n[targets]\n{text}")
                with probing("--targets", str(file)) as probe:
                    probe.wait_for("rpc .* is up")
                    probe.wait_for("auto .* is up")
                    probe.wait_for("echo .* is down: .* it answers, but by the protocol rpc, not echo")

    def test_background(self) -> None:
        """A command that leaves a process behind, which holds its output, delays no end."""
        with Directory() as directory, RunningTwistd() as server:
            left = directory.path / "left"
            text = f"#!/bin/sh\nsleep 100 &\necho $! > {left}.new\nmv {left}.new {left}\n"
            script = directory.write("page-me", text)
            script.chmod(0o755)
            with probing("--target", f"web={format_address(server.address)}", "--on-change", str(script)) as probe:
                probe.wait_for("web .* is up")
                wait_until(left.exists)
                try:
                    begun = time.monotonic()
                    self.assertEqual(probe.stop(), -signal.SIGTERM)
                    self.assertLess(time.monotonic() - begun, 10.0)
                    self.assertNotIn("Traceback", probe.output)
                finally:
                    os.kill(int(left.read_text(encoding="ascii")), signal.SIGKILL)

    def test_firewall(self) -> None:
        """Probes that a rule of the own machine forbids are not sent and not lost; the others go on."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        network = NetworkNamespace()
        self.addCleanup(network.close)
        network.run("ip", "link", "set", "lo", "up")
        with network.entered(), RunningTwistd(command=("udpecho", "-p0", "-i", "0.0.0.0")) as server:  # noqa: S104  # loopback's many addresses
            port = server.address[1]
            targets = [f"--target=t{number}=127.0.0.{number}:{port}" for number in range(1, 41)]
            with probing(*targets, "--interval", "0.2", "--timeout", "0.2") as probe:
                probe.wait_for("is up: it answers", times=40)
                rule = "ip daddr 127.0.0.7 udp dport"
                chain = f"chain out {{ type filter hook output priority 0; {rule} {port} drop; }}"
                network.run("nft", "-f", "-", text=f"table inet refusing {{ {chain}; }}")
                probe.wait_for("t7 .* is down: 5 probes .*: this machine cannot send to it: Operation not permitted")
                refused = scrape_until(probe, "udpprobe_probes_not_sent_total", 10, target="t7")
                network.run("nft", "delete", "table", "inet", "refusing")
                probe.wait_for("t7 .* is up: 3 answers in a row")
        self.assertLessEqual(refused.sum("udpprobe_probes_lost_total", target="t7"), 1)
        self.assertEqual(
            refused.sum("udpprobe_probes_not_sent_total"), refused.sum("udpprobe_probes_not_sent_total", target="t7")
        )
        self.assertEqual(refused.sum("udpprobe_up"), 39)

    def test_pipe(self) -> None:
        """A pipe as the file of targets is told in one line, at the start: SIGHUP would wait for its writer."""
        with Directory() as directory:
            os.mkfifo(directory.path / "targets.toml")
            finished = run_twistd("udpprobe", "--targets", "targets.toml", directory=directory.path)
        self.assertEqual((finished.returncode, finished.stdout), (1, ""))
        self.assertRegex(
            finished.stderr, r"\Atwistd udpprobe: .*: it is a pipe, which cannot be read again; [^\n]*\n\Z"
        )

    def test_taken_port(self) -> None:
        """A port for metrics that is taken is told in one line before a daemon forks, and leaves no pid file."""
        with Directory() as directory, socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            finished = run_twistd(
                "udpprobe", "--target", "web=127.0.0.1", "--metrics", str(number), directory=directory.path
            )
            self.assertEqual((finished.returncode, finished.stdout), (1, ""))
            self.assertRegex(
                finished.stderr, rf"\Atwistd udpprobe: --metrics: TCP port 127\.0\.0\.1:{number} is in use .*\n\Z"
            )
            self.assertEqual(list(directory.path.iterdir()), [])

    def test_connections(self) -> None:
        """Only so many connections to the metrics are open at once; those that are left open delay no end."""
        with RunningTwistd() as server, probing("--target", f"web={format_address(server.address)}") as probe:
            url = Scrape(probe).url
            where = ("127.0.0.1", int(url.split(":")[2].split("/")[0]))
            open_ones = [socket.create_connection(where, timeout=PATIENCE) for _ in range(MAX_CONNECTIONS + 1)]
            try:
                self.assertEqual(open_ones[-1].recv(1), b"")  # closed at once
                open_ones[0].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertEqual(open_ones[0].recv(12), b"HTTP/1.1 200")
                begun = time.monotonic()
                self.assertEqual(probe.stop(), -signal.SIGTERM)
                self.assertLess(time.monotonic() - begun, 5.0)
                self.assertNotIn("Traceback", probe.output)
            finally:
                for one in open_ones:
                    one.close()
            socket.create_server(where).close()

    def test_daemon(self) -> None:
        """In the background: it probes what a file given by a relative path names, and SIGTERM leaves no pid file."""
        with Directory() as directory, RunningTwistd("--verbose") as server:
            directory.write("targets.toml", f'[targets]\nweb = "{format_address(server.address)}"\n')
            finished = run_twistd("udpprobe", "--targets", "targets.toml", "-i", "0.1", directory=directory.path)
            self.assertEqual((finished.returncode, finished.stdout, finished.stderr), (0, "", ""))
            pid = pid_in(directory.path)
            server.wait_for("bytes from")  # until its reactor runs, a signal ends it by itself
            self.assertTrue(daemon_ended(pid))
            self.assertFalse((directory.path / "twistd.pid").exists())
            log = (directory.path / "twistd.log").read_text(encoding="utf-8")
            self.assertIn("udpprobe has stopped", log)
            self.assertNotIn("Traceback", log)

    def test_plugin_scan(self) -> None:
        """``twistd --help`` lists the command, and imports nothing of it for that."""
        with Directory() as directory:
            finished = run_twistd("--help", directory=directory.path)
        self.assertRegex(finished.stdout, r"(?m)^\s+udpprobe\s+Probe UDP servers")


class TruthTests(SynchronousTestCase):
    """Figures against a network with known faults."""

    def test_loss_and_duplicates(self) -> None:
        """Through a relay that loses, delays and repeats: each figure is what chance explains."""
        effects = ("--effects", "loss=10%,delay=20ms,seed=7", "--effects-to-client", "duplicate=20%")
        with (
            RunningTwistd() as server,
            RunningTwistd(*effects, command=("udpimpair", "-l0", "--to", format_address(server.address))) as relay,
            Directory() as directory,
        ):
            where = format_address(relay.address)
            names = "".join(f'm{number} = "{where}"\n' for number in range(40))
            file = directory.write("targets.toml", f"[defaults]\ninterval = 0.1\ntimeout = 1\n[targets]\n{names}")
            with probing("--targets", str(file)) as probe:
                scrape_until(probe, "udpprobe_probes_lost_total", 300)
                scrape = Scrape(probe)
        settled = round(scrape.sum("udpprobe_probes_received_total") + scrape.sum("udpprobe_probes_lost_total"))
        received = scrape.sum("udpprobe_probes_received_total")
        # Losses settle a second later than answers: what still waits may be either.
        waiting = scrape.sum("udpprobe_probes_sent_total") - settled
        least, greatest = binomial_bounds(round(settled + waiting), 0.9 * 0.9)
        self.assertGreaterEqual(received + waiting, least)
        self.assertLessEqual(received, greatest)
        least, greatest = binomial_bounds(round(received), 0.2)
        duplicated = scrape.sum("udpprobe_probes_duplicated_total")
        self.assertLessEqual(least, duplicated)
        self.assertLessEqual(duplicated, greatest)
        self.assertEqual(scrape.sum("udpprobe_rtt_seconds_bucket", le="0.025"), 0)
        mean = scrape.sum("udpprobe_rtt_seconds_sum") / scrape.sum("udpprobe_rtt_seconds_count")
        self.assertGreaterEqual(mean, 0.040)
        self.assertLess(mean, 0.060)
        for name in ("corrupted", "unreachable", "not_sent"):
            self.assertEqual(scrape.sum(f"udpprobe_probes_{name}_total"), 0)


class CostTests(SynchronousTestCase):
    """Processor time of the process, by the scheduler's own account."""

    def cost(self, targets: int, seconds: float) -> float:
        """Return the share of one core that so many targets at an interval of 1 s take."""
        with Directory() as directory, RunningTwistd(command=("udpecho", "-p0", "-i", "0.0.0.0")) as server:  # noqa: S104  # loopback's many addresses
            port = server.address[1]
            names = "".join(
                f't{number} = "127.1.{number // 250}.{number % 250 + 1}:{port}"\n' for number in range(targets)
            )
            file = directory.write("targets.toml", f"[defaults]\ninterval = 1.0\n[targets]\n{names}")
            with probing("--targets", str(file)) as probe:
                scrape_until(probe, "udpprobe_up", targets)
                account = Path(f"/proc/{probe.process.pid}/schedstat")
                begun, spent = time.monotonic(), int(account.read_text(encoding="ascii").split()[0])
                threading.Event().wait(seconds)
                spent = int(account.read_text(encoding="ascii").split()[0]) - spent
                elapsed = time.monotonic() - begun
                scrape = Scrape(probe)
        sent = scrape.sum("udpprobe_probes_sent_total")
        self.assertGreater(sent, targets * elapsed * 0.95)
        self.assertGreater(scrape.sum("udpprobe_probes_received_total"), sent - targets)
        self.assertEqual(scrape.sum("udpprobe_up"), targets)
        return spent / 1e9 / elapsed

    def test_cost(self) -> None:
        """200 targets at 1 s: 1.5 % of a core where nothing disturbs, and never three times that."""
        self.assertLess(self.cost(200, 4.0), 0.045)

    @pytest.mark.slow
    def test_cost_in_full(self) -> None:
        """1,000 targets at 1 s for 20 s: at most 5 % of a core."""
        self.assertLess(self.cost(1000, 20.0), 0.05)
