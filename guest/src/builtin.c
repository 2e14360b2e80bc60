#include "builtin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "connect.h"
#include "files.h"
#include "sftp.h"

enum { MAX_TEXT = 512, MAX_DATA = 8192 };

int result(int error, const char *message, const void *data, size_t size) {
    uint8_t record[8 + MAX_TEXT + MAX_DATA];
    size_t length = strnlen(message, MAX_TEXT);
    put16(record, (uint16_t)error);
    put16(record + 2, (uint16_t)length);
    put32(record + 4, (uint32_t)size);
    memcpy(record + 8, message, length);
    if (size)
        memcpy(record + 8 + length, data, size);
    return !write_all(3, record, 8 + length + size) || error != 0;
}

int builtin_run(uint8_t builtin, char *const *arguments, size_t count) {
    static const size_t needed[] = {
        [BUILTIN_FILE_READ] = 3,   [BUILTIN_FILE_WRITE] = 3, [BUILTIN_FILE_LIST] = 1, [BUILTIN_FILE_STAT] = 1,
        [BUILTIN_FILE_REMOVE] = 2, [BUILTIN_FILE_MKDIR] = 3, [BUILTIN_FILE_RENAME] = 2,
        [BUILTIN_SFTP] = 0,        [BUILTIN_CONNECT] = 3,
    };
    char *const *a = arguments;
    if (count != needed[builtin])
        return result(EINVAL, "wrong number of arguments", NULL, 0);
    umask(022);
    switch (builtin) {
    case BUILTIN_FILE_READ:
        return file_read(a[0], strtoll(a[1], NULL, 10), strtoll(a[2], NULL, 10));
    case BUILTIN_FILE_WRITE:
        return file_write(a[0], a[1], a[2]);
    case BUILTIN_FILE_LIST:
        return file_list(a[0]);
    case BUILTIN_FILE_STAT:
        return file_stat(a[0]);
    case BUILTIN_FILE_REMOVE:
        return file_remove(a[0], *a[1]);
    case BUILTIN_FILE_MKDIR:
        return file_mkdir(a[0], (mode_t)strtoul(a[1], NULL, 8) & 07777, *a[2]);
    case BUILTIN_FILE_RENAME:
        return file_rename(a[0], a[1]);
    case BUILTIN_SFTP:
        return sftp_serve();
    case BUILTIN_CONNECT:
        return connect_and_splice(a[0], a[1], strtol(a[2], NULL, 10));
    default:
        return result(EINVAL, "no such builtin", NULL, 0);
    }
}
