#include "process_inner.h"

#include <string.h>
#include <sys/wait.h>

#include "bytes.h"
#include "frame.h"

enum { OUTPUT_HEAD = 9 }; // u8 stream, u64 offset

static size_t turn; // the process whose turn it is

static int64_t milliseconds(const struct timeval *time) { return time->tv_sec * 1000 + time->tv_usec / 1000; }

void process_add_exit(struct buffer *out, struct process *process) {
    uint8_t payload[56] = {0};
    int status = process->status;
    payload[0] = process->error ? 2 : WIFSIGNALED(status) ? 1 : 0;
    payload[1] = process->timed_out;
    int value = process->error ? process->error : WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    put32(payload + 4, (uint32_t)value);
    put64(payload + 8, (uint64_t)(process->ended - process->started));
    put64(payload + 16, (uint64_t)process->usage.ru_maxrss);
    int64_t cpu = milliseconds(&process->usage.ru_utime) + milliseconds(&process->usage.ru_stime);
    put64(payload + 24, (uint64_t)cpu);
    for (size_t s = 0; s < STREAMS; s++)
        put64(payload + 32 + 8 * s, process->out[s].ring.written);
    uint8_t *head = buffer_extend(out, FRAME_HEADER);
    if (!head)
        return;
    size_t at = out->size;
    buffer_add(out, payload, sizeof payload);
    buffer_add(out, process->failure, strlen(process->failure));
    if (!out->failed)
        frame_head(out->data + at - FRAME_HEADER, FRAME_EXIT, 0, process->id, out->data + at,
                   (uint32_t)(out->size - at));
    process->exit_sent = true;
}

static bool add_output(struct buffer *out, struct process *process, size_t limit) {
    for (size_t n = 0; n < STREAMS; n++) {
        size_t s = (process->turn + n) % STREAMS;
        struct ring *ring = &process->out[s].ring;
        size_t count;
        const uint8_t *data = ring_unsent(ring, &count);
        if (!data)
            continue;
        if (count > limit - OUTPUT_HEAD)
            count = limit - OUTPUT_HEAD;
        size_t start = out->size;
        uint8_t *frame = buffer_extend(out, FRAME_HEADER + OUTPUT_HEAD + count);
        if (!frame) {
            out->failed = false; // out of memory: try again later
            out->size = start;
            return false;
        }
        uint8_t *payload = frame + FRAME_HEADER;
        payload[0] = (uint8_t)(s + 1);
        put64(payload + 1, ring->sent);
        memcpy(payload + OUTPUT_HEAD, data, count);
        frame_head(frame, FRAME_OUTPUT, 0, process->id, payload, (uint32_t)(OUTPUT_HEAD + count));
        ring->sent += count;
        process->turn = s + 1;
        return true;
    }
    return false;
}

bool processes_next_frame(struct buffer *out, size_t limit) {
    for (size_t n = 0; n < process_live_count; n++) {
        struct process *process = process_live[(turn + n) % process_live_count];
        if (!process->attached || process->exit_sent || process->released)
            continue;
        bool added = add_output(out, process, limit);
        if (!added && process->finished) {
            process_add_exit(out, process);
            added = true;
        }
        if (added) {
            turn = (turn + n + 1) % process_live_count;
            return true;
        }
    }
    return false;
}

void processes_hello(struct buffer *hello) {
    uint8_t value[80];
    for (size_t i = 0; i < process_live_count; i++) {
        struct process *process = process_live[i];
        if (process->released)
            continue;
        memset(value, 0, sizeof value);
        put32(value, process->id);
        put32(value + 4, (uint32_t)process->pid);
        value[8] = process->finished;
        put32(value + 12, (uint32_t)process->out[0].ring.capacity);
        for (size_t s = 0; s < STREAMS; s++) {
            put64(value + 16 + 16 * s, process->out[s].ring.acknowledged);
            put64(value + 24 + 16 * s, process->out[s].ring.written);
        }
        put64(value + 64, process->input.written);
        put64(value + 72, process->credit);
        buffer_field(hello, 4, value, sizeof value);
    }
    put32(value, process_last_id);
    buffer_field(hello, 5, value, 4);
}
