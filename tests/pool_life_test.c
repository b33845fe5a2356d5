/* SPDX-License-Identifier: MIT */
/* A pool's beginning, renewals and ends, and looking in. */
#include "testing.h"

enum { WORKERS = 2, COUNT = 60, GRACE_MS = 100 };

/* Shared by all processes of a test. */
static struct notes {
    _Atomic int starts, gate, running, terms;
    _Atomic pid_t pids[COUNT];
} * notes;

static int make_notes(void **state)
{
    notes = shared_pages(sizeof *notes);
    return make_arena(state);
}

static int forget_notes(void **state)
{
    memset(notes, 0, sizeof *notes);
    return note_resources(state);
}

#define noted_test(function) cmocka_unit_test_setup_teardown(function, forget_notes, check_resources)

/* --- tasks --- */

static int initialized;

static int tell_pid(brood_task *task, const void *item, void *result)
{
    (void)item, (void)result;
    bri_store_release(&notes->pids[brood_task_index(task)], getpid());
    return initialized;
}

static int wait_for_gate(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    bri_add_acq_rel(&notes->running, 1);
    while (bri_load_acquire(&notes->gate) == 0)
        breathe();
    return 0;
}

static int ignore_sigterm(brood_task *task, const void *item, void *result)
{
    signal(SIGTERM, SIG_IGN);
    return wait_for_gate(task, item, result);
}

static int crash(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    raise(SIGKILL);
    return 0;
}

static brood_result *map_async(brood_pool *pool, brood_function *function, size_t count)
{
    brood_result *result = NULL;

    assert_ok(brood_pool_map_async(pool, function, NULL, 0, 0, count, BROOD_MAP_OPTIONS(.chunk_items = 1),
                                   &result));
    return result;
}

/* --- the beginning --- */

static int initialize(void *argument)
{
    bri_add_relaxed(&notes->starts, 1);
    initialized = *(int *)argument;
    return 0;
}

static void the_initializer_runs_in_each_worker(void **unused)
{
    int argument = 33;
    brood_pool *pool;

    (void)unused;
    assert_ok(brood_pool_create(
        BROOD_POOL_OPTIONS(.workers = 3, .initializer = initialize, .initializer_argument = &argument),
        &pool));
    assert_int_equal(notes->starts, 3);
    assert_int_equal(brood_pool_workers(pool), 3);
    assert_refused(brood_pool_apply(pool, tell_pid, NULL, 0, NULL, 0), EREMOTEIO, "33");
    assert_int_equal(brood_pool_apply(pool, crash, NULL, 0, NULL, 0), -EOWNERDEAD);
    await_true(notes->starts == 4);
    assert_int_equal(initialized, 0);
    assert_ok(brood_pool_destroy(pool));
}

static int fail_with_5(void *unused)
{
    (void)unused;
    bri_add_relaxed(&notes->starts, 1);
    return 5;
}

static int die_at_once(void *unused)
{
    (void)unused;
    bri_add_relaxed(&notes->starts, 1);
    raise(SIGKILL);
    return 0;
}

static int leave_at_once(void *unused)
{
    (void)unused;
    bri_add_relaxed(&notes->starts, 1);
    _exit(0);
}

static int die_after_the_first_starts(void *unused)
{
    return bri_load_relaxed(&notes->starts) >= WORKERS ? die_at_once(unused)
                                                       : bri_add_relaxed(&notes->starts, 1) * 0;
}

static void assert_pool_fails(int (*initializer)(void *argument), const char *why, int most_starts)
{
    brood_pool *pool = NULL;

    notes->starts = 0;
    assert_refused(
        brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS, .initializer = initializer), &pool),
        ENOTRECOVERABLE, why);
    assert_null(pool);
    assert_in_range(notes->starts, 1, most_starts);
}

static void a_failing_initializer_is_an_error(void **unused)
{
    (void)unused;
    assert_pool_fails(fail_with_5, "initializer failed (5)", WORKERS);
    assert_pool_fails(die_at_once, "signal 9", 10);
    assert_pool_fails(leave_at_once, "exit code 0", 10);
}

static void workers_that_die_at_every_start_break_the_pool(void **unused)
{
    brood_pool *pool;
    brood_result *result;

    (void)unused;
    assert_ok(brood_pool_create(
        BROOD_POOL_OPTIONS(.workers = WORKERS, .initializer = die_after_the_first_starts), &pool));
    result = map_async(pool, wait_for_gate, COUNT);
    kill(brood_pool_worker_pid(pool, 0), SIGKILL);
    assert_int_equal(brood_result_wait(result, brood_after_ms(WITHIN_MS)), 0);
    assert_refused(brood_result_get(result, NULL, 0, BROOD_NOW), ENOTRECOVERABLE, "signal 9");
    assert_refused(brood_pool_apply(pool, tell_pid, NULL, 0, NULL, 0), ENOTRECOVERABLE, "broken");
    assert_in_range(notes->starts, WORKERS + 1, WORKERS + 12);
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
}

static void the_default_is_a_worker_per_cpu(void **unused)
{
    brood_pool *pool;

    (void)unused;
    assert_ok(brood_pool_create(NULL, &pool));
    assert_int_equal(brood_pool_workers(pool), brood_cpu_count());
    assert_ok(brood_pool_destroy(pool));
}

static void there_may_be_many_workers(void **unused)
{
    brood_pool *pool = new_pool(64);

    (void)unused;
    assert_ok(brood_pool_map(pool, tell_pid, NULL, 0, NULL, 0, COUNT, NULL));
    assert_ok(brood_pool_destroy(pool));
}

/* --- renewal --- */

static void workers_are_renewed(void **unused)
{
    enum { EACH = 4 };
    brood_pool *pool;
    int distinct = 0;

    (void)unused;
    assert_ok(brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS, .tasks_per_worker = EACH), &pool));
    assert_ok(brood_pool_map(pool, tell_pid, NULL, 0, NULL, 0, COUNT, BROOD_MAP_OPTIONS(.chunk_items = 1)));
    for (int i = 0; i < COUNT; i++) {
        int same = 0;
        for (int j = 0; j < COUNT; j++)
            same += notes->pids[j] == notes->pids[i];
        assert_in_range(same, 1, EACH);
        for (int j = 0; j <= i; j++)
            if (notes->pids[j] == notes->pids[i]) {
                distinct += j == i;
                break;
            }
    }
    assert_true(distinct >= COUNT / EACH);
    for (int i = 0; i < 20; i++)
        assert_ok(brood_pool_apply(pool, tell_pid, NULL, 0, NULL, 0));
    assert_ok(brood_pool_destroy(pool));
}

/* --- ends --- */

static void close_lets_work_be_done(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_result *result = map_async(pool, wait_for_gate, COUNT);

    (void)unused;
    assert_refused(brood_pool_join(pool, BROOD_NOW), EBUSY, "close");
    assert_ok(brood_pool_close(pool));
    assert_ok(brood_pool_close(pool));
    assert_refused(brood_pool_apply(pool, tell_pid, NULL, 0, NULL, 0), ESHUTDOWN, "closed");
    assert_refused(brood_pool_join(pool, BROOD_NOW), ETIMEDOUT, "pool");
    assert_refused(brood_pool_join(pool, brood_after_ms(20)), ETIMEDOUT, "pool");
    bri_store_release(&notes->gate, 1);
    assert_ok(brood_pool_join(pool, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_pool_join(pool, BROOD_NOW));
    assert_int_equal(notes->running, COUNT);
    assert_ok(brood_result_get(result, NULL, 0, BROOD_NOW));
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
}

static void closed_pools_replace_the_dead(void **unused)
{
    brood_pool *pool = new_pool(1);
    brood_result *result = map_async(pool, crash, 5), *after = map_async(pool, tell_pid, 5);

    (void)unused;
    assert_ok(brood_pool_close(pool));
    assert_ok(brood_pool_join(pool, brood_after_ms(WITHIN_MS)));
    assert_int_equal(brood_result_get(result, NULL, 0, BROOD_NOW), -EOWNERDEAD);
    assert_ok(brood_result_get(after, NULL, 0, BROOD_NOW));
    assert_ok(brood_result_destroy(after));
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
}

static void terminate_cancels(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_result *done = map_async(pool, tell_pid, COUNT), *result;
    brood_outcome outcome;
    int kinds[BROOD_CANCELLED + 1] = {0};

    (void)unused;
    assert_ok(brood_result_wait(done, brood_after_ms(WITHIN_MS)));
    result = map_async(pool, wait_for_gate, COUNT);
    await_true(notes->running == WORKERS);
    assert_ok(brood_pool_terminate(pool));
    assert_ok(brood_pool_terminate(pool));
    assert_ok(brood_pool_close(pool));
    assert_int_equal(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)), -ECANCELED);
    assert_ok(brood_pool_join(pool, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_result_get(done, NULL, 0, BROOD_NOW));
    for (size_t i = 0; i < COUNT; i++) {
        assert_ok(brood_result_outcome(result, i, &outcome));
        kinds[outcome.kind]++;
    }
    assert_int_equal(kinds[BROOD_PENDING] + kinds[BROOD_VALUE] + kinds[BROOD_ERROR], 0);
    assert_true(kinds[BROOD_DIED] <= WORKERS);
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_result_destroy(done));
    assert_ok(brood_pool_destroy(pool));
}

/* Every order in which the functions of the end may be called, with work outstanding. */
static void ends_may_come_in_every_order(void **unused)
{
    static const char *const orders[] = {"D", "CD", "TD", "CTD", "TCD", "CTJD", "TJD", "TJCTJD", "CTTCJJD"};

    (void)unused;
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        brood_pool *pool = new_pool(WORKERS);
        brood_result *result = map_async(pool, wait_for_gate, 10);
        for (const char *step = orders[i]; *step != '\0'; step++)
            assert_ok(*step == 'C'   ? brood_pool_close(pool)
                      : *step == 'T' ? brood_pool_terminate(pool)
                      : *step == 'J' ? brood_pool_join(pool, brood_after_ms(WITHIN_MS))
                                     : brood_pool_destroy(pool));
        assert_int_equal(brood_result_get(result, NULL, 0, BROOD_NOW), -ECANCELED);
        assert_refused(brood_pool_close(pool), EINVAL, "pool");
        assert_ok(brood_result_destroy(result));
    }
    assert_int_equal(brood_pool_destroy(NULL), 0);
}

static void results_outlive_their_pool(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_result *done = map_async(pool, tell_pid, COUNT), *died = map_async(pool, crash, 1), *cancelled;
    brood_outcome outcome;

    (void)unused;
    assert_ok(brood_result_wait(done, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_result_wait(died, brood_after_ms(WITHIN_MS)));
    cancelled = map_async(pool, wait_for_gate, COUNT);
    assert_ok(brood_pool_destroy(pool));
    assert_int_equal(brood_result_ready(cancelled), 1);
    assert_int_equal(brood_result_successful(done), 1);
    assert_ok(brood_result_get(done, NULL, 0, BROOD_FOREVER));
    assert_int_equal(brood_result_get(died, NULL, 0, BROOD_FOREVER), -EOWNERDEAD);
    assert_int_equal(brood_result_get(cancelled, NULL, 0, BROOD_FOREVER), -ECANCELED);
    assert_ok(brood_result_outcome(cancelled, COUNT - 1, &outcome));
    assert_int_equal(outcome.kind, BROOD_CANCELLED);
    assert_ok(brood_result_outcome(died, 0, &outcome));
    assert_int_equal(outcome.signal, SIGKILL);
    assert_ok(brood_result_destroy(done));
    assert_ok(brood_result_destroy(died));
    assert_ok(brood_result_destroy(cancelled));
}

static void workers_that_ignore_sigterm_are_killed(void **unused)
{
    brood_pool *pool;
    brood_result *result;

    (void)unused;
    assert_ok(brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS, .grace_ms = GRACE_MS), &pool));
    result = map_async(pool, ignore_sigterm, WORKERS);
    await_true(notes->running == WORKERS);
    int64_t begin = bri_now_ns();
    assert_ok(brood_pool_terminate(pool));
    assert_ok(brood_pool_join(pool, brood_after_ms(WITHIN_MS)));
    assert_true(bri_now_ns() - begin >= GRACE_MS * BRI_NS_PER_MS);
    assert_ok(brood_pool_destroy(pool));
    assert_ok(brood_result_destroy(result));
}

static void note_sigterm(int signal)
{
    (void)signal;
    bri_add_acq_rel(&notes->terms, 1);
    _exit(0);
}

static int handle_sigterm(brood_task *task, const void *item, void *result)
{
    signal(SIGTERM, note_sigterm);
    return wait_for_gate(task, item, result);
}

static void workers_may_tidy_up(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_result *result = map_async(pool, handle_sigterm, WORKERS);

    (void)unused;
    await_true(notes->running == WORKERS);
    assert_ok(brood_pool_destroy(pool));
    assert_int_equal(notes->terms, WORKERS);
    assert_ok(brood_result_destroy(result));
}

/* --- pools in pools --- */

static int use_pool(void)
{
    brood_pool *pool;
    int error = brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS), &pool);

    if (error < 0)
        return error;
    error = brood_pool_map(pool, tell_pid, NULL, 0, NULL, 0, COUNT, NULL);
    return error < 0 ? error : brood_pool_destroy(pool);
}

static int use_pool_in_task(brood_task *task, const void *item, void *result)
{
    (void)item, (void)result;
    int error = use_pool();
    return error == 0 ? 0 : brood_task_fail(task, error, brood_error_text());
}

static int use_pool_in_process(void *unused)
{
    (void)unused;
    return use_pool() == 0 ? 0 : 1;
}

static int use_outer_pool(brood_task *task, const void *item, void *result)
{
    brood_pool *pool = *(brood_pool *const *)item;
    brood_result *made = NULL;

    (void)task, (void)result;
    return brood_pool_apply(pool, tell_pid, NULL, 0, NULL, 0) == -EPERM &&
                   brood_pool_destroy(pool) == -EPERM &&
                   brood_pool_apply_async(pool, tell_pid, NULL, 0, 0, &made) == -EPERM &&
                   brood_pool_close(pool) == -EPERM
               ? 0
               : 1;
}

static void pools_nest(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_process *process;
    int code;

    (void)unused;
    assert_ok(brood_pool_map(pool, use_pool_in_task, NULL, 0, NULL, 0, 4, NULL));
    assert_ok(brood_pool_apply(pool, use_outer_pool, &pool, sizeof pool, NULL, 0));
    assert_ok(brood_process_start(use_pool_in_process, NULL, NULL, &process));
    assert_ok(brood_process_join(process, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_process_exit_code(process, &code));
    assert_int_equal(code, 0);
    assert_ok(brood_process_destroy(process));
    assert_ok(brood_pool_destroy(pool));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        noted_test(the_initializer_runs_in_each_worker),
        noted_test(a_failing_initializer_is_an_error),
        noted_test(workers_that_die_at_every_start_break_the_pool),
        noted_test(the_default_is_a_worker_per_cpu),
        noted_test(there_may_be_many_workers),
        noted_test(workers_are_renewed),
        noted_test(close_lets_work_be_done),
        noted_test(closed_pools_replace_the_dead),
        noted_test(terminate_cancels),
        noted_test(ends_may_come_in_every_order),
        noted_test(results_outlive_their_pool),
        noted_test(workers_that_ignore_sigterm_are_killed),
        noted_test(workers_may_tidy_up),
        noted_test(pools_nest),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("pool_life", tests, make_notes, NULL);
}
