#include "configure.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "confined.h"
#include "fields.h"
#include "frame.h"
#include "helper.h"
#include "jfs.h"
#include "kernel.h"
#include "link.h"
#include "network.h"
#include "requests.h"
#include "root.h"
#include "spawn.h"

enum part {
    PART_CLOCK = 1,
    PART_ENTROPY,
    PART_HOSTNAME,
    PART_NETWORK,
    PART_ROOT,
    PART_MACHINE_ID,
    PART_GROW,
    PART_JFS,
    PART_UNMOUNT_JFS,
    PART_ENVIRONMENT,
    PART_COUNT,
};

enum { MAX_ENTROPY = 512, MIN_ENTROPY = 32, MAX_NAMESERVERS = 3 };

// A message under way: it stays while a helper works.
static struct {
    struct buffer message;
    struct buffer answer;
    size_t at; // the next field
    uint32_t id, session;
    bool pending;
    uint8_t helped; // the part that the helper does
    bool confirmed_environment;
} current;

static char hostname[65] = "mags";
static struct nameservers {
    uint8_t addresses[MAX_NAMESERVERS][4];
    size_t count;
} nameservers;

static void confirm(uint8_t part, int error, const char *what) {
    uint8_t value[258];
    char text[256] = "";
    if (error) {
        agent.misconfigured = true;
        snprintf(text, sizeof text, "%s%s%s", what ? what : "", what ? ": " : "", strerror(error));
    }
    put16(value, (uint16_t)error);
    size_t size = strlen(text);
    memcpy(value + 2, text, size);
    buffer_field(&current.answer, part, value, size + 2);
}

static int set_clock(const struct field *field) {
    if (field->length != 8)
        return EINVAL;
    if (!agent.is_init)
        return EPERM;
    uint64_t ns = get64(field->value);
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    return clock_settime(CLOCK_REALTIME, &time) < 0 ? errno : 0;
}

// All clones share the template's pool: nothing random may be used before this has succeeded.
static int add_entropy(const struct field *field) {
    struct random_pool pool = {.entropy_bits = (int)field->length * 8, .size = (int)field->length};
    if (field->length < MIN_ENTROPY || field->length > MAX_ENTROPY)
        return EINVAL;
    if (!agent.is_init)
        return EPERM;
    memcpy(pool.data, field->value, field->length);
    if (ioctl(agent.random, RNDADDENTROPY, &pool) < 0 || ioctl(agent.random, RNDRESEEDCRNG) < 0)
        return errno;
    explicit_bzero(&pool, sizeof pool);
    return 0;
}

static void write_names(void) {
    char text[512];
    if (agent.root < 0)
        return; // written when the root is mounted
    snprintf(text, sizeof text, "%s\n", hostname);
    root_write("/etc/hostname", 0644, text);
    if (root_mentions("/etc/hosts", hostname))
        return; // it may be the user's work
    snprintf(text, sizeof text, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%s\n",
             hostname);
    root_write("/etc/hosts", 0644, text);
}

static void write_nameservers(void) {
    char text[256] = "";
    size_t size = 0;
    if (agent.root < 0 || !nameservers.count)
        return;
    for (size_t i = 0; i < nameservers.count; i++) {
        const uint8_t *a = nameservers.addresses[i];
        size += (size_t)snprintf(text + size, sizeof text - size, "nameserver %u.%u.%u.%u\n", a[0], a[1], a[2], a[3]);
    }
    root_write("/etc/resolv.conf", 0644, text);
}

static int set_hostname(const struct field *field) {
    if (!field->length || field->length >= sizeof hostname || memchr(field->value, 0, field->length) ||
        memchr(field->value, '\n', field->length))
        return EINVAL;
    if (!agent.is_init)
        return EPERM;
    if (sethostname((const char *)field->value, field->length) < 0)
        return errno;
    memcpy(hostname, field->value, field->length);
    hostname[field->length] = 0;
    write_names();
    return 0;
}

static int set_network(const struct field *field) {
    if (field->length < 9 || (field->length - 9) % 4 || (field->length - 9) / 4 > MAX_NAMESERVERS)
        return EINVAL;
    if (!agent.is_init)
        return EPERM;
    nameservers.count = (field->length - 9) / 4;
    memcpy(nameservers.addresses, field->value + 9, nameservers.count * 4);
    int error = network_set(field->value, field->value[4], field->value + 5);
    if (!error)
        write_nameservers();
    return error;
}

static uint64_t disk_bytes(const struct field *field) { return field->length == 8 ? get64(field->value) : 0; }

static int mount_root(const struct field *field, const char **what) {
    bool fresh = agent.root < 0;
    int error = field->length == 0 || field->length == 8 ? root_mount(disk_bytes(field), what) : EINVAL;
    if (!error && fresh) {
        write_names();
        write_nameservers();
        // A template that is here now saves each of its clones the making of them.
        confined_touch("/etc/resolv.conf", 0644);
        confined_touch("/etc/machine-id", 0444);
    }
    return error;
}

static int set_machine_id(const struct field *field) {
    char text[34];
    if (field->length != 16)
        return EINVAL;
    if (!agent.is_init || agent.root < 0)
        return agent.is_init ? ENOTCONN : EPERM;
    for (size_t i = 0; i < 16; i++)
        snprintf(text + 2 * i, sizeof text - 2 * i, "%02x", field->value[i]);
    text[32] = '\n';
    text[33] = 0;
    root_write("/etc/machine-id", 0444, text);
    return 0;
}

static int set_environment(const struct field *field) {
    char *text = strndup((const char *)field->value, field->length);
    if (!text)
        return ENOMEM;
    int error = strlen(text) == field->length && strchr(text, '=') && text[0] != '=' ? 0 : EINVAL;
    if (!error)
        environment_set(text);
    free(text);
    return error;
}

static void proceed(void);

static void helper_ended(uint32_t id, bool is_stale, const struct answer *answer) {
    (void)id;
    (void)is_stale; // proceed() looks: it may answer without a helper too
    current.pending = false;
    if (current.helped == PART_JFS)
        agent.jfs = true; // even if it failed: better too careful
    confirm(current.helped, answer->error, answer->message[0] ? answer->message : NULL);
    proceed();
}

static void start_helper(const struct field *field) {
    int error = jfs_start(field->tag == PART_JFS ? field->value : NULL, field->length, helper_ended);
    current.helped = field->tag;
    current.pending = !error;
    if (error)
        confirm(field->tag, error, NULL);
}

static bool writes_to_disk(uint8_t tag) {
    return tag == PART_HOSTNAME || tag == PART_NETWORK || tag == PART_ROOT || tag == PART_MACHINE_ID || tag == PART_GROW;
}

static void apply(const struct field *field) {
    const char *what = NULL;
    if (writes_to_disk(field->tag) && requests_frozen()) {
        confirm(field->tag, EBUSY, "the work disk is frozen");
        return;
    }
    switch (field->tag) {
    case PART_CLOCK:
        confirm(field->tag, set_clock(field), what);
        break;
    case PART_ENTROPY:
        confirm(field->tag, add_entropy(field), what);
        break;
    case PART_HOSTNAME:
        confirm(field->tag, set_hostname(field), what);
        break;
    case PART_NETWORK:
        confirm(field->tag, set_network(field), "eth0");
        break;
    case PART_ROOT: {
        int error = mount_root(field, &what);
        confirm(field->tag, error, what);
        break;
    }
    case PART_MACHINE_ID:
        confirm(field->tag, set_machine_id(field), what);
        break;
    case PART_GROW: {
        int error = agent.is_init ? root_grow(disk_bytes(field), &what) : EPERM;
        confirm(field->tag, error, what);
        break;
    }
    case PART_JFS:
    case PART_UNMOUNT_JFS:
        start_helper(field);
        break;
    case PART_ENVIRONMENT: {
        int error = set_environment(field);
        if (error || !current.confirmed_environment)
            confirm(field->tag, error, what);
        current.confirmed_environment = true;
        break;
    }
    }
}

// Applies field after field until the end or until a helper is under way.
static void proceed(void) {
    const uint8_t *data = current.message.size ? current.message.data : (const uint8_t *)"";
    struct fields fields = {data + current.at, data + current.message.size, false};
    struct field field;
    while (!current.pending && field_next(&fields, &field)) {
        current.at = (size_t)(fields.at - data);
        apply(&field);
    }
    if (current.pending)
        return;
    if (current.session == link_session())
        link_send(FRAME_CONFIGURED, current.id, current.answer.data, current.answer.size);
    buffer_free(&current.message); // it held the entropy
}

static bool well_formed(const uint8_t *message, size_t size) {
    struct fields fields = {message, message + size, false};
    struct field field;
    bool seen[PART_COUNT] = {false};
    while (field_next(&fields, &field)) {
        if (!field.tag || field.tag >= PART_COUNT || (seen[field.tag] && field.tag != PART_ENVIRONMENT))
            return false;
        seen[field.tag] = true;
    }
    return !fields.broken;
}

bool configure(uint32_t id, const uint8_t *message, size_t size) {
    if (!well_formed(message, size))
        return false;
    buffer_clear(&current.message);
    buffer_clear(&current.answer);
    buffer_add(&current.message, message, size);
    if (current.message.failed) {
        link_error(id, ENOMEM, "out of memory");
        return true;
    }
    current.at = 0;
    current.id = id;
    current.session = link_session();
    current.confirmed_environment = false;
    agent.misconfigured = false;
    proceed();
    return true;
}

bool configure_pending(void) { return current.pending; }
