// Sessions of processes: each EXEC is the leader of its own.
#ifndef MAGS_SESSIONS_H
#define MAGS_SESSIONS_H

#include <sys/types.h>

// Kills every process of the session, in whatever process group, also those that are being forked right now.
void session_kill(pid_t leader);
// The leader of the session (but the agent's) whose processes hold the most memory; 0: there is none.
pid_t session_largest(void);

#endif
