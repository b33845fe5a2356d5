/* SPDX-License-Identifier: MIT */
/*
 * The recursive lock.
 *
 * word:   63 ....... 32 | 31   | 30 ....... 0
 *         holder's name | DIED | number of its thread
 *
 *   0                    free
 *   DIED                 free, and the one who held it before died holding it
 *   name, number         held by that thread; DIED is never set then
 *
 *   0, DIED --acquire (CAS)--> name, number --last release (store)--> 0, or DIED when `untold`
 *                              name, number --mourn (CAS), the name is dead--> DIED
 *
 * Threads are numbered in the order in which they first come here, by a counter of the process that a fork copies: a
 * forked child goes on counting, and differs from its parent by its name.  A number comes again after 2^31 threads.
 *
 * field    writer                                   readers         protection
 * word     everybody when free, the holder, mourn   everybody       CAS, but for the holder's own release
 * count    the holder                               the holder      the lock itself; each holder sets it anew
 * untold   the holder                               the holder      the lock itself; each holder sets it anew
 * event    see sync/event.h
 *
 * acquire   A1  CAS 0 or DIED → us (linearisation point)     A2  count = 1, untold = 0
 *           or, held by us: count + 1 (linearisation point)
 * release   R1  count > 1: count - 1 (linearisation point)
 *           R2  count is 1: store 0 (linearisation point)    R3  signal one waiter
 *
 * order     "locked": A1 (acquire) sees what R2 (release) published; count and untold travel with it
 *
 * death table
 *   before A1        nothing is held
 *   after A1 … R2    the word names the dead → mourn: DIED.  Whatever count says is overwritten by the next A2
 *   after R2         free; sleepers sleep on → their slice ends, or an obituary comes (vigil.h)
 *
 * Why a store is enough at R2: while the word names a living holder nobody else writes it.  Why mourn's CAS cannot hit
 * anybody else: a name is given once.  A thread that ends while it holds the lock keeps it until its process ends.
 *
 * right, wrong: as for the lock, see lock.c
 */
#include <errno.h>
#include <stddef.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/error.h"
#include "brood.h"
#include "locks/handle.h"
#include "locks/locks.h"
#include "locks/vigil.h"

#define DIED        (UINT64_C(1) << 31)
#define THREAD_MASK (DIED - 1)
#define DEEPEST     (UINT32_C(1) << 30)

enum { TAKEN = 1 };

static _Atomic uint32_t threads_numbered;
static _Thread_local uint32_t own_number __attribute__((tls_model("initial-exec")));

static uint32_t number_of_thread(void)
{
    while (own_number == 0)
        own_number = (bri_add_relaxed(&threads_numbered, 1u) + 1) & (uint32_t)THREAD_MASK;
    return own_number;
}

static uint64_t own_word(void)
{
    return (uint64_t)bri_self() << 32 | number_of_thread();
}

static int is_free(uint64_t word)
{
    return word == 0 || word == DIED;
}

static bri_name holder_of(uint64_t word)
{
    return (bri_name)(word >> 32);
}

/* A2 */
static void begin_holding(brood_rlock *lock)
{
    bri_fault("rlock.acquire.taken");
    bri_store_relaxed(&lock->count, 1u);
    bri_store_relaxed(&lock->untold, 0u);
}

/* A1, A2.  A bri_condition. */
static int try_acquire(void *argument)
{
    brood_rlock *lock = argument;
    uint64_t word = bri_load_seq_cst(&lock->word);

    while (is_free(word))
        if (bri_cas_acq_rel(&lock->word, &word, own_word())) {
            begin_holding(lock);
            return word == DIED ? TAKEN + BROOD_OWNER_DIED : TAKEN;
        }
    return 0;
}

static void ask_holder(void *argument)
{
    brood_rlock *lock = argument;

    bri_report_if_ended(holder_of(bri_load_acquire(&lock->word)));
}

/* A condition's own lock lies inside the condition, not in a block of its own. */
static int is_of_condition(const brood_rlock *lock)
{
    uintptr_t payload = (uintptr_t)lock - offsetof(struct brood_condition, own);

    return (uintptr_t)lock > offsetof(struct brood_condition, own) &&
           bri_heap_is((const void *)payload, BRI_KIND_CONDITION) &&
           ((const struct brood_condition *)payload)->lock == bri_offset_of(lock);
}

int bri_rlock_check(const brood_rlock *lock, const char *argument)
{
    if (!bri_heap_is(lock, BRI_KIND_RLOCK) && !is_of_condition(lock))
        return bri_handle_refuse(lock, BRI_KIND_RLOCK, argument);
    return bri_self() != 0 ? 0 : bri_arena_enter();
}

void bri_rlock_init(brood_rlock *lock)
{
    bri_store_relaxed(&lock->event, 0u);
    bri_store_relaxed(&lock->count, 0u);
    bri_store_relaxed(&lock->untold, 0u);
    bri_store_relaxed(&lock->word, UINT64_C(0));
}

uint32_t bri_rlock_depth(const brood_rlock *lock)
{
    return bri_load_relaxed(&lock->word) == own_word() ? bri_load_relaxed(&lock->count) : 0;
}

static int acquire_again(brood_rlock *lock, uint32_t depth)
{
    if (depth == DEEPEST)
        return bri_fail(EAGAIN, "lock is held %u times by this thread, the most that it counts", depth);
    bri_store_relaxed(&lock->count, depth + 1);
    return 0;
}

int bri_rlock_take(brood_rlock *lock, int64_t deadline)
{
    int taken = try_acquire(lock);

    if (taken == 0)
        taken = bri_vigil_wait_turn(&lock->event, try_acquire, ask_holder, lock, deadline);
    if (taken < 0)
        return bri_fail_wait(taken, "lock was held until the deadline");
    return taken - TAKEN;
}

void bri_rlock_give(brood_rlock *lock)
{
    uint64_t word = bri_load_relaxed(&lock->untold) ? DIED : 0;

    bri_store_release(&lock->word, word); /* R2 */
    bri_fault("rlock.release.free");
    bri_event_signal(&lock->event, 1); /* R3 */
}

void bri_rlock_untell(brood_rlock *lock)
{
    bri_store_relaxed(&lock->untold, 1u);
}

int bri_rlock_close(brood_rlock *lock)
{
    if (try_acquire(lock))
        return 0;
    ask_holder(lock);
    return try_acquire(lock) ? 0 : bri_fail(EBUSY, "lock is held: release it before it is destroyed");
}

int brood_rlock_create(brood_rlock **ret_lock)
{
    void *payload;

    if (ret_lock == NULL)
        return bri_output_refuse("ret_lock");
    int error = bri_object_make(BRI_KIND_RLOCK, sizeof(brood_rlock), &payload);
    if (error < 0)
        return error;
    bri_rlock_init(payload);
    bri_object_publish(payload);
    *ret_lock = payload;
    return 0;
}

int bri_rlock_acquire(brood_rlock *lock, int64_t deadline)
{
    int error = bri_deadline_check(deadline);

    if (error < 0)
        return error;
    uint32_t depth = bri_rlock_depth(lock);
    return depth > 0 ? acquire_again(lock, depth) : bri_rlock_take(lock, deadline);
}

int bri_rlock_try(brood_rlock *lock)
{
    uint32_t depth = bri_rlock_depth(lock);
    uint64_t free = 0;

    if (depth > 0)
        return depth < DEEPEST && acquire_again(lock, depth) == 0;
    if (!bri_cas_acq_rel(&lock->word, &free, own_word()))
        return 0;
    begin_holding(lock);
    return 1;
}

int bri_rlock_release(brood_rlock *lock)
{
    uint32_t depth = bri_rlock_depth(lock);

    if (depth == 0)
        return bri_fail(EPERM,
                        "lock is not held by this thread: only the thread that acquired it releases it");
    if (depth > 1)
        bri_store_relaxed(&lock->count, depth - 1); /* R1 */
    else
        bri_rlock_give(lock);
    return 0;
}

int brood_rlock_acquire(brood_rlock *lock, int64_t deadline)
{
    int error = bri_rlock_check(lock, "lock");

    return error < 0 ? error : bri_rlock_acquire(lock, deadline);
}

int brood_rlock_release(brood_rlock *lock)
{
    int error = bri_rlock_check(lock, "lock");

    return error < 0 ? error : bri_rlock_release(lock);
}

int brood_rlock_destroy(brood_rlock *lock)
{
    if (lock == NULL)
        return 0;
    int error = bri_rlock_check(lock, "lock");
    if (error < 0)
        return error;
    if (!bri_heap_is(lock, BRI_KIND_RLOCK))
        return bri_fail(EINVAL, "lock belongs to a brood_condition: destroy the condition");
    error = bri_rlock_close(lock);
    if (error < 0)
        return error;
    bri_object_unmake(lock);
    return 0;
}

void bri_rlock_mourn(brood_rlock *lock, bri_name dead)
{
    uint64_t word = bri_load_acquire(&lock->word);

    if (holder_of(word) == dead && bri_cas_acq_rel(&lock->word, &word, DIED))
        bri_event_signal(&lock->event, 1);
}

int bri_rlock_is_whole(const brood_rlock *lock)
{
    uint64_t word = bri_load_relaxed(&lock->word);

    return is_free(word) || (holder_of(word) != 0 && (word & DIED) == 0 && (word & THREAD_MASK) != 0);
}

static void mourn(void *payload, bri_name dead)
{
    bri_rlock_mourn(payload, dead);
}

static int is_valid(void *payload)
{
    return bri_rlock_is_whole(payload);
}

const struct bri_kind_ops bri_rlock_ops = {
    .bytes = sizeof(brood_rlock), .mourn = mourn, .is_valid = is_valid};
