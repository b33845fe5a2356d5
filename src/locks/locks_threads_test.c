/* SPDX-License-Identifier: MIT */
/* Locks and the rest among threads of one process, which share its name.  Also run under ThreadSanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "base/testing.h"
#include "brood.h"

enum { THREADS = 3, EACH = 1000 };

/* In a thread cmocka's assertions must not be used. */
#define thread_check(condition)                                                                        \
    ((condition) ? (void)0                                                                             \
                 : (fprintf(stderr, "%s:%d: does not hold: %s (%s)\n", __FILE__, __LINE__, #condition, \
                            brood_error_text()),                                                       \
                    abort()))

static void run_threads(void *(*function)(void *argument))
{
    pthread_t threads[THREADS];
    uint32_t numbers[THREADS];

    for (uint32_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, function, &numbers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static uint64_t visits; /* no atomic: what ThreadSanitizer looks at */
static brood_lock *lock;
static brood_rlock *rlock;
static brood_semaphore *semaphore;
static brood_condition *condition;
static brood_event *event;
static brood_barrier *barrier;

static void *use_lock(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH; i++) {
        thread_check(brood_lock_acquire(lock, BROOD_FOREVER) == 0);
        visits++;
        thread_check(brood_lock_release(lock) == 0);
    }
    return NULL;
}

static void lock_lets_one_in(void **state)
{
    (void)state;
    visits = 0;
    assert_int_equal(brood_lock_create(&lock), 0);
    run_threads(use_lock);
    assert_int_equal(visits, THREADS * EACH);
    assert_int_equal(brood_lock_destroy(lock), 0);
}

static void *use_rlock(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH; i++) {
        thread_check(brood_rlock_acquire(rlock, BROOD_FOREVER) == 0);
        thread_check(brood_rlock_acquire(rlock, BROOD_NOW) == 0);
        visits++;
        thread_check(brood_rlock_release(rlock) == 0);
        visits++;
        thread_check(brood_rlock_release(rlock) == 0);
    }
    thread_check(brood_rlock_release(rlock) ==
                 -EPERM); /* held by another thread, or nobody: not by this one */
    return NULL;
}

static void rlock_lets_one_thread_in(void **state)
{
    (void)state;
    visits = 0;
    assert_int_equal(brood_rlock_create(&rlock), 0);
    run_threads(use_rlock);
    assert_int_equal(visits, 2 * THREADS * EACH);
    assert_int_equal(brood_rlock_destroy(rlock), 0);
}

static _Atomic int inside;

static void *use_semaphore(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH; i++) {
        thread_check(brood_semaphore_acquire(semaphore, BROOD_FOREVER) == 0);
        thread_check(bri_add_acq_rel(&inside, 1) < THREADS - 1);
        bri_add_acq_rel(&inside, -1);
        thread_check(brood_semaphore_release(semaphore) == 0);
    }
    return NULL;
}

static void semaphore_keeps_its_tokens(void **state)
{
    (void)state;
    assert_int_equal(brood_semaphore_create_bounded(THREADS - 1, &semaphore), 0);
    run_threads(use_semaphore);
    assert_int_equal(brood_semaphore_value(semaphore), THREADS - 1);
    assert_int_equal(brood_semaphore_destroy(semaphore), 0);
}

static void *mutual_exclusion_by_semaphore(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH; i++) {
        thread_check(brood_semaphore_acquire(semaphore, BROOD_FOREVER) == 0);
        visits++;
        thread_check(brood_semaphore_release(semaphore) == 0);
    }
    return NULL;
}

static void semaphore_of_one_lets_one_in(void **state)
{
    (void)state;
    visits = 0;
    assert_int_equal(brood_semaphore_create(1, &semaphore), 0);
    run_threads(mutual_exclusion_by_semaphore);
    assert_int_equal(visits, THREADS * EACH);
    assert_int_equal(brood_semaphore_destroy(semaphore), 0);
}

static uint32_t turn; /* under the condition's lock */

static void *take_turns(void *argument)
{
    uint32_t own = *(uint32_t *)argument;

    for (int i = 0; i < EACH / 4; i++) {
        thread_check(brood_condition_acquire(condition, BROOD_FOREVER) == 0);
        while (turn != own)
            thread_check(brood_condition_wait(condition, BROOD_FOREVER) == 0);
        turn = (own + 1) % THREADS;
        visits++;
        thread_check(brood_condition_notify(condition, UINT32_MAX) >= 0);
        thread_check(brood_condition_release(condition) == 0);
    }
    return NULL;
}

static void condition_loses_no_turn(void **state)
{
    (void)state;
    visits = 0;
    assert_int_equal(brood_condition_create(NULL, &condition), 0);
    run_threads(take_turns);
    assert_int_equal(visits, THREADS * (EACH / 4));
    assert_int_equal(brood_condition_destroy(condition), 0);
}

static uint32_t filled; /* under the condition's lock */

/* The first fills, the others take; each notify is for one, and some of those who wait give up. */
static void *fill_or_take(void *argument)
{
    int fills = *(uint32_t *)argument == 0;

    for (int i = 0; i < (fills ? (THREADS - 1) * EACH : EACH); i++) {
        thread_check(brood_condition_acquire(condition, BROOD_FOREVER) == 0);
        while (!fills && filled == 0) {
            int got = brood_condition_wait(condition, i % 3 == 0 ? brood_after_ms(1) : BROOD_FOREVER);
            thread_check(got == 0 || got == -ETIMEDOUT);
        }
        filled += fills ? 1u : UINT32_MAX;
        if (fills)
            thread_check(brood_condition_notify(condition, 1) >= 0);
        thread_check(brood_condition_release(condition) == 0);
    }
    return NULL;
}

static void condition_loses_no_notify(void **state)
{
    (void)state;
    filled = 0;
    assert_int_equal(brood_condition_create(NULL, &condition), 0);
    run_threads(fill_or_take);
    assert_int_equal(filled, 0);
    assert_int_equal(brood_condition_destroy(condition), 0);
}

/* The first writes, then sets the flag; the others read once they have seen it. */
static void *tell_by_event(void *argument)
{
    if (*(uint32_t *)argument == 0) {
        visits = 42;
        thread_check(brood_event_set(event) == 0);
    } else {
        thread_check(brood_event_wait(event, BROOD_FOREVER) == 0);
        thread_check(visits == 42);
    }
    return NULL;
}

static void event_tells_all(void **state)
{
    (void)state;
    for (int i = 0; i < EACH / 20; i++) {
        visits = 0;
        assert_int_equal(brood_event_create(&event), 0);
        run_threads(tell_by_event);
        assert_int_equal(brood_event_destroy(event), 0);
    }
}

static brood_event *turns[THREADS];

/* Each waits for its own flag, takes it down, and puts up the next one's. */
static void *pass_flag_on(void *argument)
{
    uint32_t own = *(uint32_t *)argument;

    for (int i = 0; i < EACH / 4; i++) {
        thread_check(brood_event_wait(turns[own], BROOD_FOREVER) == 0);
        thread_check(brood_event_clear(turns[own]) == 0);
        visits++;
        thread_check(brood_event_set(turns[(own + 1) % THREADS]) == 0);
    }
    return NULL;
}

static void event_goes_up_and_down(void **state)
{
    (void)state;
    visits = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(brood_event_create(&turns[i]), 0);
    assert_int_equal(brood_event_set(turns[0]), 0);
    run_threads(pass_flag_on);
    assert_int_equal(visits, THREADS * (EACH / 4));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(brood_event_destroy(turns[i]), 0);
}

/* Between two meetings only one thread writes. */
static void *meet(void *argument)
{
    uint32_t own = *(uint32_t *)argument;

    for (uint32_t i = 0; i < EACH / 4; i++) {
        if (i % THREADS == own)
            visits++;
        int order = brood_barrier_wait(barrier, BROOD_FOREVER);
        thread_check(order >= 0 && order < THREADS);
        thread_check(visits == i + 1);
        thread_check(brood_barrier_wait(barrier, BROOD_FOREVER) >= 0);
    }
    return NULL;
}

static void barrier_keeps_step(void **state)
{
    (void)state;
    visits = 0;
    assert_int_equal(brood_barrier_create(THREADS, &barrier), 0);
    run_threads(meet);
    assert_int_equal(brood_barrier_is_broken(barrier), 0);
    assert_int_equal(brood_barrier_destroy(barrier), 0);
}

static _Atomic int stopped;

/* The first disturbs the others, who meet, and breaks the barrier for good in the end. */
static void *disturb_or_meet(void *argument)
{
    if (*(uint32_t *)argument != 0) {
        do {
            int order = brood_barrier_wait(barrier, BROOD_FOREVER);
            thread_check(order == -EPIPE || (order >= 0 && order < THREADS - 1));
        } while (!bri_load_acquire(&stopped));
        return NULL;
    }
    for (int i = 0; i < EACH; i++) {
        if (i % 3 == 0)
            thread_check(brood_barrier_abort(barrier) == 0);
        thread_check(brood_barrier_waiting(barrier) >= 0);
        thread_check(brood_barrier_reset(barrier) == 0);
    }
    bri_store_release(&stopped, 1);
    thread_check(brood_barrier_abort(barrier) == 0);
    return NULL;
}

static void barrier_may_be_reset(void **state)
{
    (void)state;
    bri_store_release(&stopped, 0);
    assert_int_equal(brood_barrier_create(THREADS - 1, &barrier), 0);
    run_threads(disturb_or_meet);
    assert_int_equal(brood_barrier_is_broken(barrier), 1);
    assert_int_equal(brood_barrier_destroy(barrier), 0);
}

/* Blocks pass from one thread's object to another's of another kind. */
static void *make_and_drop(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH / 4; i++) {
        brood_rlock *own_rlock;
        brood_semaphore *own_semaphore;
        brood_condition *own_condition;
        brood_barrier *own_barrier;
        thread_check(brood_rlock_create(&own_rlock) == 0);
        thread_check(brood_condition_create(own_rlock, &own_condition) == 0);
        thread_check(brood_semaphore_create(1, &own_semaphore) == 0);
        thread_check(brood_barrier_create(1, &own_barrier) == 0);
        thread_check(brood_condition_acquire(own_condition, BROOD_NOW) == 0);
        thread_check(brood_condition_wait(own_condition, BROOD_NOW) == -ETIMEDOUT);
        thread_check(brood_condition_release(own_condition) == 0);
        thread_check(brood_semaphore_acquire(own_semaphore, BROOD_NOW) == 0);
        thread_check(brood_semaphore_acquire(own_semaphore, BROOD_NOW) == -ETIMEDOUT);
        thread_check(brood_semaphore_release(own_semaphore) == 0);
        thread_check(brood_barrier_wait(own_barrier, BROOD_NOW) == 0);
        thread_check(brood_condition_destroy(own_condition) == 0);
        thread_check(brood_rlock_destroy(own_rlock) == 0);
        thread_check(brood_semaphore_destroy(own_semaphore) == 0);
        thread_check(brood_barrier_destroy(own_barrier) == 0);
    }
    return NULL;
}

static void objects_come_and_go(void **state)
{
    (void)state;
    run_threads(make_and_drop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lock_lets_one_in),
        cmocka_unit_test(rlock_lets_one_thread_in),
        cmocka_unit_test(semaphore_keeps_its_tokens),
        cmocka_unit_test(semaphore_of_one_lets_one_in),
        cmocka_unit_test(condition_loses_no_turn),
        cmocka_unit_test(condition_loses_no_notify),
        cmocka_unit_test(event_tells_all),
        cmocka_unit_test(event_goes_up_and_down),
        cmocka_unit_test(barrier_keeps_step),
        cmocka_unit_test(barrier_may_be_reset),
        cmocka_unit_test(objects_come_and_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
