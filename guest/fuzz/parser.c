// libFuzzer: any bytes, in any pieces, into the parser. Frames stay inside its buffer, and a RESET behind enough filler
// is always found.
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "frame.h"

static struct parser parser;

static uint64_t drain(uint64_t wanted_nonce) {
    struct frame frame;
    enum parse found;
    uint64_t seen = 0;
    while ((found = parser_next(&parser, &frame)) != PARSE_MORE) {
        if (found == PARSE_BAD)
            continue;
        if (frame.payload < parser.buffer || frame.payload + frame.length > parser.buffer + parser.end ||
            frame.length > MAX_PAYLOAD)
            abort();
        if (frame.type == FRAME_RESET && frame.length == RESET_PAYLOAD && get64(frame.payload + 2) == wanted_nonce)
            seen = wanted_nonce;
    }
    return seen;
}

static uint64_t feed(const uint8_t *data, size_t size, size_t piece, uint64_t nonce) {
    uint64_t seen = 0;
    while (size) {
        size_t room, count = size < piece ? size : piece;
        uint8_t *space = parser_space(&parser, &room);
        if (!room)
            abort();
        if (count > room)
            count = room;
        memcpy(space, data, count);
        parser_fed(&parser, count);
        data += count;
        size -= count;
        seen |= drain(nonce);
    }
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t ending[FRAME_HEADER + MAX_PAYLOAD + FRAME_HEADER + RESET_PAYLOAD];
    const uint64_t nonce = 0x5EED5EED5EED5EEDull;
    size_t filler = FRAME_HEADER + MAX_PAYLOAD;
    uint8_t *payload = ending + filler + FRAME_HEADER;
    if (size < 2)
        return 0;
    parser_init(&parser);
    parser.hunting = data[0] & 1;
    feed(data + 2, size - 2, 1 + data[1] * 300u, 0);
    memset(ending, 0xFF, filler);
    put16(payload, PROTOCOL_VERSION);
    put64(payload + 2, nonce);
    frame_head(ending + filler, FRAME_RESET, 0, 0, payload, RESET_PAYLOAD);
    if (feed(ending, sizeof ending, 1 + data[1] * 300u, nonce) != nonce)
        abort();
    return 0;
}
