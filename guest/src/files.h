// Builtins on files. All run in a child that is confined to the guest's root; the result is an exit status.
#ifndef MAGS_FILES_H
#define MAGS_FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

int file_read(const char *path, int64_t offset, int64_t limit); // limit -1: to the end
int file_write(const char *path, const char *mode, const char *flags); // flags: p parents, f fsync
int file_list(const char *path);
int file_stat(const char *path);
int file_remove(const char *path, bool recursive);
int file_mkdir(const char *path, mode_t mode, bool parents);
int file_rename(const char *from, const char *to);

// Shared by them.
bool write_all(int fd, const void *data, size_t size);
int make_parents(const char *path, mode_t mode); // of the path's last component; 0 or errno
int failed(const char *path);                    // a result for errno

#endif
