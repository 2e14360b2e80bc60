#include "jfs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "modules.h"

enum { TIMEOUT_MS = 25000, MAX_PATH = 1024 };

static struct request {
    bool mount;
    char server[16];
    unsigned port;
    char path[MAX_PATH];
} wanted;

static int enter_root(void) { return fchdir(agent.root) < 0 || chroot(".") < 0 || chdir("/") < 0 ? errno : 0; }

// Hard, so that an open file survives the server's restart; no locks, since there is no lockd on the other side.
static int mount_jfs(const struct request *request, struct answer *answer) {
    char source[MAX_PATH + 32], options[256];
    int error = modules_load("/mods/nfs");
    if (error) {
        snprintf(answer->message, sizeof answer->message, "cannot load the NFS modules");
        return error;
    }
    if ((error = enter_root()))
        return error;
    umount2("/jfs", MNT_DETACH); // an earlier one, perhaps of the template's time
    if (mkdir("/jfs", 0755) < 0 && errno != EEXIST)
        return errno;
    snprintf(source, sizeof source, "%s:%s", request->server, request->path);
    snprintf(options, sizeof options,
             "vers=3,proto=tcp,addr=%s,port=%u,mountaddr=%s,mountport=%u,mountproto=tcp,mountvers=3,nolock,noacl,hard,"
             "timeo=20,sec=sys",
             request->server, request->port, request->server, request->port);
    return mount(source, "/jfs", "nfs", MS_NOSUID | MS_NODEV | MS_NOATIME, options) < 0 ? errno : 0;
}

static void work(const void *argument, struct answer *answer) {
    const struct request *request = argument;
    if (request->mount) {
        answer->error = mount_jfs(request, answer);
        return;
    }
    answer->error = enter_root();
    if (!answer->error && umount2("/jfs", MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
        answer->error = errno;
}

int jfs_start(const uint8_t *value, size_t size, helper_done *done) {
    wanted = (struct request){.mount = value};
    if (!agent.is_init)
        return EPERM;
    if (agent.root < 0)
        return ENOTCONN;
    if (value) {
        if (size < 7 || size - 6 >= sizeof wanted.path || memchr(value + 6, 0, size - 6))
            return EINVAL;
        snprintf(wanted.server, sizeof wanted.server, "%u.%u.%u.%u", value[0], value[1], value[2], value[3]);
        wanted.port = get16(value + 4);
        memcpy(wanted.path, value + 6, size - 6);
    }
    return helper_start(work, &wanted, done, 0, TIMEOUT_MS) ? 0 : errno;
}
