/* SPDX-License-Identifier: MIT */
/* Threads of one process share its name: what orders them is in the heap's locks alone.  Also run under ThreadSanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/testing.h"
#include "brood.h"
#include "heap/heap.h"

enum { THREADS = 3, EACH = 400, SHARED = 8 };

static _Atomic(uint64_t *) table[SHARED];

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Word 0: how many words; the others follow from it. */
static uint64_t *make_block(uint32_t *random)
{
    static const uint32_t most[] = {6, 60, 600, 6000};
    uint64_t words = 1 + next_random(random) % most[next_random(random) % 4];
    void *memory = NULL;

    if (brood_alloc(words * sizeof(uint64_t), &memory) < 0)
        abort();
    uint64_t *block = memory;
    for (uint64_t i = 0; i < words; i++) {
        if (block[i] != 0)
            abort();
        block[i] = words * (i + 1);
    }
    return block;
}

static void check_and_free(uint64_t *block)
{
    if (block == NULL)
        return;
    uint64_t words = block[0];
    for (uint64_t i = 0; i < words; i++)
        if (block[i] != words * (i + 1))
            abort();
    if (brood_free(block) < 0)
        abort();
}

/* Blocks are freed by another thread than the one that made them. */
static void *exchange_blocks(void *argument)
{
    uint32_t random = *(uint32_t *)argument;

    for (int i = 0; i < EACH; i++) {
        uint64_t *block = make_block(&random);
        check_and_free(bri_exchange_acq_rel(&table[next_random(&random) % SHARED], block));
    }
    return NULL;
}

static void *look_in(void *argument)
{
    brood_arena_stats stats = {.size = sizeof stats};

    (void)argument;
    for (int i = 0; i < EACH / 10; i++)
        if (brood_arena_stats_get(&stats) < 0)
            abort();
    return NULL;
}

static void blocks_pass_between_threads(void **state)
{
    brood_arena_stats before = {.size = sizeof before}, after = before;
    pthread_t threads[THREADS + 1];
    uint32_t seeds[THREADS];

    (void)state;
    assert_int_equal(brood_arena_stats_get(&before), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, exchange_blocks, &seeds[i]), 0);
    }
    assert_int_equal(pthread_create(&threads[THREADS], NULL, look_in, NULL), 0);
    for (uint32_t i = 0; i <= THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (uint32_t i = 0; i < SHARED; i++)
        check_and_free(bri_exchange_acq_rel(&table[i], NULL));
    assert_true(bri_heap_is_valid());
    assert_int_equal(brood_arena_stats_get(&after), 0);
    assert_int_equal(after.used_blocks, before.used_blocks);
}

static void *make_arena(void *argument)
{
    (void)argument;
    void *memory = NULL;
    if (brood_alloc(1, &memory) < 0 || brood_free(memory) < 0)
        abort();
    return NULL;
}

/* Whichever comes first makes the arena. */
static void threads_begin_together(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_arena, NULL), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_begin_together),
        cmocka_unit_test(blocks_pass_between_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
