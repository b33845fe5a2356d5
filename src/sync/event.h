/* SPDX-License-Identifier: MIT */
/*
 * The event count: the one way to sleep in brood, and the one wait loop.
 *
 * word:   31 ................ 1 | 0
 *         sequence              | WAITING
 *
 * A waiter                                          A waker
 *   W1  key = bri_event_prepare(e)   sets WAITING     S1  makes the condition true
 *   W2  looks at its condition again                  S2  bri_event_signal(e, n): fence; if WAITING is set:
 *   W3  bri_event_sleep(e, key, deadline)             S3    sequence + 1 by one CAS; WAITING off when all are woken
 *   W4  from the top                                  S4    futex wake n
 *                                                     S5    fewer than n slept, and the word is still S3's: WAITING off, sequence + 1
 *                                                     S6    futex wake all
 *
 * W1 (seq_cst or) before W2 and S1 before the fence of S2: either the waiter sees the condition or the waker sees WAITING.  After S3 the
 * word differs from every key handed out before, so that nobody who looked before S1 falls asleep between S3 and S4.
 *
 * Wake-some leaves WAITING on: the next signal, for another sleeper, may come before the woken one has run.  Once nobody sleeps, S5 takes
 * it off; S6 is for those who took their key between S3 and S5.  So a signal may make two system calls more than needed, never one less.
 *
 * death table
 *   waiter, after W1            WAITING stays set: the next signal makes two system calls for nobody
 *   waker, between S3 and S6,
 *   or woken, before W1 again   sleepers stay asleep though the condition holds → every death is followed by +1 on the arena's
 *                               obituary word, on which everybody sleeps too: all wake and look again
 *
 * right:  for (;;) { if (condition) break; key = prepare; if (condition) break; if (sleep < 0) …; }
 * wrong:  key = prepare; sleep;            the condition became true before prepare
 * wrong:  if (condition) …; signal; make the condition true
 */
#ifndef BRI_EVENT_H
#define BRI_EVENT_H

#include <limits.h>
#include <pthread.h>

#include "arena/arena.h"

enum { BRI_EVENT_WAITING = 1 };

static inline uint32_t bri_event_prepare(_Atomic uint32_t *event)
{
    return bri_or_seq_cst(event, (uint32_t)BRI_EVENT_WAITING) | (uint32_t)BRI_EVENT_WAITING;
}

/* Sleeps until signalled since `key`, a death in the arena since `obituary` (from bri_obituary_key, read before the condition), or the
 * deadline: -ETIMEDOUT; or until a signal's handler has run: -EINTR.  May return 0 for no reason. */
int bri_event_sleep(_Atomic uint32_t *event, uint32_t key, uint32_t obituary, int64_t deadline);

void bri_event_signal_slow(_Atomic uint32_t *event, int count);

/* A hint, unless it is S2's look. */
static inline int bri_event_has_waiters(_Atomic uint32_t *event)
{
    return (bri_load_relaxed(event) & BRI_EVENT_WAITING) != 0;
}

/* The same as S2's look, by who has put what is in the next comment: no hint. */
static inline int bri_event_has_waiters_fenced(_Atomic uint32_t *event)
{
    return (bri_load_seq_cst(event) & BRI_EVENT_WAITING) != 0;
}

/* S2 … S4 by who has put a sequentially consistent fence, or made S1 a sequentially consistent exchange, already; W2 then is a load that is so, too. */
static inline void bri_event_signal_fenced(_Atomic uint32_t *event, int count)
{
    if (bri_event_has_waiters_fenced(event))
        bri_event_signal_slow(event, count);
}

/* S2 … S4.  count INT_MAX: all.  No system call when nobody waits. */
static inline void bri_event_signal(_Atomic uint32_t *event, int count)
{
    bri_fence_seq_cst();
    if (bri_event_has_waiters(event))
        bri_event_signal_slow(event, count);
}

static inline uint32_t bri_obituary_key(void)
{
    return bri_load_seq_cst(&bri_arena_current->header->obituary);
}

/* Wakes everybody who sleeps in the arena; after the dead one's things are passed on. */
void bri_obituary_publish(void);

/* A host whose threads share a lock of its own (Python's GIL) gives it away in `hook`, which is called before the calling thread sleeps for
 * others: who holds what it waits for may be stopped.  NULL: nobody asks. */
void bri_on_sleep(void (*hook)(void));
void bri_before_sleep(void);

/* A lock of this process's threads, one of whom may sleep while it holds it. */
static inline void bri_thread_lock(pthread_mutex_t *lock)
{
    if (pthread_mutex_trylock(lock) == 0)
        return;
    bri_before_sleep();
    pthread_mutex_lock(lock);
}

/* Has something outside of brood asked for the calling thread's wait to end (brood_on_interrupt)? */
int bri_is_interrupted(void);

/* THE wait loop.  Calls condition(argument) until it is not 0 and returns that, or -ETIMEDOUT, or -EINTR (brood_on_interrupt).  The condition may change state (try to
 * acquire); it must be safe to call again.  Spins for a short while first where there is a CPU to spare (law 6).  `slice_ns` > 0: looks again
 * at least that often, for conditions that depend on a process that nobody watches; 0: never without cause. */
typedef int bri_condition(void *argument);
int bri_wait(_Atomic uint32_t *event, bri_condition *condition, void *argument, int64_t deadline,
             int64_t slice_ns);

/* Law 6: spinning is for times when every runnable participant has a CPU. */
int bri_may_spin(void);

/* What bri_may_spin of others asks: the calling process, which has a name, waits, here or by means of its own. */
void bri_set_idle(uint32_t is_idle);

/* Looks for some microseconds, without a system call: what the condition returned last. */
int bri_look(bri_condition *condition, void *argument);

/* The same, at growing distances: for what others take and give back all the time, and do so the faster the less they are looked at. */
int bri_look_apart(bri_condition *condition, void *argument);

/* As bri_wait for the end of a process: 0, -ETIMEDOUT, or -EINTR. */
int bri_wait_for_end(int pidfd, int64_t deadline);

#endif
