/* SPDX-License-Identifier: MIT */
/* What the undertaker does for a pool whose worker died; the death table of job.h in code. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "arena/roster.h"
#include "base/check.h"
#include "base/trace.h"
#include "pool/enforce.h"
#include "pool/limits.h"
#include "pool/pool.h"
#include "sync/event.h"

enum { OFFERS_MOST = 1000 * BRI_RETURNS };

/* The claim of one dead worker. */
struct loss {
    struct bri_pool_shm *pool;
    struct bri_seat_shm *seat;
    struct bri_job_shm *job;
    struct bri_job_view view;
    uint32_t worker;
    bri_name dead;
    uint64_t chunk;
};

static uint64_t progress_of(const struct loss *loss)
{
    return bri_load_acquire(&bri_slot_of(loss->dead)->progress);
}

/* Why the item had to end, if it was the supervisor that ended it. */
static enum bri_verdict verdict_on(const struct loss *loss)
{
    uint64_t verdict = bri_load_acquire(&loss->seat->verdict);

    if (verdict == 0)
        return BRI_VERDICT_NONE;
    if (verdict == progress_of(loss) || bri_job_is_stopped(loss->job))
        return (enum bri_verdict)bri_load_acquire(&loss->seat->verdict_kind);
    return BRI_VERDICT_NONE;
}

/* By the death alone. */
static void describe_death(const struct loss *loss, uint64_t item, brood_outcome *outcome)
{
    int status = (int)bri_load_acquire(&bri_slot_of(loss->dead)->end_status);
    int pid = (int)bri_load_relaxed(&loss->seat->pid);

    *outcome = (brood_outcome){.kind = BROOD_DIED, .pid = pid, .exit_code = -1};
    if (status < 0 && status != INT_MIN) {
        outcome->signal = -status;
        snprintf(outcome->text, sizeof outcome->text,
                 "item %llu: its worker (pid %d) was killed by signal %d (%s)", (unsigned long long)item, pid,
                 -status, sigdescr_np(-status) == NULL ? "unknown" : sigdescr_np(-status));
    } else if (status >= 0) {
        outcome->exit_code = status;
        snprintf(outcome->text, sizeof outcome->text,
                 "item %llu: its worker (pid %d) ended with exit code %d in the middle of it",
                 (unsigned long long)item, pid, status);
    } else {
        snprintf(outcome->text, sizeof outcome->text,
                 "item %llu: its worker (pid %d) died together with its supervisor", (unsigned long long)item,
                 pid);
    }
}

/* "it has killed 3 workers" */
static void add_attempts(const struct loss *loss, uint64_t item, brood_outcome *outcome)
{
    uint32_t attempts = bri_job_attempts(loss->job, item, 0, NULL) + 1;
    size_t length = strlen(outcome->text);

    if (attempts > 1)
        snprintf(outcome->text + length, sizeof outcome->text - length, "; it has killed %u workers",
                 attempts);
}

static void describe(const struct loss *loss, uint64_t item, brood_outcome *outcome)
{
    enum bri_verdict verdict = verdict_on(loss);

    describe_death(loss, loss->job->first_index + item, outcome);
    if (verdict != BRI_VERDICT_NONE)
        bri_verdict_tell(verdict, loss->job, item, outcome);
    else
        add_attempts(loss, item, outcome), bri_limits_tell(loss->pool, loss->seat, outcome);
}

/* The block in reserve becomes the undertaker's and is bound for the job: if this undertaker dies, settle finds it in the seat or on the list. */
static void *take_spare(struct loss *loss, _Atomic bri_offset *spare)
{
    void *memory = bri_heap_find(bri_load_acquire(spare), BRI_KIND_FAILURE, sizeof(struct bri_failure_shm));

    if (memory != NULL)
        bri_store_release(&bri_block_of(memory)->aux[0], bri_offset_of(loss->job));
    return memory;
}

static void push(_Atomic bri_offset *list, bri_offset *next, bri_offset at)
{
    bri_offset head = bri_load_acquire(list);

    do
        *next = head;
    while (!bri_cas_acq_rel(list, &head, at));
}

/* Pushed already, by an undertaker that died right after: only the seat has to forget it. */
static int already_pushed(_Atomic bri_offset *list, _Atomic bri_offset *spare)
{
    const void *memory = bri_at_checked(bri_load_acquire(spare), 1, BRI_CACHE_LINE);

    if (memory == NULL || !bri_is_on(list, memory))
        return 0;
    bri_store_release(spare, UINT64_C(0));
    return 1;
}

static void record_death(struct loss *loss, uint64_t item)
{
    if (already_pushed(&loss->job->failures, &loss->seat->spare_failure) ||
        bri_job_failure(loss->job, item) != NULL)
        return;
    struct bri_failure_shm *failure = take_spare(loss, &loss->seat->spare_failure);
    if (failure == NULL)
        return;
    failure->index = item;
    describe(loss, item, &failure->outcome);
    push(&loss->job->failures, &failure->next, bri_offset_of(failure));
    bri_fault("mourn.failure.pushed");
    bri_store_release(&loss->seat->spare_failure, UINT64_C(0));
}

/* `tried`: 0, or the dead's name: the item itself is to be tried again. */
static void record_resume(struct loss *loss, uint64_t item, bri_name tried)
{
    int is_recorded = bri_view_resume_item(&loss->view, loss->chunk) >= item;

    if (tried != 0)
        bri_job_attempts(loss->job, item, tried, &is_recorded);
    if (already_pushed(&loss->job->resumes, &loss->seat->spare_resume) || is_recorded)
        return;
    struct bri_resume_shm *resume = take_spare(loss, &loss->seat->spare_resume);
    if (resume == NULL)
        return;
    *resume = (struct bri_resume_shm){.chunk = loss->chunk, .item = item, .dead = tried};
    push(&loss->job->resumes, &resume->next, bri_offset_of(resume));
    bri_fault("mourn.resume.pushed");
    bri_store_release(&loss->seat->spare_resume, UINT64_C(0));
}

static void count_chunk(struct loss *loss)
{
    if (loss->view.counts == NULL || loss->worker >= loss->view.workers)
        return;
    _Atomic uint64_t *count = &loss->view.counts[loss->worker].word;
    uint64_t word = bri_load_acquire(count);
    if ((uint32_t)word != loss->chunk + 1)
        bri_store_seq_cst(count, ((word >> 32) + 1) << 32 | (loss->chunk + 1));
}

/* Is the item that the dead one was running to be tried again?  Once an undertaker has counted this death among the attempts, yes. */
static int is_retried(const struct loss *loss, uint64_t item)
{
    int is_counted;
    uint32_t attempts = bri_job_attempts(loss->job, item, loss->dead, &is_counted);

    if (is_counted)
        return 1;
    return attempts < loss->job->retries && verdict_on(loss) == BRI_VERDICT_NONE &&
           !bri_job_is_stopped(loss->job) && bri_job_failure(loss->job, item) == NULL &&
           bri_load_acquire(&loss->seat->spare_resume) != 0;
}

/* Notes what the dead one's progress word says, and returns the item with which the chunk goes on. */
static uint64_t record_progress(struct loss *loss, uint64_t progress)
{
    uint64_t item = bri_progress_item(progress);
    uint64_t first = bri_view_first_item(&loss->view, loss->chunk),
             end = bri_view_end_item(&loss->view, loss->chunk);
    bri_name tried = 0;

    if (item < first || item > end || (item == end && progress & BRI_PROGRESS_RUNNING)) /* damage */
        return bri_view_resume_item(&loss->view, loss->chunk);
    if ((progress & BRI_PROGRESS_RUNNING) && is_retried(loss, item))
        tried = loss->dead;
    else if (progress & BRI_PROGRESS_RUNNING)
        record_death(loss, item++);
    record_resume(loss, item, tried);
    return item;
}

/* A complete job is of no use on the list.  The look is a visit, so that the owner does not free the job under it. */
static int may_replace(struct bri_pool_shm *pool, _Atomic bri_offset *entry, bri_offset there)
{
    if (there == 0)
        return 1;
    bri_store_seq_cst(&pool->replacing, there);
    struct bri_job_shm *job = bri_heap_find(there, BRI_KIND_JOB, sizeof *job);
    int is_useless = bri_load_seq_cst(entry) == there && (job == NULL || bri_job_is_complete(job));
    bri_store_release(&pool->replacing, (bri_offset)0);
    return is_useless;
}

static int is_offered_again(const struct loss *loss)
{
    for (uint32_t i = 0; i < BRI_RETURNS; i++)
        if (bri_load_acquire(&bri_pool_return(loss->pool, i)->job) == bri_offset_of(loss->job))
            return 1;
    return 0;
}

/* Full for good it can only be by damage: then the owner notices that the job is lost. */
static void put_among_returns(const struct loss *loss)
{
    for (uint32_t i = 0; i < OFFERS_MOST && !is_offered_again(loss); i++) {
        _Atomic bri_offset *entry = &bri_pool_return(loss->pool, i % BRI_RETURNS)->job;
        bri_offset there = bri_load_acquire(entry);
        if (may_replace(loss->pool, entry, there) && bri_cas_seq_cst(entry, &there, bri_offset_of(loss->job)))
            return;
    }
}

/* While the dead one's chunk is claimed: as long as it is the job is not complete, and its owner does not look through the returns yet.  When
 * it does, `again` says that there is something to look through. */
static void offer_again(const struct loss *loss)
{
    put_among_returns(loss);
    bri_add_acq_rel(&loss->pool->again, UINT64_C(1));
    bri_fault("mourn.chunk.offered");
}

/* The chunk is claimed by the dead: keep what is done, note what died, give the rest back. */
static void return_chunk(struct loss *loss)
{
    _Atomic uint16_t *word = &loss->view.table[loss->chunk];
    uint64_t progress = progress_of(loss);
    uint64_t next =
        progress != 0 ? record_progress(loss, progress) : bri_view_resume_item(&loss->view, loss->chunk);

    if (next < bri_view_end_item(&loss->view, loss->chunk)) {
        offer_again(loss); /* before FREE: a worker that does not find it in the ring finds it there */
        bri_store_release(&loss->seat->chunk, BRI_NO_CHUNK); /* whoever is DONE with it next has it counted */
        bri_store_seq_cst(word, (uint16_t)BRI_CHUNK_FREE);
        bri_fault("mourn.chunk.free");
        if (bri_job_is_stopped(
                loss->job)) /* after FREE: either who stopped it finds it so, or we find it stopped */
            bri_job_cancel(&loss->view, BRI_CANCEL_RUNNING);
        return;
    }
    bri_store_release(&loss->seat->chunk, loss->chunk);
    bri_store_seq_cst(word, (uint16_t)BRI_CHUNK_DONE);
    bri_fault("mourn.chunk.done");
    count_chunk(loss);
}

static int find_claim(struct loss *loss)
{
    loss->chunk = bri_job_claim_of(&loss->view, loss->worker);
    return loss->chunk != BRI_NO_CHUNK;
}

static void mourn_visit(struct loss *loss)
{
    uint64_t last = bri_load_acquire(&loss->seat->chunk);

    if (last < loss->view.chunks && bri_load_acquire(&loss->view.table[last]) == BRI_CHUNK_DONE) {
        loss->chunk = last;
        count_chunk(loss);
    }
    if (find_claim(loss))
        return_chunk(loss);
    bri_fault("mourn.chunk.returned");
    bri_add_acq_rel(&loss->pool->again,
                    UINT64_C(1)); /* after FREE, whoever set it: those that came too early look again */
    bri_job_complete_if_counted(loss->job);
    bri_fence_seq_cst();
    if (bri_job_is_complete(loss->job))
        bri_job_announce(loss->job);
    bri_event_signal(&loss->pool->work, INT_MAX);
}

static void mourn_worker(struct bri_pool_shm *pool, uint32_t index, bri_name dead)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool, index);
    uint64_t visiting = bri_load_acquire(&seat->visiting);
    struct bri_job_shm *job = bri_heap_find(bri_visit_job(visiting), BRI_KIND_JOB, sizeof *job);
    struct loss loss = {.pool = pool, .seat = seat, .job = job, .worker = index, .dead = dead};

    /* who only listened has claimed nothing */
    if ((visiting & BRI_VISIT_VALID) && !(visiting & BRI_VISIT_LISTEN) && job != NULL &&
        bri_job_read(job, &loss.view))
        mourn_visit(&loss);
    bri_store_release(&seat->visiting, UINT64_C(0));
    bri_fault("mourn.visited");
    bri_store_release(&seat->name, (bri_name)0);
}

static void mourn(void *payload, bri_name dead)
{
    struct bri_pool_shm *pool = payload;
    uint32_t workers = bri_read_once(pool->workers);

    if (bri_heap_find(bri_offset_of(pool), BRI_KIND_POOL, bri_pool_bytes(workers)) == NULL)
        return;                                  /* damage */
    if (bri_load_relaxed(&pool->replacing) != 0) /* a dead undertaker's: there is one at a time */
        bri_store_release(&pool->replacing, (bri_offset)0);
    for (uint32_t i = 0; i < workers; i++)
        if (bri_load_acquire(&bri_pool_seat(pool, i)->name) == dead)
            mourn_worker(pool, i, dead);
}

const struct bri_kind_ops bri_pool_ops = {.bytes = sizeof(struct bri_pool_shm), .mourn = mourn};
