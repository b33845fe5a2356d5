/* SPDX-License-Identifier: MIT */
/* imap and imap_unordered: order, bounds, ends. */
#include "pool_testing.h"

enum { WORKERS = 2, ITEMS = 200, SLOW_NS = 30000000 };

static _Atomic int *overtaken; /* by the first item */

static int make_pool(void **state)
{
    overtaken = shared_pages(sizeof *overtaken);
    return make_pool_of(WORKERS, state);
}

/* --- an iterator over numbers --- */

struct numbers {
    long next, end;
    int end_error; /* given instead of an end */
    long taken, most_ahead;
    pid_t thread;
    long current;
};

static int give_number(void *argument, brood_message *ret_item)
{
    struct numbers *numbers = argument;
    long ahead = numbers->next + 1 - numbers->taken;

    assert_int_equal(numbers->thread, gettid());
    if (numbers->next == numbers->end)
        return numbers->end_error;
    if (ahead > numbers->most_ahead)
        numbers->most_ahead = ahead;
    numbers->current = numbers->next++;
    *ret_item = (brood_message){&numbers->current, sizeof numbers->current};
    return 1;
}

static struct numbers numbers_to(long end, int end_error)
{
    return (struct numbers){.end = end, .end_error = end_error, .thread = gettid()};
}

static int give_nothing(void *argument, brood_message *ret_item)
{
    int *left = argument;

    *ret_item = (brood_message){NULL, 0};
    return (*left)-- > 0;
}

/* --- tasks --- */

static int square(brood_task *task, const void *item, void *result)
{
    long number = *(const long *)item, value = number * number;

    if (result != NULL || brood_task_item_bytes(task) != sizeof number)
        return 1;
    if (number % 10 == 7)
        return brood_task_fail(task, 7, "sevens fail");
    if (number % 50 == 13)
        raise(SIGKILL);
    return brood_task_reply(task, &value, sizeof value);
}

static void work_for(int64_t ns)
{
    for (int64_t end = bri_now_ns() + ns; bri_now_ns() < end;)
        sched_yield();
}

static int first_is_last(brood_task *task, const void *item, void *result)
{
    (void)result;
    while (*(const long *)item == 0 && bri_load_acquire(overtaken) < 3)
        sched_yield();
    return brood_task_reply(task, item, sizeof(long));
}

static int first_is_slow(brood_task *task, const void *item, void *result)
{
    long number = *(const long *)item;

    (void)result;
    if (number == 0)
        work_for(SLOW_NS);
    return brood_task_reply(task, item, sizeof number);
}

static int tell_bytes(brood_task *task, const void *item, void *result)
{
    size_t bytes = brood_task_item_bytes(task);

    (void)item, (void)result;
    return bytes == 0 ? 0 : brood_task_reply(task, &bytes, sizeof bytes);
}

static int hang(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    while (pause() != 0) {
    }
    return 0;
}

/* --- results --- */

static void check_square(const brood_stream_item *item)
{
    long number = (long)item->index, value;

    if (number % 10 == 7) {
        assert_int_equal(item->outcome.kind, BROOD_ERROR);
        assert_string_equal(item->outcome.text, "sevens fail");
    } else if (number % 50 == 13) {
        assert_int_equal(item->outcome.kind, BROOD_DIED);
        assert_int_equal(item->outcome.signal, SIGKILL);
    } else {
        assert_int_equal(item->outcome.kind, BROOD_VALUE);
        assert_int_equal(item->reply.bytes, sizeof value);
        memcpy(&value, item->reply.data, sizeof value);
        assert_int_equal(value, number * number);
    }
}

static void results_come_in_order(void **unused)
{
    struct numbers numbers = numbers_to(ITEMS, 0);
    brood_stream *stream;
    brood_stream_item item;

    (void)unused;
    assert_ok(brood_pool_imap(pool, square, give_number, &numbers, NULL, &stream));
    for (size_t i = 0; i < ITEMS; i++) {
        assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 1);
        numbers.taken++;
        assert_int_equal(item.index, i);
        check_square(&item);
    }
    assert_int_equal(brood_stream_next(stream, &item, BROOD_NOW), 0);
    assert_int_equal(brood_stream_next(stream, &item, BROOD_FOREVER), 0);
    assert_in_range(numbers.most_ahead, 1, 9);
    assert_ok(brood_stream_destroy(stream));
}

static void unordered_results_come_once_each(void **unused)
{
    struct numbers numbers = numbers_to(ITEMS, 0);
    brood_stream *stream;
    brood_stream_item item;
    int seen[ITEMS] = {0};

    (void)unused;
    assert_ok(brood_pool_imap_unordered(pool, square, give_number, &numbers, NULL, &stream));
    for (size_t i = 0; i < ITEMS; i++) {
        assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 1);
        assert_true(item.index < ITEMS);
        assert_int_equal(seen[item.index]++, 0);
        check_square(&item);
    }
    assert_int_equal(brood_stream_next(stream, &item, BROOD_NOW), 0);
    assert_ok(brood_stream_destroy(stream));
}

static void unordered_results_overtake(void **unused)
{
    struct numbers numbers = numbers_to(4, 0);
    brood_stream *stream;
    brood_stream_item item;

    (void)unused;
    assert_ok(brood_pool_imap_unordered(pool, first_is_last, give_number, &numbers, NULL, &stream));
    for (int i = 1; i < 4; i++) {
        assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 1);
        assert_int_not_equal(item.index, 0);
        bri_store_release(overtaken, i);
    }
    assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 1);
    assert_int_equal(item.index, 0);
    assert_int_equal(brood_stream_next(stream, &item, BROOD_NOW), 0);
    assert_ok(brood_stream_destroy(stream));
}

static void the_window_is_bounded(void **unused)
{
    const brood_imap_options windows[] = {{.size = sizeof *windows, .max_items = 1},
                                          {.size = sizeof *windows, .max_items = 5},
                                          {.size = sizeof *windows, .max_items = 100, .max_bytes = 24},
                                          {.size = sizeof *windows, .max_items = 100, .max_bytes = 1}};
    const long bounds[] = {1, 5, 3, 1};

    (void)unused;
    for (size_t i = 0; i < 4; i++) {
        struct numbers numbers = numbers_to(30, 0);
        brood_stream *stream;
        brood_stream_item item;
        assert_ok(brood_pool_imap(pool, first_is_slow, give_number, &numbers, &windows[i], &stream));
        while (brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)) == 1)
            numbers.taken++;
        assert_int_equal(numbers.taken, 30);
        assert_int_equal(numbers.most_ahead, bounds[i]);
        assert_ok(brood_stream_destroy(stream));
    }
}

static void items_and_replies_may_be_empty(void **unused)
{
    int left = 20, got = 0;
    brood_stream *stream;
    brood_stream_item item;

    (void)unused;
    assert_ok(brood_pool_imap(pool, tell_bytes, give_nothing, &left, NULL, &stream));
    for (; brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)) == 1; got++) {
        assert_int_equal(item.outcome.kind, BROOD_VALUE);
        assert_non_null(item.reply.data);
        assert_int_equal(item.reply.bytes, 0);
    }
    assert_int_equal(got, 20);
    assert_ok(brood_stream_destroy(stream));
}

static void there_may_be_no_item(void **unused)
{
    struct numbers numbers = numbers_to(0, 0);
    brood_stream *stream;
    brood_stream_item item;

    (void)unused;
    assert_ok(brood_pool_imap(pool, square, give_number, &numbers, NULL, &stream));
    assert_int_equal(brood_stream_next(stream, &item, BROOD_FOREVER), 0);
    assert_ok(brood_stream_destroy(stream));
    assert_int_equal(brood_stream_destroy(NULL), 0);
}

static void the_iterators_error_comes_last(void **unused)
{
    struct numbers numbers = numbers_to(5, -ENOTTY);
    brood_stream *stream;
    brood_stream_item item = {.index = 99};

    (void)unused;
    assert_ok(brood_pool_imap(pool, first_is_slow, give_number, &numbers, NULL, &stream));
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 1);
        assert_int_equal(item.index, i);
    }
    item.index = 99;
    assert_refused(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), ENOTTY, "iterator");
    assert_int_equal(item.index, 99);
    assert_ok(brood_stream_destroy(stream));
}

static void next_keeps_its_deadline(void **unused)
{
    struct numbers numbers = numbers_to(1, 0);
    brood_stream *stream;
    brood_stream_item item;

    (void)unused;
    assert_ok(brood_pool_imap(pool, first_is_slow, give_number, &numbers, NULL, &stream));
    assert_refused(brood_stream_next(stream, &item, BROOD_NOW), ETIMEDOUT, "stream");
    assert_refused(brood_stream_next(stream, &item, -1), EINVAL, "deadline");
    assert_refused(brood_stream_next(stream, NULL, BROOD_NOW), EINVAL, "ret_item");
    assert_int_equal(brood_stream_next(stream, &item, BROOD_FOREVER), 1);
    assert_ok(brood_stream_destroy(stream));
}

/* --- ends --- */

static void streams_may_be_given_up(void **unused)
{
    brood_stream *stream;
    brood_stream_item item;

    (void)unused;
    for (int taken = 0; taken < 12; taken += 3) {
        struct numbers numbers = numbers_to(ITEMS, 0);
        assert_ok(brood_pool_imap(pool, first_is_slow, give_number, &numbers, NULL, &stream));
        for (int i = 0; i < taken; i++)
            assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 1);
        assert_ok(brood_stream_destroy(stream));
    }
}

static void two_streams_share_a_pool(void **unused)
{
    struct numbers numbers[2] = {numbers_to(50, 0), numbers_to(50, 0)};
    brood_stream *streams[2];
    brood_stream_item item;

    (void)unused;
    for (int i = 0; i < 2; i++)
        assert_ok(brood_pool_imap(pool, square, give_number, &numbers[i], NULL, &streams[i]));
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(brood_stream_next(streams[i % 2], &item, brood_after_ms(WITHIN_MS)), 1);
        assert_int_equal(item.index, i / 2);
        check_square(&item);
    }
    for (int i = 0; i < 2; i++)
        assert_ok(brood_stream_destroy(streams[i]));
}

/* Last: takes a pool of its own along. */
static void streams_outlive_their_pool(void **unused)
{
    struct numbers numbers = numbers_to(ITEMS, 0);
    brood_pool *other = new_pool(1);
    brood_stream *stream;
    brood_stream_item item;

    (void)unused;
    assert_ok(brood_pool_imap(other, hang, give_number, &numbers, NULL, &stream));
    assert_ok(brood_pool_destroy(other));
    if (brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)) == 1) /* it ran already */
        assert_int_equal(item.outcome.kind, BROOD_DIED);
    assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), -ECANCELED);
    assert_ok(brood_stream_destroy(stream));
}

static void use_stream_in_child(void *stream)
{
    brood_stream_item item;

    child_check(brood_stream_next(stream, &item, BROOD_NOW) == -EPERM);
    child_check(brood_stream_destroy(stream) == -EPERM);
}

static void bad_input_is_refused(void **unused)
{
    struct numbers numbers = numbers_to(ITEMS, 0);
    brood_stream *stream = NULL;
    brood_stream_item item;

    (void)unused;
    assert_refused(brood_pool_imap(NULL, square, give_number, &numbers, NULL, &stream), EINVAL, "pool");
    assert_refused(brood_pool_imap(pool, NULL, give_number, &numbers, NULL, &stream), EINVAL, "function");
    assert_refused(brood_pool_imap(pool, square, NULL, &numbers, NULL, &stream), EINVAL, "next");
    assert_refused(brood_pool_imap_unordered(pool, square, give_number, &numbers, NULL, NULL), EINVAL,
                   "ret_stream");
    assert_refused(brood_stream_next(NULL, &item, BROOD_NOW), EINVAL, "stream");
    assert_null(stream);
    assert_int_equal(numbers.next, 0);
    assert_ok(brood_pool_imap(pool, first_is_slow, give_number, &numbers, NULL, &stream));
    in_child(use_stream_in_child, stream);
    assert_ok(brood_stream_destroy(stream));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(results_come_in_order),          clean_test(unordered_results_come_once_each),
        clean_test(unordered_results_overtake),     clean_test(the_window_is_bounded),
        clean_test(items_and_replies_may_be_empty), clean_test(there_may_be_no_item),
        clean_test(the_iterators_error_comes_last), clean_test(next_keeps_its_deadline),
        clean_test(streams_may_be_given_up),        clean_test(two_streams_share_a_pool),
        clean_test(streams_outlive_their_pool),     clean_test(bad_input_is_refused),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("stream", tests, make_pool, drop_pool);
}
