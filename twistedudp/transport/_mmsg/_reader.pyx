"""Read turns, compiled: what has arrived is delivered, within the bounds of a turn.

Theory of operation: a turn reads by recvmmsg(2) (``_incoming``), delivers each datagram, or batches of them to a
protocol with ``datagrams_received``, and then sends what the protocol wrote meanwhile by sendmmsg(2) (``_outgoing``).

What was read and cannot be delivered within the bounds of the turn is delivered in the next, which a timer of no delay
brings about, for the kernel has nothing left to wake the reactor with.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t

from ._admission cimport Admission
from ._incoming cimport Incoming, Received
from ._linux cimport CLOCK_MONOTONIC, clock_gettime, monotonic_time
from ._outgoing cimport Outgoing
from ._peers cimport Peer, same_path

import os
import socket

from .. import _kernel
from .._batching import DATAGRAMS_PER_BATCH, FIRST_BATCH
from .._capabilities import lacking
from .._scalar import DATAGRAMS_PER_TURN, SECONDS_PER_TURN

cdef enum:
    DELIVERIES_PER_LOOK = 4  # at the clock; a protocol that takes a millisecond for each is so stopped in time

cdef int _per_turn = DATAGRAMS_PER_TURN
cdef int _per_batch = DATAGRAMS_PER_BATCH
cdef int64_t _turn_ns = <int64_t>(SECONDS_PER_TURN * 1e9)


cdef inline int64_t _now() noexcept nogil:
    """Return monotonic nanoseconds."""
    cdef monotonic_time now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef class Reader:
    """The part of a backend that reads.

    Attributes:
        incoming, outgoing: What was read, and what is to be sent.
        protocol, stats, reports, reactor, admission: As ``PortSocket`` has them.
        slow: The backend in plain Python, for all that is rare.
        wakeup: The timer that brings the rest of a turn about, if there is a rest.
        delivers: Whether :meth:`stop` has not been called.
        in_turn: Whether a turn is running.
        queues: Whether writes are queued, for something is being delivered.
        blocked: Whether datagrams wait for room in the send buffer.
        current: Whose datagram is being delivered alone.
        connected: The one peer of a connected socket.
        batch: The number of what is being delivered; a peer of it has the same number as its ``turn``.
        slots: Buffers to be read at once: as many as fit the time of a turn.
        fits: Datagrams to be given to the protocol at once, likewise: one buffer may hold 64.
    """

    def __init__(self, port_socket, slow):
        handle = port_socket.handle
        self.incoming = Incoming(
            handle.fileno(),
            port_socket.size_limit,
            port_socket.to_group,
            port_socket.wildcard and port_socket.return_path,
            port_socket.stats,
        )
        self.protocol = port_socket.protocol
        self.stats = port_socket.stats
        self.reports = port_socket.reports
        self.reactor = port_socket.reactor
        self.admission = port_socket.admission
        if self.admission is not None:
            self.incoming.admission = Admission(self.admission.policy, self.admission.key, self.admission.stats)
        self.slow = slow
        self._takes_batches = hasattr(port_socket.protocol, "datagrams_received")
        self._timestamps = port_socket.timestamps
        self._times = ()
        self.delivers = True
        self.batch = 1
        self.slots = self.fits = FIRST_BATCH
        try:
            handle.setsockopt(socket.IPPROTO_UDP, _kernel.UDP_GRO, 1)
        except OSError as error:  # before Linux 5.0: datagrams come one by one
            lacking("UDP_GRO", error)

    def read_turn(self):
        """Send what waited for room, then deliver what has arrived, within the bounds of a turn. Raises nothing."""
        if self.in_turn:
            return
        self.in_turn = True
        self.reports.in_turn = True
        self.stats.turns += 1
        try:
            if self.blocked:
                self.send_waiting()
            self._turn()
        finally:
            self.queues = False
            self.in_turn = False
            self.outgoing.flush()
            self.publish()
            if not self.delivers:
                self.incoming.clear()
        self.reports.settle()

    @property
    def delivering_to_group(self):
        """True while a datagram is being delivered that was sent to a broadcast or multicast address."""
        return self._to_group

    @property
    def arrival_times(self):
        """When the datagrams being delivered arrived, in nanoseconds since the epoch; empty if not asked for."""
        return self._times

    cdef int _turn(self) except -1:
        """Read and deliver until nothing waits or a bound is met."""
        cdef int left = _per_turn
        cdef int found, slots, error
        cdef int64_t started = _now()
        cdef int64_t ends = started + _turn_ns
        cdef int64_t now
        self._looked = False
        if self.incoming.next < self.incoming.end:  # of the turn before
            left -= self._deliver(left, ends)
        while self.delivers:
            if self.incoming.next < self.incoming.end or left <= 0 or _now() >= ends:
                self.slow._cut_short()
                break
            slots = min(self.slots, left)
            found = self.incoming.read(slots)
            error = errno
            self.receive_calls += 1
            if found < 0:
                if error == EINTR:
                    continue
                if error == EAGAIN:
                    self._luck = max(self._luck - 1, 0)
                    if left == _per_turn:  # woken, but not by a datagram: it was an error
                        self.reports.drain()
                    break
                self.slow._receive_failed(OSError(error, os.strerror(error)))
                left -= 1
                continue
            if self._looked:
                self._luck = min(self._luck + 1, 4)
            started = _now()
            left -= max(self._deliver(left, ends), self.incoming.slots_read)
            now = _now()
            self._fit(found, now - started)
            if self.incoming.slots_read < slots and self.incoming.next == self.incoming.end:
                if not self._is_worth_a_look(self.incoming.slots_read):
                    break  # the socket was emptied
        if self.incoming.next < self.incoming.end and self.delivers:
            self._come_again()
        return 0

    cdef bint _is_worth_a_look(self, int read) noexcept:
        """Tell whether to read once more from a socket that was just emptied.

        Delivering takes time, in which others arrive, and another read costs a tenth of another turn of the reactor. It
        is done while it finds something, and now and then to find out. A single datagram is no sign of a crowd.
        """
        self._looks += 1
        self._looked = read > 1 and (self._luck > 1 or self._looks % 32 == 0)
        return self._looked

    cdef int _fit(self, int found, int64_t elapsed) except -1:
        """Decide how many buffers to read next: what can be delivered in half a turn, as far as the last ones tell."""
        cdef int64_t fitting = _per_batch
        cdef int read = self.incoming.slots_read
        if found and elapsed > 0:
            fitting = <int64_t>read * _turn_ns // (2 * elapsed + 1)
        if found > read:  # several in one buffer
            fitting = min(fitting, <int64_t>_per_turn * read // found)
        self.slots = <int>max(1, min(2 * self.slots, _per_batch, fitting))
        return 0

    cdef int _deliver(self, int most, int64_t ends) except -1:
        """Deliver what was read, send the answers, and return how many datagrams it were."""
        cdef int first = self.incoming.next
        self.batches += 1
        self.queues = not self.blocked
        if self._takes_batches:
            self._deliver_together(most, ends)
        else:
            self.batch += 1
            self._deliver_each(most, ends)
        self.queues = False
        self.outgoing.flush()
        self.batch += 1  # nothing is of the batch being delivered any more
        return self.incoming.next - first

    cdef int _deliver_each(self, int most, int64_t ends) except -1:
        """Deliver one by one."""
        cdef Incoming incoming = self.incoming
        cdef Received *item
        cdef Peer peer
        cdef int count = 0
        cdef long octets = 0
        protocol = self.protocol
        while incoming.next < incoming.end and self.delivers and count < most:
            item = &incoming.items[incoming.next]
            incoming.next += 1
            count += 1
            peer = <Peer>item.peer
            datagram = <object>item.datagram
            Py_DECREF(peer)
            Py_DECREF(datagram)
            octets += PyBytes_GET_SIZE(datagram)
            if not same_path(&peer.path, &item.path):
                peer.path = item.path
            peer.turn = self.batch
            if self.connected is not None:
                self.connected.turn = self.batch
            self.current = peer
            self._to_group = item.to_group
            if self._timestamps:
                self._times = (item.arrival,)
            try:
                protocol.datagramReceived(datagram, peer.addr)  # looked up anew: a callback may have replaced it
            except BaseException:  # the reactor would catch it too, and drop the port for it
                self.slow._callback_failed()
            if count % DELIVERIES_PER_LOOK == 0 and _now() >= ends:
                break
        self.current = None
        self._to_group = False
        self._times = ()
        self._count_received(count, octets)
        return 0

    cdef int _deliver_together(self, int most, int64_t ends) except -1:
        """Deliver in batches; what was sent to a group, or has another return path than before, begins another one."""
        cdef Incoming incoming = self.incoming
        cdef int left = most
        cdef int count
        cdef int64_t started = _now()
        cdef int64_t now
        while incoming.next < incoming.end and self.delivers and left > 0:
            if incoming.items[incoming.next].to_group:
                self.batch += 1
                self._deliver_each(1, ends)
                left -= 1
                now = _now()
            else:
                count = self._deliver_batch(min(left, self.fits))
                left -= count
                now = _now()
                self.fits = <int>max(1, min(2 * self.fits, _per_batch, count * _turn_ns // (2 * (now - started) + 1)))
            if now >= ends:
                break
            started = now
        return 0

    cdef int _deliver_batch(self, int most) except -1:
        """Deliver one batch; return how many datagrams it had."""
        cdef Incoming incoming = self.incoming
        cdef Received *item
        cdef Peer peer
        cdef long octets = 0
        cdef int count
        cdef list batch = []
        cdef list times = []
        self.batch += 1
        while incoming.next < incoming.end and len(batch) < most:
            item = &incoming.items[incoming.next]
            peer = <Peer>item.peer
            if item.to_group or (peer.turn == self.batch and not same_path(&peer.path, &item.path)):
                break
            incoming.next += 1
            datagram = <object>item.datagram
            Py_DECREF(peer)
            Py_DECREF(datagram)
            peer.path = item.path
            peer.turn = self.batch
            octets += PyBytes_GET_SIZE(datagram)
            batch.append((datagram, peer.addr))
            if self._timestamps:
                times.append(item.arrival)
        if self.connected is not None:
            self.connected.turn = self.batch
        self._times = tuple(times)
        count = len(batch)  # the list is the protocol's from now on
        self._count_received(count, octets)
        try:
            self.protocol.datagrams_received(batch)
        except BaseException:  # as above
            self.slow._callback_failed()
        self._times = ()
        return count

    cdef int _count_received(self, int count, long octets) except -1:
        self.stats.datagrams_received += count
        self.stats.bytes_received += octets
        return 0

    cdef int _come_again(self) except -1:
        """Have the rest delivered after the reactor had its turn."""
        if self.wakeup is None or not self.wakeup.active():
            self.wakeup = self.reactor.callLater(0, self.read_turn)
        return 0

    cdef int publish(self) except -1:
        """Add what was counted here to the port's counters."""
        cdef Incoming incoming = self.incoming
        cdef Outgoing outgoing = self.outgoing
        stats = self.stats
        if outgoing.sent:
            stats.datagrams_sent += outgoing.sent
            stats.bytes_sent += outgoing.sent_bytes
            stats.sent_together += outgoing.sent_together
            self.slow._counted += outgoing.sent - outgoing.sent_together  # their calls are counted here
            outgoing.sent = outgoing.sent_bytes = outgoing.sent_together = 0
        if self.receive_calls or outgoing.calls:
            stats.system_calls += self.receive_calls + outgoing.calls
            stats.batches += self.batches
            self.receive_calls = self.batches = outgoing.calls = 0
        if incoming.truncated or incoming.together:
            stats.truncated += incoming.truncated
            stats.received_together += incoming.together
            incoming.truncated = incoming.together = 0
        if incoming.admission is not None and incoming.admission.has_news:
            self.admission.tell(incoming.admission.take_refusals())
        if incoming.dropped >= 0:
            self.slow._routes.drops.told(incoming.dropped)
            incoming.dropped = -1
        return 0
