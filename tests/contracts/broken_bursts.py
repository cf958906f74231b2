"""More ports with one fault each: those that the sections on bursts, answers, groups, turns and counters must find.

Theory of operation: most faults of a port that puts datagrams together are faults of its queue. :class:`_QueuesAnswers`
is such a port in a few lines, and each of its heirs does one thing wrong with what it has queued.
"""

from __future__ import annotations

import copy
import socket
import time
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import succeed
from twisted.internet.error import InvalidAddressError, MessageLengthError

from tests.contracts.broken import (
    BlamesTheInnocent,
    Delivers,
    LetsTheKernelChoose,
    ReadsOnAfterStop,
    ReadsWithoutEnd,
    ShowsFourMembers,
    ShowsMappedAddresses,
    SwapsDatagrams,
)
from twistedudp.transport import DatagramPort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.internet.defer import Deferred

    from twistedudp.address import Address
    from twistedudp.transport import DatagramStats

__all__ = ["BROKEN_AT_BURSTS"]

IP_MULTICAST_ALL = 49  # linux/in.h; the socket module has no name for it


class FailsToShowItself(DatagramPort):
    """Its description asks a socket that may be gone."""

    def __repr__(self) -> str:
        assert self._life is not None, "the socket is gone"
        return super().__repr__()


class AsksTheSocketForItsHost(DatagramPort):
    """``getHost`` asks a socket that may be gone."""

    def getHost(self) -> IPv4Address | IPv6Address:
        """Ask it."""
        assert self._life is not None, "the socket is gone"
        return super().getHost()


class BroadcastsByWord(DatagramPort):
    """The kernel is not told that broadcasts are allowed."""

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Do nothing."""


class _QueuesAnswers(DatagramPort):
    """Keeps what is written while it reads, and sends it when it has read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reading = False
        self.queue: list[tuple[bytes, Address | None]] = []

    def doRead(self) -> None:
        """Read, and send."""
        self.reading = True
        super().doRead()
        self.reading = False
        queue, self.queue = self.queue, []
        for packet, addr in self.arranged(queue):
            super().write(packet, addr)

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Queue it or send it."""
        if self.reading:
            self.queue.append((packet, addr))
        else:
            super().write(packet, addr)

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Queue them or send them."""
        if not self.reading:
            return super().write_batch(datagrams)
        self.queue += datagrams
        return []

    def arranged(self, queue: list[tuple[bytes, Address | None]]) -> Iterable[tuple[bytes, Address | None]]:
        """Return what is to be sent for what was queued: that it is the same is wrong where faults come too late."""
        return queue


class SortsBySize(_QueuesAnswers):
    """Equal sizes leave together, whatever the order was."""

    def arranged(self, queue: list[tuple[bytes, Address | None]]) -> Iterable[tuple[bytes, Address | None]]:
        """Sort them."""
        return sorted(queue, key=lambda datagram: len(datagram[0]))


class SendsRunsToTheFirst(_QueuesAnswers):
    """A run of equal sizes goes to one peer, however many it was for."""

    def arranged(self, queue: list[tuple[bytes, Address | None]]) -> Iterable[tuple[bytes, Address | None]]:
        """Look at sizes only."""
        for _, run in groupby(queue, key=lambda datagram: len(datagram[0])):
            datagrams = list(run)
            for packet, _ in datagrams:
                yield packet, datagrams[0][1]


class _SendsBuffers(_QueuesAnswers):
    """What is for one peer leaves as one buffer."""

    def arranged(self, queue: list[tuple[bytes, Address | None]]) -> Iterable[tuple[bytes, Address | None]]:
        """Put together what is for one peer."""
        for addr, run in groupby(queue, key=lambda datagram: datagram[1]):
            for packet in self.cut([packet for packet, _ in run]):
                yield packet, addr

    def cut(self, packets: list[bytes]) -> Iterable[bytes]:
        """Return what the kernel makes of the buffer."""
        raise NotImplementedError


class CutsAtTheFirstSize(_SendsBuffers):
    """The kernel cuts each buffer at the first datagram's size, and nobody looked whether all have it."""

    def cut(self, packets: list[bytes]) -> Iterable[bytes]:
        """Cut what was put together."""
        buffer, size = b"".join(packets), len(packets[0])
        return [buffer[at : at + size] for at in range(0, len(buffer), size)] if size else packets


class LosesEmptySegments(_SendsBuffers):
    """What adds nothing to a buffer is not there."""

    def cut(self, packets: list[bytes]) -> Iterable[bytes]:
        """Leave out what is empty."""
        return filter(None, packets)


class LosesTinySegments(_SendsBuffers):
    """Off by one where a segment must have a byte at least."""

    def cut(self, packets: list[bytes]) -> Iterable[bytes]:
        """Leave out what is tiny."""
        return [packet for packet in packets if len(packet) != 1]


class SendsSixtyFour(_SendsBuffers):
    """More than a buffer may have segments are lost."""

    def cut(self, packets: list[bytes]) -> Iterable[bytes]:
        """Leave out the rest."""
        return packets[:64]


class SendsOneBuffer(_SendsBuffers):
    """More than a buffer may have bytes are lost."""

    def cut(self, packets: list[bytes]) -> Iterable[bytes]:
        """Leave out the rest."""
        octets = 0
        for packet in packets:
            octets += len(packet)
            if octets <= 65507:
                yield packet


class TakesEmptyForTheEnd(Delivers):
    """On a connected port an empty datagram counts as the end of a stream."""

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver what is not."""
        if datagram or self._life is None or not self._is_connected(self._life.handle):
            deliver(datagram, addr)

    def _is_connected(self, handle: socket.socket) -> bool:
        try:
            handle.getpeername()
        except OSError:
            return False
        return True


class AnswersOnce(_QueuesAnswers):
    """Keeps one answer for each peer."""

    def arranged(self, queue: list[tuple[bytes, Address | None]]) -> Iterable[tuple[bytes, Address | None]]:
        """Keep the last."""
        return [(packet, addr) for addr, packet in {addr: packet for packet, addr in queue}.items()]


class AnswersTheSender(Delivers):
    """What is written while a datagram is delivered goes to its sender."""

    sender: Address | None = None

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Note who that is."""
        self.sender = addr
        deliver(datagram, addr)
        self.sender = None

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Write to it."""
        super().write(packet, addr if self.sender is None else self.sender)


class KnowsPeersByIdentity(Delivers):
    """A peer is known by the very tuple that was delivered, and else not written to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.peers: list[Address] = []

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Note the tuple."""
        self.peers.append(addr)
        deliver(datagram, addr)

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Look for it."""
        if addr not in self.peers or any(peer is addr for peer in self.peers):
            super().write(packet, addr)


class QueuesForOthers(_QueuesAnswers):
    """While one port reads, all queue; each sends when it has read itself."""

    ports_reading = 0

    def doRead(self) -> None:
        """Let all know that somebody reads."""
        QueuesForOthers.ports_reading += 1
        super().doRead()
        QueuesForOthers.ports_reading -= 1

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Queue it if anybody reads."""
        if QueuesForOthers.ports_reading:
            self.queue.append((packet, addr))
        else:
            super().write(packet, addr)


class LosesItsQueueAtStop(_QueuesAnswers):
    """What is queued is lost when the port is stopped."""

    def stopListening(self) -> Deferred[None] | None:
        """Forget what is queued."""
        self.queue.clear()
        return super().stopListening()


class WritesNothingWhileStopping(DatagramPort):
    """A port that is being stopped takes nothing more."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Look whether it is."""
        if self._life is not None and not self._life.stopping:
            super().write(packet, addr)


class ReadsBeforeItStops(DatagramPort):
    """Delivers what waits when it is told to stop."""

    def stopListening(self) -> Deferred[None] | None:
        """Read once more."""
        self.doRead()
        return super().stopListening()


class LosesItsQueueAtExceptions(_QueuesAnswers, Delivers):
    """What is queued is lost when the protocol fails."""

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Forget what is queued."""
        try:
            deliver(datagram, addr)
        except ZeroDivisionError:
            self.queue.clear()
            raise


class GuessesTheFamily(DatagramPort):
    """Knows peers by their port number."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.hosts: dict[int, str] = {}

    def startListening(self) -> None:
        """Note the first address of each."""
        deliver = self.protocol.datagramReceived

        def note(datagram: bytes, addr: Address) -> None:
            self.hosts.setdefault(addr[1], addr[0])
            deliver(datagram, addr)

        self.protocol.datagramReceived = note  # type: ignore[method-assign]  # which a test may
        super().startListening()

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Write to that."""
        super().write(packet, None if addr is None else (self.hosts.get(addr[1], addr[0]), addr[1]))


class HasAnotherTTL(DatagramPort):
    """A method of the interface with another signature."""

    def setTTL(self) -> None:  # type: ignore[override]  # which is what is wrong
        """Set the usual one."""


class GoesFar(DatagramPort):
    """Datagrams to groups pass routers without having been told to."""

    def startListening(self) -> None:
        """Tell them."""
        super().startListening()
        self.setTTL(64)


class SetsNothing(DatagramPort):
    """What is set is not."""

    def setTTL(self, ttl: int) -> None:
        """Do nothing."""

    def setLoopbackMode(self, mode: bool) -> None:
        """Do nothing."""

    def setOutgoingInterface(self, addr: str | int) -> Deferred[int]:
        """Say that it was done."""
        return succeed(1)


class WrapsTheTTL(DatagramPort):
    """A number too large is cut to eight bits."""

    def setTTL(self, ttl: int) -> None:
        """Cut it."""
        super().setTTL(ttl & 255)


class NeverLeaves(DatagramPort):
    """A group once joined is heard for ever."""

    def leaveGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Say that it was done."""
        return succeed(None)


class JoinsOneGroup(DatagramPort):
    """A port that joins a group leaves the one before."""

    joined: tuple[str, str | int] | None = None

    def joinGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Leave that, join this."""
        if self.joined is not None:
            self.leaveGroup(*self.joined)
        self.joined = addr, interface
        return super().joinGroup(addr, interface)


class HearsAllGroups(DatagramPort):
    """Takes part in whatever others have joined, as the kernel has it at first."""

    def startListening(self) -> None:
        """Ask for it."""
        super().startListening()
        assert self._life is not None
        self._life.handle.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 1)


class JoinsAnything(DatagramPort):
    """Who joins what is no group is not told."""

    def joinGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Hide the error."""
        super().joinGroup(addr, interface).addBoth(lambda _: None)
        return succeed(None)


class KnowsIPv4Only(DatagramPort):
    """Sets the option of IPv4 on a socket of IPv6."""

    def setLoopbackMode(self, mode: bool) -> None:
        """Set the wrong one."""
        assert self._life is not None
        self._life.handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, mode)


class HandsOutADescriptor(DatagramPort):
    """``getHandle`` is a number."""

    def getHandle(self) -> Any:
        """Return it."""
        return self.fileno()


class KeepsItsHandle(DatagramPort):
    """``getHandle`` returns a socket that is closed."""

    def startListening(self) -> None:
        """Keep it."""
        super().startListening()
        self.handle = super().getHandle()

    def getHandle(self) -> socket.socket | None:
        """Return what was kept."""
        return self.handle


class SharesItsAddress(DatagramPort):
    """Others may have the same address, unasked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, reuse_port=True, **options)


class WritesLater(DatagramPort):
    """What is written waits for more, for a while."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Wait."""
        self.reactor.callLater(0.002, super().write, packet, addr)


class AnswersLater(_QueuesAnswers):
    """... but only where it is written while the port reads."""

    def arranged(self, queue: list[tuple[bytes, Address | None]]) -> Iterable[tuple[bytes, Address | None]]:
        """Wait."""
        for packet, addr in queue:
            self.reactor.callLater(0.002, self.write, packet, addr)
        return []


class HasAnotherPathMTU(DatagramPort):
    """A method of its own interface with another signature."""

    def path_mtu(self) -> int:  # type: ignore[override]  # which is what is wrong
        """Return Ethernet's."""
        return 1500


class CountsHeaders(DatagramPort):
    """The bytes counted are not the payload's."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Count UDP's header."""
        super().write(packet, addr)
        self._stats.bytes_sent += 8


class CountsNoLateWrites(DatagramPort):
    """What is written to a closed port is nowhere counted."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Look whether it is."""
        if self._life is not None:
            super().write(packet, addr)


class CountsRefusalsAsSendErrors(DatagramPort):
    """A refused datagram counts as one that could not be sent."""

    def startListening(self) -> None:
        """Count it."""
        self.protocol.peer_unreachable = lambda _, reason, __: self._stats.count_send_error(reason.errno)  # type: ignore[attr-defined]  # which makes it one of those that are told
        super().startListening()


class CopiesItsCounters(DatagramPort):
    """The counters are those of the moment when they were asked for."""

    @property
    def stats(self) -> DatagramStats:
        """Copy them."""
        return copy.copy(super().stats)


class EndsItsBatchAtAFault(DatagramPort):
    """What comes after a datagram that cannot be sent is not sent either."""

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Return at the first."""
        for packet, addr in datagrams:
            try:
                self.write(packet, addr)
            except (OSError, InvalidAddressError, MessageLengthError) as error:  # noqa: PERF203  # each its own
                return [(packet, addr, error)]
        return []


class HidesFaultsOfBatches(DatagramPort):
    """Nobody learns which datagrams of a batch could not be sent."""

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Return nothing."""
        for packet, addr in datagrams:
            with suppress(OSError, InvalidAddressError, MessageLengthError, OverflowError):
                self.write(packet, addr)
        return []


class ClaimsToBeCompiled(DatagramPort):
    """The backend's name is another's."""

    def startListening(self) -> None:
        """Take the name."""
        super().startListening()
        self.backend = "mmsg"


class CountsNoCalls(DatagramPort):
    """System calls are not counted."""

    @property
    def stats(self) -> DatagramStats:
        """Forget them."""
        stats = super().stats
        stats.system_calls = 0
        return stats


class GuessesThePathMTU(DatagramPort):
    """Every path is Ethernet's."""

    def path_mtu(self, host: str) -> int:
        """Guess."""
        return 1500


class ReadsTheClock(DatagramPort):
    """Arrival times are those of reading."""

    @property
    def arrival_times(self) -> Sequence[int]:
        """Look at the clock."""
        return (time.time_ns(),)


BROKEN_AT_BURSTS: Final[Mapping[str, type[DatagramPort]]] = {
    "test_repr_after_stop": FailsToShowItself,
    "test_host_after_stop": AsksTheSocketForItsHost,
    "test_broadcast": BroadcastsByWord,
    "test_mutable_payload": _QueuesAnswers,
    "test_burst_of_mixed_sizes": SortsBySize,
    "test_burst_of_equal_sizes_among_peers": SendsRunsToTheFirst,
    "test_burst_with_shorter_ones": CutsAtTheFirstSize,
    "test_burst_with_longer_ones": CutsAtTheFirstSize,
    "test_burst_with_empty_ones": LosesEmptySegments,
    "test_burst_of_one_size": SendsSixtyFour,
    "test_burst_of_one_byte": LosesTinySegments,
    "test_burst_of_much": SendsOneBuffer,
    "test_burst_of_large_ones": SendsOneBuffer,
    "test_burst_of_ipv6": ShowsFourMembers,
    "test_burst_of_both_families": ShowsMappedAddresses,
    "test_burst_at_several_addresses": LetsTheKernelChoose,
    "test_burst_of_one_peer_at_several_addresses": LetsTheKernelChoose,
    "test_burst_of_connected_port": TakesEmptyForTheEnd,
    "test_several_answers": AnswersOnce,
    "test_writes_to_third_peers": AnswersTheSender,
    "test_writes_to_another_family": GuessesTheFamily,
    "test_answers_later": KnowsPeersByIdentity,
    "test_writes_through_another_port": QueuesForOthers,
    "test_written_before_stop": LosesItsQueueAtStop,
    "test_written_when_it_stops": WritesNothingWhileStopping,
    "test_stop_inside_burst": ReadsOnAfterStop,
    "test_stop_inside_batch": ReadsOnAfterStop,
    "test_stop_with_datagrams_waiting": ReadsBeforeItStops,
    "test_exceptions_inside_burst": LosesItsQueueAtExceptions,
    "test_callers_faults_inside_burst": _QueuesAnswers,
    "test_refusals_inside_burst": BlamesTheInnocent,
    "test_burst_of_writes_with_refusals": BlamesTheInnocent,
    "test_multicast_interface": HasAnotherTTL,
    "test_multicast_defaults": GoesFar,
    "test_ttl": SetsNothing,
    "test_ttl_out_of_range": WrapsTheTTL,
    "test_loopback_mode": SetsNothing,
    "test_outgoing_interface": SetsNothing,
    "test_join_and_leave": NeverLeaves,
    "test_two_groups": JoinsOneGroup,
    "test_groups_of_others": HearsAllGroups,
    "test_join_what_is_no_group": JoinsAnything,
    "test_multicast_ipv6": KnowsIPv4Only,
    "test_system_handle": HandsOutADescriptor,
    "test_system_handle_after_stop": KeepsItsHandle,
    "test_address_is_not_shared": SharesItsAddress,
    "test_kernel_order": SwapsDatagrams,
    "test_answers_to_peers_that_left": BlamesTheInnocent,
    "test_write_leaves_in_its_turn": WritesLater,
    "test_answers_leave_in_their_turn": AnswersLater,
    "test_answers_leave_before_a_late_call": AnswersLater,
    "test_slow_protocol": ReadsWithoutEnd,
    "test_slow_batch_protocol": ReadsWithoutEnd,
    "test_own_interface": HasAnotherPathMTU,
    "test_stats_of_a_burst": CountsHeaders,
    "test_stats_of_what_is_not_delivered": CountsNoLateWrites,
    "test_stats_of_refusals": CountsRefusalsAsSendErrors,
    "test_stats_is_one_object": CopiesItsCounters,
    "test_write_batch": EndsItsBatchAtAFault,
    "test_write_batch_inside_batch": HidesFaultsOfBatches,
    "test_write_batch_with_refusals": BlamesTheInnocent,
    "test_backend_name": ClaimsToBeCompiled,
    "test_system_calls_are_counted": CountsNoCalls,
    "test_path_mtu_unknown": GuessesThePathMTU,
    "test_no_arrival_times": ReadsTheClock,
    "test_arrival_times": ReadsTheClock,
    "test_arrival_times_are_the_kernels": ReadsTheClock,
}
"""For each of these tests a port that it must refuse."""
