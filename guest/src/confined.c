#include "confined.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

// linux/openat2.h
struct how {
    uint64_t flags, mode, resolve;
};
enum { RESOLVE_NO_XDEV = 0x01, RESOLVE_IN_ROOT = 0x10 };

static int open_within(const char *path, int flags, mode_t mode) {
    struct how how = {
        .flags = (uint64_t)(unsigned)flags,
        .mode = mode,
        .resolve = agent.is_init ? RESOLVE_IN_ROOT | RESOLVE_NO_XDEV : RESOLVE_IN_ROOT,
    };
    return (int)syscall(SYS_openat2, agent.root, path, &how, sizeof how);
}

int confined_open(const char *path, int flags) { return open_within(path, flags, 0); }

void confined_touch(const char *path, mode_t mode) {
    int fd = open_within(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
    if (fd >= 0)
        close(fd);
}

static int fill(int fd, const char *text, size_t size) {
    ssize_t count = write(fd, text, size);
    return count == (ssize_t)size ? 0 : count < 0 ? errno : ENOSPC;
}

int confined_replace(const char *path, mode_t mode, const char *text) {
    char parent[256], draft[256];
    const char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) >= sizeof parent)
        return EINVAL;
    snprintf(parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    snprintf(draft, sizeof draft, ".mags-%.200s", slash + 1);
    int directory = confined_open(parent, O_DIRECTORY | O_PATH | O_CLOEXEC);
    if (directory < 0)
        return errno;
    unlinkat(directory, draft, 0);
    int fd = openat(directory, draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    int error = fd < 0 ? errno : fill(fd, text, strlen(text));
    if (!error && renameat(directory, draft, directory, slash + 1) < 0)
        error = errno;
    if (fd >= 0) {
        close(fd);
        if (error)
            unlinkat(directory, draft, 0);
    }
    close(directory);
    return error;
}

bool confined_rewrite(const char *path, mode_t mode, const char *text) {
    size_t size = strlen(text);
    struct stat status;
    int fd = confined_open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    bool done = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink == 1 &&
                status.st_uid == 0 && (status.st_mode & 07777) == mode && fill(fd, text, size) == 0 &&
                (status.st_size <= (off_t)size || ftruncate(fd, (off_t)size) == 0);
    if (fd >= 0)
        close(fd);
    return done;
}

bool confined_holds(const char *path, const char *text) {
    char found[1024];
    size_t size = strlen(text);
    struct stat status;
    int fd = confined_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bool same = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == (off_t)size &&
                size <= sizeof found && read(fd, found, size) == (ssize_t)size && !memcmp(found, text, size);
    if (fd >= 0)
        close(fd);
    return same;
}
