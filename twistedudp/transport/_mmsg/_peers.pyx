"""The peers that a port has heard: what the kernel calls them, what protocols call them, and the way back to them.

Theory of operation: every datagram comes with a raw ``sockaddr``. A set-associative table leads from it to a
:class:`Peer` without making any Python object, so that a peer heard before costs some ten nanoseconds: its address
tuple is made once. Whoever writes to a peer by an equal tuple finds it in a dictionary of two generations. Both are
bounded, so that any number of forged senders costs no lasting memory, and both only spare work: a peer that dropped out
is made anew when it is heard again, and reached without its return path meanwhile.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from ._linux cimport (
    AF_INET,
    AF_INET6,
    IN6_IS_ADDR_V4MAPPED,
    INET6_ADDRSTRLEN,
    if_indextoname,
    inet_ntop,
    ntohs,
    sockaddr_in,
    sockaddr_in6,
    socklen_t,
)

import os

from .. import _kernel
from .._addresses import MAX_REMEMBERED

cdef enum:
    WAYS = 4           # places that a sockaddr may have: with 1,000 peers in 4,096 places nearly all have one
    FIRST_SETS = 16    # of a port that talks to few; 512 bytes
    MOST_SETS = 1024   # 4,096 peers: as many as one generation of TwoGenerations holds
    MOST_IPV4 = 65507  # bytes of payload: RFC 791 has 65,535 for a packet, less 20 and 8 for headers
    ETHERNET_IPV4 = 1472  # bytes of payload in a frame of Ethernet; larger datagrams gain nothing from company
    ETHERNET_IPV6 = 1452
    MOST_IPV6 = 65527  # RFC 8200: the 16-bit length counts what follows the header, less 8

cdef Py_ssize_t _most_remembered = MAX_REMEMBERED

# Forged senders could all be made to meet in one set if they knew where they go.
cdef uint64_t _seed = int.from_bytes(os.urandom(8), "little") | 1


cdef inline uint32_t _digest(const uint8_t *sockaddr, socklen_t size) noexcept nogil:
    """Return a number that spreads addresses, from whose high bits the set is taken."""
    cdef uint64_t word = 0
    cdef uint64_t mixed = _seed
    cdef socklen_t at = 0
    while at + 8 <= size:
        memcpy(&word, sockaddr + at, 8)
        mixed = (mixed ^ word) * <uint64_t>0x9E3779B97F4A7C15ULL
        mixed ^= mixed >> 29
        at += 8
    if at < size:
        word = 0
        memcpy(&word, sockaddr + at, size - at)
        mixed = (mixed ^ word) * <uint64_t>0x9E3779B97F4A7C15ULL
    mixed ^= _seed
    return <uint32_t>(mixed >> 32)


cdef bint same_path(const Path *one, const Path *other) noexcept nogil:
    """Tell whether two return paths are the same."""
    return one.size == other.size and one.hops == other.hops and memcmp(one.data, other.data, one.size) == 0


cdef bytes path_bytes(const Path *path):
    """Return a return path as the data of a control message, empty where the kernel is to choose."""
    return PyBytes_FromStringAndSize(<const char *>path.data, path.size)


cdef list hop_messages(int hops):
    """Return the control message that sets a path's ``hops``, as Python's ``sendmsg`` takes it; none if it has none."""
    if not hops:
        return []
    return [_kernel.hop_option((hops & ~HOPS_IPV6) - 1, ipv6=bool(hops & HOPS_IPV6))]


cdef class Peer:
    """One peer of a port.

    Attributes:
        sockaddr, sockaddr_size: What the kernel calls it; no bytes for the peer of a connected socket.
        addr: What protocols call it.
        path: The local address that it asked last, and is to be answered from.
        largest_segment: Bytes of the largest datagram that may share a buffer with others on the way to it.
        port_zero: Whether its source port is 0, at which nobody can be answered.
        most: Bytes of the largest payload that its IP version carries.
        turn: The read turn in which it was heard last.
        kept: The generation of the dictionary that it was put into last.
        flush, run: The place of its youngest run in the queue of what is to be sent; the run is of that flush only.
    """


cdef class PeerTable:
    """The peers heard lately.

    Args:
        stats: The port's counters; ``routes_forgotten`` is kept up.
    """

    def __cinit__(self, stats):
        self._ways = <void **>calloc(FIRST_SETS * WAYS, sizeof(void *))
        if self._ways == NULL:
            raise MemoryError
        self._sets = FIRST_SETS
        self._young = {}
        self._old = {}
        self._stats = stats

    def __dealloc__(self):
        cdef uint32_t index
        if self._ways != NULL:
            for index in range(self._sets * WAYS):
                if self._ways[index] != NULL:
                    Py_DECREF(<object>self._ways[index])
            free(self._ways)

    cdef Peer heard(self, const uint8_t *sockaddr, socklen_t size):
        """Return the peer that the kernel calls so."""
        cdef uint32_t first = (_digest(sockaddr, size) & (self._sets - 1)) * WAYS
        cdef int way
        cdef void *found
        cdef Peer peer
        for way in range(WAYS):
            found = self._ways[first + way]
            if found == NULL:
                break
            peer = <Peer>found
            if peer.sockaddr_size == size and memcmp(peer.sockaddr, sockaddr, size) == 0:
                if peer.kept != self._rotation:  # find() is to find whoever was just heard
                    self._old.pop(peer.addr, None)
                    self._remember(peer)
                return peer
        return self._learn(sockaddr, size)

    cdef Peer find(self, object addr):
        """Return the peer that protocols call so, None if it was not heard lately."""
        cdef Peer peer = self._young.get(addr)
        if peer is None and self._old:
            peer = self._old.pop(addr, None)
            if peer is not None:
                self._remember(peer)
        return peer

    cdef Peer _learn(self, const uint8_t *sockaddr, socklen_t size):
        """Make a peer, or find the one that the table had no more room for."""
        cdef tuple addr = _address_of(sockaddr)
        cdef Peer peer = self.find(addr)
        if peer is None or peer.sockaddr_size != size or memcmp(peer.sockaddr, sockaddr, size) != 0:
            peer = Peer.__new__(Peer)
            peer.addr = addr
            _begin(peer)
            peer.port_zero = addr[1] == 0
            peer.sockaddr_size = size
            memcpy(peer.sockaddr, sockaddr, size)
            self._remember(peer)
        self._insert(peer)
        return peer

    cdef int _remember(self, Peer peer) except -1:
        """Put a peer into the young generation; a full one becomes the old, and what the old one held is forgotten."""
        if len(self._young) >= _most_remembered and peer.addr not in self._young:
            self._stats.routes_forgotten += len(self._old)
            self._old = self._young
            self._young = {}
            self._rotation += 1
        self._young[peer.addr] = peer
        peer.kept = self._rotation
        return 0

    cdef int _insert(self, Peer peer) except -1:
        cdef uint32_t first = (_digest(peer.sockaddr, peer.sockaddr_size) & (self._sets - 1)) * WAYS
        cdef int way
        if self._ways[first + WAYS - 1] != NULL:
            if self._sets < MOST_SETS:
                self._grow()
                return self._insert(peer)
            Py_DECREF(<object>self._ways[first + WAYS - 1])
        for way in range(WAYS - 1, 0, -1):
            self._ways[first + way] = self._ways[first + way - 1]
        Py_INCREF(peer)
        self._ways[first] = <void *>peer
        return 0

    cdef int _grow(self) except -1:
        """Have four times as many sets; what does not fit in the new ones is forgotten, which hardly ever happens."""
        cdef void **old = self._ways
        cdef uint32_t count = self._sets * WAYS
        cdef uint32_t index
        cdef void **larger = <void **>calloc(count * 4, sizeof(void *))
        if larger == NULL:
            raise MemoryError
        self._ways = larger
        self._sets *= 4
        for index in range(count):
            if old[index] != NULL:
                peer = <Peer>old[index]
                Py_DECREF(peer)
                self._insert(peer)
        free(old)
        return 0

    def __len__(self):
        """Return how many peers are in the table."""
        cdef uint32_t index
        cdef int count = 0
        for index in range(self._sets * WAYS):
            count += self._ways[index] != NULL
        return count


cdef tuple kernel_address(Peer peer):
    """Return a peer's address as Python's ``socket`` takes it."""
    cdef sockaddr_in6 *ipv6 = <sockaddr_in6 *>peer.sockaddr
    cdef char text[64]
    if ipv6.sin6_family == AF_INET:
        return peer.addr
    inet_ntop(AF_INET6, &ipv6.sin6_addr, text, INET6_ADDRSTRLEN)
    return text.decode("ascii"), peer.addr[1], 0, ipv6.sin6_scope_id


cdef Peer connected_peer(tuple addr):
    """Return the peer of a connected socket, to which the kernel sends without a name."""
    cdef Peer peer = Peer.__new__(Peer)
    peer.addr = addr
    _begin(peer)
    return peer


cdef int _begin(Peer peer) except -1:
    """Set what follows from a new peer's address."""
    cdef bint ipv6 = ":" in peer.addr[0]
    peer.run = -1
    peer.most = MOST_IPV6 if ipv6 else MOST_IPV4
    peer.largest_segment = ETHERNET_IPV6 if ipv6 else ETHERNET_IPV4
    return 0


cdef tuple _address_of(const uint8_t *sockaddr):
    """Return what protocols are given for a raw address: as _addresses.peer_of does."""
    cdef char text[64]
    cdef char name[64]
    cdef sockaddr_in *ipv4 = <sockaddr_in *>sockaddr
    cdef sockaddr_in6 *ipv6 = <sockaddr_in6 *>sockaddr
    if ipv4.sin_family == AF_INET:
        inet_ntop(AF_INET, &ipv4.sin_addr, text, INET6_ADDRSTRLEN)
        return text.decode("ascii"), ntohs(ipv4.sin_port)
    if IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr):
        inet_ntop(AF_INET, &ipv6.sin6_addr.s6_addr[12], text, INET6_ADDRSTRLEN)
        return text.decode("ascii"), ntohs(ipv6.sin6_port)
    inet_ntop(AF_INET6, &ipv6.sin6_addr, text, INET6_ADDRSTRLEN)
    if not ipv6.sin6_scope_id:
        return text.decode("ascii"), ntohs(ipv6.sin6_port)
    if if_indextoname(ipv6.sin6_scope_id, name) == NULL:  # the interface has just gone; the number still tells peers apart
        return f"{text.decode('ascii')}%{ipv6.sin6_scope_id}", ntohs(ipv6.sin6_port)
    return f"{text.decode('ascii')}%{name.decode('utf-8', 'surrogateescape')}", ntohs(ipv6.sin6_port)


def address_of(bytes sockaddr not None):
    """Return what protocols are given for a raw ``sockaddr_in`` or ``sockaddr_in6``."""
    cdef const uint8_t *raw = sockaddr
    cdef int family = (<sockaddr_in *>raw).sin_family if len(sockaddr) >= 16 else 0
    if not ((family == AF_INET and len(sockaddr) == 16) or (family == AF_INET6 and len(sockaddr) == SOCKADDR_SIZE)):
        raise ValueError("not an IPv4 or IPv6 sockaddr")
    return _address_of(raw)
