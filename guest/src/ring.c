#include "ring.h"

#include <stdlib.h>

void ring_init(struct ring *ring, size_t capacity) { *ring = (struct ring){.capacity = capacity}; }

// Rings of the usual size are used again: their first pages are there already, and most output needs no more.
enum { USUAL = 256 * 1024, SPARES = 4 };
static uint8_t *spares[SPARES];
static size_t spare_count;

void ring_free(struct ring *ring) {
    if (ring->data && ring->capacity == USUAL && spare_count < SPARES)
        spares[spare_count++] = ring->data;
    else
        free(ring->data);
    ring->data = NULL;
}

static uint8_t *ring_memory(size_t capacity) {
    return capacity == USUAL && spare_count ? spares[--spare_count] : malloc(capacity);
}

uint8_t *ring_room(struct ring *ring, size_t *room) {
    if (!ring->data && !(ring->data = ring_memory(ring->capacity)))
        return NULL;
    if (ring->acknowledged == ring->written)
        ring->origin = ring->written;
    size_t free_bytes = ring->capacity - ring_used(ring);
    size_t at = (size_t)((ring->written - ring->origin) % ring->capacity);
    size_t contiguous = ring->capacity - at;
    *room = free_bytes < contiguous ? free_bytes : contiguous;
    return *room ? ring->data + at : NULL;
}

void ring_wrote(struct ring *ring, size_t count) { ring->written += count; }

const uint8_t *ring_unsent(const struct ring *ring, size_t *count) {
    size_t unsent = (size_t)(ring->written - ring->sent);
    if (!unsent) {
        *count = 0;
        return NULL;
    }
    size_t at = (size_t)((ring->sent - ring->origin) % ring->capacity);
    size_t contiguous = ring->capacity - at;
    *count = unsent < contiguous ? unsent : contiguous;
    return ring->data + at;
}

bool ring_acknowledge(struct ring *ring, uint64_t offset) {
    if (offset < ring->acknowledged || offset > ring->sent)
        return false;
    ring->acknowledged = offset;
    return true;
}

bool ring_rewind(struct ring *ring, uint64_t offset) {
    if (offset < ring->acknowledged || offset > ring->written)
        return false;
    ring->acknowledged = ring->sent = offset;
    return true;
}
