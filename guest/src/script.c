#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

// The kernel takes arguments of up to 128 KiB (MAX_ARG_STRLEN), the NUL included.
enum { MAX_ARGUMENT = 128 * 1024 - 1 };

size_t script_unix_lines(char *text, size_t size) {
    const char *line_end = memchr(text, '\n', size);
    if (!line_end || line_end == text || line_end[-1] != '\r')
        return size;
    size_t kept = 0;
    for (size_t i = 0; i < size; i++)
        if (text[i] != '\r' || i + 1 == size || text[i + 1] != '\n')
            text[kept++] = text[i];
    return kept;
}

bool script_needs_file(const char *text, size_t size) {
    return size > MAX_ARGUMENT || (size >= 2 && text[0] == '#' && text[1] == '!') || memchr(text, 0, size);
}

static void name(char *buffer, size_t size, uint32_t id) { snprintf(buffer, size, "script-%lu", (unsigned long)id); }

int script_write(uint32_t id, const char *text, size_t size, char path[SCRIPT_PATH]) {
    char file[32];
    name(file, sizeof file, id);
    if (agent.run < 0)
        return ENOENT;
    int fd = openat(agent.run, file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    if (fd < 0)
        return errno;
    int error = 0;
    while (size && !error) {
        ssize_t count = write(fd, text, size);
        if (count < 0)
            error = errno;
        else {
            text += count;
            size -= (size_t)count;
        }
    }
    close(fd);
    if (error)
        unlinkat(agent.run, file, 0);
    snprintf(path, SCRIPT_PATH, "%s/%s", agent.run_path, file);
    return error;
}

void script_remove(uint32_t id) {
    char file[32];
    name(file, sizeof file, id);
    unlinkat(agent.run, file, 0);
}
