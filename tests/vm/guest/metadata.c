// Everything that a file can be and carry: `metadata make DIRECTORY` makes it, `metadata look DIRECTORY` tells of it.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

static void check(long result, const char *what) {
    if (result >= 0)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int file(const char *name, mode_t mode, const char *text) {
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    check(fd, name);
    check(write(fd, text, strlen(text)), name);
    check(fchmod(fd, mode), name);
    return fd;
}

static void attribute(const char *name, const char *key, const void *value, size_t size) {
    check(lsetxattr(name, key, value, size, 0), key);
}

static void make(void) {
    // Version 2 of the capability attribute: effective, CAP_NET_BIND_SERVICE and CAP_NET_RAW permitted.
    static const uint32_t capability[] = {0x02000001, 1u << 10 | 1u << 13, 0, 0, 0};
    // Version 2 of an access list: owner rw, user 1234 r, group r, mask r, others nothing.
    static const uint32_t list[] = {2, 6 << 16 | 1, ~0u, 4 << 16 | 2, 1234, 4 << 16 | 4, ~0u, 4 << 16 | 0x10, ~0u, 0x20, ~0u};
    static const char long_value[3000] = {[0 ... 2999] = 'x'};
    close(file("setuid", 06755, "s"));
    close(file("owned", 0640, "o"));
    check(chown("owned", 1234, 5678), "chown");
    close(file("attributes", 0644, "a"));
    attribute("attributes", "user.colour", "blue", 4);
    attribute("attributes", "user.long", long_value, sizeof long_value);
    attribute("attributes", "trusted.secret", "t", 1);
    attribute("attributes", "security.capability", capability, sizeof capability);
    close(file("listed", 0640, "l"));
    attribute("listed", "system.posix_acl_access", list, sizeof list);
    check(mkdir("directory", 0700), "mkdir");
    attribute("directory", "user.of.directory", "", 0);
    check(chmod("directory", 03777), "chmod");
    check(link("attributes", "directory/hard"), "link");
    check(symlink("../owned", "directory/soft"), "symlink");
    check(lchown("directory/soft", 77, 78), "lchown");
    check(symlink("/nowhere", "dangling"), "symlink");
    check(mknod("pipe", S_IFIFO | 0620, 0), "fifo");
    check(mknod("character", S_IFCHR | 0660, makedev(1, 7)), "character device");
    check(mknod("block", S_IFBLK | 0600, makedev(7, 300)), "block device");
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    int sparse = file("sparse", 0600, "begin");
    check(pwrite(sparse, "middle", 6, 40 << 20), "pwrite");
    check(ftruncate(sparse, 100 << 20), "ftruncate");
    close(file("\n\xff \xc3\xa9 odd", 0600, ""));
    // In the image, and only changed here: its owner, its name, its place.
    check(chown("/etc/profile", 11, 12), "/etc/profile");
    check(rename("/etc/shells", "moved"), "/etc/shells");
    check(unlink("/etc/motd"), "/etc/motd");
    static const struct timespec times[] = {{1000000000, 123456789}, {-5, 987654321}};
    check(utimensat(AT_FDCWD, "owned", times, 0), "times");
    check(utimensat(AT_FDCWD, "directory", times, 0), "times");
}

static void tell_attributes(const char *name) {
    char keys[4096], value[4096];
    ssize_t size = llistxattr(name, keys, sizeof keys);
    check(size, name);
    for (const char *key = keys; key < keys + size; key += strlen(key) + 1) {
        ssize_t length = lgetxattr(name, key, value, sizeof value);
        check(length, key);
        unsigned sum = 0;
        for (ssize_t i = 0; i < length; i++)
            sum = sum * 31 + (unsigned char)value[i];
        printf("%s %s %zd bytes %08x\n", name, key, length, sum);
    }
}

static void look(void) {
    static const char *const names[] = {
        "setuid", "owned", "attributes", "listed", "directory", "directory/hard", "directory/soft", "dangling",
        "pipe", "character", "block", "socket", "sparse", "\n\xff \xc3\xa9 odd", "/etc/profile", "moved",
        "/etc/shells", "/etc/motd",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat found;
        char target[100] = "";
        if (lstat(names[i], &found) < 0) {
            printf("%s: %s\n", names[i], strerror(errno));
            continue;
        }
        if (S_ISLNK(found.st_mode))
            check(readlink(names[i], target, sizeof target - 1), names[i]);
        printf("%s mode %o owner %u:%u links %lu device %u:%u time %lld.%09ld %s", names[i], found.st_mode, found.st_uid,
               found.st_gid, (unsigned long)found.st_nlink, major(found.st_rdev), minor(found.st_rdev),
               (long long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec, target);
        if (S_ISREG(found.st_mode))
            printf(" size %lld blocks %lld", (long long)found.st_size, (long long)found.st_blocks);
        printf("\n");
        tell_attributes(names[i]);
    }
    int sparse = open("sparse", O_RDONLY);
    off_t hole = lseek(sparse, 0, SEEK_HOLE), data = lseek(sparse, hole, SEEK_DATA);
    printf("a hole from %lld to %lld\n", (long long)hole, (long long)data);
    struct stat one, other;
    printf("hard: %d\n", stat("attributes", &one) == 0 && stat("directory/hard", &other) == 0 && one.st_ino == other.st_ino);
}

int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    check(chdir(arguments[2]), arguments[2]);
    if (!strcmp(arguments[1], "make"))
        make();
    else
        look();
    return 0;
}
