"""Ports among addresses that a loopback interface does not have: IPv6 groups, and link-local addresses.

Everything happens at one end of a wire in a network of its own; nobody is at the other end. What is sent to this
machine itself is in the receiver's queue when the call returns, so that ports are read without a turn of a reactor.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.netns import Wire, missing_for_namespaces
from tests.integration.sockets import PATIENCE
from tests.transport.fakes import Notes
from twistedudp.errors import LocalError
from twistedudp.transport import BACKENDS, listen
from twistedudp.transport._backend import choose_backend

BARE = "fe80::7761"
DEVICE = "veth0"
LINK_LOCAL = f"{BARE}%{DEVICE}"
GROUP = "ff05::7761"
"""A group of the site's (RFC 4291 section 2.7)."""


def backends() -> list[str]:
    """Return the backends that there are."""
    found = []
    for backend in BACKENDS:
        try:
            found.append(choose_backend(backend).name)
        except LocalError:  # noqa: PERF203  # not built
            continue
    return found


class WireTests(SynchronousTestCase):
    """Ports in a network of their own."""

    def setUp(self) -> None:
        """Make the network and be in it until the test ends, so that names of interfaces are those of this network."""
        missing = missing_for_namespaces()
        if missing:
            raise SkipTest(missing)
        wire = Wire()
        self.addCleanup(wire.__exit__)
        # "nodad": an address is of no use while it is still being looked for elsewhere (RFC 4862).
        wire.here.run("ip", "address", "add", f"{BARE}/64", "dev", DEVICE, "nodad")
        inside = wire.here.entered()
        inside.__enter__()
        self.addCleanup(inside.__exit__, None, None, None)

    def listen(self, interface: str, backend: str) -> Any:
        """Listen until the test ends."""
        reactor = MemoryReactorClock()  # type: ignore[no-untyped-call]  # Twisted has no types there
        port: Any = listen(reactor, 0, Notes(), interface, backend=backend)
        self.addCleanup(port.connectionLost)
        return port

    def test_groups(self) -> None:
        """A group of IPv6 is heard from joining it to leaving it, and by nobody else."""
        for backend in backends():
            port, other, sending = (self.listen("::", backend) for _ in range(3))
            told: list[tuple[bytes, bool]] = []
            port.protocol.does = lambda datagram, _, port=port, told=told: told.append(
                (datagram, port.delivering_to_group)
            )
            self.successResultOf(other.joinGroup(GROUP, DEVICE))
            self.successResultOf(sending.setOutgoingInterface(DEVICE))
            for change in (None, port.joinGroup, port.leaveGroup):
                if change is not None:
                    self.successResultOf(change(GROUP, LINK_LOCAL))
                sending.write(b"group", (GROUP, port.getHost().port))
                sending.write(b"own", (LINK_LOCAL, port.getHost().port))
                port.doRead()
            self.assertEqual([(b"own", False), (b"group", True), (b"own", False), (b"own", False)], told)

    def test_scopes(self) -> None:
        """A link-local peer's address has its scope, and can be written and connected to."""
        for backend in backends():
            for interface in ("::", LINK_LOCAL):
                port = self.listen(interface, backend)
                client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                self.addCleanup(client.close)
                client.settimeout(PATIENCE)
                scope = socket.if_nametoindex(DEVICE)
                client.bind((BARE, 0, 0, scope))
                number = client.getsockname()[1]
                client.sendto(b"hello", (BARE, port.getHost().port, 0, scope))
                port.doRead()
                self.assertEqual([(b"hello", (LINK_LOCAL, number))], port.protocol.notes)
                port.write(b"to the address", port.protocol.notes[0][1])
                port.write(b"to an equal one", (LINK_LOCAL, number))
                port.connect(LINK_LOCAL, number)
                self.assertEqual(LINK_LOCAL, port.getHost().host)
                port.write(b"connected")
                received = [client.recv(99) for _ in range(3)]
                self.assertEqual([b"to the address", b"to an equal one", b"connected"], received)
