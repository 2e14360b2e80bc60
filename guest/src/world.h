// The control group of everything that the host starts: together it may not take the memory and the process ids that
// the agent needs to answer.
#ifndef MAGS_WORLD_H
#define MAGS_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

void world_make(void);  // at boot; a kernel without control groups has none, and the rest works without
void world_watch(void); // once the loop runs
// A child inside that runs `child` and ends with what it answers, and shares the caller's memory until it executes
// something; the caller waits for that. The pid, or -1 and errno.
pid_t world_start(int (*child)(void *), void *context);
void world_enter(void); // in a child that was forked: from now on it is inside
// How many of its processes the kernel has killed since boot for want of memory.
uint64_t world_killed(void);
uint64_t world_killed_so_far(void); // as last known, without asking the kernel

#endif
