/* SPDX-License-Identifier: MIT */
/* Many jobs at once, and their result handles: waiting, cancelling, giving up. */
#include "pool_testing.h"

#include <pthread.h>

enum { WORKERS = 3, COUNT = 100, MANY = 100000, THREADS = 4, CALLS_PER_THREAD = 500 };

static int make_pool(void **state)
{
    return make_pool_of(WORKERS, state);
}

/* --- many at once --- */

static void *call_often(void *unused)
{
    (void)unused;
    for (long i = 0; i < CALLS_PER_THREAD; i++) {
        long value = 0;
        if (brood_pool_apply(pool, triple, &i, sizeof i, &value, sizeof value) != 0 || value != i * 3)
            return pool;
    }
    return NULL;
}

static void threads_may_submit(void **unused)
{
    pthread_t threads[THREADS];
    void *failed;

    (void)unused;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

static void jobs_may_overlap(void **unused)
{
    enum { JOBS = 20 };
    brood_result *results[JOBS];
    long items[JOBS][COUNT], values[COUNT];

    (void)unused;
    for (int job = 0; job < JOBS; job++) {
        for (long i = 0; i < COUNT; i++)
            items[job][i] = job * 1000 + i;
        assert_ok(brood_pool_map_async(pool, triple, items[job], sizeof(long), sizeof(long),
                                       (size_t)job * 5 + 1, BROOD_MAP_OPTIONS(.chunk_items = (size_t)job % 4),
                                       &results[job]));
    }
    for (int job = JOBS - 1; job >= 0; job--) {
        assert_ok(brood_result_get(results[job], values, sizeof values, brood_after_ms(WITHIN_MS)));
        for (int i = 0; i <= job * 5; i++)
            assert_int_equal(values[i], (job * 1000 + i) * 3);
        assert_ok(brood_result_destroy(results[job]));
    }
}

static int meet(brood_task *task, const void *item, void *result)
{
    _Atomic int *met = *(_Atomic int *const *)item;
    int64_t end = brood_after_ms(WITHIN_MS);

    (void)task, (void)result;
    bri_add_acq_rel(met, 1);
    while (bri_load_acquire(met) % WORKERS != 0 && bri_now_ns() < end)
        sched_yield();
    return bri_now_ns() >= end;
}

static int all_sleep(void)
{
    for (uint32_t i = 0; i < WORKERS; i++)
        if (!bri_load_acquire(&bri_slot_of(bri_load_acquire(&bri_pool_seat(pool->shared, i)->name))->idle))
            return 0;
    return 1;
}

/* Each job wakes a worker of its own, also while the one that the last job woke has not run yet. */
static void jobs_offered_together_run_together(void **unused)
{
    brood_result *results[WORKERS];
    void *met;

    (void)unused;
    assert_ok(brood_alloc(sizeof(int), &met));
    for (int round = 0; round < 100; round++) {
        await_true(all_sleep());
        for (int i = 0; i < WORKERS; i++)
            assert_ok(brood_pool_apply_async(pool, meet, &met, sizeof met, 0, &results[i]));
        for (int i = 0; i < WORKERS; i++) {
            assert_ok(brood_result_get(results[i], NULL, 0, brood_after_ms(2 * WITHIN_MS)));
            assert_ok(brood_result_destroy(results[i]));
        }
    }
    assert_ok(brood_free(met));
}

/* More than the ring has room for. */
static void a_hundred_thousand_may_wait(void **unused)
{
    brood_result **results = calloc(MANY, sizeof(brood_result *));
    long value;

    (void)unused;
    assert_non_null(results);
    for (long i = 0; i < MANY; i++)
        assert_ok(brood_pool_apply_async(pool, triple, &i, sizeof i, sizeof value, &results[i]));
    for (long i = 0; i < MANY; i++) {
        assert_ok(brood_result_get(results[i], &value, sizeof value, brood_after_ms(WITHIN_MS)));
        assert_int_equal(value, i * 3);
        assert_ok(brood_result_destroy(results[i]));
    }
    free(results);
}

/* --- result handles --- */

static int wait_for_gate(brood_task *task, const void *item, void *result)
{
    _Atomic int *gate = *(_Atomic int *const *)item;

    (void)result;
    bri_add_acq_rel(&gate[1], 1);
    while (bri_load_acquire(&gate[0]) == 0)
        breathe();
    return brood_task_index(task) > COUNT;
}

static void pending_is_said(_Atomic int **items)
{
    brood_result *result;
    brood_outcome outcome;
    brood_message reply;
    _Atomic int *gate = items[0];

    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, 2,
                                   BROOD_MAP_OPTIONS(.chunk_items = 1), &result));
    struct pollfd watch = {.fd = brood_result_fd(result), .events = POLLIN};
    assert_true(watch.fd >= 0);
    assert_int_equal(brood_result_fd(result), watch.fd);
    assert_int_equal(poll(&watch, 1, 0), 0);
    assert_int_equal(brood_result_ready(result), 0);
    assert_refused(brood_result_successful(result), EAGAIN, "ready");
    assert_refused(brood_result_wait(result, BROOD_NOW), ETIMEDOUT, "result");
    assert_refused(brood_result_get(result, NULL, 0, brood_after_ms(10)), ETIMEDOUT, "result");
    assert_ok(brood_result_outcome(result, 1, &outcome));
    assert_int_equal(outcome.kind, BROOD_PENDING);
    assert_refused(brood_result_outcome(result, 2, &outcome), ERANGE, "index");
    assert_refused(brood_result_bytes(result, 0, &reply), EINVAL, "result");
    bri_store_release(&gate[0], 1);
    assert_int_equal(poll(&watch, 1, WITHIN_MS), 1);
    assert_ok(brood_result_wait(result, BROOD_NOW));
    assert_ok(brood_result_destroy(result));
}

static void cancelled_before_it_began(_Atomic int **items)
{
    brood_result *blocker, *result;
    brood_outcome outcome;
    _Atomic int *gate = items[0];

    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, WORKERS,
                                   BROOD_MAP_OPTIONS(.chunk_items = 1), &blocker));
    await_true(bri_load_acquire(&gate[1]) == WORKERS);
    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, COUNT,
                                   BROOD_MAP_OPTIONS(.chunk_items = 7), &result));
    assert_int_equal(brood_result_cancel(result), COUNT);
    assert_int_equal(brood_result_cancel(result), 0);
    assert_int_equal(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)), -ECANCELED);
    assert_ok(brood_result_outcome(result, COUNT - 1, &outcome));
    assert_int_equal(outcome.kind, BROOD_CANCELLED);
    assert_int_equal(brood_result_cancel(blocker), 0);
    bri_store_release(&gate[0], 1);
    assert_ok(brood_result_get(blocker, NULL, 0, brood_after_ms(WITHIN_MS)));
    assert_int_equal(brood_result_cancel(blocker), 0);
    assert_int_equal(bri_load_acquire(&gate[1]), WORKERS);
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_result_destroy(blocker));
}

static void cancelled_in_part(_Atomic int **items)
{
    brood_result *result;
    brood_outcome outcome;
    _Atomic int *gate = items[0];
    int kinds[BROOD_CANCELLED + 1] = {0};

    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, COUNT,
                                   BROOD_MAP_OPTIONS(.chunk_items = 1), &result));
    await_true(bri_load_acquire(&gate[1]) == WORKERS);
    assert_int_equal(brood_result_cancel(result), COUNT - WORKERS);
    assert_refused(brood_result_wait(result, BROOD_NOW), ETIMEDOUT, "result");
    bri_store_release(&gate[0], 1);
    assert_int_equal(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)), -ECANCELED);
    for (size_t i = 0; i < COUNT; i++) {
        assert_ok(brood_result_outcome(result, i, &outcome));
        kinds[outcome.kind]++;
    }
    assert_int_equal(kinds[BROOD_VALUE], WORKERS);
    assert_int_equal(kinds[BROOD_CANCELLED], COUNT - WORKERS);
    assert_ok(brood_result_destroy(result));
}

/* One of two is held up: the other is found, wherever it stands; then both are. */
static void any_is_found(_Atomic int **items)
{
    brood_result *results[2];
    long item = 5;

    assert_ok(brood_pool_apply_async(pool, wait_for_gate, items, sizeof *items, 0, &results[0]));
    assert_refused(brood_result_wait_any(results, 1, BROOD_NOW), ETIMEDOUT, "none");
    assert_refused(brood_result_wait_any(results, 1, brood_after_ms(10)), ETIMEDOUT, "none");
    assert_ok(brood_pool_apply_async(pool, triple, &item, sizeof item, sizeof item, &results[1]));
    assert_int_equal(brood_result_wait_any(results, 2, brood_after_ms(WITHIN_MS)), 1);
    bri_store_release(items[0], 1);
    assert_int_equal(brood_result_wait_any(results, 1, brood_after_ms(WITHIN_MS)), 0);
    assert_refused(brood_result_wait_any(NULL, 1, BROOD_NOW), EINVAL, "results");
    assert_refused(brood_result_wait_any(results, 0, BROOD_NOW), EINVAL, "count");
    assert_refused(brood_result_wait_any(results, 2, -1), EINVAL, "deadline");
    assert_ok(brood_result_destroy(results[0]));
    assert_ok(brood_result_destroy(results[1]));
}

static int wait_if_there_is_a_gate(brood_task *task, const void *item, void *result)
{
    return *(_Atomic int *const *)item == NULL ? 0 : wait_for_gate(task, item, result);
}

static int wait_for_gate_or_die(brood_task *task, const void *item, void *result)
{
    if (*(_Atomic int *const *)item == NULL)
        raise(SIGKILL);
    return wait_for_gate(task, item, result);
}

/* The first is held up: of all others is told meanwhile, whether they end well or take their worker along. */
static void each_is_told_of(_Atomic int **items, brood_function *function)
{
    brood_result *result;
    brood_outcome outcome;
    int is_deadly = function == wait_for_gate_or_die;
    size_t count = is_deadly ? 6 : COUNT;

    for (size_t i = 1; i < count; i++)
        items[i] = NULL;
    assert_ok(brood_pool_map_async(pool, function, items, sizeof *items, 0, count,
                                   BROOD_MAP_OPTIONS(.chunk_items = 1, .tell_each = 1), &result));
    for (size_t i = count - 1; i > 0; i--) {
        assert_ok(brood_result_wait_item(result, i, brood_after_ms(WITHIN_MS)));
        assert_ok(brood_result_outcome(result, i, &outcome));
        assert_int_equal(outcome.kind, is_deadly ? BROOD_DIED : BROOD_VALUE);
    }
    assert_refused(brood_result_wait_item(result, 0, BROOD_NOW), ETIMEDOUT, "not ready");
    assert_refused(brood_result_wait_item(result, 0, brood_after_ms(10)), ETIMEDOUT, "not ready");
    assert_refused(brood_result_wait_item(result, count, BROOD_NOW), ERANGE, "index");
    assert_refused(brood_result_wait_item(result, 0, -1), EINVAL, "deadline");
    assert_refused(brood_result_wait_item(NULL, 0, BROOD_NOW), EINVAL, "result");
    assert_int_equal(brood_result_ready(result), 0);
    bri_store_release(items[0], 1);
    assert_ok(brood_result_wait_item(result, 0, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_result_destroy(result));
}

static void each_item_is_told_of(_Atomic int **items)
{
    each_is_told_of(items, wait_if_there_is_a_gate);
}

static void each_death_is_told_of(_Atomic int **items)
{
    each_is_told_of(items, wait_for_gate_or_die);
}

/* The task functions wait at gate[0] and count themselves in gate[1]. */
static void with_gate(void (*function)(_Atomic int **items))
{
    void *memory;
    _Atomic int *items[COUNT];

    assert_ok(brood_alloc(2 * sizeof(int), &memory));
    for (int i = 0; i < COUNT; i++)
        items[i] = memory;
    function(items);
    assert_ok(brood_free(memory));
}

static void results_tell_how_far_they_are(void **unused)
{
    (void)unused;
    with_gate(pending_is_said);
}

static void one_of_several_is_found(void **unused)
{
    (void)unused;
    with_gate(any_is_found);
}

static void items_are_waited_for_one_by_one(void **unused)
{
    (void)unused;
    with_gate(each_item_is_told_of);
    with_gate(each_death_is_told_of);
}

static void items_that_have_not_begun_are_cancelled(void **unused)
{
    (void)unused;
    with_gate(cancelled_before_it_began);
    with_gate(cancelled_in_part);
}

static void results_given_up_are_dropped(void **unused)
{
    long items[COUNT] = {0};

    (void)unused;
    for (int round = 0; round < 50; round++) {
        brood_result *result;
        assert_ok(brood_pool_map_async(pool, triple, items, sizeof *items, sizeof *items, COUNT,
                                       BROOD_MAP_OPTIONS(.chunk_items = 3), &result));
        assert_ok(brood_result_destroy(result));
    }
    assert_int_equal(brood_result_destroy(NULL), 0);
    assert_ok(brood_pool_map(pool, triple, items, sizeof *items, items, sizeof *items, COUNT, NULL));
}

/* --- random numbers --- */

static int draw(brood_task *task, const void *item, void *result)
{
    (void)task;
    for (int i = 0; i < *(const int *)item; i++)
        brood_random_between(0, 1);
    *(int64_t *)result = brood_random_between(INT64_MIN, INT64_MAX);
    return 0;
}

/* Two jobs of a pool; items that draw differing numbers of numbers. */
static void draw_all(uint64_t seed, uint32_t workers, size_t chunk_items, int64_t results[2][COUNT])
{
    int items[COUNT];
    brood_pool *seeded;

    for (int i = 0; i < COUNT; i++)
        items[i] = i % 5;
    assert_ok(brood_pool_create(BROOD_POOL_OPTIONS(.workers = workers, .seed = seed), &seeded));
    for (int job = 0; job < 2; job++)
        assert_ok(brood_pool_map(seeded, draw, items, sizeof *items, results[job], sizeof(int64_t), COUNT,
                                 BROOD_MAP_OPTIONS(.chunk_items = chunk_items)));
    assert_ok(brood_pool_destroy(seeded));
}

static int count_equal(int64_t a[2][COUNT], int64_t b[2][COUNT])
{
    int equal = 0;

    for (int i = 0; i < 2 * COUNT; i++)
        for (int j = 0; j < 2 * COUNT; j++)
            equal += a[i / COUNT][i % COUNT] == b[j / COUNT][j % COUNT];
    return equal;
}

static void seeds_give_the_same_numbers(void **unused)
{
    static int64_t one[2][COUNT], two[2][COUNT], other[2][COUNT], none[2][COUNT];

    (void)unused;
    draw_all(7, 1, COUNT, one);
    draw_all(7, 3, 2, two);
    draw_all(8, 3, 2, other);
    draw_all(0, 3, 2, none);
    assert_memory_equal(one, two, sizeof one);
    assert_int_equal(count_equal(one, one), 2 * COUNT); /* each item, of each job, has its own */
    assert_int_equal(count_equal(one, other), 0);
    assert_int_equal(count_equal(one, none), 0);
    assert_int_equal(count_equal(none, none), 2 * COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(threads_may_submit),
        clean_test(jobs_may_overlap),
        clean_test(jobs_offered_together_run_together),
        clean_test(results_tell_how_far_they_are),
        clean_test(one_of_several_is_found),
        clean_test(items_are_waited_for_one_by_one),
        clean_test(items_that_have_not_begun_are_cancelled),
        clean_test(results_given_up_are_dropped),
        clean_test(a_hundred_thousand_may_wait),
        clean_test(seeds_give_the_same_numbers),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("pool_jobs", tests, make_pool, drop_pool);
}
