/* SPDX-License-Identifier: MIT */
/* One pool for all tests of a program. */
#ifndef BROOD_POOL_TESTING_H
#define BROOD_POOL_TESTING_H

#include "testing.h"

static brood_pool *pool;

static inline int nothing(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    return 0;
}

static inline int is_looked_at(void)
{
    for (uint32_t i = 0; i < brood_pool_workers(pool); i++)
        if (is_at_job(pool, i))
            return 1;
    return 0;
}

/* Jobs that a worker still looked at when they were given up are freed at the next calls. */
static inline void free_jobs(void)
{
    brood_result *result;

    assert_ok(brood_pool_apply_async(pool, nothing, NULL, 0, 0, &result));
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    await_true(!is_looked_at());
    assert_ok(brood_result_destroy(result));
}

static inline int make_pool_of(uint32_t workers, void **state)
{
    int error = make_arena(state);

    pool = error == 0 ? new_pool(workers) : NULL;
    if (error == 0)
        assert_ok(brood_pool_apply(pool, nothing, NULL, 0, NULL, 0)); /* its standing job is no leak */
    tidy_up = free_jobs;
    return error;
}

static inline int drop_pool(void **state)
{
    (void)state;
    return brood_pool_destroy(pool);
}

static inline int triple(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(long *)result = *(const long *)item * 3;
    return 0;
}

#endif
