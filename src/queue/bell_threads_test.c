/* SPDX-License-Identifier: MIT */
/* One descriptor, shared by the threads of a process that poll it, and rung by others.  Also run under ThreadSanitizer. */
#include "queue/queue_testing.h"

#include <poll.h>
#include <pthread.h>

enum { PRODUCERS = 2, POLLERS = 2, EACH = 1500, PATIENCE_MS = 60000 };

static brood_queue *the_queue;
static _Atomic uint64_t taken_count, taken_sum;

static void *produce(void *argument)
{
    uint64_t first = *(uint64_t *)argument;

    for (uint64_t i = 0; i < EACH; i++) {
        uint64_t value = first + i;
        child_check(brood_queue_put(the_queue, &value, sizeof value, BROOD_FOREVER) == 0);
        if (i % 7 == 0)
            sched_yield();
    }
    return NULL;
}

static void *poll_and_get(void *argument)
{
    int got;

    (void)argument;
    do {
        struct pollfd watch = {.fd = brood_queue_fd(the_queue), .events = POLLIN};
        uint64_t value;
        size_t bytes;
        child_check(poll(&watch, 1, PATIENCE_MS) == 1);
        got = brood_queue_get(the_queue, &value, sizeof value, &bytes, BROOD_NOW);
        if (got == 0) {
            bri_add_relaxed(&taken_count, UINT64_C(1));
            bri_add_relaxed(&taken_sum, value);
        }
    } while (got == 0 || got == -ETIMEDOUT);
    child_check(got == -ESHUTDOWN);
    return NULL;
}

static void threads_share_a_bell(void **state)
{
    pthread_t producers[PRODUCERS], pollers[POLLERS];
    uint64_t firsts[PRODUCERS], all = (uint64_t)PRODUCERS * EACH;

    (void)state;
    the_queue = new_queue(0, 0);
    for (int i = 0; i < POLLERS; i++)
        assert_int_equal(pthread_create(&pollers[i], NULL, poll_and_get, NULL), 0);
    for (int i = 0; i < PRODUCERS; i++) {
        firsts[i] = (uint64_t)i * EACH;
        assert_int_equal(pthread_create(&producers[i], NULL, produce, &firsts[i]), 0);
    }
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_join(producers[i], NULL), 0);
    assert_int_equal(brood_queue_close(the_queue), 0);
    for (int i = 0; i < POLLERS; i++)
        assert_int_equal(pthread_join(pollers[i], NULL), 0);
    assert_int_equal(bri_load_relaxed(&taken_count), all);
    assert_int_equal(bri_load_relaxed(&taken_sum), all * (all - 1) / 2);
    assert_int_equal(brood_queue_destroy(the_queue), 0);
}

static void *open_and_close(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH / 5; i++) {
        child_check(brood_queue_fd(the_queue) >= 0);
        child_check(brood_queue_put(the_queue, "x", 1, BROOD_FOREVER) == 0);
        child_check(brood_queue_fd_close(the_queue) == 0);
    }
    return NULL;
}

static void threads_open_and_close(void **state)
{
    pthread_t threads[PRODUCERS];

    (void)state;
    the_queue = new_queue(0, 0);
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, NULL), 0);
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(brood_queue_size(the_queue), PRODUCERS * (EACH / 5));
    assert_int_equal(brood_queue_destroy(the_queue), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_a_bell),
        cmocka_unit_test(threads_open_and_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
