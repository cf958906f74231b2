/*
 * The same as udpecho ping, with nothing around it: what its figures are compared with.
 *
 *   pingpong HOST PORT COUNT INTERVAL_NS SIZE
 *
 * A datagram leaves at each start + n * INTERVAL_NS of CLOCK_MONOTONIC (clock_nanosleep, TIMER_ABSTIME); a second thread
 * waits in recvmsg for the answers. A round trip goes from the time read just before the send to the arrival that the
 * kernel tells (SO_TIMESTAMPNS). Prints one JSON object: counts, and percentiles in nanoseconds of the round trips and
 * of how much later than planned each datagram was sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 65536, PATIENCE_NS = 500000000 };

struct payload {
    uint64_t number;
    int64_t sent_ns;
};

static int handle;
static long count;
static int64_t *round_trips;
static long received;

static void give_up(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(clockid_t clock) {
    struct timespec spec;
    clock_gettime(clock, &spec);
    return spec.tv_sec * INT64_C(1000000000) + spec.tv_nsec;
}

/* Both ends of a round trip are of the wall clock here: nobody sets it during a test. */
static void *receive(void *unused) {
    static uint8_t buffer[LARGEST];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
    } control;
    (void)unused;
    while (received < count) {
        struct iovec piece = {buffer, sizeof buffer};
        struct msghdr message = {
            .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        struct payload payload;
        struct timespec arrived;
        ssize_t length = recvmsg(handle, &message, 0);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (length < 0 && errno == EAGAIN)
            break; /* the last ones are lost */
        if (length < (ssize_t)sizeof payload || !header || header->cmsg_type != SCM_TIMESTAMPNS)
            continue;
        memcpy(&payload, buffer, sizeof payload);
        memcpy(&arrived, CMSG_DATA(header), sizeof arrived);
        if (payload.number < (uint64_t)count)
            round_trips[received++] = arrived.tv_sec * INT64_C(1000000000) + arrived.tv_nsec - payload.sent_ns;
    }
    return NULL;
}

static int by_size(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void print(const char *name, int64_t *values, long many) {
    qsort(values, (size_t)many, sizeof *values, by_size);
    printf(", \"%s\": {\"p50\": %lld, \"p99\": %lld, \"max\": %lld}", name, (long long)(many ? values[many / 2] : 0),
           (long long)(many ? values[many * 99 / 100] : 0), (long long)(many ? values[many - 1] : 0));
}

int main(int arguments, char **argument) {
    struct sockaddr_in server = {.sin_family = AF_INET};
    struct timeval patience = {.tv_usec = PATIENCE_NS / 1000};
    static uint8_t datagram[LARGEST];
    int on = 1;
    int64_t interval, start, *lateness;
    size_t size;
    pthread_t receiver;
    if (arguments != 6 || inet_pton(AF_INET, argument[1], &server.sin_addr) != 1) {
        fprintf(stderr, "usage: %s IPV4-ADDRESS PORT COUNT INTERVAL_NS SIZE\n", argument[0]);
        return 2;
    }
    server.sin_port = htons((uint16_t)atoi(argument[2]));
    count = atol(argument[3]);
    interval = atoll(argument[4]);
    size = (size_t)atol(argument[5]);
    round_trips = calloc((size_t)count, sizeof *round_trips);
    lateness = calloc((size_t)count, sizeof *lateness);
    handle = socket(AF_INET, SOCK_DGRAM, 0);
    if (!round_trips || !lateness || size < sizeof(struct payload) || size > LARGEST || handle < 0)
        give_up("socket");
    if (connect(handle, (struct sockaddr *)&server, sizeof server) ||
        setsockopt(handle, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) ||
        setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience))
        give_up("connect");
    if (pthread_create(&receiver, NULL, receive, NULL))
        give_up("pthread_create");
    start = now_ns(CLOCK_MONOTONIC) + interval;
    for (long index = 0; index < count; index++) {
        int64_t due = start + index * interval;
        struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
        struct payload payload = {.number = (uint64_t)index};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        lateness[index] = now_ns(CLOCK_MONOTONIC) - due;
        payload.sent_ns = now_ns(CLOCK_REALTIME);
        memcpy(datagram, &payload, sizeof payload);
        if (send(handle, datagram, size, 0) < 0 && errno != ENOBUFS && errno != ECONNREFUSED)
            give_up("send");
    }
    if (pthread_join(receiver, NULL))
        give_up("pthread_join");
    printf("{\"sent\": %ld, \"received\": %ld", count, received);
    print("rtt", round_trips, received);
    print("late", lateness, count);
    puts("}");
    return 0;
}
