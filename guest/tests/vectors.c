// Reads guest/vectors and checks that the agent's code makes of them what they say. Arguments: the directory.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "frame.h"
#include "process.h"
#include "spawn.h"

enum { MAX_LINE = 64 * 1024 };

struct agent agent;
static int failures;

static void check(bool good, const char *name, const char *what, const char *detail) {
    if (good)
        return;
    fprintf(stderr, "%s: %s%s\n", name, what, detail);
    failures++;
}

static size_t unhex(const char *word, uint8_t *bytes) {
    if (!strcmp(word, "-"))
        return 0;
    size_t size = strlen(word) / 2;
    for (size_t i = 0; i < size; i++) {
        unsigned byte;
        sscanf(word + 2 * i, "%2x", &byte);
        bytes[i] = (uint8_t)byte;
    }
    return size;
}

static void check_frame(char *line) {
    static uint8_t payload[MAX_LINE], frame[MAX_LINE], built[FRAME_HEADER];
    const char *name = strtok(line, " ");
    unsigned long type = strtoul(strtok(NULL, " "), NULL, 16), flags = strtoul(strtok(NULL, " "), NULL, 16);
    unsigned long id = strtoul(strtok(NULL, " "), NULL, 16);
    size_t payload_size = unhex(strtok(NULL, " "), payload), size = unhex(strtok(NULL, " "), frame);
    frame_head(built, (uint8_t)type, (uint8_t)flags, (uint32_t)id, payload, (uint32_t)payload_size);
    check(size == FRAME_HEADER + payload_size && !memcmp(built, frame, FRAME_HEADER), name, "is built differently", "");
    check(!memcmp(frame + FRAME_HEADER, payload, payload_size), name, "has another payload", "");
}

// Feeds the bytes in pieces and describes what comes out.
static void parse(const uint8_t *bytes, size_t size, size_t piece, char *events) {
    static struct parser parser;
    struct frame frame;
    *events = 0;
    parser_init(&parser);
    for (size_t at = 0; at < size;) {
        size_t room, count = size - at < piece ? size - at : piece;
        uint8_t *space = parser_space(&parser, &room);
        if (count > room)
            count = room;
        memcpy(space, bytes + at, count);
        parser_fed(&parser, count);
        at += count;
        enum parse found;
        while ((found = parser_next(&parser, &frame)) != PARSE_MORE)
            events += found == PARSE_BAD ? sprintf(events, " bad")
                                         : sprintf(events, " %02x:%lu", frame.type, (unsigned long)frame.id);
    }
}

static void check_parser(char *line) {
    static uint8_t bytes[MAX_LINE];
    static char expected[MAX_LINE], events[MAX_LINE];
    char *rest = line;
    const char *name = strsep(&rest, " "), *input = strsep(&rest, " ");
    size_t size = unhex(input, bytes);
    snprintf(expected, sizeof expected, " %s", rest);
    for (size_t piece = 1; piece <= size + 1; piece++) {
        parse(bytes, size, piece, events);
        check(!strcmp(events, expected) || (!*events && !strcmp(rest, "-")), name, "gives", events);
    }
}

static char *quote(char *out, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c > 32 && c < 127 && c != '%' && c != '|')
            *out++ = (char)c;
        else
            out += sprintf(out, "%%%02x", c);
    }
    *out = 0;
    return out;
}

static char *list(char *out, const char *name, char *const *texts, size_t count) {
    out += sprintf(out, " %s=%s", name, count ? "" : "-");
    for (size_t i = 0; i < count; i++) {
        if (i)
            *out++ = '|';
        out = quote(out, texts[i], strlen(texts[i]));
    }
    return out;
}

static void describe(const struct wish *wish, char *out) {
    out = list(out, "argv", wish->argv, wish->argc);
    out += sprintf(out, " script=%s", wish->has_script ? "" : "-");
    if (wish->has_script)
        out = quote(out, wish->script, wish->script_size);
    out += sprintf(out, " builtin=%u", wish->builtin);
    out = list(out, "env", wish->environment, wish->variables);
    out += sprintf(out, " cwd=%s user=%s terminal=", wish->cwd ? wish->cwd : "-", wish->user ? wish->user : "-");
    out += wish->has_terminal ? sprintf(out, "%ux%u", wish->rows, wish->columns) : sprintf(out, "-");
    out += sprintf(out, " timeout=%llu window=%lu stdin=%d limits=%s", (unsigned long long)wish->timeout_ms,
                   (unsigned long)wish->window, wish->has_stdin, wish->limit_count ? "" : "-");
    for (size_t i = 0; i < wish->limit_count; i++)
        out += sprintf(out, "%s%d:%llu:%llu", i ? "|" : "", wish->limits[i].resource,
                       (unsigned long long)wish->limits[i].bounds.rlim_cur,
                       (unsigned long long)wish->limits[i].bounds.rlim_max);
}

static void check_exec(char *line) {
    static uint8_t bytes[MAX_LINE];
    static char expected[MAX_LINE], seen[MAX_LINE];
    static struct wish wish;
    char *rest = line;
    const char *name = strsep(&rest, " "), *input = strsep(&rest, " ");
    size_t size = unhex(input, bytes);
    bool good = wish_decode(&wish, bytes, size);
    check(good, name, "is refused", "");
    if (!good)
        return;
    snprintf(expected, sizeof expected, " %s", rest);
    describe(&wish, seen);
    check(!strcmp(seen, expected), name, " says", seen);
    wish_free(&wish);
    for (size_t cut = 0; cut < size; cut++) // no prefix may be read beyond its end
        if (wish_decode(&wish, bytes, cut))
            wish_free(&wish);
}

static void each_line(const char *directory, const char *file, void (*check_line)(char *)) {
    static char line[MAX_LINE];
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    FILE *input = fopen(path, "r");
    int count = 0;
    while (input && fgets(line, sizeof line, input)) {
        line[strcspn(line, "\n")] = 0;
        if (!*line || *line == '#')
            continue;
        check_line(line);
        count++;
    }
    if (input)
        fclose(input);
    check(count > 0, file, "has no vectors", "");
}

int main(int count, char **arguments) {
    if (count != 2)
        return 2;
    each_line(arguments[1], "frames.txt", check_frame);
    each_line(arguments[1], "parser.txt", check_parser);
    each_line(arguments[1], "exec.txt", check_exec);
    if (failures)
        return 1;
    puts("vectors: good");
    return 0;
}
