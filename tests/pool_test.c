/* SPDX-License-Identifier: MIT */
/* What the submitting functions and result handles promise. */
#include "pool_testing.h"

enum { WORKERS = 3, COUNT = 100 };
#define LARGE_BYTES ((size_t)10 << 20)

static int make_pool(void **state)
{
    return make_pool_of(WORKERS, state);
}

/* --- tasks --- */

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
    assert_ok(
        brood_pool_map_async(pool, triple, items, sizeof *items, sizeof *results, COUNT, NULL, &result));
    memset(items, 0xff, sizeof items);
    assert_refused(brood_result_get(result, results, sizeof results - 1, BROOD_FOREVER), EMSGSIZE,
                   "capacity");
    assert_ok(brood_result_get(result, results, sizeof results, brood_after_ms(WITHIN_MS)));
    for (long i = 0; i < COUNT; i++)
        assert_int_equal(results[i], i * 3);
    assert_int_equal(brood_result_count(result), COUNT);
    assert_int_equal(brood_result_ready(result), 1);
    assert_int_equal(brood_result_successful(result), 1);
    assert_refused(brood_result_get(result, NULL, 0, BROOD_NOW), EMSGSIZE, "capacity");
    assert_ok(brood_result_destroy(result));
}

static void results_of_no_bytes_need_no_room(void **unused)
{
    brood_result *result = NULL;
    char spare;

    (void)unused;
    assert_ok(brood_pool_map_async(pool, nothing, NULL, 0, 0, 3, NULL, &result));
    assert_ok(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_result_get(result, &spare, 0, BROOD_NOW));
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
    *(int *)result = brood_task_reply(task, "x", 1) == -EINVAL &&
                     brood_task_reply(task, NULL, 1) == -EINVAL &&
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
        assert_int_equal(strlen(outcome.text), i == 3   ? 235
                                               : i == 4 ? strlen("failed, though it returns 0")
                                                        : 0);
        assert_true(i == 0 || outcome.pid > 0);
    }
    assert_int_equal(brood_result_successful(result), 0);
    assert_ok(brood_result_destroy(result));
    assert_refused(brood_pool_apply(pool, fail_by_item, &items[4], sizeof *items, NULL, 0), EREMOTEIO,
                   "though it returns");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(results_stand_in_the_order_of_items),
        clean_test(items_and_results_may_be_of_no_bytes),
        clean_test(results_begin_zeroed),
        clean_test(arrays_in_the_arena_are_not_copied),
        clean_test(items_are_free_again_at_once),
        clean_test(results_of_no_bytes_need_no_room),
        clean_test(replies_are_of_any_size),
        clean_test(the_last_reply_counts),
        clean_test(errors_keep_code_and_text),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("pool", tests, make_pool, drop_pool);
}
