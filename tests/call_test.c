/* SPDX-License-Identifier: MIT */
/* Single calls (src/pool/standing.c) of a pool with processes: what outlives them, what a death or an interruption leaves, and damage between two. */
#include "testing.h"

#include <sys/time.h>

enum { HALF_OF_NUMBERS = 1 << 21, CALLS = 20 };

static brood_pool *pool;
static _Atomic uint32_t *gate, *runs; /* shared */

static int make_pool(void **state)
{
    if (make_arena(state) != 0)
        return -1;
    gate = shared_pages(2 * sizeof *gate);
    runs = gate + 1;
    return 0;
}

static struct bri_job_shm *standing(void)
{
    return pool->standing.job;
}

static int triple(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(int *)result = *(const int *)item * 3;
    return 0;
}

static int call_triple(int number)
{
    int value = -1;

    assert_ok(brood_pool_apply(pool, triple, &number, sizeof number, &value, sizeof value));
    return value;
}

static int get_memory(brood_task *task, const void *item, void *result)
{
    (void)item;
    return brood_alloc(1000, result) == 0 ? 0 : brood_task_fail(task, 1, brood_error_text());
}

static int die(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    raise(SIGKILL);
    return 0;
}

/* --- memory of calls --- */

/* As so many calls later: the numbers of calls come again. */
static void wind_on(uint64_t round)
{
    bri_store_relaxed(&standing()->round, round);
    bri_store_relaxed(&standing()->ended, round);
    pool->standing.round = round;
}

static void memory_lives_when_numbers_come_again(void **unused)
{
    void *memory;

    (void)unused;
    pool = new_pool(1);
    assert_int_equal(call_triple(1), 3);
    uint64_t round = pool->standing.round;
    assert_ok(brood_pool_apply(pool, get_memory, NULL, 0, &memory, sizeof memory));
    wind_on(round + HALF_OF_NUMBERS);
    assert_int_equal(brood_pool_apply(pool, die, NULL, 0, NULL, 0), -EOWNERDEAD);
    await_true(call_triple(2) == 6);
    assert_ok(brood_free(memory));
    assert_ok(brood_pool_destroy(pool));
}

/* The worker that has made memory in call 1 of one job dies in call 1 of another. */
static void memory_lives_when_the_job_is_another(void **unused)
{
    void *memory[2];

    (void)unused;
    pool = new_pool(1);
    assert_ok(brood_pool_apply(pool, get_memory, NULL, 0, &memory[0], sizeof memory[0]));
    bri_store_relaxed(&standing()->cancel, 1u); /* so that it is given up */
    assert_ok(brood_pool_apply(pool, get_memory, NULL, 0, &memory[1], sizeof memory[1]));
    bri_store_relaxed(&standing()->cancel, 1u);
    assert_int_equal(brood_pool_apply(pool, die, NULL, 0, NULL, 0), -EOWNERDEAD);
    await_true(call_triple(2) == 6);
    for (int i = 0; i < 2; i++)
        assert_ok(brood_free(memory[i]));
    assert_ok(brood_pool_destroy(pool));
}

/* --- waits that are interrupted --- */

static volatile sig_atomic_t is_interrupted;

static void interrupt(int signal)
{
    (void)signal;
    is_interrupted = 1;
}

static int say_interrupted(void)
{
    return is_interrupted;
}

static int run_when_open(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    while (!bri_load_acquire(gate))
        breathe();
    bri_add_acq_rel(runs, 1u);
    return 0;
}

static int call_and_interrupt(void)
{
    struct itimerval soon = {.it_value = {0, 1000}, .it_interval = {0, 1000}}, never = {.it_value = {0, 0}};

    is_interrupted = 0;
    setitimer(ITIMER_REAL, &soon, NULL);
    int error = brood_pool_apply(pool, run_when_open, NULL, 0, NULL, 0);
    setitimer(ITIMER_REAL, &never, NULL);
    return error;
}

/* The first is being run, the others have not begun. */
static void interrupted_calls_are_made(void **unused)
{
    struct sigaction action = {.sa_handler = interrupt};

    (void)unused;
    pool = new_pool(1);
    assert_int_equal(call_triple(1), 3);
    sigaction(SIGALRM, &action, NULL);
    brood_on_interrupt(say_interrupted);
    for (int i = 0; i < CALLS; i++)
        assert_int_equal(call_and_interrupt(), -EINTR);
    brood_on_interrupt(NULL);
    bri_store_release(gate, 1u);
    await_true(bri_load_acquire(runs) == CALLS);
    assert_int_equal(call_triple(2), 6);
    await_true(call_triple(3) == 9 && bri_load_relaxed(&pool->limbo_count) == 0);
    assert_ok(brood_pool_close(pool));
    assert_ok(brood_pool_join(pool, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_pool_destroy(pool));
}

/* --- others' deaths, and damage --- */

static void an_idle_death_is_no_loss(void **unused)
{
    (void)unused;
    pool = new_pool(1);
    assert_int_equal(call_triple(1), 3);
    struct bri_job_shm *first = standing();
    await_true(!is_at_job(pool, 0));
    pid_t worker = brood_pool_worker_pid(pool, 0);
    kill(worker, SIGKILL);
    await_true(brood_pool_worker_pid(pool, 0) != worker);
    assert_int_equal(call_triple(2), 6);
    assert_int_equal(bri_load_acquire(&pool->shared->again), 0);
    assert_ptr_equal(standing(), first);
    assert_ok(brood_pool_destroy(pool));
}

static void damage_between_calls_is_made_good(void **unused)
{
    (void)unused;
    pool = new_pool(1);
    assert_int_equal(call_triple(1), 3);
    standing()->results_at = standing()->items_at;
    assert_int_equal(call_triple(2), 6);
    standing()->count = 0;
    assert_int_equal(call_triple(3), 9);
    standing()->table_at = bri_offset_of(pool->shared);
    assert_int_equal(call_triple(4), 12);
    standing()->notify = 64;
    assert_int_equal(call_triple(5), 15);
    standing()->flags = ~0u;
    assert_int_equal(call_triple(6), 18);
    bri_store_relaxed(&standing()->cancel, 3u);
    assert_int_equal(call_triple(7), 21);
    struct bri_job_shm *before = standing();
    bri_store_relaxed(&before->ended, UINT64_C(1) << 40);
    assert_int_equal(call_triple(8), 24);
    assert_ptr_not_equal(standing(), before);
    assert_ok(brood_pool_destroy(pool));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(memory_lives_when_numbers_come_again), clean_test(memory_lives_when_the_job_is_another),
        clean_test(interrupted_calls_are_made),           clean_test(an_idle_death_is_no_loss),
        clean_test(damage_between_calls_is_made_good),
    };

    prepare_tests();
    return cmocka_run_group_tests(tests, make_pool, NULL);
}
