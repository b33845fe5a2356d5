/* SPDX-License-Identifier: MIT */
/* Conditions, events and barriers; as scenarios_locks.c. */
#define _GNU_SOURCE
#include "locks_ask.h"

/* ------------------------------------------------------------------------------- condition and event ---- */

static void wait_in_condition(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    brood_condition_wait(s->condition, BROOD_NOW);
    stepkill_begin();
    brood_condition_wait(s->condition, BROOD_FOREVER);
    stepkill_end();
    brood_condition_release(s->condition);
}

/* Another one waits behind the victim; one of the two is notified, the victim. */
static void notify_victim(void *ctx)
{
    struct state *s = ctx;
    uint64_t tickets = bri_load_relaxed(&s->condition->next);

    start_helper(s, work_condition);
    take_when_waiting(s, tickets + 1);
    s->unblocked = brood_condition_notify(s->condition, 1) == 1;
    kill(s->helper, SIGSTOP); /* else it might find the victim dead before note_whether_listed has looked */
    waitpid(s->helper, NULL, WUNTRACED);
    brood_condition_release(s->condition);
}

static void note_whether_listed(void *ctx, pid_t pid, int status)
{
    struct state *s = ctx;

    (void)pid, (void)status;
    for (uint32_t i = 0; i < bri_load_relaxed(&s->condition->width); i++)
        if (bri_load_relaxed(&s->condition->waiters[i].ticket) != 0 &&
            bri_load_relaxed(&s->condition->waiters[i].name) == s->victim)
            s->victim_is_listed = 1;
}

static int check_waited(void *ctx)
{
    struct state *s = ctx;

    if (s->unblocked)
        kill(s->helper, SIGCONT);
    if (s->unblocked && s->victim_is_listed) {
        reap_helper(s); /* the notify has passed on to it */
        REQUIRE(s->helper_got >= 0);
    } else if (s->unblocked) {
        REQUIRE(brood_condition_acquire(s->condition, BROOD_FOREVER) >= 0);
        REQUIRE(brood_condition_notify(s->condition, 1) == 1); /* it has not */
        REQUIRE(brood_condition_release(s->condition) == 0);
        reap_helper(s);
        REQUIRE(s->helper_got >= 0);
    }
    return check(s);
}

static void time_out_in_condition(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    brood_condition_wait(s->condition, BROOD_NOW);
    stepkill_begin();
    brood_condition_wait(s->condition, BROOD_NOW);
    stepkill_end();
}

static void *setup_waiting(void)
{
    struct state *s = setup();

    if (s == NULL || start_helper(s, work_condition) < 0)
        return NULL;
    take_when_waiting(s, 1);
    brood_condition_release(s->condition);
    return s;
}

static void notify_all(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    stepkill_begin();
    brood_condition_notify(s->condition, UINT32_MAX);
    stepkill_end();
}

static int check_notified(void *ctx)
{
    struct state *s = ctx;

    REQUIRE(brood_condition_acquire(s->condition, BROOD_FOREVER) >= 0);
    int left = brood_condition_notify(s->condition, UINT32_MAX);
    REQUIRE(left == 0 || left == 1);
    REQUIRE(brood_condition_release(s->condition) == 0);
    reap_helper(s);
    REQUIRE(s->helper_got >= 0);
    return check(s);
}

static void *setup_waiting_for_event(void)
{
    struct state *s = setup();

    return s == NULL || start_helper(s, work_event) < 0 ? NULL : s;
}

static void use_event(void *ctx)
{
    struct state *s = begin(ctx);

    brood_event_set(s->event);
    brood_event_wait(s->event, BROOD_FOREVER);
    stepkill_end();
}

static int check_set(void *ctx)
{
    struct state *s = ctx;

    if (brood_event_is_set(s->event) == 0)
        REQUIRE(brood_event_set(s->event) == 0);
    reap_helper(s); /* whoever has set it: the helper sees it */
    REQUIRE(s->helper_got == 0);
    return check(s);
}

static void wait_for_event(void *ctx)
{
    struct state *s = begin(ctx);

    brood_event_wait(s->event, BROOD_FOREVER);
    brood_event_clear(s->event);
    stepkill_end();
}

static void set_event(void *ctx)
{
    brood_event_set(((struct state *)ctx)->event);
}

static void *setup_asleep_for_event(void)
{
    struct state *s = setup_waiting_for_event();

    while (s != NULL && (bri_load_relaxed(bri_event_berth(s->event)) & BRI_EVENT_WAITING) == 0)
        sched_yield();
    return s;
}

static void destroy_event(void *ctx)
{
    struct state *s = begin(ctx);

    brood_event_destroy(s->event);
    stepkill_end();
}

/* The helper learns that it is gone, or it is not and can be set. */
static int check_event_destroyed(void *ctx)
{
    struct state *s = ctx;

    bri_report_if_ended(s->victim);
    const int is_gone = !bri_heap_is(s->event, BRI_KIND_EVENT);
    if (!is_gone)
        REQUIRE(brood_event_set(s->event) == 0);
    reap_helper(s);
    REQUIRE(s->helper_got == (is_gone ? -EINVAL : 0));
    if (is_gone)
        REQUIRE(brood_event_create(&s->event) == 0);
    return check(s);
}

/* ---------------------------------------------------------------------------------------------- barrier ---- */

static void *setup_one_waits(void)
{
    struct state *s = setup();

    if (s == NULL || start_helper(s, work_barrier) < 0)
        return NULL;
    while (brood_barrier_waiting(s->barrier) == 0)
        sched_yield();
    return s;
}

static void wait_in_barrier(void *ctx)
{
    struct state *s = begin(ctx);

    brood_barrier_wait(s->barrier, BROOD_FOREVER);
    stepkill_end();
}

/* The helper has passed, or is told, or the victim never came. */
static int check_one_waited(void *ctx)
{
    struct state *s = ctx;

    bri_report_if_ended(s->victim);
    int waiting = brood_barrier_waiting(s->barrier);
    if (waiting > 0)
        REQUIRE(brood_barrier_abort(s->barrier) == 0);
    reap_helper(s);
    REQUIRE(s->helper_got == (waiting > 0 ? -EPIPE : 0) || s->helper_got == -EPIPE);
    return check(s);
}

static void trip_for_victim(void *ctx)
{
    struct state *s = ctx;

    s->unblocked = brood_barrier_wait(s->barrier, BROOD_FOREVER) == 1;
}

static int check_tripped(void *ctx)
{
    struct state *s = ctx;

    bri_report_if_ended(s->victim);
    REQUIRE(s->unblocked || brood_barrier_waiting(s->barrier) == 0);
    return check(s);
}

static void change_barrier(void *ctx)
{
    struct state *s = begin(ctx);

    brood_barrier_wait(s->barrier, BROOD_NOW);
    brood_barrier_reset(s->barrier);
    brood_barrier_abort(s->barrier);
    stepkill_end();
}

const struct stepkill_scenario stepkill_waits[] = {
    {.name = "condition.wait",
     .setup = setup,
     .victim = wait_in_condition,
     .unblock = notify_victim,
     .after_kill = note_whether_listed,
     .check = check_waited},
    {.name = "condition.timeout", PLAIN, .victim = time_out_in_condition},
    {.name = "condition.notify", .setup = setup_waiting, .victim = notify_all, .check = check_notified},
    {.name = "event.set", .setup = setup_waiting_for_event, .victim = use_event, .check = check_set},
    {.name = "event.destroy",
     .setup = setup_asleep_for_event,
     .victim = destroy_event,
     .check = check_event_destroyed},
    {.name = "event.wait", PLAIN, .victim = wait_for_event, .unblock = set_event},
    {.name = "barrier.trip", .setup = setup_one_waits, .victim = wait_in_barrier, .check = check_one_waited},
    {.name = "barrier.wait",
     .setup = setup,
     .victim = wait_in_barrier,
     .unblock = trip_for_victim,
     .check = check_tripped},
    {.name = "barrier.change", PLAIN, .victim = change_barrier},
    {.name = NULL},
};
