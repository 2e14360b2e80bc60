#include "fields.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"

bool field_next(struct fields *fields, struct field *field) {
    size_t left = (size_t)(fields->end - fields->at);
    if (!left)
        return false;
    if (left < 5 || get32(fields->at + 1) > left - 5) {
        fields->broken = true;
        return false;
    }
    *field = (struct field){fields->at[0], get32(fields->at + 1), fields->at + 5};
    fields->at += 5 + field->length;
    return true;
}

uint8_t *buffer_extend(struct buffer *buffer, size_t count) {
    if (buffer->failed)
        return NULL;
    if (buffer->capacity - buffer->size < count) {
        size_t capacity = buffer->capacity ? buffer->capacity : 1024;
        while (capacity - buffer->size < count)
            capacity *= 2;
        uint8_t *data = realloc(buffer->data, capacity);
        if (!data) {
            buffer->failed = true;
            return NULL;
        }
        buffer->data = data;
        buffer->capacity = capacity;
    }
    buffer->size += count;
    return buffer->data + buffer->size - count;
}

void buffer_add(struct buffer *buffer, const void *data, size_t size) {
    uint8_t *p = size ? buffer_extend(buffer, size) : NULL;
    if (p)
        memcpy(p, data, size);
}

void buffer_field(struct buffer *buffer, uint8_t tag, const void *value, size_t size) {
    uint8_t head[5] = {tag};
    put32(head + 1, (uint32_t)size);
    buffer_add(buffer, head, sizeof head);
    buffer_add(buffer, value, size);
}

void buffer_clear(struct buffer *buffer) {
    buffer->size = 0;
    buffer->failed = false;
}

void buffer_free(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){0};
}
