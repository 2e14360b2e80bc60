// Starting a process in the guest's root.
#ifndef MAGS_SPAWN_H
#define MAGS_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum { MAX_STRINGS = 4096, MAX_LIMITS = 16, MAX_GROUPS = 64, FAILURE_TEXT = 240 };

// The decoded EXEC. Strings point into `text`.
struct wish {
    char *text;
    size_t argc, variables;
    char *script;
    size_t script_size;
    bool has_script;
    uint8_t builtin; // 0: none
    const char *cwd, *user;
    bool has_terminal;
    uint16_t rows, columns;
    uint64_t timeout_ms;
    uint32_t window;
    bool has_stdin;
    struct limit {
        int resource;
        struct rlimit bounds;
    } limits[MAX_LIMITS];
    size_t limit_count;
    // Set by spawn():
    bool has_script_file;       // there is a file to remove when the process has ended
    char failure[FAILURE_TEXT]; // why it could not be started; empty: its errno says it all
    // Last, so that a new wish clears only what is before it.
    char *argv[MAX_STRINGS + 1];
    char *environment[MAX_STRINGS + 1];
};

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[MAX_GROUPS];
    size_t group_count;
    char name[128];
    char home[256];
};

// The child's ends of its files; spawn() leaves closing them to the caller. -1: none.
struct ends {
    int input, output, error, result;
    bool is_terminal;
    int terminal_number; // /dev/pts/N
};

bool wish_decode(struct wish *wish, const uint8_t *message, size_t size); // false: malformed
void wish_free(struct wish *wish);
// Looks the user up in the guest's own passwd and group files. 0, or errno and a sentence.
int identity_find(struct identity *identity, const char *user, char failure[FAILURE_TEXT]);
// The pid, or -errno.
pid_t spawn(uint32_t id, struct wish *wish, const struct ends *ends);
void environment_set(const char *assignment); // default for every later process

#endif
