/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "locks/locks.h"
#include "locks/testing.h"
#include "sync/event.h"

enum { CHILDREN = 4 };

struct state {
    brood_event *event;
    _Atomic int ready;
};

static struct state *make(void)
{
    struct state *state = shared(sizeof *state);

    assert_int_equal(brood_event_create(&state->event), 0);
    bri_event_signal(bri_event_berth(state->event), INT_MAX); /* WAITING, of earlier sleepers, off */
    return state;
}

static void drop(struct state *state)
{
    assert_true(bri_event_ops.is_valid(state->event));
    assert_int_equal(brood_event_destroy(state->event), 0);
    assert_int_equal(brood_free(state), 0);
}

static void flag_goes_up_and_down(void **unused)
{
    struct state *state = make();

    (void)unused;
    assert_int_equal(brood_event_is_set(state->event), 0);
    assert_refused(brood_event_wait(state->event, BROOD_NOW), ETIMEDOUT, "event");
    assert_refused(brood_event_wait(state->event, brood_after_ms(5)), ETIMEDOUT, "event");
    for (int i = 0; i < 2; i++)
        assert_int_equal(brood_event_set(state->event), 0);
    assert_int_equal(brood_event_is_set(state->event), 1);
    assert_int_equal(brood_event_wait(state->event, BROOD_NOW), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(brood_event_clear(state->event), 0);
    assert_int_equal(brood_event_is_set(state->event), 0);
    drop(state);
}

static void wait_for_set(void *argument)
{
    struct state *state = argument;

    atomic_fetch_add(&state->ready, 1);
    child_check(brood_event_wait(state->event, BROOD_FOREVER) == 0);
}

static void all_are_woken(void **unused)
{
    struct state *state = make();
    pid_t pids[CHILDREN];

    (void)unused;
    for (int i = 0; i < CHILDREN; i++)
        pids[i] = start_child(wait_for_set, state);
    while (atomic_load(&state->ready) < CHILDREN)
        sched_yield();
    assert_int_equal(brood_event_set(state->event), 0);
    for (int i = 0; i < CHILDREN; i++)
        assert_exits_well(pids[i]);
    drop(state);
}

static int somebody_sleeps(const brood_event *event)
{
    return (bri_load_relaxed(bri_event_berth(event)) & BRI_EVENT_WAITING) != 0;
}

static void a_short_pulse_is_seen(void **unused)
{
    struct state *state = make();

    (void)unused;
    pid_t waiter = start_child(wait_for_set, state);
    while (!somebody_sleeps(state->event))
        sched_yield(); /* it has had its first look by then */
    assert_int_equal(brood_event_set(state->event), 0);
    assert_int_equal(brood_event_clear(state->event), 0);
    assert_exits_well(waiter);
    drop(state);
}

/* As a process that dies between raising the flag and waking the others. */
static void a_set_without_a_wake_up_is_seen(void **unused)
{
    struct state *state = make();

    (void)unused;
    pid_t waiter = start_child(wait_for_set, state);
    while (!somebody_sleeps(state->event))
        sched_yield();
    bri_store_seq_cst(&state->event->word, UINT64_C(3));
    assert_exits_well(waiter);
    drop(state);
}

static void wait_for_the_end(void *argument)
{
    struct state *state = argument;

    atomic_fetch_add(&state->ready, 1);
    child_check(brood_event_wait(state->event, BROOD_FOREVER) == -EINVAL);
    child_check(strstr(brood_error_text(), "destroyed") != NULL);
}

/* A waiter that has not had its first look yet is refused with a sentence that says "destroyed", too. */
static void a_destroyed_one_ends_waits(void **unused)
{
    struct state *state = make();
    pid_t pids[CHILDREN];

    (void)unused;
    for (int i = 0; i < CHILDREN; i++)
        pids[i] = start_child(wait_for_the_end, state);
    while (atomic_load(&state->ready) < CHILDREN || !somebody_sleeps(state->event))
        sched_yield();
    assert_int_equal(brood_event_destroy(state->event), 0);
    for (int i = 0; i < CHILDREN; i++)
        assert_exits_well(pids[i]);
    assert_int_equal(brood_free(state), 0);
}

/* The block is an event again before the waiter runs, and that one is set. */
static void its_successor_is_not_taken_for_it(void **unused)
{
    struct state *state = make();
    brood_event *before = state->event;
    int status;

    (void)unused;
    pid_t waiter = start_child(wait_for_the_end, state);
    while (!somebody_sleeps(state->event))
        sched_yield();
    kill(waiter, SIGSTOP);
    assert_int_equal(waitpid(waiter, &status, WUNTRACED), waiter);
    assert_int_equal(brood_event_destroy(before), 0);
    assert_int_equal(brood_event_create(&state->event), 0);
    assert_ptr_equal(state->event, before);
    assert_int_equal(brood_event_set(state->event), 0);
    kill(waiter, SIGCONT);
    assert_exits_well(waiter);
    drop(state);
}

static void bad_input_is_refused(void **unused)
{
    brood_event *event;

    (void)unused;
    uint64_t before = blocks_in_use();
    assert_refused(brood_event_create(NULL), EINVAL, "ret_event");
    assert_refused(brood_event_set(NULL), EINVAL, "event");
    assert_refused(brood_event_clear((brood_event *)&event), EINVAL, "event");
    assert_refused(brood_event_is_set(NULL), EINVAL, "event");
    assert_refused(brood_event_wait(NULL, BROOD_NOW), EINVAL, "event");
    assert_int_equal(brood_event_create(&event), 0);
    assert_refused(brood_event_wait(event, -1), EINVAL, "deadline");
    assert_int_equal(brood_event_destroy(event), 0);
    assert_refused(brood_event_destroy(event), EINVAL, "event");
    assert_int_equal(brood_event_destroy(NULL), 0);
    assert_int_equal(blocks_in_use(), before);
}

static void use(void *argument)
{
    struct state *state = argument;

    for (int i = 0; i < 100; i++) {
        child_check(brood_event_set(state->event) == 0);
        child_check(brood_event_wait(state->event, BROOD_FOREVER) == 0);
        child_check(brood_event_clear(state->event) == 0);
    }
}

static void unwaited_makes_no_system_call(void **unused)
{
    struct state *state = make();

    (void)unused;
    assert_makes_no_system_call(use, state);
    drop(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flag_goes_up_and_down),      cmocka_unit_test(all_are_woken),
        cmocka_unit_test(a_short_pulse_is_seen),      cmocka_unit_test(a_set_without_a_wake_up_is_seen),
        cmocka_unit_test(a_destroyed_one_ends_waits), cmocka_unit_test(its_successor_is_not_taken_for_it),
        cmocka_unit_test(bad_input_is_refused),       cmocka_unit_test(unwaited_makes_no_system_call),
    };

    return cmocka_run_group_tests_name("locks/event", tests, NULL, NULL);
}
