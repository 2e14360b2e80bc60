// Constants of the kernel's interface that musl's headers do not have.
#ifndef MAGS_KERNEL_H
#define MAGS_KERNEL_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifndef FIFREEZE // linux/fs.h
#define FIFREEZE _IOWR('X', 119, int)
#define FITHAW _IOWR('X', 120, int)
#endif
#ifndef RNDADDENTROPY // linux/random.h
#define RNDADDENTROPY _IOW('R', 0x03, int[2])
#define RNDRESEEDCRNG _IO('R', 0x07)
#endif
#ifndef EXT4_IOC_RESIZE_FS // linux/ext4.h
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)
#endif

struct clone_args { // linux/sched.h
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ull
#endif

enum { // linux/nfs_mount.h
    NFS_MOUNT_VERSION = 6,
    NFS_MOUNT_TCP = 0x40,
    NFS_MOUNT_VER3 = 0x80,
    NFS_MOUNT_NONLM = 0x200,
    NFS_MOUNT_NOACL = 0x800,
    NFS_MOUNT_SECFLAVOUR = 0x2000,
    AUTH_SYS = 1
};

struct nfs_mount_data { // linux/nfs_mount.h, version 6
    int version, fd;
    char old_root[32];
    int flags, rsize, wsize, timeo, retrans, acregmin, acregmax, acdirmin, acdirmax;
    struct sockaddr_in addr;
    char hostname[256];
    int namlen;
    unsigned bsize;
    struct {
        uint16_t size;
        uint8_t data[64];
    } root;
    int pseudoflavor;
    char context[257];
};

struct random_pool { // struct rand_pool_info
    int entropy_bits;
    int size;
    uint32_t data[128];
};

#endif
