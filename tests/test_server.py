"""The server as a service, on the simulated network."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twistedudp.echo import EchoProtocol
from twistedudp.errors import PluginError
from twistedudp.methods import RPCMethods, method
from twistedudp.protocol import RPCServerProtocol
from twistedudp.rpc import rpc_protocol
from twistedudp.server import UDPServerService, as_protocol
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from twistedudp.address import Address

HOST = "192.0.2.1"


class Silent(DatagramProtocol):
    """Counts its starts and stops."""

    def __init__(self) -> None:
        self.started = self.stopped = 0

    def startProtocol(self) -> None:
        """Count."""
        self.started += 1

    def stopProtocol(self) -> None:
        """Count."""
        self.stopped += 1


class Recorder(DatagramProtocol):
    """Notes what it gets."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note a datagram."""
        self.received.append(datagram)


class Methods(RPCMethods):
    """One method."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    @method
    def times(self, number: int) -> int:
        """Multiply."""
        return number * self.factor


class Bound:
    """A bound socket, as far as the service sees one."""

    host = interface = HOST
    port = 10007

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        """Count."""
        self.closed += 1


class ServerTestCase(SynchronousTestCase):
    """A host to serve on."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork()
        self.reactor = self.network.reactor(HOST)

    def service(self, what: Any, port: int = 10007, **options: Any) -> UDPServerService:
        """Make a service on the host."""
        return UDPServerService(self.reactor, port, what, HOST, **options)

    def stop(self, service: UDPServerService) -> None:
        """Stop a service and wait for it."""
        stopped: Deferred[Any] | None = service.stopService()
        assert stopped is not None
        self.network.run_until(stopped)

    def log_of(self, events: Sequence[Any]) -> list[str]:
        """Return what the service itself logged."""
        return [
            event["log_format"].format(**{key: value for key, value in event.items() if key in ("server", "address")})
            for event in events
            if event.get("log_namespace") == "twistedudp"
        ]


class LifeTests(ServerTestCase):
    """Starting and stopping."""

    def test_interface(self) -> None:
        """It is a service."""
        verifyObject(IService, self.service(Silent()))

    def test_start_and_stop(self) -> None:
        """It serves from startService to stopService, and the port is free when the Deferred has fired."""
        protocol = Silent()
        service = self.service(protocol)
        service.privilegedStartService()
        self.assertEqual((service.address, service.stats, service.running), (None, None, 0))
        service.startService()
        self.assertEqual((service.address, protocol.started, service.running), ((HOST, 10007), 1, 1))
        self.assertIs(service.protocol, protocol)
        self.assertFalse(protocol.noisy)
        stats = service.stats
        self.assertIsNotNone(stats)
        self.stop(service)
        self.assertEqual((service.address, protocol.stopped, service.running), (None, 1, 0))
        self.assertIs(service.stats, stats)
        self.reactor.listenUDP(10007, Silent(), HOST)

    def test_port_zero(self) -> None:
        """The address is the one really bound, and another start may get another one."""
        service = self.service(Silent(), 0)
        service.startService()
        address = service.address
        assert address is not None
        self.assertEqual(address[0], HOST)
        self.assertGreater(address[1], 0)
        self.stop(service)

    def test_started_twice(self) -> None:
        """Starting what is started does nothing: there is one port, and it is free after one stop."""
        service = self.service(Silent, 0)
        service.startService()
        address = service.address
        service.startService()
        self.assertEqual(service.address, address)
        self.assertEqual(len(self.reactor.ports), 1)
        self.stop(service)
        self.assertEqual(self.reactor.ports, [])

    def test_started_again(self) -> None:
        """A factory is called at each start; a protocol is used again."""
        made: list[Silent] = []

        def make() -> Silent:
            made.append(Silent())
            return made[-1]

        same = Silent()
        for service in (self.service(make), self.service(same, 10008)):
            for _ in range(2):
                service.privilegedStartService()
                service.startService()
                self.stop(service)
        self.assertEqual([protocol.started for protocol in made], [1, 1])
        self.assertEqual((same.started, same.stopped), (2, 2))

    def test_stopped_before_start(self) -> None:
        """Stopping what was never started does nothing, twice."""
        service = self.service(Silent())
        self.assertIsNone(service.stopService())
        self.assertIsNone(service.stopService())

    def test_inside_a_parent(self) -> None:
        """Added to a running parent it starts at once; taken out it stops."""
        parent: Any = MultiService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        parent.startService()
        service: Any = self.service(Silent())
        service.setServiceParent(parent)
        self.assertEqual(service.address, (HOST, 10007))
        self.network.run_until(service.disownServiceParent())
        self.assertIsNone(service.address)

    def test_port_in_use(self) -> None:
        """A port that is taken is the caller's to handle; the service has not started."""
        self.reactor.listenUDP(10007, Silent(), HOST)
        service = self.service(Silent())
        self.assertRaises(CannotListenError, service.startService)
        self.assertEqual((service.running, service.protocol, service.address), (0, None, None))

    def test_log(self) -> None:
        """One line when it listens and one when it has stopped, with its name and the address."""
        service: Any = self.service(Silent())
        with capturedLogs() as events:
            service.startService()
            self.stop(service)
            service.setName("quiet")
            service.startService()
            self.stop(service)
        self.assertEqual(
            self.log_of(events),
            [
                f"{name} {what} on {HOST}:10007 (UDP)"
                for name in ("Silent", "quiet")
                for what in ("is listening", "has stopped listening")
            ],
        )


class OptionTests(ServerTestCase):
    """What else a service may be asked for."""

    def test_timestamps(self) -> None:
        """Arrival times are known to what is served if they were asked for, and not else."""

        class Times(DatagramProtocol):
            def __init__(self) -> None:
                self.times: list[int] = []

            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                """Note when."""
                self.times.append(len(self.transport.arrival_times))  # type: ignore[union-attr]  # a port of ours

        for timestamps in (True, False):
            protocol = Times()
            service = self.service(protocol, timestamps=timestamps)
            service.startService()
            self.network.reactor().listenUDP(0, Recorder()).write(b"x", (HOST, 10007))
            self.network.run_until_idle()
            self.assertEqual(protocol.times, [int(timestamps)])
            self.stop(service)

    def test_max_wait(self) -> None:
        """Where rpc methods are served they are known too, unless nothing is to be shed by them."""
        for options, told in (({}, True), ({"max_wait": 5.0}, True), ({"max_wait": None}, False)):
            service = self.service(RPCMethods(), **options)
            service.startService()
            protocol: Any = service.protocol
            self.assertEqual(protocol.transport.timestamps, told)
            self.stop(service)

    def test_discoverable(self) -> None:
        """A service that is discoverable has a second port from its start to its end; others never have one."""
        for name, ports in ((None, [10007]), ("kitchen", [10007, 10032])):
            service = self.service(Silent(), discoverable=name)
            with capturedLogs() as events:
                service.startService()
            self.assertEqual([port.getHost().port for port in self.reactor.ports], ports)
            told = [event for event in events if event["log_format"].startswith("{name} can be discovered")]
            self.assertEqual([(event["name"], event["port"]) for event in told], [("kitchen", 10032)] if name else [])
            self.assertEqual(service.discovery_stats is not None, name is not None)
            self.stop(service)
            self.assertEqual((self.reactor.ports, self.network.leftovers()), ([], []))

    def test_discovery_port(self) -> None:
        """It is another one where that is asked for."""
        service = self.service(Silent(), discoverable="kitchen", discovery_port=7777)
        service.startService()
        self.assertEqual([port.getHost().port for port in self.reactor.ports], [7777, 10007])
        self.stop(service)

    def test_discovery_bound(self) -> None:
        """A discovery port that was bound before is used at the first start, and given back if there is none."""
        for start in (True, False):
            bound: Any = Bound()
            bound.port, bound.interface = 10032, "::"
            service = self.service(Silent(), discoverable="kitchen", discovery_bound=bound)
            self.assertEqual(bound.closed, 0)
            if start:
                service.startService()
                self.stop(service)
            else:
                service.stopService()
            self.assertEqual(bound.closed, 1)

    def test_discovery_port_on_failure(self) -> None:
        """A factory that fails costs no discovery port."""
        bound: Any = Bound()

        def fail() -> Silent:
            raise ZeroDivisionError

        service = self.service(fail, discoverable="kitchen", discovery_bound=bound)
        self.assertRaises(ZeroDivisionError, service.startService)
        self.assertEqual((bound.closed, self.reactor.ports), (1, []))

    def test_discovered_as(self) -> None:
        """What is served is called by the service's name, else by its class; methods are always rpc."""
        for serves, name, expected in (
            (Silent(), "", "silent"),
            (Silent(), "chat", "chat"),
            (EchoProtocol(), "", "echo"),
            (Methods(), "chat", "rpc"),
        ):
            service: Any = self.service(serves, discoverable="kitchen")
            if name:
                service.setName(name)
            service.startService()
            self.assertEqual(service._discovery.responder._answers._identity.protocol, expected)
            self.stop(service)


class BoundTests(ServerTestCase):
    """A socket that was bound before."""

    def test_used_once(self) -> None:
        """It is used at the first start, and its address is known before."""
        bound: Any = Bound()
        service = self.service(Silent(), 10007, bound=bound)
        service.privilegedStartService()
        self.assertEqual((service.address, bound.closed), ((HOST, 10007), 0))
        service.startService()
        self.assertEqual(bound.closed, 1)  # a reactor without file descriptors binds anew
        self.stop(service)
        service.startService()
        self.assertEqual(bound.closed, 1)
        self.stop(service)

    def test_closed_unused(self) -> None:
        """A service that is stopped before it started gives the port back."""
        bound: Any = Bound()
        service = self.service(Silent(), bound=bound)
        service.stopService()
        self.assertEqual((bound.closed, service.address), (1, None))

    def test_closed_on_failure(self) -> None:
        """A factory that fails costs no port."""
        bound: Any = Bound()

        def fail() -> Silent:
            raise ZeroDivisionError

        service = self.service(fail, bound=bound)
        self.assertRaises(ZeroDivisionError, service.startService)
        self.assertEqual((bound.closed, service.running), (1, 0))


class ServableTests(ServerTestCase):
    """What can be served."""

    def test_methods(self) -> None:
        """RPCMethods, made or to be made, are served by the rpc protocol."""
        for what in (Methods(), Methods, lambda: Methods(3)):
            service = self.service(what)
            service.startService()
            self.assertIsInstance(service.protocol, RPCServerProtocol)
            self.stop(service)

    def test_cache_bounds(self) -> None:
        """The bounds of the kept responses are the service's to set; the default is the protocol's own."""
        for options, expected in (
            ({}, (262144, 64 * 1024 * 1024, 30.0)),
            ({"cache_entries": 3, "cache_size": 4000, "cache_age": 5.0}, (3, 4000, 5.0)),
        ):
            bounds: Any = options
            service = self.service(Methods, **bounds)
            service.startService()
            protocol: Any = service.protocol
            settings = protocol._responder.settings
            self.assertEqual((settings.cache_entries, settings.cache_size, settings.cache_age), expected)
            self.stop(service)

    def test_cache_full(self) -> None:
        """A service whose cache is full answers busy, and an entry that is old enough makes room."""
        # An address to be proven would draw another error in place of this one, which is longer than the request.
        service = self.service(Methods, cache_entries=1, cache_age=5.0, prove_addresses=False)
        service.startService()
        asking = Recorder()
        port = self.network.reactor().listenUDP(0, asking)
        request = b"\x94\x00%c\xa5times\x91\x02"
        for msgid in (1, 2):
            port.write(request % msgid, (HOST, 10007))
        self.network.run_until_idle()
        self.network.advance(5.001)
        port.write(request % 3, (HOST, 10007))
        self.network.run_until_idle()
        self.assertEqual(asking.received[0], b"\x94\x01\x01\xc0\x04")
        self.assertIn(b"busy", asking.received[1])
        self.assertEqual(asking.received[2], b"\x94\x01\x03\xc0\x04")
        self.stop(service)

    def test_protocol_class(self) -> None:
        """A protocol's class is a factory like any other."""
        service = self.service(Silent)
        service.startService()
        self.assertIsInstance(service.protocol, Silent)
        self.stop(service)

    def test_neither(self) -> None:
        """Anything else is refused, by what it is."""
        for what in (7, lambda: None):
            service = self.service(what)
            error = self.assertRaises(TypeError, service.startService)
            self.assertIn("is neither a DatagramProtocol nor an RPCMethods", str(error))
            self.assertEqual(service.running, 0)

    def test_as_protocol(self) -> None:
        """A protocol is itself."""
        protocol = Silent()
        self.assertIs(as_protocol(protocol), protocol)


class RPCProtocolTests(SynchronousTestCase):
    """The built-in protocol ``rpc``."""

    def setUp(self) -> None:
        """Make a module with methods that can be named."""
        module: Any = types.ModuleType("methods_to_serve")
        module.Methods, module.Other = Methods, Silent
        self.patch(sys, "modules", {**sys.modules, "methods_to_serve": module})

    def answers(self, **options: Any) -> list[bytes]:
        """Return what the served class answers to the request ``times(2)``, 11 bytes, with message id 1."""
        network = SimulatedNetwork()
        server, client = network.reactor(HOST), network.reactor()
        server.listenUDP(10007, rpc_protocol("methods_to_serve:Methods", **options), HOST)
        asking = Recorder()
        client.listenUDP(0, asking).write(b"\x94\x00\x01\xa5times\x91\x02", (HOST, 10007))
        network.run_until_idle()
        return asking.received

    def test_served(self) -> None:
        """The class is imported by its name and constructed with the options that are its own."""
        self.assertEqual(self.answers(factor="5"), [b"\x94\x01\x01\xc0\x0a"])

    def test_largest_request(self) -> None:
        """The largest request is the protocol's option."""
        self.assertEqual(self.answers(max_request_size="11"), [b"\x94\x01\x01\xc0\x04"])
        self.assertEqual(self.answers(max_request_size="10"), [])

    def test_cache_bounds(self) -> None:
        """The bounds of the kept responses are the protocol's options as well."""
        bounds = {"cache_entries": "7", "cache_size": "70000", "cache_age": "90"}
        settings = rpc_protocol("methods_to_serve:Methods", **bounds)._responder.settings
        self.assertEqual((7, 70000, 90.0), (settings.cache_entries, settings.cache_size, settings.cache_age))

    def test_refused(self) -> None:
        """What cannot be served is a plugin error that names the class."""
        for name, options, expected in (
            ("methods_to_serve:Other", {}, "makes no RPCMethods"),
            ("methods_to_serve:Methods", {"max_request_size": "-1"}, "from 1 to 65527"),
            ("methods_to_serve:Methods", {"max_request_size": "65528"}, "from 1 to 65527"),
            ("methods_to_serve:Methods", {"max_request_size": "many"}, "from 1 to 65527"),
            ("methods_to_serve:Methods", {"cache_age": "0"}, "cache_age='0' is not a whole number from 1 to 86400"),
            ("methods_to_serve:Methods", {"cache_entries": "\u0663"}, "from 1 to 16777216"),
            ("methods_to_serve:Absent", {}, "has no 'Absent'"),
            ("methods_to_serve", {}, "'module:Class'"),
            ("methods_to_serve:Methods", {"fact": "1"}, "it takes factor"),
            ("methods_to_serve:Methods", {"factor": "x"}, "does not fit int"),
        ):
            error = self.assertRaises(PluginError, rpc_protocol, name, **options)
            self.assertIn(expected, str(error))
            self.assertIn(f"protocol 'rpc' with class={name!r}", str(error))
            self.assertEqual(error.name, "rpc")
