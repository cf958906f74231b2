"""One echo server in Python, in a process of its own: ``benchmarks/echo`` starts it and ends it.

    python _echo_serve.py KIND ADDRESS

Theory of operation: it tells its port in a line of JSON, then echoes. A line on its standard input asks for what it has
counted, which only our own ports do; the end of standard input is the end of the process. A thread waits for both,
asleep, so that it costs nothing while replies are counted. Each server is what a programmer of that library would write
first; only the receive buffer is enlarged, so that a window of 512 fits in.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from _session import tell
from twisted.internet.protocol import DatagramProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "RECEIVE_BUFFER"]

RECEIVE_BUFFER: Final = 4 << 20
"""Bytes; without root's rights net.core.rmem_max may grant less."""

_SO_RCVBUFFORCE: Final = 33  # <asm-generic/socket.h>
_ANY: Final = "0.0.0.0"  # noqa: S104  # to be reached by one address only, in a measurement


class Echo(DatagramProtocol):
    """Send back what comes."""

    transport: Any

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Send it back."""
        self.transport.write(datagram, addr)


class AsyncioEcho(asyncio.DatagramProtocol):
    """Send back what comes, under asyncio."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send it back."""
        self.transport.sendto(data, addr)


def enlarge(handle: socket.socket) -> int:
    """Ask for a receive buffer that the largest window fits in, and return the bytes that were granted."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    with suppress(OSError):  # only root may pass the limit
        handle.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    return handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux reports the double (socket(7))


def bound(address: str) -> socket.socket:
    """Return a socket bound to a free port."""
    handle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    handle.bind((address, 0))
    return handle


def answer(count: Callable[[], None] | None = None) -> None:
    """Begin to call a function for each line on standard input, in a thread; at its end, end the process."""

    def wait() -> None:
        for _ in sys.stdin:
            if count is not None:
                count()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def serve_plain(_: str, address: str) -> None:
    """Echo as the tutorials do: a loop of recvfrom and sendto."""
    handle = bound(address)
    answer()
    tell(port=handle.getsockname()[1], receive_buffer=enlarge(handle))
    while True:
        payload, peer = handle.recvfrom(65535)
        handle.sendto(payload, peer)


def serve_asyncio(kind: str, address: str) -> None:
    """Echo under asyncio, on its own loop or on uvloop's."""
    if kind == "uvloop":
        from importlib import import_module  # noqa: PLC0415  # only here

        asyncio.set_event_loop_policy(import_module("uvloop").EventLoopPolicy())

    async def main() -> None:
        handle = bound(address)
        handle.setblocking(False)
        granted = enlarge(handle)
        await asyncio.get_running_loop().create_datagram_endpoint(AsyncioEcho, sock=handle)
        answer()
        tell(port=handle.getsockname()[1], receive_buffer=granted, loop=type(asyncio.get_running_loop()).__module__)
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


def serve_twisted(_: str, address: str) -> None:
    """Echo on Twisted's own port."""
    reactor = _reactor()
    port = reactor.listenUDP(0, Echo(), interface=address)
    answer()
    tell(port=port.getHost().port, receive_buffer=enlarge(port.getHandle()), reactor=type(reactor).__name__)
    reactor.run()


def serve_ours(kind: str, address: str) -> None:
    """Echo on our port, with the backend that the kind names."""
    import twistedudp  # noqa: PLC0415  # not in the processes of others

    reactor = _reactor()
    backend, _, wildcard = kind.partition("-")
    listen: Any = twistedudp.listen
    port = listen(reactor, 0, Echo(), _ANY if wildcard else address, backend=backend)
    answer(lambda: reactor.callFromThread(lambda: tell(**_counted(port))))
    _tell_port(reactor, port)
    reactor.run()


def serve_udpecho(_: str, address: str) -> None:
    """Be ``twistd udpecho`` with its default options, but for the port, which is a free one."""
    from twisted.scripts.twistd import run  # noqa: PLC0415  # not in the processes of others

    reactor = _reactor()
    sys.argv = ["twistd", "--nodaemon", "--pidfile=", f"--logfile={os.devnull}"]
    sys.argv += ["udpecho", "--port", "0", *(["--interface", address] if address != "127.0.0.1" else [])]

    def begin() -> None:
        sys.stdout = sys.__stdout__  # twistd has put it into its log
        protocol = _served_protocol()
        answer(lambda: reactor.callFromThread(_probe, reactor, protocol))
        _tell_port(reactor, protocol.transport)

    reactor.callWhenRunning(begin)
    run()  # type: ignore[no-untyped-call]  # Twisted has no annotation here


def _probe(reactor: Any, protocol: Any) -> None:
    """Let the server send a datagram to its own address, which it must refuse and count, and tell what it counted."""
    own = protocol.transport.getHost()
    protocol.transport.write(b"from myself", (own.host, own.port))

    def finish() -> None:
        from dataclasses import asdict  # noqa: PLC0415  # only here

        tell(**_counted(protocol.transport), **asdict(protocol.stats))

    # The datagram has arrived by the time that the call above returns; the reactor reads it before this falls due.
    reactor.callLater(0.05, finish)


def _served_protocol() -> Any:
    """Return the protocol of the service that twistd runs in this process; nothing of twistd hands it out."""
    import gc  # noqa: PLC0415  # only here

    from twistedudp import UDPServerService  # noqa: PLC0415  # not in the processes of others

    (protocol,) = (
        found.protocol for found in gc.get_objects() if isinstance(found, UDPServerService) and found.protocol
    )
    return protocol


def _tell_port(reactor: Any, port: Any) -> None:
    granted = enlarge(port.getHandle())
    tell(port=port.getHost().port, receive_buffer=granted, reactor=type(reactor).__name__, backend=port.backend)


def _counted(port: Any) -> dict[str, int]:
    stats = port.stats
    names = ("datagrams_received", "datagrams_sent", "sent_together", "system_calls", "batches", "dropped_by_kernel")
    return {name: getattr(stats, name) for name in names}


def _reactor() -> Any:
    from twisted.internet import reactor  # noqa: PLC0415  # asyncio's servers have none

    return reactor


KINDS: Final[dict[str, Callable[[str, str], None]]] = {
    "mmsg": serve_ours,
    "mmsg-wildcard": serve_ours,
    "scalar": serve_ours,
    "scalar-wildcard": serve_ours,
    "udpecho": serve_udpecho,
    "twisted": serve_twisted,
    "tutorial": serve_plain,
    "asyncio": serve_asyncio,
    "uvloop": serve_asyncio,
}
"""The servers, each a function of its name and the address to serve."""


if __name__ == "__main__":
    try:
        KINDS[sys.argv[1]](*sys.argv[1:])
    except Exception as error:  # noqa: BLE001  # whatever it is: it is the last line, and the one that is shown
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)
