"""Askers and servers on the simulated network: who finds whom, and what is left behind."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.discovery.world import ASKER, BROADCAST, a_question, an_answer, host, served
from twistedudp import AdmissionPolicy, discover, transport
from twistedudp.discovery import DISCOVERY_PORT, GROUP_IPV4, GROUP_IPV6
from twistedudp.discovery._discover import Discovery, paths
from twistedudp.discovery._interfaces import interfaces_of
from twistedudp.discovery._questions import Asking, attempts
from twistedudp.discovery._responder import RESCAN_INTERVAL, bind_discovery
from twistedudp.discovery._wire import encode_answer, encode_question
from twistedudp.echo import EchoProtocol
from twistedudp.errors import LocalError, MethodError
from twistedudp.impairment import Loss
from twistedudp.methods import RPCMethods, current_peer, method
from twistedudp.protocol import RPCServerProtocol
from twistedudp.server import UDPServerService
from twistedudp.testing import SimulatedNetwork

HOST = "192.0.2.1"
HOST6 = "2001:db8::1"
ANY = "0.0.0.0"  # noqa: S104  # on a simulated host


class Status(RPCMethods):
    """Methods to ask all for."""

    def __init__(self) -> None:
        self.runs = 0
        self.waiting: Deferred[str] = Deferred()

    @method
    def status(self, add: int = 0) -> int:
        """Count."""
        self.runs += 1
        return self.runs + add

    @method
    def asker(self) -> str:
        """Return who asks."""
        return current_peer().host

    @method
    def fails(self) -> None:
        """Fail."""
        raise MethodError("no", "not today")

    @method
    def slow(self) -> Deferred[str]:
        """Wait."""
        return self.waiting


class Heard(DatagramProtocol):
    """Keeps what comes."""

    noisy = False

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Keep a datagram."""
        self.received.append(datagram)


class SimulatedCase(SynchronousTestCase):
    """An asker, and servers as the test makes them."""

    def setUp(self) -> None:
        """Make the network and the asker."""
        self.network = SimulatedNetwork()
        self.asker = host(self.network, ASKER, "2001:db8::200")

    def find(self, **options: Any) -> Any:
        """Ask, and return what was found."""
        return self.network.run_until(discover(self.asker, **options))

    def names(self, **options: Any) -> list[str]:
        """Ask, and return who was found."""
        return [answer.peer.name for answer in self.find(**options)]

    def stop(self, *services: Any) -> None:
        """Stop services, and see that nothing is left."""
        for service in services:
            self.network.run_until(service.stopService())
        self.assertEqual(self.network.leftovers(), [])


class DiscoverTests(SimulatedCase):
    """What is found."""

    def test_one(self) -> None:
        """A server is found with its address, name, protocol and version; it answers once; nothing is left."""
        service = served(host(self.network, HOST), "kitchen")
        ((peer, result),) = self.find(wait=3)
        self.assertEqual((peer.host, peer.port), (HOST, service.address[1]))
        self.assertEqual((peer.name, peer.protocol, peer.interface, result), ("kitchen", "echo", "net0", None))
        self.assertTrue(0.0019 < peer.rtt < 0.0021, peer.rtt)  # 1 ms each way
        self.assertEqual(service.discovery_stats.answers, 1)
        self.assertEqual(service.discovery_stats.questions, 1)
        self.assertEqual(self.network.clock.seconds(), 3)
        self.stop(service)

    def test_nobody(self) -> None:
        """Where nobody is the list is empty, after the same time."""
        self.assertEqual(self.find(wait=1.5, rounds=2), [])
        self.assertEqual(self.network.clock.seconds(), 1.5)
        self.assertEqual(self.network.leftovers(), [])

    def test_not_discoverable(self) -> None:
        """A server that was not made discoverable has one port, joins nothing and is not found."""
        reactor = host(self.network, HOST)
        service = served(reactor, "kitchen")
        quiet = served(host(self.network, "192.0.2.2"), None)  # type: ignore[arg-type]  # not discoverable
        self.assertEqual(self.names(), ["kitchen"])
        self.assertEqual(len(quiet._reactor.ports), 1)
        self.assertEqual(len(reactor.ports), 2)
        self.assertIsNone(quiet.discovery_stats)
        self.stop(service, quiet)

    def test_families(self) -> None:
        """Over each family those are found that have it; a server of both is there once."""
        services = [
            served(host(self.network, f"192.0.2.{number}", f"2001:db8::{number}"), name, interface=interface)
            for number, (name, interface) in enumerate((("both", "::"), ("ipv4", ANY), ("ipv6", "2001:db8::3")), 1)
        ]
        self.assertEqual(self.names(), ["both", "ipv4", "ipv6"])
        self.assertEqual(self.names(ipv6=False), ["both", "ipv4"])
        self.assertEqual(
            [(peer.name, peer.host) for peer, _ in self.find(ipv4=False)],
            [("both", "2001:db8::1"), ("ipv6", "2001:db8::3")],
        )
        self.assertEqual([service.discovery_stats.answers for service in services], [3, 2, 2])
        self.stop(*services)

    def test_loopback(self) -> None:
        """A server on loopback is found from its own host only, and asked on loopback only."""
        service = served(self.asker, "mine", interface="127.0.0.1")
        other = host(self.network, HOST)
        self.assertEqual(self.network.run_until(discover(other)), [])
        self.assertEqual([(peer.host, peer.interface) for peer, _ in self.find()], [("127.0.0.1", "lo")])
        self.assertEqual(self.names(interfaces=["lo"], wait=1), ["mine"])
        self.assertEqual(self.names(interfaces=["net0"], wait=1), [])
        self.stop(service)

    def test_port(self) -> None:
        """Another discovery port must be named by both."""
        service = served(host(self.network, HOST), "kitchen", discovery_port=7777)
        self.assertEqual((self.names(), self.names(port=7777)), ([], ["kitchen"]))
        self.stop(service)

    def test_on_answer(self) -> None:
        """Each server is told of as it answers, before the end."""
        service = served(host(self.network, HOST), "kitchen")
        told: list[Any] = []
        answers = self.find(on_answer=lambda answer: told.append((self.network.clock.seconds(), answer)))
        self.assertEqual([answer for _, answer in told], answers)
        self.assertLess(told[0][0], 0.86)
        self.stop(service)

    def test_on_answer_fails(self) -> None:
        """What on_answer raises ends the discovery, and is what it fails with."""
        service = served(host(self.network, HOST), "kitchen")

        def fail(_: object) -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.find, on_answer=fail)
        self.stop(service)

    def test_cancelled(self) -> None:
        """A discovery that is cancelled leaves nothing behind, at whatever time."""
        for after in (0.0, 0.5, 1.9):
            found = discover(self.asker)
            self.network.advance(after)
            found.cancel()
            self.failureResultOf(found, CancelledError)
            self.assertEqual(self.network.leftovers(), [])

    def test_wrong_arguments(self) -> None:
        """What is wrong with the arguments is told by the Deferred, and nothing was sent."""
        for options, error in (
            ({"rounds": 0}, ValueError),
            ({"wait": 100}, ValueError),
            ({"method": ""}, LocalError),
            ({"method": "m", "params": [b"x" * 1200]}, LocalError),
            ({"interfaces": ["eth9"]}, LocalError),
            ({"ipv4": False, "interfaces": ["lo"]}, LocalError),
            ({"ipv4": False, "ipv6": False}, LocalError),
            ({"port": 70000}, ValueError),
            ({"port": 0}, ValueError),
            ({"port": "10032"}, ValueError),
            ({"interfaces": "lo"}, TypeError),
            ({"method": "m", "params": "abc"}, TypeError),
        ):
            arguments: Any = options
            self.failureResultOf(discover(self.asker, **arguments), error)
        self.assertEqual((self.network.leftovers(), len(self.network.trace)), ([], 0))

    def test_ports_of_others(self) -> None:
        """A reactor whose ports cannot tell groups, or cannot be asked for any, is refused on both sides."""

        class Port:
            def stopListening(self) -> None:
                """Do nothing."""

            def getHost(self) -> Any:
                """Return an address."""
                return type("Address", (), {"host": HOST, "port": 1})()

        self.patch(transport, "listen", lambda *_, **__: Port())
        self.failureResultOf(discover(self.asker), LocalError)
        self.assertRaises(LocalError, served, self.asker, "kitchen")

        def refuse(*_: Any, **__: Any) -> None:
            raise CannotListenError("", 0, OSError(24, "Too many open files"))  # type: ignore[no-untyped-call]  # Twisted has no annotation here

        self.patch(transport, "listen", refuse)
        error = self.failureResultOf(discover(self.asker), LocalError).value
        self.assertIn("Too many open files; name fewer interfaces", str(error))
        self.assertEqual(self.network.leftovers(), [])


class MethodTests(SimulatedCase):
    """Asking all for more than who they are."""

    def test_results(self) -> None:
        """Each result comes with who gave it; each method ran once; those without the method are not there."""
        methods = [Status(), Status()]
        services = [
            *(
                served(host(self.network, f"192.0.2.{number}"), f"n{number}", made)
                for number, made in enumerate(methods, 1)
            ),
            served(host(self.network, "192.0.2.9"), "echo"),
        ]
        answers = self.find(method="status", params=[10])
        self.assertEqual(
            [(peer.name, peer.protocol, result) for peer, result in answers], [("n1", "rpc", 11), ("n2", "rpc", 11)]
        )
        self.assertEqual([made.runs for made in methods], [1, 1])
        self.assertEqual(services[2].discovery_stats.unanswered, {"method_failed": 1})
        self.assertEqual([result for _, result in self.find(method="asker")], [ASKER, ASKER])
        self.stop(*services)

    def test_no_errors(self) -> None:
        """A method that fails, is unknown, or is given wrong parameters sends nothing at all."""
        service = served(host(self.network, HOST), "kitchen", Status())
        for name, params in (("fails", []), ("unknown", []), ("status", ["x"])):
            self.assertEqual(self.find(method=name, params=params), [])
        self.assertEqual(service.discovery_stats.unanswered, {"method_failed": 3})
        self.assertEqual(service.discovery_stats.answers, 0)
        self.assertEqual([row for row in self.network.trace if row.source[0] == HOST], [])
        self.stop(service)

    def test_slow(self) -> None:
        """A method may take its time, as long as its answer comes before the end."""
        methods = Status()
        service = served(host(self.network, HOST), "kitchen", methods)
        found = discover(self.asker, method="slow")
        self.network.advance(1.5)
        methods.waiting.callback("at last")
        self.assertEqual([result for _, result in self.network.run_until(found)], ["at last"])
        self.stop(service)

    def test_stopped_meanwhile(self) -> None:
        """A server that stops while a method runs leaves nothing behind."""
        methods = Status()
        service = served(host(self.network, HOST), "kitchen", methods)
        found = discover(self.asker, method="slow")
        self.network.advance(0.5)
        self.network.run_until(service.stopService())
        methods.waiting.callback("too late")
        self.assertEqual(self.network.run_until(found), [])
        self.assertEqual(self.network.leftovers(), [])


class ManyTests(SimulatedCase):
    """A hundred servers, and a network that loses."""

    def test_hundred_with_loss(self) -> None:
        """With 30 % loss each way all are found in three rounds, for each of some seeds, and not in a burst."""
        for seed in range(3):
            self.network = SimulatedNetwork(seed, effects=lambda: [Loss(0.3)])
            self.asker = host(self.network, ASKER, "2001:db8::200")
            services = [
                served(host(self.network, f"192.0.2.{number}", f"2001:db8::{number}"), f"{number:03}", interface="::")
                for number in range(1, 101)
            ]
            times: list[float] = []
            self.assertEqual(
                self.names(on_answer=lambda _, times=times: times.append(self.network.clock.seconds())),
                [f"{number:03}" for number in range(1, 101)],
            )
            self.assertLessEqual(max(sum(each <= other < each + 0.01 for other in times) for each in times), 10)
            self.assertLess(sum(service.discovery_stats.answers for service in services), 300)
            self.stop(*services)

    def test_hundred_without_loss(self) -> None:
        """Without loss nobody answers twice."""
        services = [served(host(self.network, f"192.0.2.{number}"), f"{number:03}") for number in range(1, 101)]
        self.assertEqual(len(self.names()), 100)
        self.assertEqual({service.discovery_stats.answers for service in services}, {1})
        self.stop(*services)


class ResponderTests(SimulatedCase):
    """The server's side."""

    def ask(self, *, to: tuple[str, int] = (BROADCAST, DISCOVERY_PORT), source: int = 0, **fields: Any) -> Heard:
        """Send a question, and return what hears its answers."""
        heard = Heard()
        port = self.asker.listenUDP(source, heard)
        port.setBroadcastAllowed(True)
        port.write(encode_question(a_question(**fields)), to)
        self.network.advance(2)
        port.stopListening()
        return heard

    def test_only_groups(self) -> None:
        """What is sent to a host alone is not answered; to its group and by broadcast it is."""
        service = served(host(self.network, HOST), "kitchen")
        for number, (to, answered) in enumerate(((HOST, 0), (BROADCAST, 1), (GROUP_IPV4, 1))):
            heard = self.ask(to=(to, DISCOVERY_PORT), id=b"%08d" % number)
            self.assertEqual(len(heard.received), answered, to)
        self.assertEqual(service.discovery_stats.refused, {"not_to_group": 1})
        self.stop(service)

    def test_questions_from_service_ports(self) -> None:
        """A port of the same number as the service's is refused, but not where both may have it by chance."""
        for port, answered in ((10000, 0), (40000, 1)):
            service = UDPServerService(host(self.network, HOST), port, EchoProtocol, HOST, discoverable="kitchen")
            service.startService()
            self.assertEqual(len(self.ask(source=port, to=(GROUP_IPV4, DISCOVERY_PORT)).received), answered)
            self.stop(service)
            self.setUp()

    def test_busy(self) -> None:
        """A method that finds no room is run when the question comes again."""
        methods = Status()
        service = served(host(self.network, HOST), "kitchen", lambda: RPCServerProtocol(methods, max_running=1))
        waits = service.protocol.run_method("slow", [], (ASKER, 1))
        found = discover(self.asker, method="slow")
        self.network.advance(0.5)
        methods.waiting.callback("at last")
        self.successResultOf(waits)
        self.assertEqual([result for _, result in self.network.run_until(found)], ["at last"])
        self.assertEqual(service.discovery_stats.unanswered, {"busy": 4})
        self.stop(service)

    def test_service_port(self) -> None:
        """The service's own port is deaf to questions, and to anything that is sent to all."""
        service = served(host(self.network, HOST), "kitchen")
        for to in (BROADCAST, GROUP_IPV4):
            self.assertEqual(self.ask(to=(to, service.address[1])).received, [])
        self.stop(service)

    def test_admission(self) -> None:
        """The discovery port has limits wherever the service is bound, for it is bound to all addresses; or as told."""
        cases: tuple[tuple[str, dict[str, Any], AdmissionPolicy | None], ...] = (
            (ANY, {}, AdmissionPolicy()),
            ("127.0.0.1", {}, AdmissionPolicy()),
            ("127.0.0.1", {"admission": None}, None),
            (ANY, {"admission": AdmissionPolicy(rate=5.0)}, AdmissionPolicy(rate=5.0)),
        )
        for number, (interface, options, expected) in enumerate(cases):
            service = served(host(self.network, f"192.0.2.{100 + number}"), "limited", interface=interface, **options)
            admission = service._discovery.responder.transport.admission
            self.assertEqual(admission and admission.policy, expected)
            self.stop(service)

    def test_joined(self) -> None:
        """Groups are joined on each interface, of the families that the service has; a new interface is found soon."""
        reactor = host(self.network, HOST, HOST6)
        usual = reactor.network_interfaces()
        reactor.network_interfaces = lambda: usual[:1]
        service = served(reactor, "kitchen", interface="::")
        responder = service._discovery.responder
        self.assertEqual(responder.joined, {(GROUP_IPV4, "lo", 1), (GROUP_IPV6, "lo", 1)})
        self.assertEqual(self.names(ipv4=False), [])
        reactor.network_interfaces = lambda: usual
        self.network.advance(RESCAN_INTERVAL)
        self.assertEqual(len(responder.joined), 4)
        self.assertEqual(self.names(ipv4=False), ["kitchen"])
        for change in (usual[:1], usual):  # it goes, and comes again
            reactor.network_interfaces = lambda change=change: change
            self.network.advance(RESCAN_INTERVAL)
            self.assertEqual(len(responder.joined), 2 * len(change))
        self.assertEqual(responder.not_joined, {})
        anew = [(name, number + 7, *rest) for name, number, *rest in usual]
        reactor.network_interfaces = lambda: anew  # as when one is taken away and made again at once
        self.network.advance(RESCAN_INTERVAL)
        self.assertEqual({number for _, _, number in responder.joined}, {8, 9})
        self.assertEqual(len(responder._where), 4)
        self.stop(service)

    def test_addresses_that_cannot_be_found(self) -> None:
        """A server that no question reaches is refused, however its address is spelled; so is a port that is none."""
        for interface in ("::1", "0::1", "239.1.1.1", "255.255.255.255", "ff02::1"):
            self.assertRaises(LocalError, UDPServerService, self.asker, 0, EchoProtocol, interface, discoverable="x")
        for interface in ("", "0.0.0.0", "::", "127.0.0.1"):  # noqa: S104  # simulated
            UDPServerService(self.asker, 0, EchoProtocol, interface, discoverable="x")
        for port in (0, 65536, "10032"):
            with self.assertRaises(LocalError):
                UDPServerService(self.asker, 0, EchoProtocol, discoverable="x", discovery_port=port)  # type: ignore[arg-type]  # one is wrong

    def test_not_joined(self) -> None:
        """Where a group cannot be joined it is told once, tried again, and broadcasts still come."""
        reactor = host(self.network, HOST)
        usual = reactor.network_interfaces()
        reactor.network_interfaces = lambda: [*usual, ("gone0", 7, (("198.51.100.1", 24),), ())]
        with capturedLogs() as events:
            service = served(reactor, "kitchen")
            self.network.advance(3 * RESCAN_INTERVAL)
        told = [event for event in events if event["log_level"].name == "warn"]
        self.assertEqual([(event["interface"], event["reason"]) for event in told], [("gone0", "ENODEV")])
        self.assertEqual(service._discovery.responder.not_joined, {"ENODEV": 4})
        self.assertEqual(self.names(), ["kitchen"])
        self.stop(service)

    def test_interfaces_unknown(self) -> None:
        """Where the system does not tell, the server goes on, and looks again."""
        reactor = host(self.network, HOST)
        usual = reactor.network_interfaces()

        def fail() -> None:
            raise OSError(24, "Too many open files")

        reactor.network_interfaces = fail
        service = served(reactor, "kitchen")
        self.assertEqual(self.names(wait=1), [])
        reactor.network_interfaces = lambda: usual
        self.network.advance(RESCAN_INTERVAL)
        self.assertEqual(self.names(wait=1), ["kitchen"])
        self.stop(service)

    def test_discovery_port_taken(self) -> None:
        """Where the discovery port is taken the server does not start, and its own port is free again."""
        reactor = host(self.network, HOST)
        other = reactor.listenUDP(DISCOVERY_PORT, Heard())
        self.assertRaises(CannotListenError, served, reactor, "kitchen")
        other.stopListening()
        self.assertEqual(self.network.leftovers(), [])

    def test_started_again(self) -> None:
        """A server that is stopped is not found, and found again when it is started again."""
        service = served(host(self.network, HOST), "kitchen")
        self.network.run_until(service.stopService())
        self.assertEqual(self.names(wait=1), [])
        service.startService()
        self.assertEqual(self.names(wait=1), ["kitchen"])
        self.stop(service)

    def test_stopped_before_it_answered(self) -> None:
        """A server that stops while it owes answers sends none of them, and leaves nothing behind."""
        service = served(host(self.network, HOST), "kitchen")
        found = discover(self.asker, wait=20, rounds=1)
        self.network.advance(0.01)
        self.assertEqual((service.discovery_stats.questions, service.discovery_stats.answers), (1, 0))
        self.network.run_until(service.stopService())
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.assertEqual(self.network.leftovers(), [])
        self.assertEqual(service.discovery_stats.answers, 0)

    def test_asker_that_is_gone(self) -> None:
        """An answer that cannot be sent is counted, and nothing else."""
        service = served(host(self.network, HOST), "kitchen")

        def refuse(*_: object) -> None:
            raise OSError(22, "Invalid argument")

        service._listening.write = refuse
        self.assertEqual(self.names(wait=1, rounds=1), [])
        self.assertEqual(service.discovery_stats.dropped, {"send_failed": 1})
        self.stop(service)

    def test_names(self) -> None:
        """A server's name must be one, and its address one that can be found."""
        for name in ("", "x" * 65, "a\x1bb", "a\nb"):
            self.assertRaises(LocalError, served, self.asker, name)
        error = self.assertRaises(LocalError, served, self.asker, "kitchen", EchoProtocol, "::1")
        self.assertIn("on 127.0.0.1, or on :: for all", str(error))


class WithoutIPv6Tests(SimulatedCase):
    """A system that has no IPv6."""

    def test_bound(self) -> None:
        """The discovery port is then one of IPv4; any other error is told."""
        asked: list[tuple[str, bool]] = []
        number = errno.EAFNOSUPPORT

        def bind(port: int, interface: str, *, reuse_port: bool) -> str:
            asked.append((interface, reuse_port))
            if interface == "::":
                raise CannotListenError(interface, port, OSError(number, "no"))  # type: ignore[no-untyped-call]  # Twisted has no annotation here
            return "bound"

        self.patch(transport, "bind", bind)
        self.assertEqual(bind_discovery(7777), "bound")
        self.assertEqual(asked, [("::", True), ("", True)])
        number = errno.EADDRINUSE
        self.assertRaises(CannotListenError, bind_discovery, 7777)
        self.assertEqual(len(asked), 3)

    def test_asked(self) -> None:
        """Ports that ask are then those of IPv4, where that is all that is asked over."""
        service = served(host(self.network, HOST), "kitchen")
        usual: Any = transport.listen

        def listen(reactor: Any, port: int, protocol: Any, interface: str, *rest: Any, **options: Any) -> Any:
            if interface == "::":
                raise CannotListenError("::", port, OSError(errno.EAFNOSUPPORT, "no"))  # type: ignore[no-untyped-call]  # Twisted has no annotation here
            return usual(reactor, port, protocol, interface, *rest, **options)

        self.patch(transport, "listen", listen)
        self.assertEqual(self.names(ipv6=False, wait=1), ["kitchen"])
        told = str(self.failureResultOf(discover(self.asker), LocalError).value)
        self.assertNotIn("ulimit", told)
        self.stop(service)


class AskerTests(SimulatedCase):
    """The asker's side."""

    def test_forgers(self) -> None:
        """What others send to the asker is dropped and counted, and does no harm."""
        service = served(host(self.network, HOST), "kitchen")
        forger = self.network.reactor("192.0.2.66")
        sending = forger.listenUDP(0, Heard())
        asking = Asking(7, b"question", attempts(1, 1))
        discovery = Discovery(self.asker, asking, 1.0, DISCOVERY_PORT)
        found = discovery.run(paths(interfaces_of(self.asker), (4,)))
        for port in self.asker.ports:
            for datagram in (b"", b"junk", encode_question(a_question()), b"\x94\x01\x07\xc0\xc0"):
                sending.write(datagram, (ASKER, port.getHost().port))
        self.assertEqual([answer.peer.name for answer in self.network.run_until(found)], ["kitchen"])
        self.assertEqual(asking.stats.rejected["malformed"], 8)
        self.network.run_until(sending.stopListening())  # type: ignore[arg-type]  # it listens
        self.stop(service)

    def test_arrival(self) -> None:
        """What an answer waited in the kernel does not count; a clock that was set meanwhile does no harm."""
        self.network.advance(100)
        for arrived, rtt in ((99.9, 0.15), (None, 0.25), (95.0, 0.25), (100.5, 0.25)):
            asking = Asking(7, b"question", attempts(1, 1))
            discovery = Discovery(self.asker, asking, 1.0, DISCOVERY_PORT)
            asking.question(0, now=99.5)
            stamp = None if arrived is None else round(arrived * 1e9)
            discovery.answer_received_untrusted(encode_answer(an_answer()), (HOST, 7), "net0", stamp)
            ((peer, _),) = asking.answers()
            self.assertAlmostEqual(peer.rtt, rtt)

    def test_interface_that_is_gone(self) -> None:
        """An interface that goes while it is asked on costs its own questions only."""
        usual = self.asker.network_interfaces()
        self.asker.network_interfaces = lambda: [*usual, ("gone0", 7, (("198.51.100.1", 24),), ())]
        service = served(host(self.network, HOST), "kitchen")
        self.assertEqual(self.names(wait=1), ["kitchen"])
        self.stop(service)
