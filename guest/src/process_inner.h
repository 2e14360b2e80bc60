// Shared by the files that make up process.h.
#ifndef MAGS_PROCESS_INNER_H
#define MAGS_PROCESS_INNER_H

#include "process.h"

// process.c: the slots and a process's way to its end
extern struct process process_slots[MAX_PROCESSES];
extern struct process *process_live[MAX_PROCESSES]; // the used slots, in no order
extern size_t process_live_count;
extern uint32_t process_last_id;

struct process *process_find(uint32_t id); // NULL: there is none (any more)
// Frames may cross: one for a process that just ended or was released is no error, one for a process that never was is.
bool process_known(uint32_t id);
struct process *process_of(const struct watch *watch); // one of its streams
void process_settle(struct process *process);          // its main process has ended: is its output complete?
void process_forget(struct process *process);
void close_if_open(int *fd);

// streams.c: what it writes and reads
enum got { GOT_SOME, GOT_NOTHING, GOT_END, GOT_FULL };

void streams_init(struct process *process, uint32_t window);
enum got stream_read(struct process *process, struct stream *stream);
void stream_watch(struct stream *stream);
void stream_resume_paced(struct stream *stream, int64_t now, int64_t *next);
void stream_freed(size_t count); // so much output was acknowledged
void stream_drain(struct watch *watch); // from now on what comes is dropped; takes the file over
void stream_release_ring(struct ring *ring);
void input_write(struct process *process); // as far as the process takes it
void input_grant(struct process *process);
void input_close(struct process *process);

// process_report.c: what the host is told
void process_add_exit(struct buffer *out, struct process *process);

#endif
