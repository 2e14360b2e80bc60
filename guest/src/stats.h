// How the guest is: twelve u64, see docs/protocol.md.
#ifndef MAGS_STATS_H
#define MAGS_STATS_H

#include <stdint.h>

enum { STATS_SIZE = 12 * 8 };

void stats(uint8_t answer[STATS_SIZE]);

#endif
