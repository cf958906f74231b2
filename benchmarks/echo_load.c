/* Load for an echo server, and what the server's replies cost it: one process, one core, many sockets.

   Theory of operation: a closed loop. WINDOW requests are under way in all, spread over CLIENTS connected sockets; each
   reply is the reason for the next request. Where the window is at least as large as the number of clients, a client
   keeps its share of it under way, so that a burst that comes back together goes out together; where it is smaller,
   clients take turns. Datagrams are read and written by recvmmsg and sendmmsg, and the sockets watched by epoll.

   Every reply is compared with what was asked, byte for byte: a request names its slot in the window, its client, its
   number and this run, and the rest of its bytes follow from these. A reply whose request does not wait is a duplicate;
   one whose request was given up is late; anything else is altered. A request without a reply for --timeout seconds is
   lost, and its slot is used again, so that losses neither hang the run nor shrink the window.

   The processor time of the server is its process's clock (clock_getcpuclockid), in nanoseconds and for all its threads.
   The kernel brings that of another process up to date when it stops running or at a tick; so it is read while nothing
   is under way and the server sleeps: after the warm-up, and when all requests that count have been answered. While
   nothing is there the generator sleeps, and the server pays for waking it, as any server does whose client is on the
   same machine; with --spin it does not.

   What it found is one JSON object on standard output. Exit status 0 whatever the replies were, 2 for wrong arguments,
   3 where it cannot go on; then standard error has one line. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum {
    MAX_CLIENTS = 10000,
    MAX_WINDOW = 4096,
    MIN_SIZE = 32,          /* slot and client, number, run, and one word that follows from these */
    MAX_SIZE = 1472,        /* one packet on Ethernet */
    BATCH = 64,             /* datagrams in one system call */
    EVENTS = 256,           /* sockets that one look finds ready */
    REMEMBERED = 1024,      /* lost requests whose late replies are still known as such */
    RECEIVE_BUFFER = 4 << 20,
    SUB_BUCKETS = 128,      /* steps between two powers of two in the histogram: 0.8 % */
    BUCKETS = 40 * SUB_BUCKETS,
};

static const uint64_t SECOND = 1000000000;
static const uint64_t LOOK_FOR_LOST = 20000000; /* ns between two searches for requests whose time is over */
static const uint64_t LINGER = 20000000; /* ns after the last reply: the server falls asleep, a duplicate is noticed */
static const uint64_t GIVE_UP = 10;             /* timeouts without any reply after which the server counts as hung */

struct request {
    uint64_t number;
    uint64_t sent;
    uint32_t client;
    bool waiting;
};

static struct {
    const char *address;
    int port, clients, window, size;
    long warm_up, replies;
    double seconds, timeout;
    int process;
    bool spin;
} options = {.clients = 1, .window = 64, .size = 64, .warm_up = 2000, .timeout = 1.0};

static int sockets[MAX_CLIENTS];
static struct request requests[MAX_WINDOW];
static uint32_t idle[MAX_CLIENTS]; /* a ring of the clients that wait for their turn */
static uint32_t idle_first, idle_count;
static uint32_t freed[MAX_WINDOW]; /* slots that a request is to be sent from next */
static int freed_count;
static uint64_t lost_numbers[REMEMBERED];
static uint64_t next_number, run;
static uint64_t histogram[BUCKETS];
static long counted, verified, lost, late, duplicate, altered;
static enum { WARMING, SETTLING, COUNTING, DRAINING } phase;
static uint64_t last_reply;

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(3);
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now))
        fail("the server's process has ended");
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

/* splitmix64: a different word for each number. */
static uint64_t mix(uint64_t word) {
    word += 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return word ^ (word >> 31);
}

/* Write a request. As the client is part of it, a reply that another client receives does not compare equal. */
static void compose(uint8_t *payload, uint32_t slot, uint32_t client, uint64_t number) {
    uint64_t head[3] = {slot | (uint64_t)client << 32, number, run};
    memcpy(payload, head, sizeof head);
    for (int at = sizeof head; at < options.size; at += 8) {
        uint64_t word = mix(number * 256 + (uint64_t)at);
        int left = options.size - at;
        memcpy(payload + at, &word, left < 8 ? (size_t)left : 8);
    }
}

static int bucket(uint64_t value) {
    if (value < SUB_BUCKETS)
        return (int)value;
    int shift = 63 - __builtin_clzll(value) - 7;
    int found = (shift + 1) * SUB_BUCKETS + (int)(value >> shift) - SUB_BUCKETS;
    return found < BUCKETS ? found : BUCKETS - 1;
}

/* Return the middle of a bucket, in nanoseconds. */
static double middle(int found) {
    if (found < SUB_BUCKETS)
        return found;
    int shift = found / SUB_BUCKETS - 1;
    return ((double)(found % SUB_BUCKETS + SUB_BUCKETS) + 0.5) * (double)(1ull << shift);
}

static double percentile(double share) {
    long wanted = (long)(share * (double)counted), seen = 0;
    for (int found = 0; found < BUCKETS; found++) {
        seen += (long)histogram[found];
        if (seen > wanted)
            return middle(found);
    }
    return 0;
}

static bool was_lost(uint64_t number) {
    long known = lost < REMEMBERED ? lost : REMEMBERED;
    for (long at = 0; at < known; at++)
        if (lost_numbers[at] == number)
            return true;
    return false;
}

/* Have a slot used again, unless nothing is to be sent now. */
static void release(uint32_t slot) {
    if (options.window < options.clients)
        idle[(idle_first + idle_count++) % (uint32_t)options.clients] = requests[slot].client;
    if (phase == WARMING || phase == COUNTING)
        freed[freed_count++] = slot;
}

/* Look at a datagram that came to a client, and free its slot if it is the reply that was waited for. */
static void look_at(uint32_t client, const uint8_t *payload, unsigned size, uint64_t when) {
    uint8_t expected[MAX_SIZE];
    uint64_t head[3];
    memcpy(head, payload, sizeof head);
    uint32_t slot = (uint32_t)head[0];
    if (size == (unsigned)options.size && slot < (uint32_t)options.window && head[1] < next_number)
        compose(expected, slot, client, head[1]);
    else
        size = 0;
    if (size == 0 || memcmp(expected, payload, size) != 0) {
        altered++;
        return;
    }
    struct request *request = &requests[slot];
    if (!request->waiting || request->number != head[1]) {
        was_lost(head[1]) ? late++ : duplicate++;
        return;
    }
    request->waiting = false;
    verified++;
    last_reply = when;
    if (phase == COUNTING) {
        counted++;
        histogram[bucket(when - request->sent)]++;
    }
    release(slot);
}

/* Read all that has come to a client. */
static void receive(uint32_t client) {
    static uint8_t payloads[BATCH][MAX_SIZE + 1]; /* one byte more, to see a reply that has grown */
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    if (parts[0].iov_base == NULL)
        for (int at = 0; at < BATCH; at++) {
            parts[at] = (struct iovec){payloads[at], sizeof payloads[at]};
            messages[at].msg_hdr = (struct msghdr){.msg_iov = &parts[at], .msg_iovlen = 1};
        }
    int count;
    do {
        count = recvmmsg(sockets[client], messages, BATCH, MSG_DONTWAIT, NULL);
        if (count < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            fail(errno == ECONNREFUSED ? "nobody listens there any more" : "recvmmsg");
        }
        uint64_t when = now();
        for (int at = 0; at < count; at++)
            look_at(client, payloads[at], messages[at].msg_len, when);
    } while (count == BATCH);
}

static void send_all(uint32_t client, struct mmsghdr *messages, unsigned count) {
    for (unsigned done = 0; done < count;) {
        int sent = sendmmsg(sockets[client], messages + done, count - done, 0);
        if (sent < 0 && errno != EINTR)
            fail(errno == ECONNREFUSED ? "nobody listens there any more" : "sendmmsg");
        done += sent > 0 ? (unsigned)sent : 0;
    }
}

/* Send a request from each slot that was freed; those of one client together. */
static void send_freed(void) {
    static uint8_t payloads[BATCH][MAX_SIZE];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    int at = 0;
    while (at < freed_count) {
        uint32_t client = 0;
        unsigned count = 0;
        uint64_t when = now();
        while (at < freed_count && count < BATCH) {
            struct request *request = &requests[freed[at]];
            if (options.window < options.clients) {
                if (count)
                    break; /* each request of another client */
                request->client = idle[idle_first];
                idle_first = (idle_first + 1) % (uint32_t)options.clients;
                idle_count--;
            } else if (count && request->client != client)
                break;
            client = request->client;
            request->number = next_number++;
            request->sent = when;
            request->waiting = true;
            compose(payloads[count], freed[at], client, request->number);
            parts[count] = (struct iovec){payloads[count], (size_t)options.size};
            messages[count].msg_hdr = (struct msghdr){.msg_iov = &parts[count], .msg_iovlen = 1};
            count++, at++;
        }
        send_all(client, messages, count);
    }
    freed_count = 0;
}

/* Give up requests whose time is over, and return how many still wait. */
static int give_up_late(uint64_t when) {
    int waiting = 0;
    uint64_t limit = (uint64_t)(options.timeout * 1e9);
    for (int slot = 0; slot < options.window; slot++) {
        struct request *request = &requests[slot];
        if (!request->waiting)
            continue;
        if (when - request->sent < limit) {
            waiting++;
            continue;
        }
        request->waiting = false;
        lost_numbers[lost++ % REMEMBERED] = request->number;
        release((uint32_t)slot);
    }
    if (when - last_reply > GIVE_UP * limit) {
        fprintf(stderr, "no reply for %.1f s: the server hangs\n", GIVE_UP * options.timeout);
        exit(3);
    }
    return waiting;
}

static int open_sockets(void) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    if (inet_pton(AF_INET, options.address, &peer.sin_addr) != 1) {
        fprintf(stderr, "%s is no IPv4 address\n", options.address);
        exit(2);
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int watched = epoll_create1(EPOLL_CLOEXEC);
    if (watched < 0)
        fail("epoll_create1");
    for (int at = 0; at < options.clients; at++) {
        int handle = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), buffer = RECEIVE_BUFFER;
        if (handle < 0)
            fail("socket: too few open files are allowed (ulimit -n)");
        if (setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer))
            setsockopt(handle, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
        if (connect(handle, (struct sockaddr *)&peer, sizeof peer))
            fail("connect");
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = (uint32_t)at};
        if (epoll_ctl(watched, EPOLL_CTL_ADD, handle, &event))
            fail("epoll_ctl");
        sockets[at] = handle;
    }
    return watched;
}

static int granted_buffer(void) {
    int granted = 0;
    socklen_t length = sizeof granted;
    getsockopt(sockets[0], SOL_SOCKET, SO_RCVBUF, &granted, &length);
    return granted / 2; /* Linux reports the double, socket(7) */
}

struct mark {
    uint64_t wall, server, own;
    long verified;
};

static struct mark mark(clockid_t server) {
    return (struct mark){now(), options.process ? read_clock(server) : 0, read_clock(CLOCK_PROCESS_CPUTIME_ID), verified};
}

/* Three marks: when the replies that count began, when no more were asked for, and when all had been answered. */
static void report(struct mark begun, struct mark stopped, struct mark ended) {
    printf(
        "{\"replies\": %ld, \"verified\": %ld, \"sent\": %" PRIu64 ", \"lost\": %ld, \"late\": %ld, "
        "\"duplicate\": %ld, \"altered\": %ld, \"seconds\": %.9f, \"server_replies\": %ld, \"server_seconds\": %.9f, "
        "\"generator_seconds\": %.9f, \"p50\": %.9f, \"p99\": %.9f, \"receive_buffer\": %d}\n",
        counted, verified, next_number, lost, late, duplicate, altered, (double)(stopped.wall - begun.wall) / 1e9,
        ended.verified - begun.verified, (double)(ended.server - begun.server) / 1e9,
        (double)(stopped.own - begun.own) / 1e9, percentile(0.5) / 1e9, percentile(0.99) / 1e9, granted_buffer());
}

static void fill_window(void) {
    for (freed_count = 0; freed_count < options.window; freed_count++)
        freed[freed_count] = (uint32_t)freed_count;
}

static void exchange(int watched, clockid_t server) {
    struct epoll_event events[EVENTS];
    struct mark begun = {0}, stopped = {0};
    uint64_t next_look = 0, until = UINT64_MAX;
    last_reply = now();
    fill_window();
    for (;;) {
        send_freed();
        bool sending = phase == WARMING || phase == COUNTING;
        int count = epoll_wait(watched, events, EVENTS, !sending ? 1 : options.spin ? 0 : 20);
        for (int at = 0; at < count; at++)
            receive(events[at].data.u32);
        uint64_t when = now();
        if (phase == WARMING && verified >= options.warm_up) {
            phase = SETTLING;
            freed_count = 0;
        } else if (phase == COUNTING && (counted >= options.replies || when >= until)) {
            stopped = mark(server);
            phase = DRAINING;
            freed_count = 0;
        }
        if (when < next_look && sending)
            continue;
        next_look = when + LOOK_FOR_LOST;
        if (give_up_late(when) || sending || count || when - last_reply < LINGER)
            continue;
        if (phase == DRAINING)
            break;
        phase = COUNTING;
        fill_window();
        begun = mark(server);
        last_reply = begun.wall;
        until = options.seconds > 0 ? begun.wall + (uint64_t)(options.seconds * 1e9) : UINT64_MAX;
    }
    report(begun, stopped, mark(server));
}

static double number(const char *text, double least, double most, const char *name) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || value < least || value > most) {
        fprintf(stderr, "--%s: a number from %g to %g, not '%s'\n", name, least, most, text);
        exit(2);
    }
    return value;
}

static void read_options(int count, char **arguments) {
    static const struct option known[] = {
        {"clients", required_argument, NULL, 'c'}, {"window", required_argument, NULL, 'w'},
        {"size", required_argument, NULL, 'b'},    {"warm-up", required_argument, NULL, 'u'},
        {"replies", required_argument, NULL, 'n'}, {"seconds", required_argument, NULL, 's'},
        {"timeout", required_argument, NULL, 't'}, {"process", required_argument, NULL, 'p'},
        {"spin", no_argument, NULL, 'i'},          {NULL, 0, NULL, 0},
    };
    int found;
    while ((found = getopt_long(count, arguments, "", known, NULL)) != -1) {
        switch (found) {
        case 'c': options.clients = (int)number(optarg, 1, MAX_CLIENTS, "clients"); break;
        case 'w': options.window = (int)number(optarg, 1, MAX_WINDOW, "window"); break;
        case 'b': options.size = (int)number(optarg, MIN_SIZE, MAX_SIZE, "size"); break;
        case 'u': options.warm_up = (long)number(optarg, 0, 1e12, "warm-up"); break;
        case 'n': options.replies = (long)number(optarg, 1, 1e12, "replies"); break;
        case 's': options.seconds = number(optarg, 0.001, 1e6, "seconds"); break;
        case 't': options.timeout = number(optarg, 0.01, 60, "timeout"); break;
        case 'p': options.process = (int)number(optarg, 1, 1 << 30, "process"); break;
        case 'i': options.spin = true; break;
        default: exit(2);
        }
    }
    if (count - optind != 2 || (options.seconds > 0) == (options.replies > 0)) {
        fprintf(stderr, "usage: echo_load [options] --seconds S | --replies N  ADDRESS PORT\n");
        exit(2);
    }
    if (options.replies == 0)
        options.replies = INT64_MAX;
    options.address = arguments[optind];
    options.port = (int)number(arguments[optind + 1], 1, 65535, "port");
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    clockid_t server = 0;
    if (options.process && clock_getcpuclockid(options.process, &server)) {
        fprintf(stderr, "--process: there is no process %d\n", options.process);
        return 3;
    }
    run = mix(now());
    int watched = open_sockets();
    for (int slot = 0; slot < options.window; slot++)
        requests[slot].client = (uint32_t)slot % (uint32_t)options.clients;
    for (int client = 0; client < options.clients; client++)
        idle[client] = (uint32_t)client;
    idle_count = (uint32_t)options.clients;
    exchange(watched, server);
    return 0;
}
