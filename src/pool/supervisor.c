/* SPDX-License-Identifier: MIT */
/*
 * The supervisor of a pool.  One thread, all signals blocked; sleeps in poll() on its signals (a child ended; the owner's doorbell) and on
 * the owner's end.
 *
 * state × what happened:
 *
 *                 worker left by itself   worker died                    owner's doorbell       owner died
 *   RUNNING       start another           start another; or give up      -                      kill all, end
 *   CLOSING       -, end after the last   start another; or give up      -                      kill all, end
 *   TERMINATING   -, end after the last   -, end after the last          SIGTERM, then SIGKILL  kill all, end
 * Until TERMINATING it also ends tasks that are past their time or cancelled: enforce.h.
 *
 * give up: see `is_hopeless`.  end: kills what the workers have left behind, says ENDED or BROKEN.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/check.h"
#include "base/time.h"
#include "base/trace.h"
#include "plat/memory.h"
#include "plat/process.h"
#include "pool/enforce.h"
#include "pool/limits.h"
#include "pool/pool.h"
#include "proc/child.h"
#include "sync/event.h"

enum { BARREN_PER_WORKER = 3, BARREN_LEAST = 8, RETRY_MS = 20, RETRIES = 100 };

struct supervisor {
    brood_pool *pool;
    struct bri_pool_shm *shared;
    int signals; /* signalfd */
    int owner;   /* pidfd of the owner */
    pid_t pid;
    uint32_t workers;   /* and this, too, nobody else can change: damage, see pool.h */
    uint32_t live;      /* workers not yet reaped */
    uint32_t barren;    /* deaths in a row outside of tasks, right after the start */
    uint32_t unstarted; /* failed attempts to start a worker, in a row */
    uint64_t oom_kills; /* of the kernel, when it was asked last */
    int64_t kill_at;    /* TERMINATING: when SIGKILL is due; BROOD_FOREVER: not yet begun */
};

/* --- workers --- */

static int fill_spare(_Atomic bri_offset *spare, bri_name owner)
{
    void *memory;

    if (bri_heap_find(bri_load_relaxed(spare), BRI_KIND_FAILURE, sizeof(struct bri_failure_shm)) != NULL)
        return 0;
    int error = bri_heap_alloc(BRI_KIND_FAILURE, sizeof(struct bri_failure_shm), bri_self(), &memory);
    if (error < 0)
        return error;
    memset(memory, 0, sizeof(struct bri_failure_shm));
    bri_store_release(&bri_block_of(memory)->aux[1], bri_offset_of((const void *)spare));
    bri_store_release(&bri_block_of(memory)->aux[2], (uint64_t)owner);
    bri_store_release(spare, bri_offset_of(memory));
    bri_block_pass_to_owner(bri_block_of(memory));
    return 0;
}

int bri_seat_give(struct bri_seat_shm *seat, bri_name owner, bri_name *ret_name)
{
    int error = fill_spare(&seat->spare_failure, owner);

    if (error == 0)
        error = fill_spare(&seat->spare_resume, owner);
    if (error == 0)
        error = bri_roster_claim(BRI_ROLE_WORKER, ret_name);
    if (error < 0)
        return error;
    bri_store_relaxed(&seat->started, 0u);
    bri_store_relaxed(&seat->visiting, UINT64_C(0));
    bri_store_relaxed(&seat->chunk, BRI_NO_CHUNK);
    bri_enforce_reset(seat);
    seat->born_ns = (uint64_t)bri_now_ns();
    seat->items_at_birth = bri_load_relaxed(&seat->items);
    bri_store_release(&seat->name, *ret_name);
    return 0;
}

static void prepare_signals_of_worker(void)
{
    signal(SIGINT, SIG_IGN); /* Ctrl-C is the owner's business */
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
}

static void detach_input(void)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null > STDIN_FILENO) {
        dup2(null, STDIN_FILENO);
        close(null);
    }
}

static _Noreturn void be_worker(struct supervisor *supervisor, uint32_t index, bri_name name)
{
    close(supervisor->signals);
    if (supervisor->owner >= 0)
        close(supervisor->owner);
    if (supervisor->pool->supervisor_fd >= 0)
        close(supervisor->pool->supervisor_fd);
    prepare_signals_of_worker();
    detach_input();
    bri_child_begin(name, supervisor->pid, 1, &supervisor->pool->mask);
    bri_worker_main(supervisor->pool, index);
}

static int fork_worker(struct supervisor *supervisor, uint32_t index, bri_name name)
{
    struct bri_seat_shm *seat = bri_pool_seat(supervisor->shared, index);
    pid_t pid = fork();

    if (pid == 0)
        be_worker(supervisor, index, name);
    if (pid < 0)
        return -errno;
    bri_roster_tell_pid(name, (uint32_t)pid);
    bri_store_release(&seat->pid, pid);
    supervisor->pool->posts[index] = (struct bri_post){pid, name};
    supervisor->live++;
    bri_trace("supervisor: worker %u is pid %d", index, (int)pid);
    return 0;
}

static int try_to_start(struct supervisor *supervisor, uint32_t index)
{
    struct bri_seat_shm *seat = bri_pool_seat(supervisor->shared, index);
    bri_name name;
    int error = bri_seat_give(seat, supervisor->pool->owner, &name);

    if (error < 0)
        return error;
    error = fork_worker(supervisor, index, name);
    if (error < 0) {
        bri_store_release(&seat->name, (bri_name)0);
        bri_roster_cancel(name);
    }
    return error;
}

static void give_up(struct supervisor *supervisor, enum bri_pool_reason reason, int detail)
{
    uint32_t none = BRI_REASON_NONE;

    if (reason != BRI_REASON_INITIALIZER)
        bri_store_relaxed(&supervisor->shared->detail, detail);
    bri_cas_acq_rel(&supervisor->shared->reason, &none, (uint32_t)reason);
    bri_trace("supervisor: gives up, reason %d", (int)reason);
    supervisor->kill_at = BROOD_NOW;
    bri_pool_advance(supervisor->shared, BRI_POOL_TERMINATING);
}

/* A seat without a worker is tried again at every turn of the loop; memory or process numbers may come back. */
static void start_missing(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < supervisor->workers; i++) {
        struct bri_seat_shm *seat = bri_pool_seat(supervisor->shared, i);
        if (supervisor->pool->posts[i].pid != 0 || seat->is_closed)
            continue;
        int error = try_to_start(supervisor, i);
        if (error == 0) {
            supervisor->unstarted = 0;
            continue;
        }
        if (++supervisor->unstarted > RETRIES || !bri_load_relaxed(&seat->items)) {
            give_up(supervisor, BRI_REASON_RESOURCES, error);
            return;
        }
    }
}

static uint32_t seat_of(struct supervisor *supervisor, pid_t pid)
{
    for (uint32_t i = 0; i < supervisor->workers; i++)
        if (supervisor->pool->posts[i].pid == pid)
            return i;
    return UINT32_MAX;
}

/* Deaths in a task are the task's doing, and each one uses an item up; deaths at the start could go on for ever. */
static int is_hopeless(struct supervisor *supervisor, struct bri_seat_shm *seat, int was_running)
{
    uint32_t limit = supervisor->workers * BARREN_PER_WORKER;

    if (was_running || bri_load_relaxed(&seat->items) != seat->items_at_birth ||
        bri_now_ns() - (int64_t)seat->born_ns > BRI_NS_PER_S) {
        supervisor->barren = 0;
        return 0;
    }
    return ++supervisor->barren >= (limit > BARREN_LEAST ? limit : BARREN_LEAST);
}

/* Nobody is needed for a job that has no chunk to be claimed.  What a dead worker gives back is done by its successor. */
static int has_offers(struct bri_pool_shm *shared)
{
    return bri_load_acquire(&shared->tail) != bri_load_acquire(&shared->head) ||
           bri_enforce_has_call(shared) || bri_load_acquire(&shared->open_streams) != 0;
}

static int all_are_closed(const struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < supervisor->workers; i++)
        if (!bri_pool_seat(supervisor->shared, i)->is_closed)
            return 0;
    return 1;
}

static void worker_ended(struct supervisor *supervisor, uint32_t index, int status,
                         const struct rusage *usage)
{
    struct bri_seat_shm *seat = bri_pool_seat(supervisor->shared, index);
    bri_name name = supervisor->pool->posts[index].name;
    /* Not alive: an undertaking of ours has met this death before, and has passed on what the worker had. */
    int is_new = bri_is_alive(name);
    int was_running = !is_new || bri_load_acquire(&bri_slot_of(name)->progress) & BRI_PROGRESS_RUNNING;
    int is_ours = seat->phase != BRI_PHASE_CALM; /* it died of what we did to it */
    int left = status == 0 && bri_load_acquire(&seat->visiting) == 0 && bri_load_relaxed(&seat->started);

    bri_trace("supervisor: worker %u (pid %d) %s, %d", index, (int)supervisor->pool->posts[index].pid,
              left ? "left" : "died", status);
    bri_limits_note_cause(supervisor->shared, seat, status, usage, &supervisor->oom_kills);
    if (is_new)
        bri_store_release(&bri_slot_of(name)->end_status, status);
    bri_fault("supervisor.noted");
    bri_roster_bury(name, left ? BRI_END_CLEAN : BRI_END_KILLED);
    bri_undertake();
    bri_store_relaxed(&seat->pid, 0);
    supervisor->pool->posts[index] = (struct bri_post){0, 0};
    supervisor->live--;
    seat->is_closed =
        left && bri_pool_state_of(supervisor->shared) == BRI_POOL_CLOSING && !has_offers(supervisor->shared);
    if (left || bri_pool_state_of(supervisor->shared) >= BRI_POOL_TERMINATING)
        return;
    bri_store_relaxed(&seat->deaths, bri_load_relaxed(&seat->deaths) + 1);
    if (status == BRI_INITIALIZER_FAILED && !bri_load_relaxed(&seat->started))
        give_up(supervisor, BRI_REASON_INITIALIZER, 0);
    else if (is_hopeless(supervisor, seat, was_running || is_ours))
        give_up(supervisor, BRI_REASON_DEATHS, status);
}

/* Looked at before it is reaped: until then its pid is nobody else's. */
static void reap(struct supervisor *supervisor)
{
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        struct rusage usage = {0};
        if (syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT, &usage) != 0 ||
            info.si_pid == 0)
            return;
        uint32_t index = seat_of(supervisor, info.si_pid);
        if (index != UINT32_MAX)
            worker_ended(supervisor, index, info.si_code == CLD_EXITED ? info.si_status : -info.si_status,
                         &usage);
        waitpid(info.si_pid, NULL, 0);
    }
}

static void signal_workers(struct supervisor *supervisor, int signal)
{
    for (uint32_t i = 0; i < supervisor->workers; i++) {
        pid_t pid = supervisor->pool->posts[i].pid;
        if (pid > 0) /* not reaped yet: still its own */
            kill(pid, signal);
    }
}

/* --- ends --- */

/* Whoever buried the owner meanwhile has left its blocks to us, as long as we depended on them (others_depend_on in heap/recover.c): either
 * they see that we do not any more, or we see the owner dead. */
static void let_go_of(bri_name owner)
{
    bri_store_seq_cst(&bri_slot_of(bri_self())->boss, (bri_name)0);
    bri_fence_seq_cst();
    if (bri_is_dead_and_unburied(owner))
        bri_undertake();
}

static _Noreturn void end(struct supervisor *supervisor)
{
    struct bri_pool_shm *shared = supervisor->shared;
    int broken = bri_load_acquire(&shared->reason) != BRI_REASON_NONE;
    bri_name owner = supervisor->pool->owner;

    bri_kill_children();
    bri_bury_the_ended(); /* among them the pools of workers, which nobody watches any more */
    bri_trace("supervisor: ends");
    bri_pool_advance(shared, broken ? BRI_POOL_BROKEN : BRI_POOL_ENDED);
    bri_obituary_publish(); /* those who wait for jobs look again */
    let_go_of(owner);
    bri_leave_and_exit();
}

/* Law 2.  The owner's blocks go last: workers might still write to them. */
static _Noreturn void owner_died(struct supervisor *supervisor)
{
    bri_name owner = supervisor->pool->owner;

    bri_trace("supervisor: the owner has died");
    signal_workers(supervisor, SIGKILL);
    bri_pool_advance(supervisor->shared, BRI_POOL_TERMINATING);
    bri_kill_children();
    for (uint32_t i = 0; i < supervisor->workers; i++)
        bri_roster_bury(supervisor->pool->posts[i].name, BRI_END_KILLED);
    bri_bury_the_ended(); /* the workers and their pools, while we still count as one who depends on the owner */
    bri_roster_bury(owner, BRI_END_KILLED);
    let_go_of(owner);
    bri_leave_and_exit();
}

static void await_end_of(bri_name name)
{
    int fd = bri_watch(name);

    if (fd >= 0) {
        bri_pidfd_signal(fd, SIGKILL);
        bri_pidfd_wait(fd, BROOD_FOREVER);
        close(fd);
        return;
    }
    while (fd != -ESRCH && !bri_roster_has_ended(name)) /* no descriptor left */
        poll(NULL, 0, 1);
}

/* A worker whose supervisor is dead: what stands in a seat may be anybody's name. */
static int is_left_behind(bri_name name)
{
    return name != 0 && bri_load_relaxed(&bri_slot_of(name)->role) == BRI_ROLE_WORKER &&
           !bri_is_alive(bri_roster_boss_of(name));
}

void bri_pool_bury_workers(brood_pool *pool)
{
    struct bri_pool_shm *shared = pool->shared;

    bri_store_release(&shared->looking, (bri_offset)0);
    for (uint32_t i = 0; i < pool->options.workers; i++) {
        bri_name name = bri_load_acquire(&bri_pool_seat(shared, i)->name);
        if (!is_left_behind(name))
            continue;
        await_end_of(name);
        bri_roster_bury(name, BRI_END_KILLED);
    }
    bri_undertake(); /* which names the pids that the seats show */
    for (uint32_t i = 0; i < pool->options.workers; i++)
        bri_store_relaxed(&bri_pool_seat(shared, i)->pid, 0);
}

/* --- the loop --- */

static void terminate(struct supervisor *supervisor)
{
    if (supervisor->kill_at == BROOD_FOREVER) {
        signal_workers(supervisor, SIGTERM);
        signal_workers(supervisor, SIGCONT); /* a stopped one is to notice */
        supervisor->kill_at = bri_after_ns((int64_t)supervisor->pool->options.grace_ms * BRI_NS_PER_MS);
    } else if (bri_now_ns() >= supervisor->kill_at) {
        signal_workers(supervisor, SIGKILL);
    }
}

static int64_t time_to_wake(const struct supervisor *supervisor, enum bri_pool_state state)
{
    int64_t retry = bri_after_ns(RETRY_MS * BRI_NS_PER_MS);

    if (state >= BRI_POOL_TERMINATING)
        return supervisor->kill_at > retry ? supervisor->kill_at : retry;
    return bri_enforce_prepare_sleep(supervisor->pool, supervisor->unstarted > 0 ? retry : BROOD_FOREVER);
}

static int time_to_sleep_ms(int64_t until)
{
    int64_t left = until - bri_now_ns();

    if (until == BROOD_FOREVER)
        return -1;
    return left <= 0 ? 0 : (int)bri_earlier((left - 1) / BRI_NS_PER_MS + 1, INT_MAX);
}

static void turn(struct supervisor *supervisor)
{
    reap(supervisor);
    enum bri_pool_state state = bri_pool_state_of(supervisor->shared);
    if (state < BRI_POOL_TERMINATING) {
        start_missing(supervisor);
        bri_enforce(supervisor->pool, bri_now_ns());
    }
    state = bri_pool_state_of(supervisor->shared);
    if (state >= BRI_POOL_TERMINATING)
        terminate(supervisor);
    if (supervisor->live == 0 && (state >= BRI_POOL_TERMINATING || all_are_closed(supervisor)))
        end(supervisor);
    struct pollfd fds[3] = {
        {supervisor->signals, POLLIN, 0},
        {supervisor->owner, POLLIN, 0},
        {supervisor->pool->doorbell.fds[0], POLLIN, 0}}; /* a negative descriptor is left out */
    poll(fds, 3, time_to_sleep_ms(time_to_wake(supervisor, state)));
    bri_signal_drain(supervisor->signals);
    if (fds[2].revents != 0)
        bri_doorbell_drain(&supervisor->pool->doorbell);
    if (fds[1].revents != 0)
        owner_died(supervisor);
}

void bri_supervisor_main(void *argument)
{
    static struct bri_post posts[BRI_WORKERS_MAX];
    struct bri_supervise *supervise = argument;
    struct supervisor supervisor = {.pool = supervise->pool,
                                    .shared = supervise->pool->shared,
                                    .pid = getpid(),
                                    .workers = supervise->pool->options.workers,
                                    .oom_kills = bri_memory_oom_kills(),
                                    .kill_at = BROOD_FOREVER};

    bri_fault("supervisor.forked");
    if (bri_roster_enter(supervise->name) < 0)
        _exit(127);
    memset(posts, 0, sizeof posts); /* a worker with a pool of its own has its supervisor's */
    supervisor.pool->posts = posts;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    supervisor.signals = bri_signal_descriptor(); /* before it has begun: from then on it is rung */
    bri_store_release(&supervisor.shared->begun, supervise->name);
    bri_fence_seq_cst();
    if (supervisor.signals < 0) {
        give_up(&supervisor, BRI_REASON_RESOURCES, supervisor.signals);
        end(&supervisor);
    }
    supervisor.owner = bri_watch(supervisor.pool->owner);
    bri_pool_bury_workers(supervisor.pool);
    if (supervisor.owner == -ESRCH)
        owner_died(&supervisor);
    if (supervisor.owner < 0) {
        give_up(&supervisor, BRI_REASON_RESOURCES, supervisor.owner);
        end(&supervisor);
    }
    for (;;)
        turn(&supervisor);
}
