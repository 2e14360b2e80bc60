// Reading and building SFTP packets: big-endian numbers, counted strings.
#ifndef MAGS_SFTP_WIRE_H
#define MAGS_SFTP_WIRE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fields.h"

struct packet {
    const uint8_t *at, *end;
    bool broken; // something reached beyond the end; what was read then is zero or empty
};

uint8_t take8(struct packet *packet);
uint32_t take32(struct packet *packet);
uint64_t take64(struct packet *packet);
const uint8_t *take_string(struct packet *packet, uint32_t *size);
void take_path(struct packet *packet, char path[PATH_MAX]); // broken if too long or with a NUL

void add8(struct buffer *out, uint8_t value);
void add32(struct buffer *out, uint32_t value);
void add64(struct buffer *out, uint64_t value);
void add_string(struct buffer *out, const void *data, size_t size);

enum { ATTR_SIZE = 1, ATTR_OWNER = 2, ATTR_MODE = 4, ATTR_TIMES = 8 };

struct attributes {
    uint32_t flags;
    uint64_t size;
    uint32_t uid, gid, mode, atime, mtime;
};

void take_attributes(struct packet *packet, struct attributes *attributes);
void add_attributes(struct buffer *out, const struct stat *status);

#endif
