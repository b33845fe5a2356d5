/* SPDX-License-Identifier: MIT */
/*
 * The lock.
 *
 * word:   63 ........ 33 | 32   | 31 ....... 0
 *         0              | DIED | holder's name
 *
 *   0                    free
 *   DIED                 free, and the one who held it before died holding it
 *   name                 held by a thread of that process; DIED is never set then
 *
 *   0, DIED --acquire (CAS)--> name --release (CAS)--> 0
 *                              name --mourn (CAS), the name is dead--> DIED
 *
 * field   writer                                     readers      protection
 * word    acquire, release, mourn, destroy: by CAS   everybody    none is needed: it is all there is
 * event   see sync/event.h
 *
 * All operations may overlap, release by somebody else than the holder included: release frees exactly the claim that it
 * has seen, or looks again.
 *
 * acquire   A1  CAS 0 or DIED → our name: the lock is ours (linearisation point)
 *           A2  return BROOD_OWNER_DIED if it was DIED.  It is held: wait, from A1
 * release   R1  CAS name → 0: the lock is free (linearisation point).  It is free already: -EPERM
 *           R2  signal one waiter
 * destroy   D1  A1   D2  unmake: one store to the block's tag   D3  the block is given back
 *
 * order     "locked": A1 (acquire) sees what R1 (release) published, so the sections of two holders do not overlap
 *           "asleep": A1's look at the word and R1 are ordered against the event word as in sync/event.h
 *
 * death table
 *   before A1, D1      nothing is held
 *   after A1, D1       the word names the dead → mourn: DIED, the next one is told.  D1 alone destroys nothing
 *   after R1           the lock is free; sleepers sleep on → their slice ends, or an obituary comes (vigil.h)
 *   after D2           the block is owned by the dead → the undertaker frees it
 *   mourn              one CAS, and a signal: as after R1
 *
 * Why nobody hangs: a waiter sleeps only while the word names somebody.  Either that one releases, or it dies and the
 * waiter (or who watches it) reports it: then mourn frees the lock.  Why the message is given once: DIED is consumed by
 * the CAS that acquires.  Who dies between that CAS and its return is a holder who died, so it is set again.
 *
 * right:  got = brood_lock_acquire(lock, …); if (got < 0) return; if (got == BROOD_OWNER_DIED) repair(); …
 * wrong:  if (brood_lock_acquire(lock, …) != 0) return;      takes BROOD_OWNER_DIED for a failure and keeps the lock
 */
#include <errno.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/error.h"
#include "brood.h"
#include "locks/handle.h"
#include "locks/locks.h"
#include "locks/vigil.h"

#define DIED (UINT64_C(1) << 32)

enum { TAKEN = 1 }; /* what try_acquire adds, since a condition's 0 is "not yet" */

static int is_free(uint64_t word)
{
    return word == 0 || word == DIED;
}

static int is_whole(const brood_lock *lock)
{
    uint64_t word = bri_load_relaxed(&lock->word);

    return word <= UINT32_MAX || word == DIED;
}

/* A1.  A bri_condition. */
static int try_acquire(void *argument)
{
    brood_lock *lock = argument;
    uint64_t word = bri_load_seq_cst(&lock->word);

    while (is_free(word))
        if (bri_cas_acq_rel(&lock->word, &word, (uint64_t)bri_self())) {
            bri_fault("lock.acquire.taken");
            return word == DIED ? TAKEN + BROOD_OWNER_DIED : TAKEN;
        }
    return 0;
}

static void ask_holder(void *argument)
{
    brood_lock *lock = argument;

    bri_report_if_ended((bri_name)bri_load_acquire(&lock->word));
}

int brood_lock_create(brood_lock **ret_lock)
{
    void *payload;

    if (ret_lock == NULL)
        return bri_output_refuse("ret_lock");
    int error = bri_object_make(BRI_KIND_LOCK, sizeof(brood_lock), &payload);
    if (error < 0)
        return error;
    brood_lock *lock = payload;
    bri_store_relaxed(&lock->event, 0u);
    bri_store_relaxed(&lock->word, UINT64_C(0));
    bri_object_publish(lock);
    *ret_lock = lock;
    return 0;
}

int bri_lock_acquire(brood_lock *lock, int64_t deadline)
{
    int error = bri_deadline_check(deadline);

    if (error < 0)
        return error;
    int taken = try_acquire(lock);
    if (taken == 0)
        taken = bri_vigil_wait_turn(&lock->event, try_acquire, ask_holder, lock, deadline);
    if (taken < 0)
        return bri_fail_wait(taken, "lock was held until the deadline");
    return taken - TAKEN;
}

int brood_lock_acquire(brood_lock *lock, int64_t deadline)
{
    int error = bri_handle_check(lock, BRI_KIND_LOCK, "lock");

    return error < 0 ? error : bri_lock_acquire(lock, deadline);
}

int bri_lock_release(brood_lock *lock)
{
    uint64_t word = bri_load_acquire(&lock->word);

    do {
        if (is_free(word))
            return bri_fail(EPERM, "lock is not held: acquire it first");
    } while (!bri_cas_seq_cst(&lock->word, &word, UINT64_C(0))); /* R1 */
    bri_fault("lock.release.free");
    bri_event_signal_fenced(&lock->event, 1); /* R2 */
    return 0;
}

int brood_lock_release(brood_lock *lock)
{
    int error = bri_handle_check(lock, BRI_KIND_LOCK, "lock");

    return error < 0 ? error : bri_lock_release(lock);
}

int brood_lock_destroy(brood_lock *lock)
{
    if (lock == NULL)
        return 0;
    int error = bri_handle_check(lock, BRI_KIND_LOCK, "lock");
    if (error < 0)
        return error;
    if (!try_acquire(lock)) {
        ask_holder(lock);
        if (!try_acquire(lock)) /* D1 */
            return bri_fail(EBUSY, "lock is held: release it before it is destroyed");
    }
    bri_fault("lock.destroy.taken");
    bri_object_unmake(lock); /* D2, D3 */
    return 0;
}

static void mourn(void *payload, bri_name dead)
{
    brood_lock *lock = payload;
    uint64_t word = dead;

    if (bri_cas_acq_rel(&lock->word, &word, DIED))
        bri_event_signal(&lock->event, 1);
}

static int is_valid(void *payload)
{
    return is_whole(payload);
}

const struct bri_kind_ops bri_lock_ops = {.bytes = sizeof(brood_lock), .mourn = mourn, .is_valid = is_valid};
