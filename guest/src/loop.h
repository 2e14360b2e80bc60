// The event loop: one thread, epoll, a clock. Nothing in it may block.
#ifndef MAGS_LOOP_H
#define MAGS_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

// Lives in static memory: an event of the same epoll_wait may still point to a watch that was just removed.
struct watch {
    int fd; // -1: not in use; loop_remove() sets it
    void (*ready)(struct watch *watch, uint32_t events);
    uint32_t events; // what is watched now; 0 when the fd is known but not watched
};

void loop_init(void);
// Watches from now on; calling it again changes the events. 0 stops watching (also for EPOLLHUP) but keeps the fd.
void loop_watch(struct watch *watch, uint32_t events);
void loop_close(struct watch *watch); // stops watching and closes the fd
// Waits for events at most `timeout_ms` (-1: for ever) and calls their watches.
void loop_once(int timeout_ms);
int64_t now_ms(void); // since boot, without the time a VM was asleep

#endif
