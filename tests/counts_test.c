/* SPDX-License-Identifier: MIT */
/*
 * Law 6, counted: idle costs nothing, busy costs no system call.  The library makes its calls of the futex kind through syscall(), which this
 * program puts its own before, counting for all processes of a pool.
 */
#include "testing.h"

#include <dlfcn.h>

enum {
    STREAK = 50,
    WARM_UP = 100,
    IDLE_MS = 100,
    TRY_MS = 20000,
    FEW = 1000,
    MANY = 1000000,
    CALLS_MOST = 60,
    POLLS = 200000,
    CALLS_PER_LOOK = 4
};

static _Atomic long *calls;

/* Six arguments are the most that the kernel takes; what was not passed is not looked at. */
long syscall(long number, ...) /* NOLINT(readability-inconsistent-declaration-parameter-name) */
{
    static long (*_Atomic next)(long, ...);
    long arguments[6];
    va_list list;

    va_start(list, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(list, long);
    va_end(list);
    if (next == NULL)
        *(void **)(void *)&next = dlsym(RTLD_NEXT, "syscall");
    if (calls != NULL)
        bri_add_relaxed(calls, 1);
    return next(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

static int count_on(void **state)
{
    calls = shared_pages(sizeof *calls);
    return make_arena(state);
}

static int is_busy_machine(void)
{
    double load = 0;

    return brood_cpu_count() < 2 || (getloadavg(&load, 1) == 1 && load > brood_cpu_count());
}

static int add_one(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(int *)result = *(const int *)item + 1;
    return 0;
}

static void apply_once(brood_pool *pool)
{
    int item = 1, value;

    assert_ok(brood_pool_apply(pool, add_one, &item, sizeof item, &value, sizeof value));
}

/* Whoever waits spins for a while first: as long as both sides have a CPU, nobody sleeps and nobody needs to be woken. */
static void round_trips_make_no_system_call(void **unused)
{
    brood_pool *pool = new_pool(1);
    int64_t end = brood_after_ms(TRY_MS);
    int streak = 0;

    (void)unused;
    for (int i = 0; i < WARM_UP; i++)
        apply_once(pool);
    while (streak < STREAK && bri_now_ns() < end) {
        long before = bri_load_relaxed(calls);
        apply_once(pool);
        streak = bri_load_relaxed(calls) == before ? streak + 1 : 0;
    }
    assert_ok(brood_pool_destroy(pool));
    if (streak < STREAK && is_busy_machine())
        skip_because("other programs have the CPUs");
    assert_int_equal(streak, STREAK);
}

/* Arrays in the arena, so that no memory has to be got. */
static long count_calls_of_map(brood_pool *pool, int *items, int *values, size_t count)
{
    long before = bri_load_relaxed(calls);
    int64_t begin = bri_now_ns();

    for (size_t i = 0; i < count; i++)
        items[i] = (int)i;
    assert_ok(brood_pool_map(pool, add_one, items, sizeof *items, values, sizeof *values, count, NULL));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(values[i], (int)i + 1);
    long slices = (long)((bri_now_ns() - begin) / BRI_NS_PER_MS /
                         100); /* the supervisor is looked after now and then */
    return bri_load_relaxed(calls) - before - slices * 4;
}

static void maps_cost_the_same_whatever_their_length(void **unused)
{
    brood_pool *pool = new_pool(2);
    void *items, *values;

    (void)unused;
    assert_ok(brood_alloc(MANY * sizeof(int), &items));
    assert_ok(brood_alloc(MANY * sizeof(int), &values));
    count_calls_of_map(pool, items, values, MANY);
    long few = count_calls_of_map(pool, items, values, FEW);
    long many = count_calls_of_map(pool, items, values, MANY);
    fprintf(stderr, "# system calls: %ld for %d items, %ld for %d\n", few, FEW, many, MANY);
    assert_true(few <= CALLS_MOST && many <= CALLS_MOST);
    assert_ok(brood_free(items));
    assert_ok(brood_free(values));
    assert_ok(brood_pool_destroy(pool));
}

static int wait_for_gate(brood_task *task, const void *item, void *result)
{
    (void)task, (void)result;
    while (bri_load_acquire(*(_Atomic int *const *)item) == 0)
        bri_cpu_relax();
    return 0;
}

/* Now and then somebody has to ask the kernel after the supervisor; not each time that the result is asked after. */
static void polling_makes_few_system_calls(void **unused)
{
    _Atomic int *gate = shared_pages(sizeof *gate);
    brood_pool *pool = new_pool(1);
    brood_result *result;

    (void)unused;
    assert_ok(brood_pool_apply_async(pool, wait_for_gate, &gate, sizeof gate, 0, &result));
    assert_int_equal(brood_result_ready(result), 0);
    long before = bri_load_relaxed(calls);
    int64_t begin = bri_now_ns();
    for (int i = 0; i < POLLS; i++)
        assert_int_equal(brood_result_ready(result), 0);
    long looks = (long)((bri_now_ns() - begin) / BRI_NS_PER_MS / 10) + 1;
    long made = bri_load_relaxed(calls) - before;
    fprintf(stderr, "# system calls: %ld for %d questions in %ld times 10 ms\n", made, POLLS, looks);
    assert_true(made <= looks * CALLS_PER_LOOK);
    bri_store_release(gate, 1);
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
    munmap((void *)gate, sizeof *gate);
}

/* User and system time of the process, in clock ticks: fields 14 and 15. */
static unsigned long ticks_of(pid_t pid)
{
    char path[40], stat[512] = "";
    unsigned long user = 0, system = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(stat, sizeof stat, file));
    fclose(file);
    char *at = strrchr(stat, ')');
    for (int field = 2; field < 14; field++)
        at = strchr(at + 1, ' ');
    user = strtoul(at, &at, 10);
    system = strtoul(at, NULL, 10);
    return user + system;
}

static unsigned long ticks_of_pool(brood_pool *pool)
{
    unsigned long ticks = ticks_of(supervisor_pid(pool));

    for (uint32_t i = 0; i < brood_pool_workers(pool); i++)
        ticks += ticks_of(brood_pool_worker_pid(pool, i));
    return ticks;
}

static int all_are_idle(brood_pool *pool)
{
    for (uint32_t i = 0; i < brood_pool_workers(pool); i++)
        if (!bri_load_relaxed(&bri_slot_of(bri_load_acquire(&bri_pool_seat(pool->shared, i)->name))->idle))
            return 0;
    return 1;
}

static void idle_pools_do_nothing(void **unused)
{
    brood_pool *pool = new_pool(3);

    (void)unused;
    apply_once(pool);
    await_true(all_are_idle(pool));
    long before = -1; /* idle is said a moment before the call that sleeps */
    for (long now; (now = bri_load_relaxed(calls)) != before; before = now)
        poll(NULL, 0, IDLE_MS);
    unsigned long ticks = ticks_of_pool(pool);
    poll(NULL, 0, IDLE_MS);
    assert_int_equal(bri_load_relaxed(calls) - before, 0);
    assert_in_range(ticks_of_pool(pool) - ticks, 0, 1);
    assert_ok(brood_pool_destroy(pool));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(round_trips_make_no_system_call),
        clean_test(maps_cost_the_same_whatever_their_length),
        clean_test(polling_makes_few_system_calls),
        clean_test(idle_pools_do_nothing),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("counts", tests, count_on, NULL);
}
