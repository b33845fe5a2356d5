/* SPDX-License-Identifier: MIT */
/*
 * More workers than CPUs: the variant is how many.  Items of about 20 µs, each claimed by itself, and the same as single calls, 64 at a time under
 * way ("64-calls"): items per second.
 */
#include "pool_use.h"
#include "sample.h"
#include "work.h"

#include <brood.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 10000, UNDER_WAY = 64 };

static int step(brood_task *task, const void *item, void *result)
{
    (void)task;
    step_on(item, result);
    return 0;
}

static void map_once(brood_pool *pool, const uint64_t *items, uint64_t *results, size_t count)
{
    must_brood(brood_pool_map(pool, step, items, sizeof *items, results, sizeof *results, count,
                              BROOD_MAP_OPTIONS(.chunk_items = 1)),
               "brood_pool_map");
}

static void call_each(brood_pool *pool, const uint64_t *items, uint64_t *results, size_t count)
{
    brood_result *under_way[UNDER_WAY] = {NULL};

    for (size_t i = 0; i < count + UNDER_WAY; i++) {
        brood_result **slot = &under_way[i % UNDER_WAY];
        if (i >= UNDER_WAY) {
            must_brood(brood_result_get(*slot, &results[i - UNDER_WAY], sizeof *results, BROOD_FOREVER),
                       "brood_result_get");
            must_brood(brood_result_destroy(*slot), "brood_result_destroy");
        }
        if (i < count)
            must_brood(brood_pool_apply_async(pool, step, &items[i], sizeof *items, sizeof *results, slot),
                       "brood_pool_apply_async");
    }
}

static void measure(const struct call *call, struct sample *ret_sample)
{
    const size_t count = call->is_quick ? 5000 : 25000;
    const uint32_t workers = (uint32_t)strtoul(call->variant, NULL, 10);
    const int are_calls = strstr(call->variant, "-calls") != NULL;
    uint64_t *items = private_memory(count * sizeof *items),
             *results = private_memory(count * sizeof *results);
    uint64_t expected;
    brood_pool *pool = start_pool(workers);

    for (size_t i = 0; i < count; i++)
        items[i] = STEPS;
    step_on(items, &expected);
    map_once(pool, items, results, count / 10);
    const double cpu_before = cpu_us_of_pool(pool), begun = now_us();
    (are_calls ? call_each : map_once)(pool, items, results, count);
    ret_sample->value = (double)count * 1e6 / (now_us() - begun);
    ret_sample->cpu_us_per_task = (cpu_us_of_pool(pool) - cpu_before) / (double)count;
    for (size_t i = 0; i < count; i++)
        if (results[i] != expected)
            fail("item %zu: %llu", i, (unsigned long long)results[i]);
    ret_sample->unit = "items/s";
    ret_sample->more_is_better = 1;
    ret_sample->n = count;
    ret_sample->memory_per_worker_bytes = memory_bytes_of(brood_pool_worker_pid(pool, 0));
    end_pool(pool);
}

int main(int argc, char **argv)
{
    static const char *const variants[] = {"1",       "2",        "4",        "8",        "16",
                                           "32",      "64",       "1-calls",  "2-calls",  "4-calls",
                                           "8-calls", "16-calls", "32-calls", "64-calls", NULL};
    static const struct subject subjects[] = {{"brood", brood_version, measure, variants}};

    return bench_main(argc, argv, subjects, 1);
}
