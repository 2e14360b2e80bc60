#include <stdlib.h>
#include <string.h>

#include "builtin.h"
#include "bytes.h"
#include "fields.h"
#include "process.h"
#include "spawn.h"

enum exec_field {
    EXEC_ARGUMENT = 1,
    EXEC_SCRIPT,
    EXEC_BUILTIN,
    EXEC_ENVIRONMENT,
    EXEC_CWD,
    EXEC_USER,
    EXEC_TERMINAL,
    EXEC_TIMEOUT,
    EXEC_WINDOW,
    EXEC_STDIN,
    EXEC_LIMIT,
};

static bool take_limit(struct wish *wish, const struct field *field) {
    if (field->length != 17 || wish->limit_count == MAX_LIMITS)
        return false;
    uint64_t soft = get64(field->value + 1), hard = get64(field->value + 9);
    struct limit *limit = &wish->limits[wish->limit_count++];
    limit->resource = field->value[0];
    limit->bounds = (struct rlimit){(rlim_t)soft, (rlim_t)hard};
    return true;
}

static bool take_field(struct wish *wish, const struct field *field, char **text) {
    // A C string of it; room for all of them was made, since a NUL takes less than a field's head.
    char *string = *text;
    switch (field->tag) {
    case EXEC_ARGUMENT:
    case EXEC_ENVIRONMENT:
    case EXEC_CWD:
    case EXEC_USER:
        if (memchr(field->value, 0, field->length))
            return false;
        memcpy(string, field->value, field->length);
        string[field->length] = 0;
        *text += field->length + 1;
    }
    switch (field->tag) {
    case EXEC_ARGUMENT:
        if (wish->argc == MAX_STRINGS)
            return false;
        wish->argv[wish->argc++] = string;
        return true;
    case EXEC_ENVIRONMENT:
        if (wish->variables == MAX_STRINGS || !strchr(string, '='))
            return false;
        wish->environment[wish->variables++] = string;
        return true;
    case EXEC_CWD:
        wish->cwd = string;
        return true;
    case EXEC_USER:
        wish->user = string;
        return true;
    case EXEC_SCRIPT:
        wish->has_script = true;
        wish->script = *text;
        wish->script_size = field->length;
        memcpy(*text, field->value, field->length);
        (*text)[field->length] = 0;
        *text += field->length + 1;
        return true;
    case EXEC_BUILTIN:
        wish->builtin = field->length == 1 ? field->value[0] : 0;
        return wish->builtin >= BUILTIN_FIRST && wish->builtin <= BUILTIN_LAST;
    case EXEC_TERMINAL:
        if (field->length != 4)
            return false;
        wish->has_terminal = true;
        wish->rows = get16(field->value);
        wish->columns = get16(field->value + 2);
        return true;
    case EXEC_TIMEOUT:
        if (field->length != 8)
            return false;
        wish->timeout_ms = get64(field->value);
        return wish->timeout_ms <= INT64_MAX / 2;
    case EXEC_WINDOW:
        wish->window = field->length == 4 ? get32(field->value) : 0;
        return wish->window >= 1 && wish->window <= MAX_WINDOW;
    case EXEC_STDIN:
        wish->has_stdin = true;
        return field->length == 0;
    case EXEC_LIMIT:
        return take_limit(wish, field);
    default:
        return false;
    }
}

bool wish_decode(struct wish *wish, const uint8_t *message, size_t size) {
    memset(wish, 0, offsetof(struct wish, argv));
    wish->text = malloc(size + 1);
    if (!wish->text)
        return false;
    char *text = wish->text;
    struct fields fields = {message, message + size, false};
    struct field field;
    bool good = true;
    while (good && field_next(&fields, &field))
        good = take_field(wish, &field, &text);
    int kinds = wish->has_script + (wish->builtin != 0) + (wish->argc && !wish->has_script && !wish->builtin);
    good = good && !fields.broken && kinds == 1 && wish->window && !(wish->has_terminal && wish->builtin);
    wish->argv[wish->argc] = NULL;
    wish->environment[wish->variables] = NULL;
    if (!good)
        wish_free(wish);
    return good;
}

void wish_free(struct wish *wish) {
    free(wish->text);
    wish->text = NULL;
}
