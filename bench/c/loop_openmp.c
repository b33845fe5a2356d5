/* SPDX-License-Identifier: MIT */
/* Loops on OpenMP's threads.  Compiled by gcc for libgomp and by clang for libomp: LIBRARY is the name, BENCH_OPENMP_VERSION the compiler's. */
#include "sample.h"
#include "work.h"

#include <omp.h>
#include <stddef.h>
#include <string.h>

#define NAME(schedule) BENCH_OPENMP_LIBRARY "-" schedule

static void run_loop(void *state, const struct work *work)
{
    (void)state;
#pragma omp parallel for schedule(runtime)
    for (size_t i = 0; i < work->count; i++)
        work->function(&work->items[i], &work->results[i]);
}

/* For comparison: what a compiler makes of the loop when it sees what is done to an item. */
static void run_inlined(void *state, const struct work *work)
{
    (void)state;
#pragma omp parallel for schedule(runtime)
    for (size_t i = 0; i < work->count; i++)
        work->results[i] = work->items[i] + 1;
}

static void measure(const struct call *call, void (*run)(void *, const struct work *), omp_sched_t schedule,
                    int chunk, struct sample *ret_sample)
{
    const struct runner runner = {run, cpu_us_of_process, private_memory, NULL};

    omp_set_schedule(schedule, chunk);
    measure_work(call, &runner, ret_sample);
}

static int chunk_of(const struct call *call)
{
    int chunk = 0;

    for (const char *digit = call->variant; *digit >= '0' && *digit <= '9'; digit++)
        chunk = 10 * chunk + *digit - '0';
    return chunk;
}

/* dynamic with the variant's chunk; auto: guided. */
static void measure_chunk(const struct call *call, struct sample *ret_sample)
{
    const int chunk = chunk_of(call);

    measure(call, run_loop, chunk == 0 ? omp_sched_guided : omp_sched_dynamic, chunk, ret_sample);
}

static void measure_inlined(const struct call *call, struct sample *ret_sample)
{
    const int chunk = chunk_of(call);

    measure(call, run_inlined, chunk == 0 ? omp_sched_guided : omp_sched_dynamic, chunk, ret_sample);
}

static void measure_static(const struct call *call, struct sample *ret_sample)
{
    measure(call, run_loop, omp_sched_static, 0, ret_sample);
}

static void measure_dynamic(const struct call *call, struct sample *ret_sample)
{
    measure(call, run_loop, omp_sched_dynamic, 1, ret_sample);
}

static void measure_guided(const struct call *call, struct sample *ret_sample)
{
    measure(call, run_loop, omp_sched_guided, 0, ret_sample);
}

static const char *version(void)
{
    return BENCH_OPENMP_VERSION;
}

int main(int argc, char **argv)
{
    static const struct subject subjects[] = {
        {BENCH_OPENMP_LIBRARY, version, measure_chunk, work_chunks},
        {NAME("inlined"), version, measure_inlined, work_chunks},
        {NAME("static"), version, measure_static, work_irregular},
        {NAME("dynamic"), version, measure_dynamic, work_irregular},
        {NAME("guided"), version, measure_guided, work_irregular},
    };

    return bench_main(argc, argv, subjects, sizeof subjects / sizeof *subjects);
}
