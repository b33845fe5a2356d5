/* SPDX-License-Identifier: MIT */
/*
 * No entry of the list of returns outlives its job (pool.h), however an undertaker and the owner that takes a job back come between each other's
 * steps.  Workers are claims of this thread's.
 */
#include "pool/testing.h"

#include <string.h>
#include <unistd.h>

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS

enum { SEATS = 2, ITEMS = 4 };

static bri_name names[SEATS];
static struct bri_claim claims[SEATS];
static struct bri_job_view job;
static uint64_t job_index;

static int nothing(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    return 0;
}

static void make_pool_and_job(void)
{
    struct bri_job_wish wish = {.function = nothing, .count = ITEMS, .chunk_items = 1, .workers = SEATS};

    make_pool_without_processes(SEATS);
    for (uint32_t i = 0; i < SEATS; i++) {
        assert_int_equal(bri_seat_give(bri_pool_seat(pool->shared, i), bri_self(), &names[i]), 0);
        claims[i] = claim_of_seat(i);
    }
    wish.notify = bri_offset_of(&pool->shared->finished);
    assert_int_equal(bri_job_make(&wish, &job), 0);
    assert_int_equal(bri_pool_offer(pool, &job, &job_index), 0);
}

static void drop_pool(uint32_t first_living)
{
    bri_fault_hook = NULL;
    bri_pool_advance(pool->shared, BRI_POOL_TERMINATING);
    for (uint32_t i = first_living; i < SEATS; i++)
        bury_worker(names[i], BRI_END_CLEAN);
    bri_pool_drop(pool);
}

static int run_one(struct bri_claim *claim)
{
    if (bri_claim_any(claim) != BRI_CLAIMED)
        return 0;
    bri_worker_run_chunk(pool, claim);
    bri_claim_done(claim);
    return 1;
}

static uint32_t count_returns(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < BRI_RETURNS; i++)
        count += bri_load_acquire(&bri_pool_return(pool->shared, i)->job) != 0;
    return count;
}

/* --- a dead worker that visits the job and has claimed nothing --- */

static void die_when_withdrawn(const char *point)
{
    if (strcmp(point, "pool.withdrawn") != 0)
        return;
    bri_fault_hook = NULL;
    bury_worker(names[0], BRI_END_KILLED);
}

static void visits_without_a_claim_are_not_returned(void **state)
{
    (void)state;
    uint64_t before = used_blocks();
    make_pool_and_job();
    assert_true(run_one(&claims[0]));
    while (run_one(&claims[1])) {
    }
    assert_true(bri_job_is_complete(job.job));
    bri_fault_hook = die_when_withdrawn;
    bri_pool_take_back(pool, &job, job_index);
    assert_int_equal(count_returns(), 0);
    drop_pool(1);
    assert_int_equal(used_blocks(), before);
}

/* --- the first chunk that ever came back --- */

/* Each step is a byte in a pipe. */
static int is_free[2], is_withdrawn[2];
static _Thread_local int is_undertaker;

static void say(const int *step)
{
    thread_check(write(step[1], "", 1) == 1);
}

static void await(const int *step)
{
    char byte;

    thread_check(read(step[0], &byte, 1) == 1);
}

static void meet_in_between(const char *point)
{
    if (is_undertaker && strcmp(point, "mourn.chunk.free") == 0) {
        say(is_free);
        await(is_withdrawn);
    }
}

static void *undertake(void *unused)
{
    is_undertaker = 1;
    bury_worker(names[0], BRI_END_KILLED);
    return unused;
}

static pthread_t undertaker;

static void let_undertaker_end(const char *point)
{
    meet_in_between(point);
    if (is_undertaker || strcmp(point, "pool.withdrawn") != 0)
        return;
    say(is_withdrawn);
    pthread_join(undertaker, NULL);
}

static void the_first_return_is_withdrawn(void **state)
{
    (void)state;
    uint64_t before = used_blocks();
    make_pool_and_job();
    assert_int_equal(pipe(is_free), 0);
    assert_int_equal(pipe(is_withdrawn), 0);
    assert_int_equal(bri_claim_any(&claims[0]), BRI_CLAIMED);
    bri_fault_hook = let_undertaker_end;
    assert_int_equal(pthread_create(&undertaker, NULL, undertake, NULL), 0);
    await(is_free);
    while (run_one(&claims[1])) {
    }
    assert_true(bri_job_is_complete(job.job));
    bri_pool_take_back(pool, &job, job_index);
    assert_int_equal(count_returns(), 0);
    drop_pool(1);
    for (int i = 0; i < 2; i++) {
        close(is_free[i]);
        close(is_withdrawn[i]);
    }
    assert_int_equal(used_blocks(), before);
}

static int make_arena(void **state)
{
    void *memory = NULL;

    (void)state;
    return brood_alloc(1, &memory) < 0 || brood_free(memory) < 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(visits_without_a_claim_are_not_returned),
        cmocka_unit_test(the_first_return_is_withdrawn),
    };

    return cmocka_run_group_tests(tests, make_arena, NULL);
}

#else

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(needs_fault_points)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
