#include "sessions.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PASSES = 20 };

// Field 6 of /proc/PID/stat, see proc(5); the name in field 2 may hold anything, so count from its last ')'.
static bool is_in_session(const char *pid, pid_t leader) {
    char path[64], line[512];
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
    char state;
    int parent, group, session;
    return after && sscanf(after + 1, " %c %d %d %d", &state, &parent, &group, &session) == 4 && session == leader &&
           state != 'Z' && state != 'X';
}

static bool signal_all(pid_t leader, int number) {
    DIR *directory = opendir("/proc");
    if (!directory)
        return false;
    bool found = false;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !is_in_session(entry->d_name, leader))
            continue;
        found = true;
        kill((pid_t)atol(entry->d_name), number);
    }
    closedir(directory);
    return found;
}

void session_kill(pid_t leader) {
    if (leader <= 1)
        return;
    kill(-leader, SIGKILL);
    // What is killed may have just forked: go on until nothing is found.
    for (int pass = 0; pass < MAX_PASSES && signal_all(leader, SIGKILL); pass++)
        ;
}
