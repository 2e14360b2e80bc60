// EXEC: a process begins.
#include "process_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"
#include "frame.h"
#include "link.h"
#include "script.h"
#include "spawn.h"
#include "world.h"

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
        close_if_open(&slave);
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
        close_if_open(&ends.input);
        close_if_open(&ends.output);
        close_if_open(&ends.error);
        close_if_open(&ends.result);
    }
    if (error) {
        for (size_t s = 0; s < STREAMS; s++)
            loop_close(&process->out[s].watch);
        input_close(process);
        close_if_open(&process->terminal);
        if (process->has_script_file)
            script_remove(process->id);
        process->error = error;
        snprintf(process->failure, sizeof process->failure, "%s",
                 error == ECANCELED ? "the VM could not be configured" : *wish->failure ? wish->failure : strerror(error));
        process->ended = now_ms();
        process->reaped = process->finished = true;
        return;
    }
    if (wish->timeout_ms)
        process->deadline = process->started + (int64_t)wish->timeout_ms;
    for (size_t s = 0; s < STREAMS; s++)
        stream_watch(&process->out[s]);
}

bool process_exec(uint32_t id, const uint8_t *message, size_t size) {
    static struct wish wish;
    if (!id || id <= process_last_id || !wish_decode(&wish, message, size))
        return false;
    process_last_id = id;
    struct process *process = process_slots;
    while (process < process_slots + MAX_PROCESSES && process->id)
        process++;
    if (process == process_slots + MAX_PROCESSES) {
        // No slot to keep an exit in, so this one cannot be resumed after a reconnect; there is nothing to resume.
        struct process refused = {.id = id, .error = EAGAIN, .failure = "too many commands at once in this VM"};
        struct buffer frame = {0};
        process_add_exit(&frame, &refused);
        if (!frame.failed)
            link_send(FRAME_EXIT, id, frame.data + FRAME_HEADER, frame.size - FRAME_HEADER);
        buffer_free(&frame);
        wish_free(&wish);
        return true;
    }
    *process = (struct process){.id = id, .attached = true, .terminal = -1, .started = now_ms()};
    process->killed_before = world_killed_so_far();
    streams_init(process, wish.window);
    process->input_refused = process->input_ended = !wish.has_stdin;
    process_live[process_live_count++] = process;
    start(process, &wish);
    wish_free(&wish);
    return true;
}
