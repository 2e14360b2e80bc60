// A file as the host sees it: u32 mode, uid, gid; u64 size; i64 mtime in ns; u16 lengths of name and target; both.
#ifndef MAGS_ENTRY_H
#define MAGS_ENTRY_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum { ENTRY_MAX = 32 + NAME_MAX + PATH_MAX };

// The size of the entry. `target` may be NULL.
size_t entry_encode(uint8_t buffer[ENTRY_MAX], const struct stat *status, const char *name, const char *target);

#endif
