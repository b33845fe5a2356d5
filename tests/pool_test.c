/* SPDX-License-Identifier: MIT */
/* What the submitting functions and result handles promise. */
#include "testing.h"

#include <pthread.h>

enum { WORKERS = 3, COUNT = 100, MANY = 100000, THREADS = 4, CALLS_PER_THREAD = 500 };
#define LARGE_BYTES ((size_t)10 << 20)

static brood_pool *pool;

static int nothing(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    return 0;
}

static int is_looked_at(void)
{
    for (uint32_t i = 0; i < WORKERS; i++)
        if (bri_load_acquire(&bri_pool_seat(pool->shared, i)->visiting) != 0)
            return 1;
    return 0;
}

/* Jobs that a worker still looked at when they were given up are freed at the next calls. */
static void free_jobs(void)
{
    brood_result *result;

    assert_ok(brood_pool_apply_async(pool, nothing, NULL, 0, 0, &result));
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    await_true(!is_looked_at());
    assert_ok(brood_result_destroy(result));
}

static int make_pool(void **state)
{
    int error = make_arena(state);

    pool = error == 0 ? new_pool(WORKERS) : NULL;
    tidy_up = free_jobs;
    return error;
}

static int drop_pool(void **state)
{
    (void)state;
    return brood_pool_destroy(pool);
}

/* --- tasks --- */

static int triple(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(long *)result = *(const long *)item * 3;
    return 0;
}

static int tell_index(brood_task *task, const void *item, void *result)
{
    *(size_t *)result = item == NULL && brood_task_item_bytes(task) == 0 ? brood_task_index(task) + 1 : 0;
    return 0;
}

static int mark(brood_task *task, const void *item, void *result)
{
    _Atomic int *marks = *(_Atomic int *const *)item;

    bri_add_relaxed(&marks[brood_task_index(task)], result == NULL ? 1 : 100);
    return 0;
}

static int is_zeroed(brood_task *task, const void *item, void *result)
{
    unsigned char *bytes = result;
    int zero = 1;

    (void)task, (void)item;
    for (size_t i = 0; i < 100; i++)
        zero &= bytes[i] == 0;
    memset(bytes, 0xee, 100);
    bytes[0] = (unsigned char)zero;
    return 0;
}

static int echo(brood_task *task, const void *item, void *result)
{
    if (result != NULL || ((uintptr_t)item & 15) != 0)
        return brood_task_fail(task, 1, "result or alignment");
    return brood_task_reply(task, item, brood_task_item_bytes(task));
}

static int fail_by_item(brood_task *task, const void *item, void *result)
{
    static const char letters[] = "0123456789";
    char text[400];

    (void)result;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = letters[i % 10];
    text[sizeof text - 1] = '\0';
    switch (*(const int *)item) {
    case 0:
        return 0;
    case 1:
        return 42;
    case 2:
        return brood_task_fail(task, 0, NULL);
    case 3:
        return brood_task_fail(task, INT_MIN, text);
    default:
        brood_task_fail(task, 9, "failed, though it returns 0");
        return 0;
    }
}

/* --- map --- */

static void results_stand_in_the_order_of_items(void **unused)
{
    static const size_t chunks[] = {0, 1, 2, 7, COUNT - 1, COUNT, COUNT + 1, SIZE_MAX};
    long items[COUNT], results[COUNT + 1];

    (void)unused;
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++)
        for (size_t count = 1; count <= COUNT; count += count < 8 ? 1 : 23) {
            for (size_t i = 0; i < count; i++)
                items[i] = (long)(i * 7 + c);
            results[count] = -1;
            assert_ok(brood_pool_map(pool, triple, items, sizeof *items, results, sizeof *results, count,
                                     BROOD_MAP_OPTIONS(.chunk_items = chunks[c])));
            for (size_t i = 0; i < count; i++)
                assert_int_equal(results[i], (long)(i * 7 + c) * 3);
            assert_int_equal(results[count], -1);
        }
}

static void items_and_results_may_be_of_no_bytes(void **unused)
{
    size_t results[COUNT];
    void *memory;

    (void)unused;
    assert_ok(brood_pool_map(pool, tell_index, NULL, 0, results, sizeof *results, COUNT, NULL));
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(results[i], i + 1);
    assert_ok(brood_alloc(COUNT * sizeof(int), &memory));
    int *items[COUNT], *marks = memory;
    for (size_t i = 0; i < COUNT; i++)
        items[i] = marks;
    assert_ok(brood_pool_map(pool, mark, items, sizeof *items, NULL, 0, COUNT, NULL));
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(marks[i], 1);
    assert_ok(brood_free(memory));
}

static void results_begin_zeroed(void **unused)
{
    unsigned char results[10][100];

    (void)unused;
    for (int round = 0; round < 3; round++) {
        assert_ok(brood_pool_map(pool, is_zeroed, NULL, 0, results, 100, 10, NULL));
        for (int i = 0; i < 10; i++)
            assert_int_equal(results[i][0], 1);
    }
}

/* Items: {where this item lies, where its result is expected}; the task says whether it sees them there. */
struct places {
    const void *item, *result;
};

static int is_in_place(brood_task *task, const void *item, void *result)
{
    const struct places *places = item;

    (void)task;
    *(int *)result = places->item == item && places->result == result;
    return 0;
}

static void arrays_in_the_arena_are_not_copied(void **unused)
{
    void *items_memory, *results_memory;

    (void)unused;
    assert_ok(brood_alloc(COUNT * sizeof(struct places), &items_memory));
    assert_ok(brood_alloc(COUNT * sizeof(int), &results_memory));
    struct places *items = items_memory;
    int *results = results_memory;
    for (size_t i = 0; i < COUNT; i++)
        items[i] = (struct places){&items[i], &results[i]};
    assert_ok(brood_pool_map(pool, is_in_place, items, sizeof *items, results, sizeof *results, COUNT, NULL));
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(results[i], 1);
    assert_ok(brood_free(items));
    assert_ok(brood_free(results));
}

static void items_are_free_again_at_once(void **unused)
{
    brood_result *result;
    long items[COUNT], results[COUNT];

    (void)unused;
    for (long i = 0; i < COUNT; i++)
        items[i] = i;
    assert_ok(brood_pool_map_async(pool, triple, items, sizeof *items, sizeof *results, COUNT, NULL, &result));
    memset(items, 0xff, sizeof items);
    assert_refused(brood_result_get(result, results, sizeof results - 1, BROOD_FOREVER), EMSGSIZE, "capacity");
    assert_ok(brood_result_get(result, results, sizeof results, brood_after_ms(WITHIN_MS)));
    for (long i = 0; i < COUNT; i++)
        assert_int_equal(results[i], i * 3);
    assert_int_equal(brood_result_count(result), COUNT);
    assert_int_equal(brood_result_ready(result), 1);
    assert_int_equal(brood_result_successful(result), 1);
    assert_ok(brood_result_get(result, NULL, 0, BROOD_NOW));
    assert_ok(brood_result_destroy(result));
}

/* --- bytes --- */

static void replies_are_of_any_size(void **unused)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4000, 70000, LARGE_BYTES};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    char *data = malloc(LARGE_BYTES);
    brood_message items[SIZES], reply;
    brood_result *result;

    (void)unused;
    assert_non_null(data);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        data[i] = (char)(i * 31 >> 3);
    for (size_t i = 0; i < SIZES; i++)
        items[i] = (brood_message){sizes[i] == 0 ? NULL : data, sizes[i]};
    assert_ok(brood_pool_map_bytes_async(pool, echo, items, SIZES, NULL, &result));
    assert_ok(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)));
    for (size_t i = 0; i < SIZES; i++) {
        assert_ok(brood_result_bytes(result, i, &reply));
        assert_non_null(reply.data);
        assert_int_equal(reply.bytes, sizes[i]);
        assert_int_equal(memcmp(reply.data, data, sizes[i]), 0);
    }
    assert_refused(brood_result_bytes(result, SIZES, &reply), ERANGE, "index");
    assert_ok(brood_result_destroy(result));
    free(data);
}

static int reply_twice(brood_task *task, const void *item, void *result)
{
    void *memory;

    (void)item, (void)result;
    if (brood_task_reply(task, "first", 6) != 0 || brood_task_reply_reserve(task, 7, &memory) != 0)
        return 1;
    memcpy(memory, "second", 7);
    return brood_task_index(task) == 1 ? brood_task_fail(task, 5, "changed its mind") : 0;
}

static int misuse_replies(brood_task *task, const void *item, void *result)
{
    void *memory = NULL;

    (void)item;
    *(int *)result = brood_task_reply(task, "x", 1) == -EINVAL && brood_task_reply(task, NULL, 1) == -EINVAL &&
                     brood_task_reply_reserve(task, 1, &memory) == -EINVAL && memory == NULL &&
                     brood_task_reply_reserve(task, 1, NULL) == -EINVAL && brood_task_worker(task) < WORKERS;
    return 0;
}

static void the_last_reply_counts(void **unused)
{
    brood_message items[2] = {{0}}, reply;
    brood_result *result;
    int well = 0;

    (void)unused;
    assert_ok(brood_pool_map_bytes_async(pool, reply_twice, items, 2, NULL, &result));
    assert_int_equal(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)), -EREMOTEIO);
    assert_ok(brood_result_bytes(result, 0, &reply));
    assert_string_equal(reply.data, "second");
    assert_refused(brood_result_bytes(result, 1, &reply), ENODATA, "item 1");
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_apply(pool, misuse_replies, NULL, 0, &well, sizeof well));
    assert_int_equal(well, 1);
}

/* --- errors --- */

static void errors_keep_code_and_text(void **unused)
{
    const int items[] = {0, 1, 2, 3, 4};
    const int codes[] = {0, 42, -1, INT_MIN, 9};
    brood_result *result;
    brood_outcome outcome;

    (void)unused;
    assert_ok(brood_pool_map_async(pool, fail_by_item, items, sizeof *items, 0, 5, NULL, &result));
    assert_int_equal(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)), -EREMOTEIO);
    assert_non_null(strstr(brood_error_text(), "item 1"));
    for (size_t i = 0; i < 5; i++) {
        assert_ok(brood_result_outcome(result, i, &outcome));
        assert_int_equal(outcome.kind, i == 0 ? BROOD_VALUE : BROOD_ERROR);
        assert_int_equal(outcome.code, codes[i]);
        assert_int_equal(strlen(outcome.text), i == 3 ? 235 : i == 4 ? strlen("failed, though it returns 0") : 0);
        assert_true(i == 0 || outcome.pid > 0);
    }
    assert_int_equal(brood_result_successful(result), 0);
    assert_ok(brood_result_destroy(result));
    assert_refused(brood_pool_apply(pool, fail_by_item, &items[4], sizeof *items, NULL, 0), EREMOTEIO, "though it returns");
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
        assert_ok(brood_pool_map_async(pool, triple, items[job], sizeof(long), sizeof(long), (size_t)job * 5 + 1,
                                       BROOD_MAP_OPTIONS(.chunk_items = (size_t)job % 4), &results[job]));
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

    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, 2, BROOD_MAP_OPTIONS(.chunk_items = 1), &result));
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

    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, WORKERS, BROOD_MAP_OPTIONS(.chunk_items = 1),
                                   &blocker));
    await_true(bri_load_acquire(&gate[1]) == WORKERS);
    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, COUNT, BROOD_MAP_OPTIONS(.chunk_items = 7), &result));
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

    assert_ok(brood_pool_map_async(pool, wait_for_gate, items, sizeof *items, 0, COUNT, BROOD_MAP_OPTIONS(.chunk_items = 1), &result));
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
        assert_ok(brood_pool_map_async(pool, triple, items, sizeof *items, sizeof *items, COUNT, BROOD_MAP_OPTIONS(.chunk_items = 3),
                                       &result));
        assert_ok(brood_result_destroy(result));
    }
    assert_int_equal(brood_result_destroy(NULL), 0);
    assert_ok(brood_pool_map(pool, triple, items, sizeof *items, items, sizeof *items, COUNT, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(results_stand_in_the_order_of_items),
        clean_test(items_and_results_may_be_of_no_bytes),
        clean_test(results_begin_zeroed),
        clean_test(arrays_in_the_arena_are_not_copied),
        clean_test(items_are_free_again_at_once),
        clean_test(replies_are_of_any_size),
        clean_test(the_last_reply_counts),
        clean_test(errors_keep_code_and_text),
        clean_test(threads_may_submit),
        clean_test(jobs_may_overlap),
        clean_test(jobs_offered_together_run_together),
        clean_test(results_tell_how_far_they_are),
        clean_test(items_that_have_not_begun_are_cancelled),
        clean_test(results_given_up_are_dropped),
        clean_test(a_hundred_thousand_may_wait),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("pool", tests, make_pool, drop_pool);
}
