// Writing a file so that it appears under its name only when it is whole.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builtin.h"
#include "bytes.h"
#include "files.h"

enum { CHUNK = 64 * 1024 };

struct target {
    char path[PATH_MAX];    // with links followed
    char parent[PATH_MAX];  // its directory
    char draft[PATH_MAX];   // a name beside it, while it is not whole
    bool exists;
    struct stat status;
    bool is_nameless; // the draft has no name yet, so nothing is left if we are killed
};

static int locate(const char *path, bool parents, struct target *target) {
    if (!*path || strlen(path) + 32 >= sizeof target->path || path[strlen(path) - 1] == '/')
        return *path ? ENAMETOOLONG : ENOENT;
    if (!realpath(path, target->path)) {
        int error = parents ? make_parents(path, 0755) : 0;
        if (error)
            return error;
        char link[PATH_MAX];
        if (readlink(path, link, sizeof link) >= 0)
            return ENOENT; // a link that leads nowhere
        strcpy(target->path, path);
    }
    target->exists = stat(target->path, &target->status) == 0;
    if (target->exists && !S_ISREG(target->status.st_mode))
        return S_ISDIR(target->status.st_mode) ? EISDIR : EINVAL;
    strcpy(target->parent, target->path);
    char *slash = strrchr(target->parent, '/');
    if (!slash)
        strcpy(target->parent, ".");
    else
        slash[slash == target->parent] = 0;
    snprintf(target->draft, sizeof target->draft, "%.*s/.mags-%ld", (int)(sizeof target->draft - 32), target->parent,
             (long)getpid());
    return 0;
}

static int open_draft(struct target *target) {
    int fd = open(target->parent, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    target->is_nameless = fd >= 0;
    if (fd < 0) // NFS has no nameless files
        fd = open(target->draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd;
}

static int name_draft(int fd, struct target *target) {
    char path[32];
    if (!target->is_nameless)
        return 0;
    unlink(target->draft);
    if (linkat(fd, "", AT_FDCWD, target->draft, AT_EMPTY_PATH) == 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, path, AT_FDCWD, target->draft, AT_SYMLINK_FOLLOW) < 0 ? errno : 0;
}

static int copy_input(int fd, uint64_t *total) {
    static char chunk[CHUNK];
    for (;;) {
        ssize_t count = read(STDIN_FILENO, chunk, sizeof chunk);
        if (count <= 0)
            return count ? errno : 0;
        if (!write_all(fd, chunk, (size_t)count))
            return errno;
        *total += (uint64_t)count;
    }
}

static int finish(int fd, struct target *target, const char *mode, bool durable) {
    mode_t bits = *mode ? (mode_t)strtoul(mode, NULL, 8) & 07777 : target->exists ? target->status.st_mode & 07777 : 0644;
    // Changing the owner clears set-user-id, so the mode comes last. Who may not give files away keeps them.
    if (target->exists && fchown(fd, target->status.st_uid, target->status.st_gid) < 0 && errno != EPERM)
        return errno;
    if (fchmod(fd, bits) < 0 || (durable && fsync(fd) < 0))
        return errno;
    int error = name_draft(fd, target);
    if (!error && rename(target->draft, target->path) < 0)
        error = errno;
    return error;
}

int file_write(const char *path, const char *mode, const char *flags) {
    static struct target target;
    uint64_t total = 0;
    int error = locate(path, strchr(flags, 'p'), &target);
    int fd = error ? -1 : open_draft(&target);
    if (!error && fd < 0)
        error = errno;
    if (!error)
        error = copy_input(fd, &total);
    if (!error)
        error = finish(fd, &target, mode, strchr(flags, 'f'));
    if (error) {
        if (fd >= 0)
            unlink(target.draft);
        errno = error;
        return failed(path);
    }
    uint8_t size[8];
    put64(size, total);
    return result(0, "", size, sizeof size);
}
