// What all parts of the agent share.
#ifndef MAGS_AGENT_H
#define MAGS_AGENT_H

#include <stdbool.h>

#define AGENT_VERSION "0.1.0"

struct agent {
    bool is_init;     // PID 1 of a virtual machine; otherwise an ordinary process under test
    int root;         // directory in which all processes run; -1 until CONFIGURE has mounted it
    bool confine;     // processes chroot to `root`
    int run;          // directory for scripts (a tmpfs); -1 until mounted
    const char *run_path; // as the processes see it
    int null;         // /dev/null, open before anybody can remove it
    int random;       // /dev/urandom, likewise
    const char *ptmx; // opens a new terminal
    bool jfs;         // /jfs is mounted: what leads there may hang
    bool misconfigured; // the last CONFIGURE failed: nothing is started
};

extern struct agent agent;

#endif
