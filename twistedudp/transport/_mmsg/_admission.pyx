"""Admission, compiled: the same decisions as :class:`twistedudp.admission.Admission` comes to, from raw addresses.

Theory of operation: see ``twistedudp/admission``, whose modules explain every step; this one repeats them in C, and a
property test holds both to the same answers. Lists, limits and secrets are worked out there, once. A datagram that is
let in costs two lines of the processor's cache, one for its host and one for its network, and makes no Python object;
neither does one that is refused. Of these, numbers by reason and the first address of each are kept, until the end of
the read turn, when :meth:`Admission.take_refusals` makes objects of them: five at most.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from ._linux cimport (
    AF_INET,
    AF_INET6,
    CLOCK_MONOTONIC,
    clock_gettime,
    monotonic_time,
    sockaddr_in,
    sockaddr_in6,
)
from ._peers cimport SOCKADDR_SIZE

from ...admission import PACKET, REASONS, Refusals
from ...admission._buckets import SETS_SHIFT, SLOTS, WAYS, secrets_of
from ...admission._networks import DENIED, LIMITED, NOT_ALLOWED, TRUSTED, intervals
from ._peers import address_of

cdef enum:
    TABLE = 65536       # places, as SLOTS has it
    PLACES = 4          # ... and WAYS
    SHIFT = 50          # ... and SETS_SHIFT
    REASON_COUNT = 5
    BYTES = 1500        # that count as one datagram, as PACKET has it
    LINE = 64           # bytes of a cache line: a set
    AT_ONCE = 64        # datagrams for which the clock is looked at once, where run() stands for a port

    IS_LIMITED = 2
    IS_TRUSTED = 3
    BY_HOST = 2         # the places of the reasons in REASONS
    BY_NETWORK = 3
    BY_TOTAL = 4

if (SLOTS, WAYS, SETS_SHIFT, LIMITED, TRUSTED, PACKET) != (TABLE, PLACES, SHIFT, IS_LIMITED, IS_TRUSTED, BYTES):
    raise ImportError("_admission was compiled for another version of twistedudp.admission: compile it again")
if REASONS != ("denied", "not_allowed", "host_rate", "network_rate", "total_rate") or (DENIED, NOT_ALLOWED) != (0, 1):
    raise ImportError("_admission was compiled for another version of twistedudp.admission: compile it again")


cdef inline uint64_t _mixed(uint64_t word, uint64_t salt, uint64_t first, uint64_t second) noexcept nogil:
    """Return the number that a prefix is known by."""
    cdef uint64_t number = (word ^ salt) * first
    number ^= number >> 32
    number *= second
    return number ^ (number >> 29)


cdef inline Bucket *_place(Bucket *table, uint64_t mark) noexcept nogil:
    """Return where a bucket is, or would be put."""
    cdef Bucket *first = table + (mark >> SHIFT) * PLACES
    cdef Bucket *least = first
    cdef int way
    for way in range(PLACES):
        if first[way].mark == mark:
            return first + way
    for way in range(1, PLACES):
        if first[way].full_at < least.full_at:
            least = first + way
    return least


cdef inline int64_t _full_at(const Bucket *bucket, uint64_t mark, int64_t now) noexcept nogil:
    """Return when a bucket is full again."""
    return bucket.full_at if bucket.mark == mark and bucket.full_at > now else now


cdef inline bint _fits(int64_t free_time, int64_t interval, Py_ssize_t *let_in) noexcept nogil:
    """Bring a number of datagrams down to what fits into a bucket; return whether they all did."""
    if free_time >= interval * <int64_t>let_in[0]:  # the usual case needs no division
        return True
    let_in[0] = <Py_ssize_t>(free_time // interval) if free_time > 0 else 0
    return False


cdef class Admission:
    """Decides for one port which datagrams are let in.

    Args:
        policy: The policy.
        key: At least 16 random bytes.
        stats: What to count in, brought up to date by :meth:`take_refusals`.

    Attributes:
        now: The time of the decisions to come, in nanoseconds.
        has_news: Whether there is something for :meth:`take_refusals`.
    """

    def __cinit__(self, policy, bytes key, stats):
        secrets = secrets_of(key)
        limits = policy.limits()
        self.policy = policy
        self.stats = stats
        self._log_only = policy.log_only
        self._salt_ipv4, self._salt_ipv6, self._first, self._second = secrets
        self._host_interval, self._network_interval, self._total_interval = limits[:3]
        self._host_room, self._network_room, self._total_room = limits[3:6]
        self._heaviest = limits.heaviest
        # Untouched pages cost nothing: a port that hears few peers has only theirs.
        self._memory = calloc(1, 2 * TABLE * sizeof(Bucket) + LINE)
        if self._memory == NULL:
            raise MemoryError
        self._hosts = <Bucket *>((<size_t>self._memory + LINE - 1) // LINE * LINE)
        self._networks = self._hosts + TABLE
        networks = policy.networks()
        self._count_ipv4 = _copy(intervals(networks, 32), &self._starts_ipv4, &self._verdicts_ipv4)
        self._count_ipv6 = _copy(intervals(networks, 128), &self._starts_ipv6, &self._verdicts_ipv6)

    def __dealloc__(self):
        free(self._memory)
        free(self._starts_ipv4)
        free(self._starts_ipv6)
        free(self._verdicts_ipv4)
        free(self._verdicts_ipv6)

    def __sizeof__(self):
        """Return the bytes that it takes at most, which never change."""
        return 2 * TABLE * sizeof(Bucket) + LINE + 17 * (self._count_ipv4 + self._count_ipv6)

    cdef void look_at_clock(self) noexcept:
        """Let what is decided next be decided for the present time."""
        cdef monotonic_time time
        clock_gettime(CLOCK_MONOTONIC, &time)
        self.now = time.tv_sec * 1_000_000_000 + time.tv_nsec

    cdef Py_ssize_t admit(self, const uint8_t *sockaddr, Py_ssize_t count, Py_ssize_t size) noexcept:
        """Return how many of the datagrams of a size that came from an address together are let in: the first ones."""
        cdef uint64_t host = 0
        cdef uint64_t network = 0
        cdef Py_ssize_t let_in = 0
        cdef int reason = self._locate(sockaddr, &host, &network)
        if reason == IS_TRUSTED:
            return count
        if reason == IS_LIMITED:
            let_in = self._limited(host, network, count, 1 if size <= BYTES else (size + BYTES - 1) // BYTES, &reason)
            if let_in == count:
                return count
        if not self._refused[reason]:
            memcpy(self._refused_first[reason], sockaddr, SOCKADDR_SIZE)
        self._refused[reason] += count - let_in
        self.has_news = True
        return count if self._log_only else let_in

    cdef int _locate(self, const uint8_t *sockaddr, uint64_t *host, uint64_t *network) noexcept:
        """Find a sender's verdict, and what it and its network are known by in the tables."""
        cdef const uint8_t *octets
        cdef uint64_t word, rest
        if (<const sockaddr_in *>sockaddr).sin_family == AF_INET6:
            octets = <const uint8_t *>&(<const sockaddr_in6 *>sockaddr).sin6_addr
            word = _big_endian(octets, 8)
            rest = _big_endian(octets + 8, 8)
            if word or rest >> 32 != 0xFFFF:
                host[0] = _mixed(word, self._salt_ipv6, self._first, self._second)
                network[0] = _mixed(word & ~<uint64_t>0xFF, self._salt_ipv6, self._first, self._second)
                if self._count_ipv6 == 1:
                    return self._verdicts_ipv6[0]
                return self._verdicts_ipv6[_search(self._starts_ipv6, self._count_ipv6, word, rest)]
            word = rest & 0xFFFFFFFF  # RFC 4291 section 2.5.5.2: IPv4 on a socket for both
        else:
            word = _big_endian(<const uint8_t *>&(<const sockaddr_in *>sockaddr).sin_addr, 4)
        host[0] = _mixed(word, self._salt_ipv4, self._first, self._second)
        network[0] = _mixed(word & ~<uint64_t>0xFF, self._salt_ipv4, self._first, self._second)
        if self._count_ipv4 == 1:
            return self._verdicts_ipv4[0]
        return self._verdicts_ipv4[_search(self._starts_ipv4, self._count_ipv4, 0, word)]

    cdef Py_ssize_t _limited(
        self, uint64_t host, uint64_t network, Py_ssize_t count, int64_t weight, int *reason
    ) noexcept:
        """Take tokens for as many as the rates allow; return their number, and set what refuses the next one."""
        cdef int64_t now = self.now
        cdef int64_t everybody = max(self._everybody, now)
        cdef int64_t host_interval = self._host_interval * min(weight, self._heaviest)
        cdef int64_t network_interval = self._network_interval * min(weight, self._heaviest)
        cdef int64_t total_interval = self._total_interval * min(weight, self._heaviest)
        cdef int64_t host_full = 0
        cdef int64_t network_full = 0
        cdef Bucket *of_host = NULL
        cdef Bucket *of_network = NULL
        cdef Py_ssize_t let_in = count
        if host_interval:
            of_host = _place(self._hosts, host)
            host_full = _full_at(of_host, host, now)
            if not _fits(now + self._host_room - host_full, host_interval, &let_in):
                reason[0] = BY_HOST
            of_network = _place(self._networks, network)
            network_full = _full_at(of_network, network, now)
            if not _fits(now + self._network_room - network_full, network_interval, &let_in):
                reason[0] = BY_NETWORK
        if total_interval:
            if not _fits(now + self._total_room - everybody, total_interval, &let_in):
                reason[0] = BY_TOTAL
        if let_in:
            if host_interval:
                self._put(of_host, host, host_full + let_in * host_interval)
                self._put(of_network, network, network_full + let_in * network_interval)
            self._everybody = everybody + let_in * total_interval
        return let_in

    cdef void _put(self, Bucket *bucket, uint64_t mark, int64_t full_at) noexcept:
        """Set when a bucket is full again; what was in its place is forgotten."""
        if bucket.mark != mark:
            if bucket.full_at > self.now:
                self._evictions += 1
                self.has_news = True
            bucket.mark = mark
        bucket.full_at = full_at

    def take_refusals(self):
        """Bring the counters up to date, and return what was refused since this was last asked, by reason."""
        cdef int reason
        found = []
        for reason in range(REASON_COUNT):
            if self._refused[reason]:
                host = _host_of(self._refused_first[reason])
                found.append(Refusals(REASONS[reason], host, self._refused[reason]))
                self.stats.refused[REASONS[reason]] += self._refused[reason]
                self._refused[reason] = 0
        self.stats.evictions += self._evictions
        self._evictions = 0
        self.has_news = False
        return found

    def admitted(self, bytes sockaddr not None, int64_t now, Py_ssize_t count, Py_ssize_t size=0):
        """Return how many datagrams from a raw address are let in at a time: for tests, which have no kernel's."""
        cdef uint8_t raw[28]
        _copy_address(raw, sockaddr, len(sockaddr))
        self.now = now
        return self.admit(raw, count, size)

    def run(self, bytes sockaddrs not None, Py_ssize_t size, Py_ssize_t rounds):
        """Decide about very many datagrams, at the time of the clock: for benchmarks and tests of the memory.

        Args:
            sockaddrs: Raw addresses of equal size, one behind the other: a datagram comes from each in turn.
            size: That of one address in bytes.
            rounds: How often to go through them.
        """
        cdef const uint8_t *raw = sockaddrs
        cdef Py_ssize_t most = len(sockaddrs) // size
        cdef Py_ssize_t at
        cdef Py_ssize_t decided = 0
        cdef uint8_t copy[28]
        memset(copy, 0, SOCKADDR_SIZE)
        for _ in range(rounds):
            for at in range(most):
                if decided % AT_ONCE == 0:
                    self.look_at_clock()
                decided += 1
                memcpy(copy, raw + at * size, min(size, <Py_ssize_t>SOCKADDR_SIZE))
                self.admit(copy, 1, 0)


cdef inline uint64_t _big_endian(const uint8_t *octets, int count) noexcept nogil:
    """Return the number that some bytes of an address stand for; compilers make one instruction of it."""
    cdef uint64_t number = 0
    cdef int at
    for at in range(count):
        number = number << 8 | octets[at]
    return number


cdef inline int _search(const uint64_t *starts, int count, uint64_t high, uint64_t low) noexcept nogil:
    """Return the last of the intervals, which begin at pairs of numbers, that does not begin behind an address."""
    cdef int least = 0
    cdef int most = count
    cdef int middle
    while most - least > 1:
        middle = (least + most) // 2
        if starts[2 * middle] < high or (starts[2 * middle] == high and starts[2 * middle + 1] <= low):
            least = middle
        else:
            most = middle
    return least


cdef int _copy(found, uint64_t **starts, uint8_t **verdicts) except -1:
    """Copy the intervals of one IP version; return how many there are."""
    cdef Py_ssize_t count = len(found.starts)
    cdef Py_ssize_t at
    starts[0] = <uint64_t *>malloc(2 * count * sizeof(uint64_t))
    verdicts[0] = <uint8_t *>malloc(count)
    if starts[0] == NULL or verdicts[0] == NULL:
        raise MemoryError
    for at in range(count):
        starts[0][2 * at] = found.starts[at] >> 64
        starts[0][2 * at + 1] = found.starts[at] & 0xFFFFFFFFFFFFFFFF
        verdicts[0][at] = found.verdicts[at]
    return <int>count


cdef _host_of(const uint8_t *raw):
    """Return the host of a raw address, as ports name it."""
    size = 16 if (<const sockaddr_in *>raw).sin_family == AF_INET else SOCKADDR_SIZE
    return address_of(raw[:size])[0]


cdef int _copy_address(uint8_t *raw, const uint8_t *sockaddr, Py_ssize_t size) except -1:
    """Copy an address to where there is room for the largest."""
    if size > SOCKADDR_SIZE:
        raise ValueError("not an IPv4 or IPv6 sockaddr")
    memset(raw, 0, SOCKADDR_SIZE)
    memcpy(raw, sockaddr, size)
    return 0
