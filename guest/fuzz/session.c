// libFuzzer: a host that sends well-formed frames of any content in any order. Everything of the agent runs but what
// would touch the machine: processes are played by this file.
//
// The input is a sequence of: type, flags, id (relative to the last one), u16 length, payload; or of events of the
// world, where the type has its highest bit.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "builtin.h"
#include "bytes.h"
#include "console.h"
#include "frame.h"
#include "helper.h"
#include "link.h"
#include "loop.h"
#include "process.h"
#include "script.h"
#include "sessions.h"
#include "spawn.h"

enum { FIRST_PID = 1 << 28, MAX_PLAYED = 256 }; // above every real process

struct agent agent = {.root = -1, .run = -1, .null = -1, .random = -1, .ptmx = "/dev/ptmx"};

static int host = -1;
static uint32_t last_id, first_id;
static int played, ended[MAX_PLAYED], ended_count;

static void end_played(int pid) {
    if (ended_count < MAX_PLAYED)
        ended[ended_count++] = pid;
}

pid_t __wrap_wait4(pid_t pid, int *status, int options, struct rusage *usage) {
    (void)pid;
    (void)options;
    if (!ended_count)
        return -1;
    *usage = (struct rusage){0};
    int next = ended[--ended_count];
    *status = next % 3 ? (next & 0xFF) << 8 : SIGKILL;
    return next;
}

int __wrap_kill(pid_t pid, int number) {
    (void)pid;
    (void)number;
    return 0;
}

void session_kill(pid_t leader) { end_played(leader); }
pid_t session_largest(void) { return 0; }

pid_t spawn(uint32_t id, struct wish *wish, const struct ends *ends) {
    static const char text[2000];
    (void)id;
    if (wish->argc > 5)
        return -ENOENT;
    size_t size = wish->argc * 400;
    if (write(ends->output, text, size) < 0 || (ends->error >= 0 && write(ends->error, text, size / 2) < 0))
        abort();
    return FIRST_PID + played++;
}

bool helper_start(helper_work *work, const void *argument, helper_done *done, uint32_t id, int timeout_ms) {
    (void)work;
    (void)argument;
    struct answer answer = {.error = timeout_ms % 2 ? EIO : 0};
    done(id, false, &answer);
    return true;
}

void script_remove(uint32_t id) { (void)id; }
void environment_set(const char *assignment) { (void)assignment; }

void say(const char *format, ...) { (void)format; } // it would tell of every broken session
noreturn void fatal(const char *what) {
    (void)what;
    abort();
}
noreturn void power_off(void) { abort(); }

static void swallow(void) {
    static uint8_t waste[65536];
    while (read(host, waste, sizeof waste) > 0)
        ;
}

static void turn(void) {
    processes_timers(now_ms());
    link_resume();
    link_pump();
    loop_once(0);
    swallow();
}

static void send_frame(uint8_t type, uint8_t flags, uint32_t id, const uint8_t *payload, size_t size) {
    uint8_t head[FRAME_HEADER];
    frame_head(head, type, flags, id, payload, (uint32_t)size);
    if (write(host, head, sizeof head) < 0 || (size && write(host, payload, size) < 0))
        abort();
}

static void reset(void) {
    uint8_t payload[RESET_PAYLOAD] = {PROTOCOL_VERSION};
    send_frame(FRAME_RESET, 0, 0, payload, sizeof payload);
}

static void start(void) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    host = ends[0];
    signal(SIGPIPE, SIG_IGN); // main() blocks it
    if (fcntl(host, F_SETFL, O_NONBLOCK) < 0)
        abort();
    loop_init();
    processes_init();
    link_open(ends[1]);
}

static void forget_all(void) {
    for (uint32_t id = first_id; id <= last_id; id++)
        process_release(id);
    for (int i = 0; i < played; i++)
        end_played(FIRST_PID + i);
    processes_reap();
    ended_count = played = 0;
    first_id = last_id + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (host < 0)
        start();
    reset();
    while (size >= 5) {
        uint8_t type = data[0], flags = data[1];
        uint32_t id = last_id - data[2] % 4 + (data[2] >> 7);
        size_t length = get16(data + 3) % 4096;
        data += 5;
        size -= 5;
        if (length > size)
            length = size;
        if (type & 0x80) {
            if (played && flags % 4 == 0)
                end_played(FIRST_PID + flags / 4 % played);
            processes_reap();
        } else if (type != FRAME_POWEROFF) {
            if (type == FRAME_EXEC && !(flags & FLAG_MORE) && flags % 8 != 7)
                id = ++last_id;
            send_frame(type, flags, id, data, length);
        }
        turn();
        data += length;
        size -= length;
    }
    turn();
    forget_all();
    return 0;
}
