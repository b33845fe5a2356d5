/* SPDX-License-Identifier: MIT */
/*
 * The event: a flag that processes wait for.
 *
 * word:   63 ............................ 1 | 0
 *         how often the flag went up        | the flag
 *
 * field   writer                   readers     protection
 * word    set, clear: by CAS       everybody   none is needed: it is all there is
 * event   see sync/event.h
 *
 * All operations may overlap.
 *
 * set     S1  CAS: flag up, count + 1; nothing when it is up (linearisation point: the look or the CAS)
 *         S2  signal all waiters.  Also when it was up: whoever set it may have died before its own S2
 * clear   C1  CAS: flag down (linearisation point)
 * wait    W1  look at the word; up: done      W2  wait until it is up or the count differs from W1's
 *
 * order   "asleep": W2's look and S1 are ordered against the event word as in sync/event.h
 *         "set": W1, W2 (acquire) see what was written before S1 (release)
 *
 * death table
 *   before S1, C1     nothing has happened
 *   after S1          the flag is up; sleepers sleep on → their slice ends, or an obituary comes (vigil.h)
 *   after C1, in W2   nothing is left
 *
 * Why a wait never misses a set: the count differs even if clear follows before the waiter runs.
 *
 * right:  brood_event_wait(event, …);      once set, it returns at once until it is cleared
 * wrong:  brood_event_clear(event); brood_event_wait(event, …);      a set just before the clear is lost
 */
#include <errno.h>

#include "base/check.h"
#include "base/error.h"
#include "brood.h"
#include "locks/handle.h"
#include "locks/locks.h"
#include "locks/vigil.h"

#define FLAG UINT64_C(1)

struct wait {
    brood_event *event;
    uint64_t seen; /* W1's */
};

/* W2.  A bri_condition. */
static int was_set(void *argument)
{
    const struct wait *wait = argument;
    uint64_t word = bri_load_seq_cst(&wait->event->word);

    return (word & FLAG) != 0 || word >> 1 != wait->seen >> 1;
}

int brood_event_create(brood_event **ret_event)
{
    void *payload;

    if (ret_event == NULL)
        return bri_output_refuse("ret_event");
    int error = bri_object_make(BRI_KIND_EVENT, sizeof(brood_event), &payload);
    if (error < 0)
        return error;
    brood_event *event = payload;
    bri_store_relaxed(&event->event, 0u);
    bri_store_relaxed(&event->word, UINT64_C(0));
    bri_object_publish(event);
    *ret_event = event;
    return 0;
}

int brood_event_set(brood_event *event)
{
    int error = bri_handle_check(event, BRI_KIND_EVENT, "event");

    if (error < 0)
        return error;
    uint64_t word = bri_load_relaxed(&event->word);
    while ((word & FLAG) == 0 && !bri_cas_acq_rel(&event->word, &word, (word + 2) | FLAG)) { /* S1 */
    }
    bri_fault("event.set.up");
    bri_event_signal(&event->event, INT_MAX); /* S2 */
    return 0;
}

int brood_event_clear(brood_event *event)
{
    int error = bri_handle_check(event, BRI_KIND_EVENT, "event");

    if (error < 0)
        return error;
    uint64_t word = bri_load_relaxed(&event->word);
    while ((word & FLAG) != 0 && !bri_cas_acq_rel(&event->word, &word, word & ~FLAG)) { /* C1 */
    }
    return 0;
}

int brood_event_is_set(brood_event *event)
{
    int error = bri_handle_check(event, BRI_KIND_EVENT, "event");

    return error < 0 ? error : (bri_load_acquire(&event->word) & FLAG) != 0;
}

int brood_event_wait(brood_event *event, int64_t deadline)
{
    int error = bri_handle_check(event, BRI_KIND_EVENT, "event");

    if (error == 0)
        error = bri_deadline_check(deadline);
    if (error < 0)
        return error;
    struct wait wait = {event, bri_load_acquire(&event->word)}; /* W1 */
    if (was_set(&wait))
        return 0;
    int met = bri_vigil_wait(&event->event, was_set, NULL, &wait, deadline);
    return met < 0 ? bri_fail_wait(met, "event was not set until the deadline") : 0;
}

int brood_event_destroy(brood_event *event)
{
    if (event == NULL)
        return 0;
    int error = bri_handle_check(event, BRI_KIND_EVENT, "event");
    if (error == 0)
        bri_object_unmake(event);
    return error;
}

static int is_valid(void *payload)
{
    const brood_event *event = payload;

    return bri_load_relaxed(&event->word) != FLAG; /* up, and never went up */
}

const struct bri_kind_ops bri_event_ops = {.is_valid = is_valid};
