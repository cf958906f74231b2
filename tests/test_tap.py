"""``twistd udpecho``: its options, its errors, and the service that it makes; without processes and sockets."""

from __future__ import annotations

import errno
import io
import os
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import LogLevel, capturedLogs
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.discovery.world import host
from twistedudp import _startup, discover, tap
from twistedudp._startup import PluginService, explain_bind_error, protocol_factory, tell_of_broken_files
from twistedudp.discovery import _responder
from twistedudp.echo import EchoProtocol
from twistedudp.errors import LocalError, PluginError
from twistedudp.methods import RPCMethods, method
from twistedudp.plugins import BrokenPluginFile, DatagramPlugin, InstalledPlugin, InstalledPlugins
from twistedudp.protocol import RPCServerProtocol
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twistedudp.address import Address

HOST = "192.0.2.1"

ECHO = InstalledPlugin(DatagramPlugin("echo", "twistedudp.echo:EchoProtocol", "Echo."), "/plugins/own.py")
CHAT = InstalledPlugin(DatagramPlugin("chat", "chat:Room", "A room."), "/plugins/chat.py")
TWIN = InstalledPlugin(DatagramPlugin("chat", "chat2:Room", "Another room."), "/plugins/chat2.py")


class Bound:
    """A bound socket, as far as this part sees one."""

    def __init__(self, port: int, interface: str) -> None:
        self.host = self.interface = interface
        self.port = port or 49152
        self.closed = False

    def close(self) -> None:
        """Note it."""
        self.closed = True


class OptionsTestCase(SynchronousTestCase):
    """Options with plugins and a kernel that the test makes."""

    installed: ClassVar[InstalledPlugins] = InstalledPlugins((CHAT, ECHO))

    def setUp(self) -> None:
        """Replace what would look at files and open sockets."""
        self.bind_error: Exception | None = None
        self.discovery_error: Exception | None = None
        self.asked: list[tuple[int, str, int | None]] = []
        self.discovery_ports: list[Bound] = []
        self.patch(sys, "excepthook", sys.excepthook)  # a failing start replaces it
        self.patch(tap, "installed_plugins", lambda: self.installed)
        self.patch(_startup, "bind", self.bind)
        self.patch(_startup, "port_holder", lambda port, host: f"holder of {host} {port}")
        self.patch(_responder, "bind_discovery", self.bind_discovery)

    def bind(self, port: int, interface: str, *, receive_buffer: int | None) -> Bound:
        """Stand in for ``transport.bind``."""
        self.asked.append((port, interface, receive_buffer))
        if self.bind_error is not None:
            raise self.bind_error
        return Bound(port, interface)

    def bind_discovery(self, port: int) -> Bound:
        """Stand in for the function of that name."""
        if self.discovery_error is not None:
            raise self.discovery_error
        self.discovery_ports.append(Bound(port, "::"))
        return self.discovery_ports[-1]

    def parse(self, *arguments: str) -> tap.Options:
        """Parse a command line."""
        options = tap.Options()
        options.parseOptions(arguments)
        return options

    def refused(self, *arguments: str) -> str:
        """Parse a command line with an error; return the line that is printed for it, without its prefix."""
        error = self.assertRaises(SystemExit, self.parse, *arguments)
        assert isinstance(error.code, str)  # Python prints a text, and the exit status is 1
        self.assertNotIn("\n", error.code)
        self.assertTrue(error.code.startswith("twistd udpecho: "), error.code)
        return error.code.removeprefix("twistd udpecho: ")


class OptionTests(OptionsTestCase):
    """Each option, right and wrong."""

    def test_defaults(self) -> None:
        """Without options: echo on port 10000 of loopback."""
        options = self.parse()
        self.assertEqual(self.asked, [(10000, "127.0.0.1", None)])
        self.assertEqual((options.bound.host, options.bound.port), ("127.0.0.1", 10000))
        self.assertIs(options.plugin, ECHO)
        self.assertEqual(
            (options["max-datagram-size"], options["verbose"], options.protocol_options, options.installed),
            (65535, 0, {}, self.installed),
        )

    def test_given(self) -> None:
        """Each option arrives, in its own type."""
        options = self.parse(
            *("--port", "0", "--interface", "::", "--protocol", "chat", "--max-datagram-size", "1400", "--verbose"),
            *("--receive-buffer=1000000", "--protocol-option", "seats=8", "--protocol-option", "name=a=b"),
        )
        self.assertEqual(self.asked, [(0, "::", 1_000_000)])
        self.assertEqual((options["port"], options["max-datagram-size"], options["verbose"]), (0, 1400, 1))
        self.assertEqual(options.protocol_options, {"seats": "8", "name": "a=b"})
        self.assertIs(options.plugin, CHAT)

    def test_short(self) -> None:
        """The most used ones have a letter."""
        options = self.parse("-p", "7", "-i", "127.0.0.2", "-v")
        self.assertEqual((self.asked, options["verbose"]), ([(7, "127.0.0.2", None)], 1))

    def test_numbers(self) -> None:
        """A number that is none, or out of range, names the option, the value and the range."""
        for option, least, most in (
            ("port", 0, 65535),
            ("max-datagram-size", 1, 65535),
            ("receive-buffer", 1, 1073741823),
            ("discovery-port", 1, 65535),
        ):
            for value in ("", "x", "-1", "1.5", " 1", str(most + 1), "9" * 5000, "\u0661", "1\n2", str(least - 1)):
                self.assertEqual(
                    self.refused(f"--{option}={value}"),
                    f"--{option}: {value!r} is not a whole number from {least} to {most}",
                )
        self.assertEqual(self.asked, [])

    def test_interface(self) -> None:
        """A name is not an address, a group is not this machine's."""
        for value in ("localhost", "", "127.0.0.256", "::g", "*"):
            self.assertIn(f"--interface: {value!r} is not a numeric address", self.refused("--interface", value))
        for value in ("224.0.0.1", "ff02::1", "255.255.255.255"):
            self.assertIn(f"--interface: {value} is a broadcast or multicast", self.refused("--interface", value))

    def test_protocol(self) -> None:
        """An unknown protocol lists the known ones and the nearest."""
        self.assertEqual(
            self.refused("--protocol", "ecko"),
            "there is no protocol 'ecko' (did you mean 'echo'?); installed: chat, echo",
        )

    def test_protocol_option(self) -> None:
        """An option of the protocol is key=value, once per key."""
        for value in ("seats", "=8", "a b=c", "1=2"):
            self.assertEqual(
                self.refused("--protocol-option", value), f"--protocol-option: {value!r} is not of the form key=value"
            )
        self.assertEqual(
            self.refused("--protocol-option", "a=1", "--protocol-option", "a=2"),
            "--protocol-option: 'a' is given twice",
        )

    def test_answer_privileged_ports(self) -> None:
        """The flag is an option of echo, and of no other protocol."""
        options = self.parse("--answer-privileged-ports")
        self.assertEqual(options.protocol_options, {"answer_privileged_ports": "true"})
        self.assertIn(
            "--answer-privileged-ports belongs to the protocol 'echo', not to 'chat'",
            self.refused("--answer-privileged-ports", "--protocol", "chat"),
        )

    def test_unknown_option(self) -> None:
        """An option that is not there: the nearest is named; a shortened one must be clear."""
        self.assertEqual(
            self.refused("--interfaec", "x"),
            "there is no option --interfaec (did you mean '--interface'?); --help lists them all",
        )
        self.assertEqual(self.refused("-z"), "there is no option -z; --help lists them all")
        self.assertEqual(
            self.refused("--pro", "x"), "the option --pro may mean --protocol or --protocol-option; write it out"
        )
        self.assertIn("requires argument", self.refused("--port"))
        self.assertIn("must not have an argument", self.refused("--verbose=yes"))
        self.assertIn("'10000' is not an option", self.refused("10000"))

    def test_list_that_nobody_reads(self) -> None:
        """Where standard output is full or closed there is one line, or nothing, and no traceback."""
        self.patch(OptionsTestCase, "installed", InstalledPlugins((ECHO,), ()))

        class Full(io.StringIO):
            def flush(self) -> None:
                """Fail as a full disk does."""
                raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "dup2", lambda *_: None)
        self.patch(sys, "stdout", Full())
        exited = self.assertRaises(SystemExit, self.parse, "--list-protocols")
        self.assertIn("cannot be written: No space left on device", str(exited.code))
        self.patch(sys, "stdout", None)
        self.assertEqual(self.assertRaises(SystemExit, self.parse, "--list-protocols").code, 0)

    def test_list_protocols(self) -> None:
        """A table with aligned columns, then what is wrong with the rest; exit status 0."""
        broken = BrokenPluginFile("/plugins/broken.py", ZeroDivisionError("no"))
        self.patch(OptionsTestCase, "installed", InstalledPlugins((CHAT, TWIN, ECHO), (broken,)))
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        exited = self.assertRaises(SystemExit, self.parse, "--list-protocols")
        self.assertEqual(exited.code, 0)
        table, *rest = output.getvalue().split("\n\n")
        self.assertEqual(
            table.split("\n"),
            [
                "NAME  DESCRIPTION    FILE",
                "chat  A room.        /plugins/chat.py",
                "chat  Another room.  /plugins/chat2.py",
                "echo  Echo.          /plugins/own.py",
            ],
        )
        self.assertEqual(rest[0], "chat cannot be chosen: more than one plugin has that name; remove or rename one")
        self.assertIn("/plugins/broken.py could not be imported, its protocols are missing here:\n", rest[1])
        self.assertTrue(rest[1].endswith("\nZeroDivisionError: no\n"))
        self.assertEqual(self.asked, [])

    def test_help(self) -> None:
        """Every option is explained."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        self.assertRaises(SystemExit, self.parse, "--help")
        for option in (
            *("--port=", "--interface=", "--protocol=", "--list-protocols", "--protocol-option=", "--verbose"),
            *("--max-datagram-size=", "--receive-buffer=", "--answer-privileged-ports", "--discoverable="),
            *("--discovery-port=", "--timestamps"),
        ):
            self.assertIn(option, output.getvalue())

    def test_version(self) -> None:
        """Both versions that a report of a fault needs."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        self.patch(sys.modules["importlib.metadata"], "version", lambda name: f"version of {name}")
        exited = self.assertRaises(SystemExit, self.parse, "--version")
        self.assertEqual(
            (exited.code, output.getvalue()), (0, "twistedudp version of twistedudp, Twisted version of twisted\n")
        )


class DiscoverableTests(OptionsTestCase):
    """A server that is to be found."""

    def test_defaults(self) -> None:
        """Without the option nothing is bound for it; with it the port is 10032, bound before the daemon forks."""
        options = self.parse()
        self.assertEqual((options["discoverable"], options.discovery_bound, self.discovery_ports), (None, None, []))
        self.assertEqual(options["timestamps"], 0)
        options = self.parse("--discoverable", "kitchen", "--timestamps")
        self.assertEqual((options["discoverable"], options["timestamps"]), ("kitchen", 1))
        self.assertEqual([bound.port for bound in self.discovery_ports], [10032])
        self.assertIs(options.discovery_bound, self.discovery_ports[0])

    def test_port_alone(self) -> None:
        """A discovery port for a server that nobody can discover is a mistake."""
        told = self.refused("--discovery-port", "7777")
        self.assertEqual(told, "--discovery-port belongs to --discoverable NAME, which is not given")
        self.assertEqual((self.asked, self.discovery_ports), ([], []))

    def test_equal_ports(self) -> None:
        """Questions need a port of their own."""
        text = str(self.assertRaises(SystemExit, self.parse, "--discoverable", "x", "--port", "10032"))
        self.assertIn("--port and --discovery-port are both 10032", text)
        self.assertEqual(self.discovery_ports, [])

    def test_given(self) -> None:
        """Another port is bound instead."""
        self.parse("--discoverable", "kitchen", "--discovery-port", "7777")
        self.assertEqual([bound.port for bound in self.discovery_ports], [7777])

    def test_wrong(self) -> None:
        """A name that is none, and an address on which nobody could find it, are told in one line."""
        for name in ("", "x" * 65, "a\x1bb"):
            told = self.refused("--discoverable", name)
            reason = "cannot be the name of a discoverable server: 1 to 64 characters, all of them printable"
            self.assertEqual(told, f"--discoverable: {name!r} {reason}")
        self.assertIn("a server on ::1 cannot be discovered", self.refused("--discoverable", "a", "-i", "::1"))
        self.assertEqual((self.asked, self.discovery_ports), ([], []))

    def test_in_use(self) -> None:
        """A discovery port that is taken names who has it and what to do; another error is told as for any port."""
        for number, parts in (
            (
                errno.EADDRINUSE,
                ("UDP port 10032, on which", "in use by holder of :: 10032", "another --discovery-port"),
            ),
            (errno.EACCES, ("UDP port [::]:10032 needs a right", "choose a --discovery-port from")),
        ):
            error = OSError(number, os.strerror(number))
            self.discovery_error = CannotListenError("::", 10032, error)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
            told = self.refused("--discoverable", "kitchen")
            for part in parts:
                self.assertIn(part, told)

    def test_given_back(self) -> None:
        """Where the server's own port cannot be had, the discovery port is given back."""
        self.bind_error = UsageError("no")
        self.refused("--discoverable", "kitchen")
        self.assertEqual([bound.closed for bound in self.discovery_ports], [True])

    def test_service(self) -> None:
        """The service that is made can be found under that name, and its port tells arrival times."""
        network = SimulatedNetwork()
        reactor = host(network, HOST)
        self.patch(sys.modules["twisted.internet"], "reactor", reactor)
        options = self.parse("--discoverable", "kitchen", "--interface", HOST, "--timestamps")
        service: Any = tap.makeService(options)
        service.startService()
        self.assertTrue(service._listening.timestamps)
        ((peer, _),) = network.run_until(discover(host(network, "192.0.2.2")))
        self.assertEqual((peer.name, peer.protocol, peer.host, peer.port), ("kitchen", "echo", HOST, 10000))
        network.run_until(service.stopService())
        self.assertEqual(network.leftovers(), [])

    def test_start_is_light(self) -> None:
        """Who is not discoverable pays for nothing of it: the start of twistd is timed."""
        script = "import sys, twistedudp.tap, twistedudp._startup; print(*sys.modules)"
        path = str(Path(tap.__file__).parent.parent)
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        loaded = set(done.stdout.split())
        self.assertIn("twistedudp.discovery", loaded)
        self.assertEqual({name for name in loaded if name.startswith("twistedudp.discovery.")}, set())
        self.assertEqual(loaded & {"ifaddr", "msgpack", "importlib.metadata._adapters"}, set())

    def test_discovery_port_taken_later(self) -> None:
        """Where the discovery port cannot be had at a second start, it is that port that is told of."""
        network = SimulatedNetwork()
        reactor = host(network, HOST)
        service = PluginService(reactor, 10000, EchoProtocol, HOST, discoverable="kitchen")
        reactor.listenUDP(10032, DatagramProtocol())
        with capturedLogs() as events:
            error = self.assertRaises(LocalError, service.startService)
        self.assertIn("UDP port 10032, on which --discoverable hears questions, is in use", str(error))
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.critical]), 1)


class BindErrorTests(OptionsTestCase):
    """A port that cannot be had, as the options tell it."""

    def told(self, number: int, *arguments: str) -> str:
        """Return the line for an errno."""
        error = OSError(number, os.strerror(number))
        self.bind_error = CannotListenError("", 0, error)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        return self.refused(*arguments)

    def test_in_use(self) -> None:
        """The port, the address, who holds it, and what to do."""
        self.assertEqual(
            self.told(errno.EADDRINUSE, "--port", "7777"),
            "UDP port 127.0.0.1:7777 is in use by holder of 127.0.0.1 7777; stop it, or choose another port with "
            "--port (0 picks a free one)",
        )
        self.patch(_startup, "port_holder", lambda *_: None)
        self.assertIn("[::1]:10000 is in use by a process that only root", self.told(errno.EADDRINUSE, "-i", "::1"))

    def test_not_allowed(self) -> None:
        """All ways out, and the first port that needs none."""
        start = Path(self.temporary_file("80\n"))
        self.patch(_startup, "_UNPRIVILEGED_PORT_START", start)
        text = self.told(errno.EACCES, "--port", "53")
        for part in (
            "127.0.0.1:53",
            "--uid",
            "CAP_NET_BIND_SERVICE",
            "net.ipv4.ip_unprivileged_port_start",
            "from 80 on",
        ):
            self.assertIn(part, text)
        start.unlink()
        self.assertIn("from 1024 on", self.told(errno.EPERM, "--port", "53"))

    def temporary_file(self, text: str) -> str:
        """Write a file that is gone after the test."""
        import tempfile  # noqa: PLC0415  # beside its only use

        handle, name = tempfile.mkstemp(prefix="twistedudp-test-")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        self.addCleanup(Path(name).unlink, missing_ok=True)
        return name

    def test_address(self) -> None:
        """Addresses that are not this machine's, or of a kind it does not have."""
        self.assertIn("192.0.2.9 is not an address of this machine", self.told(errno.EADDRNOTAVAIL, "-i", "192.0.2.9"))
        self.assertIn("this machine has no IPv6", self.told(errno.EAFNOSUPPORT, "-i", "::1"))
        self.assertIn("fe80::1%eth0", self.told(errno.EINVAL, "-i", "fe80::1"))

    def test_no_such_network_interface(self) -> None:
        """A scope that names nothing."""
        self.bind_error = InvalidAddressError("fe80::1%x", "there is no network interface 'x'")  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self.assertEqual(self.refused("-i", "fe80::1%x"), "--interface: 'fe80::1%x': there is no network interface 'x'")

    def test_other(self) -> None:
        """Anything else is told in the kernel's words, or the exception's."""
        self.assertIn("127.0.0.1:10000 cannot be bound: OSError: [Errno 24] Too many", self.told(errno.EMFILE))
        self.assertIn("cannot be bound: OverflowError: big", explain_bind_error(OverflowError("big"), 1, HOST))
        self.assertIn("cannot be bound", explain_bind_error(OSError(errno.EINVAL, "Invalid"), 1, HOST))
        self.assertIn("cannot be bound", explain_bind_error(socket.gaierror("odd"), 1, HOST))

    def test_no_backend(self) -> None:
        """A TWISTEDUDP_BACKEND that is none is told while options are parsed, before the port is bound."""
        self.patch(os, "environ", {**os.environ, "TWISTEDUDP_BACKEND": "fast"})
        self.assertIn("there is no backend 'fast'", self.refused())
        self.assertEqual(self.asked, [])

    def test_order(self) -> None:
        """The port is bound last: nothing else can go wrong any more, so nothing has to be undone."""
        self.bind_error = UsageError("bound")
        self.assertIn("no protocol 'x'", self.refused("--protocol", "x"))
        self.assertEqual(self.asked, [])


class Loud(EchoProtocol):
    """An echo that does something of its own for each datagram."""

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer louder."""
        super().datagramReceived(datagram.upper(), addr)


class Room(DatagramProtocol):
    """A protocol with an option."""

    def __init__(self, seats: int = 4) -> None:
        self.seats = seats
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Note a datagram."""
        self.received.append(datagram)

    def peer_unreachable(self) -> str:
        """Stand for any other method."""
        return "there"


class BadStart(DatagramProtocol):
    """Fails when it is started."""

    def startProtocol(self) -> None:
        """Fail."""
        raise KeyError("start")


class Exits(DatagramProtocol):
    """Ends the process when it is started."""

    def startProtocol(self) -> None:
        """Exit."""
        raise SystemExit(4)


class Methods(RPCMethods):
    """One method."""

    @method
    def one(self) -> int:
        """Return 1."""
        return 1


class BadMethods(RPCMethods):
    """A method that cannot be served: a name of a built-in one."""

    @method(name="echo")
    def mine(self) -> int:
        """Return 1."""
        return 1


class Neither:
    """Not to be served."""

    def __init__(self) -> None:
        raise AssertionError("constructed")


def make_methods() -> RPCMethods:
    """Stand for a factory."""
    return Methods()


def make_nothing() -> None:
    """Stand for a factory of the wrong kind."""


class TargetTests(SynchronousTestCase):
    """From a plugin to a protocol."""

    def factory(self, name: str, **options: str) -> Callable[[], Any]:
        """Return the factory for a class of this module."""
        return protocol_factory(DatagramPlugin("p", f"{__name__}:{name}", "d"), options)

    def test_made(self) -> None:
        """A protocol's class, a class of methods, and a function that returns one of them."""
        room = self.factory("Room", seats="9")()
        self.assertIsInstance(room, Room)
        self.assertEqual(room.seats, 9)
        for name in ("Methods", "make_methods"):
            self.assertIsInstance(self.factory(name)(), RPCServerProtocol)

    def test_nothing_happens_before(self) -> None:
        """The target is looked for when the factory is called, not when it is made."""
        make = protocol_factory(DatagramPlugin("p", "no_such_module:X", "d"), {})
        self.assertRaises(PluginError, make)

    def test_refused(self) -> None:
        """What cannot be served names the plugin and the target; a wrong class is not even constructed."""
        for name, expected in (
            ("Neither", "Neither is neither a DatagramProtocol nor an RPCMethods"),
            ("make_nothing", "make_nothing is neither a DatagramProtocol nor an RPCMethods"),
            ("BadMethods", "echo"),
        ):
            error = self.assertRaises(PluginError, self.factory(name))
            self.assertIn("protocol 'p': ", str(error))
            self.assertIn(expected, str(error))
            self.assertEqual((error.name, error.__cause__), ("p", None))

    def test_verbose(self) -> None:
        """Each datagram is logged with sender and size, never its content, and reaches the protocol."""
        room: Any = protocol_factory(DatagramPlugin("p", f"{__name__}:Room", "d"), {}, verbose=True)()
        with capturedLogs() as events:
            room.datagramReceived(b"secret", ("192.0.2.2", 5000))
            room.datagramReceived(b"", ("2001:db8::2", 5000))
        self.assertEqual(
            [event["log_format"].format(**event) for event in events],
            ["p: 6 bytes from 192.0.2.2:5000", "p: 0 bytes from [2001:db8::2]:5000"],
        )
        self.assertNotIn("secret", repr(events))
        self.assertEqual((room.received, room.peer_unreachable()), ([b"secret", b""], "there"))

    def test_verbose_batches(self) -> None:
        """Protocols that take batches are logged as well, each datagram once, whichever of their methods is called."""
        for target in ("twistedudp.echo:EchoProtocol", f"{__name__}:Loud"):
            network = SimulatedNetwork()
            echo: Any = protocol_factory(DatagramPlugin("p", target, "d"), {}, verbose=True)()
            echo.makeConnection(network.reactor(HOST).listenUDP(7000, DatagramProtocol(), HOST))
            with capturedLogs() as events:
                echo.datagrams_received([(b"one", ("192.0.2.2", 5000)), (b"two", ("192.0.2.3", 5000))])
                echo.datagramReceived(b"three", ("192.0.2.4", 5000))
            self.assertEqual(
                [event["log_format"].format(**event) for event in events if "peer" in event],
                ["p: 3 bytes from 192.0.2.2:5000", "p: 3 bytes from 192.0.2.3:5000", "p: 5 bytes from 192.0.2.4:5000"],
            )
            self.assertEqual(3, echo.stats.echoed)


class PluginServiceTests(SynchronousTestCase):
    """The service under ``twistd``."""

    def setUp(self) -> None:
        """Make a host, and remember the hook that is to be restored."""
        self.reactor = SimulatedNetwork().reactor(HOST)
        self.standard_error = io.StringIO()
        self.patch(sys, "__stderr__", self.standard_error)
        self.passed_on: list[BaseException] = []
        self.patch(sys, "excepthook", lambda _kind, value, _frames: self.passed_on.append(value))

    def start(self, target: str, error: type[Exception]) -> tuple[Any, list[str]]:
        """Start a service that fails; return its exception and what was logged as critical."""
        factory = protocol_factory(DatagramPlugin("p", f"{__name__}:{target}", "d"), {})
        service: Any = PluginService(self.reactor, 10007, factory, HOST)
        service.setName("p")
        with capturedLogs() as events:
            raised = self.assertRaises(error, service.startService)
        self.assertEqual(service.running, 0)
        return raised, [event["text"] for event in events if event["log_level"] is LogLevel.critical]

    def printed(self, error: BaseException) -> str:
        """Return what Python prints for an exception that nobody handled."""
        sys.excepthook(type(error), error, error.__traceback__)
        return self.standard_error.getvalue()

    def test_foreseeable(self) -> None:
        """What is wrong with the plugin is one line in the log and one on standard error."""
        error, logged = self.start("Absent", PluginError)
        self.assertEqual(logged, [str(error)])
        self.assertEqual(self.printed(error), f"twistd udpecho: {error}\n")
        self.assertEqual(self.passed_on, [])

    def test_code_of_the_plugin(self) -> None:
        """An exception of the plugin's code is in the log with its own traceback, and still one line elsewhere."""
        for target, kind in (("BadStart", "KeyError: 'start'"), ("Exits", "SystemExit: 4")):
            self.standard_error.truncate(0)
            self.standard_error.seek(0)
            error, logged = self.start(target, PluginError)
            self.assertEqual(str(error), f"protocol 'p' failed when it was started: {kind}")
            self.assertEqual(len(logged), 1)
            text = logged[0]
            self.assertTrue(text.startswith(f"{error}\nTraceback (most recent call last):\n"))
            self.assertEqual(text.count("  File "), 1)
            self.assertIn("in startProtocol", text)
            self.assertEqual(self.printed(error), f"twistd udpecho: {error}\n")

    def test_port_taken_at_a_second_start(self) -> None:
        """A port that cannot be bound anew is explained in the same words."""
        self.reactor.listenUDP(10007, Room(), HOST)
        error, logged = self.start("Room", LocalError)
        self.assertIn(f"{HOST}:10007 is in use", str(error))
        self.assertIn(str(error), logged[0])

    def test_other_exceptions(self) -> None:
        """The hook shortens this one exception; any other goes the way it went before."""
        error, _ = self.start("Absent", PluginError)
        other = PluginError("p", str(error))
        self.assertEqual(self.printed(other), "")
        self.assertEqual(self.passed_on, [other])

    def test_no_standard_error(self) -> None:
        """A process without standard error prints nothing, and the hook does not fail."""
        error, _ = self.start("Absent", PluginError)
        self.patch(sys, "__stderr__", None)
        self.assertEqual(self.printed(error), "")


class MakeServiceTests(OptionsTestCase):
    """From options to the service."""

    def test_made(self) -> None:
        """The service has the plugin's name and the bound socket; the target is not imported yet."""
        service: Any = tap.makeService(self.parse("--protocol", "chat", "--port", "0"))
        self.assertIsInstance(service, PluginService)
        self.assertEqual((service.name, service.address), ("chat", ("127.0.0.1", 49152)))
        self.assertNotIn("chat", sys.modules)
        error = self.assertRaises(PluginError, service.startService)
        self.assertIn("there is no module 'chat'", str(error))

    def test_hook_restored(self) -> None:
        """Making a service changes nothing in the process."""
        before = sys.excepthook
        tap.makeService(self.parse())
        self.assertIs(sys.excepthook, before)

    def test_broken_files(self) -> None:
        """Files that could not be imported are in the log, by name and with their own traceback, and not critical."""
        broken = BrokenPluginFile("/plugins/broken.py", ZeroDivisionError("no"))
        with capturedLogs() as events:
            tell_of_broken_files([broken])
        texts: Sequence[str] = [event["log_format"].format(**event) for event in events]
        self.assertEqual(len(texts), 1)
        self.assertTrue(texts[0].startswith("the plugin file /plugins/broken.py could not be imported"))
        self.assertTrue(texts[0].endswith("ZeroDivisionError: no"))
        self.assertIs(events[0]["log_level"], LogLevel.error)


class PluginFileTests(SynchronousTestCase):
    """The file that installs into ``twisted/plugins``."""

    def test_contents(self) -> None:
        """It holds the command and the two protocols, by name only."""
        path = Path(__file__).parent.parent / "twisted_plugins" / "twistedudp_plugin.py"
        module: Any = types.ModuleType("plugin_file")
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))  # noqa: S102  # our own file
        self.assertEqual((module.udpecho.tapname, module.udpecho.options), ("udpecho", tap.Options))
        self.assertIs(module.udpecho.makeService, tap.makeService)
        for plugin, name in ((module.echo, "echo"), (module.rpc, "rpc")):
            self.assertEqual(plugin.name, name)
        self.assertIsInstance(protocol_factory(module.echo, {"answer_privileged_ports": "true"})(), DatagramProtocol)
        rpc = protocol_factory(module.rpc, {"class": f"{__name__}:Methods", "max_request_size": "100"})
        self.assertIsInstance(rpc(), RPCServerProtocol)
        error = self.assertRaises(PluginError, protocol_factory(module.rpc, {}))
        self.assertIn("cannot do without the option 'class'", str(error))
