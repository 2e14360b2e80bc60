#include "boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "console.h"
#include "modules.h"
#include "network.h"
#include "root.h"
#include "world.h"

#define PORTS "/sys/class/virtio-ports"
#define CHANNEL "mags.agent"

static void mount_here(const char *type, const char *target, const char *data) {
    mkdir(target, 0755);
    if (mount(type, target, type, MS_NOSUID | MS_NOEXEC, data) < 0 && errno != EBUSY)
        fatal(target);
}

// The device of the port whose name is the channel's; false if there is none yet.
static int open_channel(void) {
    DIR *ports = opendir(PORTS);
    struct dirent *entry;
    int fd = -1;
    while (ports && fd < 0 && (entry = readdir(ports))) {
        char path[300], name[sizeof CHANNEL] = "";
        snprintf(path, sizeof path, PORTS "/%s/name", entry->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0)
            continue;
        ssize_t size = read(file, name, sizeof name - 1);
        close(file);
        if (size != sizeof CHANNEL - 1 || strcmp(name, CHANNEL) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    if (ports)
        closedir(ports);
    return fd;
}

int boot(void) {
    mkdir("/dev", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0 && errno != EBUSY)
        fatal("/dev");
    // The guest's /dev is the same file system: without a bound it could hold half of the memory.
    mount(NULL, "/dev", NULL, MS_REMOUNT | MS_NOSUID, "size=4m");
    // Whoever stops the terminal must not stop us: then our words are lost.
    int console = open("/dev/console", O_RDWR | O_NOCTTY | O_NONBLOCK);
    for (int fd = 0; console >= 0 && fd < 3; fd++)
        dup2(console, fd);
    if (console > 2)
        close(console);
    mount_here("proc", "/proc", NULL);
    mount_here("sysfs", "/sys", NULL);
    mkdir("/pts", 0755);
    if (mount("devpts", "/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,gid=5,ptmxmode=666") < 0)
        fatal("/pts");
    modules_load("/mods/order");
    world_make();
    agent.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    agent.random = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    agent.ptmx = "/pts/ptmx";
    network_loopback();
    network_only_ipv4();
    root_prepare();
    // With a fork bomb in the guest the host must still be answered.
    setpriority(PRIO_PROCESS, 0, -20);
    // We hold a few for each process; servers among the processes raise their own.
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 4096, .rlim_max = 524288});
    int channel;
    // The port's name arrives by a message of the device, shortly after the driver has started.
    for (int tries = 0; (channel = open_channel()) < 0; tries++) {
        if (tries == 5000)
            fatal("no virtio port " CHANNEL);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return channel;
}
