"""Reading and writing several datagrams at a time, for protocols that take them so.

Theory of operation: a protocol with the method ``datagrams_received`` gets what has come in batches, and what it writes
by ``write_batch`` while it is given one leaves together. On Linux the kernel helps in both directions: UDP_GRO hands
over several datagrams of equal size from one peer in one buffer, and UDP_SEGMENT takes such a buffer and cuts it, so
that a system call, which costs as much as a datagram's way through Python, is shared by up to 64 of them. Whether the
peer does the same does not matter; on the wire they are ordinary datagrams.

Datagrams are put into one buffer only for peers of the batch being delivered, which are alive: an ICMP error for such a
buffer would quote its beginning alone. The kernel refuses UDP_SEGMENT on some routes and devices; then the datagrams
are sent one by one, from then on if the reason lies in the socket or the device.

A batch cannot be interrupted, so its size follows from how long the ones before took.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from . import _kernel
from ._addresses import TwoGenerations
from ._capabilities import can_segment, lacking
from ._scalar import DATAGRAMS_PER_TURN, SECONDS_PER_TURN, ScalarBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..address import Address
    from ._scalar import Refused

__all__ = ["DATAGRAMS_PER_BATCH", "FIRST_BATCH", "MAX_SEGMENTS", "MAX_SEGMENT_SIZE", "BatchingBackend"]

DATAGRAMS_PER_BATCH: Final = 64
"""Datagrams that a protocol gets at once at most, or a few more where one buffer brings them."""

FIRST_BATCH: Final = 8
"""... and at first."""

MAX_SEGMENTS: Final = 64
"""Datagrams in one buffer: UDP_MAX_SEGMENTS of kernels before 6.9, which take 128."""

MAX_SEGMENT_SIZE: Final = 1200
"""Bytes of a datagram that shares a buffer: the kernel refuses more than the path's MTU, which is larger than this."""

MAX_WHOLE_ONLY: Final = 16
"""Peers to which the kernel did not cut a buffer (EINVAL: before Linux 6.14 also where a path's MTU is very small)
before it counts as not able to."""

_TOO_NARROW: Final = frozenset({errno.EINVAL, errno.EMSGSIZE})
"""Errors by which kernels say that a path's MTU is less than the size of a segment: the latter since Linux 6.14."""

_BUFFER_SIZE: Final = 65536
"""Bytes: what one read may bring, where several datagrams come in one buffer."""

_NEVER_AGAIN: Final = frozenset({errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
"""Errors by which kernels and devices say that they do not know UDP_SEGMENT: EIO where checksums are not offloaded."""


class BatchingBackend(ScalarBackend):
    """The backend in plain Python for protocols that take several datagrams at once; arguments as its base's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._batch_size = FIRST_BATCH
        self._delivering: Sequence[tuple[bytes, Address]] = ()
        self._arrived: tuple[int, ...] = ()
        self._segments = can_segment(self._handle)
        self._whole_only: TwoGenerations[Address, bool] = TwoGenerations()
        self._not_cut = 0
        self._routes.take_segments()

    @property
    def arrival_times(self) -> Sequence[int]:
        """When the datagrams being delivered arrived, in nanoseconds since the epoch; empty if not asked for."""
        return self._arrived

    def read_turn(self) -> None:
        """Send what waited for room, then deliver what has arrived, within the bounds of a turn."""
        if self._waiting:
            self.send_waiting()
        self._stats.turns += 1
        self._reports.in_turn = True
        clock = self._clock
        started = clock()
        ends = started + SECONDS_PER_TURN
        left = DATAGRAMS_PER_TURN
        while self._delivers:
            batch, times, read, more = self._read_batch(min(self._batch_size, left))
            if batch:
                self._deliver(batch, times)
            elif not read and left == DATAGRAMS_PER_TURN:  # woken, but not by a datagram: it was an error
                self._reports.drain()
            now = clock()
            if batch:
                fitting = int(len(batch) * SECONDS_PER_TURN / (2 * (now - started) + 1e-9))
                self._batch_size = max(1, min(2 * self._batch_size, DATAGRAMS_PER_BATCH, fitting))
            left -= read
            started = now
            if not more:
                break
            if left <= 0 or now >= ends:
                self._cut_short()
                break
        self._reports.settle()

    def send_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[Refused]:
        """Send several datagrams at once, in order; see the base class."""
        if not self._segments or not self._delivering or len(datagrams) == 1:
            return super().send_batch(datagrams)
        refused: list[Refused] = []
        start = 0
        while start < len(datagrams):
            end = _run_end(datagrams, start)
            run = datagrams[start:end]
            start = end
            if len(run) == 1 or not self._send_run([datagram for datagram, _ in run], run[0][1]):
                refused += super().send_batch(run)
        return refused

    def _read_batch(self, wanted: int) -> tuple[list[tuple[bytes, Address]], list[int], int, bool]:
        """Read some datagrams.

        Returns:
            Those to be delivered; when they arrived, if that is asked for; how many were read, for also those that are
            dropped take time; and whether more may be waiting.
        """
        routes, receive, limit = self._routes, self._routes.receive, self._size_limit
        batch: list[tuple[bytes, Address]] = []
        times: list[int] = []
        read = 0
        more = True
        while read < wanted and self._delivers:
            read += 1
            self._stats.system_calls += 1
            try:
                received = receive(_BUFFER_SIZE)
            except BlockingIOError:
                read -= 1
                more = False
                break
            except OSError as error:
                self._receive_failed(error)
                continue
            if routes.moved is not None and batch:
                self._deliver(batch, times)
                batch, times = [], []
                if not self._may_deliver():
                    break
            routes.settle()
            if routes.segment:
                datagrams = self._take_apart(*received)
                read += max(0, len(datagrams) - 1)
            elif len(received[0]) > limit:
                self._stats.truncated += 1
                continue
            else:
                datagrams = [received]
            if routes.to_group:
                self._deliver_to_group(batch, times, datagrams)
                return [], [], read, True  # each may have taken long
            batch += datagrams
            if self._timestamps:
                times += [routes.arrived] * len(datagrams)
        return batch, times, read, more

    def _is_answer(self, addr: Address | None) -> bool:
        """Tell whether a peer is one of those whose datagrams are being delivered."""
        return super()._is_answer(addr) or any(peer == addr for _, peer in self._delivering)

    def _may_deliver(self) -> bool:
        """Tell whether the protocol, in whatever was delivered last, has not stopped the port."""
        return self._delivers

    def _take_apart(self, buffer: bytes, peer: Address) -> list[tuple[bytes, Address]]:
        """Return the datagrams that came in one buffer, but those that are too large."""
        size = self._routes.segment
        self._routes.segment = 0
        datagrams = [(buffer[at : at + size], peer) for at in range(0, len(buffer), size)]
        count = len(datagrams)
        self._stats.received_together += count
        if size > self._size_limit:  # all have this size but the last, which may be shorter
            datagrams = [datagram for datagram in datagrams[-1:] if len(datagram[0]) <= self._size_limit]
            self._stats.truncated += count - len(datagrams)
        return datagrams

    def _deliver(self, batch: list[tuple[bytes, Address]], times: list[int]) -> None:
        stats = self._stats
        stats.batches += 1
        stats.datagrams_received += len(batch)
        stats.bytes_received += sum([len(datagram) for datagram, _ in batch])
        self._delivering = batch
        self._arrived = tuple(times)
        try:
            self._protocol.datagrams_received(batch)
        except BaseException:  # noqa: BLE001  # the reactor would catch it too, and drop the port for it
            self._callback_failed()
        finally:
            self._delivering = ()
            self._arrived = ()

    def _deliver_to_group(
        self, batch: list[tuple[bytes, Address]], times: list[int], datagrams: list[tuple[bytes, Address]]
    ) -> None:
        """Deliver datagrams to a group one by one, after those that came before them."""
        arrived = self._routes.arrived
        if batch:
            self._deliver(batch, times)
        for datagram, peer in datagrams:
            if not self._may_deliver():
                return
            self._arrived = (arrived,) if self._timestamps else ()
            self._deliver_alone(datagram, peer)
            self._arrived = ()

    def _deliver_alone(self, datagram: bytes, peer: Address) -> None:
        self._stats.batches += 1
        self._stats.datagrams_received += 1
        self._stats.bytes_received += len(datagram)
        self._set_peer(peer)
        try:
            self._protocol.datagramReceived(datagram, peer)
        except BaseException:  # noqa: BLE001  # as above
            self._callback_failed()
        finally:
            self._set_peer(None)

    def _send_run(self, datagrams: list[bytes], addr: Address) -> bool:
        """Send datagrams of equal size to one peer by one system call; tell whether that went well."""
        if self._detour or not any(peer == addr for _, peer in self._delivering) or addr in self._whole_only:
            return False
        sockaddr, back = self._routes.known.get(addr) or self._way_to(addr)
        stats = self._stats
        if back is _kernel.HOPS_EXHAUSTED:
            stats.hops_exhausted += len(datagrams)
            return True
        buffer = b"".join(datagrams)
        stats.system_calls += 1
        try:
            self._handle.sendmsg((buffer,), [*back, _kernel.segment_option(len(datagrams[0]))], 0, sockaddr)
        except OSError as error:
            # Sending them one by one tells whose fault it was, if it was not UDP_SEGMENT's.
            self._not_together(error, addr)
            return False
        stats.datagrams_sent += len(datagrams)
        stats.sent_together += len(datagrams)
        stats.bytes_sent += len(buffer)
        return True

    def _not_together(self, error: OSError, addr: Address) -> None:
        """Try it no more with this peer, or with none, where the kernel did not cut a buffer."""
        self._not_cut += error.errno == errno.EINVAL
        if error.errno in _TOO_NARROW and self._not_cut <= MAX_WHOLE_ONLY:
            self._whole_only.put(addr, True)  # present or absent is all that matters
        elif error.errno in _NEVER_AGAIN:
            self._segments = False
            lacking("UDP_SEGMENT", error)


def _run_end(datagrams: Sequence[tuple[bytes, Address]], start: int) -> int:
    """Return where the run of datagrams of equal size to one peer ends that starts at an index."""
    first, addr = datagrams[start]
    size = len(first) if type(first) is bytes else 0
    end = start + 1
    if 0 < size <= MAX_SEGMENT_SIZE:
        last = min(len(datagrams), start + min(MAX_SEGMENTS, _BUFFER_SIZE // size - 1))
        while end < last:
            datagram, peer = datagrams[end]
            if type(datagram) is not bytes or len(datagram) != size or (peer is not addr and peer != addr):
                break
            end += 1
    return end
