// The guest agent. As PID 1 it boots the virtual machine; otherwise it serves a socket, for tests:
//
//     mags-agent --serve PATH [--root DIRECTORY]    listen on a unix socket
//     mags-agent --socket FD [--root DIRECTORY]     speak on an inherited socket until it closes
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "boot.h"
#include "configure.h"
#include "console.h"
#include "helper.h"
#include "link.h"
#include "loop.h"
#include "modules.h"
#include "process.h"
#include "requests.h"
#include "world.h"

struct agent agent = {.root = -1, .run = -1, .null = -1, .random = -1, .ptmx = "/dev/ptmx"};

static bool told_to_stop;

static void signalled(struct watch *watch, uint32_t events) {
    (void)events;
    struct signalfd_siginfo info;
    while (read(watch->fd, &info, sizeof info) == sizeof info)
        told_to_stop |= info.ssi_signo == SIGTERM;
    processes_reap();
}

static void watch_signals(void) {
    static struct watch watch;
    // All signals are blocked, none is handled: children unblock theirs and find everything at its default.
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    if (!agent.is_init)
        sigaddset(&wanted, SIGTERM);
    watch = (struct watch){.fd = signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC), .ready = signalled};
    if (watch.fd < 0)
        fatal("signalfd");
    loop_watch(&watch, EPOLLIN);
}

static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4) < 0)
        fatal(path);
    return fd;
}

static void use_root(const char *directory) {
    static char scripts[] = "/tmp/mags-agent-XXXXXX";
    agent.root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (agent.root < 0)
        fatal(directory);
    agent.confine = strcmp(directory, "/") != 0;
    agent.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (agent.confine || !mkdtemp(scripts))
        return;
    agent.run_path = scripts;
    agent.run = open(scripts, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void serve_for_tests(int count, char **arguments) {
    const char *path = NULL, *root = "/";
    int fd = -1;
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(arguments[i], "--serve"))
            path = arguments[i + 1];
        else if (!strcmp(arguments[i], "--socket"))
            fd = atoi(arguments[i + 1]);
        else if (!strcmp(arguments[i], "--root"))
            root = arguments[i + 1];
    }
    if (!path && fd < 0) {
        errno = EINVAL;
        fatal("usage: mags-agent --serve PATH | --socket FD [--root DIRECTORY]");
    }
    use_root(root);
    if (path)
        link_listen(listen_at(path));
    else {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        link_open(fd);
    }
}

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

static void run_timers(int *timeout) {
    int64_t now = now_ms();
    int64_t next = earlier(processes_timers(now), earlier(helpers_timers(now), requests_timers(now)));
    int64_t wait = next - now;
    *timeout = next == INT64_MAX ? -1 : wait < 0 ? 0 : wait > 60000 ? 60000 : (int)wait;
}

int main(int count, char **arguments) {
    if (count == 2 && !strcmp(arguments[1], "--warm")) {
        modules_load("/mods/nfs"); // now and not when a clone mounts /jfs
        return write(STDOUT_FILENO, "warm\n", 5) != 5;
    }
    // The kernel hands words of its command line that it does not know to init, so there may be arguments.
    agent.is_init = getpid() == 1 && (count < 2 || strncmp(arguments[1], "--", 2) != 0);
    int channel = agent.is_init ? boot() : -1;
    loop_init();
    processes_init();
    watch_signals();
    world_watch();
    if (channel >= 0)
        link_open(channel);
    else
        serve_for_tests(count, arguments);
    while (!link_ended() && !told_to_stop) {
        int timeout;
        run_timers(&timeout);
        link_resume();
        link_pump();
        loop_once(timeout);
    }
    processes_kill_all();
    if (agent.run_path)
        rmdir(agent.run_path);
    return 0;
}
