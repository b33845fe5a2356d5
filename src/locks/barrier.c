/* SPDX-License-Identifier: MIT */
/*
 * The barrier.
 *
 * phase:  63 ............ 32 | 31 ........ 1 | 0
 *         resets             | trips         | BROKEN
 *
 * generation = resets + trips: each trip and each reset begins a new one.
 *
 * word of a slot:  31 ................... 16 | 15     | 14 ... 0
 *                  tag: generation mod 2^16  | MEMBER | arrivals
 *
 * Arrivals count only while the tag is that of the present generation.  So the one store of phase that trips the barrier
 * also takes everybody out of it.  A tag comes again after 2^16 generations: whenever the generation is about to become a
 * multiple of 2^15, the arrivals of all older ones are wiped (sweep), so that none is ever older than 2^15.
 *
 * field            writer                       readers                     protection
 * phase            holder of mutex              everybody                   mutex.  Ground truth, as are the words
 * words[slot]      wait of that slot; sweep,    holder of mutex             mutex
 *                  mourn
 * arrived          holder of mutex              holder of mutex             mutex; derived: sum of present arrivals
 * trips_at_reset   reset, before phase          outcome                     mutex; [r mod 8] for reset number r
 * inside[slot]     threads of that slot, mourn  destroy                     own word of each slot
 *
 * All operations may overlap; the mutex puts them in order.
 *
 * wait      W0  the last: ask after those who have arrived, with no lock held
 *           W1  lock; broken: -EPIPE
 *           W2  not the last: words[us] = tag, MEMBER, arrivals + 1 (linearisation point of the arrival); unlock
 *           W3  wait until phase differs from what it was at W2
 *           W4  outcome; at the deadline: lock, and if phase is the same still, BROKEN by one store
 *           T1  the last: words[us] = MEMBER too; sweep      T2  phase: trips + 1 (linearisation point for all)
 *           T3  arrived = 0, unlock, signal all
 * reset     S0  ask after all members; lock; M2, M3 for those who have ended
 *           S1  trips_at_reset = trips; sweep          S2  phase: resets + 1, whole (linearisation point)   S3  as T3
 * abort     B1  lock   B2  phase: BROKEN (linearisation point)   B3  unlock, signal all
 * mourn     M1  lock (from a dead holder too), then for each dead slot that is listed:
 *           M2  BROKEN, if it is a member and was waiting or did not end cleanly     M3  its words = 0
 *           M4  arrived counted anew; unlock, signal all
 *
 * outcome of a wait that began at (r, t) and sees (r', t'):
 *   r' = r     t' differs: tripped; else broken       the only ways to leave (r, t) while resets stand still
 *   r' > r     trips_at_reset[r] is t: broken when, or before, reset number r came; else tripped before it
 *              more than 7 resets while it slept: broken, since the list is that short
 *
 * order     "mutex": everything but W3.  "asleep": W3's look at phase and T2, S2, B2 against the event word as in
 *           sync/event.h
 *
 * death table
 *   W0, W1        nothing has happened; the mutex is taken over
 *   W2 … W4       a member has died → M2 breaks the barrier for all who wait
 *   T1            the same; a sweep changes only words that do not count
 *   T2 … T3       all others leave tripped, sleepers when their slice ends or an obituary comes (vigil.h); then M2 breaks
 *                 the barrier for the next generation, since a member died
 *   S0            as M2 … M3: with a member dead, the barrier is broken or about to be
 *   S1            a number for a reset that has not come: the next reset writes it again
 *   S2, B2 …      as T2
 *   M2 … M3       the next mourner holds the mutex without a gap and does both again
 *
 * Why everybody who arrived in a generation has the same outcome: it is a function of the phase words, and of one store
 * that ended the generation, but for more than 7 resets.
 *
 * Why nobody meets a dead one.  Of one whom nobody watches a death is told by who asks, and those who wait ask; the last to come does not wait,
 * and may be the only one left: W0.
 *
 * Why only deaths after a reset break the barrier after it: S0 takes out members whose death nobody, or not yet everybody, has been told of.
 * Their entries are theirs as long as they are not 0 (vigil.h), and mourn finds nothing in them later.
 *
 * right:  if (brood_barrier_wait(b, deadline) == -EPIPE) … the others have gone: reset by one of them
 * wrong:  brood_barrier_wait(b, BROOD_NOW) to see whether all are there      it breaks the barrier unless they are
 */
#include <errno.h>

#include "base/check.h"
#include "base/error.h"
#include "base/time.h"
#include "brood.h"
#include "locks/handle.h"
#include "locks/locks.h"
#include "locks/vigil.h"

#define BROKEN        UINT64_C(1)
#define TRIPS_MASK    ((UINT32_C(1) << 31) - 1)
#define MEMBER        (UINT32_C(1) << 15)
#define ARRIVALS_MASK (MEMBER - 1)
#define SWEEP_EVERY   (UINT32_C(1) << 15)

enum { MOST_PARTIES = 1 << 15, DRAIN_MS = 1000 };

struct wait {
    brood_barrier *barrier;
    uint64_t phase; /* at W2 */
    int index;
};

static uint32_t resets_of(uint64_t phase)
{
    return (uint32_t)(phase >> 32);
}

static uint32_t trips_of(uint64_t phase)
{
    return (uint32_t)(phase >> 1) & TRIPS_MASK;
}

static uint64_t make_phase(uint32_t resets, uint32_t trips)
{
    return (uint64_t)resets << 32 | (uint64_t)(trips & TRIPS_MASK) << 1;
}

static uint32_t generation_of(uint64_t phase)
{
    return resets_of(phase) + trips_of(phase);
}

static uint32_t tag_of(uint64_t phase)
{
    return generation_of(phase) << 16;
}

static uint32_t arrivals_in(uint32_t word, uint64_t phase)
{
    return (word & 0xffff0000u) == tag_of(phase) ? word & ARRIVALS_MASK : 0;
}

/* Entries from here on are not used; never more than there are, whatever the word says. */
static uint32_t width_of(const brood_barrier *barrier)
{
    uint32_t width = bri_load_acquire(&barrier->width);

    return width < BRI_SLOTS ? width : BRI_SLOTS;
}

static uint32_t count_arrived(const brood_barrier *barrier)
{
    uint64_t phase = bri_load_relaxed(&barrier->phase);
    uint32_t width = width_of(barrier), arrived = 0;

    for (uint32_t slot = 0; slot < width; slot++)
        arrived += arrivals_in(bri_load_relaxed(&barrier->words[slot]), phase);
    return arrived;
}

static int is_whole(const brood_barrier *barrier)
{
    uint32_t arrived = bri_load_relaxed(&barrier->arrived);

    return barrier->parties > 0 && barrier->parties <= MOST_PARTIES &&
           bri_load_relaxed(&barrier->width) <= BRI_SLOTS && arrived == count_arrived(barrier) &&
           arrived < barrier->parties;
}

static void unlock(brood_barrier *barrier)
{
    bri_check(3, is_whole(barrier));
    bri_mutex_unlock(&barrier->mutex);
}

static void unlock_and_wake(brood_barrier *barrier)
{
    unlock(barrier);
    bri_fault("barrier.changed.unlocked");
    bri_event_signal(&barrier->event, INT_MAX);
}

static void widen(brood_barrier *barrier, uint32_t slot)
{
    for (uint32_t width = width_of(barrier); width <= slot; width++) {
        bri_store_relaxed(&barrier->words[width], 0u);
        bri_store_relaxed(&barrier->inside[width], (uint16_t)0);
        bri_store_release(&barrier->width, width + 1);
    }
}

/* Before generation `next` begins: no word with arrivals is left that `next` or its successors could take for theirs. */
static void sweep(brood_barrier *barrier, uint32_t next)
{
    uint64_t phase = bri_load_relaxed(&barrier->phase);
    uint32_t width = width_of(barrier);

    if (next % SWEEP_EVERY != 0)
        return;
    for (uint32_t slot = 0; slot < width; slot++) {
        uint32_t word = bri_load_relaxed(&barrier->words[slot]);
        if ((word & 0xffff0000u) != tag_of(phase))
            bri_store_relaxed(&barrier->words[slot], tag_of(phase) | (word & MEMBER));
    }
}

/* T2, T3 and S2, S3. */
static void begin_generation(brood_barrier *barrier, uint64_t next)
{
    sweep(barrier, generation_of(next));
    bri_store_release(&barrier->phase, next);
    bri_fault("barrier.phase.changed");
    bri_store_relaxed(&barrier->arrived, 0u);
}

static void break_it(brood_barrier *barrier)
{
    bri_store_release(&barrier->phase, bri_load_relaxed(&barrier->phase) | BROKEN);
    bri_fault("barrier.phase.broken");
}

/* W1, W2, T1 … T3 under the mutex.  True: the caller has to wait. */
static int arrive(brood_barrier *barrier, struct wait *wait)
{
    uint32_t slot = bri_slot_index(bri_self());
    uint32_t arrived = bri_load_relaxed(&barrier->arrived);

    wait->phase = bri_load_relaxed(&barrier->phase);
    wait->index = wait->phase & BROKEN ? -EPIPE : (int)arrived;
    if (wait->index < 0)
        return 0;
    widen(barrier, slot);
    uint32_t word = bri_load_relaxed(&barrier->words[slot]);
    if (arrived + 1 == barrier->parties) {
        bri_store_release(&barrier->words[slot], word | MEMBER); /* T1 */
        begin_generation(barrier, make_phase(resets_of(wait->phase), trips_of(wait->phase) + 1));
        return 0;
    }
    bri_add_relaxed(&barrier->inside[slot], (uint16_t)1);
    bri_store_release(&barrier->words[slot],
                      tag_of(wait->phase) | MEMBER | (arrivals_in(word, wait->phase) + 1)); /* W2 */
    bri_fault("barrier.wait.arrived");
    bri_store_relaxed(&barrier->arrived, arrived + 1);
    return 1;
}

/* W3.  A bri_condition. */
static int has_moved(void *argument)
{
    const struct wait *wait = argument;

    return bri_load_seq_cst(&wait->barrier->phase) != wait->phase;
}

/* Every member's death concerns everybody. */
static void ask_members(void *argument)
{
    const struct wait *wait = argument;
    brood_barrier *barrier = wait->barrier;
    uint32_t width = width_of(barrier);

    bri_vigil_ask_holder(&barrier->mutex);
    for (uint32_t slot = 0; slot < width; slot++)
        if (bri_load_relaxed(&barrier->words[slot]) & MEMBER)
            bri_vigil_ask_slot(slot);
}

/* Those who wait, besides the caller, may have died with nobody left to say so. */
static void ask_waiting(brood_barrier *barrier)
{
    uint64_t phase = bri_load_acquire(&barrier->phase);
    uint32_t width = width_of(barrier), self = bri_slot_index(bri_self());

    for (uint32_t slot = 0; slot < width; slot++)
        if (slot != self && arrivals_in(bri_load_relaxed(&barrier->words[slot]), phase) > 0)
            bri_vigil_ask_slot(slot);
}

/* W0 and W1. */
static void lock_to_arrive(brood_barrier *barrier)
{
    bri_mutex_lock(&barrier->mutex);
    if (barrier->parties == 1 || bri_load_relaxed(&barrier->arrived) + 1 != barrier->parties)
        return;
    unlock(barrier);
    ask_waiting(barrier);
    bri_fault("barrier.wait.asked");
    bri_mutex_lock(&barrier->mutex);
}

static int outcome_across_resets(const struct wait *wait)
{
    brood_barrier *barrier = wait->barrier;
    uint32_t first = resets_of(wait->phase);

    bri_mutex_lock(&barrier->mutex);
    uint32_t resets = resets_of(bri_load_relaxed(&barrier->phase)) - first;
    uint32_t trips = bri_load_relaxed(&barrier->trips_at_reset[first % BRI_RESETS_KEPT]);
    unlock(barrier);
    return resets < BRI_RESETS_KEPT && trips != trips_of(wait->phase) ? wait->index : -EPIPE;
}

static int outcome(const struct wait *wait)
{
    uint64_t now = bri_load_acquire(&wait->barrier->phase);

    if (resets_of(now) != resets_of(wait->phase))
        return outcome_across_resets(wait);
    return trips_of(now) != trips_of(wait->phase) ? wait->index : -EPIPE;
}

/* W4 at the deadline, or interrupted. */
static int give_up(const struct wait *wait, int why)
{
    brood_barrier *barrier = wait->barrier;

    bri_mutex_lock(&barrier->mutex);
    int in_time = bri_load_relaxed(&barrier->phase) != wait->phase;
    if (!in_time)
        break_it(barrier);
    unlock_and_wake(barrier);
    return in_time ? outcome(wait) : why;
}

static int wait_for_others(struct wait *wait, int64_t deadline)
{
    brood_barrier *barrier = wait->barrier;
    int moved = bri_vigil_wait(&barrier->event, has_moved, ask_members, wait, deadline);
    int result = moved < 0 ? give_up(wait, moved) : outcome(wait);

    bri_fault("barrier.wait.leaving");
    bri_add_acq_rel(&barrier->inside[bri_slot_index(bri_self())], (uint16_t)-1);
    bri_event_signal(&barrier->event, INT_MAX); /* for destroy */
    return result;
}

static int set_sentence(int result)
{
    if (result == -EPIPE)
        return bri_fail(
            EPIPE, "barrier is broken, or was reset: a wait timed out, a process died, or it was aborted");
    if (result == -ETIMEDOUT || result == -EINTR)
        return bri_fail_wait(
            result, "the other parties of barrier did not come until the deadline; it is broken now");
    return result;
}

int brood_barrier_create(uint32_t parties, brood_barrier **ret_barrier)
{
    void *payload;

    if (ret_barrier == NULL)
        return bri_output_refuse("ret_barrier");
    if (parties == 0 || parties > MOST_PARTIES)
        return bri_fail(EINVAL, "parties is %u: from 1 to %d", parties, MOST_PARTIES);
    int error = bri_object_make(BRI_KIND_BARRIER, sizeof(brood_barrier), &payload);
    if (error < 0)
        return error;
    brood_barrier *barrier = payload;
    barrier->parties = parties;
    bri_store_relaxed(&barrier->event, 0u);
    bri_store_relaxed(&barrier->phase, UINT64_C(0));
    bri_store_relaxed(&barrier->arrived, 0u);
    bri_store_relaxed(&barrier->width, 0u);
    bri_vigil_open(&barrier->mutex);
    bri_object_publish(barrier);
    *ret_barrier = barrier;
    return 0;
}

int brood_barrier_wait(brood_barrier *barrier, int64_t deadline)
{
    int error = bri_handle_check(barrier, BRI_KIND_BARRIER, "barrier");

    if (error == 0)
        error = bri_deadline_check(deadline);
    if (error < 0)
        return error;
    struct wait wait = {.barrier = barrier};
    lock_to_arrive(barrier);
    int must_wait = arrive(barrier, &wait);
    if (must_wait)
        unlock(barrier);
    else
        unlock_and_wake(barrier);
    return set_sentence(must_wait ? wait_for_others(&wait, deadline) : wait.index);
}

int brood_barrier_abort(brood_barrier *barrier)
{
    int error = bri_handle_check(barrier, BRI_KIND_BARRIER, "barrier");

    if (error < 0)
        return error;
    bri_mutex_lock(&barrier->mutex);
    break_it(barrier);
    unlock_and_wake(barrier);
    return 0;
}

static int is_listed(const brood_barrier *barrier, uint32_t slot)
{
    return slot < width_of(barrier) &&
           (bri_load_relaxed(&barrier->words[slot]) | bri_load_relaxed(&barrier->inside[slot])) != 0;
}

/* M2, M3. */
static void take_out(brood_barrier *barrier, uint32_t slot)
{
    enum bri_slot_state state;
    bri_name name = bri_roster_name_at(slot, &state);
    uint32_t word = bri_load_relaxed(&barrier->words[slot]);
    int waited = arrivals_in(word, bri_load_relaxed(&barrier->phase)) > 0;

    if ((word & MEMBER) && (waited || bri_roster_end_of(name) != BRI_END_CLEAN))
        break_it(barrier);
    bri_store_release(&barrier->inside[slot], (uint16_t)0);
    bri_store_release(&barrier->words[slot], 0u);
}

/* S0.  One whom somebody watches is buried by its watcher only, be that later: under the mutex it is enough that it has ended. */
static void take_out_ended(brood_barrier *barrier)
{
    uint32_t width = width_of(barrier);
    enum bri_slot_state state;

    for (uint32_t slot = 0; slot < width; slot++)
        if (is_listed(barrier, slot) && bri_roster_has_ended(bri_roster_name_at(slot, &state)))
            take_out(barrier, slot);
}

int brood_barrier_reset(brood_barrier *barrier)
{
    int error = bri_handle_check(barrier, BRI_KIND_BARRIER, "barrier");

    if (error < 0)
        return error;
    ask_members(&(struct wait){.barrier = barrier}); /* S0 */
    bri_mutex_lock(&barrier->mutex);
    take_out_ended(barrier);
    uint64_t phase = bri_load_relaxed(&barrier->phase);
    bri_store_relaxed(&barrier->trips_at_reset[resets_of(phase) % BRI_RESETS_KEPT], trips_of(phase)); /* S1 */
    begin_generation(barrier, make_phase(resets_of(phase) + 1, trips_of(phase)));
    unlock_and_wake(barrier);
    return 0;
}

int brood_barrier_parties(brood_barrier *barrier)
{
    int error = bri_handle_check(barrier, BRI_KIND_BARRIER, "barrier");

    return error < 0 ? error : (int)barrier->parties;
}

static int count_waiting(brood_barrier *barrier)
{
    bri_mutex_lock(&barrier->mutex);
    int waiting = bri_load_relaxed(&barrier->phase) & BROKEN ? 0 : (int)bri_load_relaxed(&barrier->arrived);
    unlock(barrier);
    return waiting;
}

int brood_barrier_waiting(brood_barrier *barrier)
{
    int error = bri_handle_check(barrier, BRI_KIND_BARRIER, "barrier");

    if (error < 0)
        return error;
    ask_waiting(barrier);
    return count_waiting(barrier);
}

int brood_barrier_is_broken(brood_barrier *barrier)
{
    int error = bri_handle_check(barrier, BRI_KIND_BARRIER, "barrier");

    if (error < 0)
        return error;
    ask_waiting(barrier);
    return (bri_load_acquire(&barrier->phase) & BROKEN) != 0;
}

/* Nobody is on the way out of wait.  A bri_condition. */
static int is_drained(void *argument)
{
    const struct wait *wait = argument;
    uint32_t width = width_of(wait->barrier);

    for (uint32_t slot = 0; slot < width; slot++)
        if (bri_load_seq_cst(&wait->barrier->inside[slot]) > 0)
            return 0;
    return 1;
}

/* Those who have tripped the barrier may not have left it yet: destroy waits for them. */
int brood_barrier_destroy(brood_barrier *barrier)
{
    if (barrier == NULL)
        return 0;
    int error = bri_handle_check(barrier, BRI_KIND_BARRIER, "barrier");
    if (error < 0)
        return error;
    struct wait wait = {.barrier = barrier};
    if (!is_drained(&wait))
        ask_members(&wait);
    if (count_waiting(barrier) > 0 || bri_vigil_wait(&barrier->event, is_drained, ask_members, &wait,
                                                     bri_after_ns(DRAIN_MS * BRI_NS_PER_MS)) < 0)
        return bri_fail(EBUSY, "a process waits in barrier: abort it first");
    bri_mutex_lock(&barrier->mutex);
    bri_vigil_unmake(barrier, &barrier->mutex);
    return 0;
}

static void mourn(void *payload, bri_name dead)
{
    brood_barrier *barrier = payload;

    if (!bri_vigil_holder_is_dead(&barrier->mutex) && !is_listed(barrier, bri_slot_index(dead)))
        return;
    if (!bri_vigil_lock(barrier, BRI_KIND_BARRIER, &barrier->mutex)) /* M1 */
        return;
    uint32_t width = width_of(barrier);
    for (uint32_t slot = 0; slot < width; slot++)
        if (is_listed(barrier, slot) && bri_slot_is_dead(slot))
            take_out(barrier, slot);
    bri_store_relaxed(&barrier->arrived, count_arrived(barrier));
    unlock_and_wake(barrier); /* M4 */
}

static int is_valid(void *payload)
{
    brood_barrier *barrier = payload;

    bri_mutex_lock(&barrier->mutex);
    int whole = is_whole(barrier);
    bri_mutex_unlock(&barrier->mutex);
    return whole;
}

const struct bri_kind_ops bri_barrier_ops = {
    .bytes = sizeof(brood_barrier), .mourn = mourn, .is_valid = is_valid};
