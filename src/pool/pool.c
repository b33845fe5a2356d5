/* SPDX-License-Identifier: MIT */
/* The owner's side: a pool's beginning and end.  See pool.h. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/error.h"
#include "base/options.h"
#include "base/time.h"
#include "base/trace.h"
#include "heap/bulk.h"
#include "plat/process.h"
#include "pool/pool.h"
#include "proc/child.h"
#include "sync/event.h"

enum { GRACE_MS = 500, SUPERVISORS_MAX = 16, STARTS_MAX = 2, SLICE_MS = 100, POLL_MS = 10 };

/* The live handles of this process: a handle that was destroyed is found out before it is looked into. */
static brood_pool *live_pools;
static _Atomic uint32_t pools_removed; /* how many are live no more */

/* The one that a thread has asked for last is live as long as none was removed since: most programs ask for one, again and again. */
static _Thread_local struct {
    const brood_pool *pool;
    uint32_t removed;
} known_live __attribute__((tls_model("initial-exec")));

/* --- handles --- */

/* The heap's bri_heap_give_up.  A forked child has inherited the handles of its parent: not its own. */
static void sweep_live(void)
{
    pthread_mutex_t *lock = &bri_identity->lock;

    if (pthread_mutex_trylock(lock) != 0)
        return;
    for (brood_pool *pool = live_pools; pool != NULL; pool = pool->next)
        if (pool->owner == bri_self())
            bri_pool_sweep_unless_busy(pool);
    pthread_mutex_unlock(lock);
}

static void add_live(brood_pool *pool)
{
    bri_thread_lock(&bri_identity->lock);
    pool->next = live_pools;
    live_pools = pool;
    pthread_mutex_unlock(&bri_identity->lock);
    bri_store_release(&bri_heap_give_up, sweep_live);
}

static int remove_live(const brood_pool *pool)
{
    brood_pool **at = &live_pools;

    bri_thread_lock(&bri_identity->lock);
    while (*at != NULL && *at != pool)
        at = &(*at)->next;
    int found = *at != NULL;
    if (found)
        *at = pool->next;
    bri_add_acq_rel(&pools_removed, 1u);
    pthread_mutex_unlock(&bri_identity->lock);
    return found;
}

static int is_live(const brood_pool *pool)
{
    const brood_pool *at;

    if (known_live.pool == pool && known_live.removed == bri_load_acquire(&pools_removed))
        return 1;
    bri_thread_lock(&bri_identity->lock);
    for (at = live_pools; at != NULL && at != pool; at = at->next) {
    }
    known_live.pool = at;
    known_live.removed = bri_load_relaxed(&pools_removed);
    pthread_mutex_unlock(&bri_identity->lock);
    return at != NULL;
}

int bri_pool_is_handle(const brood_pool *pool)
{
    const brood_pool *at;

    if (pthread_mutex_trylock(&bri_identity->lock) != 0)
        return pool != NULL;
    for (at = live_pools; at != NULL && at != pool; at = at->next) {
    }
    pthread_mutex_unlock(&bri_identity->lock);
    return at != NULL;
}

int bri_pool_check(const brood_pool *pool)
{
    if (pool == NULL)
        return bri_fail(EINVAL, "pool is NULL: pass what brood_pool_create gave");
    if (!is_live(pool))
        return bri_fail(EINVAL, "pool (%p) is not a pool, or was destroyed", (const void *)pool);
    if (bri_arena_current == NULL || pool->owner != bri_self())
        return bri_fail(EPERM, "pool belongs to another process: only the one that created it may use it (a "
                               "worker may create its own)");
    return 0;
}

void bri_pool_hold(brood_pool *pool)
{
    bri_add_relaxed(&pool->references, 1u);
}

static void free_limbo(brood_pool *pool)
{
    for (size_t i = 0; i < bri_load_relaxed(&pool->limbo_count); i++)
        bri_job_free(&pool->limbo[i].view);
    free(pool->limbo);
}

static void free_spare(_Atomic bri_offset *spare)
{
    void *memory = bri_heap_find(bri_load_relaxed(spare), BRI_KIND_FAILURE, 1);

    if (memory != NULL)
        bri_heap_free(memory);
}

int bri_pool_hold_standing(brood_pool *pool)
{
    uint32_t seen = bri_load_relaxed(&pool->references);

    do
        if (seen & BRI_HOLD_STANDING)
            return 0;
    while (!bri_cas_acq_rel(&pool->references, &seen, seen + (BRI_HOLD_STANDING | 1)));
    return 1;
}

/* The last one out: no worker is left by then, since destroy is among those who dropped. */
static void drop(brood_pool *pool, uint32_t hold)
{
    if (bri_add_acq_rel(&pool->references, -hold) != hold)
        return;
    free_limbo(pool);
    bri_standing_free(pool);
    for (uint32_t i = 0; i < pool->options.workers; i++) {
        free_spare(&bri_pool_seat(pool->shared, i)->spare_failure);
        free_spare(&bri_pool_seat(pool->shared, i)->spare_resume);
    }
    bri_heap_free(pool->shared);
    pthread_mutex_destroy(&pool->lock);
    free(pool->modules.ranges);
    free(pool);
}

void bri_pool_drop(brood_pool *pool)
{
    drop(pool, 1);
}

void bri_pool_drop_standing(brood_pool *pool)
{
    drop(pool, BRI_HOLD_STANDING | 1);
}

/* --- states --- */

int bri_pool_advance(struct bri_pool_shm *pool, enum bri_pool_state to)
{
    uint32_t seen = bri_load_acquire(&pool->state);

    while (seen < (uint32_t)to)
        if (bri_cas_seq_cst(&pool->state, &seen, (uint32_t)to)) {
            bri_event_signal(&pool->event, INT_MAX);
            bri_event_signal(&pool->work, INT_MAX);
            bri_event_signal(&pool->finished, INT_MAX);
            bri_event_signal(&pool->room, INT_MAX);
            return 1;
        }
    return 0;
}

static int broken(struct bri_pool_shm *shared)
{
    int detail = (int)bri_load_acquire(&shared->detail);

    switch ((enum bri_pool_reason)bri_load_acquire(&shared->reason)) {
    case BRI_REASON_INITIALIZER:
        return bri_fail(ENOTRECOVERABLE, "the pool is broken: its initializer failed (%d)", detail);
    case BRI_REASON_DEATHS:
        return bri_fail(ENOTRECOVERABLE,
                        "the pool is broken: its workers die as soon as they start (the last one: %s %d)",
                        detail < 0 ? "signal" : "exit code", abs(detail));
    case BRI_REASON_RESOURCES:
        return bri_fail_os(-detail, "the pool is broken: its workers cannot be started");
    case BRI_REASON_START:
        return bri_fail(
            ENOTRECOVERABLE,
            "the pool is broken: the process that was to start its workers ended before it began");
    case BRI_REASON_DAMAGE:
        return bri_fail(ENOTRECOVERABLE,
                        "the pool is broken: some process has written into its shared memory");
    default:
        return bri_fail(ENOTRECOVERABLE, "the pool is broken: its supervisor was killed again and again");
    }
}

int bri_pool_trouble(brood_pool *pool, int for_submission)
{
    struct bri_pool_shm *shared = pool->shared;

    if (bri_load_acquire(&shared->reason) != BRI_REASON_NONE) {
        broken(shared);
        return -ENOTRECOVERABLE;
    }
    if (bri_pool_state_of(shared) >= (for_submission ? BRI_POOL_CLOSING : BRI_POOL_TERMINATING))
        return for_submission ? bri_fail(ESHUTDOWN, "the pool is closed: it takes no further jobs")
                              : bri_fail(ECANCELED, "the pool was terminated before this was done");
    return 0;
}

/* --- the supervisor --- */

static pid_t fork_supervisor(brood_pool *pool, bri_name name)
{
    struct bri_supervise supervise = {.pool = pool, .name = name};

    bri_flush_output();
    bri_doorbell_make(&pool->doorbell);
    if (pool->hooks.before_fork != NULL)
        pool->hooks.before_fork(pool->hooks.argument);
    pid_t pid = bri_fork_detached(bri_supervisor_main, &supervise);
    if (pool->hooks.after_fork != NULL)
        pool->hooks.after_fork(pool->hooks.argument);
    return pid;
}

static pid_t exec_supervisor(brood_pool *pool, bri_name name)
{
    brood_pool_ticket ticket = {.size = sizeof ticket,
                                .pool = bri_offset_of(pool->shared),
                                .anchor = (uint64_t)(uintptr_t)pool->hooks.anchor,
                                .supervisor = name};

    bri_doorbell_make(&pool->doorbell);
    bri_doorbell_tell(&pool->doorbell, &pool->shared->doorbell);
    return pool->hooks.start_supervisor(pool->hooks.argument, &ticket);
}

static int start_supervisor(brood_pool *pool)
{
    struct bri_supervise supervise = {.pool = pool};
    int error = bri_roster_claim(BRI_ROLE_SUPERVISOR, &supervise.name);

    if (error < 0)
        return error;
    if (pool->supervisor_fd >= 0)
        close(pool->supervisor_fd);
    pool->supervisor_fd = -1;
    bri_store_release(&pool->shared->supervisor, supervise.name);
    bri_store_release(&pool->supervisor, supervise.name);
    pid_t pid = pool->hooks.start_supervisor != NULL ? exec_supervisor(pool, supervise.name)
                                                     : fork_supervisor(pool, supervise.name);
    if (pid < 0) {
        bri_roster_cancel(supervise.name);
        return bri_fail_os(-pid, "cannot start the pool's supervisor");
    }
    pool->supervisor_pid = pid;
    bri_roster_tell_pid(supervise.name, (uint32_t)pid);
    return 0;
}

static int signal_supervisor(brood_pool *pool, int signal)
{
    int error = pool->supervisor_fd >= 0 ? bri_pidfd_signal(pool->supervisor_fd, signal) : -EBADF;

    if (error == 0 || error == -EPERM || bri_roster_has_ended(bri_load_acquire(&pool->supervisor)))
        return error;
    /* There was no descriptor left, or the host has closed it. */
    return kill(pool->supervisor_pid, signal) < 0 ? -errno : 0;
}

/* One that is still being exec'd would die of the signal; it looks at everything when it has begun.  Either we see that it has, or it sees what
 * we ring for (the fences of both sides). */
void bri_pool_ring_supervisor(brood_pool *pool)
{
    bri_fence_seq_cst();
    if (pool->hooks.start_supervisor != NULL &&
        bri_load_acquire(&pool->shared->begun) != bri_load_acquire(&pool->supervisor))
        return;
    if (signal_supervisor(pool, SIGUSR1) == -EPERM)
        bri_doorbell_ring(&pool->doorbell);
}

static int has_entered(void *argument)
{
    brood_pool *pool = argument;
    bri_name supervisor = bri_load_acquire(&pool->supervisor);

    return bri_roster_pid_of(supervisor) != 0 || bri_pool_state_of(pool->shared) >= BRI_POOL_BROKEN ||
           bri_roster_has_ended(supervisor) || bri_process_has_ended(pool->supervisor_pid, 0);
}

/* Its slot says that it is dead.  Should that be damage, it is from now on: two supervisors would start workers for the same seats. */
static void make_sure_it_ended(brood_pool *pool)
{
    if (pool->supervisor_fd >= 0 && !bri_pidfd_has_ended(pool->supervisor_fd) &&
        bri_pidfd_signal(pool->supervisor_fd, SIGKILL) == 0)
        bri_pidfd_wait(pool->supervisor_fd, BROOD_FOREVER);
}

/* A supervisor was killed (its workers died with it): another one goes on, unless that happens again and again. */
static void replace_supervisor(brood_pool *pool)
{
    bri_name dead = bri_load_acquire(&pool->supervisor);
    uint32_t none = BRI_REASON_NONE;

    if (bri_is_alive(dead) || bri_pool_state_of(pool->shared) >= BRI_POOL_BROKEN)
        return;
    bri_trace("owner: the supervisor was killed, starting another");
    make_sure_it_ended(pool);
    pool->failed_starts = bri_load_acquire(&pool->shared->begun) == dead ? 0 : pool->failed_starts + 1;
    if (++pool->supervisor_restarts <= SUPERVISORS_MAX && pool->failed_starts < STARTS_MAX &&
        start_supervisor(pool) == 0) {
        bri_wait(&pool->shared->event, has_entered, pool, BROOD_FOREVER, BRI_NS_PER_MS);
        pool->supervisor_fd = bri_watch(bri_load_acquire(&pool->supervisor));
        return;
    }
    bri_pool_bury_workers(pool);
    bri_cas_acq_rel(&pool->shared->reason, &none,
                    (uint32_t)(pool->failed_starts > 0 ? BRI_REASON_START : BRI_REASON_SUPERVISOR));
    bri_pool_advance(pool->shared, BRI_POOL_BROKEN);
}

int bri_pool_is_over(brood_pool *pool)
{
    if (bri_pool_state_of(pool->shared) >= BRI_POOL_BROKEN)
        return 1;
    if (bri_is_alive(bri_load_acquire(&pool->supervisor)))
        return 0;
    bri_thread_lock(&pool->lock);
    replace_supervisor(pool);
    pthread_mutex_unlock(&pool->lock);
    return bri_pool_state_of(pool->shared) >= BRI_POOL_BROKEN;
}

/* Asks after the process that it was: should its slot be damaged, nobody else hears of its end.  With `lock`: name and pid are of one. */
static void bury_supervisor_if_ended(brood_pool *pool)
{
    bri_name supervisor = bri_load_acquire(&pool->supervisor);

    if (bri_process_has_ended(pool->supervisor_pid, 0) && bri_roster_bury(supervisor, BRI_END_KILLED))
        bri_undertake();
}

void bri_pool_look_after(brood_pool *pool)
{
    if (bri_pool_state_of(pool->shared) < BRI_POOL_BROKEN) {
        bri_report_if_ended(bri_load_acquire(&pool->supervisor));
        if (pthread_mutex_trylock(&pool->lock) == 0) {
            bury_supervisor_if_ended(pool);
            pthread_mutex_unlock(&pool->lock);
        }
    }
    bri_pool_sweep_unless_busy(pool);
}

/* Of several threads one looks. */
void bri_pool_look_after_at_times(brood_pool *pool)
{
    int64_t due = bri_load_relaxed(&pool->look_after_at), now = bri_now_ns();

    if (now >= due && bri_cas_acq_rel(&pool->look_after_at, &due, now + POLL_MS * BRI_NS_PER_MS))
        bri_pool_look_after(pool);
}

void bri_pool_declare_damaged(brood_pool *pool)
{
    uint32_t none = BRI_REASON_NONE;

    bri_trace("owner: the pool's shared memory is damaged");
    bri_cas_acq_rel(&pool->shared->reason, &none, (uint32_t)BRI_REASON_DAMAGE);
    bri_pool_advance(pool->shared, BRI_POOL_TERMINATING);
    bri_pool_ring_supervisor(pool);
}

/* --- create --- */

static int check_hooks(const brood_pool_options *options, brood_pool_hooks *ret_hooks)
{
    int error = bri_options_take(options->hooks, ret_hooks, sizeof *ret_hooks, "options->hooks");

    if (error == 0 && ret_hooks->start_supervisor != NULL && ret_hooks->anchor == NULL)
        return bri_fail(EINVAL, "options->hooks->anchor is NULL: with start_supervisor, pass a function of "
                                "the module of the task functions");
    return error;
}

static int check_options(const brood_pool_options *options, brood_pool_options *ret_options,
                         brood_pool_hooks *ret_hooks)
{
    int error = bri_options_take(options, ret_options, sizeof *ret_options, "options");

    if (error == 0)
        error = check_hooks(ret_options, ret_hooks);
    if (error < 0)
        return error;
    if (ret_options->workers > BRI_WORKERS_MAX)
        return bri_fail(EINVAL, "options->workers is %u: at most %d", ret_options->workers, BRI_WORKERS_MAX);
    if (ret_options->workers == 0) {
        int cpus = brood_cpu_count();
        ret_options->workers = cpus > BRI_WORKERS_MAX ? BRI_WORKERS_MAX : (uint32_t)cpus;
    }
    if (ret_options->soft_signal < 0 || ret_options->soft_signal > SIGRTMAX)
        return bri_fail(EINVAL, "options->soft_signal is %d: no signal has that number",
                        ret_options->soft_signal);
    if (ret_options->grace_ms == 0)
        ret_options->grace_ms = GRACE_MS;
    return 0;
}

int bri_pool_make_shared(brood_pool *pool)
{
    const brood_pool_options *options = &pool->options;
    void *memory;
    int error = bri_heap_alloc_zeroed(BRI_KIND_POOL, bri_pool_bytes(options->workers), bri_self(), &memory);

    if (error < 0)
        return error;
    pool->shared = memory;
    pool->shared->owner = bri_self();
    pool->shared->workers = options->workers;
    pool->shared->grace_ms = options->grace_ms;
    pool->shared->soft_signal = options->soft_signal;
    pool->shared->max_memory_bytes = options->max_memory_bytes;
    pool->shared->seed = options->seed;
    pool->shared->max_cpu_seconds = options->max_cpu_seconds;
    pool->shared->max_open_files = options->max_open_files;
    pool->shared->tasks_per_worker = options->tasks_per_worker;
    bri_store_release(&bri_block_of(memory)->aux[2], BRI_READY);
    return 0;
}

static int have_all_started(void *argument)
{
    brood_pool *pool = argument;
    uint32_t started = 0;

    for (uint32_t i = 0; i < pool->options.workers; i++)
        started += bri_load_acquire(&bri_pool_seat(pool->shared, i)->started) != 0;
    return started == pool->options.workers || bri_pool_is_over(pool);
}

static int interrupt(brood_pool *pool)
{
    bri_pool_advance(pool->shared, BRI_POOL_TERMINATING);
    bri_pool_ring_supervisor(pool);
    return bri_fail_wait(-EINTR, "the workers have not started yet");
}

static int wait_until_started(brood_pool *pool)
{
    int met;

    while ((met = bri_wait(&pool->shared->event, have_all_started, pool,
                           bri_after_ns(SLICE_MS * BRI_NS_PER_MS), 0)) < 0) {
        if (met == -EINTR)
            return interrupt(pool);
        bri_pool_look_after(pool);
    }
    if (bri_pool_state_of(pool->shared) < BRI_POOL_BROKEN)
        return 0;
    if (bri_load_acquire(&pool->shared->reason) == BRI_REASON_RESOURCES) {
        int detail = (int)bri_load_acquire(&pool->shared->detail);
        broken(pool->shared);
        return detail;
    }
    return bri_pool_trouble(pool, 0);
}

static int start(brood_pool *pool)
{
    int error = bri_pool_make_shared(pool);

    if (error < 0)
        return error;
    pthread_sigmask(SIG_SETMASK, NULL, &pool->mask);
    error = start_supervisor(pool);
    if (error == 0) {
        bri_wait(&pool->shared->event, has_entered, pool, BROOD_FOREVER, BRI_NS_PER_MS);
        pool->supervisor_fd = bri_watch(bri_load_acquire(&pool->supervisor));
        error = pool->options.in_background ? 0 : wait_until_started(pool);
    }
    return error;
}

int brood_pool_create(const brood_pool_options *options, brood_pool **ret_pool)
{
    brood_pool_options known;
    brood_pool_hooks hooks;
    int error = check_options(options, &known, &hooks);

    if (error < 0)
        return error;
    if (ret_pool == NULL)
        return bri_fail(EINVAL, "ret_pool is NULL: pass where the handle goes");
    error = bri_arena_enter();
    if (error < 0)
        return error;
    brood_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL || bri_modules_snapshot(&pool->modules) < 0) {
        free(pool);
        return bri_fail(ENOMEM, "no memory for a pool handle");
    }
    pool->options = known;
    pool->hooks = hooks;
    pool->owner = bri_self();
    pool->references = 1;
    pool->supervisor_fd = -1;
    pool->doorbell = BRI_NO_DOORBELL;
    pthread_mutex_init(&pool->lock, NULL);
    add_live(pool); /* before the fork: a worker that uses the handle is told that it is another's */
    error = start(pool);
    if (error < 0) {
        remove_live(pool);
        bri_doorbell_drop(&pool->doorbell);
        if (pool->supervisor_fd >= 0)
            bri_pidfd_wait(pool->supervisor_fd, BROOD_FOREVER), close(pool->supervisor_fd);
        if (pool->shared != NULL)
            bri_pool_drop(pool);
        else
            free(pool->modules.ranges), free(pool);
        return error;
    }
    *ret_pool = pool;
    return 0;
}

/* Its owner has claimed the name for us. */
static int check_ticket(const brood_pool_ticket *ticket)
{
    if (ticket == NULL || ticket->size < sizeof *ticket)
        return bri_fail(EINVAL, "ticket is NULL or its size too small: pass what start_supervisor was given");
    if (bri_self() == 0)
        return bri_fail(EINVAL, "this process has not attached to the arena: call brood_arena_attach first");
    struct bri_pool_shm *shared = bri_heap_find(ticket->pool, BRI_KIND_POOL, bri_pool_bytes(1));
    if (shared == NULL)
        return bri_fail(EINVAL, "ticket->pool (%llu) is no pool of this arena",
                        (unsigned long long)ticket->pool);
    if (bri_load_acquire(&shared->supervisor) != ticket->supervisor)
        return bri_fail(EINVAL, "ticket is not the pool's latest one");
    enum bri_slot_state state;
    if (bri_roster_name_at(ticket->supervisor & (BRI_SLOTS - 1), &state) != ticket->supervisor ||
        state == BRI_SLOT_DEAD)
        return bri_fail(ECANCELED, "the pool's owner has died meanwhile");
    return state == BRI_SLOT_CLAIMED ? 0 : bri_fail(EINVAL, "ticket was used: the pool has its supervisor");
}

/* What the owner's supervisor would have by fork. */
static int take_pool(brood_pool *pool, const brood_pool_ticket *ticket)
{
    uint32_t workers = bri_read_once(((struct bri_pool_shm *)bri_at(ticket->pool))->workers);

    pool->shared = bri_heap_find(ticket->pool, BRI_KIND_POOL, bri_pool_bytes(workers));
    if (pool->shared == NULL || workers - 1 >= BRI_WORKERS_MAX)
        return bri_fail(EINVAL, "ticket->pool (%llu) is damaged", (unsigned long long)ticket->pool);
    pool->owner = bri_read_once(pool->shared->owner);
    pool->options.workers = workers;
    pool->options.grace_ms = bri_read_once(pool->shared->grace_ms);
    pool->options.soft_signal = bri_read_once(pool->shared->soft_signal);
    return 0;
}

int brood_pool_supervise(const brood_pool_ticket *ticket, const brood_pool_options *options,
                         brood_function *anchor)
{
    static brood_pool pool;
    int error = check_ticket(ticket);

    if (error == 0)
        error = check_options(options, &pool.options, &pool.hooks);
    if (error < 0)
        return error;
    if (anchor == NULL)
        return bri_fail(EINVAL, "anchor is NULL: pass the function that the owner's hooks name");
    error = take_pool(&pool, ticket);
    if (error < 0)
        return error;
    pool.code_shift = (uint64_t)(uintptr_t)anchor - ticket->anchor;
    pool.supervisor_fd = -1;
    bri_doorbell_open(&pool.doorbell, bri_roster_pid_of(pool.owner), &pool.shared->doorbell);
    pthread_sigmask(SIG_SETMASK, NULL, &pool.mask);
    bri_bulk_leave(ticket->supervisor);
    bri_roster_leave(); /* the name that it attached with; the one it is to have is claimed */
    bri_supervisor_main(&(struct bri_supervise){.pool = &pool, .name = ticket->supervisor});
    return bri_fail(ECANCELED, "the pool's owner has died meanwhile"); /* not reached */
}

/* --- the end --- */

static void want(brood_pool *pool, enum bri_pool_state state)
{
    uint32_t wanted = bri_load_acquire(&pool->wanted);

    while (wanted < (uint32_t)state && !bri_cas_acq_rel(&pool->wanted, &wanted, (uint32_t)state)) {
    }
    bri_pool_advance(pool->shared, state);
    bri_pool_ring_supervisor(pool);
}

/* What was asked for stands in shared memory still?  A ring at the doorbell harms nobody, not even one that is still being exec'd. */
static void insist(brood_pool *pool)
{
    enum bri_pool_state wanted = (enum bri_pool_state)bri_load_acquire(&pool->wanted);

    if (bri_pool_state_of(pool->shared) < wanted)
        bri_pool_advance(pool->shared, wanted);
    if (wanted >= BRI_POOL_TERMINATING)
        bri_doorbell_ring(&pool->doorbell);
}

int brood_pool_close(brood_pool *pool)
{
    int error = bri_pool_check(pool);

    if (error == 0)
        want(pool, BRI_POOL_CLOSING);
    return error;
}

int brood_pool_terminate(brood_pool *pool)
{
    int error = bri_pool_check(pool);

    if (error < 0)
        return error;
    want(pool, BRI_POOL_TERMINATING);
    signal_supervisor(pool, SIGCONT); /* a stopped one is to notice */
    return 0;
}

/* The state is said by the supervisor when no worker is left; then it only has to end itself. */
static int is_over(void *argument)
{
    return bri_pool_is_over(argument);
}

/* For joins, at each slice: one that is stopped, perhaps after terminate has woken it, would never end the pool. */
static void wake_supervisor(brood_pool *pool)
{
    if (bri_pool_state_of(pool->shared) >= BRI_POOL_TERMINATING)
        signal_supervisor(pool, SIGCONT);
}

/* Its descriptor tells, unless the host has closed that: then the roster does, which it leaves last of all, or, should that be damaged, its pid. */
static int wait_for_supervisor(brood_pool *pool, int64_t deadline)
{
    bri_name supervisor = bri_load_acquire(&pool->supervisor);
    int error = pool->supervisor_fd < 0 ? 0 : bri_wait_for_end(pool->supervisor_fd, deadline);

    while (error == 0 && !bri_roster_has_ended(supervisor) &&
           !bri_process_has_ended(pool->supervisor_pid, 0)) {
        if (bri_now_ns() >= deadline)
            return -ETIMEDOUT;
        poll(NULL, 0, 1);
    }
    return error;
}

static int join(brood_pool *pool, int64_t deadline)
{
    for (;;) {
        int64_t slice = bri_earlier(deadline, bri_after_ns(SLICE_MS * BRI_NS_PER_MS));
        int met = bri_wait(&pool->shared->event, is_over, pool, slice, 0);
        if (met == -EINTR)
            return met;
        int error = met > 0 ? wait_for_supervisor(pool, slice) : -ETIMEDOUT;
        if (error != -ETIMEDOUT)
            return error;
        wake_supervisor(pool);
        if (bri_now_ns() >= deadline)
            return error;
        bri_pool_look_after(pool);
        insist(pool);
    }
}

int brood_pool_join(brood_pool *pool, int64_t deadline)
{
    int error = bri_pool_check(pool);

    if (error < 0)
        return error;
    if (deadline < 0)
        return bri_fail(EINVAL, "deadline is negative: use brood_after_ms, BROOD_NOW or BROOD_FOREVER");
    if (bri_pool_state_of(pool->shared) == BRI_POOL_RUNNING)
        return bri_fail(EBUSY,
                        "the pool still takes jobs: call brood_pool_close or brood_pool_terminate first");
    error = join(pool, deadline);
    return error < 0 ? bri_fail_wait(error, "the pool's workers have not ended yet") : 0;
}

int brood_pool_destroy(brood_pool *pool)
{
    if (pool == NULL)
        return 0;
    int error = bri_pool_check(pool);
    if (error < 0)
        return error;
    brood_pool_terminate(pool);
    while (join(pool, BROOD_FOREVER) == -EINTR) { /* its end is bounded, and it is not left half-done */
    }
    if (!remove_live(pool)) /* another thread was quicker */
        return bri_fail(EINVAL, "pool was destroyed by another thread at the same time");
    if (pool->supervisor_fd >= 0)
        close(pool->supervisor_fd);
    bri_doorbell_drop(&pool->doorbell);
    bri_store_release(&pool->is_destroyed, 1u);
    bri_pool_sweep(pool); /* results may keep the handle for long */
    bri_pool_drop(pool);
    return 0;
}

/* --- looking in --- */

uint32_t brood_pool_workers(brood_pool *pool)
{
    return pool == NULL || !is_live(pool) ? 0 : pool->options.workers;
}

int brood_pool_worker_pid(brood_pool *pool, uint32_t index)
{
    int error = bri_pool_check(pool);

    if (error < 0)
        return error;
    if (index >= pool->options.workers)
        return bri_fail(ERANGE, "index is %u: the pool has %u workers", index, pool->options.workers);
    return (int)bri_load_acquire(&bri_pool_seat(pool->shared, index)->pid);
}
