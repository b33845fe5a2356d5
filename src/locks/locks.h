/* SPDX-License-Identifier: MIT */
/*
 * Locks and what is built like them: the structures that lie in the arena.
 *
 * A handle of the public interface is the address of one of these: the payload of one block, so that making and
 * unmaking an object is one store to the block's tag (handle.h).  Nothing here is a pointer.
 *
 *   object     ground truth                                  derived, made anew by mourn        mutex
 *   lock       word                                          -                                  no
 *   rlock      word; count while it is held                  -                                  no
 *   semaphore  total, held[slot]                             free = total - sum of held         yes
 *   condition  notified, waiters[].ticket                    width                              yes
 *   event      word, number                                  -                                  no
 *   barrier    phase, words[slot]                            arrived = sum of this generation   yes
 *
 * "slot" is the index of a participant in the roster.  A word of a slot is written by the participant whose slot it is,
 * and by others under the object's mutex.  It needs no epoch: the argument stands in vigil.h.
 *
 * The arrays by slot are zeroed as far as they are used: entries below `width` are valid.
 */
#ifndef BRI_LOCKS_H
#define BRI_LOCKS_H

#include "arena/arena.h"
#include "brood.h"
#include "heap/heap.h"

/* word, drawn in lock.c */
struct brood_lock {
    _Atomic uint64_t word;
    _Atomic uint32_t event; /* the lock came free */
};

/* word, drawn in rlock.c */
struct brood_rlock {
    _Atomic uint64_t word;
    _Atomic uint32_t event;  /* the lock came free */
    _Atomic uint32_t count;  /* holder: how deep; nothing while the lock is free */
    _Atomic uint32_t untold; /* holder: 1: a death that nobody was told of; nothing while the lock is free */
};

struct brood_semaphore {
    struct bri_mutex_shm mutex; /* first in every object that has one: see vigil.h */
    _Atomic uint32_t event;     /* tokens came free */
    _Atomic uint32_t total;     /* tokens that there are */
    _Atomic uint32_t free;      /* derived */
    _Atomic uint32_t died;      /* 1: the next acquire says BROOD_OWNER_DIED */
    _Atomic uint32_t width;
    _Atomic uint32_t hint;       /* the slot that took a token last */
    _Atomic uint32_t settling;   /* slot + 1 whose tokens are being passed on; 0: none */
    _Atomic uint32_t settled_to; /* what `total` will be then */
    uint32_t value;              /* maker: tokens at the start; `total` never falls below */
    uint32_t bounded;            /* maker */
    _Alignas(BRI_CACHE_LINE) _Atomic uint32_t held[BRI_SLOTS];
    _Atomic uint16_t waiting[BRI_SLOTS]; /* threads of that slot that wait; for destroy */
};

/* A waiter's entry; drawn in condition.c. */
struct bri_waiter_shm {
    _Atomic uint64_t ticket; /* 0: the entry is free */
    _Atomic bri_name name;
    _Atomic uint32_t event;
};

#define BRI_WAITERS 1008u /* the object fits a block of 16 KiB */

struct brood_condition {
    struct bri_mutex_shm mutex;
    _Atomic uint32_t width; /* entries from here on are free */
    uint32_t padding;
    _Atomic uint64_t notified; /* all tickets up to this one are notified */
    _Atomic uint64_t next;     /* the last ticket given out */
    bri_offset lock;           /* maker: the rlock, `own` or somebody else's */
    _Alignas(BRI_CACHE_LINE) struct brood_rlock own;
    _Alignas(BRI_CACHE_LINE) struct bri_waiter_shm waiters[BRI_WAITERS];
};
_Static_assert(sizeof(struct brood_condition) + sizeof(struct bri_block_shm) <= 16384, "fits its size class");

/* word, drawn in event.c */
struct brood_event {
    _Atomic uint64_t word;
    _Atomic uint64_t number; /* maker: no other event of the arena ever has it */
};

/* Where those who wait for it sleep, together with those of some other events.  It outlives the event. */
static inline _Atomic uint32_t *bri_event_berth(const brood_event *event)
{
    return &bri_arena_current->header->berths[bri_offset_of(event) / BRI_CACHE_LINE % BRI_BERTHS];
}

#define BRI_RESETS_KEPT 8u

struct brood_barrier {
    struct bri_mutex_shm mutex;
    _Atomic uint32_t event;   /* phase changed, or somebody left */
    uint32_t parties;         /* maker */
    _Atomic uint64_t phase;   /* drawn in barrier.c */
    _Atomic uint32_t arrived; /* derived */
    _Atomic uint32_t width;
    _Atomic uint32_t trips_at_reset[BRI_RESETS_KEPT];
    _Alignas(BRI_CACHE_LINE) _Atomic uint32_t words[BRI_SLOTS]; /* drawn in barrier.c */
    _Atomic uint16_t inside[BRI_SLOTS]; /* threads of that slot that have not left wait; for destroy */
};

extern const struct bri_kind_ops bri_lock_ops, bri_rlock_ops, bri_semaphore_ops, bri_condition_ops,
    bri_event_ops, bri_barrier_ops;

/* As brood_lock_acquire and _release, for whoever has joined the arena and knows that the handle is one (lock.c). */
int bri_lock_acquire(brood_lock *lock, int64_t deadline);
int bri_lock_release(brood_lock *lock);

/* The same for semaphores (semaphore.c). */
int bri_semaphore_acquire(brood_semaphore *semaphore, int64_t deadline);
int bri_semaphore_release(brood_semaphore *semaphore);

/* Takes a lock that is free, and that nobody has died with, or an rlock that is the calling thread's, in one step: 1; 0: it is another matter, or
 * another's. */
int bri_rlock_try(brood_rlock *lock);
static inline int bri_lock_try(brood_lock *lock, bri_name self)
{
    uint64_t free = 0;

    return bri_cas_acq_rel(&lock->word, &free, (uint64_t)self); /* A1 */
}

/* --- the rlock, for the condition that waits on it (rlock.c) --- */

/* 0 when it is the handle of an rlock, a condition's own included; -EINVAL. */
int bri_rlock_check(const brood_rlock *lock, const char *argument);

void bri_rlock_init(brood_rlock *lock);

/* How often the calling thread holds it. */
uint32_t bri_rlock_depth(const brood_rlock *lock);

/* As brood_rlock_acquire and _release, the handle being checked. */
int bri_rlock_acquire(brood_rlock *lock, int64_t deadline);
int bri_rlock_release(brood_rlock *lock);

/* The same where the calling thread does not hold it, and where it holds it once. */
int bri_rlock_take(brood_rlock *lock, int64_t deadline);
void bri_rlock_give(brood_rlock *lock);

/* By the holder, who was told of a death and cannot tell: the next acquire shall. */
void bri_rlock_untell(brood_rlock *lock);

/* Takes it for good, to unmake it.  0, or -EBUSY: it is held by somebody alive. */
int bri_rlock_close(brood_rlock *lock);

void bri_rlock_mourn(brood_rlock *lock, bri_name dead);
int bri_rlock_is_whole(const brood_rlock *lock);

#endif
