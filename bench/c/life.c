/* SPDX-License-Identifier: MIT */
/*
 * A pool's life and its rest.
 *
 *     life      create two workers, have a first result, close, join: µs for all of it; and until the first result
 *     idle      wake-ups per second of all its processes while there is nothing to do, 2 seconds long
 *
 * Beside brood: two processes forked bare, that write a word each and are waited for; what there is in the way of a floor.
 */
#include "pool_use.h"
#include "sample.h"

#include <brood.h>
#include <string.h>

enum { WORKERS = 2, LIVES = 200, LIVES_QUICK = 40, IDLE_US = 2000000, IDLE_QUICK_US = 500000 };

static const char *const life[] = {"life", NULL}, *const both[] = {"life", "idle", NULL};

/* ---- brood ---- */

static int answer(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(int *)result = *(const int *)item + 1;
    return 0;
}

static void ask(brood_pool *pool, int item)
{
    int result = 0;

    must_brood(brood_pool_apply(pool, answer, &item, sizeof item, &result, sizeof result),
               "brood_pool_apply");
    if (result != item + 1)
        fail("%d came back for %d", result, item);
}

static double live_once(double *ret_first_us)
{
    const double begun = now_us();
    brood_pool *pool = start_pool(WORKERS);

    ask(pool, 1);
    *ret_first_us = now_us() - begun;
    end_pool(pool);
    return now_us() - begun;
}

static void measure_lives(double (*live)(double *ret_first_us), const struct call *call,
                          struct sample *ret_sample)
{
    double times[LIVES], firsts[LIVES];
    struct sample first;

    ret_sample->n = call->is_quick ? LIVES_QUICK : LIVES;
    for (size_t i = 0; i < ret_sample->n; i++)
        times[i] = live(&firsts[i]);
    set_percentiles(&first, firsts, ret_sample->n);
    set_percentiles(ret_sample, times, ret_sample->n);
    ret_sample->value = ret_sample->p50_us;
    ret_sample->first_result_us = first.p50_us;
    ret_sample->unit = "us";
}

static void idle(const struct call *call, struct sample *ret_sample)
{
    brood_pool *pool = start_pool(WORKERS);
    const long rest_us = call->is_quick ? IDLE_QUICK_US : IDLE_US;

    for (int i = 0; i < 1000; i++)
        ask(pool, i);
    pause_us(100000); /* what spins for a while is to be asleep by now */
    const long sleeps_before = sleeps_of_pool(pool);
    const double cpu_before = cpu_us_of_workers(pool), begun = now_us();
    pause_us(rest_us);
    const double cpu = cpu_us_of_workers(pool) - cpu_before, seconds = (now_us() - begun) / 1e6;
    /* This process's own: for the pause that it makes. */
    ret_sample->value = (double)(sleeps_of_pool(pool) - sleeps_before - 1) / seconds;
    ret_sample->unit = "wake-ups/s";
    ret_sample->n = WORKERS;
    ret_sample->memory_per_worker_bytes = memory_bytes_of(brood_pool_worker_pid(pool, 0));
    add_extra(ret_sample, "cpu_us_per_s", cpu / seconds);
    end_pool(pool);
}

static void measure_brood(const struct call *call, struct sample *ret_sample)
{
    if (strcmp(call->variant, "idle") == 0)
        idle(call, ret_sample);
    else
        measure_lives(live_once, call, ret_sample);
}

/* ---- bare processes ---- */

struct word_shm {
    int words[WORKERS];
};

struct child {
    struct word_shm *shared;
    int index;
};

static void write_word(void *argument)
{
    const struct child *child = argument;

    child->shared->words[child->index]++;
}

static double fork_once(double *ret_first_us)
{
    static struct word_shm *shared;
    pid_t pids[WORKERS];

    if (shared == NULL)
        shared = shared_memory(sizeof *shared);
    const int before = shared->words[0];
    const double begun = now_us();
    for (int i = 0; i < WORKERS; i++)
        pids[i] = fork_to(write_word, &(struct child){shared, i});
    reap(pids[0]);
    *ret_first_us = now_us() - begun;
    if (shared->words[0] != before + 1)
        fail("the first child wrote %d", shared->words[0]);
    for (int i = 1; i < WORKERS; i++)
        reap(pids[i]);
    return now_us() - begun;
}

static void measure_forks(const struct call *call, struct sample *ret_sample)
{
    measure_lives(fork_once, call, ret_sample);
}

int main(int argc, char **argv)
{
    static const struct subject subjects[] = {
        {"brood", brood_version, measure_brood, both},
        {"bare-forks", kernel_version, measure_forks, life},
    };

    return bench_main(argc, argv, subjects, sizeof subjects / sizeof *subjects);
}
