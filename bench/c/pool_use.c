/* SPDX-License-Identifier: MIT */
#include "pool_use.h"
#include "sample.h"

#include <unistd.h>

const char *brood_version(void)
{
    return BENCH_BROOD_VERSION;
}

long must_brood(long result, const char *what)
{
    if (result < 0)
        fail("%s: %ld: %s", what, result, brood_error_text());
    return result;
}

brood_pool *start_pool(uint32_t workers)
{
    brood_pool *pool = NULL;

    must_brood(brood_pool_create(BROOD_POOL_OPTIONS(.workers = workers), &pool), "brood_pool_create");
    return pool;
}

void end_pool(brood_pool *pool)
{
    must_brood(brood_pool_close(pool), "brood_pool_close");
    must_brood(brood_pool_join(pool, BROOD_FOREVER), "brood_pool_join");
    must_brood(brood_pool_destroy(pool), "brood_pool_destroy");
}

static pid_t supervisor_of(brood_pool *pool)
{
    return parent_of(brood_pool_worker_pid(pool, 0));
}

double cpu_us_of_pool(brood_pool *pool)
{
    return cpu_us_of(getpid()) + cpu_us_of_workers(pool);
}

double cpu_us_of_workers(brood_pool *pool)
{
    double sum = cpu_us_of(supervisor_of(pool));

    for (uint32_t i = 0; i < brood_pool_workers(pool); i++)
        sum += cpu_us_of(brood_pool_worker_pid(pool, i));
    return sum;
}

long sleeps_of_pool(brood_pool *pool)
{
    long sum = sleeps_of(getpid()) + sleeps_of(supervisor_of(pool));

    for (uint32_t i = 0; i < brood_pool_workers(pool); i++)
        sum += sleeps_of(brood_pool_worker_pid(pool, i));
    return sum;
}
