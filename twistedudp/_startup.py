"""What ``twistd udpecho`` does between its options and its first datagram, and how it tells what went wrong.

Theory of operation: two things can go wrong that are neither a wrong option nor a bug of ours. The port cannot be had:
that shows while options are parsed, and :func:`bind_or_explain` says it in one line. Or the plugin's code, which must
not run before ``--uid`` took effect, fails when the service starts. By then ``twistd`` has written its pid file and,
as a daemon, its parent waits. Only an exception that leaves ``startService`` makes it remove the one and tell the
other (``SystemExit`` does neither), and Python would print that exception with a traceback through all of ``twistd``.
So :class:`PluginService` writes the error to the log, and lets it out with an excepthook set for this very exception,
that prints its one line. The traceback of the plugin's own code is in the log.
"""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from twisted.python.usage import UsageError

from .address import format_address
from .errors import LocalError, PluginError, TwistedUDPError
from .plugins import construct, describe_exception, load_target, own_traceback
from .server import UDPServerService, as_protocol
from .transport import adopt, bind, port_holder
from .transport._backend import choose_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from twisted.internet.defer import Deferred

    from .address import Address
    from .interfaces import IDatagramPlugin
    from .plugins import BrokenPluginFile
    from .transport import BoundSocket

__all__ = [
    "PluginService",
    "adopt_or_explain",
    "bind_discovery_or_explain",
    "bind_or_explain",
    "explain_bind_error",
    "explain_discovery_error",
    "protocol_factory",
    "tell_of_broken_files",
]

_log = Logger(namespace="twistedudp")

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_UNPRIVILEGED_PORT_START = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def bind_or_explain(
    port: int, interface: str, receive_buffer: int | None = None, *, option: str = "--port"
) -> BoundSocket:
    """Bind a UDP port, and see that there is a backend to serve it, for which a daemon's start is too late.

    Args:
        port: The port number; 0 picks a free one.
        interface: A numeric address of this machine.
        receive_buffer: Bytes to ask the kernel for; ``None`` asks for what is usual.
        option: The option that the port was given by.

    Raises:
        UsageError: It cannot be had; the text says why and what to do, in one line.
        LocalError: There is no such backend as ``TWISTEDUDP_BACKEND`` asks for, or it cannot run here; likewise.
    """
    choose_backend()
    try:
        return bind(port, interface, receive_buffer=receive_buffer)
    except CannotListenError as error:
        raise UsageError(explain_bind_error(error.socketError, port, interface, option)) from error
    except InvalidAddressError as error:
        raise UsageError(f"--interface: {interface!r}: {error.message}") from error


def adopt_or_explain(descriptor: int, receive_buffer: int | None) -> BoundSocket:
    """Take a UDP socket that was inherited, and see that there is a backend to serve it.

    Args:
        descriptor: Its number.
        receive_buffer: Bytes to ask the kernel for; ``None`` asks for what is usual.

    Raises:
        LocalError: It is none that can be served, or as :func:`bind_or_explain`.
    """
    choose_backend()
    return adopt(descriptor, receive_buffer=receive_buffer)


def bind_discovery_or_explain(name: str, interface: str, port: int) -> BoundSocket:
    """Bind the discovery port, and see that the server can be discovered.

    Args:
        name: The value of ``--discoverable``.
        interface: Where the server is to listen.
        port: The discovery port.

    Raises:
        UsageError: The server cannot be discovered, or the port cannot be had; the text says why, in one line.
        LocalError: As :func:`bind_or_explain`.
    """
    from .discovery import _responder  # noqa: PLC0415  # msgpack: only for who is discoverable, for the start is timed

    choose_backend()
    try:
        _responder.check_discoverable(name, interface)
        return _responder.bind_discovery(port)
    except CannotListenError as error:
        raise UsageError(explain_discovery_error(error.socketError, port)) from error
    except LocalError as error:
        raise UsageError(f"--discoverable: {error}") from error


def explain_discovery_error(error: BaseException, port: int) -> str:
    """Return in one line why the discovery port could not be bound and what to do about it."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        holder = port_holder(port, "::") or port_holder(port, "0.0.0.0") or "a process that only root can see"  # noqa: S104  # asked for, not bound
        return (
            f"UDP port {port}, on which --discoverable hears questions, is in use by {holder}; the discoverable "
            "servers of one user share it, other programs and other users do not: choose another --discovery-port, and "
            "give udpecho discover the same --port"
        )
    return explain_bind_error(error, port, "::", "--discovery-port")


def explain_bind_error(error: BaseException, port: int, interface: str, option: str = "--port") -> str:
    """Return in one line why a port could not be bound and what to do about it."""
    where = format_address((interface, port))
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        holder = port_holder(port, interface) or "a process that only root can see (ss -ulpn)"
        return (
            f"UDP port {where} is in use by {holder}; stop it, or choose another port with {option} "
            "(0 picks a free one)"
        )
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"UDP port {where} needs a right that this process does not have: start as root with twistd's --uid, or "
            "give CAP_NET_BIND_SERVICE (setcap, or AmbientCapabilities= of systemd), or lower "
            f"net.ipv4.ip_unprivileged_port_start, or choose a {option} from {_first_unprivileged_port()} on"
        )
    if number == errno.EADDRNOTAVAIL:
        return (
            f"--interface: {interface} is not an address of this machine ('ip address' lists them); "
            "write one of these, or 0.0.0.0 or :: for all of them"
        )
    if number == errno.EAFNOSUPPORT:
        return f"--interface: {interface} is an IPv6 address, and this machine has no IPv6; write an IPv4 address"
    if number == errno.EINVAL and interface.lower().startswith("fe80:") and "%" not in interface:
        return f"--interface: {interface} is a link-local address; name its network interface: {interface}%eth0"
    return f"UDP port {where} cannot be bound: {describe_exception(error)}"


def _first_unprivileged_port() -> int:
    try:
        return int(_UNPRIVILEGED_PORT_START.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not Linux
        return 1024


def tell_of_broken_files(broken: Iterable[BrokenPluginFile]) -> None:
    """Log each plugin file that could not be imported, with its own traceback."""
    for file in broken:
        _log.error(
            "the plugin file {file} could not be imported, its protocols are not offered:\n{traceback}",
            file=file.file,
            traceback=file.traceback.rstrip(),
        )


def protocol_factory(
    plugin: IDatagramPlugin,
    options: Mapping[str, str],
    *,
    verbose: bool = False,
    prepare: Iterable[Callable[[IDatagramPlugin, AbstractDatagramProtocol], None]] = (),
) -> Callable[[], AbstractDatagramProtocol]:
    """Return what imports and constructs a plugin's target when it is called, not before.

    The callable raises :class:`PluginError` for whatever is wrong with the target or the options. Each of ``prepare``
    is called with what was made, and may refuse it in the same way.
    """
    name = plugin.name
    wanted_by = f"protocol {name!r}"

    def make() -> AbstractDatagramProtocol:
        target = load_target(plugin.target, wanted_by, name)
        if isinstance(target, type) and not _is_servable_class(target):  # says so before it runs any more of its code
            raise PluginError(name, _not_servable(wanted_by, plugin.target))
        if isinstance(target, type) and not issubclass(target, AbstractDatagramProtocol):
            from .rpc import methods_protocol  # noqa: PLC0415  # an echo server needs no codec, and its start is timed

            made: object = methods_protocol(target, options, wanted_by, name)
        else:
            made = construct(target, options, wanted_by, name)
        try:
            protocol = as_protocol(made)
        except LocalError as error:  # a method that cannot be served
            raise PluginError(name, f"{wanted_by}: {error}") from None
        except TypeError:
            raise PluginError(name, _not_servable(wanted_by, plugin.target)) from None
        for step in prepare:
            step(plugin, protocol)
        if verbose:
            _log_each_datagram(protocol, name)
        return protocol

    return make


def _is_servable_class(target: type) -> bool:
    if issubclass(target, AbstractDatagramProtocol):
        return True
    from .methods import RPCMethods  # noqa: PLC0415  # an echo server needs no codec, and its start is timed

    return issubclass(target, RPCMethods)


def _not_servable(wanted_by: str, target: str) -> str:
    return f"{wanted_by}: {target} is neither a DatagramProtocol nor an RPCMethods"


def _log_each_datagram(protocol: Any, name: str) -> None:
    """Make a protocol log who sends how much; its methods are shadowed so that all else about it stays."""
    deliver = protocol.datagramReceived
    deliver_together = getattr(protocol, "datagrams_received", None)

    delivering = False  # each of the two may call the other

    def log_and(deliver: Callable[..., None], datagrams: Sequence[tuple[bytes, Address]], *arguments: Any) -> None:
        nonlocal delivering
        if delivering:
            deliver(*arguments)
            return
        for datagram, addr in datagrams:
            _log.info("{name}: {size} bytes from {peer}", name=name, size=len(datagram), peer=format_address(addr))
        delivering = True
        try:
            deliver(*arguments)
        finally:
            delivering = False

    protocol.datagramReceived = lambda datagram, addr: log_and(deliver, ((datagram, addr),), datagram, addr)
    if deliver_together is not None:
        protocol.datagrams_received = lambda datagrams: log_and(deliver_together, datagrams, datagrams)


class PluginService(UDPServerService):
    """Serves a plugin's target under ``twistd``: an error at the start is told in one line, a stop drains.

    Args:
        arguments: As for :class:`UDPServerService`.
        drain_timeout: Seconds that running requests are given at a stop.
        options: As for :class:`UDPServerService`.
    """

    def __init__(self, *arguments: Any, drain_timeout: float = 0.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._drain_timeout = drain_timeout
        self._is_stopping = False

    def startService(self) -> None:
        """Import, construct and serve the plugin's target.

        Raises:
            PluginError: The target cannot be had, or its code failed. It is in the log already, and should it leave
                the process unhandled, Python prints one line for it.
            LocalError: The port could not be bound anew at a second start; told in the same way.
        """
        self._is_stopping = False
        try:
            super().startService()
        except TwistedUDPError as error:
            _tell(error)
            raise
        except CannotListenError as error:
            told = LocalError(self._explain(error))
            _tell(told)
            raise told from error
        except (Exception, SystemExit) as error:
            name = self.name or ""
            told = PluginError(name, f"protocol {name!r} failed when it was started: {describe_exception(error)}")
            told.__cause__ = error
            _tell(told)
            raise told from error

    def stopService(self) -> Deferred[Any] | None:
        """Let what runs be answered, then stop; a second call, or a second SIGTERM or SIGINT, stops at once.

        ``twistd`` calls it before the reactor stops, and the reactor waits for the Deferred.
        """
        if self._is_stopping or self.address is None:
            return super().stopService()
        self._is_stopping = True
        # Before the log says that it drains: whoever reads that may send the second signal.
        handlers = {number: _at_signal(self._reactor, number, self.stopService) for number in _STOP_SIGNALS}

        def restore(result: object) -> object:
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)
            return result

        return self.drain(self._drain_timeout).addBoth(restore)

    def _explain(self, error: CannotListenError) -> str:
        if error.interface == self._interface and error.port == self._port:
            return explain_bind_error(error.socketError, error.port, error.interface)
        return explain_discovery_error(error.socketError, error.port)


def _at_signal(reactor: Any, number: signal.Signals, call: Callable[[], object]) -> Any:
    """Have something called in the reactor at a signal; return what was done at it before, None if that goes on.

    The reactor's own handler asks it to stop, which it does already, and that would be an error in the log.
    """
    try:
        return signal.signal(number, lambda *_: reactor.callFromThread(call))
    except ValueError:  # not in the main thread: whoever runs a reactor there deals with signals
        return None


def _tell(error: TwistedUDPError) -> None:
    """Log an error, with the traceback of the plugin's code if it caused it, and shorten what Python prints for it."""
    text = str(error)
    if error.__cause__ is not None:
        text = f"{text}\n{own_traceback(error.__cause__).rstrip()}"
    _log.critical("{text}", text=text)
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], value: BaseException, frames: TracebackType | None) -> None:
        if value is not error:
            previous(kind, value, frames)
        elif sys.__stderr__ is not None:  # twistd has put sys.stderr into the log, where the error is already
            sys.__stderr__.write(f"twistd udpecho: {error}\n")
            sys.__stderr__.flush()

    sys.excepthook = excepthook
