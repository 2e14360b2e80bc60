// The root of the guest's processes: an overlay of the image (read-only) and the work disk.
#ifndef MAGS_ROOT_H
#define MAGS_ROOT_H

#include <stdbool.h>
#include <stdint.h>

#define IMAGE_MOUNT "/image"
#define WORK_MOUNT "/disk"
#define ROOT_MOUNT "/root"

void root_prepare(void); // at boot, so that no clone need do it: finds the disks, and mounts the image
// 0 or errno; `*what` says what failed. Mounting it again is nothing. `bytes`: what the work disk must have before, as
// its driver hears of a new size a moment later than we do; 0: as it is.
int root_mount(uint64_t bytes, const char **what);
int root_grow(uint64_t bytes, const char **what); // let the work disk's file system fill its device
void root_write(const char *path, unsigned mode, const char *text); // a small file in /etc, if that is possible
int root_sync(void); // write all of the work disk's dirty data; 0 or errno
bool root_mentions(const char *path, const char *word); // whether the file's first 64 KiB hold it
void root_unmount(void); // as far as it goes, before power-off

#endif
