#include "sftp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "sftp_wire.h"

enum { MAX_PACKET = 256 * 1024, MAX_READ = 128 * 1024, MAX_HANDLES = 256, NAMES_A_REPLY = 100 };

enum request {
    INIT = 1,
    VERSION,
    OPEN,
    CLOSE,
    READ,
    WRITE,
    LSTAT,
    FSTAT,
    SETSTAT,
    FSETSTAT,
    OPENDIR,
    READDIR,
    REMOVE,
    MKDIR,
    RMDIR,
    REALPATH,
    STAT,
    RENAME,
    READLINK,
    SYMLINK,
    STATUS = 101,
    HANDLE,
    DATA,
    NAME,
    ATTRS,
    EXTENDED = 200,
    EXTENDED_REPLY,
};

enum status { OK, END_OF_FILE, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, OP_UNSUPPORTED = 8 };

enum { OPEN_READ = 1, OPEN_WRITE = 2, OPEN_APPEND = 4, OPEN_CREATE = 8, OPEN_TRUNCATE = 16, OPEN_EXCLUSIVE = 32 };

static struct handle {
    bool used;
    int fd;
    bool appends;
    DIR *directory;
} handles[MAX_HANDLES];

static struct buffer out;
static uint32_t request_id;

static void begin(uint8_t type) {
    buffer_clear(&out);
    add32(&out, 0); // the length, set at the end
    add8(&out, type);
}

static bool finish(void) {
    if (out.failed)
        return false;
    uint32_t size = (uint32_t)(out.size - 4);
    uint8_t head[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
    memcpy(out.data, head, 4);
    return write_all(STDOUT_FILENO, out.data, out.size);
}

static void answer(uint8_t type) {
    begin(type);
    add32(&out, request_id);
}

static void status(enum status code, const char *message) {
    answer(STATUS);
    add32(&out, code);
    add_string(&out, message, strlen(message));
    add_string(&out, "", 0);
}

static void status_of(int error) {
    enum status code = !error                               ? OK
                       : error == ENOENT || error == ENOTDIR ? NO_SUCH_FILE
                       : error == EACCES || error == EPERM   ? PERMISSION_DENIED
                                                             : FAILURE;
    status(code, error ? strerror(error) : "Success");
}

static void status_after(int returned) { status_of(returned < 0 ? errno : 0); }

static void answer_handle(struct handle *handle) {
    char name[12];
    answer(HANDLE);
    add_string(&out, name, (size_t)snprintf(name, sizeof name, "%d", (int)(handle - handles)));
}

static struct handle *free_handle(void) {
    for (struct handle *handle = handles; handle < handles + MAX_HANDLES; handle++)
        if (!handle->used)
            return handle;
    errno = EMFILE;
    return NULL;
}

static struct handle *take_handle(struct packet *in) {
    uint32_t size;
    const uint8_t *text = take_string(in, &size);
    unsigned number = 0;
    for (uint32_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9' || number >= MAX_HANDLES)
            return NULL;
        number = number * 10 + (unsigned)(text[i] - '0');
    }
    return size && number < MAX_HANDLES && handles[number].used ? &handles[number] : NULL;
}

static void open_file(struct packet *in) {
    char path[PATH_MAX];
    struct attributes attributes;
    take_path(in, path);
    uint32_t wanted = take32(in);
    take_attributes(in, &attributes);
    struct handle *handle = free_handle();
    int flags = wanted & OPEN_WRITE ? wanted & OPEN_READ ? O_RDWR : O_WRONLY : O_RDONLY;
    flags |= (wanted & OPEN_APPEND ? O_APPEND : 0) | (wanted & OPEN_CREATE ? O_CREAT : 0) |
             (wanted & OPEN_TRUNCATE ? O_TRUNC : 0) | (wanted & OPEN_EXCLUSIVE ? O_EXCL : 0);
    mode_t mode = attributes.flags & ATTR_MODE ? attributes.mode & 07777 : 0666;
    int fd = handle && !in->broken ? open(path, flags | O_CLOEXEC | O_NONBLOCK, mode) : -1;
    if (fd < 0) {
        status_of(errno);
        return;
    }
    *handle = (struct handle){.used = true, .fd = fd, .appends = wanted & OPEN_APPEND};
    answer_handle(handle);
}

static void close_handle(struct packet *in) {
    struct handle *handle = take_handle(in);
    if (!handle) {
        status_of(EBADF);
        return;
    }
    int returned = handle->directory ? closedir(handle->directory) : close(handle->fd);
    *handle = (struct handle){0};
    status_after(returned);
}

static void read_file(struct packet *in) {
    static uint8_t data[MAX_READ];
    struct handle *handle = take_handle(in);
    uint64_t offset = take64(in);
    uint32_t size = take32(in);
    if (!handle || handle->directory) {
        status_of(EBADF);
        return;
    }
    ssize_t count = pread(handle->fd, data, size < MAX_READ ? size : MAX_READ, (off_t)offset);
    if (count < 0) {
        status_of(errno);
    } else if (!count) {
        status(END_OF_FILE, "End of file");
    } else {
        answer(DATA);
        add_string(&out, data, (size_t)count);
    }
}

static void write_file(struct packet *in) {
    struct handle *handle = take_handle(in);
    uint64_t offset = take64(in);
    uint32_t size;
    const uint8_t *data = take_string(in, &size);
    if (!handle || handle->directory) {
        status_of(EBADF);
        return;
    }
    while (size) {
        ssize_t count = handle->appends ? write(handle->fd, data, size) : pwrite(handle->fd, data, size, (off_t)offset);
        if (count < 0) {
            status_of(errno);
            return;
        }
        data += count;
        offset += (uint64_t)count;
        size -= (uint32_t)count;
    }
    status_of(0);
}

static void answer_attributes(int returned, const struct stat *found) {
    if (returned < 0) {
        status_of(errno);
        return;
    }
    answer(ATTRS);
    add_attributes(&out, found);
}

static void stat_path(struct packet *in, int flags) {
    char path[PATH_MAX];
    struct stat found;
    take_path(in, path);
    answer_attributes(fstatat(AT_FDCWD, path, &found, flags), &found);
}

static void stat_handle(struct packet *in) {
    struct handle *handle = take_handle(in);
    struct stat found;
    errno = EBADF;
    answer_attributes(handle ? fstat(handle->directory ? dirfd(handle->directory) : handle->fd, &found) : -1, &found);
}

static int change(int fd, const char *path, const struct attributes *attributes) {
    struct timespec times[2] = {{.tv_sec = attributes->atime}, {.tv_sec = attributes->mtime}};
    uint32_t flags = attributes->flags;
    if (flags & ATTR_SIZE && (path ? truncate(path, (off_t)attributes->size) : ftruncate(fd, (off_t)attributes->size)) < 0)
        return -1;
    if (flags & ATTR_OWNER && (path ? chown(path, attributes->uid, attributes->gid)
                                    : fchown(fd, attributes->uid, attributes->gid)) < 0)
        return -1;
    mode_t mode = attributes->mode & 07777;
    if (flags & ATTR_MODE && (path ? chmod(path, mode) : fchmod(fd, mode)) < 0)
        return -1;
    if (flags & ATTR_TIMES && (path ? utimensat(AT_FDCWD, path, times, 0) : futimens(fd, times)) < 0)
        return -1;
    return 0;
}

static void set_path(struct packet *in) {
    char path[PATH_MAX];
    struct attributes attributes;
    take_path(in, path);
    take_attributes(in, &attributes);
    if (!in->broken)
        status_after(change(-1, path, &attributes));
}

static void set_handle(struct packet *in) {
    struct handle *handle = take_handle(in);
    struct attributes attributes;
    take_attributes(in, &attributes);
    errno = EBADF;
    if (!in->broken)
        status_after(handle && !handle->directory ? change(handle->fd, NULL, &attributes) : -1);
}

static void open_directory(struct packet *in) {
    char path[PATH_MAX];
    take_path(in, path);
    struct handle *handle = free_handle();
    DIR *directory = handle ? opendir(path) : NULL;
    if (!directory) {
        status_of(errno);
        return;
    }
    *handle = (struct handle){.used = true, .fd = -1, .directory = directory};
    answer_handle(handle);
}

// As `ls -l` would print it: some clients show or parse it.
static int long_name(char *line, size_t size, const char *name, const struct stat *found) {
    static const char bits[] = "rwxrwxrwx";
    char mode[11], date[32];
    mode[0] = S_ISDIR(found->st_mode) ? 'd' : S_ISLNK(found->st_mode) ? 'l' : S_ISREG(found->st_mode) ? '-' : '?';
    for (int i = 0; i < 9; i++)
        mode[1 + i] = found->st_mode & (mode_t)(0400 >> i) ? bits[i] : '-';
    mode[10] = 0;
    struct tm when;
    time_t seconds = found->st_mtim.tv_sec;
    strftime(date, sizeof date, "%b %e %Y", gmtime_r(&seconds, &when));
    return snprintf(line, size, "%s %4lu %-8lu %-8lu %10llu %s %s", mode, (unsigned long)found->st_nlink,
                    (unsigned long)found->st_uid, (unsigned long)found->st_gid, (unsigned long long)found->st_size, date,
                    name);
}

static void add_name(const char *name, const struct stat *found) {
    char line[NAME_MAX + 200];
    int size = long_name(line, sizeof line, name, found);
    add_string(&out, name, strlen(name));
    add_string(&out, line, size < (int)sizeof line ? (size_t)size : sizeof line - 1);
    add_attributes(&out, found);
}

static void read_directory(struct packet *in) {
    struct handle *handle = take_handle(in);
    if (!handle || !handle->directory) {
        status_of(EBADF);
        return;
    }
    answer(NAME);
    size_t at = out.size;
    uint32_t count = 0;
    add32(&out, 0);
    struct dirent *entry;
    while (count < NAMES_A_REPLY && (errno = 0, entry = readdir(handle->directory))) {
        struct stat found;
        if (fstatat(dirfd(handle->directory), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        add_name(entry->d_name, &found);
        count++;
    }
    if (!count) {
        if (errno)
            status_of(errno);
        else
            status(END_OF_FILE, "End of file");
    } else if (!out.failed) {
        uint8_t bytes[4] = {0, 0, (uint8_t)(count >> 8), (uint8_t)count};
        memcpy(out.data + at, bytes, 4);
    }
}

static void answer_path(const char *path) {
    static const struct stat nothing;
    answer(NAME);
    add32(&out, 1);
    add_string(&out, path, strlen(path));
    add_string(&out, path, strlen(path));
    add_attributes(&out, &nothing);
}

// The last components may not exist yet.
static void real_path(struct packet *in) {
    char path[PATH_MAX], known[PATH_MAX], whole[2 * PATH_MAX];
    take_path(in, path);
    if (!*path)
        strcpy(path, ".");
    if (realpath(path, known)) {
        answer_path(known);
        return;
    }
    char *slash = strrchr(path, '/');
    const char *rest = slash ? slash + 1 : path;
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (errno != ENOENT || !realpath(parent, known)) {
        status_of(errno);
        return;
    }
    snprintf(whole, sizeof whole, "%s/%s", known[1] ? known : "", rest);
    answer_path(whole);
}

static void read_link(struct packet *in) {
    char path[PATH_MAX], target[PATH_MAX];
    take_path(in, path);
    ssize_t size = readlink(path, target, sizeof target - 1);
    if (size < 0) {
        status_of(errno);
        return;
    }
    target[size] = 0;
    answer_path(target);
}

static void rename_new(const char *from, const char *to) {
    struct stat found;
    // Version 3 does not replace; posix-rename does.
    if (lstat(to, &found) == 0)
        status(FAILURE, "The target exists");
    else
        status_after(rename(from, to));
}

static void two_paths(struct packet *in, uint8_t type) {
    char first[PATH_MAX], second[PATH_MAX];
    take_path(in, first);
    take_path(in, second);
    if (in->broken)
        return;
    if (type == RENAME)
        rename_new(first, second);
    else // the draft says link path first, OpenSSH and with it everybody sends the target first
        status_after(symlink(first, second));
}

static void make_directory(struct packet *in) {
    char path[PATH_MAX];
    struct attributes attributes;
    take_path(in, path);
    take_attributes(in, &attributes);
    if (!in->broken)
        status_after(mkdir(path, attributes.flags & ATTR_MODE ? attributes.mode & 07777 : 0777));
}

static void remove_path(struct packet *in, int flags) {
    char path[PATH_MAX];
    take_path(in, path);
    status_after(unlinkat(AT_FDCWD, path, flags));
}

static void file_system(const char *path) {
    struct statvfs found;
    if (statvfs(path, &found) < 0) {
        status_of(errno);
        return;
    }
    answer(EXTENDED_REPLY);
    const uint64_t values[] = {found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree,
                               found.f_bavail, found.f_files, found.f_ffree,  found.f_favail,
                               found.f_fsid,  (found.f_flag & ST_RDONLY ? 1u : 0u) | (found.f_flag & ST_NOSUID ? 2u : 0u),
                               found.f_namemax};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        add64(&out, values[i]);
}

static bool named(const uint8_t *name, uint32_t size, const char *wanted) {
    return size == strlen(wanted) && !memcmp(name, wanted, size);
}

static void extended(struct packet *in) {
    char first[PATH_MAX], second[PATH_MAX];
    uint32_t size;
    const uint8_t *name = take_string(in, &size);
    if (named(name, size, "fsync@openssh.com")) {
        struct handle *handle = take_handle(in);
        errno = EBADF;
        status_after(handle && !handle->directory ? fsync(handle->fd) : -1);
        return;
    }
    take_path(in, first);
    if (named(name, size, "statvfs@openssh.com")) {
        file_system(first);
        return;
    }
    bool renames = named(name, size, "posix-rename@openssh.com");
    if (!renames && !named(name, size, "hardlink@openssh.com")) {
        in->broken = false;
        status(OP_UNSUPPORTED, "No such extension");
        return;
    }
    take_path(in, second);
    if (!in->broken)
        status_after(renames ? rename(first, second) : link(first, second));
}

static void greet(void) {
    static const char *const extensions[][2] = {
        {"posix-rename@openssh.com", "1"},
        {"statvfs@openssh.com", "2"},
        {"hardlink@openssh.com", "1"},
        {"fsync@openssh.com", "1"},
    };
    begin(VERSION);
    add32(&out, 3);
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++)
        for (int part = 0; part < 2; part++)
            add_string(&out, extensions[i][part], strlen(extensions[i][part]));
}

static void serve(uint8_t type, struct packet *in) {
    switch (type) {
    case OPEN:
        return open_file(in);
    case CLOSE:
        return close_handle(in);
    case READ:
        return read_file(in);
    case WRITE:
        return write_file(in);
    case LSTAT:
        return stat_path(in, AT_SYMLINK_NOFOLLOW);
    case STAT:
        return stat_path(in, 0);
    case FSTAT:
        return stat_handle(in);
    case SETSTAT:
        return set_path(in);
    case FSETSTAT:
        return set_handle(in);
    case OPENDIR:
        return open_directory(in);
    case READDIR:
        return read_directory(in);
    case REMOVE:
        return remove_path(in, 0);
    case RMDIR:
        return remove_path(in, AT_REMOVEDIR);
    case MKDIR:
        return make_directory(in);
    case REALPATH:
        return real_path(in);
    case READLINK:
        return read_link(in);
    case RENAME:
    case SYMLINK:
        return two_paths(in, type);
    case EXTENDED:
        return extended(in);
    default:
        status(OP_UNSUPPORTED, "No such request");
    }
}

static bool read_exactly(void *data, size_t size) {
    char *at = data;
    while (size) {
        ssize_t count = read(STDIN_FILENO, at, size);
        if (count <= 0)
            return false;
        at += count;
        size -= (size_t)count;
    }
    return true;
}

int sftp_serve(void) {
    static uint8_t data[MAX_PACKET];
    uint8_t head[4];
    bool greeted = false;
    while (read_exactly(head, sizeof head)) {
        struct packet length = {head, head + 4, false};
        uint32_t size = take32(&length);
        if (size < 5 || size > MAX_PACKET || !read_exactly(data, size))
            return 1;
        struct packet in = {data, data + size, false};
        uint8_t type = take8(&in);
        request_id = take32(&in);
        if (!greeted) {
            if (type != INIT)
                return 1;
            greeted = true;
            greet();
        } else {
            serve(type, &in);
            if (in.broken)
                status(BAD_MESSAGE, "Malformed request");
        }
        if (!finish())
            return 1;
    }
    return 0;
}
