"""What the tests of attacks share: a field, servers on it, forged datagrams, and one honest socket.

Theory of operation: everything is a process of its own, so a test only waits for processes and for answers to what it
has sent itself. A server answers in order: when it answers a test's own request, it is done with all that came before.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.compiling import missing_compiler
from tests.integration.netns import missing_for_namespaces
from tests.integration.sockets import PATIENCE
from tests.integration.twistd import Directory, RunningTwistd
from tests.siege.field import SERVER, Field
from tests.siege.processes import Forgery, favour
from tests.siege.siege import METHODS
from twistedudp import _msgpack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from tests.integration.netns import NetworkNamespace
    from tests.siege.payloads import Payload

    Made = TypeVar("Made")

__all__ = ["RPC", "SiegeTestCase"]

RPC: Final = ("--protocol", "rpc", "--protocol-option", "class=besieged:Besieged")
"""The options of a server of the methods that are besieged."""


class SiegeTestCase(SynchronousTestCase):
    """Servers that are attacked.

    Attributes:
        field: Where they are.
    """

    def setUp(self) -> None:
        """Make the field."""
        if reason := missing_for_namespaces() or missing_compiler():
            raise SkipTest(reason)
        self.field = self.enter(Field())
        self.directory = self.enter(Directory())
        self.directory.write("besieged.py", METHODS)
        self.servers: list[RunningTwistd] = []

    def enter(self, context: AbstractContextManager[Made]) -> Made:
        """Enter a context for the rest of the test."""
        made = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return made

    def serve(self, *options: str, interface: str = "0.0.0.0") -> int:  # noqa: S104  # all of a namespace
        """Start a server for the rest of the test and return its port; its log must stay small, without tracebacks."""
        with self.field.server.entered():
            server = RunningTwistd("--interface", interface, *options, python_path=[self.directory.path], apart=True)
        self.enter(server)
        favour(server.process.pid)
        self.servers.append(server)
        self.addCleanup(self.check_log, server)
        return server.address[1]

    def check_log(self, server: RunningTwistd) -> None:
        """Check that a server lives, and that what it logged is little and tells of no fault of its own."""
        log = server.output + server.errors
        self.assertIs(server.process.poll(), None, log)
        self.assertNotIn("Traceback", log)
        self.assertNotIn("Unhandled", log)
        self.assertLess(len(log), 20_000, log[:5000])

    def forge(self, port: int, payloads: Iterable[Payload], server: str = SERVER, **how: Any) -> dict[str, Any]:
        """Send datagrams with forged sources to a server, and return the figures when all are sent."""
        with Forgery(self.field.attacker, (server, port), payloads, **how) as forgery:
            return forgery.figures()

    def socket_in(self, namespace: NetworkNamespace, family: int = socket.AF_INET) -> socket.socket:
        """Return a plain socket on a host for the rest of the test."""
        with namespace.entered():
            made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(PATIENCE)
        self.addCleanup(made.close)
        return made

    def settle(self, port: int, server: str = SERVER) -> None:
        """Wait until an rpc server has dealt with all that was sent to it before."""
        asking = self.socket_in(self.field.strangers, socket.AF_INET6 if ":" in server else socket.AF_INET)
        asking.sendto(_msgpack.encode_request(1, "add", [1, 2]), (server, port))
        self.assertEqual(
            _msgpack.decode_untrusted(asking.recv(2000)),
            _msgpack.decode_untrusted(_msgpack.encode_response(1, None, 3)),
        )
