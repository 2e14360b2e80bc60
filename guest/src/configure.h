// CONFIGURE: put the guest right after a boot, a clone or a wake.
#ifndef MAGS_CONFIGURE_H
#define MAGS_CONFIGURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool configure(uint32_t id, const uint8_t *message, size_t size); // false: malformed
// A part that may hang runs in a child; until it is done nothing further is read from the host.
bool configure_pending(void);

#endif
