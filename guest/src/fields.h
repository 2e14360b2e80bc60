// Tagged fields: tag (1 byte), length (4 bytes), value. Reading never leaves the message, writing grows a buffer.
#ifndef MAGS_FIELDS_H
#define MAGS_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fields {
    const uint8_t *at;
    const uint8_t *end;
    bool broken; // a field reached beyond the end
};

struct field {
    uint8_t tag;
    uint32_t length;
    const uint8_t *value;
};

// False at the end, or where the message is broken.
bool field_next(struct fields *fields, struct field *field);

// Bytes that grow. `failed` after the memory ran out; further writes do nothing.
struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed;
};

uint8_t *buffer_extend(struct buffer *buffer, size_t count); // NULL when out of memory
void buffer_add(struct buffer *buffer, const void *data, size_t size);
void buffer_field(struct buffer *buffer, uint8_t tag, const void *value, size_t size);
void buffer_clear(struct buffer *buffer); // keeps the memory
void buffer_free(struct buffer *buffer);

#endif
