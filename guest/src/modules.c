#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "console.h"

enum { MAX_LIST = 8192 };

// The kernel would find out too, after it has read the whole file.
static bool is_loaded(const char *name) {
    char path[300];
    int length = snprintf(path, sizeof path, "/sys/module/%.*s", (int)strcspn(name, "."), name);
    for (char *letter = path + sizeof "/sys/module"; length > 0 && *letter; letter++)
        if (*letter == '-')
            *letter = '_';
    return access(path, F_OK) == 0;
}

static int load(const char *name) {
    char path[300];
    if (is_loaded(name))
        return 0;
    snprintf(path, sizeof path, "/mods/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST) ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (error)
        say("mags-agent: module %s: %s", name, strerror(error));
    return error;
}

int modules_load(const char *list) {
    char text[MAX_LIST], *rest = text, *name;
    int fd = open(list, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : errno;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size < 0)
        return errno;
    text[size] = 0;
    int error = 0;
    while ((name = strsep(&rest, "\n")))
        if (*name && !error)
            error = load(name);
    return error;
}
