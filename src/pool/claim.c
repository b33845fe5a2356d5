/* SPDX-License-Identifier: MIT */
/* Claims of chunks, in the worker: steps J1 … J5, J7, J8 of job.h. */
#include "arena/roster.h"
#include "base/check.h"
#include "pool/pool.h"
#include "sync/event.h"

static uint64_t share_begin(const struct bri_job_shm *job, uint32_t worker)
{
    return job->chunks * worker / job->workers;
}

/* J3 … J5. */
static int try_chunk(struct bri_claim *claim, uint64_t chunk)
{
    _Atomic uint16_t *word = bri_job_chunk(claim->job, chunk);
    uint16_t free = BRI_CHUNK_FREE;

    if (bri_load_relaxed(word) != BRI_CHUNK_FREE)
        return 0;
    bri_store_relaxed(claim->claims, bri_load_relaxed(claim->claims) + 1);
    bri_store_relaxed(claim->progress, UINT64_C(0));                  /* J3 */
    if (!bri_cas_seq_cst(word, &free, (uint16_t)(claim->worker + 1))) /* J4 */
        return 0;
    bri_fault("claim.claimed");
    if (bri_job_is_stopped(
            claim
                ->job)) { /* either this is seen here, or the claim by who looks after the supervisor was rung */
        bri_store_seq_cst(word, (uint16_t)BRI_CHUNK_CANCELLED);
        return 0;
    }
    bri_store_relaxed(&claim->seat->chunk, chunk); /* J5 */
    claim->chunk = chunk;
    return 1;
}

static void next_victim(struct bri_claim *claim)
{
    claim->victim = (claim->victim + 1) % claim->job->workers;
    claim->victim_begin = share_begin(claim->job, claim->victim);
    claim->victim_left = share_begin(claim->job, claim->victim + 1) - claim->victim_begin;
}

static int try_others(struct bri_claim *claim)
{
    for (; claim->victim != claim->worker; next_victim(claim))
        while (claim->victim_left > 0) {
            claim->victim_left--;
            if (try_chunk(claim, claim->victim_begin + claim->victim_left))
                return 1;
        }
    return 0;
}

static int try_job(struct bri_claim *claim)
{
    if (claim->job->chunks == 1)
        return try_chunk(claim, 0);
    while (claim->own_next < claim->own_end)
        if (try_chunk(claim, claim->own_next++))
            return 1;
    return try_others(claim);
}

/* J1, J2: `offer` still offers the job once the visit is visible. */
static int begin_visit(struct bri_claim *claim, _Atomic bri_offset *offer, uint64_t index)
{
    bri_offset job_at = bri_load_seq_cst(offer);

    if (job_at == 0)
        return 0;
    claim->job = NULL;                                 /* the standing job is not listened to any more */
    bri_store_seq_cst(&claim->seat->visiting, job_at); /* J1 */
    if (bri_load_seq_cst(offer) != job_at ||
        (index < BRI_STANDING && bri_load_seq_cst(&claim->pool->head) > index)) {
        bri_store_release(&claim->seat->visiting, UINT64_C(0));
        return 0;
    }
    bri_store_relaxed(&claim->seat->chunk, BRI_NO_CHUNK);
    bri_store_release(&claim->seat->visiting, job_at | BRI_VISIT_VALID); /* J2 */
    claim->job = bri_at(job_at);
    claim->index = index;
    claim->own_next = share_begin(claim->job, claim->worker);
    claim->own_end = share_begin(claim->job, claim->worker + 1);
    claim->victim = claim->worker;
    next_victim(claim);
    return 1;
}

static void advance_head(struct bri_claim *claim, uint64_t index)
{
    if (bri_cas_acq_rel(&claim->pool->head, &index, index + 1))
        bri_event_signal(&claim->pool->room, INT_MAX);
}

static void end_visit(struct bri_claim *claim)
{
    bri_job_complete_if_counted(claim->job);
    if (claim->index < BRI_STANDING)
        advance_head(claim, claim->index);
    claim->job = NULL;
    bri_store_release(&claim->seat->visiting, UINT64_C(0));
}

static int try_returns(struct bri_claim *claim)
{
    uint64_t again = bri_load_seq_cst(&claim->pool->again);

    if (again == claim->seen_again)
        return 0;
    for (uint32_t i = 0; i < BRI_RETURNS; i++) {
        if (!begin_visit(claim, &bri_pool_return(claim->pool, i)->job, BRI_NO_CHUNK))
            continue;
        if (try_job(claim))
            return 1;
        end_visit(claim);
    }
    claim->seen_again = again;
    return 0;
}

static int try_ring(struct bri_claim *claim)
{
    uint64_t index = bri_load_acquire(&claim->pool->head), tail = bri_load_seq_cst(&claim->pool->tail);

    if (tail - index > BRI_RING) /* damage, or nothing: head was read first, and never passes tail */
        return 0;
    for (; index < tail; index++) {
        if (!begin_visit(claim, bri_pool_ring(claim->pool, index), index)) {
            if (bri_load_acquire(bri_pool_ring(claim->pool, index)) == 0)
                advance_head(claim, index);
            continue;
        }
        if (try_job(claim))
            return 1;
        end_visit(claim);
    }
    return 0;
}

static void listen(struct bri_claim *claim)
{
    bri_store_release(&claim->seat->visiting,
                      bri_offset_of(claim->job) | BRI_VISIT_VALID | BRI_VISIT_LISTEN); /* L1; after J8 */
}

/* A call is in it?  A claim is made by who is seen not to listen only. */
static int try_standing(struct bri_claim *claim)
{
    _Atomic uint16_t *word = bri_job_chunk(claim->job, 0);

    if (bri_load_seq_cst(word) == BRI_CHUNK_FREE) {
        bri_store_release(&claim->seat->visiting, bri_offset_of(claim->job) | BRI_VISIT_VALID); /* L2 */
        bri_fault("claim.heard");
        if (try_chunk(claim, 0))
            return 1;
    }
    if (!(bri_load_relaxed(&claim->seat->visiting) & BRI_VISIT_LISTEN))
        listen(claim);
    if (bri_load_seq_cst(&claim->pool->standing) != bri_offset_of(claim->job))
        end_visit(claim); /* the owner has given it up */
    return 0;
}

/* Before the ring, where what came later waits.  The visit lasts until there is something there. */
static int begin_listening(struct bri_claim *claim)
{
    if (claim->job != NULL || !begin_visit(claim, &claim->pool->standing, BRI_STANDING))
        return 0;
    return try_standing(claim);
}

int bri_claim_any(void *argument)
{
    struct bri_claim *claim = argument;
    enum bri_pool_state state = bri_pool_state_of(claim->pool);

    if (state >= BRI_POOL_TERMINATING || bri_load_acquire(&claim->seat->verdict) != 0)
        return BRI_LEAVE;
    if (claim->job != NULL && claim->index == BRI_STANDING) {
        if (try_standing(claim))
            return BRI_CLAIMED;
    } else if (claim->job != NULL) {
        if (try_job(claim))
            return BRI_CLAIMED;
        end_visit(claim);
    }
    if (try_returns(claim) || begin_listening(claim) || try_ring(claim))
        return BRI_CLAIMED;
    return state == BRI_POOL_CLOSING && bri_load_acquire(&claim->pool->open_streams) == 0 ? BRI_LEAVE : 0;
}

void bri_claim_done(struct bri_claim *claim)
{
    struct bri_job_shm *job = claim->job;

    if (job->chunks ==
        1) { /* whoever looks at the word of a single chunk for its end does so for itself: nothing has to be seen with it */
        bri_store_release(bri_job_chunk(job, 0), (uint16_t)BRI_CHUNK_DONE); /* J7 */
        bri_fault("claim.done");
        bri_job_complete_if_counted(job);
        return;
    }
    bri_store_seq_cst(bri_job_chunk(job, claim->chunk), (uint16_t)BRI_CHUNK_DONE); /* J7 */
    bri_fault("claim.done");
    _Atomic uint64_t *count = &bri_job_count(job, claim->worker)->word;
    uint64_t done = bri_load_relaxed(count) >> 32;
    bri_store_seq_cst(count, (done + 1) << 32 | (claim->chunk + 1)); /* J8 */
    bri_fault("claim.counted");
    if (job->flags & BRI_JOB_EACH)
        bri_job_tell(job);
}
