"""What a port owes whoever gave it an admission policy, and ports with one fault each that must not pass."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import capturedLogs, formatEvent

from tests.contracts.case import BatchPeer, ContractCase, Peer, address_of, echo
from twistedudp.admission import Admission, AdmissionPolicy
from twistedudp.transport import DatagramPort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.python.failure import Failure

__all__ = ["BROKEN_AT_ADMISSION", "AdmissionContract"]

SLOW: Final = 0.001
"""Datagrams per second: no test lasts until the next one is due."""

LOOPBACK: Final = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))


class AdmissionContract(ContractCase):
    """Who is let in."""

    def refused(self, port: Any) -> dict[str, int]:
        """Return what was refused by reason."""
        return dict(port.admission_stats.refused)

    def wait_refused(self, port: Any, **expected: int) -> None:
        """Wait until so many were refused, by reason."""
        self.wait(lambda: self.refused(port) == expected, f"not refused: {expected}")

    def wait_let_in(self, server: Peer, count: int) -> None:
        """Wait until so many were let in."""
        self.wait(lambda: len(server.received) >= count, "not enough were let in")

    def send(self, port: Any, count: int, interface: str = "127.0.0.1", size: int = 3) -> Peer:
        """Send datagrams of equal size, as the kernel likes to put together, from a host; return the sender."""
        sender = Peer()
        sending = self.listen(sender, interface)
        for number in range(count):
            sending.write(b"%03d" % number * size, address_of(port, interface))
        return sender

    def test_burst_is_let_in(self) -> None:
        """A host's burst is let in, its first datagrams; the rest is counted and nobody is answered."""
        for server in (Peer(echo), BatchPeer(echo)):
            port = self.listen(server, admission=AdmissionPolicy(rate=SLOW, burst=7))
            sender = self.send(port, 40)
            self.wait_refused(port, host_rate=33)
            self.wait_let_in(sender, 7)
            self.provider.settle()
            self.assertEqual([b"%03d" % number * 3 for number in range(7)], server.payloads)
            self.assertEqual(({"host_rate": 33}, 7), (self.refused(port), port.stats.datagrams_received))
            self.assertEqual(7, len(sender.received))

    def test_denied_and_trusted(self) -> None:
        """A denied network is not let in, and a trusted one always, also where the rate of all is used up."""
        policy = AdmissionPolicy(rate=SLOW, burst=1, total_rate=SLOW, trust=LOOPBACK)
        for kind in (Peer, BatchPeer):
            port = self.listen(server := kind(), admission=policy)
            self.send(port, 50)
            self.wait_let_in(server, 50)
            self.assertEqual({}, self.refused(port))
            port = self.listen(server := kind(), admission=dataclasses.replace(policy, deny=LOOPBACK))
            self.send(port, 50)
            self.wait_refused(port, denied=50)
            self.assertEqual([], server.received)

    def test_ipv6(self) -> None:
        """It holds for IPv6, and for IPv4 on a port of both, whose networks are those of IPv4."""
        port = self.listen(six := Peer(), "::1", admission=AdmissionPolicy(rate=SLOW, burst=2))
        self.send(port, 5, "::1")
        self.wait_refused(port, host_rate=3)
        self.assertEqual(2, len(six.received))
        both = self.listen(server := Peer(), "::", admission=AdmissionPolicy(deny=(ip_network("127.0.0.0/8"),)))
        self.send(both, 5)
        self.send(both, 4, "::1")
        self.wait_refused(both, denied=5)
        self.wait_let_in(server, 4)
        self.assertEqual({"::1"}, {host for host, _ in server.peers})

    def test_log_only(self) -> None:
        """A policy on trial lets everything in and counts what it would not have."""
        for server in (Peer(), BatchPeer()):
            port = self.listen(server, admission=AdmissionPolicy(rate=SLOW, burst=4, log_only=True))
            self.send(port, 30)
            self.wait_let_in(server, 30)
            self.assertEqual(({"host_rate": 26}, 30), (self.refused(port), port.stats.datagrams_received))

    def test_without_admission(self) -> None:
        """A port without a policy lets everybody in and has no counters of it."""
        port = self.listen(server := Peer())
        self.assertIsNone(port.admission_stats)
        self.send(port, 100)
        self.wait_let_in(server, 100)

    def test_size(self) -> None:
        """A large datagram counts as so many as it takes packets."""
        port = self.listen(server := Peer(), admission=AdmissionPolicy(rate=SLOW, burst=5))
        sending = self.listen(Peer())
        for size in (3000, 3001, 1):
            sending.write(bytes(size), address_of(port))
        self.wait_refused(port, host_rate=1)
        self.assertEqual(list(map(len, server.payloads)), [3000, 3001])

    def test_time_brings_tokens(self) -> None:
        """A host that was refused is let in again when time has passed."""
        port = self.listen(server := Peer(), admission=AdmissionPolicy(rate=20.0, burst=1))
        sending = self.listen(Peer())
        later: list[bool] = []
        for number in range(3):
            sending.write(b"%d" % number, address_of(port))
        self.wait_refused(port, host_rate=2)
        self.provider.call_later(0.06, lambda: later.append(True))
        self.wait(lambda: bool(later), "no timer")
        sending.write(b"again", address_of(port))
        self.wait(lambda: server.payloads == [b"0", b"again"], "not let in again")

    def test_refusals_are_logged_once(self) -> None:
        """However many are refused, it is one line for a reason and a network, and their number at the end."""
        with capturedLogs() as events:
            port = self.listen(Peer(), admission=AdmissionPolicy(rate=SLOW, burst=1))
            self.send(port, 60)
            self.wait_refused(port, host_rate=59)
            self.stop(port)
        lines = [text for event in events if "refused" in (text := formatEvent(event))]
        self.assertEqual(2, len(lines), lines)
        self.assertIn(
            "127.0.0.0/24 (from 127.0.0.1): the host sent more than 0.001 datagrams of up to 1,500 bytes a second",
            lines[0],
        )
        self.assertIn("refused 58 more datagrams", lines[1])

    def test_not_a_policy(self) -> None:
        """What is no policy is refused where it is given."""
        with self.assertRaisesRegex(TypeError, "admission=1000: it must be None or a twistedudp.AdmissionPolicy"):
            self.listen(Peer(), admission=1000)


class _ChangesThePolicy(DatagramPort):
    """A policy that is not the one that was given."""

    changes: Mapping[str, Any]

    def __init__(self, *arguments: Any, admission: AdmissionPolicy | None = None, **options: Any) -> None:
        changed = admission if admission is None else dataclasses.replace(admission, **self.changes)
        super().__init__(*arguments, admission=changed, **options)


class LetsAllIn(_ChangesThePolicy):
    """It counts, but it refuses nothing."""

    changes = {"log_only": True}  # noqa: RUF012  # nobody changes it


class RefusesOnTrial(_ChangesThePolicy):
    """A policy on trial is in force."""

    changes = {"log_only": False}  # noqa: RUF012  # likewise


class TrustsNobody(_ChangesThePolicy):
    """It forgets whom to trust."""

    changes = {"trust": ()}  # noqa: RUF012  # likewise


class KnowsMappedAddresses(_ChangesThePolicy):
    """It does not know that IPv4 on a port of both is IPv4."""

    changes = {"deny": (ip_network("::ffff:0:0/96").supernet(),)}  # noqa: RUF012  # likewise


class AdmitsFewByDefault(DatagramPort):
    """It has a policy that nobody gave."""

    def __init__(self, *arguments: Any, admission: AdmissionPolicy | None = None, **options: Any) -> None:
        super().__init__(*arguments, admission=admission or AdmissionPolicy(rate=SLOW, burst=1), **options)


class StandsStill(DatagramPort):
    """Its clock does not go on."""

    def startListening(self) -> None:
        """Stop the clock."""
        assert self._options.admission is not None
        self._options.admission.clock = lambda: 1
        super().startListening()


class ForgetsTheRest(DatagramPort):
    """It does not tell how many refusals it has not logged."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Forget them."""
        if self._options.admission is not None:
            self._options.admission._refusals.not_shown = 0
        super().connectionLost(reason)


class _CountsNoBytes(Admission):
    """A datagram counts as one, however large it is."""

    def admitted(self, host: str, now: int, count: int, weight: int = 1) -> int:
        """Forget the weight."""
        return super().admitted(host, now, count, min(weight, 1))


class CountsNoBytes(DatagramPort):
    """It decides so."""

    def startListening(self) -> None:
        """Change what decides."""
        admission = self._options.admission
        assert admission is not None
        admission._decider = _CountsNoBytes(admission.policy, key=admission.key, stats=admission.stats)
        super().startListening()


class TakesAnyPolicy(DatagramPort):
    """It does not look at what it is given."""

    def __init__(self, *arguments: Any, admission: Any = None, **options: Any) -> None:
        super().__init__(*arguments, admission=None, **options)


BROKEN_AT_ADMISSION: Final[Mapping[str, type[DatagramPort]]] = {
    "test_burst_is_let_in": LetsAllIn,
    "test_denied_and_trusted": TrustsNobody,
    "test_ipv6": KnowsMappedAddresses,
    "test_log_only": RefusesOnTrial,
    "test_without_admission": AdmitsFewByDefault,
    "test_size": CountsNoBytes,
    "test_time_brings_tokens": StandsStill,
    "test_refusals_are_logged_once": ForgetsTheRest,
    "test_not_a_policy": TakesAnyPolicy,
}
"""For each of these tests a port that it must refuse."""
