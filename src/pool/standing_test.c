/* SPDX-License-Identifier: MIT */
/*
 * The standing job of standing.c: which calls it takes, how long it stands, and the two races that its words are made for, held open by fault
 * points.  The worker is a thread.
 */
#include "pool/testing.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS

enum { ROUNDS = 20, SEATS = 2 };

enum watch { NOTHING, ARMING, LATE };

static pthread_t workers[SEATS];
static atomic_int watched; /* enum watch: what the fault points are for */
static _Thread_local int is_owner;

static int add_one(brood_task *task, const void *item, void *result)
{
    int number = *(const int *)item;

    if (number == 0)
        return brood_task_fail(task, 7, "nothing to add to");
    if (number < 0)
        pthread_exit(NULL);
    *(int *)result = number + 1;
    return 0;
}

static void *work(void *seat)
{
    struct bri_claim claim = claim_of_seat((uint32_t)(uintptr_t)seat);

    while (bri_wait(&pool->shared->work, bri_claim_any, &claim, BROOD_FOREVER, 0) == BRI_CLAIMED) {
        bri_worker_run_chunk(pool, &claim);
        bri_claim_done(&claim);
    }
    bri_store_release(&claim.seat->visiting, UINT64_C(0));
    return seat;
}

static void sit_down(uint32_t seat)
{
    bri_name name;

    thread_check(bri_seat_give(bri_pool_seat(pool->shared, seat), bri_self(), &name) == 0);
    thread_check(pthread_create(&workers[seat], NULL, work, (void *)(uintptr_t)seat) == 0);
}

static void get_up(uint32_t seat, uint32_t end)
{
    bri_name name = bri_load_acquire(&bri_pool_seat(pool->shared, seat)->name);

    pthread_join(workers[seat], NULL);
    bury_worker(name, end);
}

static int make_pool_of(uint32_t seats)
{
    make_pool_without_processes(seats);
    for (uint32_t i = 0; i < seats; i++)
        sit_down(i);
    return 0;
}

static int make_pool(void **state)
{
    (void)state;
    return make_pool_of(1);
}

static int make_pool_of_two(void **state)
{
    (void)state;
    return make_pool_of(SEATS);
}

static int drop_pool(void **state)
{
    (void)state;
    atomic_store(&watched, NOTHING);
    bri_pool_advance(pool->shared, BRI_POOL_TERMINATING);
    for (uint32_t i = 0; i < pool->options.workers; i++)
        get_up(i, BRI_END_CLEAN);
    bri_pool_drop(pool);
    return bri_heap_is_valid() ? 0 : -1;
}

static int call_with(const struct bri_job_wish *wish, int number, int *ret_value)
{
    struct bri_job_wish own = *wish;

    own.items = &number;
    return bri_pool_call(pool, &own, ret_value);
}

static const struct bri_job_wish plain = {
    .function = add_one, .count = 1, .item_bytes = sizeof(int), .result_bytes = sizeof(int)};

static struct bri_job_shm *standing(void)
{
    return pool->standing.job;
}

/* --- what it takes --- */

static void calls_have_their_values(void **state)
{
    (void)state;
    int value = 0;
    assert_int_equal(call_with(&plain, 1, &value), 0);
    struct bri_job_shm *first = standing();
    uint64_t used = used_blocks();
    for (int i = 1; i < ROUNDS; i++) {
        assert_int_equal(call_with(&plain, i, &value), 0);
        assert_int_equal(value, i + 1);
    }
    assert_ptr_equal(standing(), first);
    assert_int_equal(used_blocks(), used);
}

static void others_take_jobs_of_their_own(void **state)
{
    (void)state;
    struct bri_job_wish wish = plain;
    char large[BRI_SMALL_ITEMS + 1] = {1};
    void *memory;
    int value;

    wish.items = large;
    wish.item_bytes = sizeof large;
    assert_int_equal(bri_pool_call(pool, &wish, &value), 1);
    wish = plain;
    wish.result_bytes = BRI_SMALL_RESULTS + 1;
    assert_int_equal(call_with(&wish, 1, &value), 1);
    assert_int_equal(brood_alloc(sizeof(int), &memory), 0);
    wish = plain;
    wish.items = memory; /* the function gets this very address */
    assert_int_equal(bri_pool_call(pool, &wish, &value), 1);
    wish = plain;
    wish.results = memory;
    assert_int_equal(call_with(&wish, 1, &value), 1);
    assert_int_equal(brood_free(memory), 0);
    assert_int_equal(bri_pool_hold_standing(pool), 1); /* another thread's call */
    assert_int_equal(call_with(&plain, 1, &value), 1);
    bri_pool_drop_standing(pool);
    assert_int_equal(call_with(&plain, 1, &value), 0);
}

static void failures_are_of_one_call(void **state)
{
    (void)state;
    int value = 0;
    assert_int_equal(call_with(&plain, 1, &value), 0);
    struct bri_job_shm *first = standing();
    uint64_t used = used_blocks();
    assert_int_equal(call_with(&plain, 0, &value), -EREMOTEIO);
    assert_non_null(strstr(brood_error_text(), "nothing to add to"));
    assert_int_equal(call_with(&plain, 5, &value), 0);
    assert_int_equal(value, 6);
    assert_ptr_equal(standing(), first);
    assert_int_equal(used_blocks(), used);
}

/* --- a worker that dies in a call --- */

static void *replace_worker(void *argument)
{
    get_up(0, BRI_END_KILLED);
    sit_down(0);
    return argument;
}

static void after_a_death_there_is_another_one(void **state)
{
    (void)state;
    pthread_t keeper;
    int value = 0;
    assert_int_equal(call_with(&plain, 1, &value), 0);
    uint64_t used = used_blocks();
    assert_int_equal(pthread_create(&keeper, NULL, replace_worker, NULL), 0);
    assert_int_equal(call_with(&plain, -1, &value), -EOWNERDEAD);
    assert_int_equal(bri_load_acquire(&pool->shared->standing), 0);
    assert_int_equal(pthread_join(keeper, NULL), 0);
    assert_int_equal(call_with(&plain, 8, &value), 0);
    assert_int_equal(value, 9);
    bri_pool_sweep(pool);
    assert_int_equal(used_blocks(), used);
}

/* --- races --- */

static void look_while_arming(void)
{
    bri_job_complete_if_counted(standing());
    thread_check(!bri_job_is_complete(standing()));
}

/* Between C3 and C4 the word does not say DONE any more. */
static void the_last_end_is_not_this_ones(void **state)
{
    (void)state;
    int value = 0;
    atomic_store(&watched, ARMING);
    for (int i = 1; i < ROUNDS; i++) {
        assert_int_equal(call_with(&plain, i, &value), 0);
        assert_int_equal(value, i + 1);
    }
}

/* A worker has found the call counted; another says so, and the one after it has ended as well, before it comes to say it itself. */
static void say_it_late(void)
{
    struct bri_job_shm *job = standing();
    uint64_t round = bri_load_acquire(&job->round), before = round - 1;

    thread_check(bri_cas_seq_cst(&job->ended, &before, round));
    bri_job_tell(job);
    while (bri_load_acquire(&job->round) < round + 2)
        sched_yield();
}

static int all_are_listening(void)
{
    for (uint32_t i = 0; i < SEATS; i++)
        if (!(bri_load_acquire(&bri_pool_seat(pool->shared, i)->visiting) & BRI_VISIT_LISTEN))
            return 0;
    return 1;
}

static void who_comes_late_says_nothing(void **state)
{
    (void)state;
    int value = 0;
    for (int i = 1; i < ROUNDS; i++) {
        atomic_store(&watched, LATE);
        for (int j = 0; j < 3; j++) {
            assert_int_equal(call_with(&plain, i + j, &value), 0);
            assert_int_equal(value, i + j + 1);
        }
        while (!all_are_listening())
            sched_yield();
        assert_true(bri_job_is_complete(standing()));
    }
}

/* --- a job of another thread's, offered at the same time --- */

static void offer(struct bri_job_view *ret_view, uint64_t *ret_index)
{
    struct bri_job_wish wish = {
        .function = add_one, .count = 1, .workers = SEATS, .notify = bri_offset_of(&pool->shared->finished)};

    assert_int_equal(bri_job_make(&wish, ret_view), 0);
    assert_int_equal(bri_pool_offer(pool, ret_view, ret_index), 0);
}

/* Whoever takes the first may have been woken for the second. */
static void a_wake_is_passed_on(void **state)
{
    struct bri_job_view first, second;
    uint64_t index, unused;
    bri_name name;

    (void)state;
    make_pool_without_processes(1);
    assert_int_equal(bri_seat_give(bri_pool_seat(pool->shared, 0), bri_self(), &name), 0);
    offer(&first, &index);
    struct bri_claim claim = claim_of_seat(0);
    assert_int_equal(bri_claim_any(&claim), BRI_CLAIMED);
    uint32_t key = bri_event_prepare(&pool->shared->work);
    assert_int_equal(bri_pool_is_taken_soon(pool, &first, index + 1), 1);
    assert_int_equal(bri_load_acquire(&pool->shared->work), key);
    offer(&second, &unused);
    assert_int_equal(bri_pool_is_taken_soon(pool, &first, index + 1), 1);
    assert_int_not_equal(bri_load_acquire(&pool->shared->work), key);
    bri_pool_advance(pool->shared, BRI_POOL_TERMINATING);
    bury_worker(name, BRI_END_CLEAN);
    bri_job_free(&first);
    bri_job_free(&second);
    bri_pool_drop(pool);
}

static void pass_fault_point(const char *point)
{
    if (is_owner && strcmp(point, "call.armed") == 0 && atomic_load(&watched) == ARMING)
        look_while_arming();
    int late = LATE;
    if (!is_owner && strcmp(point, "job.counted") == 0 &&
        atomic_compare_exchange_strong(&watched, &late, NOTHING))
        say_it_late();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls_have_their_values, make_pool, drop_pool),
        cmocka_unit_test_setup_teardown(others_take_jobs_of_their_own, make_pool, drop_pool),
        cmocka_unit_test_setup_teardown(failures_are_of_one_call, make_pool, drop_pool),
        cmocka_unit_test_setup_teardown(after_a_death_there_is_another_one, make_pool, drop_pool),
        cmocka_unit_test_setup_teardown(the_last_end_is_not_this_ones, make_pool, drop_pool),
        cmocka_unit_test_setup_teardown(who_comes_late_says_nothing, make_pool_of_two, drop_pool),
        cmocka_unit_test(a_wake_is_passed_on),
    };
    void *memory;

    if (brood_alloc(1, &memory) < 0) /* the arena */
        return 1;
    is_owner = 1;
    bri_fault_hook = pass_fault_point;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(needs_fault_points)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
