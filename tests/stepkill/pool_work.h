/* SPDX-License-Identifier: MIT */
/* What the scenarios of pools share: jobs, their tasks, and what has to be true of each outcome. */
#ifndef STEPKILL_POOL_WORK_H
#define STEPKILL_POOL_WORK_H

#include "arena_checks.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "plat/process.h"
#include "pool/pool.h"

enum { MOST_ITEMS = 8, FAILURE_CODE = 7 };

/* A job and the pool that runs it. */
struct work {
    brood_function *function;
    size_t count, chunk_items, result_bytes;
    int in_bytes;
    uint32_t workers, tasks_per_worker;
    uint32_t retries, timeout_ms, item_timeout_ms;
    uint32_t tell_each;
};

/* Between the owner, its workers and the driver. */
struct shared {
    atomic_int runs[MOST_ITEMS]; /* how often each item was begun */
    atomic_int is_open;          /* tasks that wait go on */
    atomic_int busy;             /* tasks that wait */
    atomic_int victim;           /* pid that tasks know */
    atomic_int told;             /* what an owner of its own has got to */
    pid_t owner;
};

struct state {
    const struct work *work;
    brood_pool *pool;
    brood_result *result;
    pid_t victim; /* a worker; 0: the supervisor is stepped, and any worker may have died with it */
    size_t died, timed_out;
    int is_terminated; /* items may be cancelled, and values are not given out */
    int is_cancelled;  /* items may be cancelled */
    struct bri_supervise supervise;
};

static struct shared *shared; /* made before the pool: its workers inherit the address */
static struct state the_state;

static const int numbers[MOST_ITEMS] = {10, 11, 12, 13, 14, 15, 16, 17};

/* --- tasks ------------------------------------------------------------------------------------ */

static inline void note_run(const brood_task *task)
{
    atomic_fetch_add(&shared->runs[brood_task_index(task)], 1);
}

static inline int triple(brood_task *task, const void *item, void *result)
{
    note_run(task);
    *(int *)result = 3 * *(const int *)item;
    return 0;
}

static inline int negate(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(int *)result = -*(const int *)item;
    return 0;
}

static inline int fail_with_text(brood_task *task, const void *item, void *result)
{
    (void)item, (void)result;
    note_run(task);
    return brood_task_fail(task, FAILURE_CODE, "no such luck");
}

static inline int allocate(brood_task *task, const void *item, void *result)
{
    void *memory;
    note_run(task);
    if (brood_alloc(1000, &memory) != 0)
        return brood_task_fail(task, 1, brood_error_text());
    *(int *)memory = 3 * *(const int *)item;
    *(void **)result = memory;
    return 0;
}

static inline void wait_until_open(void)
{
    atomic_fetch_add(&shared->busy, 1);
    while (!atomic_load(&shared->is_open))
        take_a_nap();
}

/* The first item waits to be killed, or let go. */
static inline int triple_first_waits(brood_task *task, const void *item, void *result)
{
    if (brood_task_index(task) == 0)
        wait_until_open();
    return triple(task, item, result);
}

/* --- jobs ------------------------------------------------------------------------------------- */

static inline int submit(brood_pool *pool, const struct work *work, brood_result **ret_result)
{
    brood_message messages[MOST_ITEMS];
    const brood_map_options *options =
        BROOD_MAP_OPTIONS(.chunk_items = work->chunk_items, .timeout_ms = work->timeout_ms,
                          .item_timeout_ms = work->item_timeout_ms, .tell_each = work->tell_each,
                          .retries = work->retries);
    for (size_t i = 0; i < work->count; i++)
        messages[i] = (brood_message){(void *)(uintptr_t)&numbers[i], sizeof *numbers};
    const int error =
        work->in_bytes
            ? brood_pool_map_bytes_async(pool, work->function, messages, work->count, options, ret_result)
            : brood_pool_map_async(pool, work->function, numbers, sizeof *numbers, work->result_bytes,
                                   work->count, options, ret_result);
    return error == 0 ? 0 : stepkill_fail("submit: %s", brood_error_text());
}

static inline int make_pool(const struct work *work, brood_pool **ret_pool)
{
    const brood_pool_options *options =
        BROOD_POOL_OPTIONS(.workers = work->workers, .tasks_per_worker = work->tasks_per_worker);
    const int error = brood_pool_create(options, ret_pool);
    return error == 0 ? 0 : stepkill_fail("pool: %s", brood_error_text());
}

/* The pool takes work, whatever has happened to it. */
static inline int check_next_map(brood_pool *pool)
{
    int results[MOST_ITEMS] = {0};
    const int error = brood_pool_map(pool, negate, numbers, sizeof *numbers, results, sizeof *results,
                                     MOST_ITEMS, BROOD_MAP_OPTIONS(.chunk_items = 2));
    if (error != 0)
        return stepkill_fail("the next map returns %d: %s", error, brood_error_text());
    for (int i = 0; i < MOST_ITEMS; i++)
        if (results[i] != -numbers[i])
            return stepkill_fail("the next map's item %d is %d", i, results[i]);
    return 0;
}

static inline struct state *begin_state(const struct work *work)
{
    shared = stepkill_shared(sizeof *shared);
    the_state = (struct state){.work = work};
    return open_arena() == 0 && make_pool(work, &the_state.pool) == 0 ? &the_state : NULL;
}

/* A pool that has done such a job once: everything is warm. */
static inline struct state *begin(const struct work *work)
{
    struct state *s = begin_state(work);
    if (s == NULL)
        return NULL;
    atomic_store(&shared->is_open, 1);
    if (submit(s->pool, work, &s->result) != 0 || brood_result_wait(s->result, BROOD_FOREVER) != 0)
        return NULL;
    void *results[MOST_ITEMS] = {NULL};
    brood_result_get(s->result, work->in_bytes ? NULL : results, work->in_bytes ? 0 : sizeof results,
                     BROOD_NOW);
    for (size_t i = 0; work->function == allocate && i < work->count; i++)
        brood_free(results[i]);
    brood_result_destroy(s->result);
    s->result = NULL;
    memset(shared, 0, sizeof *shared);
    return s;
}

/* --- outcomes --------------------------------------------------------------------------------- */

static inline int check_runs(size_t i, int least)
{
    const int runs = atomic_load(&shared->runs[i]), most = 1 + (int)the_state.work->retries;
    return runs >= least && runs <= most ? 0 : stepkill_fail("item %zu ran %d times", i, runs);
}

static inline int check_value(struct state *s, size_t i)
{
    const int *value = NULL;
    void *results[MOST_ITEMS];
    brood_message message;
    if (s->is_terminated) /* results of a job that was cut short are not given out */
        return check_runs(i, 1);
    if (s->work->in_bytes)
        value = brood_result_bytes(s->result, i, &message) == 0 && message.bytes == sizeof *value
                    ? message.data
                    : NULL;
    else if (brood_result_get(s->result, results, sizeof results, BROOD_NOW), s->work->function == allocate)
        value = results[i];
    else
        value = (const int *)(const void *)results + i;
    if (value == NULL || *value != 3 * numbers[i])
        return stepkill_fail("item %zu has the value %d", i, value == NULL ? -1 : *value);
    if (s->work->function == allocate && brood_free(results[i]) != 0)
        return stepkill_fail("item %zu: %s", i, brood_error_text());
    return check_runs(i, 1);
}

static inline int check_error(const struct state *s, size_t i, const brood_outcome *outcome)
{
    if (s->work->function != fail_with_text || outcome->code != FAILURE_CODE ||
        strcmp(outcome->text, "no such luck") != 0)
        return stepkill_fail("item %zu failed with %d: %s", i, outcome->code, outcome->text);
    return check_runs(i, 1);
}

/* How a worker ended that died with its supervisor nobody knows. */
static inline int is_death(const struct state *s, const brood_outcome *outcome)
{
    if (s->victim != 0)
        return outcome->pid == s->victim && outcome->signal == SIGKILL;
    return outcome->pid > 0 &&
           (outcome->signal == SIGKILL || (outcome->signal == 0 && outcome->exit_code == -1) ||
            (s->is_terminated && outcome->signal == SIGTERM));
}

static inline int check_died(struct state *s, size_t i, const brood_outcome *outcome)
{
    s->died++;
    if (outcome->attempts != 1 + (int)s->work->retries)
        return stepkill_fail("item %zu died after %d attempts", i, outcome->attempts);
    if (!is_death(s, outcome))
        return stepkill_fail("item %zu died in process %d (signal %d), not in %d", i, outcome->pid,
                             outcome->signal, s->victim);
    return check_runs(i, 0);
}

static inline int check_item(struct state *s, size_t i)
{
    brood_outcome outcome;
    if (brood_result_outcome(s->result, i, &outcome) != 0)
        return stepkill_fail("outcome of item %zu: %s", i, brood_error_text());
    switch (outcome.kind) {
    case BROOD_VALUE:
        return s->work->function == fail_with_text ? stepkill_fail("item %zu has a value", i)
                                                   : check_value(s, i);
    case BROOD_ERROR:
        return check_error(s, i, &outcome);
    case BROOD_DIED:
        return check_died(s, i, &outcome);
    case BROOD_TIMED_OUT:
        s->timed_out++;
        return s->work->item_timeout_ms + s->work->timeout_ms != 0 ? check_runs(i, 0)
                                                                   : stepkill_fail("item %zu timed out", i);
    case BROOD_CANCELLED:
        return s->is_terminated || s->is_cancelled ? check_runs(i, 0)
                                                   : stepkill_fail("item %zu was cancelled", i);
    default:
        return stepkill_fail("item %zu has the outcome %d", i, outcome.kind);
    }
}

static inline int check_whole(const struct state *s)
{
    if (s->is_terminated || s->is_cancelled || s->timed_out != 0)
        return 0;
    void *results[MOST_ITEMS];
    const int got = brood_result_get(s->result, s->work->in_bytes ? NULL : results,
                                     s->work->in_bytes ? 0 : sizeof results, BROOD_NOW);
    const int expected = s->died != 0 ? -EOWNERDEAD : s->work->function == fail_with_text ? -EREMOTEIO : 0;
    return got == expected ? 0
                           : stepkill_fail("the result is %d, not %d: %s", got, expected, brood_error_text());
}

static inline int check_result(struct state *s)
{
    int error =
        brood_result_wait(s->result, BROOD_FOREVER) == 0 ? 0 : stepkill_fail("wait: %s", brood_error_text());
    for (size_t i = 0; error == 0 && i < s->work->count; i++)
        error = check_item(s, i);
    if (error == 0 && s->died > (s->victim != 0 ? 1 : 2 * s->work->workers))
        error = stepkill_fail("%zu items died", s->died);
    return error == 0 ? check_whole(s) : error;
}

/* Nobody and nothing is left. */
static inline int check_end(struct state *s)
{
    brood_result_destroy(s->result);
    if (brood_pool_destroy(s->pool) != 0)
        return stepkill_fail("destroy: %s", brood_error_text());
    if (arena_now().participants != 1)
        return stepkill_fail("%u processes use the arena after destroy", arena_now().participants);
    return check_heap(0);
}

/* --- hooks --- */

static inline pid_t worker_pid(void *ctx)
{
    struct state *s = ctx;
    while ((s->victim = brood_pool_worker_pid(s->pool, s->work->workers - 1)) == 0)
        take_a_nap();
    atomic_store(&shared->victim, s->victim);
    return s->victim;
}

static inline int give_job(void *ctx)
{
    struct state *s = ctx;
    return submit(s->pool, s->work, &s->result);
}

static inline int check_pool_goes_on(void *ctx)
{
    struct state *s = ctx;
    if (check_result(s) != 0 || check_next_map(s->pool) != 0)
        return -1;
    return check_end(s);
}

static inline pid_t supervisor_pid(void *ctx)
{
    const struct state *s = ctx;
    return (pid_t)bri_roster_pid_of(bri_load_acquire(&s->pool->shared->supervisor));
}

/* What each wait of the owner does after a slice of 100 ms, so that a run need not take that long. */
static inline void look_after(void *ctx, pid_t pid, int status)
{
    const struct state *s = ctx;
    (void)pid, (void)status;
    atomic_store(&shared->is_open, 1);
    bri_pool_look_after(s->pool);
}

/* A worker that is at the job's first item, unless the job's time is over before: on a slow machine it may be. */
static inline void *begin_busy(const struct work *work)
{
    struct state *s = begin(work);
    if (s == NULL || submit(s->pool, work, &s->result) != 0)
        return NULL;
    while (atomic_load(&shared->busy) == 0 && brood_result_ready(s->result) == 0)
        take_a_nap();
    return s;
}

static inline int kill_worker(void *ctx)
{
    struct state *s = ctx;
    const pid_t pid = brood_pool_worker_pid(s->pool, 0);
    if (pid <= 0 || kill(pid, SIGKILL) != 0)
        return stepkill_fail("worker 0 has pid %d", pid);
    while (!bri_process_has_ended(pid, 0))
        take_a_nap();
    atomic_store(&shared->is_open, 1);
    return 0;
}

/* --- an owner of its own: what it leaves -------------------------------------------------------- */

static inline void *setup_arena(void)
{
    shared = stepkill_shared(sizeof *shared);
    atomic_store(&shared->is_open, 1);
    the_state = (struct state){.work = NULL};
    return open_arena() == 0 ? &the_state : NULL;
}

static inline int check_owner_is_gone(void *ctx)
{
    (void)ctx;
    wait_until_alone();
    if (check_heap(0) != 0 || check_allocations() != 0)
        return -1;
    return check_heap(0);
}

#endif
