/* SPDX-License-Identifier: MIT */
#include "plat/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

#include "base/time.h"
#include "brood.h"
#include "plat/descriptor.h"

enum {
    STACK_BYTES = 256 * 1024,
    STAT_BYTES = 1024,
    STATE_FIELD = 3,
    THREADS_FIELD = 20,
    START_TIME_FIELD = 22
};

const char *bri_stat_field(const char *stat, int wanted)
{
    const char *at = strrchr(stat, ')');

    for (int field = 2; at != NULL && field < wanted; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? "" : at + 1;
}

int bri_stat_read(int folder, const char *path, char *stat, size_t size)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return 0;
    ssize_t got = read(fd, stat, size - 1);
    close(fd);
    if (got <= 0)
        return 0;
    stat[got] = '\0';
    return 1;
}

static int read_stat(pid_t pid, char *stat, size_t size)
{
    char path[40];

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    return bri_stat_read(AT_FDCWD, path, stat, size);
}

uint64_t bri_process_start_time(pid_t pid)
{
    char stat[STAT_BYTES];

    return read_stat(pid, stat, sizeof stat) ? strtoull(bri_stat_field(stat, START_TIME_FIELD), NULL, 10) : 0;
}

/* Without a descriptor (none left, or no pidfd_open): a zombie whose last thread it is has ended.  Cannot be told: alive. */
static int has_ended_by_stat(pid_t pid)
{
    char stat[STAT_BYTES];

    if (kill(pid, 0) != 0 && errno == ESRCH)
        return 1;
    if (!read_stat(pid, stat, sizeof stat))
        return 0;
    return (*bri_stat_field(stat, STATE_FIELD) == 'Z' || *bri_stat_field(stat, STATE_FIELD) == 'X') &&
           strtoul(bri_stat_field(stat, THREADS_FIELD), NULL, 10) <= 1;
}

int bri_process_has_one_thread(void)
{
    char stat[STAT_BYTES];

    return read_stat(getpid(), stat, sizeof stat) &&
           strtoul(bri_stat_field(stat, THREADS_FIELD), NULL, 10) == 1;
}

int bri_process_has_ended(pid_t pid, uint64_t start_time)
{
    int fd = bri_pidfd_open(pid);

    if (fd == -ESRCH)
        return 1;
    int ended = fd < 0 ? has_ended_by_stat(pid) : bri_pidfd_has_ended(fd);
    if (fd >= 0)
        close(fd);
    if (!ended && start_time != 0) {
        uint64_t now = bri_process_start_time(pid);
        ended = now != 0 && now != start_time;
    }
    return ended;
}

int bri_pidfd_open(pid_t pid)
{
    return bri_fd_high((int)syscall(SYS_pidfd_open, pid, 0u));
}

int bri_pidfd_signal(int pidfd, int signal)
{
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0u) < 0 ? -errno : 0;
}

int bri_pidfd_has_ended(int pidfd)
{
    struct pollfd watch = {.fd = pidfd, .events = POLLIN};

    return poll(&watch, 1, 0) == 1;
}

int bri_pidfd_wait_once(int pidfd, int64_t deadline)
{
    struct pollfd watch = {.fd = pidfd, .events = POLLIN};
    int64_t left = deadline == BROOD_FOREVER ? -1 : deadline - bri_now_ns();
    struct timespec limit = {0, 0};

    if (left > 0)
        limit = (struct timespec){(time_t)(left / BRI_NS_PER_S), (long)(left % BRI_NS_PER_S)};
    int ready = ppoll(&watch, 1, deadline == BROOD_FOREVER ? NULL : &limit, NULL);
    if (ready == 1)
        return 0;
    return ready < 0 ? -EINTR : -ETIMEDOUT;
}

int bri_pidfd_wait(int pidfd, int64_t deadline)
{
    int error;

    do
        error = bri_pidfd_wait_once(pidfd, deadline);
    while (error == -EINTR);
    return error;
}

struct detach {
    void (*child)(void *argument);
    void *argument;
    char *stack;
    pid_t pid; /* the helper, in the caller's memory */
};

/* AddressSanitizer takes the stack that the program began with for the stack of any process's first thread, and says so on standard error.
 * What the program keeps on that stack is not lost, though nobody runs on it here. */
static void tell_sanitizer_of_stack(const char *stack)
{
#ifdef __SANITIZE_ADDRESS__
    pthread_attr_t attributes;
    void *callers;
    size_t bytes;

    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        if (pthread_attr_getstack(&attributes, &callers, &bytes) == 0)
            __lsan_register_root_region(callers, bytes);
        pthread_attr_destroy(&attributes);
    }
    __sanitizer_start_switch_fiber(NULL, stack, STACK_BYTES);
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#else
    (void)stack;
#endif
}

/* In the helper, on the caller's memory and a stack of its own.  Its exit status tells the caller what fork() said. */
static int fork_from_helper(void *argument)
{
    struct detach detach = *(struct detach *)argument;
    pid_t pid = fork();

    if (pid == 0) {
        tell_sanitizer_of_stack(detach.stack);
        detach.child(detach.argument);
        _exit(127);
    }
    ((struct detach *)argument)->pid = pid;
    return pid < 0 ? errno & 0xff : 0;
}

static pid_t run_helper(struct detach *detach)
{
    int status = 0;
    /* The flags' low byte, the exit signal, is 0: wait() without __WCLONE does not see the helper. */
    pid_t helper = clone(fork_from_helper, detach->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK, detach);

    if (helper < 0)
        return -errno;
    while (waitpid(helper, &status, (int)__WCLONE) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status))
        return WEXITSTATUS(status) == 0 ? detach->pid : -WEXITSTATUS(status);
    return -EAGAIN; /* the helper was killed; fork() may have worked, the child notices that nobody wants it */
}

pid_t bri_fork_detached(void (*child)(void *argument), void *argument)
{
    sigset_t all, before;
    char *stack =
        mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    struct detach detach = {child, argument, stack, 0};

    if (stack == MAP_FAILED)
        return -ENOMEM;
    /* The helper would run the caller's handlers on the caller's memory. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = run_helper(&detach);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    munmap(stack, STACK_BYTES);
    return pid;
}
