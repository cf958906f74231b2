"""Datagrams from Python objects to the kernel, many with one system call.

Theory of operation: what a protocol writes while datagrams are being delivered to it is queued, and leaves together by
sendmmsg(2) straight from the bytes objects. Datagrams of equal size to one peer, the last of them perhaps shorter, make
a *run*, which the kernel takes as one buffer and cuts (UDP_SEGMENT): on the wire it is as if each had been sent alone,
but its way through the kernel is shared. A datagram joins the youngest run of its peer wherever that stands in the
queue, so that the order is kept for each peer, which is all that UDP lets anybody see; answers to peers that write by
turns are so put together, too.

Runs are for peers that were heard in the same turn and hence are alive: an ICMP error about a run quotes its beginning
alone. Where the kernel refuses a run, its datagrams are sent one by one, from then on if the reason lies in the socket,
the device or the way to the peer.

What fails leaves this path: it is handed, with its ``errno``, to a callable that knows what to do.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ._linux cimport (
    CMSG_DATA,
    CMSG_LEN,
    CMSG_SPACE,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_UDP,
    MSG_DONTWAIT,
    cmsghdr,
    iovec,
    mmsghdr,
    msghdr,
    sendmmsg,
    sendmsg,
)
from ._peers cimport ALWAYS_FITS, HOPS_IPV6, IN_PKTINFO_SIZE, Path, Peer, path_bytes, same_path

import os

from .. import _kernel
from .._batching import MAX_SEGMENTS, MAX_WHOLE_ONLY
from .._capabilities import lacking

cdef enum:
    LARGEST_RUN = 65000     # bytes: the kernel's limit is that of one datagram, 65,507
    IN_PKTINFO = 8          # <linux/in.h>: IP_PKTINFO
    IN6_PKTINFO = 50        # <linux/in6.h>: IPV6_PKTINFO
    TTL = 2                 # <linux/in.h>: IP_TTL
    HOPLIMIT = 52           # <linux/in6.h>: IPV6_HOPLIMIT

cdef int _most_segments = MAX_SEGMENTS
cdef int _most_refusals = MAX_WHOLE_ONLY
cdef int _segment_option = _kernel.UDP_SEGMENT

# Filled and used up within one call of flush(), while the GIL is held: one for all ports.
cdef mmsghdr _headers[128]
cdef iovec _vectors[128]
cdef uint8_t _controls[128][96]


cdef inline size_t _put_control(uint8_t *control, const Path *path, uint32_t segment) noexcept:
    """Write the control messages of a datagram or run; return their size in bytes."""
    cdef cmsghdr *message = <cmsghdr *>control
    cdef size_t used = 0
    cdef uint16_t size
    cdef int hops
    if path.size:
        message.cmsg_level = IPPROTO_IP if path.size == IN_PKTINFO_SIZE else IPPROTO_IPV6
        message.cmsg_type = IN_PKTINFO if path.size == IN_PKTINFO_SIZE else IN6_PKTINFO
        message.cmsg_len = CMSG_LEN(path.size)
        memcpy(CMSG_DATA(message), path.data, path.size)
        used = CMSG_SPACE(path.size)
    if path.hops:
        message = <cmsghdr *>(control + used)
        hops = (path.hops & ~HOPS_IPV6) - 1
        message.cmsg_level = IPPROTO_IPV6 if path.hops & HOPS_IPV6 else IPPROTO_IP
        message.cmsg_type = HOPLIMIT if path.hops & HOPS_IPV6 else TTL
        message.cmsg_len = CMSG_LEN(sizeof(hops))
        memcpy(CMSG_DATA(message), &hops, sizeof(hops))
        used += CMSG_SPACE(sizeof(hops))
    if segment:
        message = <cmsghdr *>(control + used)
        size = <uint16_t>segment
        message.cmsg_level = IPPROTO_UDP
        message.cmsg_type = _segment_option
        message.cmsg_len = CMSG_LEN(sizeof(size))
        memcpy(CMSG_DATA(message), &size, sizeof(size))
        used += CMSG_SPACE(sizeof(size))
    return used


cdef inline void _address(msghdr *header, Peer peer) noexcept:
    """Say where a datagram goes; a connected socket knows."""
    header.msg_name = peer.sockaddr if peer.sockaddr_size else NULL
    header.msg_namelen = peer.sockaddr_size


cdef class Outgoing:
    """What one port is about to send.

    Args:
        descriptor: The socket's.
        failed: Called with a datagram, its :class:`Peer`, the path it was to take, the ``hops`` of that and the
            ``errno``, for each that the kernel did not take, in order. Returns whether datagrams wait for room in the
            send buffer now.

    Attributes:
        count: Datagrams that wait for :meth:`flush`.
        flushing: Whether it is sending them; what deals with failures may run other code, which must not come here.
        segments: Whether runs are sent as one buffer.
        sent, sent_bytes, sent_together, calls: Counters for the port's statistics, which takes them from here.
    """

    def __cinit__(self, int descriptor, failed):
        self._descriptor = descriptor
        self._failed = failed
        self.segments = True
        self._flush = 1

    def __dealloc__(self):
        self._clear()

    cdef int add(self, bytes datagram, Peer peer, const Path *path, bint together) except -1:
        """Queue one datagram; the caller has checked its size, and that fewer than QUEUE_ROOM are queued.

        Args:
            datagram: The payload.
            peer: Where it goes.
            path: The address that it is to leave from.
            together: Whether it may share a buffer with others.
        """
        cdef uint32_t size = <uint32_t>PyBytes_GET_SIZE(datagram)
        cdef Entry *entry
        cdef Run *run
        entry = &self.entries[self.count]
        Py_INCREF(datagram)
        entry.datagram = <void *>datagram
        entry.size = size
        entry.next = -1
        if together and peer.flush == self._flush and self.segments and size:
            run = &self.runs[peer.run]
            if (
                run.open
                and size <= run.segment
                and run.count < _most_segments
                and run.total + size <= LARGEST_RUN
                and same_path(&run.path, path)
            ):
                self.entries[run.last].next = self.count
                run.last = self.count
                run.count += 1
                run.total += size
                run.open = size == run.segment
                self.count += 1
                return 0
        run = &self.runs[self.run_count]
        Py_INCREF(peer)
        run.peer = <void *>peer
        run.path = path[0]
        run.first = run.last = self.count
        run.count = 1
        run.segment = run.total = size
        run.open = together and 0 < size <= peer.largest_segment
        peer.flush = self._flush
        peer.run = self.run_count
        self.run_count += 1
        self.count += 1
        return 0

    cdef int flush(self) except -1:
        """Send all that is queued. Raises nothing but MemoryError."""
        if self.count and not self.flushing and self._failed is not None:
            self.flushing = True
            try:
                self._flush_runs()
            finally:
                self._clear()
                self.flushing = False
        return 0

    cdef int _flush_runs(self) except -1:
        cdef int done = 0
        cdef int result, number, index
        self._prepare()
        while done < self.run_count:
            result = sendmmsg(self._descriptor, &_headers[done], self.run_count - done, MSG_DONTWAIT)
            number = errno
            self.calls += 1
            if result > 0:
                for index in range(done, done + result):
                    self.sent += self.runs[index].count
                    self.sent_bytes += self.runs[index].total
                    if self.runs[index].count > 1:
                        self.sent_together += self.runs[index].count
                done += result
            elif number != EINTR:
                if self._run_failed(&self.runs[done], number) == EAGAIN:
                    self._wait(done + 1)
                    break
                done += 1
                self._prepare()  # what dealt with the failure may have sent something of another port's
        return 0

    cdef int send_now(self, const char *data, Py_ssize_t size, Peer peer) noexcept:
        """Send one datagram at once; return 0, or the ``errno`` if the kernel did not take it."""
        cdef msghdr header
        cdef iovec vector
        cdef uint8_t control[96]
        memset(&header, 0, sizeof(header))
        vector.iov_base = <void *>data
        vector.iov_len = size
        _address(&header, peer)
        header.msg_iov = &vector
        header.msg_iovlen = 1
        if peer.path.size or peer.path.hops:
            header.msg_control = control
            header.msg_controllen = _put_control(control, &peer.path, 0)
        self.calls += 1
        while sendmsg(self._descriptor, &header, MSG_DONTWAIT) < 0:
            if errno != EINTR:
                return errno
        self.sent += 1
        self.sent_bytes += size
        return 0

    cdef int _prepare(self) noexcept:
        """Write the kernel's view of the queue."""
        cdef int index, entry, vector
        cdef Run *run
        cdef msghdr *header
        vector = 0
        for index in range(self.run_count):
            run = &self.runs[index]
            header = &_headers[index].msg_hdr
            _address(header, <Peer>run.peer)
            header.msg_iov = &_vectors[vector]
            header.msg_iovlen = run.count
            header.msg_flags = 0
            entry = run.first
            while entry >= 0:
                _vectors[vector].iov_base = PyBytes_AS_STRING(<object>self.entries[entry].datagram)
                _vectors[vector].iov_len = self.entries[entry].size
                vector += 1
                entry = self.entries[entry].next
            header.msg_control = NULL
            header.msg_controllen = _put_control(_controls[index], &run.path, run.segment if run.count > 1 else 0)
            if header.msg_controllen:
                header.msg_control = _controls[index]
        return 0

    cdef void forget(self) noexcept:
        """Let go of whoever deals with failures, who holds this object: it would take the garbage collector to part them.

        Nothing can be sent any more.
        """
        self._failed = None

    cdef int _run_failed(self, Run *run, int number) except -1:
        """Deal with a run, or a single datagram, that the kernel did not take; return EAGAIN if it has no room."""
        if run.count == 1 or number == EAGAIN:
            return self._give_up(run, run.first, number)
        return self._one_by_one(run, number)

    cdef int _limit_runs(self, Run *run, int number) except -1:
        """Put less, or nothing, together for this peer, or, where the reason is not the way to it, for nobody."""
        cdef Peer peer = <Peer>run.peer
        if number in (EINVAL, EMSGSIZE) and run.segment > ALWAYS_FITS:
            peer.largest_segment = ALWAYS_FITS  # the path's MTU is less than Ethernet's
        elif number in (EINVAL, EMSGSIZE) and self._refusals < _most_refusals:
            self._refusals += 1
            peer.largest_segment = 0
        elif self.segments:
            self.segments = False
            lacking("UDP_SEGMENT", OSError(number, os.strerror(number)))
        return 0

    cdef int _one_by_one(self, Run *run, int reason) except -1:
        """Send each datagram of a run alone; return EAGAIN if the kernel has no room."""
        cdef int entry = run.first
        cdef int number
        cdef Peer peer = <Peer>run.peer
        cdef Path present = peer.path
        while entry >= 0:
            peer.path = run.path
            number = self.send_now(
                PyBytes_AS_STRING(<object>self.entries[entry].datagram), self.entries[entry].size, peer
            )
            peer.path = present
            if number:
                if self._give_up_one(run, entry, number):
                    return self._give_up(run, self.entries[entry].next, EAGAIN)
            elif entry == run.first and reason in (EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP):
                self._limit_runs(run, reason)  # alone it could be sent: so it was this that the kernel did not like
            entry = self.entries[entry].next
        return 0

    cdef int _give_up(self, Run *run, int entry, int number) except -1:
        """Hand over the datagrams of a run from one on; return EAGAIN if the kernel has no room."""
        cdef bint waits = number == EAGAIN
        while entry >= 0:
            waits = self._give_up_one(run, entry, number) or waits
            entry = self.entries[entry].next
        return EAGAIN if waits else number

    cdef int _give_up_one(self, Run *run, int entry, int number) except -1:
        """Hand over one datagram; return whether it, and so all after it, must wait for room."""
        cdef bint waits = self._failed(
            <bytes>self.entries[entry].datagram, <Peer>run.peer, path_bytes(&run.path), run.path.hops, number
        )
        return waits

    cdef int _wait(self, int first) except -1:
        """Hand over all runs from one on: what the kernel takes later must not overtake them."""
        cdef int index
        for index in range(first, self.run_count):
            self._give_up(&self.runs[index], self.runs[index].first, EAGAIN)
        return 0

    cdef int _clear(self) noexcept:
        """Empty the queue."""
        cdef int index
        self._flush += 1
        for index in range(self.count):
            Py_DECREF(<object>self.entries[index].datagram)
        for index in range(self.run_count):
            Py_DECREF(<object>self.runs[index].peer)
        self.count = self.run_count = 0
        return 0
