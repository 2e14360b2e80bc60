// The processes that the host has started: their streams, their end, what is kept until the host has it.
#ifndef MAGS_PROCESS_H
#define MAGS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "fields.h"
#include "loop.h"
#include "ring.h"
#include "spawn.h"

enum { MAX_PROCESSES = 128, STREAMS = 3, STDIN_WINDOW = 65536, MAX_WINDOW = 4 * 1024 * 1024 };

struct stream {
    struct watch watch;
    struct ring ring;
    uint64_t final;    // once the grace is over: read up to here and no further
    int64_t last_read; // ms
    int64_t resume;    // ms; until then more output is left to gather in the pipe; 0: it is not
    bool was_paced;
};

struct process {
    uint32_t id; // 0: the slot is free
    pid_t pid;
    struct stream out[STREAMS]; // stdout (or the terminal), stderr, result
    struct watch in;
    struct ring input;      // `acknowledged` and `sent` are what the process was given
    uint64_t credit;        // stdin granted to the host
    bool input_ended;       // no more will come
    bool input_refused;     // nobody reads it: drop it
    int terminal;           // our own open end of its terminal, so that it is never hung up early; or -1
    bool is_terminal;
    bool has_script_file;
    bool attached;          // this session's host wants its output
    bool reaped;            // the main process has ended
    bool finished;          // and its output is complete
    bool exit_sent;
    bool released;          // the host has forgotten it; it only remains to be reaped
    bool timed_out;
    int error;              // it never started: errno
    char failure[FAILURE_TEXT]; // and why; or why it was killed, if that was not its own affair
    bool host_killed;       // by a signal of the host's
    uint64_t killed_before; // what world_killed() said at its start
    int status;             // of wait4
    int64_t started, ended; // ms
    int64_t deadline;       // of its time-out; 0: none
    int64_t grace;          // until then descendants may add output; 0: not yet ending
    struct rusage usage;
    size_t turn; // the stream whose turn it is
};

void processes_init(void);
void processes_reap(void);     // after SIGCHLD
void processes_detach(void);   // a new session begins
void processes_hello(struct buffer *hello);
int64_t processes_timers(int64_t now); // does what is due; when to come again, or INT64_MAX
// Appends the next frame of output or exit to `out` (at most `limit` bytes of payload); false if there is none.
bool processes_next_frame(struct buffer *out, size_t limit);
size_t processes_running(void);
void processes_kill_all(void);
bool processes_kill_largest(void); // the session with the most memory; false: there is none

// Frames of the host. False: it broke the protocol.
bool process_exec(uint32_t id, const uint8_t *message, size_t size);
bool process_stdin(uint32_t id, const uint8_t *payload, size_t size, bool end);
bool process_acknowledge(uint32_t id, const uint8_t *payload, size_t size);
bool process_attach(uint32_t id, const uint8_t *payload, size_t size);
bool process_resize(uint32_t id, const uint8_t *payload, size_t size);
bool process_signal(uint32_t id, const uint8_t *payload, size_t size);
void process_release(uint32_t id);

#endif
