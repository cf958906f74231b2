"""The doctor's first question in networks that are really broken: one test for each thing that stops a datagram."""

from __future__ import annotations

import socket
from typing import Final

import pytest
from twisted.internet.defer import Deferred

from tests.integration import icmp
from tests.integration.addresses import ip_batch
from tests.integration.examining import CLOSED, DoctorCase
from tests.integration.routed import HOSTS
from tests.integration.sockets import address_of
from twistedudp.doctor._asking import CLOSED_PORT

pytestmark = pytest.mark.heavy

_REJECTS: Final = (
    ("type net-unreachable", "UDP-NET-UNREACHABLE", "3/0"),
    ("type host-unreachable", "UDP-HOST-UNREACHABLE", "3/1"),
    ("type prot-unreachable", "UDP-UNREACHABLE", "3/2"),
    ("type port-unreachable", "UDP-PROHIBITED", "3/3"),
    ("type net-prohibited", "UDP-PROHIBITED", "3/9"),
    ("type host-prohibited", "UDP-PROHIBITED", "3/10"),
    ("type admin-prohibited", "UDP-PROHIBITED", "3/13"),
)
_REJECTS_6: Final = (
    ("type no-route", "UDP-NET-UNREACHABLE", "1/0"),
    ("type admin-prohibited", "UDP-PROHIBITED", "1/1"),
    ("type addr-unreachable", "UDP-HOST-UNREACHABLE", "1/3"),
    ("type port-unreachable", "UDP-PROHIBITED", "1/4"),
    ("type policy-fail", "UDP-PROHIBITED", "1/5"),
    ("type reject-route", "UDP-PROHIBITED", "1/6"),
)


def both(*cases: type[DoctorCase]) -> None:
    """Make a test class of each case for each family."""
    for case in cases:
        for family, hosts in HOSTS.items():
            name = case.__name__.removesuffix("Case") + family + "Tests"
            members = {"family": family, "hosts": hosts, "__module__": __name__, "__doc__": case.__doc__}
            globals()[name] = pytest.mark.heavy(type(name, (case,), members))


class AnsweredCase(DoctorCase):
    """Servers that answer, rightly or not."""

    async def test_not_echo(self) -> None:
        """A server that sends back other bytes is none, and the evidence shows some of them."""
        port = self.serve(mode="changes")
        finding = await self.only("UDP-NOT-ECHO", self.hosts.server, port)
        self.assert_evidence(finding, "no answer to a probe")

    async def test_other_address(self) -> None:
        """A server with two addresses that is bound to all of them answers from the wrong one."""
        self.path.second_address()
        port = self.serve("0.0.0.0" if self.family == "IPv4" else "::")  # noqa: S104  # that is the fault
        finding = await self.only("UDP-OTHER-ADDRESS", self.hosts.second, port)
        self.assertIn(f"from another address, {self.hosts.server}", finding.says)
        self.assertIn(f"Bind the server to {self.hosts.second} alone", finding.advice)

    async def test_bound_to_one_address(self) -> None:
        """The same server bound to the address that is asked is all right, as the advice says."""
        self.path.second_address()
        port = self.serve(self.hosts.second)
        self.assertEqual([one.code for one in await self.examine(self.hosts.second, port)], ["UDP-ANSWERED"])

    async def test_other_port(self) -> None:
        """A server that answers from another port is told as such."""
        port = self.serve(mode="other port")
        finding = await self.only("UDP-OTHER-ADDRESS", self.hosts.server, port)
        self.assertIn("from another port", finding.says)


class RefusedCase(DoctorCase):
    """Errors that the host or the router sends."""

    async def test_refused(self) -> None:
        """Where nobody listens the host itself says so."""
        finding = await self.only("UDP-REFUSED", self.hosts.server, CLOSED)
        self.assertIn(f"{self.hosts.server} is up and refuses", finding.says)
        self.assert_evidence(finding, f"port unreachable, from {self.hosts.server}, quoting what was sent")

    async def test_rejected_on_the_way(self) -> None:
        """Each kind of reject of a router makes its own finding, which names the router."""
        port = self.serve()
        family, kinds = ("icmp", _REJECTS) if self.family == "IPv4" else ("icmpv6", _REJECTS_6)
        for kind, code, number in kinds:
            self.path.rules(self.path.router, "forward", f"udp dport {port} reject with {family} {kind}")
            finding = await self.only(code, self.hosts.server, port)
            self.assertIn(self.hosts.router_far, finding.says)
            self.assert_evidence(finding, f"{self.icmp} {number}, ", f"from {self.hosts.router_far}, quoting")
            self.path.router.run("nft", "delete", "table", "inet", "doctor_forward")

    async def test_prohibited_by_the_host(self) -> None:
        """A reject by the host's own firewall is the host's, not a router's."""
        port = self.serve()
        kind = "icmp type host-prohibited" if self.family == "IPv4" else "icmpv6 type admin-prohibited"
        self.path.rules(self.path.server, "input", f"udp dport {port} reject with {kind}")
        finding = await self.only("UDP-PROHIBITED", self.hosts.server, port)
        self.assertIn("the firewall of the host itself", finding.says)

    async def test_host_unreachable(self) -> None:
        """A host that is not there is reported by the last router."""
        self.path.forget_neighbours_quickly(self.path.router, "near")
        finding = await self.only("UDP-HOST-UNREACHABLE", self.hosts.absent, CLOSED)
        self.assertIn(f"the router {self.hosts.router_far} cannot reach the host {self.hosts.absent}", finding.says)

    async def test_host_unreachable_here(self) -> None:
        """A host that is not in the own network is reported by the own machine."""
        self.path.forget_neighbours_quickly(self.path.client, "far")
        finding = await self.only("UDP-HOST-UNREACHABLE", self.hosts.absent_near, CLOSED)
        self.assertIn("this machine itself cannot reach", finding.says)

    async def test_net_unreachable(self) -> None:
        """A router without a route says so."""
        finding = await self.only("UDP-NET-UNREACHABLE", self.hosts.elsewhere, CLOSED)
        self.assertIn(f"the router {self.hosts.router_far} has no way", finding.says)

    async def test_loop(self) -> None:
        """Routers that send a datagram to and fro let its hops run out."""
        self.path.server.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        ip_batch(self.path.router, f"route add {self.hosts.elsewhere} via {self.hosts.server}")
        finding = await self.only("UDP-UNREACHABLE", self.hosts.elsewhere, CLOSED)
        self.assertIn("exceeded in transit; datagrams run in a circle", finding.says)


class SilentCase(DoctorCase):
    """Nothing comes back."""

    async def test_dropped(self) -> None:
        """What a router drops is silence; the routers up to it are named."""
        port = self.serve()
        self.path.rules(self.path.router, "forward", "meta l4proto udp drop")
        finding = await self.only("UDP-SILENT", self.hosts.server, port)
        self.assertIn(f"the last router that let itself be seen is {self.hosts.router_far}, 1 hops away", finding.says)
        self.assert_evidence(finding, "sent 64 bytes to", "nothing came back within 0.5 s")

    async def test_port_dropped(self) -> None:
        """Where only the one port is dropped, the host is seen to be up."""
        port = self.serve()
        self.path.rules(self.path.router, "forward", f"udp dport {port} drop")
        finding = await self.only("UDP-SILENT", self.hosts.server, port)
        self.assertIn("but its host is up", finding.says)

    async def test_mute(self) -> None:
        """A server that reads and does not answer looks the same, and the advice says where to look."""
        port = self.serve(mode="mute")
        finding = await self.only("UDP-SILENT", self.hosts.server, port)
        self.assertIn(f"udpecho doctor --local :{port}", finding.advice)

    async def test_forged_errors(self) -> None:
        """ICMP errors that do not quote what was sent change nothing, and are shown as what they are."""
        with self.path.server.entered():
            bound = socket.socket(socket.AF_INET6 if self.family == "IPv6" else socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(bound.close)
            bound.bind((self.hosts.server, 0))
            bound.setblocking(False)
            raw = icmp.raw_socket(self.hosts.server)
            self.addCleanup(raw.close)
        kind = icmp.PORT_UNREACHABLE if self.family == "IPv4" else icmp.PORT_UNREACHABLE_6
        forged: list[bytes] = []

        def forge() -> bool:
            try:
                probe, client = bound.recvfrom(65535)
            except BlockingIOError:
                return outcome.called
            for quoted in (bytes(64), b""):
                error = icmp.error_about(client[:2], address_of(bound), quoted, kind=kind)
                raw.sendto(error, (client[0], 0))
            forged.append(probe)
            return outcome.called

        outcome = Deferred.fromCoroutine(self.only("UDP-SILENT", *address_of(bound)))
        await self.until(forge)
        finding = await outcome
        self.assertGreater(len(forged), 1)
        self.assert_evidence(finding, "quoting what was never sent: forged, perhaps", "quoting too little to prove")


class LocalCausesCase(DoctorCase):
    """Faults of the own machine."""

    async def test_rule_drops(self) -> None:
        """A rule that drops what leaves is told to the sender as EPERM."""
        port = self.serve()
        self.path.rules(self.path.client, "output", f"udp dport {port} drop")
        finding = await self.only("UDP-LOCAL-FIREWALL", self.hosts.server, port)
        self.assert_evidence(finding, "(EPERM)")

    async def test_rule_against_the_knock(self) -> None:
        """A rule against the port that is tried in silence says nothing of the one asked about."""
        port = self.serve(mode="mute")
        self.path.rules(self.path.client, "output", f"udp dport {CLOSED_PORT} drop")
        await self.only("UDP-SILENT", self.hosts.server, port)

    async def test_rule_rejects(self) -> None:
        """A rule that rejects what leaves sends an ICMP error from the own address, which is no router's."""
        port = self.serve()
        self.path.rules(self.path.client, "output", f"udp dport {port} reject")
        finding = await self.only("UDP-LOCAL-FIREWALL", self.hosts.server, port)
        self.assert_evidence(finding, f"from {self.hosts.client}, quoting what was sent")

    async def test_no_route(self) -> None:
        """Without a route the own kernel says so."""
        ip_batch(self.path.client, f"route del default via {self.hosts.router_far}")
        finding = await self.only("UDP-NO-ROUTE", self.hosts.server, CLOSED)
        self.assertIn("ENETUNREACH", finding.says)

    async def test_routes_that_forbid(self) -> None:
        """Routes of the types that forbid are routes that are missing, each with its own error."""
        for kind, name in (("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES"), ("blackhole", "EINVAL")):
            ip_batch(self.path.client, f"route add {kind} {self.hosts.server}")
            finding = await self.only("UDP-NO-ROUTE", self.hosts.server, CLOSED)
            self.assertIn(name, finding.says)
            ip_batch(self.path.client, f"route del {kind} {self.hosts.server}")

    async def test_ports_exhausted(self) -> None:
        """Without a free port to send from the range is named, and how many of it are in use."""
        self.path.client.run("sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=40000 40001")
        kind = socket.AF_INET6 if self.family == "IPv6" else socket.AF_INET
        for port in (40000, 40001):
            holder = socket.socket(kind, socket.SOCK_DGRAM)
            self.addCleanup(holder.close)
            holder.bind(("", port))
        finding = await self.only("UDP-PORTS-EXHAUSTED", self.hosts.server, CLOSED)
        self.assertIn("40000 to 40001", finding.says)
        self.assert_evidence(finding, "2 ports, 2 of them in use")

    async def test_broadcast(self) -> None:
        """An address of many is none of a server, whether all see that or only the own kernel knows."""
        for host in ("255.255.255.255", "198.19.0.255", "224.0.0.1") if self.family == "IPv4" else ("ff02::1%far",):
            finding = await self.only("UDP-BROADCAST", host, CLOSED)
            self.assertIn("a broadcast or multicast address", finding.says)

    async def test_name_unknown(self) -> None:
        """A name without an address of the family is told, and nothing is sent."""
        self.names({"there.example": ()})
        finding = await self.only("UDP-NAME-UNKNOWN", "there.example", CLOSED)
        self.assertIn("'there.example' has no", finding.says)


both(AnsweredCase, RefusedCase, SilentCase, LocalCausesCase)
for _case in (DoctorCase, AnsweredCase, RefusedCase, SilentCase, LocalCausesCase):
    del globals()[_case.__name__]
del _case
