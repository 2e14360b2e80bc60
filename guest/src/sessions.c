#include "sessions.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// PID_MAX: the kernel's own limit (PID_MAX_LIMIT).
enum { MAX_PASSES = 20, MAX_SESSIONS = 512, PID_MAX = 1 << 22 };

struct found {
    char state;
    pid_t session;
    unsigned long pages; // in memory
};

// Fields 3, 6 and 24 of /proc/PID/stat, see proc(5); the name in field 2 may hold anything, so count from its last ')'.
static bool look_at(const char *pid, struct found *found) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t size = read(fd, line, sizeof line - 1);
    close(fd);
    if (size <= 0)
        return false;
    line[size] = 0;
    const char *after = strrchr(line, ')');
    return after && sscanf(after + 1,
                           " %c %*d %*d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %*u %*u %lu",
                           &found->state, &found->session, &found->pages) == 3;
}

// Calls `each` for every process; false: /proc can't be read.
static bool visit(void (*each)(pid_t pid, const struct found *found, void *context), void *context) {
    DIR *directory = opendir("/proc");
    struct dirent *entry;
    struct found found;
    while (directory && (entry = readdir(directory)))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && look_at(entry->d_name, &found))
            each((pid_t)atol(entry->d_name), &found, context);
    if (directory)
        closedir(directory);
    return directory;
}

struct target {
    pid_t leader;
    bool found;
};

static uint8_t struck[PID_MAX / 8]; // a bit for each process, all clear between two uses
static size_t struck_low, struck_high;

static void kill_member(pid_t pid, const struct found *found, void *context) {
    struct target *target = context;
    if (found->session != target->leader || found->state == 'Z' || found->state == 'X' || pid <= 0 || pid >= PID_MAX)
        return;
    uint8_t bit = (uint8_t)(1u << pid % 8);
    if (struck[pid / 8] & bit)
        return; // it is dying, which takes its time where there are many
    struck[pid / 8] |= bit;
    struck_low = struck_high && struck_low < (size_t)pid / 8 ? struck_low : (size_t)pid / 8;
    struck_high = struck_high > (size_t)pid / 8 + 1 ? struck_high : (size_t)pid / 8 + 1;
    target->found = true;
    kill(pid, SIGKILL);
}

void session_kill(pid_t leader) {
    if (leader <= 1)
        return;
    kill(-leader, SIGKILL);
    // What is killed may have just forked: go on until nothing new is found.
    struct target target = {.leader = leader, .found = true};
    for (int pass = 0; pass < MAX_PASSES && target.found; pass++) {
        target.found = false;
        if (!visit(kill_member, &target))
            break;
    }
    memset(struck + struck_low, 0, struck_high - struck_low);
    struck_low = struck_high = 0;
}

struct sums {
    size_t count;
    struct {
        pid_t session;
        unsigned long pages;
    } of[MAX_SESSIONS];
};

static void add(pid_t pid, const struct found *found, void *context) {
    struct sums *sums = context;
    (void)pid;
    if (found->session <= 1) // the agent's own, and the kernel's
        return;
    size_t i = 0;
    while (i < sums->count && sums->of[i].session != found->session)
        i++;
    if (i == MAX_SESSIONS)
        return;
    if (i == sums->count) {
        sums->of[i].session = found->session;
        sums->of[i].pages = 0;
        sums->count++;
    }
    sums->of[i].pages += found->pages;
}

pid_t session_largest(void) {
    static struct sums sums;
    sums.count = 0;
    visit(add, &sums);
    size_t largest = 0;
    for (size_t i = 1; i < sums.count; i++)
        if (sums.of[i].pages > sums.of[largest].pages)
            largest = i;
    return sums.count ? sums.of[largest].session : 0;
}
