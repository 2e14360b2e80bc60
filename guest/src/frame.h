// The frame of the guest channel: parsing and building, without I/O. See docs/protocol.md.
#ifndef MAGS_FRAME_H
#define MAGS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROTOCOL_VERSION = 1,
    FRAME_HEADER = 16,
    MAX_PAYLOAD = 65536,
    MAX_MESSAGE = 2 * 1024 * 1024,
    RESET_PAYLOAD = 10, // u16 version, u64 nonce
};

enum { FLAG_MORE = 0x01, FLAG_END_OF_INPUT = 0x02 };

enum frame_type {
    FRAME_RESET = 0x01,
    FRAME_CONFIGURE,
    FRAME_EXEC,
    FRAME_STDIN,
    FRAME_ACK,
    FRAME_RESIZE,
    FRAME_SIGNAL,
    FRAME_RELEASE,
    FRAME_ATTACH,
    FRAME_PING,
    FRAME_STATS,
    FRAME_FREEZE,
    FRAME_THAW,
    FRAME_FLUSH,
    FRAME_POWEROFF,
    FRAME_HELLO = 0x81,
    FRAME_CONFIGURED,
    FRAME_OUTPUT,
    FRAME_EXIT,
    FRAME_CREDIT,
    FRAME_REPLY,
    FRAME_ERROR,
    FRAME_GOODBYE,
};

struct frame {
    uint8_t type;
    uint8_t flags;
    uint32_t id;
    uint32_t length;
    const uint8_t *payload; // inside the parser's buffer: valid until the next parser_space()
};

enum parse {
    PARSE_MORE,  // nothing whole yet: feed more bytes
    PARSE_FRAME, // a frame
    PARSE_BAD,   // the stream is out of step; everything up to the next RESET is skipped
};

// Two frames fit, so that a bad one can be searched again for the RESET that cut it.
enum { PARSER_BUFFER = 2 * (FRAME_HEADER + MAX_PAYLOAD) };

struct parser {
    bool hunting; // skip everything that is not a RESET
    size_t start;
    size_t end;
    uint8_t buffer[PARSER_BUFFER];
};

void parser_init(struct parser *parser);
// Room for new bytes; never zero after parser_next() said PARSE_MORE.
uint8_t *parser_space(struct parser *parser, size_t *room);
void parser_fed(struct parser *parser, size_t count);
enum parse parser_next(struct parser *parser, struct frame *frame);

uint32_t crc32_of(uint32_t crc, const void *data, size_t size);
// Writes the 16 bytes before a payload of `length` bytes.
void frame_head(uint8_t *head, uint8_t type, uint8_t flags, uint32_t id, const void *payload, uint32_t length);

#endif
