// Frames of the host about its processes.
#include "process_inner.h"

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "bytes.h"
#include "sessions.h"

bool process_stdin(uint32_t id, const uint8_t *payload, size_t size, bool end) {
    if (size < 8 || !process_known(id))
        return false;
    struct process *process = process_find(id);
    if (!process || process->finished || process->released)
        return true;
    uint64_t offset = get64(payload);
    if (offset != process->input.written || offset + (size - 8) > process->credit)
        return false;
    if (process->input_ended)
        return size == 8; // closing twice is nothing
    payload += 8;
    for (size -= 8; size;) {
        size_t room;
        uint8_t *space = ring_room(&process->input, &room);
        if (!space)
            return false; // the credit forbids it, unless we are out of memory
        size_t count = size < room ? size : room;
        memcpy(space, payload, count);
        ring_wrote(&process->input, count);
        payload += count;
        size -= count;
    }
    process->input_ended = end;
    input_write(process);
    return true;
}

bool process_acknowledge(uint32_t id, const uint8_t *payload, size_t size) {
    if (size != 9 || payload[0] < 1 || payload[0] > STREAMS || !process_known(id))
        return false;
    struct process *process = process_find(id);
    if (!process || process->released)
        return true;
    struct stream *stream = &process->out[payload[0] - 1];
    size_t before = ring_used(&stream->ring);
    if (!process->attached || !ring_acknowledge(&stream->ring, get64(payload + 1)))
        return false;
    stream_freed(before - ring_used(&stream->ring));
    if (!process->finished) {
        stream_watch(stream);
        if (process->reaped)
            process_settle(process);
    }
    return true;
}

bool process_attach(uint32_t id, const uint8_t *payload, size_t size) {
    struct process *process = process_find(id);
    if (size != 8 * STREAMS || !process || process->attached || process->released)
        return false;
    for (size_t s = 0; s < STREAMS; s++) {
        struct stream *stream = &process->out[s];
        size_t before = ring_used(&stream->ring);
        if (!ring_rewind(&stream->ring, get64(payload + 8 * s)))
            return false;
        stream_freed(before - ring_used(&stream->ring));
        if (!process->finished)
            stream_watch(stream);
    }
    process->attached = true;
    process->exit_sent = false;
    if (process->reaped)
        process_settle(process);
    input_grant(process);
    return true;
}

bool process_resize(uint32_t id, const uint8_t *payload, size_t size) {
    struct process *process = process_find(id);
    if (size != 4 || !process_known(id))
        return false;
    if (process && process->is_terminal && process->out[0].watch.fd >= 0) {
        struct winsize size_now = {.ws_row = get16(payload), .ws_col = get16(payload + 2)};
        ioctl(process->out[0].watch.fd, TIOCSWINSZ, &size_now);
    }
    return true;
}

bool process_signal(uint32_t id, const uint8_t *payload, size_t size) {
    struct process *process = process_find(id);
    if (size != 1 || payload[0] < 1 || payload[0] > 64 || !process_known(id))
        return false;
    if (!process || process->reaped)
        return true;
    pid_t group = process->pid;
    if (process->is_terminal && ioctl(process->out[0].watch.fd, TIOCGPGRP, &group) < 0)
        group = process->pid;
    if (group > 1)
        kill(-group, payload[0]);
    process->host_killed |= payload[0] == SIGKILL;
    return true;
}

void process_release(uint32_t id) {
    struct process *process = process_find(id);
    if (!process || process->released)
        return;
    process->released = true;
    if (process->finished) {
        process_forget(process);
        return;
    }
    if (!process->reaped)
        session_kill(process->pid);
    for (size_t s = 0; s < STREAMS; s++)
        loop_close(&process->out[s].watch);
    close_if_open(&process->terminal);
    if (process->reaped)
        process_settle(process);
}
