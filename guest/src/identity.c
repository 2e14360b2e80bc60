#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "confined.h"
#include "spawn.h"

enum { MAX_DATABASE = 1024 * 1024 };

// The whole of a small regular file of the guest, NUL-terminated; NULL if there is none. The guest may have put
// anything there: a FIFO, a link out of the root, a huge file.
static char *read_database(const char *path) {
    int fd = confined_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat status;
    if (fd < 0)
        return NULL;
    char *text = NULL;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= MAX_DATABASE &&
        (text = malloc((size_t)status.st_size + 1))) {
        ssize_t size = read(fd, text, (size_t)status.st_size);
        text[size > 0 ? size : 0] = 0;
    }
    close(fd);
    return text;
}

// Cuts a line at its colons; how many fields there were.
static int split(char *line, char *parts[], int count) {
    int found = 0;
    while (found < count) {
        parts[found++] = line;
        line = strchr(line, ':');
        if (!line)
            break;
        *line++ = 0;
    }
    return found;
}

static bool number(const char *text, unsigned *value) {
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long parsed = strtoul(text, &end, 10);
    *value = (unsigned)parsed;
    return !errno && !*end && parsed < 0xFFFFFFFFul;
}

static void copy(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from); }

static bool find_user(struct identity *identity, const char *name, bool by_number, unsigned uid) {
    char *text = read_database("/etc/passwd"), *rest = text, *line;
    bool found = false;
    while (text && !found && (line = strsep(&rest, "\n"))) {
        char *parts[7];
        unsigned user, group;
        if (split(line, parts, 7) < 6 || !number(parts[2], &user) || !number(parts[3], &group))
            continue;
        if (by_number ? user != uid : strcmp(parts[0], name) != 0)
            continue;
        identity->uid = user;
        identity->gid = group;
        copy(identity->name, sizeof identity->name, parts[0]);
        copy(identity->home, sizeof identity->home, parts[5]);
        found = true;
    }
    free(text);
    return found;
}

static void find_groups(struct identity *identity) {
    char *text = read_database("/etc/group"), *rest = text, *line;
    identity->groups[identity->group_count++] = identity->gid;
    while (text && (line = strsep(&rest, "\n")) && identity->group_count < MAX_GROUPS) {
        char *parts[4], *member;
        unsigned gid;
        if (split(line, parts, 4) < 4 || !number(parts[2], &gid))
            continue;
        while ((member = strsep(&parts[3], ",")))
            if (!strcmp(member, identity->name)) {
                identity->groups[identity->group_count++] = gid;
                break;
            }
    }
    free(text);
}

int identity_find(struct identity *identity, const char *user, char failure[FAILURE_TEXT]) {
    *identity = (struct identity){.name = "root", .home = "/root"};
    if (!user || !*user || !strcmp(user, "root")) {
        identity->groups[identity->group_count++] = 0;
        return 0;
    }
    char text[128];
    snprintf(failure, FAILURE_TEXT, "no such user: %.100s", user); // unless it is found
    if (strlen(user) >= sizeof text)
        return EINVAL;
    copy(text, sizeof text, user);
    char *group = strchr(text, ':');
    if (group)
        *group++ = 0;
    unsigned uid, gid;
    bool by_number = number(text, &uid);
    bool found = find_user(identity, text, by_number, by_number ? uid : 0);
    if (!found) {
        if (!by_number)
            return EINVAL;
        identity->uid = identity->gid = uid;
        copy(identity->name, sizeof identity->name, text);
        copy(identity->home, sizeof identity->home, "/");
    }
    if (group) {
        if (!number(group, &gid)) {
            snprintf(failure, FAILURE_TEXT, "a group is given by its number, not as: %.100s", group);
            return EINVAL;
        }
        identity->gid = gid;
        identity->groups[identity->group_count++] = gid;
    } else {
        find_groups(identity);
    }
    *failure = 0;
    return 0;
}
