#include "connect.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "builtin.h"
#include "files.h"
#include "loop.h"

enum { CONNECT_MS = 10000, RETRY_MS = 20, CHUNK = 32 * 1024 };

// 0 and the socket, or errno.
static int try_connect(const struct sockaddr *address, socklen_t size, int *connected) {
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    int error = connect(fd, address, size) < 0 ? errno : 0;
    if (error == EINPROGRESS) {
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        socklen_t length = sizeof error;
        if (poll(&waiting, 1, CONNECT_MS) != 1)
            error = ETIMEDOUT;
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
            error = errno;
    }
    if (error) {
        close(fd);
        return error;
    }
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    *connected = fd;
    return 0;
}

static int connect_here(uint16_t port, int *connected) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int error = try_connect((struct sockaddr *)&in, sizeof in, connected);
    if (error && try_connect((struct sockaddr *)&in6, sizeof in6, connected) == 0)
        return 0;
    struct ifaddrs *all = NULL;
    if (error && getifaddrs(&all) == 0) {
        for (struct ifaddrs *each = all; error && each; each = each->ifa_next) {
            if (!each->ifa_addr || each->ifa_addr->sa_family != AF_INET || (each->ifa_flags & IFF_LOOPBACK))
                continue;
            memcpy(&in, each->ifa_addr, sizeof in);
            in.sin_port = htons(port);
            error = try_connect((struct sockaddr *)&in, sizeof in, connected);
        }
        freeifaddrs(all);
    }
    return error;
}

static int connect_there(const char *host, const char *port, int *connected) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;
    if (getaddrinfo(host, port, &hints, &all))
        return EHOSTUNREACH;
    int error = EHOSTUNREACH;
    for (struct addrinfo *each = all; error && each; each = each->ai_next)
        error = try_connect(each->ai_addr, each->ai_addrlen, connected);
    freeaddrinfo(all);
    return error;
}

// One direction: bytes that were read and not yet written.
struct pipe_half {
    int from, to;
    size_t size, at;
    bool ended;
    char data[CHUNK];
};

static void copy(struct pipe_half *half) {
    if (half->at == half->size) {
        ssize_t count = read(half->from, half->data, sizeof half->data);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        half->size = count > 0 ? (size_t)count : 0;
        half->at = 0;
        half->ended = count <= 0;
    }
    if (half->at < half->size) {
        ssize_t count = write(half->to, half->data + half->at, half->size - half->at);
        if (count > 0)
            half->at += (size_t)count;
        else if (errno != EAGAIN && errno != EINTR)
            half->ended = true;
    }
}

static int splice_all(int fd) {
    static struct pipe_half in = {.from = STDIN_FILENO}, out = {.to = STDOUT_FILENO};
    in.to = out.from = fd;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK);
    bool told = false;
    while (!out.ended) {
        bool in_full = in.at < in.size, out_full = out.at < out.size;
        struct pollfd waiting[3] = {
            {.fd = in.ended || in_full ? -1 : STDIN_FILENO, .events = POLLIN},
            {.fd = fd, .events = (short)((out_full ? 0 : POLLIN) | (in_full ? POLLOUT : 0))},
            {.fd = out_full ? STDOUT_FILENO : -1, .events = POLLOUT},
        };
        if (!waiting[1].events)
            waiting[1].fd = -1; // else POLLHUP would spin
        if (poll(waiting, 3, -1) < 0 && errno != EINTR)
            return 1;
        if (!in.ended)
            copy(&in);
        if (in.ended && !told) {
            shutdown(fd, SHUT_WR);
            told = true;
        }
        copy(&out);
    }
    return 0;
}

int connect_and_splice(const char *host, const char *port, long wait_ms) {
    char *end;
    unsigned long number = strtoul(port, &end, 10);
    int64_t deadline = now_ms() + wait_ms;
    if (*end || !number || number > 65535)
        return result(EINVAL, "no such port", NULL, 0);
    bool here = !*host || !strcmp(host, "localhost");
    int fd = -1, error;
    while ((error = here ? connect_here((uint16_t)number, &fd) : connect_there(host, port, &fd)) == ECONNREFUSED &&
           now_ms() < deadline)
        nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
    char message[160];
    snprintf(message, sizeof message, "%.80s port %s: %s", here ? "localhost" : host, port, strerror(error));
    if (error)
        return result(error, message, NULL, 0);
    result(0, "", NULL, 0);
    return splice_all(fd);
}
