#include "jfs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "kernel.h"
#include "modules.h"

enum { TIMEOUT_MS = 25000, MAX_PATH = 1024, MAX_HANDLE = 64, HEAD = 7 };

// In tenths of a second and in seconds; what nfs(5) gives as the defaults of an attribute cache.
enum { TIMEO = 20, RETRANS = 2, REGULAR_MIN = 3, REGULAR_MAX = 60, DIRECTORY_MIN = 30, DIRECTORY_MAX = 60 };

static struct request {
    bool mount;
    uint8_t address[4];
    uint16_t port;
    uint8_t handle[MAX_HANDLE];
    size_t handle_size; // 0: the server is asked for it
    char path[MAX_PATH];
} wanted;

static int enter_root(void) { return fchdir(agent.root) < 0 || chroot(".") < 0 || chdir("/") < 0 ? errno : 0; }

// Hard, so that an open file survives the server's restart; no locks, since there is no lockd on the other side.
static void options_of(const struct request *request, char text[256]) {
    const uint8_t *a = request->address;
    snprintf(text, 256,
             "vers=3,proto=tcp,addr=%u.%u.%u.%u,port=%u,mountaddr=%u.%u.%u.%u,mountport=%u,mountproto=tcp,mountvers=3,"
             "nolock,noacl,hard,timeo=%d,retrans=%d,sec=sys",
             a[0], a[1], a[2], a[3], request->port, a[0], a[1], a[2], a[3], request->port, TIMEO, RETRANS);
}

// The same for a root whose handle is known: one connection and two round trips less.
static void data_of(const struct request *request, struct nfs_mount_data *data) {
    *data = (struct nfs_mount_data){
        .version = NFS_MOUNT_VERSION,
        .fd = -1,
        .flags = NFS_MOUNT_TCP | NFS_MOUNT_VER3 | NFS_MOUNT_NONLM | NFS_MOUNT_NOACL | NFS_MOUNT_SECFLAVOUR,
        .timeo = TIMEO,
        .retrans = RETRANS,
        .acregmin = REGULAR_MIN,
        .acregmax = REGULAR_MAX,
        .acdirmin = DIRECTORY_MIN,
        .acdirmax = DIRECTORY_MAX,
        .addr = {.sin_family = AF_INET, .sin_port = htons(request->port)},
        .namlen = 255,
        .root = {.size = (uint16_t)request->handle_size},
        .pseudoflavor = AUTH_SYS,
    };
    memcpy(&data->addr.sin_addr, request->address, sizeof request->address);
    const uint8_t *a = request->address;
    snprintf(data->hostname, sizeof data->hostname, "%u.%u.%u.%u", a[0], a[1], a[2], a[3]);
    memcpy(data->root.data, request->handle, request->handle_size);
}

static int mount_jfs(const struct request *request, struct answer *answer) {
    char source[MAX_PATH + 32], options[256];
    struct nfs_mount_data data;
    const uint8_t *a = request->address;
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
    snprintf(source, sizeof source, "%u.%u.%u.%u:%s", a[0], a[1], a[2], a[3], request->path);
    if (request->handle_size)
        data_of(request, &data);
    else
        options_of(request, options);
    const void *how = request->handle_size ? (const void *)&data : options;
    return mount(source, "/jfs", "nfs", MS_NOSUID | MS_NODEV | MS_NOATIME, how) < 0 ? errno : 0;
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
        if (size < HEAD || value[6] > MAX_HANDLE || size <= HEAD + (size_t)value[6])
            return EINVAL;
        const uint8_t *path = value + HEAD + value[6];
        size_t length = size - HEAD - value[6];
        if (length >= sizeof wanted.path || memchr(path, 0, length))
            return EINVAL;
        memcpy(wanted.address, value, sizeof wanted.address);
        wanted.port = get16(value + 4);
        wanted.handle_size = value[6];
        memcpy(wanted.handle, value + HEAD, value[6]);
        memcpy(wanted.path, path, length);
    }
    return helper_start(work, &wanted, done, 0, TIMEOUT_MS) ? 0 : errno;
}
