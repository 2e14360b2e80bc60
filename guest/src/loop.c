#include "loop.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "console.h"

static int epoll = -1;

void loop_init(void) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fatal("epoll_create1");
}

void loop_watch(struct watch *watch, uint32_t events) {
    if (watch->fd < 0 || watch->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int operation = !events ? EPOLL_CTL_DEL : watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(epoll, operation, watch->fd, &event) < 0)
        fatal("epoll_ctl");
    watch->events = events;
}

void loop_close(struct watch *watch) {
    if (watch->fd < 0)
        return;
    // A forked child may still have the file open, so closing alone would not end the watch.
    loop_watch(watch, 0);
    close(watch->fd);
    watch->fd = -1;
}

void loop_once(int timeout_ms) {
    struct epoll_event events[64];
    int count = epoll_wait(epoll, events, sizeof events / sizeof *events, timeout_ms);
    if (count < 0 && errno != EINTR)
        fatal("epoll_wait");
    for (int i = 0; i < count; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->fd >= 0 && watch->events)
            watch->ready(watch, events[i].events);
    }
}

int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
