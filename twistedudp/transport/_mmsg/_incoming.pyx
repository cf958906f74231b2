"""Datagrams from the kernel to Python objects, many with one system call.

Theory of operation: recvmmsg(2) fills an arena of slots that all ports of the process share: it is emptied into bytes
objects before anybody else can come to use it, for the GIL is held all the time (the call never blocks). A slot takes
64 KiB, so that no datagram is ever cut, also where the kernel hands over several in one buffer (UDP_GRO). Its pages are
touched only as far as datagrams are large. The slots' starts differ in their low bits, else all of them would compete
for the same lines of the cache.

What was read stands in :attr:`Incoming.items` from ``next`` to ``end``, in kernel order, until the backend has
delivered it.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EBADF, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from ._linux cimport (
    CMSG_DATA,
    CMSG_FIRSTHDR,
    CMSG_LEN,
    CMSG_NXTHDR,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_UDP,
    MSG_DONTWAIT,
    MSG_TRUNC,
    SO_RXQ_OVFL,
    SOL_SOCKET,
    cmsghdr,
    iovec,
    mmsghdr,
    msghdr,
    recvmmsg,
    sendmmsg,
)
from ._peers cimport HOPS_IPV6, IN_PKTINFO_SIZE, SOCKADDR_SIZE, Peer, PeerTable

import os

from .. import _kernel

cdef enum:
    MOST_KEPT = 512       # items that a port keeps room for, 28 kB; more are rare and come from bursts
    SLOTS = 64            # the arena's; also the most that one call reads
    SLOT_SIZE = 65536     # bytes: one more than any datagram has, and what UDP_GRO puts together at most
    SLOT_STRIDE = 65920   # ... and 384 more, so that equal offsets of neighbours differ by six cache lines
    CONTROL_SIZE = 192    # bytes: two packet informations, drop count, segment size and time take 152
    IN_PKTINFO = 8        # <linux/in.h>: IP_PKTINFO
    FIRST_GROUP = 224     # RFC 5771: the first byte of multicast addresses; above are none that a host can have
    IN6_PKTINFO = 50      # <linux/in6.h>: IPV6_PKTINFO
    TTL = 2               # <linux/in.h>: IP_TTL
    HOPLIMIT = 52         # <linux/in6.h>: IPV6_HOPLIMIT
    MOST_HOPS = 64        # as _kernel.MOST_ANSWER_HOPS
    IN6_PKTINFO_SIZE = 20 # struct in6_pktinfo: address, interface


def obstacle():
    """Return what keeps recvmmsg(2) and sendmmsg(2) from being used here, empty if nothing does.

    Sandboxes (seccomp(2)) may refuse them, with ENOSYS or EPERM, though the kernel has them; no descriptor is needed to
    find out, for a call that is let through complains of that (EBADF).
    """
    cdef mmsghdr header
    memset(&header, 0, sizeof(header))
    if recvmmsg(-1, &header, 1, MSG_DONTWAIT, NULL) < 0 and errno != EBADF:
        return f"recvmmsg: {os.strerror(errno)}"
    if sendmmsg(-1, &header, 1, MSG_DONTWAIT) < 0 and errno != EBADF:
        return f"sendmmsg: {os.strerror(errno)}"
    return ""


cdef struct Arena:
    mmsghdr headers[64]
    iovec vectors[64]
    uint8_t names[64][32]
    uint8_t controls[64][192]
    char *buffers
    bint busy

cdef Arena _arena
memset(&_arena, 0, sizeof(_arena))


cdef int _prepare_arena() except -1:
    """Make the arena; done once, by the first port that reads."""
    cdef int slot
    _arena.buffers = <char *>malloc(SLOTS * SLOT_STRIDE)
    if _arena.buffers == NULL:
        raise MemoryError
    for slot in range(SLOTS):
        _arena.vectors[slot].iov_base = _arena.buffers + slot * SLOT_STRIDE
        _arena.vectors[slot].iov_len = SLOT_SIZE
        _arena.headers[slot].msg_hdr.msg_name = _arena.names[slot]
        _arena.headers[slot].msg_hdr.msg_iov = &_arena.vectors[slot]
        _arena.headers[slot].msg_hdr.msg_iovlen = 1
        _arena.headers[slot].msg_hdr.msg_control = _arena.controls[slot]
        _reset(slot)
    return 0


cdef inline void _reset(int slot) noexcept nogil:
    """Give a slot back to the kernel: it has written into these two."""
    _arena.headers[slot].msg_hdr.msg_namelen = SOCKADDR_SIZE
    _arena.headers[slot].msg_hdr.msg_controllen = CONTROL_SIZE


cdef class Incoming:
    """What one port reads.

    Args:
        descriptor: The socket's.
        limit: Bytes of the largest datagram to be delivered.
        to_group: Whether the socket is bound to a broadcast or multicast address.
        return_path: Whether the address that was asked is to be remembered with the peer.
        stats: The port's counters.

    Attributes:
        peers: Whom the port has heard.
        admission: Decides who is let in; None for everybody.
        items, next, end: What waits for its delivery.
        slots_read: Buffers filled by the last read; fewer than datagrams where one held several.
        truncated, together: What the last reads found: datagrams above the limit, datagrams that shared a buffer.
        dropped: Datagrams that the kernel had no room for, ever, as it told last; -1 where it has not.
    """

    def __cinit__(self, int descriptor, Py_ssize_t limit, bint to_group, bint return_path, stats):
        if _arena.buffers == NULL:
            _prepare_arena()
        self._descriptor = descriptor
        self._limit = limit
        self._to_group = to_group
        self._return_path = return_path
        self.peers = PeerTable(stats)
        self.dropped = -1
        self._type_segment = _kernel.UDP_GRO
        self._type_time = _kernel.SO_TIMESTAMPNS
        self._room = SLOTS
        self.items = <Received *>malloc(self._room * sizeof(Received))
        if self.items == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.items != NULL:
            self.clear()
            free(self.items)

    cdef void clear(self) noexcept:
        """Drop what waits."""
        while self.next < self.end:
            Py_DECREF(<object>self.items[self.next].datagram)
            Py_DECREF(<object>self.items[self.next].peer)
            self.next += 1
        self.next = self.end = 0

    cdef int read(self, int slots) except -2:
        """Read up to a number of buffers; what was read before must have been delivered.

        Returns:
            How many datagrams are there, ``-1`` if the call failed: then ``errno`` tells why.
        """
        cdef int count, slot
        self.next = self.end = self.slots_read = 0
        if self._room > MOST_KEPT:
            self._shrink()
        if _arena.busy:  # the garbage collector ran a finalizer that came here; the reactor will come again
            return 0
        count = recvmmsg(self._descriptor, _arena.headers, min(slots, SLOTS), MSG_DONTWAIT, NULL)
        if count < 0:
            return -1
        self.slots_read = count
        if self.admission is not None:
            self.admission.look_at_clock()
        _arena.busy = True
        try:
            for slot in range(count):
                self._take(slot)
        finally:
            for slot in range(count):
                _reset(slot)
            _arena.busy = False
        return self.end

    cdef int _shrink(self) noexcept:
        """Give back what a burst of buffers with many datagrams each has made it grow to."""
        cdef Received *smaller = <Received *>realloc(self.items, SLOTS * sizeof(Received))
        if smaller != NULL:
            self.items = smaller
            self._room = SLOTS
        return 0

    cdef int _take(self, int slot) except -1:
        """Turn one buffer into items."""
        cdef msghdr *header = &_arena.headers[slot].msg_hdr
        cdef Py_ssize_t length = _arena.headers[slot].msg_len
        cdef Py_ssize_t at
        cdef int segment = 0
        cdef const char *data = _arena.buffers + slot * SLOT_STRIDE
        cdef Received like
        cdef Peer peer
        like.arrival = 0
        like.path.size = 0
        like.path.hops = 0
        like.to_group = self._to_group
        if header.msg_controllen:
            segment = self._read_control(header, &like)
        if header.msg_flags & MSG_TRUNC:  # no datagram is larger than a slot
            self.truncated += 1
            return 0
        if self.admission is not None:
            length = self._admitted(_arena.names[slot], length, segment)
            if length < 0:
                return 0
        peer = self.peers.heard(_arena.names[slot], header.msg_namelen)
        if segment <= 0 or segment >= length:
            return self._add(data, length, peer, &like)
        for at in range(0, length, segment):
            self.together += 1
            self._add(data + at, min(<Py_ssize_t>segment, length - at), peer, &like)
        return 0

    cdef Py_ssize_t _admitted(self, const uint8_t *sockaddr, Py_ssize_t length, int segment) noexcept:
        """Return how many bytes of a buffer are of datagrams that are let in, -1 if none is: one may be empty."""
        cdef Py_ssize_t count = 1
        cdef Py_ssize_t let_in
        if 0 < segment < length:
            count = (length + segment - 1) // segment
        let_in = self.admission.admit(sockaddr, count, segment if count > 1 else length)
        if let_in == count:
            return length
        return let_in * segment if let_in else -1

    cdef int _add(self, const char *data, Py_ssize_t size, Peer peer, const Received *like) except -1:
        cdef Received *item
        cdef Received *larger
        if size > self._limit:
            self.truncated += 1
            return 0
        if self.end == self._room:
            larger = <Received *>realloc(self.items, self._room * 2 * sizeof(Received))
            if larger == NULL:
                raise MemoryError
            self.items = larger
            self._room *= 2
        datagram = PyBytes_FromStringAndSize(data, size)
        item = &self.items[self.end]
        item[0] = like[0]
        Py_INCREF(datagram)
        item.datagram = <void *>datagram
        Py_INCREF(peer)
        item.peer = <void *>peer
        self.end += 1
        return 0

    cdef int _read_control(self, msghdr *header, Received *item) noexcept:
        """Read the control messages of a buffer into an item; return the size of its segments, 0 if it has none."""
        cdef cmsghdr *control = CMSG_FIRSTHDR(header)
        cdef int segment = 0
        cdef uint32_t drops = 0
        cdef uint8_t *data
        while control != NULL:
            data = CMSG_DATA(control)
            if control.cmsg_level == IPPROTO_IP:
                if control.cmsg_type == IN_PKTINFO:
                    self._read_pktinfo(data, item)
                elif control.cmsg_type == TTL:
                    item.path.hops = _hops_back(data)
            elif control.cmsg_level == SOL_SOCKET:
                if control.cmsg_type == SO_RXQ_OVFL:
                    memcpy(&drops, data, sizeof(drops))
                    self.dropped = <int>drops
                elif control.cmsg_type == self._type_time:
                    item.arrival = _nanoseconds(data, control.cmsg_len)
            elif control.cmsg_level == IPPROTO_UDP:
                if control.cmsg_type == self._type_segment:
                    memcpy(&segment, data, sizeof(segment))
            elif control.cmsg_level == IPPROTO_IPV6:
                if control.cmsg_type == IN6_PKTINFO and not item.path.size:
                    self._read_pktinfo6(data, item)
                elif control.cmsg_type == HOPLIMIT:
                    item.path.hops = _hops_back(data) | HOPS_IPV6
            control = CMSG_NXTHDR(header, control)
        return segment

    cdef void _read_pktinfo(self, const uint8_t *data, Received *item) noexcept:
        """Turn ``struct in_pktinfo`` into the way back.

        ``ipi_spec_dst`` is this host's own address that received the datagram (ip(7)); the header's destination differs
        from it only where it is a broadcast or multicast address. A datagram that came before the socket had the option
        has no address there, and only the header's destination is told.
        """
        cdef const uint8_t *local = data + 4
        if local[0] | local[1] | local[2] | local[3]:
            item.to_group = _differ(local, data + 8)
        else:
            item.to_group = data[8] >= FIRST_GROUP
            if not item.to_group:
                local = data + 8
        if self._return_path:
            item.path.size = IN_PKTINFO_SIZE
            memset(item.path.data, 0, IN_PKTINFO_SIZE)
            memcpy(item.path.data + 4, local, 4)

    cdef void _read_pktinfo6(self, const uint8_t *data, Received *item) noexcept:
        """Turn ``struct in6_pktinfo`` into the way back."""
        if data[0] == 0xFF:  # RFC 4291 section 2.7: multicast, which cannot be a source
            item.to_group = True
            return
        item.to_group = False
        if self._return_path:
            item.path.size = IN6_PKTINFO_SIZE
            memcpy(item.path.data, data, IN6_PKTINFO_SIZE)
            # Only a link-local source (RFC 4291 section 2.5.6) needs its interface; any other may leave by whatever
            # route leads to the peer.
            if not (data[0] == 0xFE and data[1] & 0xC0 == 0x80):
                memset(item.path.data + 16, 0, 4)


cdef int64_t _nanoseconds(const uint8_t *data, size_t size) noexcept nogil:
    """Return the time in a control message: its two numbers have 32 bits each on systems that have such a time."""
    cdef int64_t[2] wide
    cdef int32_t[2] narrow
    if size >= CMSG_LEN(16):
        memcpy(wide, data, 16)
        return wide[0] * 1_000_000_000 + wide[1]
    memcpy(narrow, data, 8)
    return <int64_t>narrow[0] * 1_000_000_000 + narrow[1]


cdef inline uint8_t _hops_back(const uint8_t *data) noexcept nogil:
    """Return the hop limit that an answer is given, plus 1: one less than what came, and not too much."""
    cdef int32_t hops = 0
    memcpy(&hops, data, sizeof(hops))
    return <uint8_t>(min(max(hops - 1, 0), MOST_HOPS) + 1)


cdef inline bint _differ(const uint8_t *one, const uint8_t *other) noexcept nogil:
    """Tell whether four bytes differ."""
    cdef uint32_t first = 0
    cdef uint32_t second = 0
    memcpy(&first, one, 4)
    memcpy(&second, other, 4)
    return first != second
