/* SPDX-License-Identifier: MIT */
/* For the tests of this folder: a pool without processes, whose owner, workers and undertakers are the test's own threads. */
#ifndef BRI_POOL_TESTING_H
#define BRI_POOL_TESTING_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/check.h"
#include "base/testing.h"
#include "base/time.h"
#include "pool/pool.h"
#include "sync/event.h"

/* In a thread cmocka's assertions must not be used. */
#define thread_check(condition)                                                                        \
    ((condition) ? (void)0                                                                             \
                 : (fprintf(stderr, "%s:%d: does not hold: %s (%s)\n", __FILE__, __LINE__, #condition, \
                            brood_error_text()),                                                       \
                    abort()))

static brood_pool *pool;

/* bri_pool_drop ends it. */
static inline void make_pool_without_processes(uint32_t workers)
{
    pool = calloc(1, sizeof *pool);
    assert_non_null(pool);
    pool->options.workers = workers;
    pool->references = 1;
    pool->owner = bri_self();
    pool->supervisor = bri_self(); /* which is alive */
    pool->supervisor_pid = getpid();
    pool->supervisor_fd = -1;
    pthread_mutex_init(&pool->lock, NULL);
    assert_int_equal(bri_pool_make_shared(pool), 0);
}

/* Of a worker that sits there, under its own name. */
static inline struct bri_claim claim_of_seat(uint32_t index)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);
    bri_name name = bri_load_acquire(&seat->name);

    return (struct bri_claim){.pool = pool->shared,
                              .seat = seat,
                              .worker = index,
                              .progress = &bri_slot_of(name)->progress,
                              .claims = &bri_slot_of(name)->claims};
}

/* As a supervisor does when a worker has died. */
static inline void bury_worker(bri_name name, uint32_t end)
{
    thread_check(bri_roster_bury(name, end));
    bri_undertake();
}

static inline uint64_t used_blocks(void)
{
    brood_arena_stats stats = {.size = sizeof stats};

    assert_int_equal(brood_arena_stats_get(&stats), 0);
    return stats.used_blocks;
}

/* The one test of a program that is of no use without fault points. */
static inline void needs_fault_points(void **state)
{
    (void)state;
    skip_because("needs -Dfault_points=true");
}

static inline uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

#endif
