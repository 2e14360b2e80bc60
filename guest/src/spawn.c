#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "builtin.h"
#include "script.h"
#include "world.h"

enum { MAX_DEFAULTS = 512 };

static char *defaults[MAX_DEFAULTS];
static size_t default_count;

static size_t name_length(const char *assignment) { return (size_t)(strchr(assignment, '=') - assignment); }

static bool same_name(const char *a, const char *b) {
    size_t length = name_length(a);
    return !strncmp(a, b, length + 1);
}

void environment_set(const char *assignment) {
    char *copy = strdup(assignment);
    if (!copy)
        return;
    for (size_t i = 0; i < default_count; i++)
        if (same_name(defaults[i], copy)) {
            free(defaults[i]);
            defaults[i] = copy;
            return;
        }
    if (default_count < MAX_DEFAULTS)
        defaults[default_count++] = copy;
    else
        free(copy);
}

enum { BASICS = 8 };

struct environment {
    char *variables[BASICS + MAX_DEFAULTS + MAX_STRINGS + 1];
    size_t count;
    char home[300], user[160], logname[160];
};

static void put(struct environment *environment, char *assignment) {
    for (size_t i = 0; i < environment->count; i++)
        if (same_name(environment->variables[i], assignment)) {
            environment->variables[i] = assignment;
            return;
        }
    environment->variables[environment->count++] = assignment;
}

static void merge_environment(struct environment *environment, struct wish *wish, const struct identity *identity) {
    static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    static char language[] = "LANG=C.UTF-8", shell[] = "SHELL=/bin/sh", term[] = "TERM=xterm-256color";
    environment->count = 0;
    snprintf(environment->home, sizeof environment->home, "HOME=%s", identity->home);
    snprintf(environment->user, sizeof environment->user, "USER=%s", identity->name);
    snprintf(environment->logname, sizeof environment->logname, "LOGNAME=%s", identity->name);
    put(environment, path);
    put(environment, environment->home);
    put(environment, environment->user);
    put(environment, environment->logname);
    put(environment, language);
    put(environment, shell);
    if (wish->has_terminal)
        put(environment, term);
    for (size_t i = 0; i < default_count; i++)
        put(environment, defaults[i]);
    for (size_t i = 0; i < wish->variables; i++)
        put(environment, wish->environment[i]);
    environment->variables[environment->count] = NULL;
}

struct plan {
    struct wish *wish;
    const struct ends *ends;
    const struct identity *identity;
    char *const *argv;
    char *const *environment;
    const char *path; // to search for argv[0]
    const char *script; // the file that was written for it
    bool is_warm;
    int error; // set by a child that shares our memory
};

static bool move_fd(int from, int to) { return from == to ? fcntl(to, F_SETFD, 0) == 0 : dup2(from, to) == to; }

// The agent's end of the terminal was opened where the child cannot see it, so ttyname(3) would find nothing: open it
// again by the name it has in the guest, unless the guest has put something else there.
static int visible_terminal(const struct ends *ends) {
    char path[32];
    struct stat mine, found;
    snprintf(path, sizeof path, "/dev/pts/%d", ends->terminal_number);
    if (fstat(ends->input, &mine) < 0 || stat(path, &found) < 0 || !S_ISCHR(found.st_mode) ||
        mine.st_rdev != found.st_rdev)
        return ends->input;
    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? ends->input : fd;
}

static int take_terminal(const struct ends *ends) {
    int fd = visible_terminal(ends);
    if (ioctl(fd, TIOCSCTTY, 0) < 0)
        return errno;
    return move_fd(fd, 0) && move_fd(fd, 1) && move_fd(fd, 2) ? 0 : errno;
}

static int take_files(const struct ends *ends) {
    int input = ends->input < 0 ? agent.null : ends->input;
    if (!move_fd(input, 0) || !move_fd(ends->output, 1) || !move_fd(ends->error, 2))
        return errno;
    return ends->result >= 0 && !move_fd(ends->result, 3) ? errno : 0;
}

// ENOENT is for a program that is missing: that is how a caller tells the two apart.
static int no_directory(struct wish *wish, int error) {
    snprintf(wish->failure, sizeof wish->failure, "the directory to start in, %.150s: %s", wish->cwd, strerror(error));
    return error == ENOENT ? EINVAL : error;
}

// In the child. Plain system calls where the library's wrappers would synchronise threads.
static int enter(const struct plan *plan) {
    const struct ends *ends = plan->ends;
    const struct wish *wish = plan->wish;
    const struct identity *identity = plan->identity;
    setsid();
    if (agent.is_init)
        setpriority(PRIO_PROCESS, 0, 0);
    if (agent.confine && !plan->is_warm) {
        if (fchdir(agent.root) < 0 || chroot(".") < 0)
            return errno;
    }
    int error = ends->is_terminal ? take_terminal(ends) : take_files(ends);
    if (error)
        return error;
    if (identity->uid || identity->gid || wish->user) {
        if (syscall(SYS_setgroups, identity->group_count, identity->groups) < 0)
            return errno;
        if (syscall(SYS_setresgid, identity->gid, identity->gid, identity->gid) < 0)
            return errno;
    }
    for (size_t i = 0; i < wish->limit_count; i++)
        if (setrlimit(wish->limits[i].resource, &wish->limits[i].bounds) < 0)
            return errno;
    if (identity->uid && syscall(SYS_setresuid, identity->uid, identity->uid, identity->uid) < 0)
        return errno;
    // After the change of user, so that the directory is one it may enter.
    if (wish->cwd) {
        if (chdir(wish->cwd) < 0)
            return no_directory(plan->wish, errno);
    } else if (!plan->is_warm && chdir(identity->home) < 0 && chdir("/") < 0) {
        return errno;
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}

// The kernel says of a program whose interpreter is missing that it were missing itself.
static bool lacks_interpreter(const char *file, const char *shown, char *failure) {
    char head[128] = "";
    int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (read(fd, head, sizeof head - 1) < 0)
        head[0] = 0;
    close(fd);
    if (strncmp(head, "#!", 2) != 0) {
        snprintf(failure, FAILURE_TEXT, "%.150s: its dynamic loader is missing", shown);
        return true;
    }
    const char *interpreter = head + 2 + strspn(head + 2, " \t");
    snprintf(failure, FAILURE_TEXT, "%.100s: its interpreter is missing: %.*s", shown,
             (int)strcspn(interpreter, " \t\r\n"), interpreter);
    return true;
}

static int no_program(const struct plan *plan, const char *file, int error) {
    char *failure = plan->wish->failure;
    const char *shown = !*file ? "the empty name" : file == plan->script ? "the script" : file;
    if (error != ENOENT || !lacks_interpreter(file, shown, failure))
        snprintf(failure, FAILURE_TEXT, "%.150s: %s", shown, strerror(error));
    return error;
}

// execvp(3) with the child's own PATH; `path` of the plan is not changed.
static int execute(const struct plan *plan) {
    const char *name = plan->argv[0];
    if (strchr(name, '/') || !*name) {
        execve(name, plan->argv, plan->environment);
        return no_program(plan, name, errno);
    }
    char file[4096];
    int error = ENOENT;
    snprintf(plan->wish->failure, FAILURE_TEXT, "%.100s: not found in %.100s", name, plan->path);
    for (const char *at = plan->path; at;) {
        const char *end = strchr(at, ':');
        size_t length = end ? (size_t)(end - at) : strlen(at);
        if (length + strlen(name) + 2 < sizeof file) {
            snprintf(file, sizeof file, "%.*s/%s", length ? (int)length : 1, length ? at : ".", name);
            execve(file, plan->argv, plan->environment);
            int why = errno;
            if (why == ENOENT && access(file, F_OK) == 0)
                return no_program(plan, file, why);
            if (why != ENOENT && why != ENOTDIR)
                error = no_program(plan, file, why);
            if (why == ENOEXEC || why == E2BIG)
                break;
        }
        at = end ? end + 1 : NULL;
    }
    return error;
}

// While a child of vfork has not executed its program, the agent stands still. Where it may enter /jfs on the way it
// could do so for ever, so it gets memory of its own, and tells of a failure as a shell would.
static bool may_hang(const struct plan *plan) {
    const struct wish *wish = plan->wish;
    return agent.jfs && (wish->cwd || wish->user || strstr(plan->path, "/jfs") ||
                         (!wish->has_script && strchr(plan->argv[0], '/')));
}

static pid_t start_slow_program(struct plan *plan) {
    pid_t pid = fork();
    if (pid)
        return pid < 0 ? -errno : pid;
    world_enter();
    int error = enter(plan);
    if (!error)
        error = execute(plan);
    if (*plan->wish->failure)
        dprintf(STDERR_FILENO, "mags: %s\n", plan->wish->failure);
    else
        dprintf(STDERR_FILENO, "mags: %s: %s\n", plan->argv[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
}

static int run_program(void *context) {
    struct plan *plan = context;
    int error = enter(plan);
    plan->error = error ? error : execute(plan);
    return 127;
}

static pid_t start_program(struct plan *plan) {
    if (may_hang(plan))
        return start_slow_program(plan);
    // The agent waits until the child has its own memory: no page tables are copied, the child starts at once.
    pid_t pid = world_start(run_program, plan);
    if (pid < 0)
        return -errno;
    if (plan->error)
        return -plan->error;
    *plan->wish->failure = 0; // of a directory in the PATH that was not the right one
    return pid;
}

static pid_t start_builtin(struct plan *plan) {
    pid_t pid = fork();
    if (pid)
        return pid < 0 ? -errno : pid;
    world_enter();
    int error = enter(plan);
    // Not exec'd, so nothing closes by itself what is the agent's.
    syscall(SYS_close_range, plan->ends->result >= 0 ? 4 : 3, ~0u, 0);
    if (error)
        _exit(result(error, "cannot enter the guest's root", NULL, 0));
    _exit(builtin_run(plan->wish->builtin, plan->wish->argv, plan->wish->argc));
}

static int prepare_script(uint32_t id, struct wish *wish, char path[SCRIPT_PATH]) {
    static char shell[] = "/bin/sh", flag[] = "-c", name[] = "sh";
    size_t size = script_unix_lines(wish->script, wish->script_size);
    bool names_interpreter = size >= 2 && wish->script[0] == '#' && wish->script[1] == '!';
    bool as_file = script_needs_file(wish->script, size);
    size_t head = as_file ? names_interpreter ? 1 : 2 : 4;
    if (wish->argc + head > MAX_STRINGS)
        return E2BIG;
    memmove(wish->argv + head, wish->argv, (wish->argc + 1) * sizeof *wish->argv);
    wish->script[size] = 0;
    if (as_file) {
        int error = script_write(id, wish->script, size, path);
        if (error)
            return error;
        wish->has_script_file = true;
        wish->argv[0] = shell;
        wish->argv[head - 1] = path;
    } else {
        memcpy(wish->argv, (char *[]){shell, flag, wish->script, name}, 4 * sizeof *wish->argv);
    }
    return 0;
}

static const char *search_path(const struct environment *environment) {
    for (size_t i = environment->count; i-- > 0;)
        if (!strncmp(environment->variables[i], "PATH=", 5))
            return environment->variables[i] + 5;
    return "/bin";
}

pid_t spawn(uint32_t id, struct wish *wish, const struct ends *ends) {
    static struct environment environment;
    static char self[] = "/proc/self/exe", warm[] = "--warm";
    char path[SCRIPT_PATH];
    struct identity identity;
    bool is_warm = wish->builtin == BUILTIN_WARM;
    if (agent.root < 0 && !is_warm)
        return -ENOTCONN;
    int error = identity_find(&identity, wish->user, wish->failure);
    if (!error && wish->has_script)
        error = prepare_script(id, wish, path);
    if (error)
        return -error;
    merge_environment(&environment, wish, &identity);
    if (is_warm) {
        wish->argv[0] = self;
        wish->argv[1] = warm;
        wish->argv[2] = NULL;
    }
    struct plan plan = {
        .wish = wish,
        .ends = ends,
        .identity = &identity,
        .argv = wish->argv,
        .environment = environment.variables,
        .path = search_path(&environment),
        .script = wish->has_script_file ? path : NULL,
        .is_warm = is_warm,
    };
    return wish->builtin && !is_warm ? start_builtin(&plan) : start_program(&plan);
}
