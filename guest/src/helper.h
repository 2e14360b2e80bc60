// A forked child for what may hang: it answers with an errno and a sentence, or is killed at its deadline.
#ifndef MAGS_HELPER_H
#define MAGS_HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct answer {
    int error; // 0: good
    char message[200];
};

typedef void helper_work(const void *argument, struct answer *answer); // in the child
// In the agent, later. `is_stale`: the host that asked is gone, and its request id may be another's by now.
typedef void helper_done(uint32_t id, bool is_stale, const struct answer *answer);

// `id` is handed to `done`. False if none could be started: errno.
bool helper_start(helper_work *work, const void *argument, helper_done *done, uint32_t id, int timeout_ms);
int64_t helpers_timers(int64_t now);

#endif
