# The peers of a port as the compiled modules see them; _peers.pyx says what each member is for.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from ._linux cimport socklen_t

cdef enum:
    SOCKADDR_SIZE = 28  # sockaddr_in6, the larger of the two
    PATH_SIZE = 20      # in6_pktinfo, the larger of the two
    IN_PKTINFO_SIZE = 12  # struct in_pktinfo: interface, local address, address in the header
    NO_HOPS = 1         # a hop limit of 0, with which nothing is sent
    HOPS_IPV6 = 128
    ALWAYS_FITS = 1232  # bytes of payload that any path carries: IPv6's least MTU, 1,280, less 48 for headers

cdef struct Path:
    uint8_t size        # 0: the kernel chooses, 12: in_pktinfo, 20: in6_pktinfo
    uint8_t hops        # 0: the kernel chooses; else the hop limit plus 1, and HOPS_IPV6 where it is IPv6's
    uint8_t data[20]

cdef class Peer:
    cdef uint8_t sockaddr[28]
    cdef socklen_t sockaddr_size
    cdef readonly tuple addr
    cdef Path path
    cdef uint32_t largest_segment
    cdef bint port_zero
    cdef uint32_t most
    cdef uint64_t turn
    cdef uint64_t flush
    cdef uint32_t kept
    cdef int run

cdef class PeerTable:
    cdef void **_ways
    cdef uint32_t _sets
    cdef dict _young
    cdef dict _old
    cdef uint32_t _rotation
    cdef object _stats

    cdef Peer heard(self, const uint8_t *sockaddr, socklen_t size)
    cdef Peer find(self, object addr)
    cdef Peer _learn(self, const uint8_t *sockaddr, socklen_t size)
    cdef int _remember(self, Peer peer) except -1
    cdef int _insert(self, Peer peer) except -1
    cdef int _grow(self) except -1

cdef bint same_path(const Path *one, const Path *other) noexcept nogil
cdef bytes path_bytes(const Path *path)
cdef list hop_messages(int hops)
cdef tuple kernel_address(Peer peer)
cdef Peer connected_peer(tuple addr)
