/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "locks/locks.h"
#include "locks/testing.h"

enum { PARTIES = 4, ROUNDS = 3000, GENERATIONS = 140000, WITHIN_MS = 5000 };

struct state {
    brood_barrier *barrier;
    _Atomic int seen[PARTIES]; /* how often each order of arrival came */
    _Atomic int rounds;
    _Atomic int ready;
    _Atomic int watcher; /* a name */
};

static struct state *make(uint32_t parties)
{
    struct state *state = shared(sizeof *state);

    assert_int_equal(brood_barrier_create(parties, &state->barrier), 0);
    return state;
}

static void drop(struct state *state)
{
    assert_true(bri_barrier_ops.is_valid(state->barrier));
    assert_int_equal(brood_barrier_destroy(state->barrier), 0);
    assert_int_equal(brood_free(state), 0);
}

static void await_waiting(struct state *state, int waiting)
{
    while (brood_barrier_waiting(state->barrier) != waiting)
        sched_yield();
}

static void meet(void *argument)
{
    struct state *state = argument;

    for (int round = 0; round < ROUNDS; round++) {
        int index = brood_barrier_wait(state->barrier, BROOD_FOREVER);
        child_check(index >= 0 && index < PARTIES);
        atomic_fetch_add(&state->seen[index], 1);
        int rounds = atomic_fetch_add(&state->rounds, 1);
        child_check(rounds >= round * PARTIES && rounds < (round + 2) * PARTIES);
    }
}

static void all_meet_again_and_again(void **unused)
{
    struct state *state = make(PARTIES);
    pid_t pids[PARTIES];

    (void)unused;
    for (int i = 0; i < PARTIES; i++)
        pids[i] = start_child(meet, state);
    for (int i = 0; i < PARTIES; i++)
        assert_exits_well(pids[i]);
    for (int i = 0; i < PARTIES; i++)
        assert_int_equal(atomic_load(&state->seen[i]), ROUNDS);
    assert_int_equal(brood_barrier_parties(state->barrier), PARTIES);
    assert_int_equal(brood_barrier_waiting(state->barrier), 0);
    drop(state);
}

static void expect_broken(void *argument)
{
    struct state *state = argument;

    child_check(brood_barrier_wait(state->barrier, BROOD_FOREVER) == -EPIPE);
}

static void expect_trip(void *argument)
{
    struct state *state = argument;

    child_check(brood_barrier_wait(state->barrier, BROOD_FOREVER) >= 0);
}

static void a_time_out_breaks_it(void **unused)
{
    struct state *state = make(3);

    (void)unused;
    pid_t other = start_child(expect_broken, state);
    await_waiting(state, 1);
    assert_refused(brood_barrier_wait(state->barrier, brood_after_ms(5)), ETIMEDOUT, "barrier");
    assert_exits_well(other);
    assert_int_equal(brood_barrier_is_broken(state->barrier), 1);
    assert_int_equal(brood_barrier_waiting(state->barrier), 0);
    assert_refused(brood_barrier_wait(state->barrier, BROOD_FOREVER), EPIPE, "barrier");
    assert_int_equal(brood_barrier_reset(state->barrier), 0);
    assert_int_equal(brood_barrier_is_broken(state->barrier), 0);
    drop(state);
}

static void abort_and_reset_end_waits(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    pid_t other = start_child(expect_broken, state);
    await_waiting(state, 1);
    assert_int_equal(brood_barrier_abort(state->barrier), 0);
    assert_exits_well(other);
    drop(state);
    for (int resets = 1; resets <= 20; resets *= 4) {
        state = make(2);
        other = start_child(expect_broken, state);
        await_waiting(state, 1);
        for (int i = 0; i < resets; i++)
            assert_int_equal(brood_barrier_reset(state->barrier), 0);
        assert_exits_well(other);
        drop(state);
    }
}

static void who_tripped_has_tripped(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    pid_t other = start_child(expect_trip, state);
    await_waiting(state, 1);
    kill(other, SIGSTOP);
    assert_int_equal(brood_barrier_wait(state->barrier, BROOD_FOREVER), 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(brood_barrier_reset(state->barrier), 0);
    assert_int_equal(brood_barrier_abort(state->barrier), 0);
    kill(other, SIGCONT);
    assert_exits_well(other);
    drop(state);
}

static void a_waiter_that_dies_breaks_it(void **unused)
{
    struct state *state = make(3);

    (void)unused;
    pid_t first = start_child(expect_broken, state), second;
    await_waiting(state, 1);
    second = start_child(expect_broken, state);
    await_waiting(state, 2);
    kill(first, SIGKILL);
    assert_is_killed(first);
    assert_exits_well(second);
    assert_int_equal(brood_barrier_is_broken(state->barrier), 1);
    drop(state);
}

static void the_last_to_come_does_not_meet_the_dead(void **unused)
{
    struct state *state = make(2);
    pid_t first = start_child(expect_broken, state);

    (void)unused;
    await_waiting(state, 1);
    kill(first, SIGKILL);
    assert_is_killed(first);
    assert_int_equal(brood_barrier_wait(state->barrier, BROOD_NOW), -EPIPE);
    assert_int_equal(brood_barrier_waiting(state->barrier), 0);
    drop(state);
}

static void a_look_finds_the_dead(void **unused)
{
    struct state *state = make(3);
    pid_t first = start_child(expect_broken, state);

    (void)unused;
    await_waiting(state, 1);
    assert_false(brood_barrier_is_broken(state->barrier));
    kill(first, SIGKILL);
    assert_is_killed(first);
    assert_true(brood_barrier_is_broken(state->barrier));
    drop(state);
}

static void trip_and_die(void *argument)
{
    expect_trip(argument);
    die();
}

static void a_member_that_dies_breaks_it(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    pid_t member = start_child(trip_and_die, state);
    assert_in_range(brood_barrier_wait(state->barrier, BROOD_FOREVER), 0, 1);
    assert_is_killed(member);
    assert_refused(brood_barrier_wait(state->barrier, BROOD_FOREVER), EPIPE, "barrier");
    assert_int_equal(brood_barrier_reset(state->barrier), 0); /* broken once for each death */
    pid_t other = start_child(expect_trip, state);
    assert_in_range(brood_barrier_wait(state->barrier, BROOD_FOREVER), 0, 1);
    assert_exits_well(other);
    drop(state);
}

static void stand_by(void *argument)
{
    struct state *state = argument;

    brood_barrier_parties(state->barrier); /* joins the arena */
    atomic_store(&state->watcher, (int)bri_self());
    for (;;)
        pause();
}

static void trip_and_die_watched(void *argument)
{
    struct state *state = argument;

    expect_trip(state);
    atomic_store(&state->ready, (int)bri_self());
    if (atomic_load(&state->watcher) != 0) { /* as one whose watcher alone may bury it */
        bri_store_relaxed(&bri_slot_of(bri_self())->role, (uint32_t)BRI_ROLE_PROCESS);
        bri_store_relaxed(&bri_slot_of(bri_self())->boss, (bri_name)atomic_load(&state->watcher));
    }
    die();
}

/* Nobody has asked after it before the reset; whoever does so after it finds nothing to break. */
static void assert_death_is_of_the_past(struct state *state)
{
    pid_t member = start_child(trip_and_die_watched, state);

    assert_in_range(brood_barrier_wait(state->barrier, BROOD_FOREVER), 0, 1);
    assert_is_killed(member);
    assert_int_equal(brood_barrier_reset(state->barrier), 0);
    bri_roster_bury((bri_name)atomic_load(&state->ready), BRI_END_KILLED);
    bri_undertake();
    assert_int_equal(brood_barrier_is_broken(state->barrier), 0);
    pid_t other = start_child(expect_trip, state);
    assert_in_range(brood_barrier_wait(state->barrier, brood_after_ms(WITHIN_MS)), 0, 1);
    assert_exits_well(other);
}

static void a_death_before_a_reset_is_of_the_past(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    assert_death_is_of_the_past(state);
    assert_int_equal(brood_barrier_reset(state->barrier), 0); /* `other` has ended */
    pid_t watcher = start_child(stand_by, state);
    while (atomic_load(&state->watcher) == 0)
        sched_yield();
    assert_death_is_of_the_past(state);
    kill(watcher, SIGKILL);
    assert_is_killed(watcher);
    drop(state);
}

static void trip_and_tell_name(void *argument)
{
    struct state *state = argument;

    expect_trip(state);
    atomic_store(&state->ready, (int)bri_self());
}

static void a_clean_end_breaks_nothing(void **unused)
{
    struct state *state = make(2);

    (void)unused;
    pid_t member = start_child(trip_and_tell_name, state);
    assert_in_range(brood_barrier_wait(state->barrier, BROOD_FOREVER), 0, 1);
    assert_exits_well(member);
    assert_true(bri_roster_bury((bri_name)atomic_load(&state->ready), BRI_END_CLEAN));
    bri_undertake();
    assert_int_equal(brood_barrier_is_broken(state->barrier), 0);
    pid_t other = start_child(expect_trip, state);
    assert_in_range(brood_barrier_wait(state->barrier, brood_after_ms(WITHIN_MS)), 0, 1);
    assert_exits_well(other);
    drop(state);
}

static void who_waits_makes_it_busy_until_dead(void **unused)
{
    uint64_t before = blocks_in_use();
    struct state *state = make(2);

    (void)unused;
    pid_t other = start_child(expect_trip, state);
    await_waiting(state, 1);
    assert_refused(brood_barrier_destroy(state->barrier), EBUSY, "barrier");
    kill(other, SIGKILL);
    assert_is_killed(other);
    drop(state);
    assert_int_equal(blocks_in_use(), before);
}

static void destroy_waits_for_those_who_leave(void **unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        struct state *state = make(2);
        pid_t other = start_child(expect_trip, state);
        assert_in_range(brood_barrier_wait(state->barrier, BROOD_FOREVER), 0, 1);
        drop(state);
        assert_exits_well(other);
    }
}

/* Arrivals of long ago never count, though their tags come again. */
static void tags_come_again(void **unused)
{
    struct state *state = make(2);
    brood_barrier *barrier = state->barrier;
    const uint32_t stale = BRI_SLOTS - 1, member = UINT32_C(1) << 15;

    (void)unused;
    barrier->parties = 1;
    assert_int_equal(brood_barrier_wait(barrier, BROOD_NOW), 0);
    for (uint32_t slot = barrier->width; slot <= stale; slot++) {
        barrier->words[slot] = 0;
        barrier->inside[slot] = 0;
    }
    barrier->width = stale + 1;
    for (uint32_t i = 1; i < GENERATIONS; i++) {
        if (i % 20000 == 1 || i == 0x7fff || i == 0xffff)
            barrier->words[stale] = i << 16 | member; /* it came in this generation, */
        assert_int_equal(brood_barrier_wait(barrier, BROOD_NOW), 0);
        if (i % 20000 == 1 || i == 0x7fff || i == 0xffff)
            barrier->words[stale] |= 1; /* and the generation is over */
        if (i % 1000 == 0)
            assert_true(bri_barrier_ops.is_valid(barrier));
    }
    assert_int_equal(barrier->words[stale] & 0x7fff, 0);
    drop(state);
}

static void bad_input_is_refused(void **unused)
{
    brood_barrier *barrier;

    (void)unused;
    uint64_t before = blocks_in_use();
    assert_refused(brood_barrier_create(2, NULL), EINVAL, "ret_barrier");
    assert_refused(brood_barrier_create(0, &barrier), EINVAL, "parties");
    assert_refused(brood_barrier_create(32769, &barrier), EINVAL, "parties");
    assert_refused(brood_barrier_wait(NULL, BROOD_NOW), EINVAL, "barrier");
    assert_refused(brood_barrier_abort(NULL), EINVAL, "barrier");
    assert_refused(brood_barrier_reset((brood_barrier *)(void *)&barrier), EINVAL, "barrier");
    assert_refused(brood_barrier_parties(NULL), EINVAL, "barrier");
    assert_refused(brood_barrier_waiting(NULL), EINVAL, "barrier");
    assert_refused(brood_barrier_is_broken(NULL), EINVAL, "barrier");
    assert_int_equal(brood_barrier_create(32768, &barrier), 0);
    assert_refused(brood_barrier_wait(barrier, -1), EINVAL, "deadline");
    assert_int_equal(brood_barrier_destroy(barrier), 0);
    assert_refused(brood_barrier_destroy(barrier), EINVAL, "barrier");
    assert_int_equal(brood_barrier_destroy(NULL), 0);
    assert_int_equal(blocks_in_use(), before);
}

static void use(void *argument)
{
    struct state *state = argument;

    for (int i = 0; i < 100; i++)
        child_check(brood_barrier_wait(state->barrier, BROOD_FOREVER) == 0);
}

static void alone_makes_no_system_call(void **unused)
{
    struct state *state = make(1);

    (void)unused;
    assert_makes_no_system_call(use, state);
    drop(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_meet_again_and_again),
        cmocka_unit_test(a_time_out_breaks_it),
        cmocka_unit_test(abort_and_reset_end_waits),
        cmocka_unit_test(a_death_before_a_reset_is_of_the_past),
        cmocka_unit_test(who_tripped_has_tripped),
        cmocka_unit_test(a_waiter_that_dies_breaks_it),
        cmocka_unit_test(the_last_to_come_does_not_meet_the_dead),
        cmocka_unit_test(a_look_finds_the_dead),
        cmocka_unit_test(a_member_that_dies_breaks_it),
        cmocka_unit_test(a_clean_end_breaks_nothing),
        cmocka_unit_test(who_waits_makes_it_busy_until_dead),
        cmocka_unit_test(destroy_waits_for_those_who_leave),
        cmocka_unit_test(tags_come_again),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(alone_makes_no_system_call),
    };

    return cmocka_run_group_tests_name("locks/barrier", tests, NULL, NULL);
}
