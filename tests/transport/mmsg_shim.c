/* Makes chosen system calls of one socket fail, for tests of what a port does then; it is preloaded (LD_PRELOAD).
 *
 * A script is set by shim_set(descriptor, script): rules, separated by commas, of the form CALL@WHICH=WHAT.
 *
 *     CALL   sendmmsg, sendmsg, sendto, recvmmsg: these calls, on this descriptor, counted from 1;
 *            segment: buffers that the kernel is to cut (UDP_SEGMENT), also those within a sendmmsg;
 *            pktinfo: datagrams that name the address to leave from (IP_PKTINFO, IPV6_PKTINFO), likewise.
 *     WHICH  3: the third; 3-5: these three; 3+: the third and all after it.
 *     WHAT   the name of an errno; for sendmmsg and recvmmsg also partial:N, the call is made for the first N only; for
 *            recvmmsg also port0, what was received seems to come from UDP port 0.
 *
 * A buffer that is refused within a sendmmsg ends it, as in the kernel: the call returns how many came before, and fails
 * if it is the first. A rule of partial:N does not keep the buffers from being looked at. shim_count(call) returns how
 * many calls there were. Meanwhile the monotonic clock stands still, so that no turn of the port ends early on a machine
 * that is busy.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { SENDMMSG, SENDMSG, SENDTO, RECVMMSG, SEGMENT, PKTINFO, CALLS };
enum { PORT_ZERO = -1, MOST_RULES = 64, MOST_TEXT = 4096, IS_UDP_SEGMENT = 103 };

static const char *const call_names[CALLS] = {"sendmmsg", "sendmsg", "sendto", "recvmmsg", "segment", "pktinfo"};

static const struct {
    const char *name;
    int number;
} errors[] = {
    {"EAGAIN", EAGAIN},           {"EINTR", EINTR},           {"ENOBUFS", ENOBUFS},           {"ENOMEM", ENOMEM},
    {"EPERM", EPERM},             {"EACCES", EACCES},         {"ENETUNREACH", ENETUNREACH},   {"EHOSTUNREACH", EHOSTUNREACH},
    {"ECONNREFUSED", ECONNREFUSED}, {"EIO", EIO},             {"EINVAL", EINVAL},             {"EMSGSIZE", EMSGSIZE},
    {"EOPNOTSUPP", EOPNOTSUPP},   {"ENOPROTOOPT", ENOPROTOOPT}, {"EADDRNOTAVAIL", EADDRNOTAVAIL}, {"ENETDOWN", ENETDOWN},
};

static struct rule {
    int call, first, last, number, most;
} rules[MOST_RULES];
static int rule_count, counts[CALLS], target = -1;

static int number_of(const char *name, const char *const *names, int count)
{
    for (int index = 0; index < count; index++)
        if (!strcmp(name, names[index]))
            return index;
    return -1;
}

static int parse(char *text, struct rule *rule)
{
    char *at = strchr(text, '@'), *is = strchr(text, '='), *end;
    if (!at || !is || is < at)
        return -1;
    *at = *is = 0;
    rule->call = number_of(text, call_names, CALLS);
    rule->first = rule->last = (int)strtol(at + 1, &end, 10);
    if (*end == '-')
        rule->last = (int)strtol(end + 1, &end, 10);
    else if (*end == '+') {
        rule->last = 1 << 30;
        end++;
    }
    if (rule->call < 0 || rule->first < 1 || *end)
        return -1;
    rule->number = rule->most = 0;
    if (!strncmp(is + 1, "partial:", 8) && (rule->call == SENDMMSG || rule->call == RECVMMSG)) {
        rule->most = atoi(is + 9);
        return rule->most > 0 ? 0 : -1;
    }
    if (!strcmp(is + 1, "port0") && rule->call == RECVMMSG)
        rule->number = PORT_ZERO;
    for (size_t index = 0; index < sizeof errors / sizeof *errors; index++)
        if (!strcmp(is + 1, errors[index].name))
            rule->number = errors[index].number;
    return rule->number ? 0 : -1;
}

/* Set a script for a descriptor, and forget what was counted; returns -1 if it cannot be understood. */
int shim_set(int descriptor, const char *script)
{
    char text[MOST_TEXT], *rest = text, *word;
    if (strlen(script) >= sizeof text)
        return -1;
    strcpy(text, script);
    memset(counts, 0, sizeof counts);
    rule_count = 0;
    target = descriptor;
    while ((word = strsep(&rest, ",")))
        if (*word && (rule_count == MOST_RULES || parse(word, &rules[rule_count++])))
            return -1;
    return 0;
}

int shim_count(const char *name)
{
    int call = number_of(name, call_names, CALLS);
    return call < 0 ? -1 : counts[call];
}

/* Return the rule for the next of these calls, NULL if it is to be made as it is. */
static const struct rule *next_rule(int call)
{
    for (int index = 0; index < rule_count; index++) {
        const struct rule *rule = &rules[index];
        if (rule->call == call && rule->first <= counts[call] + 1 && counts[call] + 1 <= rule->last)
            return rule;
    }
    return NULL;
}

static int carries(const struct msghdr *header, int call)
{
    struct msghdr copy = *header;
    for (struct cmsghdr *control = CMSG_FIRSTHDR(&copy); control; control = CMSG_NXTHDR(&copy, control)) {
        int level = control->cmsg_level, type = control->cmsg_type;
        if (call == SEGMENT ? level == IPPROTO_UDP && type == IS_UDP_SEGMENT
                            : (level == IPPROTO_IP && type == IP_PKTINFO) ||
                                  (level == IPPROTO_IPV6 && type == IPV6_PKTINFO))
            return 1;
    }
    return 0;
}

/* Return the errno with which a buffer is refused, 0 if it is not; one that is only looked at is not counted. */
static int refused(const struct msghdr *header, int only_look)
{
    for (int call = SEGMENT; call <= PKTINFO; call++) {
        const struct rule *rule;
        if (!carries(header, call))
            continue;
        rule = next_rule(call);
        if (!rule || !only_look)
            counts[call]++;
        if (rule)
            return rule->number;
    }
    return 0;
}

static int fail(int number)
{
    errno = number;
    return -1;
}

int sendmmsg(int descriptor, struct mmsghdr *headers, unsigned int count, int flags)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int);
    const struct rule *rule;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sendmmsg");
    if (descriptor != target)
        return real(descriptor, headers, count, flags);
    rule = next_rule(SENDMMSG);
    counts[SENDMMSG]++;
    if (rule && rule->number)
        return fail(rule->number);
    if (rule && (unsigned int)rule->most < count)
        count = (unsigned int)rule->most;
    for (unsigned int index = 0; index < count; index++) {
        int number = refused(&headers[index].msg_hdr, index > 0);
        if (number && !index)
            return fail(number);
        if (number)
            count = index;
    }
    return real(descriptor, headers, count, flags);
}

ssize_t sendmsg(int descriptor, const struct msghdr *header, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sendmsg");
    if (descriptor == target) {
        const struct rule *rule = next_rule(SENDMSG);
        int number = rule ? rule->number : refused(header, 0);
        counts[SENDMSG]++;
        if (number)
            return fail(number);
    }
    return real(descriptor, header, flags);
}

ssize_t sendto(int descriptor, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sendto");
    if (descriptor == target) {
        const struct rule *rule = next_rule(SENDTO);
        counts[SENDTO]++;
        if (rule)
            return fail(rule->number);
    }
    return real(descriptor, data, size, flags, to, length);
}

int recvmmsg(int descriptor, struct mmsghdr *headers, unsigned int count, int flags, struct timespec *timeout)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
    const struct rule *rule = NULL;
    int received;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "recvmmsg");
    if (descriptor == target) {
        rule = next_rule(RECVMMSG);
        counts[RECVMMSG]++;
    }
    if (rule && rule->number > 0)
        return fail(rule->number);
    if (rule && rule->most && (unsigned int)rule->most < count)
        count = (unsigned int)rule->most;
    received = real(descriptor, headers, count, flags, timeout);
    for (int index = 0; rule && rule->number == PORT_ZERO && index < received; index++)
        ((struct sockaddr_in *)headers[index].msg_hdr.msg_name)->sin_port = 0; /* sin6_port has the same place */
    return received;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    if (clock != CLOCK_MONOTONIC || target < 0)
        return real(clock, now);
    now->tv_sec = 1000000;
    now->tv_nsec = 0;
    return 0;
}
