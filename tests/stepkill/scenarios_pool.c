/* SPDX-License-Identifier: MIT */
/* Pools: whoever dies, each item has exactly one outcome, the pool goes on or says why not, and nothing is left. */
#define _GNU_SOURCE
#include "arena_checks.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "plat/process.h"
#include "pool/pool.h"

enum {
    MOST_ITEMS = 8,
    FAILURE_CODE = 7,
    FEW_POINTS = 60, /* of a routine run, where each takes half a second */
};

/* A job and the pool that runs it. */
struct work {
    brood_function *function;
    size_t count, chunk_items, result_bytes;
    int in_bytes;
    uint32_t workers, tasks_per_worker;
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
    size_t died;
    int is_terminated; /* items may be cancelled */
    struct bri_supervise supervise;
};

static struct shared *shared; /* made before the pool: its workers inherit the address */
static struct state the_state;

static const int numbers[MOST_ITEMS] = {10, 11, 12, 13, 14, 15, 16, 17};

/* --- tasks ------------------------------------------------------------------------------------ */

static void note_run(const brood_task *task)
{
    atomic_fetch_add(&shared->runs[brood_task_index(task)], 1);
}

static int triple(brood_task *task, const void *item, void *result)
{
    note_run(task);
    *(int *)result = 3 * *(const int *)item;
    return 0;
}

static int negate(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(int *)result = -*(const int *)item;
    return 0;
}

static int reply(brood_task *task, const void *item, void *result)
{
    (void)result;
    note_run(task);
    const int value = 3 * *(const int *)item;
    return brood_task_reply(task, &value, sizeof value);
}

static int fail_with_text(brood_task *task, const void *item, void *result)
{
    (void)item, (void)result;
    note_run(task);
    return brood_task_fail(task, FAILURE_CODE, "no such luck");
}

static int allocate(brood_task *task, const void *item, void *result)
{
    void *memory;
    note_run(task);
    if (brood_alloc(1000, &memory) != 0)
        return brood_task_fail(task, 1, brood_error_text());
    *(int *)memory = 3 * *(const int *)item;
    *(void **)result = memory;
    return 0;
}

static void wait_until_open(void)
{
    atomic_fetch_add(&shared->busy, 1);
    while (!atomic_load(&shared->is_open))
        take_a_nap();
}

/* Who is not the victim keeps its first chunk until the victim is dead. */
static int triple_or_wait(brood_task *task, const void *item, void *result)
{
    if (getpid() != atomic_load(&shared->victim))
        wait_until_open();
    return triple(task, item, result);
}

/* The first item waits to be killed, or let go. */
static int triple_first_waits(brood_task *task, const void *item, void *result)
{
    if (brood_task_index(task) == 0)
        wait_until_open();
    return triple(task, item, result);
}

/* --- jobs ------------------------------------------------------------------------------------- */

static int submit(brood_pool *pool, const struct work *work, brood_result **ret_result)
{
    brood_message messages[MOST_ITEMS];
    const brood_map_options *options = BROOD_MAP_OPTIONS(.chunk_items = work->chunk_items);
    for (size_t i = 0; i < work->count; i++)
        messages[i] = (brood_message){(void *)(uintptr_t)&numbers[i], sizeof *numbers};
    const int error =
        work->in_bytes
            ? brood_pool_map_bytes_async(pool, work->function, messages, work->count, options, ret_result)
            : brood_pool_map_async(pool, work->function, numbers, sizeof *numbers, work->result_bytes,
                                   work->count, options, ret_result);
    return error == 0 ? 0 : stepkill_fail("submit: %s", brood_error_text());
}

static int make_pool(const struct work *work, brood_pool **ret_pool)
{
    const brood_pool_options *options =
        BROOD_POOL_OPTIONS(.workers = work->workers, .tasks_per_worker = work->tasks_per_worker);
    const int error = brood_pool_create(options, ret_pool);
    return error == 0 ? 0 : stepkill_fail("pool: %s", brood_error_text());
}

/* The pool takes work, whatever has happened to it. */
static int check_next_map(brood_pool *pool)
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

static struct state *begin_state(const struct work *work)
{
    shared = stepkill_shared(sizeof *shared);
    the_state = (struct state){.work = work};
    return open_arena() == 0 && make_pool(work, &the_state.pool) == 0 ? &the_state : NULL;
}

/* A pool that has done such a job once: everything is warm. */
static struct state *begin(const struct work *work)
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

static int check_runs(size_t i, int least)
{
    const int runs = atomic_load(&shared->runs[i]);
    return runs >= least && runs <= 1 ? 0 : stepkill_fail("item %zu ran %d times", i, runs);
}

static int check_value(struct state *s, size_t i)
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

static int check_error(const struct state *s, size_t i, const brood_outcome *outcome)
{
    if (s->work->function != fail_with_text || outcome->code != FAILURE_CODE ||
        strcmp(outcome->text, "no such luck") != 0)
        return stepkill_fail("item %zu failed with %d: %s", i, outcome->code, outcome->text);
    return check_runs(i, 1);
}

/* How a worker ended that died with its supervisor nobody knows. */
static int is_death(const struct state *s, const brood_outcome *outcome)
{
    if (s->victim != 0)
        return outcome->pid == s->victim && outcome->signal == SIGKILL;
    return outcome->pid > 0 &&
           (outcome->signal == SIGKILL || (outcome->signal == 0 && outcome->exit_code == -1) ||
            (s->is_terminated && outcome->signal == SIGTERM));
}

static int check_died(struct state *s, size_t i, const brood_outcome *outcome)
{
    s->died++;
    if (!is_death(s, outcome))
        return stepkill_fail("item %zu died in process %d (signal %d), not in %d", i, outcome->pid,
                             outcome->signal, s->victim);
    return check_runs(i, 0);
}

static int check_item(struct state *s, size_t i)
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
    case BROOD_CANCELLED:
        return s->is_terminated ? check_runs(i, 0) : stepkill_fail("item %zu was cancelled", i);
    default:
        return stepkill_fail("item %zu has the outcome %d", i, outcome.kind);
    }
}

static int check_whole(const struct state *s)
{
    if (s->is_terminated)
        return 0;
    void *results[MOST_ITEMS];
    const int got = brood_result_get(s->result, s->work->in_bytes ? NULL : results,
                                     s->work->in_bytes ? 0 : sizeof results, BROOD_NOW);
    const int expected = s->died != 0 ? -EOWNERDEAD : s->work->function == fail_with_text ? -EREMOTEIO : 0;
    return got == expected ? 0
                           : stepkill_fail("the result is %d, not %d: %s", got, expected, brood_error_text());
}

static int check_result(struct state *s)
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
static int check_end(struct state *s)
{
    brood_result_destroy(s->result);
    if (brood_pool_destroy(s->pool) != 0)
        return stepkill_fail("destroy: %s", brood_error_text());
    if (arena_now().participants != 1)
        return stepkill_fail("%u processes use the arena after destroy", arena_now().participants);
    return check_heap(0);
}

/* --- a worker is killed ----------------------------------------------------------------------- */

static pid_t worker_pid(void *ctx)
{
    struct state *s = ctx;
    while ((s->victim = brood_pool_worker_pid(s->pool, s->work->workers - 1)) == 0)
        take_a_nap();
    atomic_store(&shared->victim, s->victim);
    return s->victim;
}

static int give_job(void *ctx)
{
    struct state *s = ctx;
    return submit(s->pool, s->work, &s->result);
}

static int give_job_to_both(void *ctx)
{
    if (give_job(ctx) != 0)
        return -1;
    while (atomic_load(&shared->busy) == 0)
        take_a_nap();
    return 0;
}

static void open_gate(void *ctx, pid_t pid, int status)
{
    (void)ctx, (void)pid, (void)status;
    atomic_store(&shared->is_open, 1);
}

static int check_pool_goes_on(void *ctx)
{
    struct state *s = ctx;
    if (check_result(s) != 0 || check_next_map(s->pool) != 0)
        return -1;
    return check_end(s);
}

static void *setup_apply(void)
{
    static const struct work work = {
        .function = triple, .count = 1, .result_bytes = sizeof(int), .workers = 1};
    return begin(&work);
}

static void *setup_map(void)
{
    static const struct work work = {
        .function = triple, .count = 6, .chunk_items = 2, .result_bytes = sizeof(int), .workers = 1};
    return begin(&work);
}

static void *setup_share(void)
{
    static const struct work work = {
        .function = triple_or_wait, .count = 6, .chunk_items = 2, .result_bytes = sizeof(int), .workers = 2};
    return begin(&work);
}

static void *setup_reply(void)
{
    static const struct work work = {
        .function = reply, .count = 2, .chunk_items = 2, .in_bytes = 1, .workers = 1};
    return begin(&work);
}

static void *setup_fail(void)
{
    static const struct work work = {
        .function = fail_with_text, .count = 1, .result_bytes = sizeof(int), .workers = 1};
    return begin(&work);
}

static void *setup_alloc(void)
{
    static const struct work work = {
        .function = allocate, .count = 2, .chunk_items = 2, .result_bytes = sizeof(void *), .workers = 1};
    return begin(&work);
}

/* It leaves after the job, and another takes its place. */
static void *setup_renew(void)
{
    static const struct work work = {
        .function = triple, .count = 1, .result_bytes = sizeof(int), .workers = 1, .tasks_per_worker = 2};
    return begin(&work);
}

/* The pool is closed with the job in it: the worker leaves after it, or its successor does. */
static int give_job_and_close(void *ctx)
{
    const struct state *s = ctx;
    if (give_job(ctx) != 0)
        return -1;
    return brood_pool_close(s->pool) == 0 ? 0 : stepkill_fail("close: %s", brood_error_text());
}

static int check_pool_ends(void *ctx)
{
    struct state *s = ctx;
    if (check_result(s) != 0)
        return -1;
    if (brood_pool_join(s->pool, BROOD_FOREVER) != 0)
        return stepkill_fail("join: %s", brood_error_text());
    return check_end(s);
}

/* --- the supervisor is killed ----------------------------------------------------------------- */

static pid_t supervisor_pid(void *ctx)
{
    const struct state *s = ctx;
    return (pid_t)bri_roster_pid_of(bri_load_acquire(&s->pool->shared->supervisor));
}

/* What each wait of the owner does after a slice of 100 ms, so that a run need not take that long. */
static void look_after(void *ctx, pid_t pid, int status)
{
    const struct state *s = ctx;
    (void)pid, (void)status;
    atomic_store(&shared->is_open, 1);
    bri_pool_look_after(s->pool);
}

/* A worker that is at the job's first item. */
static void *begin_busy(const struct work *work)
{
    struct state *s = begin(work);
    if (s == NULL || submit(s->pool, work, &s->result) != 0)
        return NULL;
    while (atomic_load(&shared->busy) == 0)
        take_a_nap();
    return s;
}

static void *setup_busy_one(void)
{
    static const struct work work = {.function = triple_first_waits,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1};
    return begin_busy(&work);
}

static void *setup_busy_two(void)
{
    static const struct work work = {.function = triple_first_waits,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 2};
    return begin_busy(&work);
}

static int kill_worker(void *ctx)
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

static int terminate_pool(void *ctx)
{
    struct state *s = ctx;
    s->is_terminated = 1;
    return brood_pool_terminate(s->pool) == 0 ? 0 : stepkill_fail("terminate: %s", brood_error_text());
}

static int close_pool(void *ctx)
{
    const struct state *s = ctx;
    return brood_pool_close(s->pool) == 0 ? 0 : stepkill_fail("close: %s", brood_error_text());
}

static int close_idle_pool(void *ctx)
{
    struct state *s = ctx;
    atomic_store(&shared->is_open, 1);
    if (brood_result_wait(s->result, BROOD_FOREVER) != 0)
        return stepkill_fail("wait: %s", brood_error_text());
    return close_pool(ctx);
}

/* The first supervisor was killed; the second is the victim, from its first instruction. */
static void *setup_second_supervisor(void)
{
    struct state *s = setup_busy_one();
    if (s == NULL)
        return NULL;
    const pid_t worker = brood_pool_worker_pid(s->pool, 0), supervisor = supervisor_pid(s);
    kill(supervisor, SIGKILL);
    while (!bri_process_has_ended(worker, 0))
        take_a_nap();
    atomic_store(&shared->is_open, 1);
    bri_pool_look_after(s->pool);
    s->supervise.pool = s->pool;
    if (bri_roster_claim(BRI_ROLE_SUPERVISOR, &s->supervise.name) != 0)
        return NULL;
    bri_store_release(&s->pool->shared->supervisor, s->supervise.name);
    return s;
}

static void be_second_supervisor(void *ctx)
{
    struct state *s = ctx;
    stepkill_begin();
    bri_supervisor_main(&s->supervise);
}

/* Its pid is told by whoever forked it. */
static void tell_pid_and_look_after(void *ctx, pid_t pid, int status)
{
    const struct state *s = ctx;
    bri_roster_tell_pid(s->supervise.name, (uint32_t)pid);
    look_after(ctx, pid, status);
}

/* --- the owner is killed ---------------------------------------------------------------------- */

/* The owner is a process of its own; who survives is the driver, which has used the arena before. */
static void *setup_arena(void)
{
    shared = stepkill_shared(sizeof *shared);
    atomic_store(&shared->is_open, 1);
    the_state = (struct state){.work = NULL};
    return open_arena() == 0 ? &the_state : NULL;
}

static const struct work owned_map = {
    .function = triple, .count = 6, .chunk_items = 2, .result_bytes = sizeof(int), .workers = 2};
static const struct work owned_wait = {
    .function = triple_first_waits, .count = 6, .chunk_items = 2, .result_bytes = sizeof(int), .workers = 2};

/* In the owner, before it begins: a pool in which all is warm, and, with `keep`, a result. */
static brood_pool *own_pool(const struct work *work, brood_result **keep)
{
    brood_pool *pool;
    brood_result *result;
    if (make_pool(work, &pool) != 0 || submit(pool, work, &result) != 0)
        _exit(1);
    brood_result_wait(result, BROOD_FOREVER);
    brood_result_destroy(result);
    if (keep != NULL && submit(pool, work, keep) != 0)
        _exit(1);
    return pool;
}

static void own_and_create(void *ctx)
{
    brood_pool *pool;
    (void)ctx;
    bri_arena_enter();
    stepkill_begin();
    make_pool(&owned_map, &pool);
    stepkill_end();
}

static void own_and_apply(void *ctx)
{
    brood_pool *pool = own_pool(&owned_map, NULL);
    brood_result *result;
    (void)ctx;
    stepkill_begin();
    brood_pool_apply_async(pool, triple, numbers, sizeof *numbers, sizeof(int), &result);
    stepkill_end();
}

static void own_and_map(void *ctx)
{
    brood_pool *pool = own_pool(&owned_map, NULL);
    brood_result *result;
    (void)ctx;
    stepkill_begin();
    submit(pool, &owned_map, &result);
    stepkill_end();
}

static void own_and_wait(void *ctx)
{
    brood_result *result;
    own_pool(&owned_map, &result);
    (void)ctx;
    stepkill_begin();
    brood_result_wait(result, BROOD_FOREVER);
    stepkill_end();
}

static void own_and_cancel(void *ctx)
{
    brood_result *result;
    brood_pool *pool = own_pool(&owned_wait, NULL);
    (void)ctx;
    atomic_store(&shared->is_open, 0);
    if (submit(pool, &owned_wait, &result) != 0)
        _exit(1);
    stepkill_begin();
    brood_result_cancel(result);
    stepkill_end();
}

static void own_and_drop(void *ctx)
{
    brood_result *result;
    own_pool(&owned_map, &result);
    (void)ctx;
    brood_result_wait(result, BROOD_FOREVER);
    stepkill_begin();
    brood_result_destroy(result);
    stepkill_end();
}

static void own_and_destroy(void *ctx)
{
    brood_pool *pool = own_pool(&owned_map, NULL);
    (void)ctx;
    stepkill_begin();
    brood_pool_destroy(pool);
    stepkill_end();
}

/* The supervisor is killed while it clears up after its owner. */
static void be_owner(void *ctx)
{
    brood_result *result;
    (void)ctx;
    const brood_pool *pool = own_pool(&owned_wait, NULL);
    atomic_store(&shared->is_open, 0);
    if (submit((brood_pool *)(uintptr_t)pool, &owned_wait, &result) != 0)
        _exit(1);
    while (atomic_load(&shared->busy) < 2)
        take_a_nap();
    atomic_store(&shared->told, (int)bri_roster_pid_of(bri_load_acquire(&pool->shared->supervisor)));
    for (;;)
        pause();
}

static void *setup_owner(void)
{
    struct state *s = setup_arena();
    if (s == NULL)
        return NULL;
    shared->owner = fork_to(be_owner, s);
    while (atomic_load(&shared->told) == 0)
        take_a_nap();
    return s;
}

static pid_t told_pid(void *ctx)
{
    (void)ctx;
    return atomic_load(&shared->told);
}

static int kill_owner(void *ctx)
{
    (void)ctx;
    kill(shared->owner, SIGKILL);
    return waitpid(shared->owner, NULL, 0) == shared->owner ? 0
                                                            : stepkill_fail("the owner cannot be waited for");
}

static int check_owner_is_gone(void *ctx)
{
    (void)ctx;
    wait_until_alone();
    if (check_heap(0) != 0 || check_allocations() != 0)
        return -1;
    return check_heap(0);
}

const struct stepkill_scenario stepkill_pool[] = {
    {.name = "pool.worker.apply",
     .setup = setup_apply,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_pool_goes_on},
    {.name = "pool.worker.map",
     .setup = setup_map,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_pool_goes_on},
    {.name = "pool.worker.share",
     .setup = setup_share,
     .victim_pid = worker_pid,
     .provoke = give_job_to_both,
     .after_kill = open_gate,
     .check = check_pool_goes_on},
    {.name = "pool.worker.reply",
     .setup = setup_reply,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_pool_goes_on},
    {.name = "pool.worker.fail",
     .setup = setup_fail,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_pool_goes_on},
    {.name = "pool.worker.alloc",
     .setup = setup_alloc,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_pool_goes_on},
    {.name = "pool.worker.renew",
     .setup = setup_renew,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_pool_goes_on},
    {.name = "pool.worker.close",
     .setup = setup_map,
     .victim_pid = worker_pid,
     .provoke = give_job_and_close,
     .check = check_pool_ends},
    {.name = "pool.supervisor.death",
     .setup = setup_busy_one,
     .victim_pid = supervisor_pid,
     .provoke = kill_worker,
     .after_kill = look_after,
     .check = check_pool_goes_on},
    {.name = "pool.supervisor.death-slow",
     .setup = setup_busy_one,
     .victim_pid = supervisor_pid,
     .provoke = kill_worker,
     .check = check_pool_goes_on,
     .most_points = FEW_POINTS},
    {.name = "pool.supervisor.terminate",
     .setup = setup_busy_two,
     .victim_pid = supervisor_pid,
     .provoke = terminate_pool,
     .after_kill = look_after,
     .check = check_pool_ends},
    {.name = "pool.supervisor.close",
     .setup = setup_busy_two,
     .victim_pid = supervisor_pid,
     .provoke = close_pool,
     .after_kill = look_after,
     .check = check_pool_ends},
    {.name = "pool.supervisor.close-idle",
     .setup = setup_busy_two,
     .victim_pid = supervisor_pid,
     .provoke = close_idle_pool,
     .after_kill = look_after,
     .check = check_pool_ends},
    {.name = "pool.supervisor.start",
     .setup = setup_second_supervisor,
     .victim = be_second_supervisor,
     .after_kill = tell_pid_and_look_after,
     .check = check_pool_goes_on},
    {.name = "pool.supervisor.owner",
     .setup = setup_owner,
     .victim_pid = told_pid,
     .provoke = kill_owner,
     .check = check_owner_is_gone,
     .most_points = FEW_POINTS},
    {.name = "pool.owner.create",
     .setup = setup_arena,
     .victim = own_and_create,
     .check = check_owner_is_gone},
    {.name = "pool.owner.apply", .setup = setup_arena, .victim = own_and_apply, .check = check_owner_is_gone},
    {.name = "pool.owner.map", .setup = setup_arena, .victim = own_and_map, .check = check_owner_is_gone},
    {.name = "pool.owner.wait", .setup = setup_arena, .victim = own_and_wait, .check = check_owner_is_gone},
    {.name = "pool.owner.cancel",
     .setup = setup_arena,
     .victim = own_and_cancel,
     .check = check_owner_is_gone},
    {.name = "pool.owner.drop", .setup = setup_arena, .victim = own_and_drop, .check = check_owner_is_gone},
    {.name = "pool.owner.destroy",
     .setup = setup_arena,
     .victim = own_and_destroy,
     .check = check_owner_is_gone},
    {.name = NULL},
};
