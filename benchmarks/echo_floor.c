/* The floor: what an echo server in C costs, in three ways.

       echo_floor recvfrom|mmsg|segment ADDRESS

   Theory of operation: nothing but system calls, blocking, on one socket. "recvfrom" answers each datagram by itself.
   "mmsg" reads with recvmmsg what has come, up to BATCH datagrams, and answers with sendmmsg, one reply per slot.
   "segment" reads likewise, and sends the replies of equal size that follow each other to one peer as one message that
   the kernel cuts (UDP_SEGMENT). It says {"port": N} on standard output, and ends with the process that started it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h, since 4.18 */
#endif

enum { BATCH = 64, SIZE = 2048, RECEIVE_BUFFER = 4 << 20, MAX_SEGMENTS = 64 };

union control {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
};

static uint8_t payloads[BATCH][SIZE];
static struct sockaddr_in peers[BATCH];
static struct iovec rooms[BATCH], replies[BATCH];
static struct mmsghdr received[BATCH], sent[BATCH];
static union control controls[BATCH];

static void fail(const char *what) {
    fprintf(stderr, "echo_floor: %s: %s\n", what, strerror(errno));
    exit(3);
}

static void by_recvfrom(int handle) {
    for (;;) {
        socklen_t length = sizeof peers[0];
        ssize_t size = recvfrom(handle, payloads[0], SIZE, 0, (struct sockaddr *)&peers[0], &length);
        if (size < 0 || sendto(handle, payloads[0], (size_t)size, 0, (struct sockaddr *)&peers[0], length) < 0)
            fail("recvfrom, sendto");
    }
}

static int read_batch(int handle) {
    for (int at = 0; at < BATCH; at++)
        received[at].msg_hdr.msg_namelen = sizeof peers[at];
    int count = recvmmsg(handle, received, BATCH, MSG_WAITFORONE, NULL);
    if (count < 0)
        fail("recvmmsg");
    for (int at = 0; at < count; at++)
        replies[at] = (struct iovec){payloads[at], received[at].msg_len};
    return count;
}

static void send_all(int handle, int count) {
    for (int done = 0; done < count;) {
        int taken = sendmmsg(handle, sent + done, (unsigned)(count - done), 0);
        if (taken < 0)
            fail("sendmmsg");
        done += taken;
    }
}

static void by_mmsg(int handle) {
    for (;;) {
        int count = read_batch(handle);
        for (int at = 0; at < count; at++)
            sent[at].msg_hdr = (struct msghdr){
                .msg_name = &peers[at], .msg_namelen = sizeof peers[at], .msg_iov = &replies[at], .msg_iovlen = 1};
        send_all(handle, count);
    }
}

static int same(int one, int other) {
    return peers[one].sin_addr.s_addr == peers[other].sin_addr.s_addr && peers[one].sin_port == peers[other].sin_port &&
           replies[one].iov_len == replies[other].iov_len;
}

static void by_segment(int handle) {
    for (;;) {
        int count = read_batch(handle), runs = 0;
        for (int at = 0; at < count;) {
            int next = at + 1;
            while (next < count && next - at < MAX_SEGMENTS && same(at, next))
                next++;
            struct msghdr *message = &sent[runs].msg_hdr;
            *message = (struct msghdr){
                .msg_name = &peers[at],
                .msg_namelen = sizeof peers[at],
                .msg_iov = &replies[at],
                .msg_iovlen = (size_t)(next - at)};
            if (next - at > 1) {
                message->msg_control = controls[runs].bytes;
                message->msg_controllen = sizeof controls[runs].bytes;
                struct cmsghdr *control = CMSG_FIRSTHDR(message);
                control->cmsg_level = SOL_UDP;
                control->cmsg_type = UDP_SEGMENT;
                control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
                uint16_t size = (uint16_t)replies[at].iov_len;
                memcpy(CMSG_DATA(control), &size, sizeof size);
            }
            runs++;
            at = next;
        }
        send_all(handle, runs);
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in own = {.sin_family = AF_INET};
    if (count != 3 || inet_pton(AF_INET, arguments[2], &own.sin_addr) != 1) {
        fprintf(stderr, "usage: echo_floor recvfrom|mmsg|segment ADDRESS\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int handle = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), buffer = RECEIVE_BUFFER;
    if (setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer))
        setsockopt(handle, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    socklen_t length = sizeof own;
    if (bind(handle, (struct sockaddr *)&own, length) || getsockname(handle, (struct sockaddr *)&own, &length))
        fail("bind");
    for (int at = 0; at < BATCH; at++) {
        rooms[at] = (struct iovec){payloads[at], SIZE};
        received[at].msg_hdr = (struct msghdr){.msg_name = &peers[at], .msg_iov = &rooms[at], .msg_iovlen = 1};
    }
    printf("{\"port\": %d}\n", ntohs(own.sin_port));
    fflush(stdout);
    if (strcmp(arguments[1], "recvfrom") == 0)
        by_recvfrom(handle);
    else if (strcmp(arguments[1], "mmsg") == 0)
        by_mmsg(handle);
    else if (strcmp(arguments[1], "segment") == 0)
        by_segment(handle);
    fprintf(stderr, "echo_floor: there is no way '%s'\n", arguments[1]);
    return 2;
}
