/* SPDX-License-Identifier: MIT */
#include "work.h"

#include "items.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <brood.h>

enum { MANY = 20000000, MANY_QUICK = 4000000, STEPS_PER_US = 500, LOOPS = 5, LOOPS_OF_HOG = 3 };

const char *const work_chunks[] = {"1", "16", "256", "auto", "auto-first", NULL};
const char *const work_irregular[] = {"mandelbrot", "rising", "falling", "random", "hog", NULL};
const char *const work_all[] = {"1",      "16",      "256",    "auto", "auto-first", "mandelbrot",
                                "rising", "falling", "random", "hog",  NULL};

static int is_variant(const struct call *call, const char *name)
{
    return strcmp(call->variant, name) == 0;
}

double cpu_us_of_process(void *state)
{
    (void)state;
    return cpu_us_of(getpid());
}

void *private_memory(size_t bytes)
{
    void *memory = calloc(1, bytes);

    if (memory == NULL)
        fail("no memory for %zu bytes", bytes);
    return memory;
}

/* ---- items ---- */

/* In [0, 1), the same sequence each time. */
static double next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) / 9007199254740992.0;
}

/* 1 µs to 10 ms, as a share 0 … 1 of the way between their logarithms. */
static uint64_t steps_at(double share)
{
    return (uint64_t)(STEPS_PER_US * pow(10000, share));
}

/* What each kind of loop has for items. */
static void fill(const struct call *call, const struct work *work, uint64_t *items)
{
    const int is_rising = is_variant(call, "rising"), is_falling = is_variant(call, "falling");
    const int is_random = is_variant(call, "random");
    const double last = (double)(work->count - 1);
    uint64_t random = 1;

    for (size_t i = 0; i < work->count; i++)
        if (is_rising || is_falling)
            items[i] = steps_at((double)(is_rising ? i : work->count - 1 - i) / last);
        else if (is_random)
            items[i] = steps_at(next_random(&random));
        else
            items[i] = work->function == step_on    ? 20 * STEPS_PER_US
                       : work->function == draw_row ? i * (ROWS / work->count)
                                                    : i;
}

static size_t count_of(const struct call *call, const struct work *work)
{
    if (work->function == add_one)
        return call->is_quick ? MANY_QUICK : MANY;
    if (work->function == draw_row)
        return call->is_quick ? ROWS / 4 : ROWS;
    if (is_variant(call, "hog"))
        return call->is_quick ? 10000 : 50000;
    return call->is_quick ? 150 : 1000;
}

static struct work make_work(const struct call *call, const struct runner *runner)
{
    struct work work = {.chunk = strtoul(call->variant, NULL, 10)};

    work.function = work.chunk != 0 || strncmp(call->variant, "auto", 4) == 0 ? add_one
                    : is_variant(call, "mandelbrot")                          ? draw_row
                                                                              : step_on;
    work.count = count_of(call, &work);
    uint64_t *items = runner->allocate(work.count * sizeof *items);
    fill(call, &work, items);
    work.items = items;
    work.results = runner->allocate(work.count * sizeof *work.results);
    memset(work.results, 0xff, work.count * sizeof *work.results);
    return work;
}

/* ---- loops ---- */

static void run_serially(const struct work *work, uint64_t *results)
{
    for (size_t i = 0; i < work->count; i++)
        work->function(&work->items[i], &results[i]);
}

struct times {
    double wall_us, cpu_us;
};

/* One loop, which has to leave these results; those of earlier loops are wiped first. */
static struct times time_loop(const struct runner *runner, const struct work *work, const uint64_t *expected)
{
    memset(work->results, 0xff, work->count * sizeof *work->results);
    const double cpu_before = runner->cpu_us(runner->state), begun = now_us();
    runner->run(runner->state, work);
    const struct times took = {now_us() - begun, runner->cpu_us(runner->state) - cpu_before};
    for (size_t i = 0; i < work->count; i++)
        if (work->results[i] != expected[i])
            fail("item %zu of %zu: %llu instead of %llu", i, work->count,
                 (unsigned long long)work->results[i], (unsigned long long)expected[i]);
    return took;
}

static double median(double *values, size_t count)
{
    struct sample sorted;

    set_percentiles(&sorted, values, count);
    return sorted.p50_us;
}

/* ns per item: of the first loop, or of loops over memory that was used before. */
static void measure_chunks(const struct call *call, const struct runner *runner, const struct work *work,
                           const uint64_t *expected, struct sample *sample)
{
    const int is_first = is_variant(call, "auto-first");
    const size_t loops = is_first ? 1 : call->is_quick ? 3 : LOOPS;
    double times[LOOPS], cpu_us = 0;

    sample->unit = "ns/item";
    sample->n = work->count;
    if (!is_first)
        time_loop(runner, work, expected);
    for (size_t i = 0; i < loops; i++) {
        const struct times took = time_loop(runner, work, expected);
        times[i] = took.wall_us;
        cpu_us += took.cpu_us / (double)loops;
    }
    sample->value = median(times, loops) * 1e3 / (double)work->count;
    sample->cpu_us_per_task = cpu_us / (double)work->count;
}

/* Serial loops before and after, for a machine whose speed varies; the first has warmed up what there is to be. */
static void measure_irregular(const struct runner *runner, const struct work *work, uint64_t *expected,
                              struct sample *sample)
{
    const double begun = now_us();
    run_serially(work, expected);
    const double before = now_us() - begun;
    const struct times took = time_loop(runner, work, expected);
    const double begun_again = now_us();
    run_serially(work, expected);

    sample->unit = "% of ideal";
    sample->more_is_better = 1;
    sample->n = work->count;
    sample->value = 100 * (before + now_us() - begun_again) / 2 / brood_cpu_count() / took.wall_us;
    sample->cpu_us_per_task = took.cpu_us / (double)work->count;
}

static void use_a_cpu(void *argument)
{
    (void)argument;
    for (;;)
        __asm__ volatile("");
}

/* With as many workers as CPUs and a hog, each of them is entitled to CPUs / (CPUs + 1) of a CPU. */
static void measure_hog(const struct runner *runner, const struct work *work, const uint64_t *expected,
                        struct sample *sample)
{
    double alone[LOOPS_OF_HOG], beside[LOOPS_OF_HOG];
    const int cpus = brood_cpu_count();

    sample->unit = "% of fair share";
    sample->more_is_better = 1;
    sample->n = work->count;
    for (int i = 0; i < LOOPS_OF_HOG; i++) {
        alone[i] = time_loop(runner, work, expected).wall_us;
        const pid_t hog = fork_to(use_a_cpu, NULL);
        beside[i] = time_loop(runner, work, expected).wall_us;
        kill(hog, SIGKILL);
        waitpid(hog, NULL, 0);
    }
    sample->value = 100 * median(alone, LOOPS_OF_HOG) / median(beside, LOOPS_OF_HOG) * (cpus + 1) / cpus;
}

void measure_work(const struct call *call, const struct runner *runner, struct sample *ret_sample)
{
    const struct work work = make_work(call, runner);
    uint64_t *expected = private_memory(work.count * sizeof *expected);

    run_serially(&work, expected);
    if (is_variant(call, "hog"))
        measure_hog(runner, &work, expected, ret_sample);
    else if (work.function == add_one)
        measure_chunks(call, runner, &work, expected, ret_sample);
    else
        measure_irregular(runner, &work, expected, ret_sample);
}
