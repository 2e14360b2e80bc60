#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "bytes.h"
#include "confined.h"
#include "console.h"
#include "kernel.h"

// A superblock's place on its disk, and in it the number of blocks, low and high half (Documentation/filesystems/ext4).
enum { SUPERBLOCK = 1024, BLOCKS_LO = SUPERBLOCK + 0x4, BLOCKS_HI = SUPERBLOCK + 0x150, BLOCK = 4096 };
enum { SIZE_TIMEOUT_MS = 5000 };

static const char *failed;
static char work_disk[64];
static bool has_image;

static bool mounted(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    struct stat status;
    // A link that a guest has put there would lead out of its root, to what is ours.
    if (lstat(target, &status) == 0 && !S_ISDIR(status.st_mode))
        unlink(target);
    if (mkdir(target, 0755) < 0 && errno != EEXIST) {
        failed = target;
        return false;
    }
    if (mount(source, target, type, flags, data) < 0) {
        failed = target;
        return false;
    }
    return true;
}

// The work disk has the serial "work"; without serials it is the second disk.
static void find_work_disk(void) {
    snprintf(work_disk, sizeof work_disk, "/dev/vdb");
    DIR *blocks = opendir("/sys/block");
    struct dirent *entry;
    while (blocks && (entry = readdir(blocks))) {
        char path[300], serial[32] = "";
        snprintf(path, sizeof path, "/sys/block/%s/serial", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t size = read(fd, serial, sizeof serial - 1);
        close(fd);
        if (size >= 4 && !strncmp(serial, "work", 4) && (size == 4 || serial[4] == '\n'))
            snprintf(work_disk, sizeof work_disk, "/dev/%.50s", entry->d_name);
    }
    if (blocks)
        closedir(blocks);
}

static bool mount_image(void) {
    has_image = has_image || mounted("/dev/vda", IMAGE_MOUNT, "ext4", MS_RDONLY | MS_NOATIME, NULL);
    return has_image;
}

void root_prepare(void) {
    find_work_disk();
    mount_image(); // if there is none, it is said when the root is mounted
}

static bool mount_disks(void) {
    if (!mount_image())
        return false;
    // Its tables are zeroed already, and its bitmaps are read when they are needed: the disk may be far away.
    if (!mounted(work_disk, WORK_MOUNT, "ext4", MS_NOATIME, "noinit_itable,no_prefetch_block_bitmaps"))
        return false;
    mkdir(WORK_MOUNT "/upper", 0755);
    mkdir(WORK_MOUNT "/work", 0700);
    chmod(WORK_MOUNT "/upper", 0755); // it becomes the mode of /
    return mounted("overlay", ROOT_MOUNT, "overlay", 0,
                   "lowerdir=" IMAGE_MOUNT ",upperdir=" WORK_MOUNT "/upper,workdir=" WORK_MOUNT "/work");
}

static bool mount_kernel_files(void) {
    return mounted("proc", ROOT_MOUNT "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL) &&
           mounted("sysfs", ROOT_MOUNT "/sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL) &&
           mounted("devtmpfs", ROOT_MOUNT "/dev", "devtmpfs", MS_NOSUID, NULL) &&
           mounted("/pts", ROOT_MOUNT "/dev/pts", NULL, MS_BIND, NULL) &&
           mounted("tmpfs", ROOT_MOUNT "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") &&
           mounted("tmpfs", ROOT_MOUNT "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=10%") &&
           mounted("mags", ROOT_MOUNT "/run/mags", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m");
}

static void make_device_links(void) {
    static const char *const links[][2] = {
        {"/proc/self/fd", ROOT_MOUNT "/dev/fd"},        {"/proc/self/fd/0", ROOT_MOUNT "/dev/stdin"},
        {"/proc/self/fd/1", ROOT_MOUNT "/dev/stdout"}, {"/proc/self/fd/2", ROOT_MOUNT "/dev/stderr"},
        {"pts/ptmx", ROOT_MOUNT "/dev/ptmx"},
    };
    unlink(ROOT_MOUNT "/dev/ptmx"); // the devtmpfs node: ours is an instance of its own
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
            return; // the guest's own affair
}

// Moved over "/" so that the guest's processes are not in a chroot as the kernel sees it (user namespaces work, and
// /proc/mounts begins with "/"). The agent's own root stays the initramfs beneath.
static bool become_root(void) {
    agent.root = open(ROOT_MOUNT, O_PATH | O_DIRECTORY | O_CLOEXEC);
    agent.run = open(ROOT_MOUNT "/run/mags", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    failed = "/";
    return agent.root >= 0 && agent.run >= 0 && mount(ROOT_MOUNT, "/", NULL, MS_MOVE, NULL) == 0;
}

// The device's bytes as its driver knows them; 0 if that can't be read.
static uint64_t size_of_work(void) {
    char path[96], text[32] = "";
    snprintf(path, sizeof path, "/sys/class/block/%s/size", work_disk + sizeof "/dev");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    unsigned long long sectors = 0;
    bool whole = read(fd, text, sizeof text - 1) > 0 && sscanf(text, "%llu", &sectors) == 1;
    close(fd);
    return whole ? sectors * 512 : 0;
}

static bool work_has(uint64_t bytes) {
    static uint64_t seen;
    for (int tries = 0; bytes && bytes != seen && size_of_work() != bytes; tries++) {
        if (tries == SIZE_TIMEOUT_MS)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    seen = bytes;
    return true;
}

// What the file system has; 0 if that can't be read. The kernel keeps it in memory: no disk is asked.
static uint64_t blocks_of_work(void) {
    uint8_t low[4], high[4];
    int fd = open(work_disk, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    bool whole = pread(fd, low, 4, BLOCKS_LO) == 4 && pread(fd, high, 4, BLOCKS_HI) == 4;
    close(fd);
    return whole ? (uint64_t)get32(high) << 32 | get32(low) : 0;
}

int root_mount(uint64_t bytes, const char **what) {
    if (!agent.is_init)
        return EPERM;
    if (agent.root >= 0)
        return 0;
    if (!work_has(bytes)) {
        *what = "the size of the work disk";
        return ETIMEDOUT;
    }
    mkdir(ROOT_MOUNT, 0755);
    if (mount_disks() && mount_kernel_files() && (make_device_links(), become_root())) {
        agent.run_path = "/run/mags";
        agent.confine = true;
        return 0;
    }
    int error = errno;
    *what = failed;
    root_unmount();
    return error;
}

void root_unmount(void) {
    if (agent.root >= 0)
        close(agent.root);
    if (agent.run >= 0)
        close(agent.run);
    agent.root = agent.run = -1;
    root_sync(); // not sync(2), which would wait for the server of /jfs too
    // Innermost first; those that were never mounted fail, and that is all right.
    umount2(ROOT_MOUNT "/run/mags", MNT_DETACH);
    umount2(ROOT_MOUNT, MNT_DETACH);
    umount2(WORK_MOUNT, 0);
    umount2(IMAGE_MOUNT, 0);
    has_image = false;
}

int root_sync(void) {
    int fd = open(agent.is_init ? WORK_MOUNT : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = syncfs(fd) < 0 ? errno : 0;
    close(fd);
    return error;
}

int root_grow(uint64_t bytes, const char **what) {
    *what = "the work disk";
    if (!work_has(bytes))
        return ETIMEDOUT;
    uint64_t blocks = (bytes ? bytes : size_of_work()) / BLOCK;
    if (!blocks)
        return EIO;
    if (blocks == blocks_of_work())
        return 0; // the kernel would write out its whole journal all the same
    int fd = open(WORK_MOUNT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = ioctl(fd, EXT4_IOC_RESIZE_FS, &blocks) < 0 ? errno : 0;
    close(fd);
    return error;
}

bool root_mentions(const char *path, const char *word) {
    static char text[64 * 1024];
    int fd = confined_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    text[size > 0 ? size : 0] = 0;
    return strstr(text, word);
}

void root_write(const char *path, unsigned mode, const char *text) {
    if (confined_holds(path, text) || confined_rewrite(path, mode, text))
        return;
    int error = confined_replace(path, mode, text);
    if (error == ENOENT && mkdirat(agent.root, "etc", 0755) == 0)
        error = confined_replace(path, mode, text);
    // Its user may have filled his disk, or taken it apart, and must get in to put that right.
    if (error)
        say("mags-agent: %s: %s", path, strerror(error));
}
