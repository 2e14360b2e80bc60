#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "console.h"
#include "frame.h"
#include "link.h"
#include "script.h"
#include "sessions.h"
#include "spawn.h"

enum {
    GRACE_MS = 100,              // for output of descendants after the main process has ended
    CREDIT_STEP = STDIN_WINDOW / 4,
    MAX_DRAINS = 256,
    MAX_HELD = 24 * 1024 * 1024, // unacknowledged output of all processes; beyond it each may hold little
    HELD_ANYWAY = 16 * 1024,
    OUTPUT_HEAD = 9,             // u8 stream, u64 offset
    PACE_MS = 1,
    PACE_BELOW = 16 * 1024,
    PACED_PIPE = 256 * 1024,
};

static struct process slots[MAX_PROCESSES];
static struct process *live[MAX_PROCESSES]; // the used slots, in no order
static size_t live_count, turn;
static uint32_t last_id;
static size_t held;
// Pipes whose process has ended but whose descendants still write: read and dropped, so that they may go on.
static struct watch drains[MAX_DRAINS];
static size_t next_drain;

static void output_ready(struct watch *watch, uint32_t events);
static void input_ready(struct watch *watch, uint32_t events);
static void drain_ready(struct watch *watch, uint32_t events);
static void settle(struct process *process);

void processes_init(void) {
    for (size_t i = 0; i < MAX_PROCESSES; i++) {
        slots[i].in.fd = slots[i].terminal = -1;
        for (size_t s = 0; s < STREAMS; s++)
            slots[i].out[s].watch.fd = -1;
    }
    for (size_t i = 0; i < MAX_DRAINS; i++)
        drains[i] = (struct watch){.fd = -1, .ready = drain_ready};
}

static struct process *find(uint32_t id) {
    for (size_t i = 0; i < live_count; i++)
        if (live[i]->id == id)
            return live[i];
    return NULL;
}

// Frames may cross: one for a process that just ended or was released is no error, one for a process that never was is.
static bool known(uint32_t id) { return id && id <= last_id; }

static struct process *owner(const struct watch *watch) {
    return &slots[((const char *)watch - (const char *)slots) / (ptrdiff_t)sizeof *slots];
}

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

// Streams

static size_t room_for_output(void) { return held >= MAX_HELD ? HELD_ANYWAY : MAX_WINDOW; }

enum got { GOT_SOME, GOT_NOTHING, GOT_END, GOT_FULL };

static enum got read_output(struct process *process, struct stream *stream) {
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

static void watch_output(struct stream *stream) { loop_watch(&stream->watch, EPOLLIN); }

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
    struct process *process = owner(watch);
    struct stream *stream = (struct stream *)watch;
    uint64_t before = stream->ring.written;
    switch (read_output(process, stream)) {
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
        settle(process);
}

static void release_ring(struct ring *ring) {
    held -= ring_used(ring);
    ring_free(ring);
    ring->acknowledged = ring->sent = ring->written;
}

// Stdin

static void close_input(struct process *process) {
    loop_close(&process->in);
    ring_free(&process->input);
}

static void grant(struct process *process) {
    uint64_t limit = process->input.sent + STDIN_WINDOW;
    if (process->input_ended || !process->attached || limit - process->credit < CREDIT_STEP)
        return;
    process->credit = limit;
    uint8_t payload[8];
    put64(payload, limit);
    link_send(FRAME_CREDIT, process->id, payload, sizeof payload);
}

static void write_input(struct process *process) {
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
            close_input(process);
    }
    grant(process);
}

static void input_ready(struct watch *watch, uint32_t events) {
    (void)events;
    write_input(owner(watch));
}

// Life

static void forget(struct process *process) {
    for (size_t s = 0; s < STREAMS; s++) {
        loop_close(&process->out[s].watch);
        release_ring(&process->out[s].ring);
    }
    close_input(process);
    close_fd(&process->terminal);
    for (size_t i = 0; i < live_count; i++)
        if (live[i] == process) {
            live[i] = live[--live_count];
            break;
        }
    process->id = 0;
}

static void drain_ready(struct watch *watch, uint32_t events) {
    (void)events;
    static uint8_t waste[16 * 1024];
    ssize_t count = read(watch->fd, waste, sizeof waste);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        loop_close(watch);
}

static void start_drain(struct watch *watch) {
    struct watch *drain = &drains[next_drain++ % MAX_DRAINS];
    loop_close(drain); // the oldest, if they are that many: its writers get EPIPE
    loop_watch(watch, 0);
    drain->fd = watch->fd;
    watch->fd = -1;
    loop_watch(drain, EPOLLIN);
}

static int64_t milliseconds(const struct timeval *time) { return time->tv_sec * 1000 + time->tv_usec / 1000; }

// The main process has ended: is its output complete?
static void settle(struct process *process) {
    if (process->finished)
        return;
    bool open = false, full = false;
    for (size_t s = 0; s < STREAMS; s++) {
        struct stream *stream = &process->out[s];
        if (stream->watch.fd < 0)
            continue;
        enum got got;
        do
            got = read_output(process, stream);
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
        close_fd(&process->terminal);
        settle(process);
        return;
    }
    if (open && !process->grace)
        process->grace = process->ended + GRACE_MS;
    if (full || (open && process->grace >= 0))
        return;
    for (size_t s = 0; s < STREAMS; s++) {
        struct watch *watch = &process->out[s].watch;
        if (watch->fd >= 0 && !process->is_terminal)
            start_drain(watch);
        loop_close(watch); // a terminal hangs up what is left on it
    }
    close_input(process);
    process->finished = true;
    if (process->released)
        forget(process);
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
    settle(process);
}

void processes_reap(void) {
    int status;
    struct rusage usage;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        for (size_t i = 0; i < live_count; i++) {
            struct process *process = live[i];
            if (process->pid != pid || process->reaped)
                continue;
            process->reaped = true;
            process->status = status;
            process->usage = usage;
            process->ended = now_ms();
            process->deadline = 0;
            if (process->has_script_file)
                script_remove(process->id);
            settle(process);
            break;
        }
    }
}

static int64_t resume_paced(struct process *process, int64_t now) {
    int64_t next = INT64_MAX;
    for (size_t s = 0; s < STREAMS; s++) {
        struct stream *stream = &process->out[s];
        if (stream->watch.fd < 0 || !stream->resume)
            continue;
        if (stream->resume <= now) {
            stream->resume = 0;
            watch_output(stream);
        } else {
            next = stream->resume;
        }
    }
    return next;
}

int64_t processes_timers(int64_t now) {
    int64_t next = INT64_MAX;
    for (size_t i = live_count; i-- > 0;) {
        struct process *process = live[i];
        int64_t resume = resume_paced(process, now);
        if (resume < next)
            next = resume;
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
    for (size_t i = 0; i < live_count; i++)
        count += !live[i]->reaped && !live[i]->released;
    return count;
}

void processes_kill_all(void) {
    for (size_t i = 0; i < live_count; i++)
        if (!live[i]->reaped)
            session_kill(live[i]->pid);
}

// Frames out

void processes_detach(void) {
    for (size_t i = 0; i < live_count; i++) {
        live[i]->attached = false;
        live[i]->exit_sent = false;
    }
}

static void add_exit(struct buffer *out, struct process *process) {
    uint8_t payload[56] = {0};
    int status = process->status;
    const char *text = "";
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
    if (process->error)
        text = strerror(process->error);
    uint8_t *head = buffer_extend(out, FRAME_HEADER);
    if (!head)
        return;
    size_t at = out->size;
    buffer_add(out, payload, sizeof payload);
    buffer_add(out, text, strlen(text));
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
    for (size_t n = 0; n < live_count; n++) {
        struct process *process = live[(turn + n) % live_count];
        if (!process->attached || process->exit_sent || process->released)
            continue;
        bool added = add_output(out, process, limit);
        if (!added && process->finished) {
            add_exit(out, process);
            added = true;
        }
        if (added) {
            turn = (turn + n + 1) % live_count;
            return true;
        }
    }
    return false;
}

void processes_hello(struct buffer *hello) {
    uint8_t value[80];
    for (size_t i = 0; i < live_count; i++) {
        struct process *process = live[i];
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
    put32(value, last_id);
    buffer_field(hello, 5, value, 4);
}

// Frames in

static int open_terminal(struct process *process, const struct wish *wish, struct ends *ends) {
    int master = open(agent.ptmx, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    int locked = 0, slave = -1, number = -1;
    if (master < 0)
        return errno;
    struct winsize size = {.ws_row = wish->rows, .ws_col = wish->columns};
    if (ioctl(master, TIOCSPTLCK, &locked) < 0 ||
        (slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0 ||
        ioctl(master, TIOCGPTN, &number) < 0) {
        int error = errno;
        close(master);
        close_fd(&slave);
        return error;
    }
    process->out[0].watch.fd = master;
    process->in.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
    process->terminal = slave;
    process->is_terminal = true;
    *ends = (struct ends){slave, slave, slave, -1, true, number};
    return process->in.fd < 0 ? errno : 0;
}

static int open_pipe(int *ours, int *theirs, bool we_read) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return errno;
    *ours = fds[!we_read];
    *theirs = fds[we_read];
    if (fcntl(*ours, F_SETFL, O_NONBLOCK) < 0)
        return errno;
    return 0;
}

static int open_files(struct process *process, const struct wish *wish, struct ends *ends) {
    if (wish->has_terminal)
        return open_terminal(process, wish, ends);
    int error = open_pipe(&process->out[0].watch.fd, &ends->output, true);
    if (!error)
        error = open_pipe(&process->out[1].watch.fd, &ends->error, true);
    if (!error && wish->builtin)
        error = open_pipe(&process->out[2].watch.fd, &ends->result, true);
    if (!error && wish->has_stdin)
        error = open_pipe(&process->in.fd, &ends->input, false);
    return error;
}

static void start(struct process *process, struct wish *wish) {
    struct ends ends = {-1, -1, -1, -1, false, -1};
    int error = agent.misconfigured ? ECANCELED : open_files(process, wish, &ends);
    if (!error) {
        pid_t pid = spawn(process->id, wish, &ends);
        process->has_script_file = wish->has_script_file;
        if (pid < 0)
            error = -pid;
        else
            process->pid = pid;
    }
    if (!ends.is_terminal) {
        close_fd(&ends.input);
        close_fd(&ends.output);
        close_fd(&ends.error);
        close_fd(&ends.result);
    }
    if (error) {
        for (size_t s = 0; s < STREAMS; s++)
            loop_close(&process->out[s].watch);
        close_input(process);
        close_fd(&process->terminal);
        if (process->has_script_file)
            script_remove(process->id);
        process->error = error;
        process->ended = now_ms();
        process->reaped = process->finished = true;
        return;
    }
    if (wish->timeout_ms)
        process->deadline = process->started + (int64_t)wish->timeout_ms;
    for (size_t s = 0; s < STREAMS; s++)
        watch_output(&process->out[s]);
}

bool process_exec(uint32_t id, const uint8_t *message, size_t size) {
    static struct wish wish;
    if (!id || id <= last_id || !wish_decode(&wish, message, size))
        return false;
    last_id = id;
    struct process *process = slots;
    while (process < slots + MAX_PROCESSES && process->id)
        process++;
    if (process == slots + MAX_PROCESSES) {
        // No slot to keep an exit in, so this one cannot be resumed after a reconnect; there is nothing to resume.
        struct process refused = {.id = id, .error = EAGAIN};
        struct buffer frame = {0};
        add_exit(&frame, &refused);
        if (!frame.failed)
            link_send(FRAME_EXIT, id, frame.data + FRAME_HEADER, frame.size - FRAME_HEADER);
        buffer_free(&frame);
        wish_free(&wish);
        return true;
    }
    *process = (struct process){.id = id, .attached = true, .terminal = -1, .started = now_ms()};
    process->in = (struct watch){.fd = -1, .ready = input_ready};
    for (size_t s = 0; s < STREAMS; s++) {
        process->out[s].watch = (struct watch){.fd = -1, .ready = output_ready};
        ring_init(&process->out[s].ring, wish.window);
    }
    ring_init(&process->input, STDIN_WINDOW);
    process->credit = STDIN_WINDOW;
    process->input_refused = process->input_ended = !wish.has_stdin;
    live[live_count++] = process;
    start(process, &wish);
    wish_free(&wish);
    return true;
}

bool process_stdin(uint32_t id, const uint8_t *payload, size_t size, bool end) {
    if (size < 8 || !known(id))
        return false;
    struct process *process = find(id);
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
    write_input(process);
    return true;
}

bool process_acknowledge(uint32_t id, const uint8_t *payload, size_t size) {
    if (size != 9 || payload[0] < 1 || payload[0] > STREAMS || !known(id))
        return false;
    struct process *process = find(id);
    if (!process || process->released)
        return true;
    struct stream *stream = &process->out[payload[0] - 1];
    size_t before = ring_used(&stream->ring);
    if (!process->attached || !ring_acknowledge(&stream->ring, get64(payload + 1)))
        return false;
    held -= before - ring_used(&stream->ring);
    if (!process->finished) {
        watch_output(stream);
        if (process->reaped)
            settle(process);
    }
    return true;
}

bool process_attach(uint32_t id, const uint8_t *payload, size_t size) {
    struct process *process = find(id);
    if (size != 8 * STREAMS || !process || process->attached || process->released)
        return false;
    for (size_t s = 0; s < STREAMS; s++) {
        struct stream *stream = &process->out[s];
        size_t before = ring_used(&stream->ring);
        if (!ring_rewind(&stream->ring, get64(payload + 8 * s)))
            return false;
        held -= before - ring_used(&stream->ring);
        if (!process->finished)
            watch_output(stream);
    }
    process->attached = true;
    process->exit_sent = false;
    if (process->reaped)
        settle(process);
    grant(process);
    return true;
}

bool process_resize(uint32_t id, const uint8_t *payload, size_t size) {
    struct process *process = find(id);
    if (size != 4 || !known(id))
        return false;
    if (process && process->is_terminal && process->out[0].watch.fd >= 0) {
        struct winsize size_now = {.ws_row = get16(payload), .ws_col = get16(payload + 2)};
        ioctl(process->out[0].watch.fd, TIOCSWINSZ, &size_now);
    }
    return true;
}

bool process_signal(uint32_t id, const uint8_t *payload, size_t size) {
    struct process *process = find(id);
    if (size != 1 || payload[0] < 1 || payload[0] > 64 || !known(id))
        return false;
    if (!process || process->reaped)
        return true;
    pid_t group = process->pid;
    if (process->is_terminal && ioctl(process->out[0].watch.fd, TIOCGPGRP, &group) < 0)
        group = process->pid;
    if (group > 1)
        kill(-group, payload[0]);
    return true;
}

void process_release(uint32_t id) {
    struct process *process = find(id);
    if (!process || process->released)
        return;
    process->released = true;
    if (process->finished) {
        forget(process);
        return;
    }
    if (!process->reaped)
        session_kill(process->pid);
    for (size_t s = 0; s < STREAMS; s++)
        loop_close(&process->out[s].watch);
    close_fd(&process->terminal);
    if (process->reaped)
        settle(process);
}
