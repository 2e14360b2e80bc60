// Words for the one who reads the VM's console, and the end of it all.
#ifndef MAGS_CONSOLE_H
#define MAGS_CONSOLE_H

#include <stdnoreturn.h>

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Says what failed, with errno, and ends: the VM if we are PID 1.
noreturn void fatal(const char *what);
noreturn void power_off(void);

#endif
