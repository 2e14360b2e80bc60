#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "console.h"
#include "frame.h"
#include "helper.h"
#include "kernel.h"
#include "link.h"
#include "loop.h"
#include "process.h"
#include "root.h"
#include "stats.h"

enum { FLUSH_TIMEOUT_MS = 120000, FREEZE_TIMEOUT_MS = 60000, MAX_FREEZE_MS = 300000, DYING_MS = 500 };

static bool freezing, frozen;
static int64_t thaw_at;

bool requests_frozen(void) { return frozen || freezing; }

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

void requests_hello(struct buffer *hello) {
    static char boot_id[37]; // of this boot; clones share it
    uint8_t value[8];
    if (!boot_id[0]) {
        int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, boot_id, sizeof boot_id - 1) < 0)
            boot_id[0] = 0;
        if (fd >= 0)
            close(fd);
    }
    buffer_field(hello, 1, AGENT_VERSION, strlen(AGENT_VERSION));
    buffer_field(hello, 2, boot_id, strlen(boot_id));
    put64(value, nanoseconds(CLOCK_MONOTONIC) / 1000000);
    buffer_field(hello, 3, value, 8);
    put32(value, agent.root >= 0);
    buffer_field(hello, 6, value, 4);
}

static void pong(uint32_t id) {
    uint8_t payload[16];
    put64(payload, nanoseconds(CLOCK_REALTIME));
    put64(payload + 8, nanoseconds(CLOCK_MONOTONIC));
    link_send(FRAME_REPLY, id, payload, sizeof payload);
}

static int disk_ioctl(unsigned long number) {
    int fd = open(WORK_MOUNT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = ioctl(fd, number, 0) < 0 ? errno : 0;
    close(fd);
    return error;
}

static void flush_work(const void *argument, struct answer *answer) {
    (void)argument;
    answer->error = root_sync();
}

static void freeze_work(const void *argument, struct answer *answer) {
    (void)argument;
    answer->error = disk_ioctl(FIFREEZE);
}

static void reply(uint32_t id, bool is_stale, const struct answer *answer) {
    if (is_stale)
        return;
    if (answer->error)
        link_error(id, answer->error, answer->message[0] ? answer->message : strerror(answer->error));
    else
        link_send(FRAME_REPLY, id, NULL, 0);
}

static void freeze_ended(uint32_t id, bool is_stale, const struct answer *answer) {
    freezing = false;
    // A helper that was killed at its deadline may yet have frozen the disk: the watchdog thaws it.
    frozen = !answer->error || answer->error == ETIMEDOUT || answer->error == EIO;
    reply(id, is_stale, answer);
}

static void thaw(uint32_t id) {
    if (!frozen) {
        link_error(id, ETIMEDOUT, "the work disk is not frozen; the agent thawed it at its limit");
        return;
    }
    frozen = false;
    int error = disk_ioctl(FITHAW);
    if (error)
        link_error(id, error, strerror(error));
    else
        link_send(FRAME_REPLY, id, NULL, 0);
}

static void ask_helper(uint32_t id, helper_work *work, helper_done *done, int timeout_ms) {
    if (!helper_start(work, NULL, done, id, timeout_ms)) {
        struct answer answer = {.error = errno};
        done(id, false, &answer);
    }
}

static void freeze(uint32_t id, uint32_t limit_ms) {
    int refusal = !agent.is_init ? EPERM : agent.root < 0 ? ENOTCONN : requests_frozen() ? EBUSY : 0;
    if (refusal) {
        link_error(id, refusal, "cannot freeze the work disk");
        return;
    }
    freezing = true;
    thaw_at = now_ms() + limit_ms;
    ask_helper(id, freeze_work, freeze_ended, FREEZE_TIMEOUT_MS);
}

int64_t requests_timers(int64_t now) {
    if (!frozen)
        return INT64_MAX;
    if (thaw_at > now)
        return thaw_at;
    frozen = false;
    say("mags-agent: the host did not thaw the work disk in time");
    disk_ioctl(FITHAW);
    return INT64_MAX;
}

static void stop_everything(void) {
    if (!agent.is_init)
        fatal("told to power off");
    if (frozen)
        disk_ioctl(FITHAW);
    kill(-1, SIGKILL);
    // Their files close while they die; what does not die in time keeps the disk mounted, which its journal survives.
    pid_t dead;
    for (int waited = 0; waited < DYING_MS && (dead = waitpid(-1, NULL, WNOHANG)) >= 0; waited += !dead)
        if (!dead)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    root_unmount();
    power_off();
}

bool request(uint8_t type, uint32_t id, const uint8_t *payload, size_t size) {
    if (size != (type == FRAME_FREEZE ? 4 : 0))
        return false;
    switch (type) {
    case FRAME_PING:
        pong(id);
        return true;
    case FRAME_STATS: {
        uint8_t answer[STATS_SIZE];
        stats(answer);
        link_send(FRAME_REPLY, id, answer, sizeof answer);
        return true;
    }
    case FRAME_FREEZE: {
        uint32_t limit = get32(payload);
        if (!limit || limit > MAX_FREEZE_MS)
            return false;
        freeze(id, limit);
        return true;
    }
    case FRAME_THAW:
        thaw(id);
        return true;
    case FRAME_FLUSH:
        ask_helper(id, flush_work, reply, FLUSH_TIMEOUT_MS);
        return true;
    case FRAME_POWEROFF:
        stop_everything();
        return true;
    default:
        return false;
    }
}
