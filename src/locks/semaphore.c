/* SPDX-License-Identifier: MIT */
/*
 * The semaphore.
 *
 *   total = tokens that there are = free + sum of held[slot]
 *
 * field        writer                              readers            protection
 * total        release, mourn                      everybody          mutex.  Ground truth, as is held
 * held[slot]   acquire of that slot: + 1;          holder of mutex    mutex
 *              release, mourn: less
 * free         holder of mutex                     everybody          derived; without the mutex a hint, "look closer"
 * died         acquire, mourn                      acquire            mutex
 * settling,    mourn                               mourn              mutex
 *  settled_to
 * width, hint  holder of mutex                     holder of mutex    mutex.  hint may be wrong
 * waiting[]    threads of that slot, mourn         destroy            own word of each slot
 *
 * All operations may overlap; the mutex puts them in order.
 *
 * acquire   A1  lock                                      release   R1  lock
 *           A2  free is 0: unlock, wait, from A1                    R2  whose token: ours, else another holder's
 *           A3  held[us] + 1 (linearisation point)                  R3  held[whose] - 1, or, nobody holds one,
 *           A4  free - 1                                                total + 1 (linearisation point)
 *           A5  died: 0, and say so                                 R4  free + 1
 *           A6  unlock                                              R5  unlock, signal one waiter
 *
 * mourn     M1  lock (from a dead holder too)
 *           M2  for each dead slot that holds n tokens: died = 1; settled_to = what total will be; settling = slot
 *           M3  total = settled_to    M4  held[slot] = 0    M5  settling = 0
 *           M6  free = total - sum of held    M7  unlock, signal all
 *
 * What becomes of the tokens of a process that ended: they come back.  Only when it ended cleanly (exit, not a kill),
 * tokens that were added to the initial `value` stay spent: these were messages from a producer to a consumer, which a
 * consumer that has done its work must not leave behind.  So `total` never falls below `value`: a resource is never lost.
 *
 * order     "mutex": everything here.  "asleep": A2's look at free and R4 against the event word as in sync/event.h
 *           "steps": A5, M2 … M5 are release stores, so that a death cuts them off in this order
 *
 * death table
 *   A1 … A2         the mutex names the dead: taken over, nothing to repair
 *   A3 … before     held[us] says so: the token comes back, died is set.  After A5 it is set again, which tells the next
 *    the return     one of this death
 *   R1 … R2         as A1
 *   R3 … R4         free lacks the token: M6 counts anew
 *   R5              waiters sleep on → their slice ends, or an obituary comes (vigil.h)
 *   M1 … M2         the next mourner finds the dead slot anew; died = 1 twice is died = 1
 *   M2 … M5         `settling` is a redo record: the next mourner begins with M3, and each of M3, M4, M5 may be done twice
 *   M6, M7          as R4, R5
 *
 * Why no token is lost or doubled: tokens are counted by total and held alone, each changed by one store that is the
 * operation; the one change of both, M3 and M4, is redone from its record.  Why a word by slot needs no epoch: vigil.h.
 *
 * right:  got = brood_semaphore_acquire(s, …); if (got < 0) return; …; brood_semaphore_release(s);
 * wrong:  if (brood_semaphore_value(s) > 0) brood_semaphore_acquire(s, BROOD_FOREVER);      others come between
 */
#include <errno.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/error.h"
#include "brood.h"
#include "locks/handle.h"
#include "locks/locks.h"
#include "locks/vigil.h"

enum { TAKEN = 1 };

static uint32_t own_slot(void)
{
    return bri_slot_index(bri_self());
}

/* Entries from here on are not used; never more than there are, whatever the word says. */
static uint32_t width_of(const brood_semaphore *semaphore)
{
    uint32_t width = bri_load_acquire(&semaphore->width);

    return width < BRI_SLOTS ? width : BRI_SLOTS;
}

static uint32_t sum_held(const brood_semaphore *semaphore)
{
    uint32_t width = width_of(semaphore), sum = 0;

    for (uint32_t slot = 0; slot < width; slot++)
        sum += bri_load_relaxed(&semaphore->held[slot]);
    return sum;
}

static int is_whole(const brood_semaphore *semaphore)
{
    uint32_t total = bri_load_relaxed(&semaphore->total);

    return total <= INT32_MAX && total >= semaphore->value &&
           (!semaphore->bounded || total == semaphore->value) &&
           bri_load_relaxed(&semaphore->settling) == 0 && bri_load_relaxed(&semaphore->width) <= BRI_SLOTS &&
           bri_load_relaxed(&semaphore->free) == total - sum_held(semaphore);
}

static void unlock(brood_semaphore *semaphore)
{
    bri_check(3, is_whole(semaphore));
    bri_mutex_unlock(&semaphore->mutex);
}

/* The entries up to the slot are valid after that. */
static void widen(brood_semaphore *semaphore, uint32_t slot)
{
    for (uint32_t width = width_of(semaphore); width <= slot; width++) {
        bri_store_relaxed(&semaphore->held[width], 0u);
        bri_store_relaxed(&semaphore->waiting[width], (uint16_t)0);
        bri_store_release(&semaphore->width, width + 1);
    }
}

static int take(brood_semaphore *semaphore, uint32_t slot)
{
    widen(semaphore, slot);
    bri_store_relaxed(&semaphore->held[slot], bri_load_relaxed(&semaphore->held[slot]) + 1); /* A3 */
    bri_fault("semaphore.acquire.taken");
    bri_store_relaxed(&semaphore->free, bri_load_relaxed(&semaphore->free) - 1); /* A4 */
    bri_store_relaxed(&semaphore->hint, slot);
    if (!bri_load_relaxed(&semaphore->died))
        return TAKEN;
    bri_store_release(&semaphore->died, 0u); /* A5 */
    bri_fault("semaphore.acquire.told");
    return TAKEN + BROOD_OWNER_DIED;
}

/* A bri_condition. */
static int try_acquire(void *argument)
{
    brood_semaphore *semaphore = argument;

    if (bri_load_seq_cst(&semaphore->free) == 0)
        return 0;
    bri_mutex_lock(&semaphore->mutex); /* A1 */
    int taken = bri_load_relaxed(&semaphore->free) > 0 ? take(semaphore, own_slot()) : 0;
    unlock(semaphore); /* A6 */
    return taken;
}

static void ask_holders(void *argument)
{
    brood_semaphore *semaphore = argument;
    uint32_t width = width_of(semaphore);

    bri_vigil_ask_holder(&semaphore->mutex);
    for (uint32_t slot = 0; slot < width; slot++)
        if (bri_load_relaxed(&semaphore->held[slot]) > 0)
            bri_vigil_ask_slot(slot);
}

static int wait_for_token(brood_semaphore *semaphore, int64_t deadline)
{
    uint32_t slot = own_slot();

    bri_mutex_lock(&semaphore->mutex);
    widen(semaphore, slot);
    bri_add_relaxed(&semaphore->waiting[slot], (uint16_t)1);
    unlock(semaphore);
    int taken = bri_vigil_wait_turn(&semaphore->event, try_acquire, ask_holders, semaphore, deadline);
    bri_add_relaxed(&semaphore->waiting[slot], (uint16_t)-1);
    return taken;
}

/* R2.  BRI_SLOTS: nobody holds a token. */
static uint32_t find_holder(const brood_semaphore *semaphore)
{
    uint32_t width = width_of(semaphore);
    uint32_t likely[2] = {own_slot(), bri_load_relaxed(&semaphore->hint)};

    if (bri_load_relaxed(&semaphore->free) == bri_load_relaxed(&semaphore->total))
        return BRI_SLOTS;
    for (unsigned i = 0; i < 2; i++)
        if (likely[i] < width && bri_load_relaxed(&semaphore->held[likely[i]]) > 0)
            return likely[i];
    for (uint32_t slot = 0; slot < width; slot++)
        if (bri_load_relaxed(&semaphore->held[slot]) > 0)
            return slot;
    return BRI_SLOTS;
}

static int add_token(brood_semaphore *semaphore)
{
    uint32_t total = bri_load_relaxed(&semaphore->total);

    if (semaphore->bounded || total == INT32_MAX)
        return -EOVERFLOW;
    bri_store_relaxed(&semaphore->total, total + 1); /* R3 */
    return 0;
}

static int give_back(brood_semaphore *semaphore)
{
    uint32_t holder = find_holder(semaphore);
    int error = 0;

    if (holder == BRI_SLOTS)
        error = add_token(semaphore);
    else
        bri_store_relaxed(&semaphore->held[holder], bri_load_relaxed(&semaphore->held[holder]) - 1); /* R3 */
    bri_fault("semaphore.release.given");
    if (error == 0)
        bri_store_relaxed(&semaphore->free, bri_load_relaxed(&semaphore->free) + 1); /* R4 */
    return error;
}

static int create(uint32_t value, uint32_t bounded, brood_semaphore **ret_semaphore)
{
    void *payload;

    if (ret_semaphore == NULL)
        return bri_output_refuse("ret_semaphore");
    if (value > INT32_MAX)
        return bri_fail(EINVAL, "value is %u: a semaphore has at most 2^31-1 tokens", value);
    int error = bri_object_make(BRI_KIND_SEMAPHORE, sizeof(brood_semaphore), &payload);
    if (error < 0)
        return error;
    brood_semaphore *semaphore = payload;
    _Atomic uint32_t *zero[] = {&semaphore->event, &semaphore->died,     &semaphore->width,
                                &semaphore->hint,  &semaphore->settling, &semaphore->settled_to};
    for (unsigned i = 0; i < sizeof zero / sizeof zero[0]; i++)
        bri_store_relaxed(zero[i], 0u);
    bri_store_relaxed(&semaphore->total, value);
    bri_store_relaxed(&semaphore->free, value);
    semaphore->value = value;
    semaphore->bounded = bounded;
    bri_vigil_open(&semaphore->mutex);
    bri_object_publish(semaphore);
    *ret_semaphore = semaphore;
    return 0;
}

int brood_semaphore_create(uint32_t value, brood_semaphore **ret_semaphore)
{
    return create(value, 0, ret_semaphore);
}

int brood_semaphore_create_bounded(uint32_t value, brood_semaphore **ret_semaphore)
{
    return create(value, 1, ret_semaphore);
}

int bri_semaphore_acquire(brood_semaphore *semaphore, int64_t deadline)
{
    int error = bri_deadline_check(deadline);

    if (error < 0)
        return error;
    int taken = try_acquire(semaphore);
    if (taken == 0)
        taken = wait_for_token(semaphore, deadline);
    if (taken < 0)
        return bri_fail_wait(taken, "semaphore had no free token until the deadline");
    return taken - TAKEN;
}

int brood_semaphore_acquire(brood_semaphore *semaphore, int64_t deadline)
{
    int error = bri_handle_check(semaphore, BRI_KIND_SEMAPHORE, "semaphore");

    return error < 0 ? error : bri_semaphore_acquire(semaphore, deadline);
}

int bri_semaphore_release(brood_semaphore *semaphore)
{
    bri_mutex_lock(&semaphore->mutex); /* R1 */
    int error = give_back(semaphore);
    unlock(semaphore); /* R5: with a fence */
    if (error < 0)
        return bri_fail(EOVERFLOW, semaphore->bounded
                                       ? "semaphore has all of its tokens: release as often as acquire"
                                       : "semaphore has 2^31-1 tokens, the most that it counts");
    bri_fault("semaphore.release.unlocked");
    bri_event_signal_fenced(&semaphore->event, 1);
    return 0;
}

int brood_semaphore_release(brood_semaphore *semaphore)
{
    int error = bri_handle_check(semaphore, BRI_KIND_SEMAPHORE, "semaphore");

    return error < 0 ? error : bri_semaphore_release(semaphore);
}

int brood_semaphore_value(brood_semaphore *semaphore)
{
    int error = bri_handle_check(semaphore, BRI_KIND_SEMAPHORE, "semaphore");

    if (error < 0)
        return error;
    bri_mutex_lock(&semaphore->mutex);
    int value = (int)bri_load_relaxed(&semaphore->free);
    unlock(semaphore);
    return value;
}

static int ask_who_waits(brood_semaphore *semaphore)
{
    uint32_t width = width_of(semaphore);
    int some = 0;

    for (uint32_t slot = 0; slot < width; slot++)
        if (bri_load_acquire(&semaphore->waiting[slot]) > 0) {
            bri_vigil_ask_slot(slot);
            some |= bri_load_acquire(&semaphore->waiting[slot]) > 0;
        }
    return some;
}

int brood_semaphore_destroy(brood_semaphore *semaphore)
{
    if (semaphore == NULL)
        return 0;
    int error = bri_handle_check(semaphore, BRI_KIND_SEMAPHORE, "semaphore");
    if (error < 0)
        return error;
    if (ask_who_waits(semaphore))
        return bri_fail(EBUSY, "a process waits for a token of semaphore: wait for its end first");
    bri_mutex_lock(&semaphore->mutex);
    bri_vigil_unmake(semaphore, &semaphore->mutex);
    return 0;
}

/* M3 … M5.  Nothing when no record is open. */
static void settle(brood_semaphore *semaphore)
{
    uint32_t settling = bri_load_relaxed(&semaphore->settling);

    if (settling == 0 || settling > BRI_SLOTS)
        return;
    bri_store_release(&semaphore->total, bri_load_relaxed(&semaphore->settled_to)); /* M3 */
    bri_fault("semaphore.mourn.total");
    bri_store_release(&semaphore->held[settling - 1], 0u); /* M4 */
    bri_store_release(&semaphore->settling, 0u);           /* M5 */
}

static uint32_t spent_by(const brood_semaphore *semaphore, uint32_t slot)
{
    enum bri_slot_state state;
    bri_name name = bri_roster_name_at(slot, &state);
    uint32_t held = bri_load_relaxed(&semaphore->held[slot]);
    uint32_t added = bri_load_relaxed(&semaphore->total) - semaphore->value;

    if (bri_roster_end_of(name) != BRI_END_CLEAN)
        return 0;
    return held < added ? held : added;
}

/* M2 … M5. */
static void take_from_dead(brood_semaphore *semaphore, uint32_t slot)
{
    uint32_t spent = spent_by(semaphore, slot);

    if (bri_load_relaxed(&semaphore->held[slot]) > spent)
        bri_store_relaxed(&semaphore->died, 1u);
    bri_store_relaxed(&semaphore->settled_to, bri_load_relaxed(&semaphore->total) - spent);
    bri_store_release(&semaphore->settling, slot + 1);
    bri_fault("semaphore.mourn.settling");
    settle(semaphore);
}

static int is_listed(const brood_semaphore *semaphore, uint32_t slot)
{
    return slot < width_of(semaphore) &&
           (bri_load_relaxed(&semaphore->held[slot]) | bri_load_relaxed(&semaphore->waiting[slot])) != 0;
}

static void mourn(void *payload, bri_name dead)
{
    brood_semaphore *semaphore = payload;

    if (!bri_vigil_holder_is_dead(&semaphore->mutex) && !is_listed(semaphore, bri_slot_index(dead)))
        return;
    if (!bri_vigil_lock(semaphore, BRI_KIND_SEMAPHORE, &semaphore->mutex)) /* M1 */
        return;
    settle(semaphore);
    uint32_t width = width_of(semaphore);
    for (uint32_t slot = 0; slot < width; slot++)
        if (is_listed(semaphore, slot) && bri_slot_is_dead(slot)) {
            take_from_dead(semaphore, slot);
            bri_store_relaxed(&semaphore->waiting[slot], (uint16_t)0);
        }
    bri_store_relaxed(&semaphore->free, bri_load_relaxed(&semaphore->total) - sum_held(semaphore)); /* M6 */
    unlock(semaphore);                                                                              /* M7 */
    bri_event_signal(&semaphore->event, INT_MAX);
}

static int is_valid(void *payload)
{
    brood_semaphore *semaphore = payload;

    bri_mutex_lock(&semaphore->mutex);
    int whole = is_whole(semaphore);
    bri_mutex_unlock(&semaphore->mutex);
    return whole;
}

const struct bri_kind_ops bri_semaphore_ops = {
    .bytes = sizeof(brood_semaphore), .mourn = mourn, .is_valid = is_valid};
