"""``udpecho ping --dtls`` as a process, against real servers: its figures, a lossy path, restarts, refusals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.binomial import binomial_bounds
from tests.cli.pings import temporary_folder
from tests.integration.foreign import missing_program
from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.openssl import GnuTLSServer, OpenSSLServer
from tests.integration.test_twistd_dtls import LIMIT, UDPECHO, ProgramsTestCase
from tests.integration.twistd import RunningTwistd, environment
from twistedudp.address import format_address
from twistedudp.doctor._dtls import client_hello, speaks_dtls

if TYPE_CHECKING:
    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

RPC = ("--protocol", "calculator")
DOUBT = 0.00005
"""On each side of the interval: 99.99 % lie within."""


class PingTestCase(ProgramsTestCase):
    """A command that trusts the authority."""

    def ping(self, address: Address, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return self.udpecho("ping", address, "--ca", self.pem("ca"), *arguments, "")

    def figures(self, address: Address, *arguments: str) -> dict[str, Any]:
        """Run it and return its JSON object."""
        done = self.ping(address, "--json", *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found: dict[str, Any] = json.loads(done.stdout)
        return found


class FigureTests(PingTestCase):
    """Runs that end by themselves."""

    def test_echo(self) -> None:
        """An echo server, by its name: the lines of any run, and what the handshake took."""
        port = self.server().address[1]
        done = self.udpecho("ping", f"localhost:{port}", "--ca", self.pem("ca"), "-c5", "-i10ms", "")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"udpecho ping localhost:{port} (127.0.0.1:{port}): 64 bytes every 10 ms, in DTLS\n", done.stdout)
        self.assertRegex(done.stdout, r"(?m)^DTLS         1 session, handshake took [0-9.]+ [mu]?s$")
        self.assertIn("5 sent, 5 received, 0 lost (0%)", done.stdout)

    def test_rpc(self) -> None:
        """An rpc server that wants a certificate tells as much as over plain UDP; times are the kernel's."""
        server = self.server(*RPC, "--dtls-client-ca", self.pem("ca"), "--dtls-allow", "alice")
        pair = ("--cert", self.pem("alice"), "--key", self.pem("alice-key"))
        found = self.figures(server.address, *pair, "-c50", "-i5ms", "--size", "1163")
        self.assertEqual((found["protocol"], found["received"], found["size"]), ("rpc", 50, 1163))
        self.assertEqual((found["lost_there"], found["lost_back"], found["duplicated_there"]), (0, 0, 0))
        self.assertTrue(found["dtls"] and found["kernel_times"])
        self.assertTrue(0 < found["server_time"]["p50"] < found["p50"] < found["handshake"] < LIMIT, found)
        self.assertEqual((found["handshakes"], found["without_session"]), (1, 0))

    def test_loss(self) -> None:
        """Through 10 % loss each way, the handshake as well: as much is lost as is true, and told by direction."""
        server = self.server(*RPC)
        relayed = ("udpimpair", "--listen", "0", "--to", format_address(server.address), "--effects", "loss=10%,seed=5")
        with RunningTwistd(command=relayed) as relay:
            found = self.figures(relay.address, "-c500", "-i3ms", "--timeout", "500ms")
        for which, chance in (("lost_there", 0.1), ("lost_back", 0.09)):
            least, most = binomial_bounds(500, chance, DOUBT)
            self.assertTrue(least <= found[which] <= most, found)
        self.assertEqual(found["lost"], found["lost_there"] + found["lost_back"] + found["late"])
        self.assertEqual((found["handshakes"], found["sent"], found["corrupted"]), (1, 500, 0))


class RestartTests(PingTestCase):
    """Servers that lose the session while probes are sent."""

    def restarted(self, by: signal.Signals) -> dict[str, Any]:
        """End the server by a signal in the midst of a run, start it again at the same port, and return the summary."""
        server = self.server()
        command = [UDPECHO, "ping", "--dtls", "--ca", self.pem("ca"), format_address(server.address), "-i20ms"]
        with subprocess.Popen(
            [*command, "--timeout", "300ms", "--json-lines"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            fates = (json.loads(line) for line in process.stdout)
            self.assertEqual(next(fates)["event"], "reply")
            server.stop(by)
            while next(fates)["event"] != "lost":
                pass
            self.server("--port", str(server.address[1]))
            while next(fates)["event"] != "reply":
                pass
            process.send_signal(signal.SIGINT)
            *_, summary = fates
            assert process.stderr is not None
            self.assertEqual((process.wait(LIMIT), process.stderr.read()), (0, ""))
        self.assertEqual((summary["event"], summary["handshakes"], summary["late"]), ("summary", 2, 0))
        self.assertGreater(summary["lost"], 0)
        # None was kept back for the next session.
        self.assertLess(summary["max"], 0.3)
        found: dict[str, Any] = summary
        return found

    def test_killed(self) -> None:
        """A server that died says nothing: its successor is shaken hands with once probes stay without an answer."""
        self.assertEqual(self.restarted(signal.SIGKILL)["without_session"], 0)

    def test_stopped(self) -> None:
        """A server that stopped in order has closed the session: probes until the next one are lost, and told."""
        found = self.restarted(signal.SIGTERM)
        waited = found["oddities"].get("unanswered_at_stop", 0)
        self.assertTrue(0 < found["without_session"] <= found["lost"] + waited, found)


class FirewallTests(PingTestCase):
    """What this machine does not send, in a network of its own."""

    def test_not_sent(self) -> None:
        """Records that a rule of this machine forbids are not sent, and not lost."""
        if reason := missing_for_namespaces():
            self.skipTest(reason)
        namespace = NetworkNamespace()
        self.addCleanup(namespace.close)
        namespace.run("ip", "link", "set", "lo", "up")
        with namespace.entered():
            server = self.server()
            rule = f"type filter hook output priority 0; udp dport {server.address[1]} udp length > 900 drop;"
            namespace.run("nft", "-f", "-", text=f"table ip t {{ chain c {{ {rule} }}; }}")
            done = self.ping(server.address, "-c5", "-i10ms", "--size", "1000", "--json")
        found = json.loads(done.stdout)
        self.assertEqual((found["sent"], found["not_sent"], found["lost"], found["handshakes"]), (0, 5, 0, 1))
        self.assertEqual(done.returncode, 1)
        self.assertIn("a firewall on this machine forbids it (EPERM)", done.stderr)


class DoctorTests(ProgramsTestCase):
    """What ``udpecho doctor`` says of a server that is silent to plain UDP."""

    def check_found(self, where: str) -> None:
        """Run the doctor, which finds that this server speaks DTLS, and no fault."""
        done = subprocess.run(
            [UDPECHO, "doctor", "--quick", "--timeout", "0.5", "--json", where],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        (finding,) = json.loads(done.stdout)["findings"]
        self.assertEqual((done.returncode, finding["code"]), (0, "UDP-DTLS"), done.stdout)
        self.assertIn(f"'udpecho ping --dtls {where}'", finding["advice"])
        self.assertTrue([line for line in finding["evidence"] if "after a ClientHello (DTLS) its answer" in line])

    def test_ours(self) -> None:
        """Our own server, whether or not it wants certificates of clients."""
        for options in ((), ("--dtls-client-ca", self.pem("ca"))):
            self.check_found(format_address(self.server(*options).address))

    def test_openssl(self) -> None:
        """OpenSSL's, which asks for no cookie by default and for one with -listen."""
        if missing_program("openssl"):
            self.skipTest(missing_program("openssl"))
        for options in ((), ("-listen",)):
            with OpenSSLServer(self.pem("server"), self.pem("server-key"), *options) as server:
                self.check_found(format_address(server.address))

    def test_gnutls(self) -> None:
        """GnuTLS answers the ClientHello; the doctor's plain UDP would end the service of ``gnutls-serv``."""
        if missing_program("gnutls-serv"):
            self.skipTest(missing_program("gnutls-serv"))
        with (
            GnuTLSServer(self.pem("server"), self.pem("server-key")) as server,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
        ):
            asking.settimeout(LIMIT)
            asking.sendto(client_hello(bytes(range(32))), server.address)
            self.assertTrue(speaks_dtls(asking.recv(2000)))


class RefusedTests(PingTestCase):
    """What is one line and an exit status."""

    def test_handshake(self) -> None:
        """Wrong authority, wrong name, a server for plain UDP, nobody at all: no probe is sent, and it says why."""
        server = self.server()
        ca = ("--ca", self.pem("ca"))
        self.refused(1, "authority that is trusted here", "ping", server.address, "--ca", self.pem("other-ca"), "")
        misnamed = self.server(certificate="misnamed")
        self.refused(1, "elsewhere.example.*127.0.0.1", "ping", misnamed.address, *ca, "")
        with RunningTwistd() as plain:
            self.refused(1, "it sent back what it got.*leave --dtls out", "ping", plain.address, *ca, "")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            address = nobody.getsockname()
        self.refused(1, "cannot be reached: Connection refused", "ping", address, *ca, "")

    def test_usage(self) -> None:
        """A certificate that cannot be read, before anything is sent."""
        self.refused(2, "cannot be read", "ping", ("127.0.0.1", 9), "--ca", self.pem("missing"), "")

    def test_wrong_usage_keeps_the_former_rows(self) -> None:
        """The file of --csv is not emptied where a certificate cannot be read: nothing was sent."""
        path = temporary_folder(self) / "rows.csv"
        path.write_text("of yesterday")
        done = self.udpecho("ping", ("127.0.0.1", 1), "--ca", "no-such.pem", "--csv", str(path), "")
        self.assertEqual((done.returncode, path.read_text()), (2, "of yesterday"))
        self.assertIn("no-such.pem cannot be read", done.stderr)

    def test_silence(self) -> None:
        """Ctrl-C ends a handshake that nobody answers, without a summary."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            command = [UDPECHO, "ping", "--dtls", "--ca", self.pem("ca"), format_address(silent.getsockname())]
            with subprocess.Popen(
                command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                silent.settimeout(LIMIT)
                self.assertEqual(silent.recv(2000)[:1], b"\x16")
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=LIMIT)
        self.assertEqual((process.returncode, output, errors), (130, b"", b""))
