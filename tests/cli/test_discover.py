"""``udpecho discover``, on the simulated network."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.discovery.world import ASKER, host, served
from twistedudp.cli import _ask, _discover, _program
from twistedudp.discovery import DiscoveredPeer, DiscoveryAnswer
from twistedudp.methods import RPCMethods, method
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable


class Status(RPCMethods):
    """Methods to ask all for."""

    @method
    def status(self, *words: object) -> list[object]:
        """Return what was given."""
        return [*words, "\x1b[2J"]


class DiscoverTests(SynchronousTestCase):
    """The command, from its arguments to its exit status."""

    def setUp(self) -> None:
        """Make the network, and let the command run on a host of it."""
        self.network = SimulatedNetwork()
        self.reactor = host(self.network, ASKER, "2001:db8::200")
        self.interrupt_after = 0.0
        self.patch(_ask, "run_until_done", self.run_until_done)
        self.output, self.errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", self.errors)

    def run_until_done(self, asking: Callable[[Any], Any], *, on_interrupt: Callable[[], object]) -> Any:
        """Stand in for the real reactor."""
        if self.interrupt_after:
            self.reactor.callLater(self.interrupt_after, on_interrupt)
        return self.network.run_until(asking(self.reactor))

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """Run ``udpecho discover``; return its exit status, its output and its errors."""
        for stream in (self.output, self.errors):
            stream.truncate(0)
            stream.seek(0)
        status = _program.run(["discover", *arguments])
        return status, self.output.getvalue(), self.errors.getvalue()

    def two_servers(self) -> list[Any]:
        """Start two servers."""
        return [
            served(host(self.network, "192.0.2.2"), "kitchen"),
            served(host(self.network, "192.0.2.1"), "attic", Status(), max_datagram_size=2000),
        ]

    def test_plain(self) -> None:
        """Where nobody looks there is a line for each answer."""
        kitchen, attic = (service.address[1] for service in self.two_servers())
        for arguments in ((), ("--plain",)):
            status, output, errors = self.run_command(*arguments)
            self.assertEqual((status, errors), (0, ""))
            lines = sorted(line.rpartition("  ")[0] for line in output.splitlines())
            self.assertEqual(
                lines, [f"attic  192.0.2.1:{attic}  2.00 ms  rpc", f"kitchen  192.0.2.2:{kitchen}  2.00 ms  echo"]
            )

    def test_json(self) -> None:
        """One line of JSON with all that is known; results where a method was asked for."""
        self.two_servers()
        status, output, _ = self.run_command("--json")
        self.assertEqual((status, output.count("\n")), (0, 1))
        attic, kitchen = json.loads(output)
        self.assertEqual((attic["name"], attic["host"], attic["interface"]), ("attic", "192.0.2.1", "net0"))
        self.assertEqual(set(kitchen), set(DiscoveredPeer._fields))
        _, output, _ = self.run_command("--json", "--method", "status", "1", '"x"')
        self.assertEqual(
            [(each["name"], each["result"]) for each in json.loads(output)], [("attic", [1, "x", "\x1b[2J"])]
        )

    def test_results(self) -> None:
        """Results are shown as JSON, and steer no terminal; negative numbers stand behind a --."""
        self.two_servers()
        _, output, _ = self.run_command("--method", "status", "--", "-4", "word")
        self.assertTrue(output.endswith('  [-4,"word","\\u001b[2J"]\n'), output)

    def test_table(self) -> None:
        """On a terminal there is a table, which stays."""
        self.two_servers()

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                """Say yes."""
                return True

        self.output = Terminal()
        self.patch(sys, "stdout", self.output)
        status, output, _ = self.run_command()
        self.assertEqual(status, 0)
        table = output[output.rindex("NAME") :]
        self.assertIn("ADDRESS", table)
        self.assertLess(table.index("attic"), table.index("kitchen"))

    def test_nobody(self) -> None:
        """Where nobody answers the exit status is 1, and the line says what may be the matter."""
        status, output, errors = self.run_command("--wait", "200ms", "--port", "7", "--interface", "net0")
        self.assertEqual((status, output), (1, ""))
        self.assertEqual(errors.count("\n"), 1)
        self.assertIn("nobody answered within 200ms on net0; servers answer if they were started with --disc", errors)
        self.assertIn("UDP port 7 there", errors)
        status, output, errors = self.run_command("--json", "--method", "status")
        self.assertEqual((status, json.loads(output)), (1, []))
        self.assertIn("and have this method", errors)

    def test_usage(self) -> None:
        """What cannot be meant is one line, and nothing is sent."""
        for arguments, told in (
            (("-4", "-6"), "-4 and -6 exclude each other"),
            (("word",), "name one with --method"),
            (("--wait", "0"), "--wait 0: it must be above 0"),
            (("--wait", "61"), "at most 60s"),
            (("--rounds", "17"), "--rounds"),
            (("--port", "0"), "--port"),
            (("--interface", "eth9"), "'eth9' is no network interface"),
            (("-6", "--interface", "lo"), "no way to ask over IPv6 on lo"),
            (("--method", "m", "[1"), "is not JSON"),
            (("--method", "x" * 65), "1 to 64 characters"),
        ):
            status, output, errors = self.run_command(*arguments)
            self.assertEqual((status, output, errors.count("\n")), (2, "", 1), errors)
            self.assertIn(told, errors)
        self.assertEqual(len(self.network.trace), 0)

    def test_families(self) -> None:
        """-4 and -6 choose what is asked over."""
        served(host(self.network, "2001:db8::1"), "six", interface="2001:db8::1")
        served(host(self.network, "192.0.2.1"), "four")
        for flag, name in (("-4", "four"), ("-6", "six")):
            _, output, _ = self.run_command(flag, "--wait", "1s", "--rounds", "1")
            self.assertEqual([line.split()[0] for line in output.splitlines()], [name])

    def test_interrupted(self) -> None:
        """Ctrl-C ends the asking; what came until then counts."""
        self.two_servers()
        self.interrupt_after = 1.0
        status, output, _ = self.run_command("--json")
        self.assertEqual((status, len(json.loads(output))), (0, 2))
        self.assertEqual(self.network.clock.seconds(), 1.0)
        self.interrupt_after = 0.001
        status, _, errors = self.run_command()
        self.assertEqual(status, 1)
        self.assertIn("nobody answered until it was interrupted; servers", errors)

    def test_hostile_names(self) -> None:
        """A name that would steer the terminal or look like markup is shown as what it is."""
        peer = DiscoveredPeer("192.0.2.1", 7, "a\x1b[31mb [bold]c", "e\ncho", "1\u202e2", None, "eth0")
        line = _discover._line(DiscoveryAnswer(peer, None), with_result=False)
        self.assertEqual(line, "a\\u001b[31mb [bold]c  192.0.2.1:7  -  e cho  1\\u202e2")
        from rich.console import Console  # noqa: PLC0415  # beside its only use

        console = Console(file=io.StringIO(), width=200)
        with console.capture() as captured:
            console.print(_discover._table([DiscoveryAnswer(peer, {"x": [1]})], with_result=True))
        self.assertIn("a\\u001b[31mb [bold]c", captured.get())
        self.assertIn('{"x":[1]}', captured.get())
