#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "console.h"
#include "kernel.h"
#include "loop.h"
#include "process.h"

#define GROUPS "/cgroup"
#define WORLD GROUPS "/world"

enum {
    KERNEL_KB = 8 * 1024, // kept out of the world, and a 64th of the memory: for the agent, buffers, page tables
    KERNEL_PART = 64,
    // Where the kernel kills process after process, each so soon after the last one, more grow than die: what makes them
    // is ended as a whole.
    STORM_KILLS = 10,
    STORM_GAP_MS = 10000,
};

static int entrance = -1, group = -1; // its cgroup.procs, its directory
static struct watch events = {.fd = -1};
static uint64_t killed;
static struct {
    int64_t latest;  // death
    uint64_t before; // its first one
    bool struck;
} storm;

static bool put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) >= 0;
    if (fd >= 0)
        close(fd);
    return done;
}

static bool put_number(const char *path, unsigned long long number) {
    char text[32];
    snprintf(text, sizeof text, "%llu", number);
    return put(path, text);
}

// The number behind `name` in a small file of the kernel; 0: there is none.
static unsigned long long number_in(const char *path, const char *name) {
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = 0;
    const char *found = strstr(text, name);
    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

static void limit(void) {
    unsigned long long total = number_in("/proc/meminfo", "MemTotal:"), free_kb = number_in("/proc/meminfo", "MemAvailable:");
    unsigned long long kept = KERNEL_KB + total / KERNEL_PART, threads = number_in("/proc/sys/kernel/threads-max", "");
    if (free_kb > 2 * kept)
        put_number(WORLD "/memory.max", (free_kb - kept) * 1024);
    if (threads)
        put_number(WORLD "/pids.max", threads / 2); // as RLIMIT_NPROC is for ordinary users
}

void world_make(void) {
    mkdir(GROUPS, 0755);
    // "favordynmods": to enter it is part of starting a process, and must not wait for a grace period of the kernel's.
    unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    if (mount("cgroup2", GROUPS, "cgroup2", flags, "favordynmods") < 0 &&
        mount("cgroup2", GROUPS, "cgroup2", flags, NULL) < 0)
        return;
    put(GROUPS "/cgroup.subtree_control", "+memory");
    put(GROUPS "/cgroup.subtree_control", "+pids");
    mkdir(WORLD, 0755);
    limit();
    // What was in use during the last second is not thrown out of memory to be read again at once: better one process dies.
    put("/sys/kernel/mm/lru_gen/min_ttl_ms", "1000");
    // Housekeeping twice and once a second is most of what an idle machine costs its host.
    put("/proc/sys/vm/compaction_proactiveness", "0");
    put("/proc/sys/vm/stat_interval", "120");
    group = open(WORLD, O_PATH | O_DIRECTORY | O_CLOEXEC);
    entrance = open(WORLD "/cgroup.procs", O_WRONLY | O_CLOEXEC);
    events.fd = open(WORLD "/memory.events", O_RDONLY | O_CLOEXEC);
}

#ifdef __x86_64__
// On the stack that `arguments` name; the child ends with what `child` answers.
static long clone_there(struct clone_args *arguments, int (*child)(void *), void *context) {
    long pid = SYS_clone3;
    register int (*function)(void *) __asm__("r12") = child;
    register void *argument __asm__("r13") = context;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "mov %%eax, %%edi\n\t"
                     "mov %[exit], %%eax\n\t"
                     "syscall\n"
                     "1:"
                     : "+a"(pid)
                     : "D"(arguments), "S"(sizeof *arguments), "r"(function), "r"(argument), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory");
    return pid;
}
#elif defined __aarch64__
static long clone_there(struct clone_args *arguments, int (*child)(void *), void *context) {
    register long number __asm__("x8") = SYS_clone3;
    register void *first __asm__("x0") = arguments;
    register long second __asm__("x1") = sizeof *arguments;
    register int (*function)(void *) __asm__("x20") = child;
    register void *argument __asm__("x21") = context;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x0, x21\n\t"
                     "blr x20\n\t"
                     "mov x8, %[exit]\n\t"
                     "svc #0\n"
                     "1:"
                     : "+r"(first)
                     : "r"(number), "r"(second), "r"(function), "r"(argument), [exit] "i"(SYS_exit)
                     : "memory");
    return (long)first;
}
#endif

pid_t world_start(int (*child)(void *), void *context) {
    if (group >= 0) {
        static _Alignas(16) char stack[64 * 1024];
        struct clone_args arguments = {
            .flags = CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP,
            .exit_signal = SIGCHLD,
            .stack = (uintptr_t)stack,
            .stack_size = sizeof stack,
            .cgroup = (uint64_t)group,
        };
        long pid = clone_there(&arguments, child, context);
        if (pid > 0)
            return (pid_t)pid;
    }
    // There is none, or it is full: whoever is to put that right comes in all the same.
    pid_t pid = vfork();
    if (pid == 0) {
        world_enter();
        _exit(child(context));
    }
    return pid;
}

void world_enter(void) {
    if (entrance >= 0 && write(entrance, "0", 1) < 0)
        return; // outside it can do its work as well
}

uint64_t world_killed(void) {
    char text[512];
    ssize_t size = events.fd < 0 ? -1 : pread(events.fd, text, sizeof text - 1, 0);
    text[size > 0 ? size : 0] = 0;
    const char *found = strstr(text, "oom_kill ");
    if (found)
        killed = strtoull(found + strlen("oom_kill "), NULL, 10);
    return killed;
}

uint64_t world_killed_so_far(void) { return killed; }

// First the session that holds the most memory, then everything.
static void end_storm(void) {
    say("mags-agent: %llu processes were killed for want of memory", (unsigned long long)(killed - storm.before));
    if (storm.struck || !processes_kill_largest())
        put(WORLD "/cgroup.kill", "1");
    storm.struck = true;
    storm.before = killed;
}

static void short_of_memory(struct watch *watch, uint32_t happened) {
    (void)watch;
    (void)happened;
    int64_t now = now_ms();
    uint64_t before = killed;
    if (world_killed() == before)
        return;
    if (now - storm.latest > STORM_GAP_MS) {
        storm.before = before;
        storm.struck = false;
    }
    storm.latest = now;
    if (killed - storm.before >= STORM_KILLS)
        end_storm();
}

void world_watch(void) {
    events.ready = short_of_memory;
    if (events.fd >= 0)
        loop_watch(&events, EPOLLPRI | EPOLLET);
}
