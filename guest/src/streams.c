#include "process_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "bytes.h"
#include "frame.h"
#include "link.h"

enum {
    CREDIT_STEP = STDIN_WINDOW / 4,
    MAX_DRAINS = 256,
    MAX_HELD = 24 * 1024 * 1024, // unacknowledged output of all processes; beyond it each may hold little
    HELD_ANYWAY = 16 * 1024,
    PACE_MS = 1,
    PACE_BELOW = 16 * 1024,
    PACED_PIPE = 256 * 1024,
};

static size_t held;

void stream_freed(size_t count) { held -= count; }

static size_t room_for_output(void) { return held >= MAX_HELD ? HELD_ANYWAY : MAX_WINDOW; }

enum got stream_read(struct process *process, struct stream *stream) {
    size_t room;
    if (ring_used(&stream->ring) >= room_for_output())
        return GOT_FULL;
    uint8_t *space = ring_room(&stream->ring, &room);
    if (!space)
        return GOT_FULL;
    if (process->grace < 0 && stream->ring.written + room > stream->final)
        room = (size_t)(stream->final - stream->ring.written);
    if (!room)
        return GOT_NOTHING;
    ssize_t count = read(stream->watch.fd, space, room);
    if (count > 0) {
        ring_wrote(&stream->ring, (size_t)count);
        held += (size_t)count;
        return GOT_SOME;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return GOT_NOTHING;
    return GOT_END; // EIO is how a terminal ends
}

void stream_watch(struct stream *stream) { loop_watch(&stream->watch, EPOLLIN); }

// Many small writes would each wake us, and each become a frame. After two within a millisecond the pipe is left alone
// for another one, to fill.
static void pace(struct stream *stream, size_t count) {
    int64_t now = now_ms();
    if (count < PACE_BELOW && now - stream->last_read <= PACE_MS) {
        if (!stream->was_paced)
            fcntl(stream->watch.fd, F_SETPIPE_SZ, PACED_PIPE); // else the writer soon waits for us; may fail
        stream->was_paced = true;
        stream->resume = now + PACE_MS;
        loop_watch(&stream->watch, 0);
    }
    stream->last_read = now;
}

static void output_ready(struct watch *watch, uint32_t events) {
    (void)events;
    struct process *process = process_of(watch);
    struct stream *stream = (struct stream *)watch;
    uint64_t before = stream->ring.written;
    switch (stream_read(process, stream)) {
    case GOT_SOME:
        if (!process->is_terminal && !process->reaped)
            pace(stream, (size_t)(stream->ring.written - before));
        break;
    case GOT_FULL:
        loop_watch(watch, 0); // until something is acknowledged
        break;
    case GOT_END:
        loop_close(watch);
        break;
    default:
        break;
    }
    if (process->reaped)
        process_settle(process);
}

void stream_release_ring(struct ring *ring) {
    held -= ring_used(ring);
    ring_free(ring);
    ring->acknowledged = ring->sent = ring->written;
}

void input_close(struct process *process) {
    loop_close(&process->in);
    ring_free(&process->input);
}

void input_grant(struct process *process) {
    uint64_t limit = process->input.sent + STDIN_WINDOW;
    if (process->input_ended || !process->attached || limit - process->credit < CREDIT_STEP)
        return;
    process->credit = limit;
    uint8_t payload[8];
    put64(payload, limit);
    link_send(FRAME_CREDIT, process->id, payload, sizeof payload);
}

void input_write(struct process *process) {
    struct ring *ring = &process->input;
    size_t count;
    const uint8_t *data;
    while ((data = ring_unsent(ring, &count))) {
        ssize_t written = (ssize_t)count;
        if (!process->input_refused && process->in.fd >= 0) {
            written = write(process->in.fd, data, count);
            if (written < 0 && errno == EAGAIN) {
                loop_watch(&process->in, EPOLLOUT);
                break;
            }
            if (written < 0) { // nobody reads
                process->input_refused = true;
                loop_close(&process->in);
                continue;
            }
        }
        ring->sent += (size_t)written;
        ring->acknowledged = ring->sent;
    }
    if (!data) {
        loop_watch(&process->in, 0);
        if (process->input_ended && process->terminal < 0)
            input_close(process);
    }
    input_grant(process);
}

static void input_ready(struct watch *watch, uint32_t events) {
    (void)events;
    input_write(process_of(watch));
}

// Pipes whose process has ended but whose descendants still write: read and dropped, so that they may go on.
static struct watch drains[MAX_DRAINS];
static size_t next_drain, drain_count;

static void drain_ready(struct watch *watch, uint32_t events) {
    (void)events;
    static uint8_t waste[16 * 1024];
    ssize_t count = read(watch->fd, waste, sizeof waste);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        loop_close(watch);
}

void stream_drain(struct watch *watch) {
    struct watch *drain = &drains[next_drain++ % MAX_DRAINS];
    if (drain_count < MAX_DRAINS) {
        drain_count++;
        *drain = (struct watch){.fd = -1, .ready = drain_ready};
    }
    loop_close(drain); // the oldest, if they are that many: its writers get EPIPE
    loop_watch(watch, 0);
    drain->fd = watch->fd;
    watch->fd = -1;
    loop_watch(drain, EPOLLIN);
}

void stream_resume_paced(struct stream *stream, int64_t now, int64_t *next) {
    if (stream->watch.fd < 0 || !stream->resume)
        return;
    if (stream->resume <= now) {
        stream->resume = 0;
        stream_watch(stream);
    } else if (stream->resume < *next) {
        *next = stream->resume;
    }
}

void streams_init(struct process *process, uint32_t window) {
    process->in = (struct watch){.fd = -1, .ready = input_ready};
    for (size_t s = 0; s < STREAMS; s++) {
        process->out[s].watch = (struct watch){.fd = -1, .ready = output_ready};
        ring_init(&process->out[s].ring, window);
    }
    ring_init(&process->input, STDIN_WINDOW);
    process->credit = STDIN_WINDOW;
}
