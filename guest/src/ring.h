// A ring of bytes between absolute offsets: what was written, what was sent, and what the other side has acknowledged.
//
//     acknowledged <= sent <= written <= acknowledged + capacity
#ifndef MAGS_RING_H
#define MAGS_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
    uint8_t *data; // made by the first ring_room()
    size_t capacity;
    uint64_t origin; // the offset that lies at data[0]; moved when the ring is empty, so that few pages are touched
    uint64_t acknowledged;
    uint64_t sent;
    uint64_t written;
};

void ring_init(struct ring *ring, size_t capacity);
void ring_free(struct ring *ring);
// Contiguous room for new bytes; NULL where there is none.
uint8_t *ring_room(struct ring *ring, size_t *room);
void ring_wrote(struct ring *ring, size_t count);
// Contiguous bytes not sent yet, from `sent` on.
const uint8_t *ring_unsent(const struct ring *ring, size_t *count);
// False if the offset is not between acknowledged and sent.
bool ring_acknowledge(struct ring *ring, uint64_t offset);
// Send again from this offset; false if it is no longer (or not yet) there.
bool ring_rewind(struct ring *ring, uint64_t offset);
static inline size_t ring_used(const struct ring *ring) { return (size_t)(ring->written - ring->acknowledged); }

#endif
