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
enum { CHUNKS_PER_WORKER = 512, SMALL_ALIGNMENT = 16 };

struct layout {
    uint64_t counts, table, replies, items, results, total;
    uint64_t zeroed; /* what lies before: all words that others change */
};

static int multiply(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    return __builtin_mul_overflow(a, b, ret_product) || *ret_product > UINT64_C(1) << 46 ? -EINVAL : 0;
}

static uint64_t place(uint64_t *at, uint64_t bytes, uint64_t alignment)
{
    uint64_t here = *at;

    *at += (bytes + alignment - 1) / alignment * alignment;
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
    uint64_t at = sizeof(struct bri_job_shm), alignment = BRI_CACHE_LINE;
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
    if (chunks == 1 && items <= BRI_CACHE_LINE && results <= BRI_CACHE_LINE)
        alignment = SMALL_ALIGNMENT; /* one worker fetches all of it: the fewer lines the better */
    at = (at + alignment - 1) / alignment * alignment;
    layout->counts = place(&at, chunks > 1 ? wish->workers * sizeof(struct bri_count_shm) : 0, alignment);
    layout->table =
        chunks > 1 ? place(&at, chunks * sizeof(uint16_t), alignment) : offsetof(struct bri_job_shm, word);
    layout->replies = place(&at, wish->spans != NULL ? wish->count * sizeof(bri_offset) : 0, alignment);
    layout->zeroed = at;
    layout->items = chunks == 1 && wish->spans == NULL && items <= BRI_SMALL_ITEMS
                        ? offsetof(struct bri_job_shm, small_items)
                        : place(&at, items, alignment);
    layout->results = chunks == 1 && results <= BRI_SMALL_RESULTS
                          ? offsetof(struct bri_job_shm, small_results)
                          : place(&at, wish->results == NULL ? results : 0, alignment);
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

/* What the owner goes by from now on: its own numbers, and not what they become in shared memory. */
static struct bri_job_view view_of(const struct bri_job_wish *wish, const struct layout *layout,
                                   uint64_t chunk_items, void *memory)
{
    uint64_t chunks = (wish->count + chunk_items - 1) / chunk_items;
    char *base = memory, *results = wish->results != NULL ? wish->results : base + layout->results;

    return (struct bri_job_view){.job = memory,
                                 .round = 1,
                                 .count = wish->count,
                                 .chunk_items = chunk_items,
                                 .chunks = chunks,
                                 .result_bytes = wish->result_bytes,
                                 .first_index = wish->first_index,
                                 .workers = wish->workers,
                                 .flags = (wish->spans != NULL ? BRI_JOB_BYTES : 0) |
                                          (wish->is_of_stream ? BRI_JOB_STREAM : 0) |
                                          (wish->tells_each ? BRI_JOB_EACH : 0),
                                 .timeout_ms = wish->timeout_ms,
                                 .table = (void *)(base + layout->table),
                                 .counts = chunks > 1 ? (void *)(base + layout->counts) : NULL,
                                 .replies = wish->spans != NULL ? (void *)(base + layout->replies) : NULL,
                                 .results = wish->result_bytes != 0 ? results : NULL};
}

static void fill(const struct bri_job_view *view, const struct bri_job_wish *wish,
                 const struct layout *layout)
{
    struct bri_job_shm *job = view->job;
    bri_offset base = bri_offset_of(job);
    uint64_t bytes = wish->count * wish->item_bytes;

    memset(job, 0, layout->zeroed);
    bri_store_relaxed(&job->round, view->round);
    job->flags = view->flags;
    job->workers = view->workers;
    job->function = (uint64_t)(uintptr_t)wish->function;
    job->count = view->count;
    job->chunk_items = view->chunk_items;
    job->chunks = view->chunks;
    job->item_bytes = wish->item_bytes;
    job->result_bytes = view->result_bytes;
    job->table_at = base + layout->table;
    job->replies_at = bri_offset_of(view->replies);
    job->items_at = base + layout->items;
    job->results_at = wish->results != NULL ? bri_offset_of(wish->results) : base + layout->results;
    job->notify = wish->notify;
    job->retries = wish->retries;
    job->timeout_ms = view->timeout_ms;
    job->item_timeout_ms = wish->item_timeout_ms;
    job->deadline = BROOD_FOREVER;
    job->first_index = view->first_index;
    if (wish->spans != NULL)
        copy_spans(wish, (char *)job + layout->items);
    else if (bri_arena_holds(wish->items, bytes))
        job->items_at = bri_offset_of(wish->items); /* law 5: not copied at all */
    else if (bytes > 0)
        memcpy((char *)job + layout->items, wish->items, bytes);
}

int bri_job_make(const struct bri_job_wish *wish, struct bri_job_view *ret_view)
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
    *ret_view = view_of(wish, &layout, chunk_items, memory);
    fill(ret_view, wish, &layout);
    return 0;
}

/* --- views --- */

/* NULL where there is nothing to point to, and where it does not lie in the arena: then *is_whole becomes 0. */
static void *find_part(bri_offset at, uint64_t count, uint64_t each, uint64_t alignment, int *is_whole)
{
    void *part = count == 0 || each == 0 ? NULL : bri_at_checked(at, count * each, alignment);

    *is_whole &= part != NULL || count == 0 || each == 0;
    return part;
}

/* Everything is at most 2^46 bytes long (lay_out): products do not overflow. */
static int are_sizes_sound(const struct bri_job_view *view)
{
    uint64_t results;

    return view->count - 1 < BRI_ITEMS_MAX && view->chunk_items - 1 < BRI_ITEMS_MAX &&
           view->chunks == (view->count + view->chunk_items - 1) / view->chunk_items &&
           view->chunks <= BRI_CHUNKS_MAX && view->workers - 1 < BRI_WORKERS_MAX &&
           multiply(view->count, view->result_bytes, &results) == 0;
}

int bri_job_read(struct bri_job_shm *job, struct bri_job_view *ret_view)
{
    struct bri_job_view view = {.job = job,
                                .round = bri_load_acquire(&job->round),
                                .count = bri_read_once(job->count),
                                .chunk_items = bri_read_once(job->chunk_items),
                                .chunks = bri_read_once(job->chunks),
                                .result_bytes = bri_read_once(job->result_bytes),
                                .first_index = bri_read_once(job->first_index),
                                .workers = bri_read_once(job->workers),
                                .flags = bri_read_once(job->flags),
                                .timeout_ms = bri_read_once(job->timeout_ms)};
    uint64_t counts = view.chunks > 1 ? view.workers : 0;
    uint64_t replies = view.flags & BRI_JOB_BYTES ? view.count : 0;
    int is_whole = are_sizes_sound(&view);

    if (!is_whole)
        return 0;
    view.table = find_part(bri_read_once(job->table_at), view.chunks, sizeof *view.table, sizeof *view.table,
                           &is_whole);
    view.counts = find_part(bri_offset_of(job + 1), counts, sizeof *view.counts, BRI_CACHE_LINE, &is_whole);
    view.replies = find_part(bri_read_once(job->replies_at), replies, sizeof *view.replies,
                             sizeof *view.replies, &is_whole);
    view.results = find_part(bri_read_once(job->results_at), view.count, view.result_bytes, 1, &is_whole);
    *ret_view = view;
    return is_whole;
}

void *bri_walk_next(struct bri_walk *walk)
{
    if (walk->at == 0)
        return NULL;
    struct bri_failure_shm *node = bri_at_checked(walk->at, sizeof *node, BRI_CACHE_LINE);
    walk->is_damaged = node == NULL || walk->at == walk->mark;
    if (walk->is_damaged)
        return NULL;
    if (++walk->steps == walk->next_mark) {
        walk->next_mark *= 2;
        walk->mark = walk->at;
    }
    walk->at = bri_read_once(node->next);
    return node;
}

/* --- the end of a job --- */

/* Of the blocks that the job names, those that were meant for it. */
static void free_if_bound(bri_offset at, enum bri_kind kind, int aux, const struct bri_job_shm *job)
{
    void *payload = bri_heap_find(at, kind, 1);

    if (payload != NULL && bri_load_acquire(&bri_block_of(payload)->aux[aux]) == bri_offset_of(job))
        bri_heap_free(payload);
}

static void free_replies(const struct bri_job_view *view)
{
    for (uint64_t i = 0; view->replies != NULL && i < view->count; i++) {
        bri_offset reply = bri_load_relaxed(&view->replies[i]);
        if (reply != 0)
            free_if_bound(reply, BRI_KIND_REPLY, 1, view->job);
    }
}

_Static_assert(offsetof(struct bri_failure_shm, next) == offsetof(struct bri_resume_shm, next),
               "lists are walked alike");

static void free_list(const _Atomic bri_offset *list, const struct bri_job_shm *job)
{
    struct bri_walk walk = bri_walk_begin(list);

    for (void *node; (node = bri_walk_next(&walk)) != NULL;)
        free_if_bound(bri_offset_of(node), BRI_KIND_FAILURE, 0, job);
}

static struct bri_bell_shm *bell_of(struct bri_job_shm *job)
{
    bri_offset at = bri_load_seq_cst(&job->bell);

    return at == 0 ? NULL : bri_heap_find(at, BRI_KIND_DATA, sizeof(struct bri_bell_shm));
}

void bri_job_forget_failures(struct bri_job_shm *job)
{
    free_list(&job->failures, job);
    bri_store_relaxed(&job->failures, (bri_offset)0);
}

void bri_job_free(const struct bri_job_view *view)
{
    struct bri_bell_shm *bell = bell_of(view->job);

    free_list(&view->job->failures, view->job);
    free_list(&view->job->resumes, view->job);
    free_replies(view);
    if (bell != NULL)
        bri_heap_free(bell);
    bri_heap_free(view->job);
}

/* --- completion and cancelling --- */

static int are_all_ended(_Atomic uint16_t *table, uint64_t chunks)
{
    for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        uint16_t word = bri_load_seq_cst(&table[chunk]);
        if (word != BRI_CHUNK_DONE && word != BRI_CHUNK_CANCELLED)
            return 0;
    }
    return 1;
}

/* A job that is cancelled meanwhile: whoever cancels looks at the table after that, and whoever is DONE later finds `cancel` set.  By workers
 * too, for every job: it reads no more than it needs. */
static int is_counted(struct bri_job_shm *job)
{
    uint64_t chunks = bri_read_once(job->chunks), done = 0;

    if (chunks == 1 || bri_load_seq_cst(&job->cancel) != BRI_CANCEL_NONE) {
        _Atomic uint16_t *table =
            bri_at_checked(bri_read_once(job->table_at), chunks * sizeof *table, sizeof *table);
        return table != NULL && chunks <= BRI_CHUNKS_MAX && are_all_ended(table, chunks);
    }
    uint32_t workers = bri_read_once(job->workers);
    struct bri_count_shm *counts =
        bri_at_checked(bri_offset_of(job + 1), workers * sizeof *counts, BRI_CACHE_LINE);
    for (uint32_t worker = 0; counts != NULL && worker < workers; worker++)
        done += bri_load_seq_cst(&counts[worker].word) >> 32;
    return done == chunks;
}

/* The round is read before the chunks' words: what they say then is of this round, or of a later one, and then the CAS fails. */
void bri_job_complete_if_counted(struct bri_job_shm *job)
{
    uint64_t round = bri_load_acquire(&job->round), before = round - 1;

    if (bri_load_acquire(&job->ended) == round || !is_counted(job))
        return;
    bri_fault("job.counted");
    if (bri_cas_seq_cst(&job->ended, &before, round))
        bri_job_announce(job);
}

static uint64_t cancel_chunk(const struct bri_job_view *view, uint64_t chunk)
{
    uint16_t free = BRI_CHUNK_FREE;

    if (!bri_cas_seq_cst(&view->table[chunk], &free, (uint16_t)BRI_CHUNK_CANCELLED))
        return 0;
    return bri_view_end_item(view, chunk) - bri_view_resume_item(view, chunk);
}

uint64_t bri_job_cancel(const struct bri_job_view *view, enum bri_job_cancel level)
{
    uint32_t seen = bri_load_acquire(&view->job->cancel);
    uint64_t items = 0;

    while (seen < (uint32_t)level && !bri_cas_seq_cst(&view->job->cancel, &seen, (uint32_t)level)) {
    }
    bri_fault("job.cancel.raised");
    for (uint64_t chunk = 0; chunk < view->chunks; chunk++)
        items += cancel_chunk(view, chunk);
    bri_job_complete_if_counted(view->job);
    return items;
}

uint64_t bri_job_claim_of(const struct bri_job_view *view, uint32_t worker)
{
    for (uint64_t chunk = 0; chunk < view->chunks; chunk++)
        if (bri_load_acquire(&view->table[chunk]) == worker + 1)
            return chunk;
    return BRI_NO_CHUNK;
}

void bri_job_tell(struct bri_job_shm *job)
{
    _Atomic uint32_t *notify = bri_at_checked(bri_read_once(job->notify), sizeof *notify, sizeof *notify);

    bri_event_signal_fenced(&job->event, INT_MAX);
    if (notify != NULL)
        bri_event_signal_fenced(notify, INT_MAX);
}

void bri_job_announce(struct bri_job_shm *job)
{
    struct bri_bell_shm *bell = bell_of(job);

    bri_job_tell(job);
    if (bell != NULL)
        bri_bell_ring(bell);
}

uint64_t bri_job_resume_item(struct bri_job_shm *job, uint64_t chunk, uint64_t first, uint64_t end)
{
    struct bri_walk walk = bri_walk_begin(&job->resumes);

    for (const struct bri_resume_shm *resume; (resume = bri_walk_next(&walk)) != NULL;) {
        uint64_t item = bri_read_once(resume->item);
        if (bri_read_once(resume->chunk) == chunk && item > first && item <= end)
            first = item;
    }
    return first;
}

uint32_t bri_job_attempts(struct bri_job_shm *job, uint64_t item, bri_name dead, int *ret_own)
{
    struct bri_walk walk = bri_walk_begin(&job->resumes);
    uint32_t attempts = 0;

    if (ret_own != NULL)
        *ret_own = 0;
    for (const struct bri_resume_shm *resume; (resume = bri_walk_next(&walk)) != NULL;) {
        int is_attempt = resume->item == item && resume->dead != 0;
        attempts += (uint32_t)is_attempt;
        if (is_attempt && resume->dead == dead && ret_own != NULL)
            *ret_own = 1;
    }
    return attempts;
}

struct bri_failure_shm *bri_job_failure(struct bri_job_shm *job, uint64_t item)
{
    struct bri_walk walk = bri_walk_begin(&job->failures);

    for (struct bri_failure_shm *failure; (failure = bri_walk_next(&walk)) != NULL;)
        if (failure->index == item)
            return failure;
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
static void tell_cancelled(const struct bri_job_view *view, uint64_t item, brood_outcome *outcome)
{
    if (bri_load_acquire(&view->job->cancel) != BRI_CANCEL_TIME) {
        outcome->kind = BROOD_CANCELLED;
        return;
    }
    unsigned long long index = view->first_index + item;
    outcome->kind = BROOD_TIMED_OUT;
    snprintf(outcome->text, sizeof outcome->text,
             "item %llu: not begun when the %u ms of the whole were over", index, view->timeout_ms);
}

/* The copy is looked at, not what it is of. */
static int take_failure(const struct bri_failure_shm *failure, brood_outcome *outcome)
{
    *outcome = failure->outcome;
    outcome->text[sizeof outcome->text - 1] = 0;
    return outcome->kind >= BROOD_ERROR && outcome->kind <= BROOD_TIMED_OUT;
}

int bri_job_outcome(const struct bri_job_view *view, uint64_t item, brood_outcome *ret_outcome)
{
    uint64_t chunk = item / view->chunk_items;
    struct bri_failure_shm *failure = bri_job_failure(view->job, item);
    uint16_t word = bri_load_acquire(&view->table[chunk]);
    uint32_t attempts = bri_job_attempts(view->job, item, 0, NULL);
    brood_outcome outcome = {.kind = BROOD_PENDING};

    if (failure != NULL && !take_failure(failure, &outcome))
        return -ENOTRECOVERABLE;
    if (failure == NULL && (word == BRI_CHUNK_DONE || item < bri_view_resume_item(view, chunk)))
        outcome.kind = BROOD_VALUE;
    else if (failure == NULL && word == BRI_CHUNK_CANCELLED)
        tell_cancelled(view, item, &outcome);
    int has_ended = failure != NULL || outcome.kind == BROOD_VALUE;
    outcome.attempts = (int)attempts + has_ended;
    *ret_outcome = outcome;
    return 0;
}

int bri_is_on(const _Atomic bri_offset *list, const void *payload)
{
    struct bri_walk walk = bri_walk_begin(list);

    for (const void *node; (node = bri_walk_next(&walk)) != NULL;)
        if (node == payload)
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
    const struct bri_job_shm *job = bri_heap_find(job_at, BRI_KIND_JOB, sizeof *job);

    return job != NULL && bri_job_owner(job) == owner;
}

/* The job is kept by the dead worker's visit, which ends only when it is mourned. */
static int is_failure_wanted(struct bri_block_shm *block)
{
    bri_offset job_at = bri_load_acquire(&block->aux[0]), reserve_at = bri_load_acquire(&block->aux[1]);
    const void *payload = bri_payload_of(block);
    _Atomic bri_offset *reserve = bri_at_checked(reserve_at, sizeof *reserve, sizeof *reserve);

    if (reserve != NULL && bri_load_acquire(reserve) == bri_offset_of(payload))
        return 1;
    if (!is_job_of(job_at, bri_load_acquire(&block->aux[2])))
        return 0;
    struct bri_job_shm *job = bri_at(job_at);
    return bri_is_on(&job->failures, payload) || bri_is_on(&job->resumes, payload);
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
    _Atomic bri_offset *word = bri_at_checked(word_at, sizeof *word, sizeof *word);

    if (word == NULL || !owner_keeps(block, dead) ||
        !is_job_of(bri_load_acquire(&block->aux[1]), bri_load_acquire(&block->aux[2])) ||
        bri_load_acquire(word) != bri_offset_of(bri_payload_of(block)))
        return 0;
    bri_block_pass_to_owner(block);
    return 1;
}

const struct bri_kind_ops bri_failure_ops = {.bytes = sizeof(struct bri_failure_shm),
                                             .settle = failure_settle};
const struct bri_kind_ops bri_reply_ops = {.settle = reply_settle};
