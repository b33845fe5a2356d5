/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "locks/locks.h"
#include "locks/testing.h"

enum { CHILDREN = 4, ROUNDS = 2000, WITHIN_MS = 5000 };

struct state {
    brood_condition *condition;
    brood_rlock *lock;
    int value; /* under the lock */
    int order[CHILDREN], woken;
};

static struct state *make(brood_rlock *lock)
{
    struct state *state = shared(sizeof *state);

    assert_int_equal(brood_condition_create(lock, &state->condition), 0);
    state->lock = brood_condition_lock(state->condition);
    assert_non_null(state->lock);
    return state;
}

static void drop(struct state *state)
{
    assert_true(bri_condition_ops.is_valid(state->condition));
    assert_int_equal(brood_condition_destroy(state->condition), 0);
    assert_int_equal(brood_free(state), 0);
}

static void take(struct state *state)
{
    assert_int_equal(brood_condition_acquire(state->condition, BROOD_FOREVER), 0);
}

static void give(struct state *state)
{
    assert_int_equal(brood_condition_release(state->condition), 0);
}

/* Until so many have come to wait in it, ever; the caller holds the lock then. */
static void take_when_waiting(struct state *state, uint64_t tickets)
{
    for (;;) {
        take(state);
        if (bri_load_relaxed(&state->condition->next) == tickets)
            return;
        give(state);
        sched_yield();
    }
}

static void wait_once(void *argument)
{
    struct state *state = argument;

    child_check(brood_condition_acquire(state->condition, BROOD_FOREVER) == 0);
    int got = brood_condition_wait(state->condition, BROOD_FOREVER);
    child_check(got == 0);
    state->order[state->woken++] = (int)getpid();
    child_check(brood_condition_release(state->condition) == 0);
}

static void notify_wakes_the_oldest(void **unused)
{
    struct state *state = make(NULL);
    pid_t pids[CHILDREN];

    (void)unused;
    for (unsigned i = 0; i < CHILDREN; i++) {
        pids[i] = start_child(wait_once, state);
        take_when_waiting(state, i + 1);
        give(state);
    }
    take(state);
    assert_int_equal(brood_condition_notify(state->condition, 0), 0);
    assert_int_equal(brood_condition_notify(state->condition, 1), 1);
    give(state);
    assert_exits_well(pids[0]);
    take(state);
    assert_int_equal(brood_condition_notify(state->condition, 2), 2);
    give(state);
    assert_exits_well(pids[1]);
    assert_exits_well(pids[2]);
    take(state);
    assert_int_equal(brood_condition_notify(state->condition, UINT32_MAX), 1);
    assert_int_equal(brood_condition_notify(state->condition, UINT32_MAX), 0);
    give(state);
    assert_exits_well(pids[3]);
    assert_int_equal(state->order[0], pids[0]);
    assert_int_equal(state->order[3], pids[3]);
    drop(state);
}

static void time_outs_keep_the_lock(void **unused)
{
    struct state *state = make(NULL);

    (void)unused;
    take(state);
    assert_refused(brood_condition_wait(state->condition, BROOD_NOW), ETIMEDOUT, "condition");
    assert_refused(brood_condition_wait(state->condition, brood_after_ms(5)), ETIMEDOUT, "condition");
    assert_int_equal(brood_condition_notify(state->condition, UINT32_MAX), 0);
    give(state);
    drop(state);
}

static void the_lock_must_be_held_once(void **unused)
{
    struct state *state = make(NULL);

    (void)unused;
    assert_refused(brood_condition_wait(state->condition, BROOD_NOW), EPERM, "condition");
    assert_refused(brood_condition_notify(state->condition, 1), EPERM, "condition");
    take(state);
    take(state);
    assert_refused(brood_condition_wait(state->condition, BROOD_NOW), EPERM, "condition");
    assert_int_equal(brood_condition_notify(state->condition, 1), 0);
    assert_refused(brood_condition_destroy(state->condition), EBUSY, "lock");
    give(state);
    give(state);
    drop(state);
}

static void play_ping_pong(struct state *state, int parity)
{
    child_check(brood_condition_acquire(state->condition, BROOD_FOREVER) == 0);
    while (state->value < 2 * ROUNDS) {
        if (state->value % 2 == parity) {
            state->value++;
            child_check(brood_condition_notify(state->condition, 1) <= 1);
        } else {
            child_check(brood_condition_wait(state->condition, BROOD_FOREVER) == 0);
        }
    }
    child_check(brood_condition_notify(state->condition, UINT32_MAX) >= 0);
    child_check(brood_condition_release(state->condition) == 0);
}

static void play_even(void *argument)
{
    play_ping_pong(argument, 0);
}

static void play_odd(void *argument)
{
    play_ping_pong(argument, 1);
}

static void no_notify_is_lost(void **unused)
{
    brood_rlock *lock;

    (void)unused;
    assert_int_equal(brood_rlock_create(&lock), 0);
    struct state *state = make(lock);
    assert_ptr_equal(state->lock, lock);
    pid_t even = start_child(play_even, state), odd = start_child(play_odd, state);
    assert_exits_well(even);
    assert_exits_well(odd);
    assert_int_equal(state->value, 2 * ROUNDS);
    drop(state);
    assert_int_equal(brood_rlock_destroy(lock), 0);
}

static void a_notify_of_the_dead_passes_on(void **unused)
{
    struct state *state = make(NULL);
    pid_t pids[3];

    (void)unused;
    for (unsigned i = 0; i < 3; i++) {
        pids[i] = start_child(wait_once, state);
        take_when_waiting(state, i + 1);
        give(state);
    }
    take(state);
    assert_int_equal(brood_condition_notify(state->condition, 2), 2);
    kill(pids[0], SIGKILL); /* it cannot return before we release the lock */
    assert_is_killed(pids[0]);
    give(state);
    assert_exits_well(pids[1]);
    assert_exits_well(pids[2]); /* nobody watches pids[0]: the slice of pids[2] finds out */
    drop(state);
}

static void the_dead_wait_no_more(void **unused)
{
    struct state *state = make(NULL);

    (void)unused;
    pid_t first = start_child(wait_once, state);
    take_when_waiting(state, 1);
    give(state);
    assert_refused(brood_condition_destroy(state->condition), EBUSY, "condition");
    kill(first, SIGKILL);
    assert_is_killed(first);
    drop(state);
}

static void die_holding(void *argument)
{
    struct state *state = argument;

    child_check(brood_condition_acquire(state->condition, BROOD_FOREVER) >= 0);
    if (state->value == 1)
        child_check(brood_condition_notify(state->condition, 1) == 1);
    die();
}

static void expect_death_of_notifier(void *argument)
{
    struct state *state = argument;

    child_check(brood_condition_acquire(state->condition, BROOD_FOREVER) == 0);
    child_check(brood_condition_wait(state->condition, BROOD_FOREVER) == BROOD_OWNER_DIED);
    child_check(brood_condition_release(state->condition) == 0);
}

static void who_is_notified_learns_of_the_death(void **unused)
{
    struct state *state = make(NULL);

    (void)unused;
    state->value = 1;
    pid_t waiter = start_child(expect_death_of_notifier, state);
    take_when_waiting(state, 1);
    give(state);
    assert_is_killed(start_child(die_holding, state));
    assert_exits_well(waiter);
    drop(state);
}

/* Its wait times out while a process has died holding the lock. */
static void time_out_over_a_death(void *argument)
{
    struct state *state = argument;

    child_check(brood_condition_acquire(state->condition, BROOD_FOREVER) == 0);
    int got;
    do {
        got = brood_condition_wait(state->condition, BROOD_NOW);
    } while (got == -ETIMEDOUT && bri_load_relaxed(&state->lock->untold) == 0);
    child_check(got == -ETIMEDOUT);
    child_check(brood_condition_release(state->condition) == 0);
}

static void a_message_outlives_a_time_out(void **unused)
{
    struct state *state = make(NULL);

    (void)unused;
    pid_t waiter = start_child(time_out_over_a_death, state);
    while (bri_load_acquire(&state->condition->next) == 0)
        sched_yield();
    assert_is_killed(start_child(die_holding, state));
    assert_exits_well(waiter);
    assert_int_equal(brood_condition_acquire(state->condition, BROOD_NOW), BROOD_OWNER_DIED);
    give(state);
    take(state);
    give(state);
    drop(state);
}

static void the_table_is_bounded(void **unused)
{
    struct state *state = make(NULL);
    brood_condition *condition = state->condition;

    (void)unused;
    for (uint32_t i = 0; i < BRI_WAITERS; i++) {
        condition->waiters[i].name = bri_self();
        condition->waiters[i].ticket = i + 1;
    }
    condition->next = BRI_WAITERS;
    condition->width = BRI_WAITERS;
    take(state);
    assert_refused(brood_condition_wait(condition, BROOD_NOW), EAGAIN, "condition");
    assert_int_equal(brood_condition_notify(condition, 5), 5);
    assert_int_equal(brood_condition_notify(condition, UINT32_MAX), BRI_WAITERS - 5);
    condition->width = 0;
    assert_refused(brood_condition_wait(condition, BROOD_NOW), ETIMEDOUT, "condition");
    give(state);
    drop(state);
}

static void bad_input_is_refused(void **unused)
{
    brood_condition *condition;
    brood_rlock *lock;
    long local[16] = {0};

    (void)unused;
    uint64_t before = blocks_in_use();
    assert_int_equal(brood_rlock_create(&lock), 0);
    assert_refused(brood_condition_create(lock, NULL), EINVAL, "ret_condition");
    assert_refused(brood_condition_create((brood_rlock *)(void *)local, &condition), EINVAL, "lock");
    assert_refused(brood_condition_acquire(NULL, BROOD_NOW), EINVAL, "condition");
    assert_refused(brood_condition_release((brood_condition *)lock), EINVAL, "condition");
    assert_refused(brood_condition_wait(NULL, BROOD_NOW), EINVAL, "condition");
    assert_refused(brood_condition_notify(NULL, 1), EINVAL, "condition");
    assert_null(brood_condition_lock(NULL));
    assert_int_equal(brood_condition_create(lock, &condition), 0);
    assert_int_equal(brood_condition_acquire(condition, BROOD_NOW), 0);
    assert_refused(brood_condition_wait(condition, -1), EINVAL, "deadline");
    assert_refused(brood_condition_acquire(condition, -1), EINVAL, "deadline");
    assert_int_equal(brood_condition_release(condition), 0);
    assert_int_equal(brood_rlock_destroy(lock), 0);
    assert_refused(brood_condition_acquire(condition, BROOD_NOW), EINVAL, "condition");
    assert_null(brood_condition_lock(condition));
    assert_int_equal(brood_condition_destroy(condition), 0);
    assert_refused(brood_condition_destroy(condition), EINVAL, "condition");
    assert_int_equal(brood_condition_create(NULL, &condition), 0);
    assert_refused(brood_rlock_destroy(brood_condition_lock(condition)), EINVAL, "lock");
    assert_int_equal(brood_condition_destroy(condition), 0);
    assert_int_equal(brood_condition_destroy(NULL), 0);
    assert_int_equal(blocks_in_use(), before);
}

static void notify_nobody(void *argument)
{
    struct state *state = argument;

    for (int i = 0; i < 100; i++) {
        child_check(brood_condition_acquire(state->condition, BROOD_FOREVER) == 0);
        child_check(brood_condition_notify(state->condition, UINT32_MAX) == 0);
        child_check(brood_condition_release(state->condition) == 0);
    }
}

static void notifying_nobody_makes_no_system_call(void **unused)
{
    struct state *state = make(NULL);

    (void)unused;
    assert_makes_no_system_call(notify_nobody, state);
    drop(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notify_wakes_the_oldest),
        cmocka_unit_test(time_outs_keep_the_lock),
        cmocka_unit_test(the_lock_must_be_held_once),
        cmocka_unit_test(no_notify_is_lost),
        cmocka_unit_test(a_notify_of_the_dead_passes_on),
        cmocka_unit_test(the_dead_wait_no_more),
        cmocka_unit_test(who_is_notified_learns_of_the_death),
        cmocka_unit_test(a_message_outlives_a_time_out),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(notifying_nobody_makes_no_system_call),
    };

    return cmocka_run_group_tests_name("locks/condition", tests, NULL, NULL);
}
