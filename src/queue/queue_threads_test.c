/* SPDX-License-Identifier: MIT */
/* Threads of one process share its name: what orders them is in the queue alone.  Also run under ThreadSanitizer. */
#include "queue/queue_testing.h"

#include <pthread.h>

enum { THREADS = 3, EACH = 3000, LONGEST = 6000 };

static brood_queue *the_queue;
static _Atomic uint64_t taken_count, taken_sum;

static void *produce(void *argument)
{
    uint32_t producer = *(uint32_t *)argument, random = producer, many[LONGEST / 4];
    static _Thread_local uint32_t buffer[LONGEST / 4];

    for (uint32_t i = 0; i < EACH; i++) {
        size_t words = 1 + next_random(&random) % (i % 20 == 0 ? LONGEST / 4 - 1 : 40);
        for (size_t w = 0; w < words; w++)
            buffer[w] = producer * EACH + i;
        if (i % 3 == 0) {
            brood_message message = {many, words * 4};
            memcpy(many, buffer, words * 4);
            child_check(brood_queue_put_many(the_queue, &message, 1, BROOD_FOREVER) == 1);
        } else {
            child_check(brood_queue_put(the_queue, buffer, words * 4, BROOD_FOREVER) == 0);
        }
    }
    return NULL;
}

static void note(const uint32_t *data, size_t bytes)
{
    for (size_t w = 0; w < bytes / 4; w++)
        child_check(data[w] == data[0]);
    bri_add_relaxed(&taken_count, UINT64_C(1));
    bri_add_relaxed(&taken_sum, (uint64_t)data[0]);
}

static void *consume(void *argument)
{
    static _Thread_local uint32_t buffer[4 * LONGEST / 4];
    brood_message messages[4];
    int taken = 0;

    (void)argument;
    for (uint32_t i = 0; taken >= 0; i++) {
        size_t bytes = 0;
        if (i % 3 == 0) {
            taken = brood_queue_get(the_queue, buffer, sizeof buffer, &bytes, BROOD_FOREVER);
            if (taken == 0)
                note(buffer, bytes);
        } else if (i % 3 == 1) {
            taken = brood_queue_borrow(the_queue, messages, BROOD_FOREVER);
            if (taken == 0) {
                note(messages->data, messages->bytes);
                child_check(brood_queue_release(the_queue, messages) == 0);
            }
        } else {
            taken = brood_queue_get_many(the_queue, buffer, sizeof buffer, messages, 4, BROOD_FOREVER);
            for (int m = 0; m < taken; m++)
                note(messages[m].data, messages[m].bytes);
        }
    }
    child_check(taken == -ESHUTDOWN);
    return NULL;
}

static void run(uint64_t max_messages)
{
    pthread_t producers[THREADS], consumers[THREADS];
    uint32_t numbers[THREADS] = {0, 1, 2};
    uint64_t before = used_blocks(), all = (uint64_t)THREADS * EACH;

    the_queue = new_queue(max_messages, 0);
    bri_store_relaxed(&taken_count, UINT64_C(0));
    bri_store_relaxed(&taken_sum, UINT64_C(0));
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&producers[i], NULL, produce, &numbers[i]), 0);
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(producers[i], NULL), 0);
    assert_int_equal(brood_queue_close(the_queue), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(consumers[i], NULL), 0);
    assert_int_equal(bri_load_relaxed(&taken_count), all);
    assert_int_equal(bri_load_relaxed(&taken_sum), all * (all - 1) / 2);
    assert_true(bri_queue_is_valid(the_queue));
    assert_int_equal(brood_queue_destroy(the_queue), 0);
    assert_int_equal(used_blocks(), before);
}

static void threads_share_a_queue(void **state)
{
    (void)state;
    run(0);
    run(2);
    run(100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_share_a_queue)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
