# Admission as the compiled modules see it; _admission.pyx says what each member is for.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef struct Bucket:
    uint64_t mark
    int64_t full_at

cdef class Admission:
    cdef int64_t now
    cdef bint has_news
    cdef readonly object policy
    cdef readonly object stats
    cdef void *_memory
    cdef Bucket *_hosts
    cdef Bucket *_networks
    cdef int64_t _everybody
    cdef int64_t _host_interval
    cdef int64_t _network_interval
    cdef int64_t _total_interval
    cdef int64_t _host_room
    cdef int64_t _network_room
    cdef int64_t _total_room
    cdef int64_t _heaviest
    cdef bint _log_only
    cdef uint64_t _salt_ipv4
    cdef uint64_t _salt_ipv6
    cdef uint64_t _first
    cdef uint64_t _second
    cdef uint64_t *_starts_ipv4
    cdef uint64_t *_starts_ipv6
    cdef uint8_t *_verdicts_ipv4
    cdef uint8_t *_verdicts_ipv6
    cdef int _count_ipv4
    cdef int _count_ipv6
    cdef uint64_t _evictions
    cdef uint64_t _refused[5]
    cdef uint8_t _refused_first[5][28]

    cdef void look_at_clock(self) noexcept
    cdef Py_ssize_t admit(self, const uint8_t *sockaddr, Py_ssize_t count, Py_ssize_t size) noexcept
    cdef int _locate(self, const uint8_t *sockaddr, uint64_t *host, uint64_t *network) noexcept
    cdef Py_ssize_t _limited(self, uint64_t host, uint64_t network, Py_ssize_t count, int64_t weight, int *reason) noexcept
    cdef void _put(self, Bucket *bucket, uint64_t mark, int64_t full_at) noexcept
