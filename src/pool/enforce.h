/* SPDX-License-Identifier: MIT */
/*
 * Ending tasks that run: past their time, or cancelled.  The supervisor does it; why it is done so: docs/design/0009-ending-tasks.md.
 *
 * field         – writer – readers
 *   ends_at       the worker, before each item of a job with item_timeout_ms and behind the last        supervisor
 *   wakes_at      the supervisor, before it sleeps                                                       workers, owner
 *   alarm_at      owner: downward, after the job is offered; supervisor: anew                            supervisor
 *   looking       the supervisor: job that it reads; its successor: 0                                    owner (F2 of pool.h)
 *   verdict       the supervisor, while the worker is stopped: progress word of the item, or ALL         worker, undertaker
 *   phase, …      the supervisor
 *
 * The end of a task, phase × what happened (E: supervisor; a blank stays)
 *
 *                 its item is due             stopped, or 100 ms over                   its time is over        the worker died
 *   CALM          SIGSTOP → STOPPING          –                                         –                       CALM
 *   STOPPING                                  due still: E1; else SIGCONT → CALM                                CALM
 *   SOFT                                                                                SIGTERM → TERM          CALM
 *   TERM                                                                                SIGKILL → KILLED        CALM
 *   KILLED                                                                                                      CALM
 *
 *   E1  verdict_kind, then verdict = the progress word; the soft signal → SOFT, or SIGTERM → TERM; SIGCONT
 *
 * due: the visited job is stopped (bri_job_is_stopped) and the worker has a claim in it, or the item is RUNNING and ends_at has passed.
 * LINEARISATION: the store of verdict.  A stopped worker changes none of its words; one that cannot be stopped within 100 ms is in the
 * kernel, and changes them as little before the signal gets it.  With a verdict the worker begins nothing else: it looks after each
 * item that it can have been condemned in, and before each claim, and ends with BRI_CONDEMNED.  So no later signal hits another item.
 *
 * Sleeping                                        the worker (an item begins), the owner (a job with a deadline)
 *   S1  wakes_at = the earliest of all ends         B1  ends_at, alarm_at = its end
 *   S2  fence; looks again for an earlier one       B2  fence; earlier than wakes_at? then rings
 *   S3  poll until then
 * S1 before S2 and B1 before B2, all sequentially consistent: one of the two sees the other.  While it is awake wakes_at is old: it
 * looks again before it sleeps.
 *
 * death table
 *   worker         at any step: reaped, mourned (job.h); a verdict on the item it ran names the outcome
 *   supervisor     before E1: its workers die with it, the item is DIED.  After: the verdict stands in the seat, and the outcome is that
 *                  of the verdict.  looking: its successor clears it; a pool that gets no successor is not visited by anybody
 *   owner          all ends (supervisor.c)
 *   undertaker     reads the verdict only
 *
 * right:  stop, look, write the verdict, go on, signal       wrong:  look, signal: the worker may be at another item by then
 */
#ifndef BRI_ENFORCE_H
#define BRI_ENFORCE_H

#include "pool/pool.h"

enum bri_verdict { BRI_VERDICT_NONE, BRI_VERDICT_ITEM_TIME, BRI_VERDICT_CALL_TIME, BRI_VERDICT_CANCELLED };
enum bri_phase { BRI_PHASE_CALM, BRI_PHASE_STOPPING, BRI_PHASE_SOFT, BRI_PHASE_TERM, BRI_PHASE_KILLED };

#define BRI_VERDICT_ALL UINT64_MAX /* a word that no item has: between two items of a stopped job */

/* The supervisor's.  A worker sits down: nothing is known of it. */
void bri_enforce_reset(struct bri_seat_shm *seat);

/* Whatever is due now, at all seats and of all deadlines. */
void bri_enforce(brood_pool *pool, int64_t now);

/* S1, S2: not before `until`, unless something is due earlier.  Returns when. */
int64_t bri_enforce_prepare_sleep(brood_pool *pool, int64_t until);

/* B2, by a worker or the owner. */
static inline int bri_enforce_is_asleep_at(struct bri_pool_shm *pool, int64_t end)
{
    bri_fence_seq_cst();
    return end < bri_load_seq_cst(&pool->wakes_at);
}

/* The owner's B1 and B2 for a job's deadline: true when the supervisor is to be rung. */
int bri_enforce_set_alarm(struct bri_pool_shm *pool, int64_t deadline);

/* Is there a call in the standing job that nobody has claimed?  By the supervisor. */
int bri_enforce_has_call(struct bri_pool_shm *pool);

/* The outcome of an item that was ended for that reason; pid, signal and exit code are there already. */
void bri_verdict_tell(enum bri_verdict verdict, const struct bri_job_shm *job, uint64_t item,
                      brood_outcome *outcome);

#endif
