#include "sftp_wire.h"

#include <string.h>

static const uint8_t *take(struct packet *packet, size_t size) {
    static const uint8_t nothing[8];
    if ((size_t)(packet->end - packet->at) < size) {
        packet->broken = true;
        packet->at = packet->end;
        return nothing;
    }
    packet->at += size;
    return packet->at - size;
}

uint8_t take8(struct packet *packet) { return *take(packet, 1); }

uint32_t take32(struct packet *packet) {
    const uint8_t *p = take(packet, 4);
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint64_t take64(struct packet *packet) {
    uint64_t high = take32(packet);
    return high << 32 | take32(packet);
}

const uint8_t *take_string(struct packet *packet, uint32_t *size) {
    *size = take32(packet);
    if (*size > (size_t)(packet->end - packet->at))
        packet->broken = true;
    if (packet->broken)
        *size = 0;
    return take(packet, *size);
}

void take_path(struct packet *packet, char path[PATH_MAX]) {
    uint32_t size;
    const uint8_t *text = take_string(packet, &size);
    if (size >= PATH_MAX || memchr(text, 0, size)) {
        packet->broken = true;
        size = 0;
    }
    memcpy(path, text, size);
    path[size] = 0;
}

void add8(struct buffer *out, uint8_t value) { buffer_add(out, &value, 1); }

void add32(struct buffer *out, uint32_t value) {
    uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    buffer_add(out, bytes, 4);
}

void add64(struct buffer *out, uint64_t value) {
    add32(out, (uint32_t)(value >> 32));
    add32(out, (uint32_t)value);
}

void add_string(struct buffer *out, const void *data, size_t size) {
    add32(out, (uint32_t)size);
    buffer_add(out, data, size);
}

void take_attributes(struct packet *packet, struct attributes *attributes) {
    *attributes = (struct attributes){.flags = take32(packet)};
    if (attributes->flags & ATTR_SIZE)
        attributes->size = take64(packet);
    if (attributes->flags & ATTR_OWNER) {
        attributes->uid = take32(packet);
        attributes->gid = take32(packet);
    }
    if (attributes->flags & ATTR_MODE)
        attributes->mode = take32(packet);
    if (attributes->flags & ATTR_TIMES) {
        attributes->atime = take32(packet);
        attributes->mtime = take32(packet);
    }
}

void add_attributes(struct buffer *out, const struct stat *status) {
    add32(out, ATTR_SIZE | ATTR_OWNER | ATTR_MODE | ATTR_TIMES);
    add64(out, (uint64_t)status->st_size);
    add32(out, status->st_uid);
    add32(out, status->st_gid);
    add32(out, status->st_mode);
    add32(out, (uint32_t)status->st_atim.tv_sec);
    add32(out, (uint32_t)status->st_mtim.tv_sec);
}
