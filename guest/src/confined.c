#include "confined.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

// linux/openat2.h
struct how {
    uint64_t flags, mode, resolve;
};
enum { RESOLVE_NO_XDEV = 0x01, RESOLVE_IN_ROOT = 0x10 };

int confined_open(const char *path, int flags) {
    struct how how = {.flags = (uint64_t)(unsigned)flags, .resolve = agent.is_init ? RESOLVE_IN_ROOT | RESOLVE_NO_XDEV : RESOLVE_IN_ROOT};
    return (int)syscall(SYS_openat2, agent.root, path, &how, sizeof how);
}

int confined_create(const char *path, mode_t mode) {
    char parent[256];
    const char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) >= sizeof parent) {
        errno = EINVAL;
        return -1;
    }
    snprintf(parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    int directory = confined_open(parent, O_DIRECTORY | O_PATH | O_CLOEXEC);
    if (directory < 0)
        return -1;
    unlinkat(directory, slash + 1, 0);
    int fd = openat(directory, slash + 1, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    int error = errno;
    close(directory);
    errno = error;
    return fd;
}
