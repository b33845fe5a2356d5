/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "locks/locks.h"
#include "locks/testing.h"

enum { CHILDREN = 4, ROUNDS = 10000, WITHIN_MS = 5000 };

struct state {
    brood_semaphore *semaphore;
    _Atomic int inside;
    _Atomic int worst;
    _Atomic int ready;
};

static struct state *make(uint32_t value)
{
    struct state *state = shared(sizeof *state);

    assert_int_equal(brood_semaphore_create(value, &state->semaphore), 0);
    return state;
}

static void drop(struct state *state)
{
    assert_true(bri_semaphore_ops.is_valid(state->semaphore));
    assert_int_equal(brood_semaphore_destroy(state->semaphore), 0);
    assert_int_equal(brood_free(state), 0);
}

static void await(_Atomic int *ready, int value)
{
    while (atomic_load(ready) != value)
        sched_yield();
}

static void tokens_are_counted(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    assert_int_equal(brood_semaphore_acquire(state->semaphore, BROOD_NOW), 0);
    assert_int_equal(brood_semaphore_value(state->semaphore), 1);
    assert_int_equal(brood_semaphore_acquire(state->semaphore, BROOD_FOREVER), 0);
    assert_refused(brood_semaphore_acquire(state->semaphore, BROOD_NOW), ETIMEDOUT, "semaphore");
    assert_refused(brood_semaphore_acquire(state->semaphore, brood_after_ms(5)), ETIMEDOUT, "semaphore");
    assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    assert_int_equal(brood_semaphore_value(state->semaphore), 3);
    drop(state);
}

static void bounds_hold(void **unused)
{
    brood_semaphore *semaphore;

    (void)unused;
    assert_int_equal(brood_semaphore_create_bounded(1, &semaphore), 0);
    assert_refused(brood_semaphore_release(semaphore), EOVERFLOW, "semaphore");
    assert_int_equal(brood_semaphore_acquire(semaphore, BROOD_NOW), 0);
    assert_int_equal(brood_semaphore_release(semaphore), 0);
    assert_refused(brood_semaphore_release(semaphore), EOVERFLOW, "semaphore");
    assert_int_equal(brood_semaphore_destroy(semaphore), 0);
    assert_int_equal(brood_semaphore_create(INT32_MAX, &semaphore), 0);
    assert_refused(brood_semaphore_release(semaphore), EOVERFLOW, "semaphore");
    assert_int_equal(brood_semaphore_value(semaphore), INT32_MAX);
    assert_int_equal(brood_semaphore_destroy(semaphore), 0);
}

static void release_one(void *argument)
{
    struct state *state = argument;

    child_check(brood_semaphore_release(state->semaphore) == 0);
}

static void one_releases_for_another(void **unused)
{
    struct state *state = make(1);

    (void)unused;
    assert_int_equal(brood_semaphore_acquire(state->semaphore, BROOD_NOW), 0);
    assert_exits_well(start_child(release_one, state));
    assert_int_equal(brood_semaphore_value(state->semaphore), 1);
    assert_exits_well(start_child(release_one, state));
    assert_int_equal(brood_semaphore_value(state->semaphore), 2);
    drop(state);
}

static void come_and_go(void *argument)
{
    struct state *state = argument;

    for (int i = 0; i < ROUNDS; i++) {
        child_check(brood_semaphore_acquire(state->semaphore, BROOD_FOREVER) == 0);
        int now = atomic_fetch_add(&state->inside, 1) + 1;
        if (now > atomic_load(&state->worst))
            atomic_store(&state->worst, now);
        atomic_fetch_sub(&state->inside, 1);
        child_check(brood_semaphore_release(state->semaphore) == 0);
    }
}

static void no_more_inside_than_tokens(void **unused)
{
    struct state *state = make(2);
    pid_t pids[CHILDREN];

    (void)unused;
    for (int i = 0; i < CHILDREN; i++)
        pids[i] = start_child(come_and_go, state);
    for (int i = 0; i < CHILDREN; i++)
        assert_exits_well(pids[i]);
    assert_in_range(atomic_load(&state->worst), 1, 2);
    assert_int_equal(brood_semaphore_value(state->semaphore), 2);
    drop(state);
}

static void consume(void *argument)
{
    struct state *state = argument;

    for (int i = 0; i < ROUNDS; i++)
        child_check(brood_semaphore_acquire(state->semaphore, BROOD_FOREVER) == 0);
}

static void signals_arrive(void **unused)
{
    struct state *state = make(0);

    (void)unused;
    pid_t consumer = start_child(consume, state);
    for (int i = 0; i < ROUNDS; i++)
        assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    assert_exits_well(consumer);
    drop(state);
}

static void die_with_two(void *argument)
{
    struct state *state = argument;

    child_check(brood_semaphore_acquire(state->semaphore, BROOD_NOW) >= 0);
    child_check(brood_semaphore_acquire(state->semaphore, BROOD_NOW) >= 0);
    die();
}

static void tokens_of_the_dead_come_back(void **unused)
{
    struct state *state = make(3);

    (void)unused;
    assert_is_killed(start_child(die_with_two, state));
    assert_int_equal(brood_semaphore_acquire(state->semaphore, BROOD_NOW), 0);
    assert_int_equal(brood_semaphore_acquire(state->semaphore, brood_after_ms(WITHIN_MS)), BROOD_OWNER_DIED);
    assert_int_equal(brood_semaphore_acquire(state->semaphore, brood_after_ms(WITHIN_MS)), 0);
    assert_refused(brood_semaphore_acquire(state->semaphore, BROOD_NOW), ETIMEDOUT, "semaphore");
    for (int i = 0; i < 3; i++)
        assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    assert_int_equal(brood_semaphore_value(state->semaphore), 3);
    drop(state);
}

static void slots_are_used_again(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    for (int i = 0; i < 20; i++) {
        assert_is_killed(start_child(die_with_two, state));
        assert_int_equal(brood_semaphore_acquire(state->semaphore, brood_after_ms(WITHIN_MS)),
                         BROOD_OWNER_DIED);
        assert_int_equal(brood_semaphore_release(state->semaphore), 0);
        assert_int_equal(brood_semaphore_value(state->semaphore), 2);
    }
    drop(state);
}

static void wait_for_ever(void *argument)
{
    struct state *state = argument;

    atomic_store(&state->ready, (int)getpid());
    child_check(brood_semaphore_acquire(state->semaphore, BROOD_FOREVER) == 0);
}

static int waiters_of(const brood_semaphore *semaphore)
{
    uint32_t width = bri_load_acquire(&semaphore->width);
    int sum = 0;

    for (uint32_t slot = 0; slot < width; slot++)
        sum += bri_load_acquire(&semaphore->waiting[slot]);
    return sum;
}

static void who_waits_makes_it_busy_until_dead(void **unused)
{
    uint64_t before = blocks_in_use();
    struct state *state = make(0);

    (void)unused;
    pid_t waiter = start_child(wait_for_ever, state);
    while (waiters_of(state->semaphore) == 0)
        sched_yield();
    assert_refused(brood_semaphore_destroy(state->semaphore), EBUSY, "semaphore");
    kill(waiter, SIGKILL);
    assert_is_killed(waiter);
    drop(state);
    assert_int_equal(blocks_in_use(), before);
}

static void take_all(void *argument)
{
    struct state *state = argument;

    while (brood_semaphore_acquire(state->semaphore, BROOD_NOW) >= 0) {
    }
    atomic_store(&state->ready, (int)bri_self());
}

static void end_cleanly(struct state *state)
{
    atomic_store(&state->ready, 0);
    assert_exits_well(start_child(take_all, state));
    assert_true(bri_roster_bury((bri_name)atomic_load(&state->ready), BRI_END_CLEAN));
    bri_undertake();
}

static void what_was_added_stays_spent(void **unused)
{
    struct state *state = make(0);

    (void)unused;
    for (int i = 0; i < 3; i++)
        assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    end_cleanly(state);
    assert_int_equal(brood_semaphore_value(state->semaphore), 0);
    assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    assert_int_equal(brood_semaphore_acquire(state->semaphore, BROOD_NOW), 0);
    drop(state);
}

static void a_resource_comes_back_from_a_clean_end(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    end_cleanly(state);
    assert_int_equal(brood_semaphore_value(state->semaphore), 2);
    assert_int_equal(brood_semaphore_acquire(state->semaphore, BROOD_NOW), BROOD_OWNER_DIED);
    drop(state);
}

static void bad_input_is_refused(void **unused)
{
    brood_semaphore *semaphore;
    long local[16] = {0};

    (void)unused;
    uint64_t before = blocks_in_use();
    assert_refused(brood_semaphore_create(1, NULL), EINVAL, "ret_semaphore");
    assert_refused(brood_semaphore_create(UINT32_C(1) << 31, &semaphore), EINVAL, "value");
    assert_refused(brood_semaphore_create_bounded(UINT32_MAX, &semaphore), EINVAL, "value");
    assert_refused(brood_semaphore_acquire(NULL, BROOD_NOW), EINVAL, "semaphore");
    assert_refused(brood_semaphore_acquire((brood_semaphore *)(void *)local, BROOD_NOW), EINVAL, "semaphore");
    assert_refused(brood_semaphore_release(NULL), EINVAL, "semaphore");
    assert_refused(brood_semaphore_value(NULL), EINVAL, "semaphore");
    assert_int_equal(brood_semaphore_create(1, &semaphore), 0);
    assert_refused(brood_semaphore_acquire(semaphore, -5), EINVAL, "deadline");
    assert_int_equal(brood_semaphore_destroy(semaphore), 0);
    assert_refused(brood_semaphore_destroy(semaphore), EINVAL, "semaphore");
    assert_int_equal(brood_semaphore_destroy(NULL), 0);
    assert_int_equal(blocks_in_use(), before);
}

static void use(void *argument)
{
    struct state *state = argument;

    for (int i = 0; i < 100; i++) {
        child_check(brood_semaphore_acquire(state->semaphore, BROOD_FOREVER) == 0);
        child_check(brood_semaphore_release(state->semaphore) == 0);
    }
}

static void uncontended_makes_no_system_call(void **unused)
{
    struct state *state = make(1);

    (void)unused;
    assert_makes_no_system_call(use, state);
    drop(state);
}

static void a_waiter_is_woken(void **unused)
{
    struct state *state = make(0);

    (void)unused;
    pid_t waiter = start_child(wait_for_ever, state);
    await(&state->ready, (int)waiter);
    assert_int_equal(brood_semaphore_release(state->semaphore), 0);
    assert_exits_well(waiter);
    drop(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_counted),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(one_releases_for_another),
        cmocka_unit_test(no_more_inside_than_tokens),
        cmocka_unit_test(signals_arrive),
        cmocka_unit_test(a_waiter_is_woken),
        cmocka_unit_test(tokens_of_the_dead_come_back),
        cmocka_unit_test(slots_are_used_again),
        cmocka_unit_test(who_waits_makes_it_busy_until_dead),
        cmocka_unit_test(what_was_added_stays_spent),
        cmocka_unit_test(a_resource_comes_back_from_a_clean_end),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(uncontended_makes_no_system_call),
    };

    return cmocka_run_group_tests_name("locks/semaphore", tests, NULL, NULL);
}
