// Opening files of the guest from within the agent, never outside the guest's root.
#ifndef MAGS_CONFINED_H
#define MAGS_CONFINED_H

#include <stdbool.h>
#include <sys/types.h>

// Like open(2), with `path` and every symbolic link taken within the guest's root; in a virtual machine also within its
// own mount, so that no server of a network file system can keep us waiting. -1 and errno.
int confined_open(const char *path, int flags);
// Replaces a file, or a link itself, by a new one, which is there as a whole or not at all. 0 or errno.
int confined_replace(const char *path, mode_t mode, const char *text);
// Writes over a file of root's own with that mode; false, if there is none (or the disk is full), and then replacing it
// may do. Much cheaper than to replace it: for the first write of a clone, which finds nothing in its translator's cache.
bool confined_rewrite(const char *path, mode_t mode, const char *text);
// Sees to it that a file is there, and on the work disk, so that it can be rewritten.
void confined_touch(const char *path, mode_t mode);
bool confined_holds(const char *path, const char *text); // whether it is a file of just this text

#endif
