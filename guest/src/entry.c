#include "entry.h"

#include <string.h>

#include "bytes.h"

size_t entry_encode(uint8_t buffer[ENTRY_MAX], const struct stat *status, const char *name, const char *target) {
    size_t name_size = strnlen(name, NAME_MAX), target_size = target ? strnlen(target, PATH_MAX) : 0;
    put32(buffer, status->st_mode);
    put32(buffer + 4, status->st_uid);
    put32(buffer + 8, status->st_gid);
    put64(buffer + 12, (uint64_t)status->st_size);
    put64(buffer + 20, (uint64_t)((int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec));
    put16(buffer + 28, (uint16_t)name_size);
    put16(buffer + 30, (uint16_t)target_size);
    memcpy(buffer + 32, name, name_size);
    if (target_size)
        memcpy(buffer + 32 + name_size, target, target_size);
    return 32 + name_size + target_size;
}
