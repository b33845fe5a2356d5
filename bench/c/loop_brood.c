/* SPDX-License-Identifier: MIT */
/* Loops on brood's pool, items and results in the arena; and, of the chunks, on a process forked for each. */
#include "items.h"
#include "pool_use.h"
#include "sample.h"
#include "work.h"

#include <brood.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#ifndef BENCH_BROOD /* the name of the subject: "brood-shared" where the library is not linked in */
#define BENCH_BROOD "brood"
#endif

/* ---- brood ---- */

static int add_one_to(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(uint64_t *)result = *(const uint64_t *)item + 1;
    return 0;
}

/* The workers are forked when this has been set. */
static work_function *function_of_work;

static int call_function(brood_task *task, const void *item, void *result)
{
    (void)task;
    function_of_work(item, result);
    return 0;
}

static void run_brood(void *pool, const struct work *work)
{
    brood_function *function = work->function == add_one ? add_one_to : call_function;

    must_brood(brood_pool_map(pool, function, work->items, sizeof *work->items, work->results,
                              sizeof *work->results, work->count,
                              BROOD_MAP_OPTIONS(.chunk_items = work->chunk)),
               "brood_pool_map");
}

static double cpu_us_of_brood(void *pool)
{
    return cpu_us_of_pool(pool);
}

static void *allocate_in_arena(size_t bytes)
{
    void *memory = NULL;

    must_brood(brood_alloc(bytes, &memory), "brood_alloc");
    return memory;
}

static work_function *function_of(const struct call *call)
{
    return strcmp(call->variant, "mandelbrot") == 0 ? draw_row : step_on;
}

static void measure(const struct call *call, void *(*allocate)(size_t), struct sample *ret_sample)
{
    function_of_work = function_of(call);
    brood_pool *pool = start_pool(0);
    const struct runner runner = {run_brood, cpu_us_of_brood, allocate, pool};

    measure_work(call, &runner, ret_sample);
    ret_sample->memory_per_worker_bytes = memory_bytes_of(brood_pool_worker_pid(pool, 0));
    end_pool(pool);
}

static void measure_brood(const struct call *call, struct sample *ret_sample)
{
    measure(call, allocate_in_arena, ret_sample);
}

static void measure_copied(const struct call *call, struct sample *ret_sample)
{
    measure(call, private_memory, ret_sample);
}

/* ---- a process for each chunk ---- */

enum { FORKED_ITEMS = 2000 };

struct part {
    const struct work *work;
    size_t first, count;
};

static void run_part(void *argument)
{
    const struct part *part = argument;

    for (size_t i = part->first; i < part->first + part->count; i++)
        part->work->function(&part->work->items[i], &part->work->results[i]);
}

/* As many at a time as there are CPUs. */
static void fork_for_each(const struct work *work)
{
    const int at_once = brood_cpu_count();
    int running = 0;

    for (size_t first = 0; first < work->count; first += work->chunk) {
        struct part part = {work, first, work->chunk};
        if (running++ == at_once) {
            must(wait(NULL), "wait");
            running--;
        }
        fork_to(run_part, &part);
    }
    while (wait(NULL) > 0)
        ;
}

static void measure_forks(const struct call *call, struct sample *ret_sample)
{
    const size_t chunk = strtoul(call->variant, NULL, 10), count = FORKED_ITEMS * chunk;
    uint64_t *items = private_memory(count * sizeof *items),
             *results = shared_memory(count * sizeof *results);
    const struct work work = {add_one, items, results, count, chunk};
    const double begun = now_us(), cpu_before = cpu_us_of_children();

    fork_for_each(&work);
    ret_sample->value = (now_us() - begun) * 1e3 / (double)count;
    ret_sample->cpu_us_per_task = (cpu_us_of_children() - cpu_before) / (double)count;
    ret_sample->unit = "ns/item";
    ret_sample->n = count;
    for (size_t i = 0; i < count; i++)
        if (results[i] != 1)
            fail("item %zu: %llu", i, (unsigned long long)results[i]);
}

int main(int argc, char **argv)
{
    static const char *const forked[] = {"1", "16", "256", NULL}, *const copied[] = {"auto", NULL};
    static const struct subject subjects[] = {
        {BENCH_BROOD, brood_version, measure_brood, work_all},
        {BENCH_BROOD "-copied", brood_version, measure_copied, copied},
        {"fork-per-chunk", kernel_version, measure_forks, forked},
    };

    return bench_main(argc, argv, subjects, sizeof subjects / sizeof *subjects);
}
