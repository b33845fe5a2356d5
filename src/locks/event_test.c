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

static void a_short_pulse_is_seen(void **unused)
{
    struct state *state = make();

    (void)unused;
    pid_t waiter = start_child(wait_for_set, state);
    while ((bri_load_relaxed(&state->event->event) & BRI_EVENT_WAITING) == 0)
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
    while ((bri_load_relaxed(&state->event->event) & BRI_EVENT_WAITING) == 0)
        sched_yield();
    bri_store_seq_cst(&state->event->word, UINT64_C(3));
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
        cmocka_unit_test(flag_goes_up_and_down), cmocka_unit_test(all_are_woken),
        cmocka_unit_test(a_short_pulse_is_seen), cmocka_unit_test(a_set_without_a_wake_up_is_seen),
        cmocka_unit_test(bad_input_is_refused),  cmocka_unit_test(unwaited_makes_no_system_call),
    };

    return cmocka_run_group_tests_name("locks/event", tests, NULL, NULL);
}
