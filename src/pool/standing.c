/* SPDX-License-Identifier: MIT */
/*
 * The standing job: what is called by one thread and awaited by it, one item of few bytes, needs no job of its own.  The owner keeps one whose words
 * it sets anew for each call, and the workers that have nothing else to do visit it all the time, and look at its one chunk: a call is two lines
 * that move there (job.h), and nothing is offered, looked for, allocated or freed.  All else is as in any job: the claim, the steps J3 … J8,
 * their death table, the wait.
 *
 *   chunk word:   … DONE --owner--> ARMING --owner--> FREE --CAS--> w + 1 ----> DONE …          the rest as in job.h
 *   round:        k of the k-th call;   ended: k when it is complete
 *   visiting:     S | VALID | LISTEN   a worker that has claimed nothing in S;   S | VALID   from before its claim until after J8
 *
 * field – writer – readers: the first line, and the size of the result: the owner between two calls, that is while the word is DONE or ARMING – the
 * worker that claims.  standing (pool.h): the owner – workers.
 *
 * A call (owner; one thread at a time, the others make jobs of their own meanwhile)
 *   C1  word = ARMING
 *   C2  the item, the number, the function; the size of the result where it is another than before
 *   C3  round = k
 *   C4  word = FREE (linearisation of "it is offered"); wakes a worker when one sleeps and none comes by itself
 *   C5  waits until ended is k; copies the result
 *   C6  forgets the failure, if that is how it ended.  The job is good for the next call if it is as it was made: has no resumes, which is what a
 *       death in the item leaves, and no damage.  Else it is given up as any job is (F1: standing = 0), and the next call makes another.
 *       After a wait that was interrupted the call goes on, and C6 is the next call's, if it has ended by then; else that takes a job of its own
 * Listening (worker)
 *   L1  J1, J2 with `standing` for the ring's entry; visiting gets LISTEN
 *   L2  word is FREE: visiting loses LISTEN; then J3, J4 …
 *   L3  word is something else, and so are other jobs' words: it waits for the pool's event, as ever, and keeps its visit
 *   L4  standing is not S any more, or there is another job: the visit ends
 *
 * orderings
 *   C1 before C3 (release; who reads the round reads it acquire and the word after it): nobody who sees round k still sees DONE of k - 1, so nobody
 *     says of k that it is complete because k - 1 was.  Who saw DONE of k - 1, and comes late, fails with its CAS of ended, k - 2 → k - 1.
 *   C4 and the event's word, the worker's preparation to sleep and its look at the word: sequentially consistent (event.h).
 *   L2 before J4, J8 before LISTEN: a claim in S is the claim of a seat that does not listen.  See "Damage" in pool.h.
 *
 * order: a call is only put into S when nothing waits in the ring, and who comes from other jobs looks at S before the ring: it overtakes what
 * other threads offer at the same time, at most, and is not overtaken but by what a dead worker gave back.
 *
 * death table
 *   worker, listening   nothing is claimed: its visit ends, and nothing else is done
 *   worker, L2 … J8     job.h.  What is FREE again is found by those who listen, and among the returns, where the job may stay while it stands
 *   owner               as ever: the job is a block of its own
 *   undertaker          as in job.h: it looks only at the word, at what the dead one's progress says, and at constants that stand while it has a claim
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/check.h"
#include "pool/pool.h"
#include "pool/result.h"
#include "sync/event.h"

/* Numbers of calls are others than those of jobs from the ring: what a worker runs is told by them. */
enum { NUMBERS = 1 << (BRI_JOB_NUMBER_BITS - 1) };

enum {
    CONSTANTS_AT = offsetof(struct bri_job_shm, flags),
    RESULT_BYTES_AT = offsetof(struct bri_job_shm, result_bytes) - CONSTANTS_AT
};

static const char *constants_of(const struct bri_job_shm *job)
{
    return (const char *)job + CONSTANTS_AT;
}

/* Between calls; the first one is round 1. */
static int make(brood_pool *pool)
{
    static const char nothing[BRI_SMALL_ITEMS];
    struct bri_job_view *standing = &pool->standing;
    struct bri_job_wish wish = {.items = nothing,
                                .count = 1,
                                .item_bytes = BRI_SMALL_ITEMS,
                                .result_bytes = BRI_SMALL_RESULTS,
                                .notify = bri_offset_of(&pool->shared->finished),
                                .workers = pool->options.workers};

    int error = bri_job_make(&wish, standing);
    if (error < 0) {
        standing->job = NULL;
        return error;
    }
    struct bri_job_shm *job = standing->job;
    memcpy(pool->standing_constants, constants_of(job), BRI_JOB_CONSTANTS); /* nobody else has seen it yet */
    standing->round = 0;
    bri_store_relaxed(&job->round, UINT64_C(0));
    bri_store_relaxed(&job->word, (uint16_t)BRI_CHUNK_ARMING);
    bri_store_seq_cst(&pool->shared->standing, bri_offset_of(job));
    return 0;
}

/* What differs in each call, and what rarely does and stays in the workers' caches. */
static void arm(brood_pool *pool, const struct bri_job_wish *wish)
{
    struct bri_job_view *standing = &pool->standing;
    struct bri_job_shm *job = standing->job;
    uint64_t round = ++standing->round;

    bri_store_relaxed(&job->word, (uint16_t)BRI_CHUNK_ARMING); /* C1 */
    bri_write_once(job->number, (uint32_t)(NUMBERS | (round & (NUMBERS - 1))));
    job->function = (uint64_t)(uintptr_t)wish->function;
    job->item_bytes = wish->item_bytes;
    if (standing->result_bytes != wish->result_bytes) {
        standing->result_bytes = wish->result_bytes;
        bri_write_once(job->result_bytes, standing->result_bytes);
        memcpy(pool->standing_constants + RESULT_BYTES_AT, &standing->result_bytes,
               sizeof standing->result_bytes);
    }
    if (wish->item_bytes > 0)
        memcpy(job->small_items, wish->items, wish->item_bytes); /* C2 */
    bri_store_release(&job->round, round);                       /* C3 */
    bri_fault("call.armed");
    bri_store_seq_cst(&job->word, (uint16_t)BRI_CHUNK_FREE); /* C4 */
}

static int is_for_standing(const brood_pool *pool, const struct bri_job_wish *wish, uint64_t tail)
{
    return wish->item_bytes <= BRI_SMALL_ITEMS && wish->result_bytes <= BRI_SMALL_RESULTS &&
           wish->results == NULL && !bri_arena_holds(wish->items, wish->item_bytes) &&
           pool->options.seed == 0 && tail == bri_load_acquire(&pool->shared->head);
}

int bri_standing_is_whole(const brood_pool *pool)
{
    return memcmp(constants_of(pool->standing.job), pool->standing_constants, BRI_JOB_CONSTANTS) == 0;
}

static int is_as_made(const brood_pool *pool)
{
    struct bri_job_shm *job = pool->standing.job;

    return (bri_load_acquire(&job->resumes) | bri_load_relaxed(&job->bell)) == 0 &&
           bri_load_relaxed(&job->cancel) == BRI_CANCEL_NONE &&
           bri_read_once(job->notify) == bri_offset_of(&pool->shared->finished) &&
           bri_standing_is_whole(pool);
}

/* Those who listen to it and sleep are woken, and leave it. */
static void give_up(brood_pool *pool)
{
    struct bri_job_view view = pool->standing;

    pool->standing.job = NULL;
    bri_pool_take_back(pool, &view, BRI_STANDING);
    bri_event_signal(&pool->shared->work, INT_MAX);
}

/* C6 */
static void tidy(brood_pool *pool)
{
    struct bri_job_shm *job = pool->standing.job;

    if (job == NULL)
        return;
    if (!bri_view_is_complete(&pool->standing)) { /* it is interrupted, or damaged, or the pool is over */
        if (!pool->standing_is_left)
            give_up(pool);
        return;
    }
    pool->standing_is_left = 0;
    if (bri_load_acquire(&job->failures) != 0)
        bri_job_forget_failures(job);
    if (!is_as_made(pool))
        give_up(pool);
}

/* Having the standing job for itself, the thread has one, in which there is no call. */
static int take(brood_pool *pool)
{
    if (!bri_pool_hold_standing(pool))
        return 0;
    tidy(pool);
    if (pool->standing.job != NULL ? bri_view_is_complete(&pool->standing) : make(pool) == 0)
        return 1;
    bri_pool_drop_standing(pool);
    return 0;
}

int bri_pool_call(brood_pool *pool, const struct bri_job_wish *wish, void *ret_result)
{
    uint64_t tail = bri_load_acquire(&pool->shared->tail);

    if (!is_for_standing(pool, wish, tail) || !take(pool))
        return 1;
    bri_pool_sweep_some(pool); /* what was given up goes first, as when a job is offered */
    arm(pool, wish);
    brood_result result = {.pool = pool, .view = pool->standing, .index = BRI_STANDING, .descriptor = -1};
    if (bri_event_has_waiters_fenced(&pool->shared->work) && /* C4 is S1; a hint would not do */
        !bri_pool_is_taken_soon(pool, &result.view, tail))
        bri_event_signal(&pool->shared->work, 1);
    int error = bri_result_get(&result, ret_result, BROOD_FOREVER); /* C5 */
    pool->standing_is_left = error == -EINTR;
    tidy(pool);
    bri_pool_drop_standing(pool);
    return error;
}

void bri_standing_free(brood_pool *pool)
{
    if (pool->standing.job != NULL)
        bri_job_free(&pool->standing);
    pool->standing.job = NULL;
}
