/* SPDX-License-Identifier: MIT */
/*
 * One task there and its result back.
 *
 * awake   both sides spin: brood's apply, against a cache line that two processes write in turn, nothing else
 * asleep  the worker sleeps when the owner begins, and the owner may sleep while it waits: against one futex wake and wait on
 *         either side.  Between two round trips all subjects pause until the other process sleeps; only the trip is timed.
 *
 * asleep-one-cpu   the same with all of it on one CPU: where the kernel puts who is woken is then the same for all, too
 *
 * For comparison, the same through a pair of pipes, and a process forked for each task.
 */
#include "pool_use.h"
#include "sample.h"

#include <brood.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How a subject makes one round trip: sends `number`, returns the answer, which is number + 1. */
typedef uint64_t trip_function(void *state, uint64_t number);

enum { PAUSE_US = 300 };

static int is_awake(const struct call *call)
{
    return strcmp(call->variant, "awake") == 0;
}

/* Before any process is started. */
static void choose_cpus(const struct call *call)
{
    cpu_set_t cpus, first;

    if (strcmp(call->variant, "asleep-one-cpu") != 0)
        return;
    must(sched_getaffinity(0, sizeof cpus, &cpus), "sched_getaffinity");
    CPU_ZERO(&first);
    size_t cpu = 0;
    while (!CPU_ISSET(cpu, &cpus))
        cpu++;
    CPU_SET(cpu, &first);
    must(sched_setaffinity(0, sizeof first, &first), "sched_setaffinity");
}

static void check(uint64_t answer, uint64_t number)
{
    if (answer != number + 1)
        fail("%llu came back for %llu", (unsigned long long)answer, (unsigned long long)number);
}

/* The median of batches without a clock in between; then single trips for the percentiles. */
static void time_awake(trip_function *trip, void *state, size_t count, struct sample *sample)
{
    double times[1000];
    const size_t batches = 100, single = sizeof times / sizeof *times;

    for (size_t batch = 0; batch < batches; batch++) {
        const double begun = now_us();
        for (size_t i = 0; i < count / batches; i++)
            check(trip(state, i), i);
        times[batch] = (now_us() - begun) / (double)(count / batches);
    }
    set_percentiles(sample, times, batches);
    sample->value = sample->p50_us;
    for (size_t i = 0; i < single; i++) {
        const double before = now_us();
        check(trip(state, i), i);
        times[i] = now_us() - before;
    }
    set_percentiles(sample, times, single);
}

static void time_asleep(trip_function *trip, void *state, pid_t other, size_t count, struct sample *sample)
{
    double *times = malloc(count * sizeof *times);

    for (size_t i = 0; i < count; i++) {
        pause_us(PAUSE_US);
        wait_until_asleep(other);
        const double before = now_us();
        check(trip(state, i), i);
        times[i] = now_us() - before;
    }
    set_percentiles(sample, times, count);
    sample->value = sample->p50_us; /* of what sleeps, a mean says how long the longest interruption was */
    free(times);
}

static void time_trips(trip_function *trip, void *state, pid_t other, const struct call *call,
                       struct sample *sample)
{
    sample->unit = "us";
    if (is_awake(call)) {
        sample->n = call->is_quick ? 100000 : 500000;
        time_awake(trip, state, sample->n, sample);
    } else {
        sample->n = call->is_quick ? 300 : 2000;
        time_asleep(trip, state, other, sample->n, sample);
    }
}

/* ---- brood ---- */

static int increment(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(uint64_t *)result = *(const uint64_t *)item + 1;
    return 0;
}

static uint64_t brood_trip(void *pool, uint64_t number)
{
    uint64_t answer = 0;

    must_brood(brood_pool_apply(pool, increment, &number, sizeof number, &answer, sizeof answer), "apply");
    return answer;
}

static void measure_brood(const struct call *call, struct sample *ret_sample)
{
    choose_cpus(call);
    brood_pool *pool = start_pool(1);
    const double cpu_before = cpu_us_of_pool(pool);

    time_trips(brood_trip, pool, brood_pool_worker_pid(pool, 0), call, ret_sample);
    if (is_awake(call))
        ret_sample->cpu_us_per_task = (cpu_us_of_pool(pool) - cpu_before) / (double)ret_sample->n;
    end_pool(pool);
}

/* ---- two processes and a word ---- */

#define END UINT32_MAX

/* The owner stores 2n + 1 when it sends, the other 2n + 2 when it answers.  A cache line of its own. */
struct line_shm {
    _Alignas(64) _Atomic uint32_t word;
    _Alignas(64) uint64_t number;
};

static void spin_for_other(void *argument)
{
    struct line_shm *line = argument;
    uint32_t word;

    for (;;) {
        while ((word = atomic_load_explicit(&line->word, memory_order_acquire)) % 2 == 0)
            ;
        if (word == END)
            return;
        atomic_store_explicit(&line->word, word + 1, memory_order_release);
    }
}

static uint64_t line_trip(void *state, uint64_t number)
{
    struct line_shm *line = state;
    const uint32_t sent = (uint32_t)number * 2 + 1;

    atomic_store_explicit(&line->word, sent, memory_order_release);
    while (atomic_load_explicit(&line->word, memory_order_acquire) == sent)
        ;
    return atomic_load_explicit(&line->word, memory_order_relaxed) / 2;
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint32_t futex_wait_while(_Atomic uint32_t *word, uint32_t value)
{
    uint32_t now;

    while ((now = atomic_load_explicit(word, memory_order_acquire)) == value)
        syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
    return now;
}

static void sleep_for_other(void *argument)
{
    struct line_shm *line = argument;
    uint32_t answered = 0, word;

    while ((word = futex_wait_while(&line->word, answered)) != END) {
        answered = word + 1;
        atomic_store_explicit(&line->word, answered, memory_order_release);
        futex_wake(&line->word);
    }
}

static uint64_t futex_trip(void *state, uint64_t number)
{
    struct line_shm *line = state;
    const uint32_t sent = (uint32_t)number * 2 + 1;

    atomic_store_explicit(&line->word, sent, memory_order_release);
    futex_wake(&line->word);
    return futex_wait_while(&line->word, sent) / 2;
}

static void measure_line(void (*other)(void *), trip_function *trip, const struct call *call,
                         struct sample *ret_sample)
{
    struct line_shm *line = shared_memory(sizeof *line);

    choose_cpus(call);
    const pid_t pid = fork_to(other, line);

    time_trips(trip, line, pid, call, ret_sample);
    atomic_store(&line->word, END);
    futex_wake(&line->word);
    reap(pid);
}

static void measure_cache_line(const struct call *call, struct sample *ret_sample)
{
    measure_line(spin_for_other, line_trip, call, ret_sample);
}

static void measure_futex(const struct call *call, struct sample *ret_sample)
{
    measure_line(sleep_for_other, futex_trip, call, ret_sample);
}

/* ---- pipes ---- */

struct pipes {
    int there[2], back[2];
};

static void answer_pipe(void *argument)
{
    const struct pipes *pipes = argument;
    uint64_t number;

    close(pipes->there[1]);
    while (read(pipes->there[0], &number, sizeof number) == sizeof number) {
        number++;
        must(write(pipes->back[1], &number, sizeof number), "write");
    }
}

static uint64_t pipe_trip(void *state, uint64_t number)
{
    const struct pipes *pipes = state;
    uint64_t answer = 0;

    must(write(pipes->there[1], &number, sizeof number), "write");
    must(read(pipes->back[0], &answer, sizeof answer), "read");
    return answer;
}

static void measure_pipes(const struct call *call, struct sample *ret_sample)
{
    struct pipes pipes;

    choose_cpus(call);
    must(pipe(pipes.there), "pipe");
    must(pipe(pipes.back), "pipe");
    const pid_t pid = fork_to(answer_pipe, &pipes);
    time_trips(pipe_trip, &pipes, pid, call, ret_sample);
    close(pipes.there[1]);
    reap(pid);
}

/* ---- a process for each task ---- */

struct fork_shm {
    uint64_t number;
};

static void increment_in_child(void *argument)
{
    ((struct fork_shm *)argument)->number++;
}

static uint64_t fork_trip(void *state, uint64_t number)
{
    struct fork_shm *shared = state;

    shared->number = number;
    reap(fork_to(increment_in_child, shared));
    return shared->number;
}

static void measure_fork(const struct call *call, struct sample *ret_sample)
{
    struct fork_shm *shared = shared_memory(sizeof *shared);

    choose_cpus(call);
    ret_sample->unit = "us";
    ret_sample->n = 500;
    time_awake(fork_trip, shared, ret_sample->n, ret_sample);
}

int main(int argc, char **argv)
{
    static const char *const awake[] = {"awake", NULL};
    static const char *const asleep[] = {"asleep", "asleep-one-cpu", NULL};
    static const char *const both[] = {"awake", "asleep", "asleep-one-cpu", NULL};
    static const struct subject subjects[] = {
        {"brood", brood_version, measure_brood, both},
        {"cache-line", no_version, measure_cache_line, awake},
        {"futex", kernel_version, measure_futex, asleep},
        {"pipes", kernel_version, measure_pipes, both},
        {"fork-per-task", kernel_version, measure_fork, asleep},
    };

    return bench_main(argc, argv, subjects, sizeof subjects / sizeof *subjects);
}
