/* SPDX-License-Identifier: MIT */
/* brood_process: the starter's side; see record.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/error.h"
#include "base/options.h"
#include "base/time.h"
#include "base/trace.h"
#include "plat/descriptor.h"
#include "plat/process.h"
#include "proc/child.h"
#include "proc/keeper.h"
#include "sync/event.h"

struct brood_process {
    struct bri_process_shm *record;
    bri_name starter;
    bri_name keeper;
    int fd; /* of the keeper: it ends once everything about the child is written down */
    char name[];
};

enum { SLICE_MS = 100 };

static int check_owner(const brood_process *process)
{
    if (process == NULL)
        return bri_fail(EINVAL, "process is NULL: pass what brood_process_start gave");
    if (bri_arena_current == NULL || process->starter != bri_self())
        return bri_fail(EPERM, "process %s was started by another process: only its starter may ask this",
                        process->name);
    return 0;
}

static enum bri_process_state state_of(const brood_process *process)
{
    return (enum bri_process_state)bri_load_acquire(&process->record->state);
}

/* --- start --- */

static brood_process *make_handle(const char *name)
{
    static _Atomic unsigned counter;
    char numbered[32];

    if (name == NULL) {
        snprintf(numbered, sizeof numbered, "Process-%u", bri_add_relaxed(&counter, 1u) + 1);
        name = numbered;
    }
    brood_process *process = malloc(sizeof *process + strlen(name) + 1);
    if (process == NULL)
        return NULL;
    *process = (brood_process){.starter = bri_self(), .fd = -1};
    memcpy(process->name, name, strlen(name) + 1); /* NOLINT(bugprone-not-null-terminated-result) */
    return process;
}

static int make_record(brood_process *process, int is_daemon)
{
    void *memory;
    int error = bri_heap_alloc_zeroed(BRI_KIND_PROCESS, sizeof *process->record, bri_self(), &memory);

    if (error < 0)
        return error;
    process->record = memory;
    error = bri_roster_claim(BRI_ROLE_KEEPER, &process->keeper);
    if (error < 0) {
        bri_heap_free(memory);
        return error;
    }
    bri_store_relaxed(&process->record->starter, bri_self());
    bri_store_relaxed(&process->record->keeper, process->keeper);
    process->record->is_daemon = is_daemon != 0;
    bri_block_pass(bri_block_of(memory), 0);
    return 0;
}

static int has_started(void *argument)
{
    brood_process *process = argument;

    if (state_of(process) != BRI_PROCESS_STARTING)
        return 1;
    if (!bri_report_if_ended(process->keeper) && bri_is_alive(process->keeper))
        return 0;
    return state_of(process) != BRI_PROCESS_STARTING ? 1 : 2; /* a short life may be over between two looks */
}

/* Readable for ever, as for a keeper that has ended.  Opened before the fork, so that having no descriptor is found out in time. */
static int open_ended(void)
{
    int fd = bri_fd_high(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));

    return fd < 0 ? bri_fail_os(-fd, "no descriptor for the process") : fd;
}

/* The keeper's takes the number of the one that says "ended". */
static int open_descriptor(brood_process *process)
{
    int fd = bri_watch(process->keeper);

    if (fd == -ESRCH)
        return 0;
    if (fd < 0) { /* the only one left */
        close(process->fd);
        fd = bri_watch(process->keeper);
        process->fd = fd == -ESRCH ? open_ended() : fd;
        return process->fd >= 0 ? 0 : bri_fail_os(-process->fd, "no descriptor for the process");
    }
    dup3(fd, process->fd, O_CLOEXEC);
    close(fd);
    return 0;
}

/* The keeper was killed after its child had entered, which goes on: true. */
static int adopt_orphan(struct bri_process_shm *record)
{
    bri_name child = bri_load_acquire(&record->child);
    uint32_t starting = BRI_PROCESS_STARTING;

    if (!bri_is_alive(child) || !bri_cas_acq_rel(&record->state, &starting, (uint32_t)BRI_PROCESS_LOST))
        return 0;
    bri_store_relaxed(&record->pid, (int32_t)bri_roster_pid_of(child));
    return 1;
}

static int wait_until_started(brood_process *process)
{
    int how =
        bri_wait(&process->record->event, has_started, process, BROOD_FOREVER, SLICE_MS * BRI_NS_PER_MS);
    int failed = state_of(process) == BRI_PROCESS_FAILED;
    int error = (int)bri_load_relaxed(&process->record->status);

    if (!failed && (how != 2 || adopt_orphan(process->record)))
        return 0;
    bri_process_leave(process->record, BRI_GONE_STARTER);
    return failed ? bri_fail_os(-error, "cannot start a process for %s", process->name)
                  : bri_fail(EAGAIN, "the keeper of process %s was killed while it started", process->name);
}

static int fork_keeper(brood_process *process, brood_process_function *function, void *argument)
{
    struct bri_keep keep = {
        .record = process->record, .function = function, .argument = argument, .name = process->keeper};

    pthread_sigmask(SIG_SETMASK, NULL, &keep.mask);
    bri_flush_output();
    pid_t pid = bri_fork_detached(bri_keeper_main, &keep);
    if (pid < 0) {
        bri_process_leave(process->record,
                          BRI_GONE_BOTH); /* first: by the claim an undertaker would find it */
        bri_roster_cancel(process->keeper);
        return bri_fail_os(-pid, "cannot start a process for %s", process->name);
    }
    bri_roster_tell_pid(process->keeper, (uint32_t)pid);
    return wait_until_started(process);
}

/* Runs, but nobody could ask after it. */
static int give_up(brood_process *process, int error)
{
    int fd = bri_pidfd_open((pid_t)bri_load_relaxed(&process->record->pid));

    if (fd >= 0)
        bri_pidfd_signal(fd, SIGKILL), close(fd);
    bri_process_leave(process->record, BRI_GONE_STARTER);
    return error;
}

int brood_process_start(brood_process_function *function, void *argument,
                        const brood_process_options *options, brood_process **ret_process)
{
    brood_process_options known;

    if (function == NULL)
        return bri_fail(EINVAL, "function is NULL: pass the function that the process is to run");
    if (ret_process == NULL)
        return bri_fail(EINVAL, "ret_process is NULL: pass where the handle goes");
    int error = bri_options_take(options, &known, sizeof known, "options");
    if (error == 0)
        error = bri_arena_enter();
    if (error < 0)
        return error;
    brood_process *process = make_handle(known.name);
    if (process == NULL)
        return bri_fail(ENOMEM, "no memory for a process handle");
    error = process->fd = open_ended();
    if (error >= 0)
        error = make_record(process, known.daemon);
    if (error == 0)
        error = fork_keeper(process, function, argument);
    if (error == 0 && (error = open_descriptor(process)) < 0)
        error = give_up(process, error);
    if (error < 0) {
        if (process->fd >= 0)
            close(process->fd);
        free(process);
        return error;
    }
    bri_trace("process %s: started, pid %d", process->name, (int)bri_load_relaxed(&process->record->pid));
    *ret_process = process;
    return 0;
}

/* --- join and the rest --- */

static int has_child_ended(void *argument)
{
    const brood_process *process = argument;

    return bri_roster_has_ended(bri_load_relaxed(&process->record->child));
}

/* The keeper was killed; the child may live on without it. */
static int join_orphan(brood_process *process, int64_t deadline)
{
    bri_name child = bri_load_relaxed(&process->record->child);

    bri_report_if_ended(process->keeper);
    int fd = bri_watch(child);
    int error = fd >= 0        ? bri_wait_for_end(fd, deadline)
                : fd == -ESRCH ? 0
                               : bri_wait(&process->record->event, has_child_ended, process, deadline,
                                          SLICE_MS * BRI_NS_PER_MS);
    if (fd >= 0)
        close(fd);
    if (error < 0)
        return bri_fail_wait(error, "process %s still runs", process->name);
    bri_report_if_ended(child);
    return 0;
}

int brood_process_join(brood_process *process, int64_t deadline)
{
    int error = check_owner(process);

    if (error < 0)
        return error;
    if (deadline < 0)
        return bri_fail(EINVAL, "deadline is negative: use brood_after_ms, BROOD_NOW or BROOD_FOREVER");
    if (state_of(process) == BRI_PROCESS_ENDED)
        return 0;
    error = process->fd >= 0 ? bri_wait_for_end(process->fd, deadline) : 0;
    if (error < 0)
        return bri_fail_wait(error, "process %s still runs", process->name);
    return state_of(process) == BRI_PROCESS_ENDED ? 0 : join_orphan(process, deadline);
}

int brood_process_is_alive(brood_process *process)
{
    int error = check_owner(process);

    return error < 0 ? error : brood_process_join(process, BROOD_NOW) == -ETIMEDOUT;
}

int brood_process_exit_code(brood_process *process, int *ret_exit_code)
{
    int alive = brood_process_is_alive(process);

    if (alive < 0)
        return alive;
    if (ret_exit_code == NULL)
        return bri_fail(EINVAL, "ret_exit_code is NULL: pass where the exit code goes");
    if (alive)
        return bri_fail(EAGAIN, "process %s still runs", process->name);
    int32_t status = bri_load_relaxed(&process->record->status);
    if (status == BRI_STATUS_UNKNOWN)
        return bri_fail(ENODATA, "process %s ended together with its keeper: nobody knows how",
                        process->name);
    *ret_exit_code = status;
    return 0;
}

int brood_process_pid(brood_process *process)
{
    if (process == NULL)
        return bri_fail(EINVAL, "process is NULL: pass what brood_process_start gave");
    return (int)bri_load_relaxed(&process->record->pid);
}

int brood_process_fd(brood_process *process)
{
    if (process == NULL)
        return bri_fail(EINVAL, "process is NULL: pass what brood_process_start gave");
    return process->fd;
}

/* The pid is the child's as long as ENDED is not said, and the descriptor holds on to it. */
static int send_signal(brood_process *process, int signal)
{
    int error = check_owner(process);

    if (error < 0)
        return error;
    int fd = bri_pidfd_open((pid_t)bri_load_relaxed(&process->record->pid));
    if (fd >= 0 && state_of(process) != BRI_PROCESS_ENDED)
        bri_pidfd_signal(fd, signal);
    if (fd >= 0)
        close(fd);
    return 0;
}

int brood_process_terminate(brood_process *process)
{
    return send_signal(process, SIGTERM);
}

int brood_process_kill(brood_process *process)
{
    return send_signal(process, SIGKILL);
}

const char *brood_process_name(brood_process *process)
{
    return process == NULL ? NULL : process->name;
}

int brood_process_destroy(brood_process *process)
{
    if (process == NULL)
        return 0;
    if (bri_arena_current != NULL && process->starter == bri_self()) {
        if (process->record->is_daemon && state_of(process) == BRI_PROCESS_RUNNING)
            send_signal(process, SIGKILL);
        bri_process_leave(process->record, BRI_GONE_STARTER);
    }
    if (process->fd >= 0)
        close(process->fd);
    free(process);
    return 0;
}
