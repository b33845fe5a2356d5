/* SPDX-License-Identifier: MIT */
/*
 * Waiting for others who may be dead, and what the undertaker does to an object.
 *
 * WAITING.  Workers and brood_processes are watched: their death is known at once.  A process that the user forked is
 * not.  So whoever waits for others asks the kernel about them now and then: at the end of each slice of its wait, 50 ms
 * at first and doubling up to 800 ms, and at the end of waits that are shorter, but not more than once per 50 ms and
 * thread, so that polling with BROOD_NOW finds a dead holder too.  At the end of a slice the condition is looked at again:
 * a waker may have died between its commit and its wake-up call.
 *
 * SLOTS.  Words indexed by slot carry no epoch.  Why an entry other than 0 always belongs to the name that the slot shows:
 *   1. Only threads of the participant raise its entry, so only while the slot shows its name and it runs.
 *   2. Its slot turns DEAD after it has ended: nobody raises the entry from then on.
 *   3. The slot can be claimed anew only after the undertaker's walk, begun after 2, has called mourn for every object.
 *      An object that the walk did not see was published after 2, so the dead one never used it.
 *   4. mourn zeroes the entry.
 *
 * MOURNING.  An object's mutex is held by one of
 *
 *   0                     nobody
 *   a name                a thread of that process
 *   BRI_MUTEX_GRAVE       the block is no object now: it was unmade, or is not made yet.  No name has epoch 0
 *
 * bri_vigil_lock, for the undertaker, takes it from nobody or from the dead, and never in a grave:
 *   V1  the object is published, else give up           V3  the object is published still, else unlock and give up
 *   V2  CAS 0 → us, or CAS a dead name → us             V4  wait for the living holder; from V1
 *
 * Taken from 0 the lock is genuine, in an object that was just unmade and made again too: the maker sets 0 last, and never
 * writes the word again.  Taken from a dead name it is genuine too: unmaking replaces its name by the grave before it gives
 * the block back, and a block that it did not give back is given back by the undertaker only, which is us.
 *
 * All of mourn is done under that mutex, for all slots that are DEAD at once: when an undertaker was killed in the middle,
 * its successor completes what it had begun before anybody else gets the mutex.
 */
#ifndef BRI_VIGIL_H
#define BRI_VIGIL_H

#include "arena/roster.h"
#include "heap/heap.h"
#include "sync/event.h"
#include "sync/mutex.h"

/* Calls bri_report_if_ended for those that the waiter depends on.  No mutex is held. */
typedef void bri_inquire(void *argument);

/* bri_wait for a condition that others may have to bring about who die unwatched.  inquire may be NULL. */
int bri_vigil_wait(_Atomic uint32_t *event, bri_condition *condition, bri_inquire *inquire, void *argument,
                   int64_t deadline);

/* The same for what is passed from hand to hand: whoever has it is left alone for a while, so that it does more in its turn. */
int bri_vigil_wait_turn(_Atomic uint32_t *event, bri_condition *condition, bri_inquire *inquire,
                        void *argument, int64_t deadline);

/* bri_report_if_ended for the process of a slot, if there is one. */
void bri_vigil_ask_slot(uint32_t slot);

/* … for the holder of a mutex. */
void bri_vigil_ask_holder(struct bri_mutex_shm *mutex);

/* The slot's process has died and is not wholly passed on. */
int bri_slot_is_dead(uint32_t slot);

static inline uint32_t bri_slot_index(bri_name name)
{
    return name & (BRI_SLOTS - 1);
}

/* For mourn only: V1 … V4.  1: the mutex is ours; derived copies may be stale.  0: there is no object. */
int bri_vigil_lock(void *payload, enum bri_kind kind, struct bri_mutex_shm *mutex);

/* For mourn: is there nothing to do under the mutex, as far as its holder goes?  A dead one is never gone by itself. */
int bri_vigil_holder_is_dead(struct bri_mutex_shm *mutex);

/* bri_object_unmake for an object whose mutex the caller holds; it is held by the grave then. */
void bri_vigil_unmake(void *payload, struct bri_mutex_shm *mutex);

/* The mutex of a new object, as its last word. */
static inline void bri_vigil_open(struct bri_mutex_shm *mutex)
{
    bri_store_relaxed(&mutex->event, 0u);
    bri_store_release(&mutex->owner, (bri_name)0);
}

#endif
