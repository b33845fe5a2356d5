/* SPDX-License-Identifier: MIT */
/* Calls in the standing job (src/pool/standing.c): killed are the worker that listens, hears and runs, the owner that calls, and the supervisor
 * that mourns.  The call is made by a thread, as it waits. */
#define _GNU_SOURCE
#include "pool_work.h"

#include <pthread.h>

struct call {
    struct state *s;
    pthread_t thread;
    int error, value;
};

static struct call the_call;

static void *make_call(void *argument)
{
    struct call *call = argument;
    call->error = brood_pool_apply(call->s->pool, call->s->work->function, &numbers[0], sizeof *numbers,
                                   &call->value, sizeof call->value);
    return NULL;
}

static int begin_call(struct state *s)
{
    the_call = (struct call){.s = s};
    return pthread_create(&the_call.thread, NULL, make_call, &the_call) == 0
               ? 0
               : stepkill_fail("no thread for the call");
}

/* --- the worker ------------------------------------------------------------------------------- */

static int is_listening(const struct state *s)
{
    for (uint32_t i = 0; i < s->work->workers; i++)
        if (bri_load_acquire(&bri_pool_seat(s->pool->shared, i)->visiting) & BRI_VISIT_LISTEN)
            return 1;
    return 0;
}

/* A worker that has answered one call, and listens for the next one. */
static struct state *begin_listening(const struct work *work)
{
    struct state *s = begin_state(work);
    int value;
    if (s == NULL)
        return NULL;
    atomic_store(&shared->is_open, 1);
    brood_pool_apply(s->pool, work->function, &numbers[0], sizeof *numbers, &value, sizeof value);
    while (!is_listening(s))
        take_a_nap();
    memset(shared, 0, sizeof *shared);
    return s;
}

static void *setup_call(void)
{
    static const struct work work = {
        .function = triple, .count = 1, .result_bytes = sizeof(int), .workers = 1};
    return begin_listening(&work);
}

static void *setup_failing_call(void)
{
    static const struct work work = {
        .function = fail_with_text, .count = 1, .result_bytes = sizeof(int), .workers = 1};
    return begin_listening(&work);
}

/* The victim is stopped: nobody takes it. */
static int give_call(void *ctx)
{
    const struct state *s = ctx;
    if (begin_call(ctx) != 0)
        return -1;
    while (bri_load_acquire(&s->pool->standing.job->word) != BRI_CHUNK_FREE)
        take_a_nap();
    return 0;
}

static int check_call(const struct state *s)
{
    const int runs = atomic_load(&shared->runs[0]);
    pthread_join(the_call.thread, NULL);
    if (the_call.error == -EOWNERDEAD)
        return check_runs(0, 0);
    if (the_call.error != (s->work->function == fail_with_text ? -EREMOTEIO : 0))
        return stepkill_fail("the call returns %d after %d runs: %s", the_call.error, runs,
                             brood_error_text());
    if (the_call.error == 0 && the_call.value != 3 * numbers[0])
        return stepkill_fail("the call's value is %d", the_call.value);
    return check_runs(0, 1);
}

static int check_next_call(const struct state *s)
{
    int value = 0;
    const int error = brood_pool_apply(s->pool, negate, &numbers[1], sizeof *numbers, &value, sizeof value);
    return error == 0 && value == -numbers[1]
               ? 0
               : stepkill_fail("the next call returns %d, value %d: %s", error, value, brood_error_text());
}

static int check_calls_go_on(void *ctx)
{
    struct state *s = ctx;
    if (check_call(s) != 0 || check_next_call(s) != 0 || check_next_map(s->pool) != 0 ||
        check_next_call(s) != 0)
        return -1;
    return check_end(s);
}

/* --- the supervisor, whose worker has died in a call ---------------------------------------------- */

static void *setup_busy_call(void)
{
    static const struct work work = {
        .function = triple_first_waits, .count = 1, .result_bytes = sizeof(int), .workers = 2};
    struct state *s = begin_listening(&work);
    if (s == NULL || begin_call(s) != 0)
        return NULL;
    while (atomic_load(&shared->busy) == 0)
        take_a_nap();
    return s;
}

/* Whichever has the call. */
static int kill_worker_in_call(void *ctx)
{
    const struct state *s = ctx;
    const uint16_t word = bri_load_acquire(&s->pool->standing.job->word);
    const pid_t pid = brood_pool_worker_pid(s->pool, word - 1u);
    if (pid <= 0 || kill(pid, SIGKILL) != 0)
        return stepkill_fail("worker %d has pid %d", word - 1, pid);
    while (!bri_process_has_ended(pid, 0))
        take_a_nap();
    atomic_store(&shared->is_open, 1);
    return 0;
}

/* --- the owner -------------------------------------------------------------------------------- */

static void own_and_call(void *ctx)
{
    static const struct work work = {.workers = 1};
    brood_pool *pool;
    int value;
    (void)ctx;
    if (make_pool(&work, &pool) != 0 ||
        brood_pool_apply(pool, triple, &numbers[0], sizeof *numbers, &value, sizeof value) != 0)
        _exit(1);
    stepkill_begin();
    brood_pool_apply(pool, triple, &numbers[1], sizeof *numbers, &value, sizeof value);
    stepkill_end();
}

const struct stepkill_scenario stepkill_pool_calls[] = {
    {.name = "pool.worker.call",
     .setup = setup_call,
     .victim_pid = worker_pid,
     .provoke = give_call,
     .check = check_calls_go_on},
    {.name = "pool.worker.call-fail",
     .setup = setup_failing_call,
     .victim_pid = worker_pid,
     .provoke = give_call,
     .check = check_calls_go_on},
    {.name = "pool.supervisor.call-death",
     .setup = setup_busy_call,
     .victim_pid = supervisor_pid,
     .provoke = kill_worker_in_call,
     .after_kill = look_after,
     .check = check_calls_go_on},
    {.name = "pool.owner.call", .setup = setup_arena, .victim = own_and_call, .check = check_owner_is_gone},
    {.name = NULL},
};
