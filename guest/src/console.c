#include "console.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

void say(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (size < 0)
        return;
    if ((size_t)size > sizeof line - 2)
        size = sizeof line - 2;
    line[size++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)size) < 0)
        return; // nobody to tell
}

noreturn void power_off(void) {
    if (getpid() == 1)
        reboot(RB_AUTOBOOT); // QEMU's microvm has no ACPI; with -no-reboot this ends it
    _exit(0);
}

noreturn void fatal(const char *what) {
    say("mags-agent: %s: %s", what, strerror(errno));
    if (getpid() == 1)
        power_off();
    _exit(1);
}
