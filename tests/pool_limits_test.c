/* SPDX-License-Identifier: MIT */
/* Limits of workers: a task that meets one learns of it or ends by it, its outcome says which, and the others go on. */
#include "pool_testing.h"

#include <sys/resource.h>

#define MIB (UINT64_C(1) << 20)

enum { MAX_MIB = 64, MAX_FILES = 64, ITEMS = 12 };

static brood_pool *limited(const brood_pool_options *options)
{
    brood_pool *made = NULL;

    assert_ok(brood_pool_create(options, &made));
    return made;
}

static brood_outcome outcome_of(brood_result *result, size_t index)
{
    brood_outcome outcome;

    assert_ok(brood_result_outcome(result, index, &outcome));
    return outcome;
}

static brood_result *run(brood_pool *in, brood_function *function, const int *items, size_t count)
{
    brood_result *result;

    assert_ok(brood_pool_map_async(in, function, items, sizeof *items, sizeof(long), count,
                                   BROOD_MAP_OPTIONS(.chunk_items = 1), &result));
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    return result;
}

static void end(brood_pool *made, brood_result *result)
{
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(made));
}

/* --- memory --- */

/* Touched, and kept: how many MiB there were. */
static long take_memory(long most_mib)
{
    long taken = 0;

    for (char *piece; taken < most_mib && (piece = malloc(MIB)) != NULL; taken++)
        memset(piece, 1, MIB);
    return taken;
}

static int take_mib(brood_task *task, const void *item, void *result)
{
    int wanted = *(const int *)item;
    long taken = take_memory(wanted);

    *(long *)result = taken;
    return taken < wanted ? brood_task_fail(task, ENOMEM, "no memory") : 0;
}

static int take_mib_or_abort(brood_task *task, const void *item, void *result)
{
    if (take_mib(task, item, result) != 0)
        abort();
    return 0;
}

static void memory_runs_out_in_the_task(void **unused)
{
    const int items[] = {1, 1000, 1, 1};
    brood_pool *made = limited(BROOD_POOL_OPTIONS(.workers = 1, .max_memory_bytes = MAX_MIB * MIB));
    brood_result *result = run(made, take_mib, items, 4);

    (void)unused;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(outcome_of(result, i).kind, i == 1 ? BROOD_ERROR : BROOD_VALUE);
    assert_int_equal(outcome_of(result, 1).code, ENOMEM);
    end(made, result);
}

static void an_abort_without_memory_says_so(void **unused)
{
    const int items[] = {1, 1000, 1};
    brood_pool *made = limited(BROOD_POOL_OPTIONS(.workers = 1, .max_memory_bytes = MAX_MIB * MIB));
    brood_result *result = run(made, take_mib_or_abort, items, 3);

    (void)unused;
    assert_int_equal(outcome_of(result, 0).kind, BROOD_VALUE);
    assert_int_equal(outcome_of(result, 1).kind, BROOD_DIED);
    assert_int_equal(outcome_of(result, 1).cause, BROOD_CAUSE_MEMORY);
    assert_non_null(strstr(outcome_of(result, 1).text, "max_memory_bytes is 64 MiB"));
    assert_int_equal(outcome_of(result, 2).kind, BROOD_VALUE);
    end(made, result);
}

static int tell_pid_and_leak(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(long *)result = take_memory(*(const int *)item) < 0 ? -1 : (long)getpid();
    return 0;
}

/* Each task keeps a third: every second one has a new worker, and none goes without. */
static void a_worker_that_holds_too_much_is_renewed(void **unused)
{
    int items[ITEMS];
    long pids[ITEMS];
    brood_pool *made = limited(BROOD_POOL_OPTIONS(.workers = 1, .max_memory_bytes = MAX_MIB * MIB));

    (void)unused;
    for (size_t i = 0; i < ITEMS; i++)
        items[i] = MAX_MIB / 3;
    brood_result *result = run(made, tell_pid_and_leak, items, ITEMS);
    assert_ok(brood_result_get(result, pids, sizeof pids, BROOD_NOW));
    for (size_t i = 0; i + 2 < ITEMS; i++)
        assert_true(pids[i] != pids[i + 2]);
    assert_int_equal(bri_load_relaxed(&bri_pool_seat(made->shared, 0)->deaths), 0);
    end(made, result);
}

/* The arena is not the worker's: it may hold more than the limit. */
static int fill_arena(brood_task *task, const void *item, void *result)
{
    void *memory;

    (void)item;
    if (brood_alloc(4 * MAX_MIB * MIB, &memory) < 0)
        return brood_task_fail(task, 1, brood_error_text());
    memset(memory, 1, 4 * MAX_MIB * MIB);
    *(long *)result = brood_free(memory);
    return 0;
}

static void the_arena_does_not_count(void **unused)
{
    const int item = 0;
    brood_pool *made = limited(BROOD_POOL_OPTIONS(.workers = 1, .max_memory_bytes = MAX_MIB * MIB));
    brood_result *result = run(made, fill_arena, &item, 1);

    (void)unused;
    assert_int_equal(outcome_of(result, 0).kind, BROOD_VALUE);
    end(made, result);
}

/* --- CPU time --- */

static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* item: tenths of a second; negative: without end. */
static int burn(brood_task *task, const void *item, void *result)
{
    double from = cpu_seconds();

    (void)task;
    while (*(const int *)item < 0 || cpu_seconds() - from < *(const int *)item / 10.0) {
    }
    *(long *)result = 1;
    return 0;
}

/* Each item has its own second: what the worker used before does not count. */
static void cpu_time_is_each_items_own(void **unused)
{
    const int items[] = {7, 7, -1, 7};
    brood_pool *made = limited(BROOD_POOL_OPTIONS(.workers = 1, .max_cpu_seconds = 1));
    brood_result *result = run(made, burn, items, 4);

    (void)unused;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(outcome_of(result, i).kind, i == 2 ? BROOD_DIED : BROOD_VALUE);
    assert_int_equal(outcome_of(result, 2).signal, SIGXCPU);
    assert_int_equal(outcome_of(result, 2).cause, BROOD_CAUSE_CPU);
    assert_non_null(strstr(outcome_of(result, 2).text, "more than its 1 CPU seconds"));
    end(made, result);
}

/* --- files --- */

static int open_many(brood_task *task, const void *item, void *result)
{
    int fds[2 * MAX_FILES], count = 0, error = 0;

    while (count < *(const int *)item && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    error = errno;
    *(long *)result = count;
    for (int i = 0; i < count; i++)
        close(fds[i]);
    return count < *(const int *)item ? brood_task_fail(task, error, strerror(error)) : 0;
}

static void files_run_out_in_the_task(void **unused)
{
    const int items[] = {2 * MAX_FILES, MAX_FILES / 4, 2 * MAX_FILES, MAX_FILES / 4};
    brood_pool *made = limited(BROOD_POOL_OPTIONS(.workers = 2, .max_open_files = MAX_FILES));
    brood_result *result = run(made, open_many, items, 4);

    (void)unused;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(outcome_of(result, i).kind, i % 2 == 0 ? BROOD_ERROR : BROOD_VALUE);
    assert_int_equal(outcome_of(result, 0).code, EMFILE);
    end(made, result);
}

/* A pool without limits leaves those of the owner as they are. */
static int tell_limits(brood_task *task, const void *item, void *result)
{
    struct rlimit data, files;

    (void)task, (void)item;
    getrlimit(RLIMIT_DATA, &data);
    getrlimit(RLIMIT_NOFILE, &files);
    *(long *)result = (long)(data.rlim_cur ^ files.rlim_cur);
    return 0;
}

static void without_limits_there_are_the_owners(void **unused)
{
    const int item = 0;
    long mine, workers;

    (void)unused;
    tell_limits(NULL, NULL, &mine);
    assert_ok(brood_pool_apply(pool, tell_limits, &item, sizeof item, &workers, sizeof workers));
    assert_int_equal(mine, workers);
}

static int make_pool(void **state)
{
    return make_pool_of(1, state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(memory_runs_out_in_the_task),
        clean_test(an_abort_without_memory_says_so),
        clean_test(a_worker_that_holds_too_much_is_renewed),
        clean_test(the_arena_does_not_count),
        clean_test(cpu_time_is_each_items_own),
        clean_test(files_run_out_in_the_task),
        clean_test(without_limits_there_are_the_owners),
    };
    prepare_tests();
    return cmocka_run_group_tests(tests, make_pool, drop_pool);
}
