#include "process_inner.h"

#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "script.h"
#include "sessions.h"
#include "world.h"

enum { GRACE_MS = 100 }; // for output of descendants after the main process has ended

struct process process_slots[MAX_PROCESSES];
struct process *process_live[MAX_PROCESSES];
size_t process_live_count;
uint32_t process_last_id;

void processes_init(void) {
    for (size_t i = 0; i < MAX_PROCESSES; i++) {
        process_slots[i].in.fd = process_slots[i].terminal = -1;
        for (size_t s = 0; s < STREAMS; s++)
            process_slots[i].out[s].watch.fd = -1;
    }
}

struct process *process_find(uint32_t id) {
    for (size_t i = 0; i < process_live_count; i++)
        if (process_live[i]->id == id)
            return process_live[i];
    return NULL;
}

bool process_known(uint32_t id) { return id && id <= process_last_id; }

struct process *process_of(const struct watch *watch) {
    return &process_slots[((const char *)watch - (const char *)process_slots) / (ptrdiff_t)sizeof *process_slots];
}

void close_if_open(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void process_forget(struct process *process) {
    for (size_t s = 0; s < STREAMS; s++) {
        loop_close(&process->out[s].watch);
        stream_release_ring(&process->out[s].ring);
    }
    input_close(process);
    close_if_open(&process->terminal);
    for (size_t i = 0; i < process_live_count; i++)
        if (process_live[i] == process) {
            process_live[i] = process_live[--process_live_count];
            break;
        }
    process->id = 0;
}

// The main process has ended: is its output complete?
void process_settle(struct process *process) {
    if (process->finished)
        return;
    bool open = false, full = false;
    for (size_t s = 0; s < STREAMS; s++) {
        struct stream *stream = &process->out[s];
        if (stream->watch.fd < 0)
            continue;
        enum got got;
        do
            got = stream_read(process, stream);
        while (got == GOT_SOME);
        if (got == GOT_END)
            loop_close(&stream->watch);
        else
            open = true;
        if (got == GOT_FULL) {
            full = true;
            loop_watch(&stream->watch, 0);
        }
    }
    if (process->terminal >= 0) {
        // What was written before the end is with the master now: let it report its own end.
        close_if_open(&process->terminal);
        process_settle(process);
        return;
    }
    if (open && !process->grace)
        process->grace = process->ended + GRACE_MS;
    if (full || (open && process->grace >= 0))
        return;
    for (size_t s = 0; s < STREAMS; s++) {
        struct watch *watch = &process->out[s].watch;
        if (watch->fd >= 0 && !process->is_terminal)
            stream_drain(watch);
        loop_close(watch); // a terminal hangs up what is left on it
    }
    input_close(process);
    process->finished = true;
    if (process->released)
        process_forget(process);
}

static void end_grace(struct process *process) {
    process->grace = -1;
    for (size_t s = 0; s < STREAMS; s++) {
        struct stream *stream = &process->out[s];
        int waiting = 0;
        if (stream->watch.fd >= 0 && ioctl(stream->watch.fd, FIONREAD, &waiting) < 0)
            waiting = 0;
        stream->final = stream->ring.written + (uint64_t)waiting;
    }
    process_settle(process);
}

// Was it killed by the kernel for want of memory, itself or what its shell ran last?
static void explain(struct process *process) {
    int status = process->status;
    bool is_killed = WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 128 + SIGKILL;
    if (is_killed && !*process->failure && !process->timed_out && !process->host_killed && !process->released &&
        world_killed() > process->killed_before)
        snprintf(process->failure, sizeof process->failure, "the VM ran out of memory");
}

void processes_reap(void) {
    int status;
    struct rusage usage;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        for (size_t i = 0; i < process_live_count; i++) {
            struct process *process = process_live[i];
            if (process->pid != pid || process->reaped)
                continue;
            process->reaped = true;
            process->status = status;
            process->usage = usage;
            process->ended = now_ms();
            process->deadline = 0;
            explain(process);
            if (process->has_script_file)
                script_remove(process->id);
            process_settle(process);
            break;
        }
    }
}

int64_t processes_timers(int64_t now) {
    int64_t next = INT64_MAX;
    for (size_t i = process_live_count; i-- > 0;) {
        struct process *process = process_live[i];
        for (size_t s = 0; s < STREAMS; s++)
            stream_resume_paced(&process->out[s], now, &next);
        if (process->deadline && process->deadline <= now) {
            process->deadline = 0;
            process->timed_out = true;
            session_kill(process->pid);
        }
        int64_t due = process->deadline;
        if (process->reaped && process->grace > 0 && !process->finished) {
            if (process->grace <= now) {
                end_grace(process);
                continue;
            }
            due = process->grace;
        }
        if (due && due < next)
            next = due;
    }
    return next;
}

size_t processes_running(void) {
    size_t count = 0;
    for (size_t i = 0; i < process_live_count; i++)
        count += !process_live[i]->reaped && !process_live[i]->released;
    return count;
}

void processes_kill_all(void) {
    for (size_t i = 0; i < process_live_count; i++)
        if (!process_live[i]->reaped)
            session_kill(process_live[i]->pid);
}

bool processes_kill_largest(void) {
    pid_t leader = session_largest();
    for (size_t i = 0; i < process_live_count; i++)
        if (process_live[i]->pid == leader && !process_live[i]->reaped)
            snprintf(process_live[i]->failure, sizeof process_live[i]->failure,
                     "the VM ran out of memory again and again, most of it held by this command");
    session_kill(leader);
    return leader > 1;
}

void processes_detach(void) {
    for (size_t i = 0; i < process_live_count; i++) {
        process_live[i]->attached = false;
        process_live[i]->exit_sent = false;
    }
}
