"""Protocols as plugins of a real ``twistd``: chosen, broken, doubled, and run without root's rights."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import twistedudp
from tests.integration.twistd import (
    PATIENCE,
    Directory,
    RunningTwistd,
    daemon_ended,
    failed_daemon_ended,
    pid_in,
    run_twistd,
)
from twistedudp import _msgpack
from twistedudp.messages import Response

if TYPE_CHECKING:
    import subprocess

    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

NOBODY = 65534

REVERSE = """
from twisted.internet.protocol import DatagramProtocol

class Reverse(DatagramProtocol):
    def __init__(self, times: int = 1, loud: bool = False):
        self.times, self.loud = times, loud

    def datagramReceived(self, datagram, addr):
        datagram = datagram[::-1] * self.times
        self.transport.write(datagram.upper() if self.loud else datagram, addr)

class Explodes(DatagramProtocol):
    def startProtocol(self):
        self.factor = {}["absent"]

class Neither:
    pass
"""

PLUGIN = """
from twistedudp import DatagramPlugin
{variable} = DatagramPlugin({name!r}, {target!r}, {description!r})
"""

UIDS = """
import os
from twisted.internet.protocol import DatagramProtocol

IMPORTED_BY = os.getuid(), os.geteuid(), os.getgid()

class Uids(DatagramProtocol):
    def __init__(self):
        self.made_by = os.getuid(), os.geteuid(), os.getgid()

    def startProtocol(self):
        self.started_by = os.getuid(), os.geteuid(), os.getgid()

    def datagramReceived(self, datagram, addr):
        self.transport.write(repr([IMPORTED_BY, self.made_by, self.started_by]).encode(), addr)
"""


def plugin_text(name: str, target: str, description: str = "A protocol.") -> str:
    """Return the text of a plugin file with one plugin."""
    return PLUGIN.format(variable=f"plugin_{name}", name=name, target=target, description=description)


def ask(address: Address, data: bytes) -> bytes:
    """Send a datagram from a new socket and return the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.sendto(data, address)
        return client.recv(65536)


def readable_by_nobody() -> bool:
    """Tell whether another user can read the package, which is imported in part after the drop."""
    package = Path(twistedudp.__file__).parent
    return all(directory.stat().st_mode & 0o005 == 0o005 for directory in (package, *package.parents))


class PluginTestCase(SynchronousTestCase):
    """A directory for the server's import path, with a module of targets and some plugin files."""

    def setUp(self) -> None:
        """Make the directory."""
        directory = Directory()
        self.addCleanup(directory.__exit__, None, None, None)
        self.directory = directory
        self.run_in = directory.path / "run"
        self.run_in.mkdir(mode=0o777)
        directory.write("targets.py", REVERSE)
        for name, target in (("reverse", "Reverse"), ("explodes", "Explodes"), ("neither", "Neither")):
            self.files = directory.plugin_file(f"{name}_plugin", plugin_text(name, f"targets:{target}", f"{name}s."))

    def serving(self, *options: str) -> RunningTwistd:
        """Start a server."""
        return RunningTwistd(*options, python_path=[self.directory.path])

    def run_to_end(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a twistd that does not serve."""
        return run_twistd(*arguments, directory=self.run_in, python_path=[self.directory.path])


class ServedTests(PluginTestCase):
    """What can be chosen."""

    def test_protocol(self) -> None:
        """A file dropped into ``twisted/plugins`` is all it takes; options reach the constructor, converted."""
        with self.serving("--protocol", "reverse") as server:
            self.assertEqual(ask(server.address, b"abc"), b"cba")
            self.assertIn("reverse is listening", server.output)
        options = ("--protocol-option", "times=2", "--protocol-option", "loud=true")
        with self.serving("--protocol", "reverse", *options) as server:
            self.assertEqual(ask(server.address, b"abc"), b"CBACBA")

    def test_list(self) -> None:
        """The table has the built-in protocols and the dropped ones, with their files; exit status 0."""
        finished = self.run_to_end("udpecho", "--list-protocols")
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))
        lines = finished.stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["NAME", "echo", "explodes", "neither", "reverse", "rpc"])
        plugins = self.directory.path / "twisted" / "plugins"
        self.assertRegex(lines[4], rf"^reverse +reverses\. +{plugins / 'reverse_plugin.py'}$")
        self.assertEqual(
            len({line.index(word) for line, word in zip(lines[4:], ("reverses.", "Mess"), strict=True)}), 1
        )

    def test_unwritable_cache(self) -> None:
        """A plugin directory in which nothing can be written works all the same."""
        plugins = self.directory.path / "twisted" / "plugins"
        (plugins / "dropin.cache").mkdir()  # not even root can write a file of that name now
        with self.serving("--protocol", "reverse") as server:
            self.assertEqual(ask(server.address, b"abc"), b"cba")
            self.assertNotIn("Traceback", server.output)

    def test_rpc(self) -> None:
        """A class of methods is served by its name, without a plugin."""
        with RunningTwistd(
            *("--protocol", "rpc", "--protocol-option", "class=calculator:Calculator"),
            python_path=[EXAMPLES / "calculator"],
        ) as server:
            answer = ask(server.address, _msgpack.encode_request(7, "add", [2, 3]))
            self.assertEqual(_msgpack.decode_untrusted(answer), Response(7, None, 5.0))


class ExampleTests(SynchronousTestCase):
    """The examples, as their texts say to run them."""

    def test_calculator(self) -> None:
        """The calculator divides, and says what is wrong with zero."""
        with RunningTwistd("--protocol", "calculator", python_path=[EXAMPLES / "calculator"]) as server:
            answer = ask(server.address, _msgpack.encode_request(7, "divide", [22, 7]))
            self.assertEqual(_msgpack.decode_untrusted(answer), Response(7, None, 22 / 7))
            answer = ask(server.address, _msgpack.encode_request(8, "divide", [22, 0]))
            self.assertIn("division_by_zero", str(_msgpack.decode_untrusted(answer)))
            self.assertNotIn("Traceback", server.output)

    def test_chat(self) -> None:
        """What one says the other hears."""
        with (
            RunningTwistd("--protocol", "chat", "--verbose", python_path=[EXAMPLES / "chat"]) as server,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ann,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bob,
        ):
            for number, client in enumerate((ann, bob)):
                client.settimeout(PATIENCE)
                client.sendto(b"", server.address)
                server.wait_for("chat: 0 bytes", times=number + 1)
            ann.sendto("grüß dich".encode(), server.address)
            self.assertEqual(bob.recv(100), f"127.0.0.1:{ann.getsockname()[1]}> grüß dich".encode())


class BrokenFileTests(PluginTestCase):
    """Files that cannot be used disturb nobody else."""

    def test_broken(self) -> None:
        """It is named with its own traceback, in the list and in the log; everything else works."""
        broken = self.directory.plugin_file("broken_plugin", "import there_is_no_such_module\n")
        finished = self.run_to_end("udpecho", "--list-protocols")
        self.assertEqual(finished.returncode, 0)
        self.assertIn(f"{broken} could not be imported, its protocols are missing here:\nTraceback", finished.stdout)
        self.assertIn("No module named 'there_is_no_such_module'", finished.stdout)
        self.assertIn("\nreverse ", finished.stdout)
        with self.serving("--protocol", "reverse") as server:
            self.assertEqual(ask(server.address, b"abc"), b"cba")
            self.assertIn(f"the plugin file {broken} could not be imported", server.output)

    def test_unknown_name(self) -> None:
        """Who asks for a name that is not there learns the nearest one, and which files might have had it."""
        broken = self.directory.plugin_file("zz_broken_plugin", "1 / 0\n")
        finished = self.run_to_end("-n", "udpecho", "--protocol", "revers")
        self.assertEqual(finished.returncode, 1)
        (line,) = [line for line in finished.stderr.splitlines() if line.startswith("twistd udpecho: ")]
        self.assertIn("no protocol 'revers' (did you mean 'reverse'?)", line)
        self.assertIn("installed: echo, explodes, neither, reverse, rpc", line)
        self.assertIn(f"{broken} could not be imported: ZeroDivisionError: division by zero", line)

    def test_two_of_one_name(self) -> None:
        """Two plugins of one name: both files are named, and other protocols are served."""
        other = self.directory.plugin_file("another_plugin", plugin_text("reverse", "elsewhere:Reverse"))
        finished = self.run_to_end("-n", "udpecho", "--protocol", "reverse")
        self.assertEqual((finished.returncode, finished.stderr.count("\n")), (1, 1))
        self.assertIn(f"2 plugins have the name 'reverse': {other} and ", finished.stderr)
        self.assertIn(str(self.directory.path / "twisted" / "plugins" / "reverse_plugin.py"), finished.stderr)
        self.assertIn("reverse cannot be chosen", self.run_to_end("udpecho", "--list-protocols").stdout)
        with self.serving() as server:
            self.assertEqual(ask(server.address, b"abc"), b"abc")


class FailingTargetTests(PluginTestCase):
    """A plugin whose target cannot be served: found out when the service starts, and still told in one line."""

    def setUp(self) -> None:
        """Add some plugins whose targets are wrong."""
        super().setUp()
        self.directory.write("raises.py", "def explode():\n    return 1 / 0\n\nexplode()\n")
        for name, target in (("gone", "no_such_module:X"), ("typo", "targets:Revers"), ("raises", "raises:X")):
            self.directory.plugin_file(f"{name}_plugin", plugin_text(name, target))

    def failed(self, *options: str) -> tuple[str, str]:
        """Start the server in both modes; return the line for it and the log."""
        begin = ("--port", "0", "--protocol")
        finished = self.run_to_end("-n", "udpecho", *begin, *options)
        self.assertEqual((finished.returncode, finished.stderr.count("\n")), (1, 1), finished.stderr)
        line = finished.stderr.removeprefix("twistd udpecho: ").rstrip("\n")
        self.assertIn(f"protocol {options[0]!r}", line)
        self.assertEqual(finished.stdout.count(line), 1)
        self.assertEqual(list(self.run_in.iterdir()), [])
        daemon = self.run_to_end("udpecho", *begin, *options)
        self.assertEqual((daemon.returncode, daemon.stdout), (1, ""))
        self.assertIn(f"protocol {options[0]!r}", daemon.stderr)
        self.assertNotIn("Traceback", daemon.stderr)
        self.assertTrue(failed_daemon_ended(self.run_in))
        log = self.run_in / "twistd.log"
        self.assertEqual(list(self.run_in.iterdir()), [log])  # no pid file
        text = log.read_text(encoding="utf-8")
        self.assertEqual(text.count(line), 1)
        self.assertEqual(text.count("Traceback"), finished.stdout.count("Traceback"))
        log.unlink()
        return line, text

    def test_foreseeable(self) -> None:
        """What is wrong with the target or the options: no traceback anywhere."""
        for options, expected in (
            (("gone",), "there is no module 'no_such_module'"),
            (("typo",), "module 'targets' has no 'Revers' (did you mean 'Reverse'?)"),
            (("neither",), "targets:Neither is neither a DatagramProtocol nor an RPCMethods"),
            (("reverse", "--protocol-option", "tims=2"), "takes no option 'tims' (did you mean 'times'?)"),
            (("reverse", "--protocol-option", "times=two"), "times='two' does not fit int"),
            (("rpc",), "cannot do without the option 'class'"),
        ):
            line, log = self.failed(*options)
            self.assertIn(expected, line)
            self.assertNotIn("Traceback", log)

    def test_code_of_the_plugin(self) -> None:
        """The plugin's own code raised: its own traceback, and nothing of twistd's, is in the log."""
        line, log = self.failed("raises")
        self.assertEqual(
            line,
            "protocol 'raises': its module raises failed when it was imported: ZeroDivisionError: division by zero",
        )
        self.assertEqual(log.count("  File "), 2)
        self.assertIn(", in explode", log)
        line, log = self.failed("explodes")
        self.assertEqual(line, "protocol 'explodes' failed when it was started: KeyError: 'absent'")
        self.assertEqual(log.count("  File "), 1)
        self.assertIn(", in startProtocol", log)


class PrivilegeTests(PluginTestCase):
    """With ``--uid``: the port is bound with root's rights, user code runs without them."""

    def setUp(self) -> None:
        """Add a protocol that tells who imported, made and started it."""
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        if not readable_by_nobody():
            raise SkipTest(f"the package is installed where the user {NOBODY} cannot read it")
        self.directory.write("uids.py", UIDS)
        self.directory.plugin_file("uids_plugin", plugin_text("uids", "uids:Uids"))

    def test_user_code_runs_after_the_drop(self) -> None:
        """In the foreground the target's module, constructor and startProtocol all see the user that was named."""
        with RunningTwistd(
            "--protocol", "uids", python_path=[self.directory.path], twistd_options=["--uid", str(NOBODY)]
        ) as server:
            self.assertEqual(ask(server.address, b"?").decode(), repr([(NOBODY, NOBODY, NOBODY)] * 3))

    def test_daemon(self) -> None:
        """In the background as well, and on a port that only root can have."""
        self.run_in.chmod(0o777)  # mkdir's mode went through the umask; the user removes the pid file
        for port in range(1023, 511, -1):
            finished = self.run_to_end("--uid", str(NOBODY), "udpecho", "--protocol", "uids", "--port", str(port))
            if finished.returncode == 0 or "is in use" not in finished.stderr:
                break
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))
        try:
            self.assertEqual(ask(("127.0.0.1", port), b"?").decode(), repr([(NOBODY, NOBODY, NOBODY)] * 3))
        finally:
            self.assertTrue(daemon_ended(pid_in(self.run_in)))
        self.assertFalse((self.run_in / "twistd.pid").exists())

    def test_failure_after_the_drop(self) -> None:
        """An error of the target leaves neither pid file nor waiting parent with another user either."""
        self.run_in.chmod(0o777)  # see test_daemon
        finished = self.run_to_end("--uid", str(NOBODY), "udpecho", "--protocol", "explodes", "--port", "0")
        self.assertEqual(finished.returncode, 1)
        self.assertIn("protocol 'explodes' failed", finished.stderr)
        self.assertTrue(failed_daemon_ended(self.run_in))
        self.assertFalse((self.run_in / "twistd.pid").exists())
