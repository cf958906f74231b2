"""The port between reactor and protocol, on a reactor that only takes notes."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time
import warnings
from typing import Any

from twisted.internet import interfaces
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.protocol import AbstractDatagramProtocol, DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.transport.fakes import Notes, os_error
from twistedudp.errors import LocalError
from twistedudp.interfaces import IDatagramPort
from twistedudp.transport import DatagramPort, _backend, _kernel, _life, bind, listen

CLOCK_STEP = 10_000_000
"""Nanoseconds by which the kernel's coarse clock may be behind."""


class FakeReactor(MemoryReactorClock):
    """A reactor that notes its readers, and asks for their descriptors as every reactor does."""

    def removeReader(self, reader: Any) -> None:
        """Forget a reader."""
        assert reader.fileno() >= 0
        super().removeReader(reader)  # type: ignore[no-untyped-call]  # Twisted has no types there


class FakeUDPReactor:
    """A reactor without file descriptors, which has ports of its own."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def listenUDP(self, *arguments: Any) -> str:
        """Note what is asked for."""
        self.asked.append(arguments)
        return "its port"


class NotesBatches(Notes):
    """A protocol that takes several datagrams at once."""

    def datagrams_received(self, datagrams: Any) -> None:
        """Note them together."""
        self.notes.append(tuple(datagrams))
        self.does(datagrams, None)


class PortTestCase(SynchronousTestCase):
    """Ports on the fake reactor."""

    def setUp(self) -> None:
        """Make the reactor."""
        self.reactor: Any = FakeReactor()
        self.protocol = Notes()

    def listen(self, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Listen until the test ends."""
        listening: Any = listen(self.reactor, port, self.protocol, interface, **options)
        self.addCleanup(listening.connectionLost)
        return listening


class ListenTests(PortTestCase):
    """Which port it is."""

    def test_interfaces(self) -> None:
        """The port provides what it says, and what Twisted's own does."""
        port = self.listen()
        self.assertIsInstance(port, DatagramPort)
        for interface in (IDatagramPort, interfaces.ISystemHandle, interfaces.IReadDescriptor):
            self.assertTrue(verifyObject(interface, port))

    def test_fallback(self) -> None:
        """A reactor without file descriptors gives its own port, of the size asked for."""
        reactor = FakeUDPReactor()
        self.assertEqual("its port", listen(reactor, 7, self.protocol, "127.0.0.1", 9000))
        self.assertEqual([(7, self.protocol, "127.0.0.1", 9000)], reactor.asked)

    def test_fallback_of_a_bound_socket(self) -> None:
        """Such a reactor cannot take a socket: it is closed, and the reactor binds its own."""
        reactor = FakeUDPReactor()
        bound = bind(0, "127.0.0.1")
        listen(reactor, 0, self.protocol, bound=bound)
        self.assertEqual([(bound.port, self.protocol, "127.0.0.1", 65535)], reactor.asked)
        self.assertRaises(CannotListenError, bound.take)

    def test_other_systems(self) -> None:
        """Where the system is not POSIX, the reactor's port serves."""
        self.patch(os, "name", "nt")
        self.reactor.listenUDP = lambda *_: "its port"
        self.assertEqual("its port", listen(self.reactor, 0, self.protocol))

    def test_bound(self) -> None:
        """A socket bound before is the one that is listened on."""
        bound = bind(0, "127.0.0.1")
        port = self.listen("", bound=bound)
        self.assertEqual((bound.port, "127.0.0.1"), (port.getHost().port, port.interface))
        self.assertRaises(CannotListenError, bound.take)

    def test_shortfall(self) -> None:
        """A receive buffer that is smaller than asked for is one warning."""
        events: list[Any] = []
        observe: Any = events.append
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        bound = bind(0, "127.0.0.1")
        bound.shortfall = "too little"
        self.listen(bound=bound)
        warnings = [formatEvent(event) for event in events if event["log_level"] == LogLevel.warn]
        self.assertEqual(["too little"], warnings)

    def test_granted_buffer(self) -> None:
        """The receive buffer granted stands in the stats."""
        self.assertEqual(65536, self.listen(receive_buffer=65536).stats.receive_buffer)

    def test_too_many_open_files(self) -> None:
        """If there is no descriptor left to watch the socket with, the port is free again."""

        def refuse() -> None:
            raise os_error(errno.EMFILE)

        bound = bind(0, "127.0.0.1")
        self.patch(select, "epoll", refuse)
        error = self.assertRaises(CannotListenError, self.listen, bound=bound)
        self.assertEqual(errno.EMFILE, error.socketError.errno)
        bind(bound.port, "127.0.0.1").close()

    def test_name(self) -> None:
        """A name is no interface."""
        self.assertRaises(InvalidAddressError, DatagramPort, self.reactor, 0, self.protocol, "localhost")


class SizeTests(PortTestCase):
    """Sizes that cannot be one."""

    def test_refused(self) -> None:
        """A limit or a buffer of no bytes is refused by its name, and nothing is bound."""
        for option in ("max_datagram_size", "receive_buffer"):
            for size in (0, -1):
                options: dict[str, Any] = {option: size}
                with self.assertRaisesRegex(ValueError, f"{option}={size}: it must be at least 1 byte"):
                    self.listen(**options)


class LifeTests(PortTestCase):
    """From start to end."""

    def test_not_listening(self) -> None:
        """A port that does not listen yet says what it was asked for, and can do nothing else."""
        port = DatagramPort(self.reactor, 7, self.protocol, "::1")
        self.assertEqual(IPv6Address("UDP", "::1", 7), port.getHost())
        everywhere = DatagramPort(self.reactor, 7, self.protocol)
        self.assertEqual(IPv4Address("UDP", "0.0.0.0", 7), everywhere.getHost())  # noqa: S104  # not listened on
        self.assertEqual(
            (-1, None, "Notes (UDP)", False),
            (port.fileno(), port.getHandle(), port.logPrefix(), port.delivering_to_group),
        )
        self.assertIn("not listening", repr(port))
        self.assertRaises(LocalError, port.connect, "::1", 9)
        self.assertRaises(LocalError, port.setBroadcastAllowed, True)
        self.assertRaises(LocalError, port.getBroadcastAllowed)
        self.assertIdentical(None, port.stopListening())
        self.assertIdentical(None, port.path_mtu("::1"))
        self.assertEqual((), port.arrival_times)
        port.doRead()
        port.doWrite()
        port.connectionLost()
        port.write(b"x", ("::1", 9))
        self.assertEqual(1, port.stats.written_after_stop)

    def test_descriptor(self) -> None:
        """What the reactor watches is not the socket."""
        port = self.listen()
        self.assertEqual({port}, self.reactor.readers)
        self.assertNotEqual(port.getHandle().fileno(), port.fileno())
        self.assertEqual("Notes (UDP)", port.logPrefix())
        self.assertIn(f"on {port.getHost().port}", repr(port))

    def test_descriptor_elsewhere(self) -> None:
        """On systems without epoll it is."""
        self.patch(_kernel, "LINUX", False)
        port = self.listen()
        self.assertEqual(port.getHandle().fileno(), port.fileno())
        self.stop(port)
        self.assertEqual(-1, port.fileno())

    def stop(self, port: Any) -> None:
        """Stop a port and let a reactor turn pass."""
        stopping = port.stopListening()
        self.reactor.advance(0)
        self.successResultOf(stopping)

    def test_stop(self) -> None:
        """After the stop everything is closed and nothing left in the reactor; the address is still known."""
        port = self.listen()
        host, handle = port.getHost(), port.getHandle()
        watched = port._life.epoll
        stopping = port.stopListening()
        self.assertEqual(set(), self.reactor.readers)
        self.reactor.advance(0)
        self.successResultOf(stopping)
        self.assertEqual((set(), [], -1), (self.reactor.readers, self.reactor.getDelayedCalls(), handle.fileno()))
        self.assertTrue(watched.closed)
        self.assertEqual((host, -1, None), (port.getHost(), port.fileno(), port.getHandle()))

    def test_stop_twice(self) -> None:
        """Who stops a port that is being stopped is told of the same end."""
        port = self.listen()
        stopping = [port.stopListening(), port.stopListening()]
        self.assertEqual(1, len(self.reactor.getDelayedCalls()))
        self.reactor.advance(0)
        for each in stopping:
            self.successResultOf(each)

    def test_stop_inside_start_protocol(self) -> None:
        """A protocol that stops its port when it starts is never read for."""
        self.protocol.startProtocol = lambda: self.protocol.transport.stopListening()  # type: ignore[method-assign,union-attr]  # noqa: PLW0108  # there is no port yet
        port = self.listen()
        self.assertEqual(set(), self.reactor.readers)
        self.reactor.advance(0)
        self.assertEqual(-1, port.fileno())

    def test_failing_start_protocol(self) -> None:
        """If the protocol fails to start, the caller learns it and everything is closed."""
        self.protocol.startProtocol = lambda: 1 / 0  # type: ignore[method-assign]
        bound = bind(0, "127.0.0.1")
        self.assertRaises(ZeroDivisionError, self.listen, bound=bound)
        bind(bound.port, "127.0.0.1").close()
        self.assertEqual((set(), []), (self.reactor.readers, self.reactor.getDelayedCalls()))

    def test_again(self) -> None:
        """A port that was stopped can listen again; one that listens cannot."""
        port = self.listen()
        self.assertRaises(CannotListenError, port.startListening)
        self.stop(port)
        port.startListening()
        self.assertEqual({port}, self.reactor.readers)
        self.protocol.transport = None

    def test_lose_connection(self) -> None:
        """The transport's own name for the stop does the same, and warns as Twisted's does."""
        port = self.listen()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            port.loseConnection()
        [warned] = caught
        self.assertEqual((DeprecationWarning, __file__), (warned.category, warned.filename))
        self.reactor.advance(0)
        self.assertEqual(-1, port.fileno())

    def test_reactor_shuts_down(self) -> None:
        """A reactor that shuts down closes its readers itself; a stop that was under way is told of it."""
        port = self.listen()
        stopping = port.stopListening()
        port.connectionLost()
        self.successResultOf(stopping)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_stop_while_the_reactor_shuts_down(self) -> None:
        """A protocol that stops its port then leaves nothing behind either."""
        port = self.listen()
        stopping: list[Any] = []
        self.protocol.stopProtocol = lambda: stopping.append(port.stopListening())  # type: ignore[method-assign]
        port.connectionLost()
        self.successResultOf(stopping[0])
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_failing_stop_protocol(self) -> None:
        """A protocol that fails to stop cannot keep the port from closing."""
        port = self.listen()
        self.protocol.stopProtocol = lambda: 1 / 0  # type: ignore[method-assign]
        stopping = port.stopListening()
        self.assertRaises(ZeroDivisionError, self.reactor.advance, 0)
        self.successResultOf(stopping)
        self.assertEqual(-1, port.fileno())

    def test_stop_inside_stop_protocol(self) -> None:
        """A protocol that stops its port when it is stopped leaves nothing behind."""
        port = self.listen()
        stopping: list[Any] = []
        self.protocol.stopProtocol = lambda: stopping.append(port.stopListening())  # type: ignore[method-assign]
        self.stop(port)
        self.successResultOf(stopping[0])
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_last_datagram(self) -> None:
        """Until the protocol has stopped, it can still send."""
        port = self.listen()
        self.protocol.stopProtocol = lambda: port.write(b"bye", ("127.0.0.1", 9))  # type: ignore[method-assign]
        self.stop(port)
        self.assertEqual((1, 0), (port.stats.datagrams_sent, port.stats.written_after_stop))

    def test_connect(self) -> None:
        """A connected port knows which of its addresses it has."""
        port = self.listen("")
        number = port.getHost().port
        port.connect("127.0.0.1", 9)
        self.assertEqual(IPv4Address("UDP", "127.0.0.1", number), port.getHost())

    def test_log_lines(self) -> None:
        """Start and end are a line each; of a quiet protocol, none."""
        for noisy, expected in ((True, ["Notes starting on {}", "(UDP Port {} Closed)"]), (False, [])):
            events: list[Any] = []
            observe: Any = events.append
            globalLogPublisher.addObserver(observe)
            self.protocol.noisy = noisy
            port = self.listen()
            number = port.getHost().port
            self.stop(port)
            globalLogPublisher.removeObserver(observe)
            lines = [formatEvent(event) for event in events if "ing protocol" not in formatEvent(event)]
            self.assertEqual([line.format(number) for line in expected], lines)

    def test_log_prefix(self) -> None:
        """A protocol that has no prefix of its own is called by its class."""

        class Silent(AbstractDatagramProtocol):
            noisy = False

        self.assertEqual("Silent", _life.prefix_of(Silent()))
        self.assertEqual("DatagramProtocol", _life.prefix_of(DatagramProtocol()))


class WritableTests(PortTestCase):
    """Datagrams that wait for room in the send buffer."""

    def is_readable(self, port: Any) -> bool:
        """Tell whether a reactor would call the port."""
        return bool(select.select([port.fileno()], [], [], 0)[0])

    def test_epoll(self) -> None:
        """The descriptor that the reactor watches for reading is ready when the socket can take more."""
        port = self.listen()
        watch = port._life.watch_writable
        for wanted in (True, True, False, False, True):
            watch(wanted)
            self.assertEqual(wanted, self.is_readable(port))
        self.assertEqual((set(), {port}), (self.reactor.writers, self.reactor.readers))

    def test_elsewhere(self) -> None:
        """Without epoll the port is a writer as long as something waits, and what waits is sent."""
        self.patch(_kernel, "LINUX", False)
        port = self.listen(backend="scalar")
        calls: list[str] = []
        self.patch(port._life.backend, "send_waiting", lambda: calls.append("sent"))
        watch = port._life.watch_writable
        for wanted in (True, True, False, False, True):
            watch(wanted)
            self.assertEqual({port} if wanted else set(), self.reactor.writers)
        port.doWrite()
        self.assertEqual(["sent"], calls)

    def test_stop(self) -> None:
        """A stopped port is no writer, whatever waited."""
        self.patch(_kernel, "LINUX", False)
        port = self.listen(backend="scalar")
        port._life.watch_writable(True)
        port.connectionLost()
        self.assertEqual((set(), set()), (self.reactor.writers, self.reactor.readers))

    def test_end_of_the_backend(self) -> None:
        """The backend's last chance to send, and to read the kernel's counters, comes while the socket is open."""
        port = self.listen()
        backend, handle = port._life.backend, port.getHandle()
        calls: list[tuple[str, bool]] = []

        class Ending:
            """Stands before the backend and notes when it is ended."""

            def __getattr__(self, name: str) -> Any:
                calls.append((name, handle.fileno() >= 0))
                return getattr(backend, name)

        port._life.backend = Ending()
        port.connectionLost()
        self.assertEqual([("stop", True), ("refresh_stats", True), ("close", True)], calls)
        self.assertEqual(-1, handle.fileno())


class ArgumentTests(PortTestCase):
    """What no port can be made of."""

    def test_refused(self) -> None:
        """Each wrong argument is named with its value, on any reactor, and nothing is bound."""
        wrong: tuple[tuple[str, Any, type[Exception], str], ...] = (
            ("port", "7", TypeError, "port='7': it must be an int from 0 to 65535"),
            ("port", True, TypeError, "port=True: it must be an int"),
            ("receive_buffer", 2**31, ValueError, "receive_buffer=2147483648: it must be at most 2147483647"),
            ("receive_buffer", 0.5, TypeError, "receive_buffer=0.5: it must be None or an int"),
            ("max_datagram_size", None, TypeError, "max_datagram_size=None: it must be an int"),
            ("timestamps", 1, TypeError, "timestamps=1: it must be True or False"),
            ("reuse_port", "no", TypeError, "reuse_port='no': it must be True or False"),
            ("return_path", None, TypeError, "return_path=None: it must be True or False"),
            ("bound", 7, TypeError, r"bound=7: it must be None or what twistedudp.transport.bind\(\) returned"),
            ("protocol", Notes, TypeError, r"protocol=Notes: it is a class; pass an instance of it, such as Notes\(\)"),
            ("protocol", None, TypeError, "protocol=None: it must be a DatagramProtocol"),
            ("reactor", None, TypeError, "reactor=None: it must be a Twisted reactor"),
        )
        other = FakeUDPReactor()
        for reactor in (self.reactor, other):
            for name, value, error, text in wrong:
                arguments = {"reactor": reactor, "port": 0, "protocol": self.protocol, name: value}
                with self.assertRaisesRegex(error, text):
                    listen(**arguments)
        self.assertEqual([], other.asked)

    def test_connect(self) -> None:
        """A name is refused in the words of the method that was called."""
        with self.assertRaisesRegex(InvalidAddressError, r"connect\(\) only accepts IP addresses, not hostnames"):
            self.listen().connect("localhost", 5)


class BackendTests(PortTestCase):
    """Which backend serves."""

    def test_asked_for(self) -> None:
        """The one that is asked for serves, and the port tells which."""
        self.assertEqual("scalar", self.listen(backend="scalar").backend)

    def test_environment(self) -> None:
        """Ports that are not told ask the environment."""
        self.patch(os, "environ", {**os.environ, "TWISTEDUDP_BACKEND": "scalar"})
        self.assertEqual("scalar", self.listen().backend)

    def test_unknown(self) -> None:
        """One that there is not is an error before anything is bound."""
        bound = bind(0, "127.0.0.1")
        error = self.assertRaises(LocalError, self.listen, bound=bound, backend="fast")
        self.assertEqual(
            "there is no backend 'fast' (backend= asks for it); the backends are mmsg and scalar", str(error)
        )
        self.patch(os, "environ", {**os.environ, "TWISTEDUDP_BACKEND": "fast"})
        error = self.assertRaises(LocalError, self.listen, bound=bound)
        self.assertIn("no backend 'fast' (TWISTEDUDP_BACKEND asks for it);", str(error))
        bound.close()

    def test_cannot_run(self) -> None:
        """One that cannot run is an error which says who asks for it and what to do."""
        cure = "install a C compiler and Python's headers and reinstall twistedudp, or "
        self.patch(_backend, "_why_not_compiled", lambda: _backend._NOT_BUILT)
        with self.assertRaisesRegex(LocalError, rf"'mmsg' \(backend= asks.* cannot run: .*; {cure}leave out backend=$"):
            self.listen(backend="mmsg")
        self.patch(os, "environ", {**os.environ, "TWISTEDUDP_BACKEND": "mmsg"})
        with self.assertRaisesRegex(LocalError, rf"cannot run: .*; {cure}unset TWISTEDUDP_BACKEND$"):
            self.listen()
        self.patch(_backend, "_why_not_compiled", lambda: "the compiled one is for Linux")
        with self.assertRaisesRegex(LocalError, "cannot run: the compiled one is for Linux; unset TWISTEDUDP_BACKEND$"):
            self.listen()

    def test_why_not_built(self) -> None:
        """A missing module was not built; any other failure to import it is told in its own words."""
        self.patch(_kernel, "LINUX", True)
        name = "twistedudp.transport._mmsg"
        parent: Any = sys.modules["twistedudp.transport"]
        before = {"module": sys.modules.get(name), "attribute": parent.__dict__.pop("_mmsg", None)}

        def restore() -> None:
            sys.modules.pop(name, None)
            if before["module"] is not None:
                sys.modules[name] = parent._mmsg = before["module"]

        self.addCleanup(restore)
        sys.modules[name] = None  # type: ignore[assignment]  # which is how the import system is told "not there"
        self.assertIn("was not built when twistedudp was installed (is there a C", _backend._why_not_compiled())

        def refuse(*_: object) -> object:
            raise ImportError("undefined symbol: recvmmsg")

        sys.modules.pop(name, None)
        finder: Any = type("Finder", (), {"find_spec": refuse})()
        sys.meta_path.insert(0, finder)
        self.addCleanup(sys.meta_path.remove, finder)
        self.assertIn("cannot be loaded (undefined symbol: recvmmsg)", _backend._why_not_compiled())

    def test_failing(self) -> None:
        """If the backend cannot be made, nothing stays open."""
        handles: list[Any] = []

        def fail(_: str, port_socket: Any) -> Any:
            handles.append(port_socket.handle)
            raise ZeroDivisionError

        self.patch(_life, "make_backend", fail)
        self.assertRaises(ZeroDivisionError, self.listen)
        self.assertEqual(-1, handles[0].fileno())
        self.assertEqual(set(), self.reactor.readers)


class OptionTests(PortTestCase):
    """What else a port can be asked for."""

    def test_names_of_twisted(self) -> None:
        """What code written for Twisted's ports reads is there."""
        port = self.listen("::1", max_datagram_size=1000)
        self.assertEqual((socket.AF_INET6, 1000), (port.addressFamily, port.maxPacketSize))
        self.assertEqual(port.getHost().port, port._realPortNumber)
        port.connectionLost()
        self.assertIdentical(None, port._realPortNumber)
        self.assertEqual(socket.AF_INET, self.listen().addressFamily)

    def test_reuse_port(self) -> None:
        """A port is shared if all ask for it, and not otherwise."""
        first = self.listen(reuse_port=True)
        number = first.getHost().port
        self.protocol = Notes()
        self.assertEqual(number, self.listen(port=number, reuse_port=True).getHost().port)
        self.protocol = Notes()
        self.assertRaises(CannotListenError, self.listen, port=number)
        alone = self.listen()
        self.assertRaises(CannotListenError, self.listen, port=alone.getHost().port, reuse_port=True)

    def test_never_reuse_address(self) -> None:
        """SO_REUSEADDR is never set, nor is SO_REUSEPORT unless it is asked for."""
        for asked in (False, True):
            self.protocol = Notes()
            handle = self.listen(reuse_port=asked).getHandle()
            options = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
            values = [bool(handle.getsockopt(socket.SOL_SOCKET, option)) for option in options]
            self.assertEqual([False, asked], values)

    def test_timestamps(self) -> None:
        """Arrival times are told if they are asked for: one for each datagram while it is delivered, then none."""
        for backend in ("scalar", None):
            for timestamps in (True, False):
                times: list[Any] = []
                self.protocol = Notes()
                port = self.listen(timestamps=timestamps, backend=backend)
                self.protocol.does = lambda *_, port=port, times=times: times.append(tuple(port.arrival_times))
                before = time.time_ns()
                port.write(b"x", ("127.0.0.1", port.getHost().port))
                port.doRead()
                [told] = times
                self.assertEqual(int(timestamps), len(told))
                self.assertEqual([], [each for each in told if not before - CLOCK_STEP <= each <= time.time_ns()])
                self.assertEqual((), tuple(port.arrival_times))

    def test_no_timestamps(self) -> None:
        """Where the kernel tells none there are none."""
        self.patch(_kernel, "LINUX", False)
        port = self.listen(timestamps=True, backend="scalar")
        self.protocol.does = lambda *_: self.assertEqual((), tuple(port.arrival_times))
        port.write(b"x", ("127.0.0.1", port.getHost().port))
        port.doRead()
        self.assertEqual((1, 0), (len(self.protocol.notes), port.stats.callback_errors))

    def test_stats(self) -> None:
        """The counters are always one object, brought up to date when it is asked for, and kept after the end."""
        port = self.listen(receive_buffer=4096)
        stats = port.stats
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(100):
                client.sendto(b"x" * 100, ("127.0.0.1", port.getHost().port))
        self.assertIdentical(stats, port.stats)
        dropped = stats.dropped_by_kernel
        self.assertGreater(dropped, 0)
        port.connectionLost()
        self.assertIdentical(stats, port.stats)
        self.assertEqual(dropped, stats.dropped_by_kernel)

    def test_reuse_port_elsewhere(self) -> None:
        """A reactor with ports of its own cannot share them, and says so."""
        error = self.assertRaises(CannotListenError, listen, FakeUDPReactor(), 7, self.protocol, reuse_port=True)
        self.assertIn("cannot share", str(error))


class SendingTests(PortTestCase):
    """With a real socket below."""

    def test_write(self) -> None:
        """A datagram, and one made of pieces."""
        port = self.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(5)
            port.write(b"one", server.getsockname())
            port.writeSequence([b"t", b"wo"], server.getsockname())
            self.assertEqual([b"one", b"two"], [server.recv(100), server.recv(100)])


class ReadingTests(PortTestCase):
    """With a real socket below."""

    def test_read(self) -> None:
        """What the socket has is delivered."""
        port = self.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", ("127.0.0.1", port.getHost().port))
            port.doRead()
            self.assertEqual([(b"hello", ("127.0.0.1", client.getsockname()[1]))], self.protocol.notes)


class BatchTests(PortTestCase):
    """Ports of protocols that take several datagrams at once."""

    def send(self, port: Any, *payloads: bytes) -> None:
        """Send to a port from a plain socket."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.bind(("127.0.0.1", 0))
            self.plain = plain.getsockname()
            for payload in payloads:
                plain.sendto(payload, ("127.0.0.1", port.getHost().port))

    def test_batches(self) -> None:
        """A protocol with the method gets what waits at once, on any kind of bind; one without, one by one."""
        for protocol, options in (
            (NotesBatches(), {}),
            (NotesBatches(), {"interface": ""}),
            (NotesBatches(), {"interface": "", "return_path": False}),
            (NotesBatches(), {"interface": "::"}),
            (Notes(), {}),
            (Notes(), {"interface": "", "return_path": False}),
        ):
            self.protocol = protocol
            given: Any = options
            port = self.listen(**given)
            self.send(port, b"1", b"", b"3")
            port.doRead()
            expected = [(payload, self.plain) for payload in (b"1", b"", b"3")]
            together = isinstance(protocol, NotesBatches)
            self.assertEqual([tuple(expected)] if together else expected, protocol.notes)
            self.assertEqual(3, port.stats.datagrams_received)

    def test_write_batch(self) -> None:
        """Any port sends several datagrams, and returns what is the caller's fault."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.bind(("127.0.0.1", 0))
            plain.settimeout(5.0)
            peer = plain.getsockname()
            for self.protocol in (Notes(), NotesBatches()):
                port = self.listen()
                [refused] = port.write_batch([(b"1", peer), (b"2", ("localhost", 9)), (b"3", peer)])
                self.assertEqual((b"2", ("localhost", 9)), refused[:2])
                self.assertIsInstance(refused[2], InvalidAddressError)
                self.assertEqual([b"1", b"3"], [plain.recv(100) for _ in range(2)])
                self.assertEqual(2, port.stats.datagrams_sent)

    def test_wrong_datagrams(self) -> None:
        """What is wrong with one datagram keeps no other from being sent, inside a batch and outside."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.bind(("127.0.0.1", 0))
            plain.settimeout(5.0)
            peer = plain.getsockname()
            wrong: Any = [
                ("x", peer),
                (3, peer),
                (b"4", ("127.0.0.1",)),
                (b"5", ["127.0.0.1", 5]),
                (b"6", (peer[0], "6")),
            ]
            for self.protocol in (Notes(), NotesBatches()):
                port = self.listen(backend="scalar")
                for datagrams in ([(b"1", peer), *wrong, (b"7", peer)], [*wrong, *wrong, (b"1", peer), (b"7", peer)]):
                    refused: list[Any] = []
                    self.protocol.does = lambda *_, port=port, out=refused, some=datagrams: out.extend(
                        port.write_batch(some)
                    )
                    plain.sendto(b"go", ("127.0.0.1", port.getHost().port))
                    port.doRead()
                    expected = [each for each in datagrams if each in wrong]
                    self.assertEqual(expected, [each[:2] for each in refused])
                    self.assertEqual([b"1", b"7"], [plain.recv(100) for _ in range(2)])
