// /jfs of the guest: an NFSv3 mount of the workspace's shared directory.
#ifndef MAGS_JFS_H
#define MAGS_JFS_H

#include <stddef.h>
#include <stdint.h>

#include "helper.h"

// `value`: 4 bytes of address, u16 port, u8 length and handle of the root (none: the server is asked for it), path.
// NULL: unmount. Done in a helper, since a server may not answer.
// 0 or errno if it could not be started.
int jfs_start(const uint8_t *value, size_t size, helper_done *done);

#endif
