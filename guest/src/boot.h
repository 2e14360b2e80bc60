// What PID 1 does before it listens.
#ifndef MAGS_BOOT_H
#define MAGS_BOOT_H

// Mounts, modules, priority; the opened channel. Any failure ends the VM.
int boot(void);

#endif
