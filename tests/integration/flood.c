/*
 * What Python is too slow to send at a UDP server.
 *
 *   flood HOST PORT SIZE SECONDS         as many datagrams of one size as there is time for; replies are not read
 *   volley HOST PORT COUNT SIZE LARGE    COUNT numbered datagrams as fast as the kernel takes them, every eighth of LARGE
 *                                        bytes, the others of SIZE; each reply is looked at
 *   scatter HOST PORT COUNT SKIP         COUNT datagrams from as many source addresses, the first SKIP ones left out,
 *                                        and no more unanswered at any time than a small receive buffer holds
 *
 * Each prints one JSON object with what the kernel took from it and what came back. "volley" prints a line when all is
 * sent, and then reads replies until its standard input ends: whoever started it knows when no more can come.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55 /* asm-generic/socket.h */
#endif

enum { BATCH = 64, LARGEST = 65536, IN_FLIGHT = 128, EIGHTH = 8 };

static struct mmsghdr slots[BATCH];
static struct iovec pieces[BATCH];
static uint8_t payloads[BATCH][LARGEST];

static void give_up(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static long number(const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < 0) {
        fprintf(stderr, "%s is not a number\n", text);
        exit(2);
    }
    return value;
}

static double now(void) {
    struct timespec spec;
    clock_gettime(CLOCK_MONOTONIC, &spec);
    return (double)spec.tv_sec + 1e-9 * (double)spec.tv_nsec;
}

static struct sockaddr_storage address(const char *host, const char *port, socklen_t *length) {
    struct sockaddr_storage made;
    memset(&made, 0, sizeof made);
    if (strchr(host, ':')) {
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)&made;
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)number(port));
        *length = sizeof *six;
        if (inet_pton(AF_INET6, host, &six->sin6_addr) != 1)
            give_up(host);
    } else {
        struct sockaddr_in *four = (struct sockaddr_in *)&made;
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)number(port));
        *length = sizeof *four;
        if (inet_pton(AF_INET, host, &four->sin_addr) != 1)
            give_up(host);
    }
    return made;
}

static int connected_to(const char *host, const char *port) {
    socklen_t length;
    struct sockaddr_storage server = address(host, port, &length);
    int handle = socket(server.ss_family, SOCK_DGRAM, 0);
    if (handle < 0 || connect(handle, (struct sockaddr *)&server, length))
        give_up("socket");
    return handle;
}

/* How many datagrams this socket has lost to its full receive buffer. */
static uint32_t drops_of(int handle) {
    uint32_t figures[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof figures;
    if (getsockopt(handle, SOL_SOCKET, SO_MEMINFO, figures, &length))
        give_up("SO_MEMINFO");
    return figures[SK_MEMINFO_DROPS];
}

/* Send the slots, all of them, and wait where the kernel has no room. An ICMP error says nothing about these. */
static void send_slots(int handle, unsigned count) {
    for (unsigned sent = 0; sent < count;) {
        int done = sendmmsg(handle, slots + sent, count - sent, 0);
        if (done >= 0)
            sent += (unsigned)done;
        else if (errno != ECONNREFUSED && errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            give_up("sendmmsg");
    }
}

static void prepare(size_t size) {
    for (int i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){payloads[i], size};
        slots[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
    }
}

static int flood(char **arguments) {
    int handle = connected_to(arguments[0], arguments[1]);
    double ends = now() + (double)number(arguments[3]);
    long sent = 0;
    prepare((size_t)number(arguments[2]));
    for (; now() < ends; sent += BATCH)
        send_slots(handle, BATCH);
    printf("{\"sent\": %ld}\n", sent);
    return 0;
}

/* A datagram: its number, then bytes that follow from it, so that no two are alike and a wrong byte is seen. */
static void fill(uint8_t *payload, size_t size, uint64_t index) {
    memcpy(payload, &index, sizeof index);
    memset(payload + sizeof index, (int)(index * 131 + 7) & 0xff, size - sizeof index);
}

struct replies {
    long count, size, large;
    long received, wrong, twice;
    bool *seen;
};

static size_t size_of(const struct replies *replies, uint64_t index) {
    return (size_t)(index % EIGHTH == EIGHTH - 1 ? replies->large : replies->size);
}

static void look_at_replies(int handle, struct replies *replies) {
    static uint8_t got[LARGEST], expected[LARGEST];
    for (;;) {
        ssize_t length = recv(handle, got, sizeof got, MSG_DONTWAIT);
        uint64_t index;
        if (length < 0) {
            if (errno == EAGAIN)
                return;
            if (errno == EINTR)
                continue;
            give_up("recv");
        }
        replies->received++;
        if ((size_t)length < sizeof index) {
            replies->wrong++;
            continue;
        }
        memcpy(&index, got, sizeof index);
        if (index >= (uint64_t)replies->count || (size_t)length != size_of(replies, index)) {
            replies->wrong++;
            continue;
        }
        fill(expected, (size_t)length, index);
        if (memcmp(got, expected, (size_t)length))
            replies->wrong++;
        else if (replies->seen[index])
            replies->twice++;
        else
            replies->seen[index] = true;
    }
}

static int volley(char **arguments) {
    int handle = connected_to(arguments[0], arguments[1]);
    struct replies replies = {
        .count = number(arguments[2]), .size = number(arguments[3]), .large = number(arguments[4])};
    replies.seen = calloc((size_t)replies.count + 1, sizeof *replies.seen);
    if (!replies.seen || replies.size < (long)sizeof(uint64_t) || replies.large < replies.size || replies.large > LARGEST)
        give_up("volley");
    prepare(0);
    for (long index = 0; index < replies.count;) {
        unsigned filled = 0;
        for (; filled < BATCH && index < replies.count; filled++, index++) {
            pieces[filled].iov_len = size_of(&replies, (uint64_t)index);
            fill(payloads[filled], pieces[filled].iov_len, (uint64_t)index);
        }
        send_slots(handle, filled);
        look_at_replies(handle, &replies);
    }
    puts("sent");
    fflush(stdout);
    for (bool more = true; more;) {
        struct pollfd ready[] = {{.fd = handle, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        char ignored;
        if (poll(ready, 2, -1) < 0 && errno != EINTR)
            give_up("poll");
        more = !(ready[1].revents && read(STDIN_FILENO, &ignored, 1) <= 0);
        look_at_replies(handle, &replies);
    }
    printf("{\"sent\": %ld, \"received\": %ld, \"dropped\": %u, \"wrong\": %ld, \"twice\": %ld}\n", replies.count,
           replies.received, drops_of(handle), replies.wrong, replies.twice);
    return 0;
}

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* Send from an address that follows from a number: 127.64.0.0 and what comes after it, or fd00:64:: and so on. */
static void send_from(int handle, const struct sockaddr_storage *server, socklen_t length, uint32_t index) {
    union control control;
    struct iovec piece = {&index, sizeof index};
    struct msghdr message = {.msg_name = (void *)(uintptr_t)server,
                             .msg_namelen = length,
                             .msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    memset(&control, 0, sizeof control);
    if (server->ss_family == AF_INET6) {
        struct in6_pktinfo source = {.ipi6_ifindex = 0};
        uint32_t last = htonl(index);
        inet_pton(AF_INET6, "fd00:64::", &source.ipi6_addr);
        memcpy(source.ipi6_addr.s6_addr + 12, &last, sizeof last);
        *header = (struct cmsghdr){CMSG_LEN(sizeof source), IPPROTO_IPV6, IPV6_PKTINFO};
        memcpy(CMSG_DATA(header), &source, sizeof source);
        message.msg_controllen = CMSG_SPACE(sizeof source);
    } else {
        struct in_pktinfo source = {.ipi_spec_dst.s_addr = htonl(0x7f400000 + index)};
        *header = (struct cmsghdr){CMSG_LEN(sizeof source), IPPROTO_IP, IP_PKTINFO};
        memcpy(CMSG_DATA(header), &source, sizeof source);
        message.msg_controllen = CMSG_SPACE(sizeof source);
    }
    while (sendmsg(handle, &message, 0) < 0)
        if (errno != EINTR && errno != ENOBUFS && errno != ECONNREFUSED)
            give_up("sendmsg");
}

static int scatter(char **arguments) {
    socklen_t length;
    struct sockaddr_storage server = address(arguments[0], arguments[1], &length);
    struct sockaddr_storage any = {.ss_family = server.ss_family};
    int handle = socket(server.ss_family, SOCK_DGRAM, 0);
    long count = number(arguments[2]), skip = number(arguments[3]), answered = 0;
    int on = 1;
    if (handle < 0 || bind(handle, (struct sockaddr *)&any, length))
        give_up("socket");
    if (server.ss_family == AF_INET6 && setsockopt(handle, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on))
        give_up("IPV6_FREEBIND");
    for (long sent = 0; sent < count || answered < sent;) {
        struct pollfd ready = {.fd = handle, .events = POLLIN};
        for (; sent < count && sent - answered < IN_FLIGHT; sent++)
            send_from(handle, &server, length, (uint32_t)(skip + sent));
        if (poll(&ready, 1, 10000) <= 0)
            give_up("no reply came");
        for (char reply[sizeof(uint32_t)]; recv(handle, reply, sizeof reply, MSG_DONTWAIT) == sizeof reply;)
            answered++;
    }
    printf("{\"sent\": %ld, \"received\": %ld}\n", count, answered);
    return 0;
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        int arguments;
        int (*run)(char **);
    } modes[] = {{"flood", 4, flood}, {"volley", 5, volley}, {"scatter", 4, scatter}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (count == modes[i].arguments + 2 && !strcmp(arguments[1], modes[i].name))
            return modes[i].run(arguments + 2);
    fprintf(stderr, "usage: %s flood|volley|scatter ...: see the head of the source\n", arguments[0]);
    return 2;
}
