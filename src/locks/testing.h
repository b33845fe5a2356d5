/* SPDX-License-Identifier: MIT */
/* For the tests of this folder: children that the user forked (nobody watches them), and proofs about system calls. */
#ifndef BRI_LOCKS_TESTING_H
#define BRI_LOCKS_TESTING_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "arena/undertaker.h"
#include "base/testing.h"
#include "brood.h"

/* In a child, where cmocka's own assertions must not be used. */
#define child_check(condition)                                                                               \
    ((condition) ? (void)0                                                                                   \
                 : (dprintf(2, "# %s:%d: does not hold in the child: %s\n", __FILE__, __LINE__, #condition), \
                    _exit(99)))

static inline pid_t start_child(void (*function)(void *argument), void *argument)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(98);
        function(argument);
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

static inline int status_of(pid_t pid)
{
    int status = -1;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

#define assert_exits_well(pid) assert_int_equal(status_of(pid), 0)
#define assert_is_killed(pid)                                                          \
    do {                                                                               \
        int killed_status = status_of(pid);                                            \
        assert_true(WIFSIGNALED(killed_status) && WTERMSIG(killed_status) == SIGKILL); \
    } while (0)

static inline void die(void)
{
    raise(SIGKILL);
}

/* Zeroed memory of the arena. */
static inline void *shared(size_t bytes)
{
    void *memory = NULL;

    assert_int_equal(brood_alloc(bytes, &memory), 0);
    return memory;
}

static inline uint64_t blocks_in_use(void)
{
    brood_arena_stats stats = {.size = sizeof stats};

    assert_int_equal(brood_arena_stats_get(&stats), 0);
    return stats.used_blocks;
}

/* The errno, and a sentence that names the argument. */
#define assert_refused(call, err, argument)                                                 \
    do {                                                                                    \
        assert_int_equal((call), -(err));                                                   \
        if (strstr(brood_error_text(), (argument)) == NULL)                                 \
            fail_msg("%s: \"%s\" does not name %s", #call, brood_error_text(), (argument)); \
    } while (0)

/* From here on every system call but exit_group kills this process.  0: the kernel refuses. */
static inline int forbid_system_calls(void)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof steps / sizeof steps[0], steps};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct silent {
    void (*work)(void *argument);
    void *argument;
};

static inline void work_silently(void *argument)
{
    struct silent *silent = argument;

    silent->work(silent->argument); /* the first time: joins the arena, touches pages */
    if (forbid_system_calls()) {
        silent->work(silent->argument);
        syscall(SYS_exit_group, 0); /* sanitizers have work to do in _exit */
    }
}

/* work(argument) makes no system call once it has run once. */
static inline void assert_makes_no_system_call(void (*work)(void *argument), void *argument)
{
    struct silent silent = {work, argument};

    if (runs_under("valgrind")) /* signal masks, gettid */
        skip_because("valgrind makes system calls of its own, which the kernel cannot tell from ours");
    assert_exits_well(start_child(work_silently, &silent));
}

#endif
