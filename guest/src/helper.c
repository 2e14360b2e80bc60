#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "agent.h"
#include "link.h"
#include "loop.h"

enum { MAX_HELPERS = 8 };

static struct helper {
    struct watch watch; // its answer; fd -1: the slot is free
    pid_t pid;
    int64_t deadline;
    helper_done *done;
    uint32_t id;
    uint32_t session;
} helpers[MAX_HELPERS];

static bool is_initialised;

static void conclude(struct helper *helper, const struct answer *answer) {
    loop_close(&helper->watch);
    helper->done(helper->id, helper->session != link_session(), answer);
}

static void answered(struct watch *watch, uint32_t events) {
    (void)events;
    struct helper *helper = (struct helper *)watch;
    struct answer answer;
    ssize_t size = read(watch->fd, &answer, sizeof answer);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size != sizeof answer)
        answer = (struct answer){EIO, "the helper died"};
    conclude(helper, &answer);
}

bool helper_start(helper_work *work, const void *argument, helper_done *done, uint32_t id, int timeout_ms) {
    if (!is_initialised)
        for (size_t i = 0; i < MAX_HELPERS; i++)
            helpers[i].watch.fd = -1;
    is_initialised = true;
    struct helper *helper = helpers;
    while (helper < helpers + MAX_HELPERS && helper->watch.fd >= 0)
        helper++;
    int ends[2];
    if (helper == helpers + MAX_HELPERS) {
        errno = EBUSY;
        return false;
    }
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        struct answer answer = {0};
        int root = fcntl(agent.root, F_DUPFD, 5); // above the numbers that are given anew
        dup2(ends[1], 3);
        agent.root = dup2(root, 4);
        syscall(SYS_close_range, agent.root < 0 ? 4 : 5, ~0u, 0);
        work(argument, &answer);
        // One write of less than PIPE_BUF bytes is whole or not at all.
        _exit(write(3, &answer, sizeof answer) != sizeof answer);
    }
    int error = errno;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        errno = error;
        return false;
    }
    *helper = (struct helper){{.fd = ends[0], .ready = answered}, pid, now_ms() + timeout_ms, done, id, link_session()};
    loop_watch(&helper->watch, EPOLLIN);
    return true;
}

int64_t helpers_timers(int64_t now) {
    int64_t next = INT64_MAX;
    for (struct helper *helper = helpers; is_initialised && helper < helpers + MAX_HELPERS; helper++) {
        if (helper->watch.fd < 0)
            continue;
        if (helper->deadline <= now) {
            kill(helper->pid, SIGKILL);
            struct answer late = {ETIMEDOUT, "took too long"};
            conclude(helper, &late);
        } else if (helper->deadline < next) {
            next = helper->deadline;
        }
    }
    return next;
}
