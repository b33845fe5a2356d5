/* SPDX-License-Identifier: MIT */
/*
 * What the programs of bench/c share: the command line, the one line of JSON, clocks.
 *
 *     PROGRAM --subject NAME --variant NAME [--quick]     makes one sample of one subject and prints it
 *     PROGRAM --list                                      says, a line each, which it can make here
 *
 * A program is a table of subjects.  Each subject's function makes one sample: it checks the results that it got, and ends the
 * program with fail() when something is wrong, so that a wrong result is never a fast one.
 */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SAMPLE_EXTRAS = 12 };

/* Numbers that are NaN were not measured and are not printed. */
struct sample {
    double value;
    const char *unit;
    int more_is_better;
    uint64_t n; /* repetitions, tasks, or messages that the value is a mean over */
    double cpu_us_per_task;
    double p50_us, p99_us, p999_us;
    double first_result_us;
    double memory_per_worker_bytes;
    struct {
        const char *name;
        double value;
    } extras[SAMPLE_EXTRAS];
    size_t extras_used;
};

struct call {
    const char *variant;
    int is_quick; /* smaller counts */
};

struct subject {
    const char *name;
    const char *(*version)(void);
    void (*measure)(const struct call *call, struct sample *ret_sample);
    const char *const *variants; /* up to NULL */
};

/* The whole of main. */
int bench_main(int argc, char **argv, const struct subject *subjects, size_t count);

void add_extra(struct sample *sample, const char *name, double value);
/* Sets the percentiles from single times, which it sorts. */
void set_percentiles(struct sample *sample, double *times_us, size_t count);

/* Prints the sentence and ends the program with status 1. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
/* Fails unless `result`, 0 or a count on success, is that. */
long must(long result, const char *what);

double now_us(void);
/* CPU time that a process, dead ones not included, has used so far; 0 when it is gone.  pid 0: the caller. */
double cpu_us_of(pid_t pid);
/* The CPU time of the children that were waited for. */
double cpu_us_of_children(void);
pid_t parent_of(pid_t pid);
/* Voluntary switches of a process so far: how often it slept. */
long sleeps_of(pid_t pid);
/* Private memory and the process's share of what it shares. */
double memory_bytes_of(pid_t pid);
/* Until the process sleeps (its state is S), as those do that wait for work. */
void wait_until_asleep(pid_t pid);
void pause_us(long microseconds);

const char *no_version(void);     /* of what is not a library: the kernel, the machine */
const char *kernel_version(void); /* uname -r */

/* Memory that forked processes share, zeroed. */
void *shared_memory(size_t bytes);
/* Runs function(argument) in a forked child, which then ends with status 0. */
pid_t fork_to(void (*function)(void *argument), void *argument);
/* Waits for a child, which has to end with status 0. */
void reap(pid_t pid);

#ifdef __cplusplus
}
#endif

#endif
