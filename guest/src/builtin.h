// What the agent itself does as a process of the guest: in a forked child, confined to the root, as the wished user.
// stdin, stdout and stderr are the host's streams; fd 3 takes result records.
#ifndef MAGS_BUILTIN_H
#define MAGS_BUILTIN_H

#include <stddef.h>
#include <stdint.h>

enum builtin {
    BUILTIN_WARM = 1,
    BUILTIN_FILE_READ,
    BUILTIN_FILE_WRITE,
    BUILTIN_FILE_LIST,
    BUILTIN_FILE_STAT,
    BUILTIN_FILE_REMOVE,
    BUILTIN_FILE_MKDIR,
    BUILTIN_FILE_RENAME,
    BUILTIN_SFTP,
    BUILTIN_CONNECT,
    BUILTIN_FIRST = BUILTIN_WARM,
    BUILTIN_LAST = BUILTIN_CONNECT,
};

int builtin_run(uint8_t builtin, char *const *arguments, size_t count); // the exit status

// Writes a result record; `data` may be NULL. Always answers error != 0, for use as an exit status.
int result(int error, const char *message, const void *data, size_t size);

#endif
