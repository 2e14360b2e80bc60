// Short requests about the guest as a whole: ping, stats, freeze, thaw, flush, poweroff.
#ifndef MAGS_REQUESTS_H
#define MAGS_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fields.h"

bool request(uint8_t type, uint32_t id, const uint8_t *payload, size_t size); // false: malformed
void requests_hello(struct buffer *hello);
int64_t requests_timers(int64_t now); // the watchdog that thaws; when to come again, or INT64_MAX
bool requests_frozen(void);

#endif
