#include "frame.h"

#include <string.h>

#include "bytes.h"

// CRC-32 (IEEE 802.3, as zlib), eight bytes a step: "slicing-by-8", Kounavis and Berry, 2005.
static uint32_t table[8][256];

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
        table[0][i] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (uint32_t i = 0; i < 256; i++)
            table[slice][i] = table[slice - 1][i] >> 8 ^ table[0][table[slice - 1][i] & 0xFF];
}

uint32_t crc32_of(uint32_t crc, const void *data, size_t size) {
    const uint8_t *p = data;
    if (!table[0][1])
        make_table();
    crc = ~crc;
    for (; size >= 8; p += 8, size -= 8) {
        uint32_t low = crc ^ get32(p), high = get32(p + 4);
        crc = table[7][low & 0xFF] ^ table[6][low >> 8 & 0xFF] ^ table[5][low >> 16 & 0xFF] ^ table[4][low >> 24] ^
              table[3][high & 0xFF] ^ table[2][high >> 8 & 0xFF] ^ table[1][high >> 16 & 0xFF] ^ table[0][high >> 24];
    }
    for (; size; p++, size--)
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xFF];
    return ~crc;
}

void frame_head(uint8_t *head, uint8_t type, uint8_t flags, uint32_t id, const void *payload, uint32_t length) {
    head[0] = 'M';
    head[1] = 'G';
    head[2] = type;
    head[3] = flags;
    put32(head + 4, id);
    put32(head + 8, length);
    put32(head + 12, crc32_of(crc32_of(0, head, 12), payload, length));
}

void parser_init(struct parser *parser) {
    parser->hunting = true;
    parser->start = parser->end = 0;
}

uint8_t *parser_space(struct parser *parser, size_t *room) {
    if (parser->start == parser->end)
        parser->start = parser->end = 0;
    else if (parser->start && PARSER_BUFFER - parser->end < FRAME_HEADER + MAX_PAYLOAD) {
        memmove(parser->buffer, parser->buffer + parser->start, parser->end - parser->start);
        parser->end -= parser->start;
        parser->start = 0;
    }
    *room = PARSER_BUFFER - parser->end;
    return parser->buffer + parser->end;
}

void parser_fed(struct parser *parser, size_t count) { parser->end += count; }

static bool checksum_fits(const uint8_t *p, uint32_t length) {
    return crc32_of(crc32_of(0, p, 12), p + FRAME_HEADER, length) == get32(p + 12);
}

static enum parse take(struct parser *parser, const uint8_t *p, uint32_t length, struct frame *frame) {
    *frame = (struct frame){p[2], p[3], get32(p + 4), length, p + FRAME_HEADER};
    parser->start += FRAME_HEADER + length;
    return PARSE_FRAME;
}

// Leaves `start` at the first byte that may yet begin a RESET.
static enum parse hunt(struct parser *parser, struct frame *frame) {
    static const uint8_t begin[] = {'M', 'G', FRAME_RESET};
    while (parser->start < parser->end) {
        const uint8_t *p = parser->buffer + parser->start;
        size_t available = parser->end - parser->start;
        const uint8_t *found = memchr(p, 'M', available);
        if (!found) {
            parser->start = parser->end;
            break;
        }
        parser->start += (size_t)(found - p);
        p = found;
        available = parser->end - parser->start;
        size_t compared = available < sizeof begin ? available : sizeof begin;
        if (!memcmp(p, begin, compared)) {
            if (available < FRAME_HEADER + RESET_PAYLOAD) {
                if (available < 12 || get32(p + 8) == RESET_PAYLOAD)
                    break;
            } else if (get32(p + 8) == RESET_PAYLOAD && checksum_fits(p, RESET_PAYLOAD)) {
                parser->hunting = false;
                return take(parser, p, RESET_PAYLOAD, frame);
            }
        }
        parser->start++;
    }
    return PARSE_MORE;
}

static enum parse lost(struct parser *parser) {
    parser->hunting = true;
    parser->start++;
    return PARSE_BAD;
}

enum parse parser_next(struct parser *parser, struct frame *frame) {
    if (parser->hunting)
        return hunt(parser, frame);
    const uint8_t *p = parser->buffer + parser->start;
    size_t available = parser->end - parser->start;
    if (!available)
        return PARSE_MORE;
    if (p[0] == 0xFF) { // filler: a new host begins
        parser->hunting = true;
        return hunt(parser, frame);
    }
    if (p[0] != 'M' || (available > 1 && p[1] != 'G'))
        return lost(parser);
    if (available < FRAME_HEADER)
        return PARSE_MORE;
    uint32_t length = get32(p + 8);
    if (length > MAX_PAYLOAD)
        return lost(parser);
    if (available < FRAME_HEADER + length)
        return PARSE_MORE;
    if (!checksum_fits(p, length))
        return lost(parser);
    return take(parser, p, length, frame);
}
