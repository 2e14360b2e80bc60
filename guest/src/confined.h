// Opening files of the guest from within the agent, never outside the guest's root.
#ifndef MAGS_CONFINED_H
#define MAGS_CONFINED_H

#include <sys/types.h>

// Like open(2), with `path` and every symbolic link taken within the guest's root; in a virtual machine also within its
// own mount, so that no server of a network file system can keep us waiting. -1 and errno.
int confined_open(const char *path, int flags);
int confined_create(const char *path, mode_t mode); // replaces whatever is there by a new file, not through a link

#endif
