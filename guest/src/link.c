#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "configure.h"
#include "console.h"
#include "fields.h"
#include "frame.h"
#include "loop.h"
#include "process.h"
#include "requests.h"

enum {
    BATCH = 32 * 1024, // what virtio_console takes in one write
    MAX_ANSWERS = 1024 * 1024,
};

static struct watch link_watch = {.fd = -1};
static struct watch listener = {.fd = -1};
static struct parser parser;
static struct buffer answers;  // frames for the host, ahead of output
static struct buffer sending;  // a batch of whole frames, partly written
static size_t sent;            // so much of `sending`
static struct buffer message;  // frames with FLAG_MORE, put together
static uint8_t message_type;
static uint32_t message_id;
static uint32_t session, sessions;
static bool reading, ended, was_paused;

uint32_t link_session(void) { return session; }
bool link_ended(void) { return ended; }

static void end_session(void) {
    session = 0;
    buffer_clear(&answers);
    buffer_clear(&sending);
    buffer_clear(&message);
    sent = 0;
    processes_detach();
}

void link_send(uint8_t type, uint32_t id, const void *payload, size_t size) {
    if (!session)
        return;
    uint8_t head[FRAME_HEADER];
    frame_head(head, type, 0, id, payload, (uint32_t)size);
    buffer_add(&answers, head, sizeof head);
    buffer_add(&answers, payload, size);
}

void link_error(uint32_t id, int error, const char *text) {
    uint8_t payload[256];
    size_t size = strnlen(text, sizeof payload - 2);
    put16(payload, (uint16_t)error);
    memcpy(payload + 2, text, size);
    link_send(FRAME_ERROR, id, payload, size + 2);
}

void link_goodbye(const char *reason) {
    say("mags-agent: session ended: %s", reason);
    // Answers of the broken session may go out, output may not: it would not be known where it ended.
    link_send(FRAME_GOODBYE, 0, reason, strlen(reason));
    link_pump();
    end_session();
    parser.hunting = true;
}

static void begin_session(const uint8_t *payload) {
    end_session();
    session = ++sessions ? sessions : ++sessions;
    struct buffer hello = {0};
    uint8_t head[10];
    memcpy(head, payload + 2, 8); // the nonce
    put16(head + 8, PROTOCOL_VERSION);
    buffer_add(&hello, head, sizeof head);
    requests_hello(&hello);
    processes_hello(&hello);
    if (hello.failed || hello.size > MAX_PAYLOAD)
        fatal("hello");
    link_send(FRAME_HELLO, 0, hello.data, hello.size);
    buffer_free(&hello);
}

static bool dispatch(uint8_t type, uint8_t flags, uint32_t id, const uint8_t *payload, size_t size) {
    switch (type) {
    case FRAME_CONFIGURE:
        return configure(id, payload, size);
    case FRAME_EXEC:
        return process_exec(id, payload, size);
    case FRAME_STDIN:
        return process_stdin(id, payload, size, flags & FLAG_END_OF_INPUT);
    case FRAME_ACK:
        return process_acknowledge(id, payload, size);
    case FRAME_RESIZE:
        return process_resize(id, payload, size);
    case FRAME_SIGNAL:
        return process_signal(id, payload, size);
    case FRAME_RELEASE:
        process_release(id);
        return true;
    case FRAME_ATTACH:
        return process_attach(id, payload, size);
    default:
        return request(type, id, payload, size);
    }
}

static bool take_frame(const struct frame *frame) {
    if (frame->type == FRAME_RESET) {
        if (frame->length != RESET_PAYLOAD || get16(frame->payload) != PROTOCOL_VERSION)
            return false;
        begin_session(frame->payload);
        return true;
    }
    bool more = frame->flags & FLAG_MORE;
    if (!more && !message.size)
        return dispatch(frame->type, frame->flags, frame->id, frame->payload, frame->length);
    if (message.size && (frame->type != message_type || frame->id != message_id))
        return false;
    if (message.size + frame->length > MAX_MESSAGE || !frame->length)
        return false;
    message_type = frame->type;
    message_id = frame->id;
    buffer_add(&message, frame->payload, frame->length);
    if (message.failed) {
        link_error(frame->id, ENOMEM, "out of memory");
        return false;
    }
    if (more)
        return true;
    bool good = dispatch(message_type, 0, message_id, message.data, message.size);
    if (message.capacity > MAX_PAYLOAD * 4)
        buffer_free(&message);
    buffer_clear(&message);
    return good;
}

static bool paused(void) { return was_paused = configure_pending() || answers.size > MAX_ANSWERS; }

static void handle_frames(void) {
    struct frame frame;
    while (!paused()) {
        enum parse found = parser_next(&parser, &frame);
        if (found == PARSE_MORE)
            return;
        if (found == PARSE_BAD)
            link_goodbye("not a frame");
        else if (!take_frame(&frame))
            link_goodbye("a frame that the protocol does not allow");
    }
}

static void lost_host(void) {
    // A virtio port stays open, and the next host begins with a RESET. Nothing is dropped before that: the end of an
    // earlier host may be told only after the RESET of the next one was read, as in every clone of a template.
    if (agent.is_init)
        return;
    end_session();
    parser_init(&parser);
    loop_close(&link_watch);
    if (listener.fd >= 0)
        loop_watch(&listener, EPOLLIN);
    else
        ended = true;
}

static void read_link(void) {
    if (reading)
        return;
    reading = true;
    handle_frames();
    while (link_watch.fd >= 0 && !paused()) {
        size_t room;
        uint8_t *space = parser_space(&parser, &room);
        ssize_t count = read(link_watch.fd, space, room);
        if (count > 0) {
            parser_fed(&parser, (size_t)count);
            handle_frames();
        } else if (count < 0 && errno == EINTR) {
            continue;
        } else {
            if (count == 0 || errno != EAGAIN)
                lost_host();
            break;
        }
    }
    reading = false;
}

void link_resume(void) {
    if (was_paused && !paused())
        read_link();
}

// Whole frames only, so that a broken link never leaves us in the middle of one.
static bool fill_batch(void) {
    if (!session)
        return false;
    buffer_clear(&sending);
    sent = 0;
    if (answers.size) {
        struct buffer swap = sending;
        sending = answers;
        answers = swap;
    }
    while (sending.size < BATCH && processes_next_frame(&sending, BATCH - FRAME_HEADER))
        ;
    return sending.size > 0;
}

void link_pump(void) {
    while (link_watch.fd >= 0) {
        if (sent == sending.size && !fill_batch())
            return;
        ssize_t count = write(link_watch.fd, sending.data + sent, sending.size - sent);
        if (count < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                lost_host();
            return;
        }
        sent += (size_t)count;
    }
}

static void link_ready(struct watch *watch, uint32_t events) {
    (void)watch;
    (void)events;
    read_link();
    link_pump();
}

void link_open(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        fatal("the channel");
    parser_init(&parser);
    link_watch = (struct watch){.fd = fd, .ready = link_ready};
    // Edge-triggered: a port without a host reports EPOLLHUP all the time.
    loop_watch(&link_watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    read_link();
}

static void accept_host(struct watch *watch, uint32_t events) {
    (void)events;
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    loop_watch(watch, 0);
    link_open(fd);
}

void link_listen(int fd) {
    listener = (struct watch){.fd = fd, .ready = accept_host};
    loop_watch(&listener, EPOLLIN);
}
