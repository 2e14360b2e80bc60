#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builtin.h"
#include "entry.h"

enum { CHUNK = 64 * 1024, MAX_DEPTH = 256 };

bool write_all(int fd, const void *data, size_t size) {
    const char *at = data;
    while (size) {
        ssize_t count = write(fd, at, size);
        if (count < 0)
            return false;
        at += count;
        size -= (size_t)count;
    }
    return true;
}

int failed(const char *path) {
    int error = errno;
    char message[400];
    snprintf(message, sizeof message, "%.300s: %s", path, strerror(error));
    return result(error, message, NULL, 0);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

int file_read(const char *path, int64_t offset, int64_t limit) {
    static char chunk[CHUNK];
    uint8_t entry[ENTRY_MAX];
    struct stat status;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); // a FIFO must not hang us
    if (fd < 0 || fstat(fd, &status) < 0)
        return failed(path);
    if (!S_ISREG(status.st_mode)) {
        errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
        return failed(path);
    }
    if (offset && lseek(fd, offset, SEEK_SET) < 0)
        return failed(path);
    result(0, "", entry, entry_encode(entry, &status, base_name(path), NULL));
    while (limit) {
        size_t wanted = limit < 0 || limit > CHUNK ? CHUNK : (size_t)limit;
        ssize_t count = read(fd, chunk, wanted);
        if (count < 0)
            return failed(path);
        if (!count)
            break;
        if (!write_all(STDOUT_FILENO, chunk, (size_t)count))
            return 1; // nobody reads any more
        if (limit > 0)
            limit -= count;
    }
    return 0;
}

int file_list(const char *path) {
    static uint8_t out[CHUNK];
    size_t used = 0;
    DIR *directory = opendir(path);
    if (!directory)
        return failed(path);
    struct dirent *found;
    while ((errno = 0, found = readdir(directory))) {
        char target[PATH_MAX] = "";
        struct stat status;
        if (!strcmp(found->d_name, ".") || !strcmp(found->d_name, ".."))
            continue;
        if (fstatat(dirfd(directory), found->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue; // removed meanwhile
        if (S_ISLNK(status.st_mode)) {
            ssize_t size = readlinkat(dirfd(directory), found->d_name, target, sizeof target - 1);
            target[size < 0 ? 0 : size] = 0;
        }
        used += entry_encode(out + used, &status, found->d_name, target);
        if (sizeof out - used < ENTRY_MAX) {
            if (!write_all(STDOUT_FILENO, out, used))
                return 1;
            used = 0;
        }
    }
    if (errno)
        return failed(path);
    if (!write_all(STDOUT_FILENO, out, used))
        return 1;
    return result(0, "", NULL, 0);
}

int file_stat(const char *path) {
    uint8_t entry[ENTRY_MAX];
    char target[PATH_MAX] = "";
    struct stat status;
    if (lstat(path, &status) < 0)
        return failed(path);
    if (S_ISLNK(status.st_mode)) {
        ssize_t size = readlink(path, target, sizeof target - 1);
        target[size < 0 ? 0 : size] = 0;
    }
    return result(0, "", entry, entry_encode(entry, &status, base_name(path), target));
}

// Never follows a link, so it stays below where it began. -1 and errno.
static int remove_tree(int parent, const char *name, int depth) {
    if (unlinkat(parent, name, 0) == 0)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return -1;
    if (depth == MAX_DEPTH) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return -1;
    struct dirent *found;
    int status = 0, error = 0;
    // What cannot be removed does not keep the rest.
    while ((found = readdir(directory)))
        if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0 &&
            remove_tree(dirfd(directory), found->d_name, depth + 1) < 0) {
            status = -1;
            error = errno;
        }
    closedir(directory);
    if (status == 0)
        return unlinkat(parent, name, AT_REMOVEDIR);
    errno = error;
    return -1;
}

int file_remove(const char *path, bool recursive) {
    int status;
    if (recursive) {
        status = remove_tree(AT_FDCWD, path, 0);
    } else {
        status = unlink(path);
        if (status < 0 && (errno == EISDIR || errno == EPERM))
            status = rmdir(path);
    }
    return status < 0 ? failed(path) : result(0, "", NULL, 0);
}

int make_parents(const char *path, mode_t mode) {
    char copy[PATH_MAX];
    if (strlen(path) >= sizeof copy)
        return ENAMETOOLONG;
    strcpy(copy, path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return errno;
        *slash = '/';
    }
    return 0;
}

int file_mkdir(const char *path, mode_t mode, bool parents) {
    struct stat status;
    int error = parents ? make_parents(path, 0755) : 0;
    if (!error && mkdir(path, mode) < 0)
        error = errno;
    else if (!error && chmod(path, mode) < 0) // whatever the umask says
        error = errno;
    if (error == EEXIST && parents && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        error = 0;
    errno = error;
    return error ? failed(path) : result(0, "", NULL, 0);
}

int file_rename(const char *from, const char *to) {
    return rename(from, to) < 0 ? failed(from) : result(0, "", NULL, 0);
}
