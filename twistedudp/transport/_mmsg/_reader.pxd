# The reading part of the backend, as the rest of it sees it; _reader.pyx tells what each member is for.

from libc.stdint cimport int64_t, uint64_t

from ._incoming cimport Incoming
from ._outgoing cimport Outgoing
from ._peers cimport Peer

cdef class Reader:
    cdef Incoming incoming
    cdef Outgoing outgoing
    cdef object protocol
    cdef object stats
    cdef object reports
    cdef object reactor
    cdef object admission
    cdef object slow
    cdef object wakeup
    cdef bint delivers
    cdef bint in_turn
    cdef bint queues
    cdef bint blocked
    cdef Peer current
    cdef Peer connected
    cdef uint64_t batch
    cdef int slots
    cdef int fits
    cdef int receive_calls
    cdef int batches
    cdef bint _takes_batches
    cdef bint _timestamps
    cdef bint _to_group
    cdef tuple _times
    cdef bint _looked
    cdef int _luck
    cdef unsigned int _looks

    cdef int _turn(self) except -1
    cdef bint _is_worth_a_look(self, int read) noexcept
    cdef int _fit(self, int found, int64_t elapsed) except -1
    cdef int _deliver(self, int most, int64_t ends) except -1
    cdef int _deliver_each(self, int most, int64_t ends) except -1
    cdef int _deliver_together(self, int most, int64_t ends) except -1
    cdef int _deliver_batch(self, int most) except -1
    cdef int _count_received(self, int count, long octets) except -1
    cdef int _come_again(self) except -1
    cdef int publish(self) except -1
