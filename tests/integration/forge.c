/*
 * Datagrams with source addresses that are not ours, for network namespaces: nothing else must ever be sent to.
 *
 *   forge HOST PORT SOURCES COUNT SOURCE_PORT RATE SECONDS SEED FILE
 *
 *   HOST PORT      where to; port "any": another one of the ephemeral ports each time
 *   SOURCES        the network that the sources are of, as 10.0.0.0/8
 *   COUNT          how many addresses of it, chosen by SEED, taken in turn
 *   SOURCE_PORT    one or several with commas, taken in turn; "any": another one from 1024 on each time
 *   RATE           datagrams per second; 0: as fast as the kernel takes them
 *   SECONDS        how long; 0: each source sends once
 *   FILE           the payloads, taken in turn: for each three 16-bit numbers in network byte order, its length and
 *                  the offset and the length of the part that is random each time, and then its bytes
 *
 * It prints one JSON object: datagrams and bytes of payload that the kernel took, those that it refused, and seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, LARGEST = 65536, MOST_PAYLOADS = 4096, MOST_PORTS = 64, EPHEMERAL = 32768, EPHEMERAL_COUNT = 28232, USER_PORTS = 1024 };

struct payload {
    uint16_t length, random_from, random_length;
    uint8_t *bytes;
};

static struct payload payloads[MOST_PAYLOADS];
static unsigned payload_count;

static struct {
    int family;
    union {
        struct in_addr four;
        struct in6_addr six;
    } host;
    uint16_t port, source_ports[MOST_PORTS];
    unsigned source_port_count; /* 0: any */
    bool any_port;
    uint8_t network[16]; /* the first bytes of an address, the others are zero */
    unsigned bits, width;
    uint64_t count, seed;
} plan;

static uint64_t state;
static uint8_t packets[BATCH * LARGEST];
static struct mmsghdr slots[BATCH];
static struct iovec pieces[BATCH];
static struct sockaddr_storage server;

static void give_up(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t mixed(uint64_t value) { /* splitmix64's finaliser */
    value += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

static uint64_t random_bits(void) { return mixed(state++); }

static double now(void) {
    struct timespec spec;
    clock_gettime(CLOCK_MONOTONIC, &spec);
    return (double)spec.tv_sec + 1e-9 * (double)spec.tv_nsec;
}

static double number(const char *text, double most) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value <= most)) {
        fprintf(stderr, "%s is not a number from 0 to %g\n", text, most);
        exit(2);
    }
    return value;
}

static void read_network(char *text) {
    char *slash = strchr(text, '/');
    if (!slash)
        give_up("a network has a /");
    *slash = 0;
    plan.width = plan.family == AF_INET ? 4 : 16;
    plan.bits = (unsigned)number(slash + 1, 8 * plan.width);
    if (inet_pton(plan.family, text, plan.network) != 1)
        give_up(text);
}

static void read_payloads(const char *path) {
    FILE *file = fopen(path, "rb");
    uint16_t head[3];
    if (!file)
        give_up(path);
    while (payload_count < MOST_PAYLOADS && fread(head, sizeof head, 1, file) == 1) {
        struct payload *one = &payloads[payload_count++];
        *one = (struct payload){ntohs(head[0]), ntohs(head[1]), ntohs(head[2]), NULL};
        one->bytes = malloc((size_t)one->length + 1);
        if (!one->bytes || fread(one->bytes, 1, one->length, file) != one->length ||
            one->random_from + one->random_length > one->length || one->length > LARGEST - 64)
            give_up("a payload is not complete");
    }
    fclose(file);
    if (!payload_count)
        give_up("no payload");
}

/* The address with this number: the bits behind the network's follow from it. */
static void source_of(uint64_t index, uint8_t *address) {
    uint64_t first = mixed(index ^ plan.seed), second = mixed(first);
    uint8_t drawn[16];
    memcpy(drawn, &first, 8);
    memcpy(drawn + 8, &second, 8);
    for (unsigned i = 0; i < plan.width; i++) {
        unsigned before = i * 8;
        uint8_t mask = plan.bits >= before + 8 ? 0 : plan.bits <= before ? 0xff : (uint8_t)(0xff >> (plan.bits - before));
        address[i] = (uint8_t)(plan.network[i] | (drawn[i] & mask));
    }
}

static uint64_t summed(uint64_t sum, const uint8_t *bytes, size_t length) {
    for (; length >= 2; bytes += 2, length -= 2)
        sum += (uint64_t)bytes[0] << 8 | bytes[1];
    return length ? sum + ((uint64_t)bytes[0] << 8) : sum;
}

/* The UDP header at its place before the payload; the pseudo-header's addresses are summed already. */
static void write_udp(struct udphdr *header, size_t length, uint64_t sum, uint64_t index) {
    uint16_t source = plan.source_port_count ? plan.source_ports[index % plan.source_port_count]
                                             : (uint16_t)(USER_PORTS + random_bits() % (65536 - USER_PORTS));
    uint16_t port = plan.any_port ? (uint16_t)(EPHEMERAL + random_bits() % EPHEMERAL_COUNT) : plan.port;
    *header = (struct udphdr){.source = htons(source), .dest = htons(port), .len = htons((uint16_t)length)};
    sum = summed(sum + IPPROTO_UDP + length, (uint8_t *)header, length);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    header->check = htons((uint16_t)~sum) ? htons((uint16_t)~sum) : 0xffff;
}

static size_t write_packet(uint8_t *packet, uint64_t index) {
    const struct payload *payload = &payloads[index % payload_count];
    size_t length = sizeof(struct udphdr) + payload->length;
    size_t head = plan.family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ip6_hdr);
    uint8_t *body = packet + head + sizeof(struct udphdr), source[16];
    uint64_t sum;
    source_of(index % plan.count, source);
    memcpy(body, payload->bytes, payload->length);
    for (unsigned i = 0; i < payload->random_length; i += 8) {
        uint64_t bits = random_bits();
        unsigned left = payload->random_length - i;
        memcpy(body + payload->random_from + i, &bits, left < 8 ? left : 8);
    }
    if (plan.family == AF_INET) {
        struct iphdr *ip = (struct iphdr *)packet;
        *ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .daddr = plan.host.four.s_addr};
        ip->id = (uint16_t)random_bits();
        ip->tot_len = htons((uint16_t)(head + length));
        memcpy(&ip->saddr, source, 4);
        sum = summed(0, (uint8_t *)&ip->saddr, 8);
    } else {
        struct ip6_hdr *ip = (struct ip6_hdr *)packet;
        *ip = (struct ip6_hdr){.ip6_dst = plan.host.six};
        ip->ip6_flow = htonl(6U << 28);
        ip->ip6_plen = htons((uint16_t)length);
        ip->ip6_nxt = IPPROTO_UDP;
        ip->ip6_hlim = 64;
        memcpy(&ip->ip6_src, source, 16);
        sum = summed(0, (uint8_t *)&ip->ip6_src, 32);
    }
    write_udp((struct udphdr *)(packet + head), length, sum, index);
    return head + length;
}

static void wait_until(double when) {
    double left = when - now();
    if (left > 50e-6) {
        struct timespec spec = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
        nanosleep(&spec, NULL);
    }
}

/* Send the first slots; return how many the kernel refused, which were lost as if on the wire. */
static unsigned send_slots(int handle, unsigned count) {
    unsigned refused = 0;
    for (unsigned sent = 0; sent < count;) {
        int done = sendmmsg(handle, slots + sent, count - sent, 0);
        if (done > 0) {
            sent += (unsigned)done;
        } else if (errno == ENOBUFS || errno == EAGAIN || errno == EPERM) {
            refused++;
            sent++;
        } else if (errno != EINTR) {
            give_up("sendmmsg");
        }
    }
    return refused;
}

static void run(int handle, double rate, double seconds) {
    double began = now(), ends = began + seconds;
    uint64_t made = 0, refused = 0, bytes = 0;
    socklen_t length = plan.family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    for (unsigned i = 0; i < BATCH; i++) {
        slots[i].msg_hdr = (struct msghdr){.msg_name = &server, .msg_namelen = length, .msg_iov = &pieces[i], .msg_iovlen = 1};
    }
    for (;;) {
        double moment = now();
        uint64_t due = rate > 0 ? (uint64_t)(rate * (moment - began)) + 1 : made + BATCH;
        unsigned filled = 0;
        size_t used = 0;
        if (seconds > 0 ? moment >= ends : made >= plan.count)
            break;
        if (seconds <= 0 && due > plan.count)
            due = plan.count;
        for (; filled < BATCH && made < due; filled++, made++) {
            pieces[filled] = (struct iovec){packets + used, write_packet(packets + used, made)};
            used += (pieces[filled].iov_len + 63) & ~(size_t)63; /* apart, and yet close in the cache */
            bytes += payloads[made % payload_count].length;
        }
        refused += send_slots(handle, filled);
        if (filled < BATCH && rate > 0)
            wait_until(began + ((double)made + (rate > 20000 ? 16 : 0)) / rate);
    }
    printf("{\"sent\": %llu, \"bytes\": %llu, \"refused\": %llu, \"seconds\": %.3f}\n", (unsigned long long)(made - refused),
           (unsigned long long)bytes, (unsigned long long)refused, now() - began);
}

int main(int count, char **arguments) {
    int handle, room = 8 << 20;
    if (count != 10) {
        fprintf(stderr, "usage: %s HOST PORT SOURCES COUNT SOURCE_PORT RATE SECONDS SEED FILE\n", arguments[0]);
        return 2;
    }
    plan.family = strchr(arguments[1], ':') ? AF_INET6 : AF_INET;
    if (inet_pton(plan.family, arguments[1], &plan.host) != 1)
        give_up(arguments[1]);
    plan.any_port = !strcmp(arguments[2], "any");
    plan.port = plan.any_port ? 0 : (uint16_t)number(arguments[2], 65535);
    read_network(arguments[3]);
    plan.count = (uint64_t)number(arguments[4], 1e15);
    if (strcmp(arguments[5], "any"))
        for (char *one = strtok(arguments[5], ","); one && plan.source_port_count < MOST_PORTS; one = strtok(NULL, ","))
            plan.source_ports[plan.source_port_count++] = (uint16_t)number(one, 65535);
    plan.seed = mixed((uint64_t)number(arguments[8], 1e15));
    state = mixed(plan.seed);
    if (!plan.count)
        give_up("no source");
    read_payloads(arguments[9]);
    server.ss_family = (sa_family_t)plan.family;
    if (plan.family == AF_INET)
        ((struct sockaddr_in *)&server)->sin_addr = plan.host.four;
    else
        ((struct sockaddr_in6 *)&server)->sin6_addr = plan.host.six;
    /* IPPROTO_RAW: what is sent has its IP header, see raw(7). */
    handle = socket(plan.family, SOCK_RAW, IPPROTO_RAW);
    if (handle < 0 || setsockopt(handle, SOL_SOCKET, SO_SNDBUF, &room, sizeof room))
        give_up("a raw socket");
    run(handle, number(arguments[6], 1e9), number(arguments[7], 1e6));
    return 0;
}
