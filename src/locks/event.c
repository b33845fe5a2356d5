/* SPDX-License-Identifier: MIT */
/*
 * The event: a flag that processes wait for.
 *
 * word:   63 ............................ 1 | 0
 *         how often the flag went up        | the flag
 *
 * field    writer                   readers     protection
 * word     set, clear: by CAS       everybody   none is needed: it is all there is
 * number   create                   wait        tells the event from all others that ever lie in the same block
 * berth    see sync/event.h         wait        in the arena's header, shared with other events, and never freed
 *
 * All operations may overlap; none may begin once destroy has begun, but waits that have begun may go on.
 *
 * set     S1  CAS: flag up, count + 1; nothing when it is up (linearisation point: the look or the CAS)
 *         S2  signal all waiters.  Also when it was up: whoever set it may have died before its own S2
 * clear   C1  CAS: flag down (linearisation point)
 * wait    W1  look at the number, at the word; up: done
 *         W2  wait until it is up or the count differs from W1's; then look whether that was the event still: the block is a brood_event
 *             that is published, and has W1's number
 * destroy D1  unmake: the block is ours (linearisation point), then free     D2  signal all waiters
 *
 * order   "asleep": W2's look and S1 are ordered against the event word as in sync/event.h
 *         "set": W1, W2 (acquire) see what was written before S1 (release)
 *         "gone": W2 reads word before number before tag.  Whoever has the block next writes its number and contents after D1 and before it
 *         publishes.  So a published event with W1's number had it when its word was read
 *
 * death table
 *   before S1, C1     nothing has happened
 *   after S1          the flag is up; sleepers sleep on → their slice ends, or an obituary comes (vigil.h)
 *   after C1, in W2   nothing is left
 *   in D1             before its store: the event is there.  After it: the undertaker frees the block; sleepers learn of it by the obituary
 *   after D1          sleepers sleep on → their slice ends, or an obituary comes
 *
 * Why a wait never misses a set: the count differs even if clear follows before the waiter runs.  A destroy that follows is what it sees then.
 *
 * Why the waiters' event word is none of the event's: each turn of the wait loop writes it, and destroy does not wait for them, so that it
 * would be another's memory by then.  A word of the event that it reads too late is harmless.
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
    uint64_t number, seen; /* W1's */
};

/* W2.  A bri_condition: -EINVAL when it was destroyed. */
static int was_set(void *argument)
{
    const struct wait *wait = argument;
    uint64_t word = bri_load_seq_cst(&wait->event->word);

    if (bri_load_acquire(&wait->event->number) != wait->number ||
        !bri_object_is_published(wait->event, BRI_KIND_EVENT))
        return -EINVAL;
    return (word & FLAG) != 0 || word >> 1 != wait->seen >> 1;
}

static int set_sentence(int result)
{
    if (result == -EINVAL)
        return bri_fail(EINVAL, "event was destroyed while this thread waited for it");
    return bri_fail_wait(result, "event was not set until the deadline");
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
    bri_store_relaxed(&event->number, bri_add_relaxed(&bri_arena_current->header->events_made, 1u) + 1);
    /* Release: who still waits for the block's last event, and sees this, sees the number too. */
    bri_store_release(&event->word, UINT64_C(0));
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
    bri_event_signal(bri_event_berth(event), INT_MAX); /* S2 */
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
    struct wait wait = {event, bri_load_acquire(&event->number), bri_load_acquire(&event->word)}; /* W1 */
    int met = was_set(&wait);
    if (met == 0)
        met = bri_vigil_wait(bri_event_berth(event), was_set, NULL, &wait, deadline);
    return met < 0 ? set_sentence(met) : 0;
}

int brood_event_destroy(brood_event *event)
{
    if (event == NULL)
        return 0;
    int error = bri_handle_check(event, BRI_KIND_EVENT, "event");
    if (error < 0)
        return error;
    bri_object_unmake(event);                          /* D1 */
    bri_event_signal(bri_event_berth(event), INT_MAX); /* D2 */
    return 0;
}

static int is_valid(void *payload)
{
    const brood_event *event = payload;

    return bri_load_relaxed(&event->word) != FLAG; /* up, and never went up */
}

const struct bri_kind_ops bri_event_ops = {.is_valid = is_valid};
