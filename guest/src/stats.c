#include "stats.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "loop.h"
#include "root.h"

static char text[8192];

static const char *read_all(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = 0;
    return text;
}

static uint64_t memory(const char *name) {
    const char *line = strstr(text, name);
    return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

// The first line of /proc/stat: user nice system idle iowait irq softirq steal, in hundredths of a second.
static uint64_t busy_ms(void) {
    unsigned long long user, nice, system, idle, wait, interrupts, soft;
    if (sscanf(read_all("/proc/stat"), "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait,
               &interrupts, &soft) != 7)
        return 0;
    return (user + nice + system + interrupts + soft) * 10;
}

static void traffic(uint64_t *received, uint64_t *sent) {
    // Padded with blanks; other names may end like it.
    const char *line = strstr(read_all("/proc/net/dev"), " eth0:");
    unsigned long long in = 0, out = 0;
    if (line)
        sscanf(line + 6, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &in, &out);
    *received = in;
    *sent = out;
}

void stats(uint8_t answer[STATS_SIZE]) {
    uint64_t values[12] = {0};
    read_all("/proc/meminfo");
    values[0] = memory("MemTotal:");
    values[1] = memory("MemAvailable:");
    struct statvfs disk;
    if (statvfs(agent.is_init ? WORK_MOUNT : "/", &disk) == 0 && agent.root >= 0) {
        values[2] = (uint64_t)disk.f_blocks * disk.f_frsize;
        values[3] = (uint64_t)disk.f_bavail * disk.f_frsize;
    }
    values[4] = (uint64_t)now_ms();
    struct sysinfo info;
    if (sysinfo(&info) == 0) {
        for (int i = 0; i < 3; i++)
            values[5 + i] = (uint64_t)info.loads[i] * 1000 / 65536;
        values[8] = info.procs;
    }
    traffic(&values[9], &values[10]);
    values[11] = busy_ms();
    for (int i = 0; i < 12; i++)
        put64(answer + 8 * i, values[i]);
}
