// Scripts that are too long for `sh -c`, or name their interpreter: files in a tmpfs of ours.
#ifndef MAGS_SCRIPT_H
#define MAGS_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCRIPT_PATH = 64 };

// Turns CRLF line ends into LF if the first line has one; the new size.
size_t script_unix_lines(char *text, size_t size);
// Whether it must be a file: longer than one argument may be, or with an interpreter of its own.
bool script_needs_file(const char *text, size_t size);
// Writes the script of process `id`; fills in the path under which that sees it. 0 or errno.
int script_write(uint32_t id, const char *text, size_t size, char path[SCRIPT_PATH]);
void script_remove(uint32_t id);

#endif
