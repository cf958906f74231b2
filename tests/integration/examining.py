"""Examinations by the doctor in networks that are really broken: what its integration tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.trial.unittest import SkipTest

from tests.integration.netns import missing_for_namespaces
from tests.integration.routed import HOSTS, RoutedPath, ServerProcess
from tests.integration.sockets import RealTestCase
from twistedudp.doctor import Thoroughness, examine

if TYPE_CHECKING:
    from tests.integration.routed import Hosts
    from twistedudp.doctor import Finding

__all__ = ["CLOSED", "LARGEST_USUAL", "PATIENCE", "DoctorCase"]

PATIENCE: Final = 0.5
"""Seconds of silence that are believed here; on a wire without a length they are plenty."""

CLOSED: Final = 9
"""A port at which nobody listens."""

LARGEST_USUAL: Final = {"IPv4": 1472, "IPv6": 1452}
"""Bytes of the largest payload in one packet of 1,500 bytes."""


class DoctorCase(RealTestCase):
    """An examination from the client of a routed path."""

    family: ClassVar[str] = "IPv4"
    hosts: ClassVar[Hosts] = HOSTS["IPv4"]
    narrow: ClassVar[int] = 1500

    def setUp(self) -> None:
        """Make the machines and enter the client's."""
        super().setUp()
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.path = RoutedPath(narrow=self.narrow)
        self.addCleanup(self.path.__exit__)
        entered = self.path.client.entered()
        entered.__enter__()
        self.addCleanup(entered.__exit__, None, None, None)

    def serve(self, host: str = "", mode: str = "echo") -> int:
        """Start a server on the server's machine for the rest of the test, and return its port."""
        server = ServerProcess(self.path.server, host or self.hosts.server, mode)
        self.addCleanup(server.stop)
        return server.port

    async def examine(self, host: str, port: int, **how: Any) -> list[Finding]:
        """Examine a server; only ask, unless told otherwise."""
        chosen = Thoroughness(**{"timeout": PATIENCE, "quick": True, **how})
        return await examine(self.reactor, host, port, how=chosen)

    async def only(self, code: str, host: str, port: int, **how: Any) -> Finding:
        """Examine a server and return the only finding, which must have a code; it is a fault."""
        findings = await self.examine(host, port, **how)
        self.assertEqual([finding.code for finding in findings], [code], findings)
        [finding] = findings
        self.assertTrue(finding.fault)
        self.assertTrue(finding.advice)
        return finding

    def assert_evidence(self, finding: Finding, *texts: str) -> None:
        """Check that texts are in the evidence."""
        for text in texts:
            self.assertTrue(any(text in line for line in finding.evidence), (text, finding))

    @property
    def icmp(self) -> str:
        """What the family's ICMP is called."""
        return "ICMP" if self.family == "IPv4" else "ICMPv6"
