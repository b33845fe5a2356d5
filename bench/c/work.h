/* SPDX-License-Identifier: MIT */
/*
 * The loops that are shared out: result i = function(item i), for numbers of 8 bytes.  The same function, in a file of its own, so that it is
 * called and not inlined, whoever runs the loop.
 *
 *     1 16 256 auto             trivial: an addition.  20 million items, in chunks of that size; auto: as the subject likes best
 *     auto-first                the same, in the first loop over this memory: processes have to map its pages, threads do not
 *     mandelbrot                a row of the picture each: dear in the middle
 *     rising, falling, random   1 µs to 10 ms, in geometric progression, or at random with a uniform logarithm
 *     hog                       tasks of about 20 µs, while another process uses a CPU without end
 */
#ifndef BENCH_WORK_H
#define BENCH_WORK_H

#include "sample.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef void work_function(const uint64_t *item, uint64_t *result);

struct work {
    work_function *function;
    const uint64_t *items;
    uint64_t *results;
    size_t count;
    size_t chunk; /* 0: as the subject likes best */
};

/* How a subject runs a loop, and what it needs besides. */
struct runner {
    void (*run)(void *state, const struct work *work);
    double (*cpu_us)(void *state);   /* that it has used so far */
    void *(*allocate)(size_t bytes); /* zeroed memory for items and results */
    void *state;
};

extern const char *const work_chunks[];    /* 1 16 256 auto auto-first */
extern const char *const work_irregular[]; /* mandelbrot rising falling random hog */
extern const char *const work_all[];       /* all of these */

void add_one(const uint64_t *item, uint64_t *result);
/* About 2 ns per step. */
void step_on(const uint64_t *steps, uint64_t *result);

/* Makes the loop of the variant, runs it by the runner, checks every result.  Of chunks the value is ns per item; of irregular loops
 * the percentage of the ideal: a serial loop's time over the CPUs; of hog that of the fair share. */
void measure_work(const struct call *call, const struct runner *runner, struct sample *ret_sample);

double cpu_us_of_process(void *state); /* a runner's, when it has no other process than this one */
void *private_memory(size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
