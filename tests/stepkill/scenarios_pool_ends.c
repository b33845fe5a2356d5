/* SPDX-License-Identifier: MIT */
/* Tasks that are ended and tasks that are tried again (src/pool/enforce.h, job.h): killed are the worker, the supervisor that ends the
 * task, and the supervisor that mourns. */
#define _GNU_SOURCE
#include "pool_work.h"

enum { SOON_MS = 30, NEVER_MS = 600000 };

/* The worker that runs item 0 is killed at some step, the item is tried again, and every item has its value. */
static int check_all_have_values(void *ctx)
{
    struct state *s = ctx;
    if (check_result(s) != 0)
        return -1;
    if (s->died != 0 || s->timed_out != 0)
        return stepkill_fail("%zu items died, %zu timed out", s->died, s->timed_out);
    return check_next_map(s->pool) != 0 ? -1 : check_end(s);
}

static void *setup_retry(void)
{
    static const struct work work = {.function = triple,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1,
                                     .retries = 1};
    return begin(&work);
}

static void *setup_timed(void)
{
    static const struct work work = {.function = triple,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1,
                                     .item_timeout_ms = NEVER_MS};
    return begin(&work);
}

static void *setup_retry_busy(void)
{
    static const struct work work = {.function = triple_first_waits,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1,
                                     .retries = 1};
    return begin_busy(&work);
}

/* --- the supervisor ends item 0, which waits for ever -------------------------------------------- */

static void *setup_past_its_time(void)
{
    static const struct work work = {.function = triple_first_waits,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1,
                                     .item_timeout_ms = SOON_MS};
    return begin_busy(&work);
}

static void *setup_past_the_whole(void)
{
    static const struct work work = {.function = triple_first_waits,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1,
                                     .timeout_ms = SOON_MS};
    return begin_busy(&work);
}

static void *setup_to_be_cancelled(void)
{
    static const struct work work = {.function = triple_first_waits,
                                     .count = 4,
                                     .chunk_items = 2,
                                     .result_bytes = sizeof(int),
                                     .workers = 1};
    return begin_busy(&work);
}

static int cancel_running(void *ctx)
{
    struct state *s = ctx;
    s->is_cancelled = 1;
    return brood_result_cancel_running(s->result) >= 0 ? 0 : stepkill_fail("cancel: %s", brood_error_text());
}

static int has_ended(void *ctx)
{
    const struct state *s = ctx;
    return brood_result_ready(s->result) == 1;
}

/* Item 0 never opens its gate: it is ended, or it dies with its supervisor; nobody runs it again. */
static int check_item_was_ended(void *ctx)
{
    struct state *s = ctx;
    brood_outcome outcome;
    if (check_result(s) != 0 || brood_result_outcome(s->result, 0, &outcome) != 0)
        return -1;
    if (outcome.kind == BROOD_VALUE)
        return stepkill_fail("item 0 has a value");
    atomic_store(&shared->is_open, 1);
    return check_next_map(s->pool) != 0 ? -1 : check_end(s);
}

static void look_after_only(void *ctx, pid_t pid, int status)
{
    const struct state *s = ctx;
    (void)pid, (void)status;
    bri_pool_look_after(s->pool);
}

const struct stepkill_scenario stepkill_pool_ends[] = {
    {.name = "pool.worker.retry",
     .setup = setup_retry,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_all_have_values},
    {.name = "pool.worker.timed",
     .setup = setup_timed,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_pool_goes_on},
    {.name = "pool.supervisor.retry",
     .setup = setup_retry_busy,
     .victim_pid = supervisor_pid,
     .provoke = kill_worker,
     .after_kill = look_after,
     .check = check_pool_goes_on},
    {.name = "pool.supervisor.item-time",
     .setup = setup_past_its_time,
     .victim_pid = supervisor_pid,
     .settled = has_ended,
     .after_kill = look_after_only,
     .check = check_item_was_ended},
    {.name = "pool.supervisor.whole-time",
     .setup = setup_past_the_whole,
     .victim_pid = supervisor_pid,
     .settled = has_ended,
     .after_kill = look_after_only,
     .check = check_item_was_ended},
    {.name = "pool.supervisor.cancel",
     .setup = setup_to_be_cancelled,
     .victim_pid = supervisor_pid,
     .provoke = cancel_running,
     .settled = has_ended,
     .after_kill = look_after_only,
     .check = check_item_was_ended},
    {.name = NULL},
};
