/* SPDX-License-Identifier: MIT */
/* The keeper of one process; see record.h. */
#include "proc/keeper.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/check.h"
#include "base/trace.h"
#include "proc/child.h"
#include "sync/event.h"

struct watch {
    struct bri_process_shm *record;
    pid_t child;
    int signals; /* signalfd */
    int starter; /* pidfd, or -1 */
};

static void set_state(struct bri_process_shm *record, enum bri_process_state state)
{
    bri_store_release(&record->state, (uint32_t)state);
    bri_event_signal(&record->event, INT_MAX);
}

static _Noreturn void fail(struct bri_process_shm *record, int error)
{
    bri_store_relaxed(&record->status, error);
    set_state(record, BRI_PROCESS_FAILED);
    bri_process_leave(record, BRI_GONE_KEEPER);
    bri_leave_and_exit();
}

static _Noreturn void run_child(const struct bri_keep *keep, bri_name name, pid_t keeper)
{
    bri_child_begin(name, keeper, (int)keep->record->is_daemon, &keep->mask);
    bri_trace("process %u: begins", (unsigned)name);
    bri_child_end(keep->function(keep->argument) & 0xff);
}

/* It does not become a process that nobody keeps. */
static _Noreturn void abandon_child(struct watch *watch, int error)
{
    bri_name child = bri_load_relaxed(&watch->record->child);

    kill(watch->child, SIGKILL);
    waitpid(watch->child, NULL, 0);
    bri_roster_bury(child, BRI_END_KILLED);
    bri_undertake();
    fail(watch->record, error);
}

static pid_t fork_child(const struct bri_keep *keep)
{
    bri_name name;
    pid_t keeper = getpid();
    int error = bri_roster_claim(BRI_ROLE_PROCESS, &name);

    if (error < 0)
        fail(keep->record, error);
    bri_store_relaxed(&keep->record->child, name);
    pid_t child = fork();
    if (child == 0)
        run_child(keep, name, keeper);
    if (child < 0) {
        error = -errno;
        bri_roster_cancel(name);
        fail(keep->record, error);
    }
    bri_roster_tell_pid(name, (uint32_t)child);
    bri_store_relaxed(&keep->record->pid, child);
    return child;
}

static void starter_died(struct watch *watch)
{
    bri_name starter = bri_load_relaxed(&watch->record->starter);

    if (watch->record->is_daemon)
        kill(watch->child, SIGKILL);
    bri_trace("keeper: the starter has died%s", watch->record->is_daemon ? ", so its daemon does" : "");
    if (watch->starter >= 0)
        close(watch->starter);
    watch->starter = -1;
    bri_roster_bury(starter, BRI_END_KILLED);
    bri_undertake();
}

/* ENDED is said before the child is reaped: as long as the starter does not see it, the child's pid is the child's. */
static int child_has_ended(struct watch *watch)
{
    siginfo_t info = {.si_pid = 0};
    int status = 0;

    if (waitid(P_PID, (id_t)watch->child, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
        return 0;
    int exit_code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    bri_store_relaxed(&watch->record->status, exit_code);
    bri_fault("keeper.status");
    bri_name child = bri_load_relaxed(&watch->record->child);
    bri_roster_bury(child, info.si_code == CLD_EXITED ? BRI_END_CLEAN : BRI_END_KILLED);
    bri_undertake();
    set_state(watch->record, BRI_PROCESS_ENDED);
    waitpid(watch->child, &status, 0);
    bri_trace("keeper: process %d ended with %d", (int)watch->child, exit_code);
    return 1;
}

static void watch_until_end(struct watch *watch)
{
    while (!child_has_ended(watch)) {
        struct pollfd fds[2] = {{watch->signals, POLLIN, 0}, {watch->starter, POLLIN, 0}};
        poll(fds, 2, -1); /* a negative descriptor is left out */
        bri_signal_drain(watch->signals);
        if (fds[1].revents != 0)
            starter_died(watch);
    }
}

void bri_keeper_main(void *argument)
{
    const struct bri_keep *keep = argument;
    struct watch watch = {.record = keep->record};

    bri_fault("keeper.forked");
    if (bri_roster_enter(keep->name) < 0)
        _exit(127);
    if (keep->record->is_daemon)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGCHLD, SIG_DFL);
    watch.child = fork_child(keep);
    bri_close_descriptors();
    watch.signals = bri_signal_descriptor();
    watch.starter = bri_watch(bri_load_relaxed(&keep->record->starter));
    if (watch.signals < 0 || (watch.starter < 0 && watch.starter != -ESRCH))
        abandon_child(&watch, watch.signals < 0 ? watch.signals : watch.starter);
    set_state(keep->record, BRI_PROCESS_RUNNING);
    if (watch.starter < 0)
        starter_died(&watch);
    watch_until_end(&watch);
    if (keep->record->is_daemon) {
        bri_kill_children();
        bri_bury_the_ended(); /* pools and processes of its own, which nobody watches any more */
    }
    bri_process_leave(keep->record, BRI_GONE_KEEPER);
    bri_leave_and_exit();
}
