"""The options of a public server: limits, networks, secrets, inherited sockets, and what ``--public`` refuses."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.test_tap import CHAT, ECHO, OptionsTestCase
from twistedudp import _activation, _public, _startup
from twistedudp._address_tokens import MIN_KEY_SIZE
from twistedudp._security_options import SecurityOptions
from twistedudp._startup import protocol_factory
from twistedudp.admission import AdmissionPolicy
from twistedudp.echo import EchoProtocol
from twistedudp.errors import PluginError
from twistedudp.methods import RPCMethods, method
from twistedudp.plugins import DatagramPlugin, InstalledPlugin, InstalledPlugins
from twistedudp.protocol import RPCServerProtocol
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.address import Address

PUBLIC = ("--public", "--interface", "192.0.2.1")

LOUD = InstalledPlugin(DatagramPlugin("loud", "loud:Loud", "Loud.", amplifies=True), "/plugins/loud.py")


class Methods(RPCMethods):
    """One method."""

    @method
    def one(self) -> int:
        """Return 1."""
        return 1


class PrivateProtocol(RPCServerProtocol):
    """One that says that it has private methods."""

    has_private_methods = True


class Says(DatagramProtocol):
    """A protocol that says of itself what the test wants."""

    def __init__(self, amplifies: bool) -> None:
        self.amplifies = amplifies


class SecurityOptionsTestCase(OptionsTestCase):
    """Options with three plugins."""

    installed: ClassVar[InstalledPlugins] = InstalledPlugins((CHAT, ECHO, LOUD))

    def service_options(self, *arguments: str) -> dict[str, Any]:
        """Return what a command line says to the service."""
        return self.parse(*arguments).service_options()


class AdmissionTests(SecurityOptionsTestCase):
    """Limits and networks."""

    def test_defaults(self) -> None:
        """Without options the service decides by itself; how long it drains is five seconds."""
        self.assertEqual(self.service_options(), {"drain_timeout": 5.0})

    def test_help(self) -> None:
        """The defaults that --help shows are those of the policy."""
        policy = AdmissionPolicy()
        shown = {row[0]: row[3] for row in SecurityOptions.optParameters}
        for option, value in (("rate", policy.rate), ("burst", policy.burst), ("total-rate", policy.total_rate)):
            self.assertIn(f"[default: {value:.0f}]", shown[option])

    def test_given(self) -> None:
        """Each arrives in the policy; networks may be repeated and separated by commas; the rest are defaults."""
        options = self.service_options(
            *("--rate", "50", "--burst", "70", "--total-rate", "1000.5", "--log-only"),
            *("--allow", "192.0.2.0/24,2001:db8::/32", "--allow", "198.51.100.7"),
            *("--deny", "192.0.2.66", "--trust", "127.0.0.0/8, 10.0.0.0/8"),
        )
        policy = AdmissionPolicy(
            rate=50,
            burst=70,
            total_rate=1000.5,
            allow=tuple(map(ip_network, ("192.0.2.0/24", "2001:db8::/32", "198.51.100.7"))),
            deny=(ip_network("192.0.2.66"),),
            trust=(ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")),
            log_only=True,
        )
        self.assertEqual(options["admission"], policy)

    def test_each_alone(self) -> None:
        """One option is enough to have a policy, also on loopback; it says nothing of the others."""
        for option, value, setting in (
            ("rate", "0", {"rate": 0}),
            ("burst", "1", {"burst": 1}),
            ("total-rate", "7", {"total_rate": 7}),
            ("deny", "::1", {"deny": (ip_network("::1"),)}),
        ):
            made: Any = AdmissionPolicy(**setting)
            self.assertEqual(self.service_options(f"--{option}={value}")["admission"], made)

    def test_wrong_numbers(self) -> None:
        """The line names the option and the value, and says what to write."""
        for option, value, expected in (
            ("rate", "many", "--rate: 'many' is not a number of datagrams"),
            ("rate", "-1", "--rate: '-1' is not a number"),
            ("rate", "1e3", "--rate: '1e3' is not a number"),
            ("rate", "99999999999", "--rate: '99999999999' is not a number"),
            ("rate", "999999999", "--rate=999999999.0: write datagrams per second from 0.001 to"),
            ("total-rate", "0.00001", "--total-rate=1e-05: write datagrams per second from"),
            ("burst", "1.5", "--burst=1.5: write a whole number from 1 to"),
            ("burst", "0", "--burst=0.0: write a whole number from 1 to"),
            ("drain-timeout", "soon", "--drain-timeout: 'soon' is not a number of seconds from 0 to 3600"),
            ("drain-timeout", "3601", "--drain-timeout: '3601' is not a number of seconds from 0 to 3600"),
            ("drain-timeout", "nan", "--drain-timeout: 'nan' is not"),
            ("drain-timeout", "\u0661", "--drain-timeout: '\u0661' is not"),
            ("fd", "three", "--fd: 'three' is not a whole number from 0 to 1048576"),
        ):
            self.assertIn(expected, self.refused(f"--{option}={value}"))
        self.assertEqual(self.asked, [])

    def test_wrong_networks(self) -> None:
        """So it does for a network; one with bits behind its prefix is told as it was probably meant."""
        for option in ("allow", "deny", "trust"):
            for value, expected in (
                ("192.0.2.1/24", "'192.0.2.1/24' is a host with the prefix of a network; write 192.0.2.0/24"),
                ("example.org", "'example.org' is no network"),
                ("", "'' is no network"),
                ("192.0.2.0/24,", "'' is no network"),
                ("192.0.2.0/33", "'192.0.2.0/33' is no network"),
            ):
                told = self.refused(f"--{option}={value}")
                self.assertTrue(told.startswith(f"--{option}: "), told)
                self.assertIn(expected, told)
        self.assertEqual(self.asked, [])

    def test_drain_timeout(self) -> None:
        """Seconds with or without decimals, and 0."""
        for value, seconds in (("0", 0.0), ("2.5", 2.5), ("3600", 3600.0)):
            self.assertEqual(self.service_options("--drain-timeout", value)["drain_timeout"], seconds)


class TokenKeyTests(SecurityOptionsTestCase):
    """The secret of several servers."""

    def key_file(self, size: int = MIN_KEY_SIZE, mode: int = 0o600) -> str:
        """Write a file that is gone after the test."""
        handle, name = tempfile.mkstemp(prefix="twistedudp-test-")
        self.addCleanup(Path(name).unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as file:
            file.write(b"k" * size)
        Path(name).chmod(mode)
        return name

    def test_read(self) -> None:
        """It is read while options are parsed, when root's rights are still there, and given to the service."""
        name = self.key_file()
        options = self.parse("--protocol", "chat", "--token-key-file", name)
        Path(name).unlink()
        self.assertEqual(options.service_options()["token_key"], b"k" * MIN_KEY_SIZE)

    def test_wrong(self) -> None:
        """A file that is no secret, or none at all."""
        for name, expected in (
            (self.key_file(mode=0o604), "open to everybody"),
            (self.key_file(size=MIN_KEY_SIZE - 1), "too short"),
            ("/no/such/file", "cannot be read (No such file or directory)"),
            ("/proc", "is no file"),
        ):
            told = self.refused("--protocol", "chat", "--token-key-file", name)
            self.assertTrue(told.startswith("--token-key-file: the token key file "), told)
            self.assertIn(expected, told)
        self.assertIn("--token-key-file: ", self.refused("--protocol", "chat", "--token-key-file", "a\0b"))
        self.assertEqual(self.asked, [])

    def test_echo(self) -> None:
        """Echo proves no address, and so do protocols that serve no methods; the latter is told when one is made."""
        self.assertIn("belongs to protocols that serve methods", self.refused("--token-key-file", self.key_file()))
        options = self.parse("--protocol", "chat", "--token-key-file", self.key_file())
        (step,) = options.preparations()
        error = self.assertRaises(PluginError, step, CHAT.plugin, EchoProtocol())
        self.assertIn("--token-key-file: the protocol 'chat' serves no methods", str(error))

    def test_shared(self) -> None:
        """Two servers that were given one key know each other's tokens; others do not."""
        given = self.parse("--protocol", "chat", "--token-key-file", self.key_file())
        budgets: list[Any] = []
        for options in (given, given, self.parse("--protocol", "chat")):
            reactor = SimulatedNetwork().reactor("192.0.2.1")
            made = partial(RPCServerProtocol, Methods())
            service = _startup.PluginService(reactor, 7000, made, "192.0.2.1", **options.service_options())
            service.startService()
            served: Any = service.protocol
            for step in options.preparations():
                step(CHAT.plugin, served)
            budgets.append(served._responder._outbox.budget)
        token = budgets[0].tokens.token_of("192.0.2.9")
        self.assertEqual(
            [budget.tokens.is_valid_untrusted(token, "192.0.2.9") for budget in budgets], [True, True, False]
        )


class InheritedTests(SecurityOptionsTestCase):
    """``--fd`` and ``LISTEN_FDS``, with sockets that only the test knows."""

    def setUp(self) -> None:
        """Replace what would look at descriptors."""
        super().setUp()
        self.environ: dict[str, str] = {}
        self.adopted: list[tuple[int, int | None]] = []
        self.asked_for: list[tuple[int, int | None, str | None]] = []
        self.patch(os, "environ", self.environ)
        self.patch(_activation, "describe_descriptor", lambda number: "" if number != 4 else "is no socket")
        self.patch(_activation, "address_of", self.address_of)
        self.patch(os, "set_inheritable", lambda *_: None)
        self.patch(_startup, "adopt", self.adopt)

    def address_of(self, descriptor: int, port: int | None, interface: str | None) -> Address:
        """Stand in for the function of that name."""
        self.asked_for.append((descriptor, port, interface))
        return "192.0.2.1", 7777

    def adopt(self, descriptor: int, *, receive_buffer: int | None) -> object:
        """Stand in for ``transport.adopt``."""
        self.adopted.append((descriptor, receive_buffer))
        return object()

    def test_fd(self) -> None:
        """It is served instead of a port, and its address is the server's; nothing is bound."""
        options = self.parse("--fd", "9", "--receive-buffer", "1000")
        self.assertEqual((options["interface"], options["port"]), ("192.0.2.1", 7777))
        self.assertEqual((self.adopted, self.asked), ([(9, 1000)], []))
        self.assertEqual(self.asked_for, [(9, None, None)])

    def test_with_an_address(self) -> None:
        """What was asked for beside it is compared with it; a wrong value is told as ever."""
        self.parse("--fd", "9", "--port", "7777", "--interface", "192.0.2.1")
        self.assertEqual(self.asked_for, [(9, 7777, "192.0.2.1")])
        self.assertIn("--port: 'x'", self.refused("--fd", "9", "--port", "x"))
        self.assertIn("--interface: 'x'", self.refused("--fd", "9", "--interface", "x"))

    def test_listen_fds(self) -> None:
        """Without --fd the environment says which; it no longer does for children, and the others are told of."""
        self.environ.update(LISTEN_FDS="4", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="a:b:udpecho:c")
        options = self.parse()
        self.assertEqual((self.adopted, self.environ, options.unserved), ([(5, None)], {}, [3, 4, 6]))
        with capturedLogs() as events:
            options.tell_of_unserved()
        (event,) = events
        self.assertIn("the descriptors 3, 4, 6 were passed as well", event["log_format"].format(**event))

    def test_fd_before_listen_fds(self) -> None:
        """--fd has the last word, also where the variables are meant for another process."""
        self.environ.update(LISTEN_FDS="1", LISTEN_PID="1")
        options = self.parse("--fd", "9")
        self.assertEqual((self.adopted, self.environ, options.unserved), ([(9, None)], {}, []))

    def test_none_passed(self) -> None:
        """Without sockets a port is bound as ever."""
        self.environ.update(LISTEN_FDS="0", LISTEN_PID=str(os.getpid()))
        self.parse()
        self.assertEqual((self.asked, self.adopted), ([(10000, "127.0.0.1", None)], []))

    def test_wrong(self) -> None:
        """What is wrong with the variables or the sockets is one line."""
        self.environ.update(LISTEN_FDS="1", LISTEN_PID="1")
        self.assertIn("LISTEN_PID is '1' and this process is", self.refused())
        self.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="a:udpecho")
        self.assertIn("none of the descriptors passed (LISTEN_FDS) is a UDP socket to serve: 4 is", self.refused())

    def test_discovery_port(self) -> None:
        """The inherited port counts where it must not be the discovery port."""
        told = self.refused("--fd", "9", "--discoverable", "x", "--discovery-port", "7777")
        self.assertIn("--port and --discovery-port are both 7777", told)


class PublicTests(SecurityOptionsTestCase):
    """What ``--public`` refuses while options are parsed."""

    def test_fine(self) -> None:
        """The defaults are safe, and so are limits that limit."""
        self.parse(*PUBLIC)
        self.parse(*PUBLIC, "--rate", "5", "--trust", "10.0.0.0/8,2001:db8::/32", "--total-rate", "0.5")

    def test_loopback(self) -> None:
        """On loopback nothing is refused."""
        for interface in ("127.0.0.1", "::1", "127.0.0.9"):
            self.parse("--public", "--interface", interface, "--rate", "0", "--log-only", "--answer-privileged-ports")
            self.parse("--public", "--interface", interface, "--protocol", "loud")

    def test_refused(self) -> None:
        """Each unsafe option has its line, which says what to change."""
        for arguments, expected in (
            (("--rate", "0"), "--public: --rate 0 lets one host send without a limit; leave it out, or"),
            (("--rate", "0.0"), "--public: --rate 0 lets"),
            (("--total-rate", "0"), "--public: --total-rate 0 lets all hosts together send without a limit; leave it"),
            (("--log-only",), "--public: --log-only refuses nothing; leave it out"),
            (("--trust", "0.0.0.0/0"), "--public: --trust 0.0.0.0/0 lets everybody send without a limit; write your"),
            (("--trust", "10.0.0.0/8,::/0"), "--public: --trust ::/0 lets everybody"),
            (("--trust", "::ffff:0.0.0.0/96"), "--public: --trust 0.0.0.0/0 lets everybody"),
            (("--trust", "0.0.0.0/1", "--trust", "128.0.0.0/1"), "--public: --trust 0.0.0.0/0 lets everybody"),
            (("--trust", "2000::/3"), "--public: --trust 2000::/3 lets everybody"),
            (("--verbose",), "--public: --verbose logs each datagram, and so lets anybody fill the disk; leave it out"),
            (("--answer-privileged-ports",), "--public: --answer-privileged-ports lets servers that echo answer"),
            (("--protocol", "loud"), "--public: the protocol 'loud' may send more than three times the bytes"),
        ):
            self.assertIn(expected, self.refused(*PUBLIC, *arguments))
            self.parse("--interface", "192.0.2.1", *arguments)  # without --public it is the operator's own decision
        self.assertEqual(len(self.asked), 12)

    def test_wrong_number(self) -> None:
        """A number that is none is told as such."""
        self.assertIn("--rate: 'x' is not a number of datagrams", self.refused(*PUBLIC, "--rate", "x"))


class ProtocolTests(SynchronousTestCase):
    """What ``--public`` refuses when the protocol is made."""

    def check(self, protocol: DatagramProtocol, *, amplifies: bool | None = None, encrypted: bool = False) -> str:
        """Return the line by which a protocol is refused, empty if it is not."""
        plugin = DatagramPlugin("p", "m:C", "d", amplifies=amplifies)
        try:
            _public.check_protocol(plugin, protocol, encrypted=encrypted)
        except PluginError as error:
            self.assertNotIn("\n", str(error))
            return str(error)
        return ""

    def test_own(self) -> None:
        """Echo and rpc are safe as they are; rpc without the proof of addresses is not, unless encrypted."""
        self.assertEqual(self.check(EchoProtocol()), "")
        self.assertEqual(self.check(RPCServerProtocol(Methods())), "")
        unproven = RPCServerProtocol(Methods(), prove_addresses=False)
        self.assertIn("may send more than three times the bytes", self.check(unproven))
        self.assertEqual(self.check(unproven, encrypted=True), "")

    def test_says_nothing(self) -> None:
        """A protocol of which nobody says anything is refused; it, or its plugin, may say that it is safe."""
        told = self.check(DatagramProtocol())
        self.assertIn("nobody says whether the protocol 'p' can be used to flood others: write amplifies = False", told)
        self.assertEqual(self.check(DatagramProtocol(), encrypted=True), "")
        self.assertEqual(self.check(DatagramProtocol(), amplifies=False), "")
        self.assertEqual(self.check(Says(amplifies=False)), "")

    def test_contradiction(self) -> None:
        """The protocol knows better than its plugin."""
        self.assertIn("may send more", self.check(Says(amplifies=True), amplifies=False))
        self.assertEqual(self.check(Says(amplifies=False), amplifies=True), "")

    def test_privileged_ports(self) -> None:
        """Echo that answers privileged ports is refused however that was set, encrypted or not."""
        for encrypted in (False, True):
            told = self.check(EchoProtocol(answer_privileged_ports=True), encrypted=encrypted)
            self.assertIn("answer_privileged_ports lets servers that echo answer one another", told)

    def test_private_methods(self) -> None:
        """Private methods want encryption."""
        private = PrivateProtocol(Methods())
        told = self.check(private)
        self.assertIn("has methods marked private=True, which must not be called in plaintext", told)
        self.assertEqual(self.check(private, encrypted=True), "")

    def test_plugin(self) -> None:
        """Only a plugin that says yes is refused before its protocol is made."""
        for amplifies in (None, False):
            _public.check_plugin(DatagramPlugin("p", "m:C", "d", amplifies=amplifies))
        self.assertRaises(PluginError, _public.check_plugin, DatagramPlugin("p", "m:C", "d", amplifies=True))
        error = self.assertRaises(PluginError, DatagramPlugin, "p", "m:C", "d", amplifies="no")
        self.assertIn("plugin 'p': amplifies must be True, False or None, not 'no'", str(error))

    def test_steps(self) -> None:
        """Each step is asked about what was made, before anything of it is served."""
        seen: list[object] = []
        steps: list[Callable[[Any, Any], None]] = [lambda plugin, made: seen.append((plugin.name, type(made)))]
        plugin = DatagramPlugin("p", "twistedudp.echo:EchoProtocol", "d")
        protocol_factory(plugin, {}, prepare=steps)()
        self.assertEqual(seen, [("p", EchoProtocol)])
