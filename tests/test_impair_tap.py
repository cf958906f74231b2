"""``twistd udpimpair``: its options, its errors, and the service that it makes; without processes and sockets."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import socket
import sys
import types
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import ROOT
from twistedudp import _startup, impair_tap
from twistedudp.impairment import EFFECTS, Loss, NATInbound, NATRebinding, parse_effects
from twistedudp.relay import UDPImpairmentService

TO = ("--to", "192.0.2.1:10000")


class Bound:
    """A bound socket, as far as this part sees one."""

    def __init__(self, port: int, interface: str) -> None:
        self.host = self.interface = interface
        self.port = port or 49152

    def close(self) -> None:
        """Do nothing."""


class OptionsTestCase(SynchronousTestCase):
    """Options with a kernel and a name server that the test makes."""

    def setUp(self) -> None:
        """Replace what would open sockets and ask the network."""
        self.bind_error: Exception | None = None
        self.asked: list[tuple[int, str]] = []
        self.names: dict[str, list[str]] = {}
        self.patch(_startup, "bind", self.bind)
        self.patch(_startup, "port_holder", lambda port, host: f"holder of {host} {port}")
        self.patch(socket, "getaddrinfo", self.look_up)

    def bind(self, port: int, interface: str, *, receive_buffer: int | None) -> Bound:
        """Stand in for ``transport.bind``."""
        assert receive_buffer is None
        self.asked.append((port, interface))
        if self.bind_error is not None:
            raise self.bind_error
        return Bound(port, interface)

    def look_up(self, host: str, port: None, *, type: int) -> list[Any]:  # noqa: A002  # getaddrinfo's own name
        """Stand in for the name server."""
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, type, 17, "", (address, 0)) for address in self.names[host]]

    def parse(self, *arguments: str) -> impair_tap.Options:
        """Parse a command line."""
        options = impair_tap.Options()
        options.parseOptions(arguments)
        return options

    def refused(self, *arguments: str) -> str:
        """Parse a command line with an error; return the line that is printed for it, without its prefix."""
        error = self.assertRaises(SystemExit, self.parse, *arguments)
        assert isinstance(error.code, str)  # Python prints a text, and the exit status is 1
        self.assertNotIn("\n", error.code)
        self.assertTrue(error.code.startswith("twistd udpimpair: "), error.code)
        return error.code.removeprefix("twistd udpimpair: ")

    def printed(self, *arguments: str) -> str:
        """Return what a command line that only prints something prints."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        self.assertEqual(self.assertRaises(SystemExit, self.parse, *arguments).code, 0)
        return output.getvalue()


class OptionTests(OptionsTestCase):
    """Each option, right and wrong."""

    def test_defaults(self) -> None:
        """Two options must be given; the rest has defaults."""
        options = self.parse("--listen", "10001", *TO)
        self.assertEqual(self.asked, [(10001, "127.0.0.1")])
        self.assertEqual(options.server, ("192.0.2.1", 10000))
        self.assertEqual((options["max-sessions"], options["session-timeout"]), (4096, 300))
        self.assertEqual(options.effects(), ([], []))

    def test_short(self) -> None:
        """The most used ones have a letter."""
        options = self.parse("-l", "0", "-t", "[2001:DB8:0::1]:7", "-i", "::1", "-e", "loss=5%")
        self.assertEqual((self.asked, options.server), ([(0, "::1")], ("2001:db8::1", 7)))
        self.assertIsInstance(options.effects()[0][0], Loss)

    def test_missing(self) -> None:
        """What must be given is named, with an example."""
        self.assertEqual(
            self.refused(*TO), "--listen is missing; write for example --listen 10001 (0 picks a free port)"
        )
        self.assertEqual(self.refused("--listen", "0"), "--to is missing; write for example --to 127.0.0.1:10000")

    def test_numbers(self) -> None:
        """A number that is none, or out of range, names the option, the value and the range."""
        for option, least, most in (
            ("listen", 0, 65535),
            ("max-sessions", 1, 1000000),
            ("session-timeout", 1, 86400),
        ):
            for value in ("", "x", "-1", "1.5", " 1", str(most + 1), "9" * 5000, "\u0661", "1\n2", str(least - 1)):
                self.assertEqual(
                    self.refused("--listen", "0", *TO, f"--{option}={value}"),
                    f"--{option}: {value!r} is not a whole number from {least} to {most}",
                )
        self.assertEqual(self.asked, [])

    def test_interface(self) -> None:
        """As with udpecho."""
        self.assertIn("'localhost' is not a numeric address", self.refused("--listen=0", *TO, "-i", "localhost"))
        self.assertIn("224.0.0.1 is a broadcast or", self.refused("--listen=0", *TO, "-i", "224.0.0.1"))

    def test_server(self) -> None:
        """A server that cannot be one: what is wrong, and how it is written."""
        for value, expected in (
            ("", "--to: '' has no host; write HOST or HOST:PORT"),
            ("127.0.0.1", "--to: '127.0.0.1' has no port; write HOST:PORT"),
            ("::1", "--to: '::1' has no port; write HOST:PORT"),
            ("127.0.0.1:0", "--to: '0' is not a port: it must be a number from 1 to 65535"),
            ("127.0.0.1:65536", "--to: '65536' is not a port: it must be a number from 1 to 65535"),
            ("127.0.0.1:x", "--to: 'x' is not a port: it must be a number from 1 to 65535"),
            ("[127.0.0.1]:5", "--to: '127.0.0.1' is not an IPv6 address; only these stand in brackets"),
            ("a b:5", "--to: 'a b:5' has a space in its host; write HOST or HOST:PORT"),
            ("224.0.0.1:5", "--to: 224.0.0.1 is not the address of one server"),
            ("255.255.255.255:5", "--to: 255.255.255.255 is not the address of one server"),
            ("0.0.0.0:5", "--to: 0.0.0.0 is not the address of one server"),
            ("[::]:5", "--to: :: is not the address of one server"),
        ):
            self.assertEqual(self.refused("--listen", "0", "--to", value), expected)
        self.assertIn("--to: ", self.refused("--listen", "0", "--to", "127.0.0.1:" + "9" * 5000))
        self.assertEqual(
            self.refused("--listen", "0", "--to", "no.such.example:5"),
            "--to: the host name 'no.such.example' does not resolve (Name or service not known); check the spelling "
            "and the name server",
        )
        self.assertEqual(self.asked, [])

    def test_name_that_cannot_be_one(self) -> None:
        """What the resolver refuses to look up is one line too."""

        def refuse(*_: object, **__: object) -> None:
            raise UnicodeError("label too long")

        self.patch(socket, "getaddrinfo", refuse)
        self.assertIn("does not resolve (label too long)", self.refused("--listen", "0", "--to", "x" * 70 + ":5"))

    def test_name(self) -> None:
        """Of several addresses the first is taken that is of the listening port's family, else the first."""
        self.names = {"both.example": ["2001:db8::1", "192.0.2.1", "192.0.2.2"], "six.example": ["2001:db8::1"]}
        for interface, name, expected in (
            ("127.0.0.1", "both.example", "192.0.2.1"),
            ("::1", "both.example", "2001:db8::1"),
            ("127.0.0.1", "six.example", "2001:db8::1"),
        ):
            options = self.parse("--listen", "0", "--to", f"{name}:7", "--interface", interface)
            self.assertEqual(options.server, (expected, 7))
            self.assertIn(f"({name}:7)", options.describe())

    def test_loop(self) -> None:
        """The relay is not its own server, by whatever address."""
        for interface, host in (
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.7"),  # noqa: S104  # refused
            ("::", "127.0.0.1"),
            ("::", "[::1]"),
        ):
            self.assertIn(
                f"{host}:7777 is the port that the relay would listen on itself",
                self.refused("--listen", "7777", "--to", f"{host}:7777", "--interface", interface),
            )
        for interface, host, port in (
            ("127.0.0.1", "127.0.0.1", 7778),
            ("127.0.0.1", "127.0.0.2", 7777),
            ("0.0.0.0", "192.0.2.77", 7777),  # noqa: S104  # nothing is bound
        ):
            self.parse("--listen", "7777", "--to", f"{host}:{port}", "--interface", interface)

    def test_effects(self) -> None:
        """Both directions get effects of their own; those of one direction come behind those of both."""
        options = self.parse(
            *("--listen", "0", *TO, "--effects", "nat=30s,loss=5%", "--effects-to-server", "loss=1%"),
            *("--effects-to-client", "loss=2%,loss=3%"),
        )
        to_server, to_client = options.effects()
        self.assertIsInstance(to_server[0], NATRebinding)
        self.assertIsInstance(to_client[0], NATInbound)
        losses = [[effect.probability for effect in effects[1:]] for effects in (to_server, to_client)]  # type: ignore[attr-defined]  # Loss
        self.assertEqual(losses, [[0.05, 0.01], [0.05, 0.02, 0.03]])
        self.assertIsNot(options.effects()[0][1], to_server[1])
        self.assertIsNot(to_server[1], to_client[1])

    def test_wrong_effects(self) -> None:
        """What is wrong, in which option, with an example; each effect's own values are the parser's tests."""
        for option in ("effects", "effects-to-server", "effects-to-client"):
            for text in (
                "lost=5%",
                "loss",
                "loss=",
                "loss=200%",
                "loss=5",
                "delay=20",
                ",",
                "loss=5%,",
                "seed=x",
                "x" * 5000,
            ):
                line = self.refused("--listen", "0", *TO, f"--{option}", text)
                self.assertTrue(line.startswith(f"--{option}: "), line)
                self.assertIn("for example", line)
                self.assertLess(len(line), 500)
        self.assertIn("did you mean loss?", self.refused("--listen", "0", *TO, "--effects", "los=5%"))
        self.assertEqual(
            self.refused("--listen", "0", *TO, "--effects-to-client", "nat=30s"),
            "--effects-to-client: nat works on both directions at once; write it in --effects",
        )
        self.assertEqual(self.asked, [])

    def test_seed(self) -> None:
        """The seed may stand in any of the three, once; without one it is another each time, and it is told."""
        for option in ("effects", "effects-to-server", "effects-to-client"):
            self.assertEqual(self.parse("--listen", "0", *TO, f"--{option}", "loss=5%,seed=7").seed, 7)
        both = ("--listen", "0", *TO, "--effects", "seed=7", "--effects-to-client")
        self.assertEqual(self.parse(*both, "seed=7").seed, 7)
        self.assertEqual(
            self.refused(*both, "seed=8"),
            "--effects has seed=7 and --effects-to-client has seed=8; there is one seed for all, write it once",
        )
        options = [self.parse("--listen", "0", *TO, "--effects", "loss=5%") for _ in range(4)]
        self.assertGreater(len({one.seed for one in options}), 1)
        self.assertIn(f"--effects loss=5%,seed={options[0].seed}", options[0].describe())

    def test_describe(self) -> None:
        """The line says in plain ASCII what makes the relay do the same again; read back, it means the same."""
        text = "delay=20ms±5ms,jitter=30µs,seed=7"
        line = self.parse("--listen", "0", *TO, "-e", text, "--effects-to-client", "loss=1%").describe()
        self.assertEqual(
            line,
            "udpimpair relays to 192.0.2.1:10000 with --effects delay=20ms+-5ms,jitter=30us,seed=7 "
            "--effects-to-client loss=1%",
        )
        again = parse_effects(line.split("--effects ")[1].split()[0])
        self.assertEqual(list(map(repr, again.make())), list(map(repr, parse_effects(text).make())))
        self.assertEqual(
            self.parse("--listen", "0", *TO, "-e", "seed=7").describe(),
            "udpimpair relays to 192.0.2.1:10000 without effects",
        )

    def test_unknown_option(self) -> None:
        """An option that is not there: the nearest is named; a shortened one must be clear."""
        self.assertEqual(
            self.refused("--efects", "x"),
            "there is no option --efects (did you mean '--effects'?); --help lists them all",
        )
        self.assertEqual(self.refused("-z"), "there is no option -z; --help lists them all")
        self.assertRegex(self.refused("--effects-to", "x"), "may mean --effects-to-.* or --effects-to-.*; write it out")
        self.assertIn("'10000' is not an option", self.refused("10000"))

    def test_help(self) -> None:
        """Every option is explained."""
        text = self.help_text()
        for option in (
            "--listen=",
            "--to=",
            "--interface=",
            "--effects=",
            "--effects-to-server=",
            "--effects-to-client=",
        ):
            self.assertIn(option, text)
        for option in ("--max-sessions=", "--session-timeout=", "--list-effects", "--version", "SIGUSR2"):
            self.assertIn(option, text)

    def help_text(self) -> str:
        """Return what --help prints."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        self.assertRaises(SystemExit, self.parse, "--help")
        return output.getvalue()

    def test_list_effects(self) -> None:
        """Every effect, with an example that can be used as it stands."""
        text = self.printed("--list-effects")
        for form in EFFECTS.values():
            self.assertIn(form.form, text)
            self.assertIn(f"for example {form.example}\n", text)
            self.parse("--listen", "0", *TO, "--effects", form.example)

    def test_list_where_there_is_only_ascii(self) -> None:
        """A terminal without other characters gets the list all the same."""
        raw = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
        self.assertEqual(self.assertRaises(SystemExit, self.parse, "--list-effects").code, 0)
        self.assertIn(b"delay=TIME", raw.getvalue())


class BindErrorTests(OptionsTestCase):
    """A port that cannot be had."""

    def told(self, number: int, port: str) -> str:
        """Return the line for an errno."""
        error = OSError(number, os.strerror(number))
        self.bind_error = CannotListenError("", 0, error)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        return self.refused("--listen", port, *TO)

    def test_texts(self) -> None:
        """The advice names this command's option."""
        self.assertEqual(
            self.told(errno.EADDRINUSE, "7777"),
            "UDP port 127.0.0.1:7777 is in use by holder of 127.0.0.1 7777; stop it, or choose another port with "
            "--listen (0 picks a free one)",
        )
        self.assertIn("or choose a --listen from", self.told(errno.EACCES, "53"))

    def test_no_backend(self) -> None:
        """A TWISTEDUDP_BACKEND that is none is told while options are parsed, before the port is bound."""
        self.patch(os, "environ", {**os.environ, "TWISTEDUDP_BACKEND": "fast"})
        self.assertIn("there is no backend 'fast'", self.refused("--listen", "0", *TO))
        self.assertEqual(self.asked, [])


class ServiceTests(OptionsTestCase):
    """From options to the service."""

    def setUp(self) -> None:
        """Keep the limits of this process."""
        super().setUp()
        self.limits = (1000, 20000)
        self.patch(resource, "getrlimit", lambda _: self.limits)
        self.patch(resource, "setrlimit", self.set_limit)

    def set_limit(self, _: int, limits: tuple[int, int]) -> None:
        """Stand in for the kernel."""
        self.limits = limits

    def make(self, *arguments: str) -> tuple[Any, Any]:
        """Return the two services that options describe."""
        whole: Any = impair_tap.makeService(self.parse("--listen", "0", *TO, *arguments))
        reports, relay = list(whole)
        return reports, relay

    def test_made(self) -> None:
        """The relay has the command's name and the bound socket; nothing is started."""
        _, relay = self.make("--effects", "loss=5%")
        self.assertIsInstance(relay, UDPImpairmentService)
        self.assertEqual((relay.name, relay.address, relay.running), ("udpimpair", ("127.0.0.1", 49152), 0))
        self.assertIs(relay.protocol, None)

    def test_refusing_effects(self) -> None:
        """Where ICMP errors would be the point, it is told that there will be none."""
        for text, count in (("unreachable=1%", 1), ("mtu=1280:icmp", 1), ("mtu=1280,loss=1%", 0)):
            with capturedLogs() as events:
                self.make("--effects-to-server", text)
            self.assertEqual(len(events), count)

    def test_open_files(self) -> None:
        """The limit of open files is raised as far as needed and allowed; what is missing is told."""
        with capturedLogs() as events:
            self.make("--max-sessions", "5000")
        self.assertEqual((self.limits, events), ((10064, 20000), []))
        with capturedLogs() as events:
            self.make("--max-sessions", "20000")
        self.assertEqual(self.limits, (20000, 20000))
        self.assertIn("allows 9968 clients at once, not 20000", events[0]["log_format"].format(**events[0]))
        self.limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.assertEqual(impair_tap._allow_sessions(10**6), 10**6)

    def test_signal(self) -> None:
        """SIGUSR2 asks for the statistics, from the reactor; afterwards it does what it did before."""
        before = signal.getsignal(signal.SIGUSR2)

        class Reactor(Clock):
            def callFromThread(self, what: Any) -> None:
                """Call it later."""
                self.callLater(0, what)

        class Relay:
            logged = 0

            def log_statistics(self) -> None:
                """Count."""
                self.logged += 1

        reactor, relay = Reactor(), Relay()
        reports: Any = impair_tap.RelayReports(reactor, relay, "what it does")  # type: ignore[arg-type]  # all that is needed
        with capturedLogs() as events:
            reports.startService()
        self.assertEqual([event["about"] for event in events], ["what it does"])
        signal.raise_signal(signal.SIGUSR2)
        self.assertEqual(relay.logged, 0)
        reactor.advance(0)
        self.assertEqual(relay.logged, 1)
        reports.stopService()
        self.assertIs(signal.getsignal(signal.SIGUSR2), before)


class PluginFileTests(SynchronousTestCase):
    """The file that installs into ``twisted/plugins``."""

    def test_contents(self) -> None:
        """It holds the command, by name only."""
        path = ROOT / "twisted_plugins" / "twistedudp_plugin.py"
        module: Any = types.ModuleType("plugin_file")
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))  # noqa: S102  # our own file
        self.assertEqual((module.udpimpair.tapname, module.udpimpair.options), ("udpimpair", impair_tap.Options))
        self.assertIs(module.udpimpair.makeService, impair_tap.makeService)
