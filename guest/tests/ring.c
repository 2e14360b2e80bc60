// The ring against a model: random writes, sends, acknowledgements and rewinds never lose or change a byte.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"

enum { ROUNDS = 200000 };

static uint8_t byte_at(uint64_t offset) { return (uint8_t)(offset * 31 + (offset >> 8)); }

#define DEMAND(condition)                                                                                              \
    do                                                                                                                 \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "ring: line %d: %s\n", __LINE__, #condition);                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    while (0)

static uint64_t below(uint64_t limit) { return limit ? (uint64_t)rand() % limit : 0; }

static void run(size_t capacity) {
    struct ring ring;
    ring_init(&ring, capacity);
    for (int round = 0; round < ROUNDS; round++) {
        size_t size;
        switch (rand() % 4) {
        case 0: {
            uint8_t *space = ring_room(&ring, &size);
            DEMAND(!space == (ring_used(&ring) == capacity));
            size_t count = space ? (size_t)below(size + 1) : 0;
            for (size_t i = 0; i < count; i++)
                space[i] = byte_at(ring.written + i);
            ring_wrote(&ring, count);
            break;
        }
        case 1: {
            const uint8_t *data = ring_unsent(&ring, &size);
            DEMAND(!data == (ring.sent == ring.written));
            for (size_t i = 0; i < size; i++)
                DEMAND(data[i] == byte_at(ring.sent + i));
            ring.sent += below(size + 1);
            break;
        }
        case 2:
            DEMAND(ring_acknowledge(&ring, ring.acknowledged + below(ring.sent - ring.acknowledged + 1)));
            DEMAND(!ring_acknowledge(&ring, ring.sent + 1));
            break;
        default:
            if (rand() % 8 == 0)
                DEMAND(ring_rewind(&ring, ring.acknowledged + below(ring.written - ring.acknowledged + 1)));
            DEMAND(!ring_rewind(&ring, ring.written + 1));
        }
        DEMAND(ring.acknowledged <= ring.sent && ring.sent <= ring.written && ring_used(&ring) <= capacity);
    }
    ring_free(&ring);
}

int main(void) {
    srand(1);
    run(1);
    run(7);
    run(4096);
    puts("ring: good");
    return 0;
}
