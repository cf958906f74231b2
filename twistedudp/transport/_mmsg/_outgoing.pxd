# What is to be sent, as the compiled modules see it; _outgoing.pyx tells what each member is for.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ._linux cimport iovec, mmsghdr, msghdr
from ._peers cimport Path, Peer

cdef enum:
    QUEUE_ROOM = 128

cdef struct Entry:
    void *datagram      # a bytes object, owned
    uint32_t size
    int next            # the entry after it in its run, -1 at the end

cdef struct Run:
    void *peer          # a Peer, owned
    Path path
    int first
    int last
    int count
    uint32_t segment    # bytes of every datagram but perhaps the last
    uint32_t total
    bint open           # whether another may join

cdef class Outgoing:
    cdef Entry entries[128]
    cdef Run runs[128]
    cdef int count
    cdef int run_count
    cdef bint flushing
    cdef public bint segments
    cdef long sent
    cdef long sent_bytes
    cdef long sent_together
    cdef long calls
    cdef int _descriptor
    cdef int _refusals
    cdef uint64_t _flush
    cdef object _failed

    cdef int add(self, bytes datagram, Peer peer, const Path *path, bint together) except -1
    cdef int flush(self) except -1
    cdef void forget(self) noexcept
    cdef int send_now(self, const char *data, Py_ssize_t size, Peer peer) noexcept
    cdef int _prepare(self) noexcept
    cdef int _run_failed(self, Run *run, int number) except -1
    cdef int _limit_runs(self, Run *run, int number) except -1
    cdef int _one_by_one(self, Run *run, int reason) except -1
    cdef int _give_up_one(self, Run *run, int entry, int number) except -1
    cdef int _flush_runs(self) except -1
    cdef int _give_up(self, Run *run, int entry, int number) except -1
    cdef int _wait(self, int first) except -1
    cdef int _clear(self) noexcept
