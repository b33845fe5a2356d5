/* SPDX-License-Identifier: MIT */
/*
 * The library's own mutex, for short sections inside shared structures.
 *
 * owner word:   0              free
 *               name           held by a thread of that process
 *
 *   0 --CAS: the claim names its owner--> name --store--> 0
 *                                         name is dead: bri_undertake (heap/recover.h) repairs the structure and frees it
 *
 * Each structure under a mutex has a ground truth that every instruction leaves whole, and copies derived from it; after a death the copies
 * are made anew.  A waiter that finds the holder dead reports the death, which sees to the repair, and waits on.
 *
 * death table
 *   before the CAS          nothing is held
 *   while it is held        owner names the dead: the undertaker's walk finds it, calls the structure's repair, stores 0, wakes
 *   after the store 0,
 *   before the signal       waiters sleep on → the obituary wakes them
 */
#ifndef BRI_MUTEX_H
#define BRI_MUTEX_H

#include "arena/roster.h"

#define BRI_MUTEX_GRAVE \
    ((bri_name)(BRI_SLOTS - 1)) /* no name: of an object that was unmade, see locks/vigil.h */

/* By who wants the mutex.  Does its word name nobody, alive or dead, or this process, which has one thread, and no thread wants what it holds?
 * Before a slot is another's the mutexes of the dead are free: such a word is damage, and whoever wants the mutex takes it.  Another
 * name that lives and does not hold it cannot be told from one that does. */
int bri_mutex_is_damaged(bri_name owner);

void bri_mutex_lock_slow(struct bri_mutex_shm *mutex);
void bri_mutex_unlock_slow(struct bri_mutex_shm *mutex);

/* Mutexes that this thread holds; the undertaker's own does not count.  Who holds one may not undertake: see undertaker.h. */
extern _Thread_local unsigned bri_mutexes_held __attribute__((tls_model("initial-exec")));
extern _Thread_local unsigned bri_undertaking_is_due __attribute__((tls_model("initial-exec")));

static inline int bri_mutex_try(struct bri_mutex_shm *mutex)
{
    bri_name nobody = 0;
    int taken = bri_cas_acq_rel(&mutex->owner, &nobody, bri_self());

    bri_mutexes_held += (unsigned)taken;
    return taken;
}

/* The caller has a slot (bri_arena_enter). */
static inline void bri_mutex_lock(struct bri_mutex_shm *mutex)
{
    if (!bri_mutex_try(mutex))
        bri_mutex_lock_slow(mutex);
}

static inline void bri_mutex_unlock(struct bri_mutex_shm *mutex)
{
    bri_store_release(&mutex->owner, (bri_name)0);
    bri_fence_seq_cst();
    bri_mutexes_held--;
    if ((bri_load_relaxed(&mutex->event) & 1u) | bri_undertaking_is_due) /* 1: BRI_EVENT_WAITING */
        bri_mutex_unlock_slow(mutex);
}

/* For those who repair: takes the mutex over from a dead holder, or none (one CAS; should the new holder die too, its own death is repaired in
 * the same way).  True when the caller holds it now: repair, then bri_mutex_unlock. */
static inline int bri_mutex_take_over(struct bri_mutex_shm *mutex, bri_name dead)
{
    int taken = bri_cas_acq_rel(&mutex->owner, &dead, bri_self());

    bri_mutexes_held += (unsigned)taken;
    return taken;
}

static inline int bri_mutex_is_held_by(struct bri_mutex_shm *mutex, bri_name name)
{
    return bri_load_acquire(&mutex->owner) == name;
}

#endif
