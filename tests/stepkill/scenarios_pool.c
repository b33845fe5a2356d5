/* SPDX-License-Identifier: MIT */
/* Pools: whoever dies, each item has exactly one outcome, the pool goes on or says why not, and nothing is left. */
#define _GNU_SOURCE
#include "pool_work.h"

/* --- tasks ------------------------------------------------------------------------------------ */

static int reply(brood_task *task, const void *item, void *result)
{
    (void)result;
    note_run(task);
    const int value = 3 * *(const int *)item;
    return brood_task_reply(task, &value, sizeof value);
}

/* Who is not the victim keeps its first chunk until the victim is dead. */
static int triple_or_wait(brood_task *task, const void *item, void *result)
{
    if (getpid() != atomic_load(&shared->victim))
        wait_until_open();
    return triple(task, item, result);
}

/* --- a worker is killed ----------------------------------------------------------------------- */

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

static void *setup_each(void)
{
    static const struct work work = {.function = triple,
                                     .count = 6,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1,
                                     .tell_each = 1};
    return begin(&work);
}

/* As a consumer does who takes results one by one. */
static int check_each(void *ctx)
{
    struct state *s = ctx;
    for (size_t i = 0; i < s->work->count; i++)
        if (brood_result_wait_item(s->result, i, BROOD_FOREVER) != 0)
            return stepkill_fail("wait_item %zu: %s", i, brood_error_text());
    return check_pool_goes_on(ctx);
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
    bri_store_release(&s->pool->supervisor, s->supervise.name);
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
    s->pool->supervisor_pid = pid;
    look_after(ctx, pid, status);
}

/* --- the owner is killed ---------------------------------------------------------------------- */

/* The owner is a process of its own; who survives is the driver, which has used the arena before. */
static const struct work owned_map = {
    .function = triple, .count = 6, .chunk_items = 2, .result_bytes = sizeof(int), .workers = 2};
static const struct work owned_wait = {
    .function = triple_first_waits, .count = 6, .chunk_items = 2, .result_bytes = sizeof(int), .workers = 2};
static const struct work timed_map = {.function = triple,
                                      .count = 6,
                                      .chunk_items = 2,
                                      .result_bytes = sizeof(int),
                                      .workers = 2,
                                      .timeout_ms = 20,
                                      .item_timeout_ms = 10};

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

static void own_and_cancel_running(void *ctx)
{
    brood_result *result;
    brood_pool *pool = own_pool(&owned_wait, NULL);
    (void)ctx;
    atomic_store(&shared->is_open, 0);
    if (submit(pool, &owned_wait, &result) != 0)
        _exit(1);
    while (atomic_load(&shared->busy) == 0)
        take_a_nap();
    stepkill_begin();
    brood_result_cancel_running(result);
    stepkill_end();
}

static void own_and_time(void *ctx)
{
    brood_pool *pool = own_pool(&owned_map, NULL);
    brood_result *result;
    (void)ctx;
    stepkill_begin();
    submit(pool, &timed_map, &result);
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
    {.name = "pool.worker.each",
     .setup = setup_each,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_each},
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
     .check = check_pool_goes_on},
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
     .check = check_owner_is_gone},
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
    {.name = "pool.owner.cancel-running",
     .setup = setup_arena,
     .victim = own_and_cancel_running,
     .check = check_owner_is_gone},
    {.name = "pool.owner.time", .setup = setup_arena, .victim = own_and_time, .check = check_owner_is_gone},
    {.name = "pool.owner.drop", .setup = setup_arena, .victim = own_and_drop, .check = check_owner_is_gone},
    {.name = "pool.owner.destroy",
     .setup = setup_arena,
     .victim = own_and_destroy,
     .check = check_owner_is_gone},
    {.name = NULL},
};
