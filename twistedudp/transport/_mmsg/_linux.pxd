# What the kernel's and the C library's headers declare, as far as the compiled backend uses it.
#
# Theory of operation: numbers come from the headers wherever glibc and musl have them. The few that are younger than
# the oldest headers in use (UDP_SEGMENT, UDP_GRO: Linux 4.18 and 5.0) are Python's business: transport/_kernel.py has
# them, with their sources, and the modules here take them from there.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t

    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type

    struct timespec:
        pass

    cmsghdr *CMSG_FIRSTHDR(msghdr *header)
    cmsghdr *CMSG_NXTHDR(msghdr *header, cmsghdr *control)
    uint8_t *CMSG_DATA(cmsghdr *control)
    size_t CMSG_SPACE(size_t length)
    size_t CMSG_LEN(size_t length)

    int recvmmsg(int descriptor, mmsghdr *headers, unsigned int count, int flags, timespec *timeout)
    int sendmmsg(int descriptor, mmsghdr *headers, unsigned int count, int flags)
    ssize_t sendmsg(int descriptor, const msghdr *header, int flags)
    int getsockopt(int descriptor, int level, int option, void *value, socklen_t *length)

    int AF_INET
    int AF_INET6
    int MSG_DONTWAIT
    int MSG_TRUNC
    int SO_RXQ_OVFL
    int SOL_SOCKET

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr

    struct in6_addr:
        uint8_t s6_addr[16]

    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr

    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id

    uint16_t ntohs(uint16_t value)
    bint IN6_IS_ADDR_V4MAPPED(in6_addr *address)

    int IPPROTO_IP
    int IPPROTO_IPV6
    int IPPROTO_UDP
    int INET6_ADDRSTRLEN
    int IP_MTU_DISCOVER
    int IPV6_MTU_DISCOVER
    int IP_PMTUDISC_WANT

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *address, char *text, socklen_t size)

cdef extern from "<net/if.h>" nogil:
    char *if_indextoname(unsigned int index, char *name)

cdef extern from "<time.h>" nogil:
    struct monotonic_time "timespec":
        int64_t tv_sec
        long tv_nsec

    int CLOCK_MONOTONIC
    int clock_gettime(int clock, monotonic_time *now)
