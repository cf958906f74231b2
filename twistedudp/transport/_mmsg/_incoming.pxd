# What was read from a socket, as the compiled modules see it; _incoming.pyx tells what each member is for.

from libc.stdint cimport int64_t, uint8_t

from ._admission cimport Admission
from ._linux cimport msghdr
from ._peers cimport Path, Peer, PeerTable

cdef struct Received:
    void *datagram      # a bytes object, owned
    void *peer          # a Peer, owned
    int64_t arrival     # nanoseconds since the epoch, 0 if not asked for
    Path path           # of the datagram; size 0 where the socket does not tell
    bint to_group

cdef class Incoming:
    cdef readonly PeerTable peers
    cdef Admission admission
    cdef Received *items
    cdef int next
    cdef int end
    cdef int slots_read
    cdef int truncated
    cdef int together
    cdef int dropped
    cdef int _room
    cdef int _descriptor
    cdef Py_ssize_t _limit
    cdef bint _to_group
    cdef bint _return_path
    cdef int _type_segment
    cdef int _type_time

    cdef int read(self, int slots) except -2
    cdef void clear(self) noexcept
    cdef int _shrink(self) noexcept
    cdef int _take(self, int slot) except -1
    cdef Py_ssize_t _admitted(self, const uint8_t *sockaddr, Py_ssize_t length, int segment) noexcept
    cdef int _add(self, const char *data, Py_ssize_t size, Peer peer, const Received *like) except -1
    cdef int _read_control(self, msghdr *header, Received *item) noexcept
    cdef void _read_pktinfo(self, const uint8_t *data, Received *item) noexcept
    cdef void _read_pktinfo6(self, const uint8_t *data, Received *item) noexcept
