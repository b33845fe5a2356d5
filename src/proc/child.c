/* SPDX-License-Identifier: MIT */
#include "proc/child.h"

#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/roster.h"
#include "heap/bulk.h"
#include "plat/children.h"
#include "plat/descriptor.h"
#include "plat/process.h"
#include "plat/random.h"

void bri_flush_output(void)
{
    fflush(stdout);
    fflush(stderr);
}

static void close_range_or_each(unsigned first, unsigned last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0u) == 0)
        return;
    for (long fd = first, end = sysconf(_SC_OPEN_MAX); fd < end && fd <= (long)last; fd++)
        close((int)fd);
}

void bri_close_descriptors(void)
{
    struct stat status;
    unsigned kept = bri_arena_stat(&status) ? (unsigned)bri_arena_current->memfd : STDERR_FILENO;

    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    close_range_or_each(STDERR_FILENO + 1, kept - 1);
    close_range_or_each(kept + 1, ~0u);
}

void bri_child_begin(bri_name name, pid_t parent, int dies_with_parent, const sigset_t *mask)
{
    /* The parent has one thread: its death as a thread is its death. */
    if (dies_with_parent)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dies_with_parent && getppid() != parent)
        _exit(127);
    if (bri_roster_enter(name) < 0)
        _exit(127);
    bri_random_reseed();
    sigprocmask(SIG_SETMASK, mask, NULL);
}

_Noreturn void bri_child_end(int exit_code)
{
    bri_flush_output();
    _exit(exit_code);
}

int bri_signal_descriptor(void)
{
    sigset_t set;

    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    /* A host that ignores SIGCHLD would have its children reaped unseen. */
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGUSR1);
    return bri_fd_high(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

void bri_signal_drain(int descriptor)
{
    struct signalfd_siginfo info[8];

    while (read(descriptor, info, sizeof info) > 0) {
    }
}

int bri_exit_code_of(int status)
{
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int bri_watch(bri_name name)
{
    if (name == 0 || bri_roster_has_ended(name))
        return -ESRCH;
    pid_t pid = (pid_t)bri_roster_pid_of(name);
    if (pid == 0) /* it leaves: the pid goes before the slot is free */
        return -ESRCH;
    int fd = bri_pidfd_open(pid);
    if (fd >= 0 && bri_roster_has_ended(name)) {
        close(fd);
        return -ESRCH;
    }
    return fd;
}

_Noreturn void bri_leave_and_exit(void)
{
    bri_bulk_leave(0);
    bri_roster_leave();
    _exit(0);
}

static void kill_child(pid_t child, void *unused)
{
    (void)unused;
    kill(child, SIGKILL);
}

/* Whoever is reaped has left its children to us, so after each reaping all are killed anew; before a wait nobody is reaped, so that it ends. */
void bri_kill_children(void)
{
    siginfo_t info;

    bri_close_descriptors(); /* so that there is one for /proc */
    while (bri_children_each(getpid(), kill_child, NULL) == 0 &&
           waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0) /* ends with ECHILD */
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
}
