/* SPDX-License-Identifier: MIT */
/* Names are claimed and buried, and the undertaker walks, while other threads use what it walks.  Also run under
 * ThreadSanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/testing.h"
#include "brood.h"
#include "heap/heap.h"

enum { BURIERS = 3, USERS = 2, EACH = 150, SHARED = 4 };

/* In a thread cmocka's assertions must not be used. */
#define thread_check(condition)                                                                        \
    ((condition) ? (void)0                                                                             \
                 : (fprintf(stderr, "%s:%d: does not hold: %s (%s)\n", __FILE__, __LINE__, #condition, \
                            brood_error_text()),                                                       \
                    abort()))

static _Atomic bri_name table[SHARED];
static _Atomic uint32_t buried;
static uint64_t
    claims[BRI_SLOTS];  /* by whoever has claimed the slot, and no atomic: what ThreadSanitizer looks at */
static uint64_t visits; /* under the lock */
static brood_lock *lock;

static void bury(bri_name name)
{
    if (name != 0 && bri_roster_bury(name, BRI_END_KILLED)) {
        bri_add_relaxed(&buried, 1u);
        bri_undertake();
        thread_check(!bri_is_alive(name));
        thread_check(!bri_is_dead_and_unburied(name));
    }
}

/* Each name is buried by who claimed it and by who finds it in the table: one of them is the one who did it. */
static void *claim_and_bury(void *argument)
{
    uint32_t own = *(uint32_t *)argument;

    for (uint32_t i = 0; i < EACH; i++) {
        bri_name name;
        thread_check(bri_roster_claim(BRI_ROLE_WORKER, &name) == 0);
        thread_check(bri_is_alive(name));
        claims[name & (BRI_SLOTS - 1)]++;
        bri_name other = bri_exchange_acq_rel(&table[(own + i) % SHARED], name);
        bury(name);
        bury(other);
    }
    return NULL;
}

static void *use(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH; i++) {
        brood_semaphore *semaphore;
        void *memory = NULL;
        thread_check(brood_lock_acquire(lock, BROOD_FOREVER) == 0);
        visits++;
        thread_check(brood_lock_release(lock) == 0);
        thread_check(brood_alloc(100, &memory) == 0);
        thread_check(brood_free(memory) == 0);
        thread_check(brood_semaphore_create(1, &semaphore) == 0);
        thread_check(brood_semaphore_acquire(semaphore, BROOD_NOW) == 0);
        thread_check(brood_semaphore_release(semaphore) == 0);
        thread_check(brood_semaphore_destroy(semaphore) == 0);
    }
    return NULL;
}

static void each_is_buried_once(void **state)
{
    pthread_t buriers[BURIERS], users[USERS];
    uint32_t numbers[BURIERS];
    uint64_t sum = 0;

    (void)state;
    assert_int_equal(brood_lock_create(&lock), 0);
    for (uint32_t i = 0; i < BURIERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&buriers[i], NULL, claim_and_bury, &numbers[i]), 0);
    }
    for (int i = 0; i < USERS; i++)
        assert_int_equal(pthread_create(&users[i], NULL, use, NULL), 0);
    for (int i = 0; i < BURIERS; i++)
        assert_int_equal(pthread_join(buriers[i], NULL), 0);
    for (int i = 0; i < USERS; i++)
        assert_int_equal(pthread_join(users[i], NULL), 0);
    for (uint32_t slot = 0; slot < BRI_SLOTS; slot++)
        sum += claims[slot];
    assert_int_equal(sum, BURIERS * EACH);
    assert_int_equal(bri_load_relaxed(&buried), BURIERS * EACH);
    assert_int_equal(visits, USERS * EACH);
    assert_true(bri_heap_is_valid());
    assert_int_equal(brood_lock_destroy(lock), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_is_buried_once)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
