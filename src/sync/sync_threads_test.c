/* SPDX-License-Identifier: MIT */
/* The event count and the mutex among threads of one process.  Also run under ThreadSanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "base/testing.h"
#include "brood.h"
#include "sync/event.h"
#include "sync/mutex.h"

enum { THREADS = 3, EACH = 2000 };

struct room {
    struct bri_mutex_shm mutex;
    uint64_t visits; /* under the mutex, and no atomic: what ThreadSanitizer looks at */
};

static struct room *room;

static void *visit(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH; i++) {
        bri_mutex_lock(&room->mutex);
        room->visits++;
        bri_mutex_unlock(&room->mutex);
    }
    return NULL;
}

static void run_threads(void *(*function)(void *argument), uint32_t count)
{
    pthread_t threads[THREADS];
    uint32_t numbers[THREADS];

    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, function, &numbers[i]), 0);
    }
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void mutex_lets_one_in(void **state)
{
    void *memory = NULL;

    (void)state;
    assert_int_equal(brood_alloc(sizeof *room, &memory), 0);
    room = memory;
    run_threads(visit, THREADS);
    assert_int_equal(room->visits, THREADS * EACH);
    assert_int_equal(bri_mutexes_held, 0);
    assert_int_equal(brood_free(memory), 0);
}

/* A ring: each thread waits for its turn, writes, and makes the next one's. */
struct ring {
    _Atomic uint32_t event;
    _Atomic uint32_t turn;
    uint64_t passes; /* by whose turn it is */
};

static struct ring *ring;

static int is_turn(void *argument)
{
    return bri_load_acquire(&ring->turn) == *(uint32_t *)argument;
}

static void *pass_on(void *argument)
{
    uint32_t own = *(uint32_t *)argument;

    for (int i = 0; i < EACH / 4; i++) {
        if (bri_wait(&ring->event, is_turn, argument, BROOD_FOREVER, 0) != 1)
            abort();
        ring->passes++;
        bri_store_release(&ring->turn, (own + 1) % THREADS);
        bri_event_signal(&ring->event, INT_MAX);
    }
    return NULL;
}

static void no_turn_is_lost(void **state)
{
    void *memory = NULL;

    (void)state;
    assert_int_equal(brood_alloc(sizeof *ring, &memory), 0);
    ring = memory;
    run_threads(pass_on, THREADS);
    assert_int_equal(ring->passes, THREADS * (EACH / 4));
    assert_int_equal(brood_free(memory), 0);
}

/* As after a death: nobody signals the event. */
static void *pass_on_by_obituary(void *argument)
{
    uint32_t own = *(uint32_t *)argument;

    for (int i = 0; i < EACH / 20; i++) {
        if (bri_wait(&ring->event, is_turn, argument, BROOD_FOREVER, 0) != 1)
            abort();
        ring->passes++;
        bri_store_release(&ring->turn, (own + 1) % THREADS);
        bri_obituary_publish();
    }
    return NULL;
}

static void the_obituary_wakes(void **state)
{
    void *memory = NULL;

    (void)state;
    assert_int_equal(brood_alloc(sizeof *ring, &memory), 0);
    ring = memory;
    run_threads(pass_on_by_obituary, THREADS);
    assert_int_equal(ring->passes, THREADS * (EACH / 20));
    assert_int_equal(brood_free(memory), 0);
}

/* Tokens: each signal is for one; the woken one must not lose what was meant for another. */
struct tokens {
    _Atomic uint32_t event;
    _Atomic uint32_t free;
};

static struct tokens *tokens;

static int take_token(void *argument)
{
    uint32_t seen = bri_load_acquire(&tokens->free);

    (void)argument;
    while (seen > 0)
        if (bri_cas_acq_rel(&tokens->free, &seen, seen - 1))
            return 1;
    return 0;
}

static void *use_tokens(void *argument)
{
    (void)argument;
    for (int i = 0; i < EACH; i++) {
        if (bri_wait(&tokens->event, take_token, NULL, BROOD_FOREVER, 0) != 1)
            abort();
        bri_add_acq_rel(&tokens->free, 1u);
        bri_event_signal(&tokens->event, 1);
    }
    return NULL;
}

static void no_token_is_lost(void **state)
{
    void *memory = NULL;

    (void)state;
    assert_int_equal(brood_alloc(sizeof *tokens, &memory), 0);
    tokens = memory;
    bri_store_release(&tokens->free, 1u);
    run_threads(use_tokens, THREADS);
    assert_int_equal(bri_load_acquire(&tokens->free), 1);
    assert_int_equal(brood_free(memory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutex_lets_one_in),
        cmocka_unit_test(no_turn_is_lost),
        cmocka_unit_test(the_obituary_wakes),
        cmocka_unit_test(no_token_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
