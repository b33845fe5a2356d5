/* SPDX-License-Identifier: MIT */
#include "pool/job.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "arena/roster.h"
#include "base/check.h"
#include "base/error.h"
#include "queue/bell.h"
#include "sync/event.h"

/* Claims cost some 10 ns; with so many chunks per worker the last one is a small part of the whole, and the ends meet within a fraction of a
 * per cent.  See docs/design/0003-chunks.md. */
enum { CHUNKS_PER_WORKER = 512 };

struct layout {
    uint64_t counts, table, replies, items, results, total;
};

static int multiply(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    return __builtin_mul_overflow(a, b, ret_product) || *ret_product > UINT64_C(1) << 46 ? -EINVAL : 0;
}

static uint64_t place(uint64_t *at, uint64_t bytes)
{
    uint64_t here = *at;

    *at += (bytes + BRI_CACHE_LINE - 1) / BRI_CACHE_LINE * BRI_CACHE_LINE;
    return here;
}

static uint64_t choose_chunk_items(const struct bri_job_wish *wish)
{
    uint64_t wanted = wish->chunk_items != 0 ? wish->chunk_items
                                             : wish->count / ((uint64_t)wish->workers * CHUNKS_PER_WORKER);
    uint64_t least = (wish->count + BRI_CHUNKS_MAX - 1) / BRI_CHUNKS_MAX;

    if (wanted > wish->count)
        wanted = wish->count;
    return wanted > least ? wanted : least;
}

static int items_size(const struct bri_job_wish *wish, uint64_t *ret_bytes)
{
    if (wish->spans == NULL)
        return bri_arena_holds(wish->items, wish->count * wish->item_bytes)
                   ? (*ret_bytes = 0, 0)
                   : multiply(wish->count, wish->item_bytes, ret_bytes);
    uint64_t bytes = wish->count * sizeof(struct bri_span_shm);
    for (size_t i = 0; i < wish->count; i++) {
        uint64_t one = (wish->spans[i].bytes + 15) / 16 * 16;
        if (one < wish->spans[i].bytes || one > UINT64_C(1) << 46 || bytes + one > UINT64_C(1) << 46)
            return -EINVAL;
        bytes += one;
    }
    *ret_bytes = bytes;
    return 0;
}

static int lay_out(const struct bri_job_wish *wish, uint64_t chunks, struct layout *layout)
{
    uint64_t items, results = 0;
    uint64_t at = sizeof(struct bri_job_shm);
    uint64_t product;

    if (wish->spans != NULL && items_size(wish, &items) < 0)
        return bri_fail(EINVAL, "items are of more bytes in all than any arena has");
    if (wish->count > BRI_ITEMS_MAX || multiply(wish->count, wish->item_bytes, &product) < 0 ||
        items_size(wish, &items) < 0)
        return bri_fail(EINVAL, "count (%zu) times item_bytes (%zu) is more than any arena has", wish->count,
                        wish->item_bytes);
    if (multiply(wish->count, wish->result_bytes, &results) < 0)
        return bri_fail(EINVAL, "count (%zu) times result_bytes (%zu) is more than any arena has",
                        wish->count, wish->result_bytes);
    at = (at + BRI_CACHE_LINE - 1) / BRI_CACHE_LINE * BRI_CACHE_LINE;
    layout->counts = place(&at, chunks > 1 ? wish->workers * sizeof(struct bri_count_shm) : 0);
    layout->table = place(&at, chunks * sizeof(uint16_t));
    layout->replies = place(&at, wish->spans != NULL ? wish->count * sizeof(bri_offset) : 0);
    layout->items = place(&at, items);
    layout->results = place(&at, wish->results == NULL ? results : 0);
    layout->total = at;
    return 0;
}

static void copy_spans(const struct bri_job_wish *wish, char *to)
{
    struct bri_span_shm *spans = (struct bri_span_shm *)(void *)to;
    uint64_t offset = wish->count * sizeof *spans;

    for (size_t i = 0; i < wish->count; i++) {
        spans[i] = (struct bri_span_shm){offset, wish->spans[i].bytes};
        if (wish->spans[i].bytes > 0)
            memcpy(to + offset, wish->spans[i].data, wish->spans[i].bytes);
        offset += (wish->spans[i].bytes + 15) / 16 * 16;
    }
}

static void fill(struct bri_job_shm *job, const struct bri_job_wish *wish, const struct layout *layout,
                 uint64_t chunk_items)
{
    bri_offset base = bri_offset_of(job);
    uint64_t bytes = wish->count * wish->item_bytes;

    memset(job, 0, layout->items);
    job->flags = (wish->spans != NULL ? BRI_JOB_BYTES : 0) | (wish->is_of_stream ? BRI_JOB_STREAM : 0);
    job->workers = wish->workers;
    job->function = (uint64_t)(uintptr_t)wish->function;
    job->count = wish->count;
    job->chunk_items = chunk_items;
    job->chunks = (wish->count + chunk_items - 1) / chunk_items;
    job->item_bytes = wish->item_bytes;
    job->result_bytes = wish->result_bytes;
    job->counts_at = base + layout->counts;
    job->table_at = base + layout->table;
    job->replies_at = wish->spans != NULL ? base + layout->replies : 0;
    job->items_at = base + layout->items;
    job->results_at = wish->results != NULL ? bri_offset_of(wish->results) : base + layout->results;
    job->notify = wish->notify;
    job->retries = wish->retries;
    job->timeout_ms = wish->timeout_ms;
    job->item_timeout_ms = wish->item_timeout_ms;
    job->deadline = BROOD_FOREVER;
    job->first_index = wish->first_index;
    if (wish->spans != NULL)
        copy_spans(wish, bri_at(job->items_at));
    else if (bri_arena_holds(wish->items, bytes))
        job->items_at = bri_offset_of(wish->items); /* law 5: not copied at all */
    else if (bytes > 0)
        memcpy(bri_at(job->items_at), wish->items, bytes);
}

int bri_job_make(const struct bri_job_wish *wish, struct bri_job_shm **ret_job)
{
    uint64_t chunk_items = choose_chunk_items(wish);
    struct layout layout;
    void *memory;

    if (chunk_items == 0)
        chunk_items = 1;
    int error = lay_out(wish, (wish->count + chunk_items - 1) / chunk_items, &layout);
    if (error == 0)
        error = bri_heap_alloc(BRI_KIND_JOB, layout.total, bri_self(), &memory);
    if (error < 0)
        return error;
    fill(memory, wish, &layout, chunk_items);
    *ret_job = memory;
    return 0;
}

static void free_replies(struct bri_job_shm *job)
{
    if (!(job->flags & BRI_JOB_BYTES))
        return;
    for (uint64_t i = 0; i < job->count; i++) {
        bri_offset reply = bri_load_relaxed(bri_job_reply(job, i));
        if (reply != 0)
            bri_heap_free(bri_at(reply));
    }
}

_Static_assert(offsetof(struct bri_failure_shm, next) == offsetof(struct bri_resume_shm, next),
               "lists are walked alike");

static void free_list(bri_offset at)
{
    for (bri_offset next; at != 0; at = next) {
        next = ((struct bri_failure_shm *)bri_at(at))->next;
        bri_heap_free(bri_at(at));
    }
}

void bri_job_free(struct bri_job_shm *job)
{
    free_list(bri_load_acquire(&job->failures));
    free_list(bri_load_acquire(&job->resumes));
    free_replies(job);
    if (bri_load_relaxed(&job->bell) != 0)
        bri_heap_free(bri_at(bri_load_relaxed(&job->bell)));
    bri_heap_free(job);
}

/* --- completion and cancelling --- */

static int is_ended(struct bri_job_shm *job, uint64_t chunk)
{
    uint16_t word = bri_load_seq_cst(bri_job_chunk(job, chunk));

    return word == BRI_CHUNK_DONE || word == BRI_CHUNK_CANCELLED;
}

static int are_all_ended(struct bri_job_shm *job)
{
    for (uint64_t chunk = 0; chunk < job->chunks; chunk++)
        if (!is_ended(job, chunk))
            return 0;
    return 1;
}

/* A job that is cancelled meanwhile: whoever cancels looks at the table after that, and whoever is DONE later finds `cancel` set. */
static int is_counted(struct bri_job_shm *job)
{
    uint64_t done = 0;

    if (job->chunks == 1 || bri_load_seq_cst(&job->cancel) != BRI_CANCEL_NONE)
        return are_all_ended(job);
    for (uint32_t worker = 0; worker < job->workers; worker++)
        done += bri_load_seq_cst(&bri_job_count(job, worker)->word) >> 32;
    return done == job->chunks;
}

void bri_job_complete_if_counted(struct bri_job_shm *job)
{
    uint32_t active = BRI_JOB_ACTIVE;

    if (bri_load_acquire(&job->state) != BRI_JOB_ACTIVE || !is_counted(job))
        return;
    bri_fault("job.counted");
    if (bri_cas_seq_cst(&job->state, &active, (uint32_t)BRI_JOB_COMPLETE))
        bri_job_announce(job);
}

static uint64_t cancel_chunk(struct bri_job_shm *job, uint64_t chunk)
{
    uint16_t free = BRI_CHUNK_FREE;

    if (!bri_cas_seq_cst(bri_job_chunk(job, chunk), &free, (uint16_t)BRI_CHUNK_CANCELLED))
        return 0;
    return bri_job_end_item(job, chunk) - bri_job_resume_item(job, chunk);
}

uint64_t bri_job_cancel(struct bri_job_shm *job, enum bri_job_cancel level)
{
    uint32_t seen = bri_load_acquire(&job->cancel);
    uint64_t items = 0;

    while (seen < (uint32_t)level && !bri_cas_seq_cst(&job->cancel, &seen, (uint32_t)level)) {
    }
    bri_fault("job.cancel.raised");
    for (uint64_t chunk = 0; chunk < job->chunks; chunk++)
        items += cancel_chunk(job, chunk);
    bri_job_complete_if_counted(job);
    return items;
}

uint64_t bri_job_claim_of(struct bri_job_shm *job, uint32_t worker)
{
    for (uint64_t chunk = 0; chunk < job->chunks; chunk++)
        if (bri_load_acquire(bri_job_chunk(job, chunk)) == worker + 1)
            return chunk;
    return BRI_NO_CHUNK;
}

void bri_job_announce(struct bri_job_shm *job)
{
    bri_offset bell = bri_load_seq_cst(&job->bell);

    bri_event_signal(&job->event, INT_MAX);
    bri_event_signal(bri_at(job->notify), INT_MAX);
    if (bell != 0)
        bri_bell_ring(bri_at(bell));
}

uint64_t bri_job_resume_item(struct bri_job_shm *job, uint64_t chunk)
{
    uint64_t item = bri_job_first_item(job, chunk);

    for (bri_offset at = bri_load_acquire(&job->resumes); at != 0;) {
        const struct bri_resume_shm *resume = bri_at(at);
        if (resume->chunk == chunk && resume->item > item)
            item = resume->item;
        at = resume->next;
    }
    return item;
}

uint32_t bri_job_attempts(struct bri_job_shm *job, uint64_t item, bri_name dead, int *ret_own)
{
    uint32_t attempts = 0;

    if (ret_own != NULL)
        *ret_own = 0;
    for (bri_offset at = bri_load_acquire(&job->resumes); at != 0;) {
        const struct bri_resume_shm *resume = bri_at(at);
        int is_attempt = resume->item == item && resume->dead != 0;
        attempts += (uint32_t)is_attempt;
        if (is_attempt && resume->dead == dead && ret_own != NULL)
            *ret_own = 1;
        at = resume->next;
    }
    return attempts;
}

struct bri_failure_shm *bri_job_failure(struct bri_job_shm *job, uint64_t item)
{
    for (bri_offset at = bri_load_acquire(&job->failures); at != 0;) {
        struct bri_failure_shm *failure = bri_at(at);
        if (failure->index == item)
            return failure;
        at = failure->next;
    }
    return NULL;
}

void bri_job_push_failure(struct bri_job_shm *job, struct bri_failure_shm *failure)
{
    bri_offset head = bri_load_relaxed(&job->failures);

    do
        failure->next = head;
    while (!bri_cas_acq_rel(&job->failures, &head, bri_offset_of(failure)));
    bri_fault("job.failure.pushed");
    bri_block_pass_to_owner(bri_block_of(failure));
}

/* An item that was not begun when its job was cancelled. */
static void tell_cancelled(struct bri_job_shm *job, uint64_t item, brood_outcome *outcome)
{
    if (bri_load_acquire(&job->cancel) != BRI_CANCEL_TIME) {
        outcome->kind = BROOD_CANCELLED;
        return;
    }
    unsigned long long index = job->first_index + item;
    outcome->kind = BROOD_TIMED_OUT;
    snprintf(outcome->text, sizeof outcome->text,
             "item %llu: not begun when the %u ms of the whole were over", index, job->timeout_ms);
}

void bri_job_outcome(struct bri_job_shm *job, uint64_t item, brood_outcome *ret_outcome)
{
    uint64_t chunk = item / job->chunk_items;
    struct bri_failure_shm *failure = bri_job_failure(job, item);
    uint16_t word = bri_load_acquire(bri_job_chunk(job, chunk));
    uint32_t attempts = bri_job_attempts(job, item, 0, NULL);

    *ret_outcome = (brood_outcome){.kind = BROOD_PENDING};
    if (failure != NULL)
        *ret_outcome = failure->outcome;
    else if (word == BRI_CHUNK_DONE || item < bri_job_resume_item(job, chunk))
        ret_outcome->kind = BROOD_VALUE;
    else if (word == BRI_CHUNK_CANCELLED)
        tell_cancelled(job, item, ret_outcome);
    int has_ended = failure != NULL || ret_outcome->kind == BROOD_VALUE;
    ret_outcome->attempts = (int)attempts + has_ended;
}

static int is_on(_Atomic bri_offset *list, const void *payload)
{
    for (bri_offset at = bri_load_acquire(list); at != 0; at = ((struct bri_failure_shm *)bri_at(at))->next)
        if (bri_at(at) == payload)
            return 1;
    return 0;
}

/* Not when the dead is the owner itself, or the owner's memory is gone already. */
static int owner_keeps(struct bri_block_shm *block, bri_name dead)
{
    bri_name owner = (bri_name)bri_load_acquire(&block->aux[2]);

    return owner != dead && (bri_is_alive(owner) || bri_is_dead_and_unburied(owner));
}

static int is_job_of(bri_offset job_at, uint64_t owner)
{
    return job_at != 0 && bri_heap_is(bri_at(job_at), BRI_KIND_JOB) && bri_job_owner(bri_at(job_at)) == owner;
}

/* The job is kept by the dead worker's visit, which ends only when it is mourned. */
static int is_failure_wanted(struct bri_block_shm *block)
{
    bri_offset job_at = bri_load_acquire(&block->aux[0]), reserve_at = bri_load_acquire(&block->aux[1]);
    const void *payload = bri_payload_of(block);

    if (reserve_at != 0 &&
        bri_load_acquire((_Atomic bri_offset *)bri_at(reserve_at)) == bri_offset_of(payload))
        return 1;
    if (!is_job_of(job_at, bri_load_acquire(&block->aux[2])))
        return 0;
    struct bri_job_shm *job = bri_at(job_at);
    return is_on(&job->failures, payload) || is_on(&job->resumes, payload);
}

static int failure_settle(struct bri_block_shm *block, bri_name dead)
{
    if (!owner_keeps(block, dead) || !is_failure_wanted(block))
        return 0;
    bri_block_pass_to_owner(block);
    return 1;
}

static int reply_settle(struct bri_block_shm *block, bri_name dead)
{
    bri_offset word_at = bri_load_acquire(&block->aux[0]);

    if (word_at == 0 || !owner_keeps(block, dead) ||
        !is_job_of(bri_load_acquire(&block->aux[1]), bri_load_acquire(&block->aux[2])) ||
        bri_load_acquire((_Atomic bri_offset *)bri_at(word_at)) != bri_offset_of(bri_payload_of(block)))
        return 0;
    bri_block_pass_to_owner(block);
    return 1;
}

const struct bri_kind_ops bri_failure_ops = {.settle = failure_settle};
const struct bri_kind_ops bri_reply_ops = {.settle = reply_settle};
