/* SPDX-License-Identifier: MIT */
/*
 * A job: one apply or map call.  One block of the arena, made by the owner:
 *
 *   | bri_job_shm | counts: one line per worker (chunks > 1) | table: a word of 16 bits per chunk | replies (jobs in bytes) | items | results |
 *
 * What is small lies in bri_job_shm itself: the table of one chunk, and such a job's items and results.  Its first line is what the worker needs to
 * learn of a call, its second one what the owner waits for; the rest is the same from call to call of a standing job (standing.c).
 *
 *   items     = count × item_bytes at items_at, or, for a job in bytes, count × bri_span_shm and behind them the bytes
 *   results   = count × result_bytes at results_at;      replies = count offsets of BRI_KIND_REPLY blocks
 *   chunks    = ceil(count / chunk_items);  chunk c = items c × chunk_items … min(count, (c + 1) × chunk_items) - 1
 *   worker w of n has the share of chunks  chunks × w / n … chunks × (w + 1) / n - 1
 *
 * chunk word:    FREE ----CAS: the claim names its worker----> w + 1 ----store----> DONE
 *                 | ^                                           |
 *                 | +---- undertaker: what the dead one left ---+
 *                 +--CAS--> CANCELLED: the owner; once the job's `cancel` is at RUNNING, whoever finds it FREE
 *
 * cancel:        NONE → WAITING: what is FREE now is CANCELLED → RUNNING: and nothing of it runs on → TIME: the same, since its time is up
 *                CAS, upward only.  The supervisor ends what runs (enforce.h).
 * complete:      cancel NONE: the sum of counts is `chunks`.  Else: each chunk word is DONE or CANCELLED.  Whoever finds that out says it: `ended` becomes
 *                `round`, from `round` - 1, by CAS.  A job has one round; a standing job has one for each call, so that who found the last one
 *                counted, and says so late, does not say it of this one.
 *
 * A worker takes from the near end of its own share, then from the far ends of the others'.  Claim: one CAS, no lock, no system call.
 *
 * What a worker writes, and the steps of one chunk (W: the worker's seat in pool.h, P: the progress word of its slot, heap/user.h)
 *   J1  W.visiting = job           so that the owner does not free the job; then looks whether the job is still offered
 *   J2  W.visiting = job | VALID   from here on the undertaker looks for a claim in this job
 *   J3  P = 0
 *   J4  the claim (linearisation of "this worker runs it")
 *   J5  W.chunk = c
 *   J6  P = item, RUNNING; the user's function; result in place; P = item + 1, not running   for each item
 *                                  (linearisation of "the item has its outcome": the second store; it may be one with the next item's first)
 *   J7  the chunk's word = DONE
 *   J8  counts[w] = (count + 1, c), one store; EACH: signal.  When it finds no FREE chunk: sum of counts == chunks → `ended` = `round` (CAS), signal
 *
 * death table (D: the dead worker, found by the name in its seat)
 *   J1, J2          nothing is claimed: the visit ends
 *   J3 … J5         word names D, P = 0: nothing has run → FREE again
 *   J6              word names D: items before P's are done; if RUNNING, this item's outcome is DIED (once: a failure that the function had
 *                   reported stays); the rest is resumed: a resume record (chunk, next item), then FREE again, or DONE if nothing is left.
 *                   With retries left the item has no outcome yet: an attempt (chunk, the same item, D's name) instead, then FREE again.
 *                   Had the seat a verdict, the outcome is that of the verdict, and nothing is tried again
 *   J7              the word is DONE, W.chunk = c, but counts[w] does not name c: count it now
 *   J8              counts are right; the undertaker itself looks whether the job is complete
 * A chunk that is FREE again lies behind the cursors of the live workers: the job goes on the pool's list of returns, whose counter says
 * "look again from the start".
 *
 * In a job whose `cancel` is at RUNNING, read CANCELLED for "FREE again".
 * The undertaker does all this under its lock, and again from the top should it die: each step looks first.
 *
 * Killed owner: the supervisor ends the workers, then the undertaker frees the job, which is tagged with the owner's name.
 *
 * Damage (arena.h).  A worker's function may have written over the job.  Owner, supervisor and undertaker go by a view: the constants, the
 * owner's from when it made the job, others' read once and checked.  Lists are walked by bri_walk, which ends where they are no lists.  Workers go by the
 * job itself: what they fall with is their own.
 */
#ifndef BRI_JOB_H
#define BRI_JOB_H

#include <stddef.h>

#include "brood.h"
#include "heap/heap.h"
#include "heap/user.h"

enum bri_chunk_word {
    BRI_CHUNK_FREE = 0,
    BRI_CHUNK_ARMING = 0xfffd, /* of a standing job: nobody's, between two calls */
    BRI_CHUNK_CANCELLED = 0xfffe,
    BRI_CHUNK_DONE = 0xffff
};
enum bri_job_cancel { BRI_CANCEL_NONE, BRI_CANCEL_WAITING, BRI_CANCEL_RUNNING, BRI_CANCEL_TIME };
enum {                     /* flags */
       BRI_JOB_BYTES = 1,  /* items and results of differing sizes */
       BRI_JOB_STREAM = 2, /* an item of a stream: may be offered while the pool is closing */
       BRI_JOB_EACH = 4,   /* who waits is told of each chunk */
};

#define BRI_NO_CHUNK   UINT64_MAX
#define BRI_CHUNKS_MAX (UINT64_C(1) << 31)
#define BRI_ITEMS_MAX  (UINT64_C(1) << 40)
enum { BRI_WORKERS_MAX = 1024, BRI_JOB_NUMBER_BITS = 22 };
enum { BRI_SMALL_ITEMS = 32, BRI_SMALL_RESULTS = 32 }; /* bytes that lie in the job itself */

struct bri_span_shm {
    uint64_t offset; /* from items_at */
    uint64_t bytes;
};

struct bri_count_shm {
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t
        word; /* chunks done << 32 | last chunk + 1; the worker, after its death the undertaker */
};

/* field – writer – readers: all but the atomics are the owner's before the job is offered, then nobody's; but see
 * standing.c */
struct bri_job_shm {
    /* what differs in each call of a standing job, and the worker needs to learn */
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t round; /* 1; of a standing job: which call it is */
    uint64_t function;                               /* same image after fork: its address */
    uint64_t item_bytes;
    uint32_t
        number; /* of the job, 22 bits, the first of which says that it stands: the upper bits of progress words */
    _Atomic uint16_t word; /* the table, when there is one chunk */
    _Alignas(16) char small_items[BRI_SMALL_ITEMS];
    /* its end: what the owner waits for */
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t
        ended;              /* the last round that is complete: whoever counts its last chunk, by CAS */
    _Atomic uint32_t event; /* signalled when complete */
    uint32_t timeout_ms;    /* of the whole: for the sentence */
    bri_offset notify;      /* of the event word that is signalled too: the pool's `finished` */
    _Atomic bri_offset
        bell; /* a BRI_KIND_DATA block with a bri_bell_shm, once the owner has asked for a descriptor */
    _Alignas(16) char small_results[BRI_SMALL_RESULTS];
    /* the rest: constants, */
    _Alignas(BRI_CACHE_LINE) uint32_t flags;
    uint32_t retries;         /* of an item whose worker died */
    uint32_t item_timeout_ms; /* 0: none */
    uint32_t workers;         /* of the pool: shares */
    uint64_t count, chunk_items, chunks, result_bytes;
    bri_offset table_at, replies_at, items_at, results_at;
    uint64_t first_index; /* what users call item 0: a stream's items are jobs of their own */
    uint64_t sequence;    /* in the order of submission, from 0 */
    int64_t deadline;     /* of the whole; BROOD_FOREVER: none */
    /* and what may happen to it */
    _Atomic uint32_t cancel; /* enum bri_job_cancel; owner, supervisor */
    _Atomic bri_offset
        failures; /* list of BRI_KIND_FAILURE blocks: push by CAS, never popped while the job lives */
    _Atomic bri_offset resumes; /* likewise, by the undertaker */
};
_Static_assert(offsetof(struct bri_job_shm, ended) == BRI_CACHE_LINE &&
                   offsetof(struct bri_job_shm, flags) == (size_t)2 * BRI_CACHE_LINE &&
                   sizeof(struct bri_job_shm) == (size_t)4 * BRI_CACHE_LINE,
               "a line for the call, one for its end, and two for the rest; behind them the counts");

enum {
    BRI_JOB_CONSTANTS = offsetof(struct bri_job_shm, cancel) - offsetof(struct bri_job_shm, flags)
}; /* bytes */

/* Both are BRI_KIND_FAILURE blocks; aux[0]: the job whose list they are bound for, aux[1]: the word of a seat that keeps them in reserve.
 * These and BRI_KIND_REPLY blocks (aux[0]: the word of the job's replies that they are bound for, aux[1]: the job) are passed on to the pool's
 * owner, aux[2], so that they go when it dies, as its jobs do. */
struct bri_failure_shm {
    uint64_t index; /* of the item */
    bri_offset next;
    brood_outcome outcome;
};

struct bri_resume_shm {
    uint64_t chunk;
    bri_offset next;
    uint64_t item; /* the chunk goes on here */
    bri_name dead; /* who died in this item, which is to be tried again; else 0 */
};

static inline _Atomic uint16_t *bri_job_chunk(struct bri_job_shm *job, uint64_t chunk)
{
    return (_Atomic uint16_t *)bri_at(job->table_at) + chunk;
}

static inline struct bri_count_shm *bri_job_count(struct bri_job_shm *job, uint32_t worker)
{
    return (struct bri_count_shm *)(void *)(job + 1) + worker;
}

static inline _Atomic bri_offset *bri_job_reply(struct bri_job_shm *job, uint64_t item)
{
    return (_Atomic bri_offset *)bri_at(job->replies_at) + item;
}

static inline uint64_t bri_job_first_item(const struct bri_job_shm *job, uint64_t chunk)
{
    return chunk * job->chunk_items;
}

static inline uint64_t bri_job_end_item(const struct bri_job_shm *job, uint64_t chunk)
{
    uint64_t end = (chunk + 1) * job->chunk_items;

    return end < job->count ? end : job->count;
}

/* The constants of a job as one process has read them: all of it lies in the arena. */
struct bri_job_view {
    struct bri_job_shm *job;
    uint64_t round, count, chunk_items, chunks, result_bytes, first_index;
    uint32_t workers, flags, timeout_ms;
    _Atomic uint16_t *table;
    struct bri_count_shm *counts; /* NULL: there is one chunk */
    _Atomic bri_offset *replies;  /* NULL: not a job in bytes */
    char *results;                /* NULL: of 0 bytes */
};

/* 1, or 0: the job is damaged. */
int bri_job_read(struct bri_job_shm *job, struct bri_job_view *ret_view);

static inline uint64_t bri_view_first_item(const struct bri_job_view *view, uint64_t chunk)
{
    return chunk * view->chunk_items;
}

static inline uint64_t bri_view_end_item(const struct bri_job_view *view, uint64_t chunk)
{
    uint64_t end = (chunk + 1) * view->chunk_items;

    return end < view->count ? end : view->count;
}

/* A walk over `failures` or `resumes`, whose nodes have `next` at the same place.  Ends at the first node that is none, and in a ring, which
 * it notices where it meets the node that it has marked after 1, 2, 4 … steps. */
struct bri_walk {
    bri_offset at, mark;
    uint64_t steps, next_mark;
    int is_damaged;
};

static inline struct bri_walk bri_walk_begin(const _Atomic bri_offset *list)
{
    return (struct bri_walk){.at = bri_load_acquire(list), .next_mark = 1};
}

/* The next node: a bri_failure_shm, or bri_resume_shm, which has as much room; NULL: there is none. */
void *bri_walk_next(struct bri_walk *walk);

static inline int bri_job_is_complete(struct bri_job_shm *job)
{
    uint64_t round = bri_load_acquire(&job->round);

    return bri_load_acquire(&job->ended) == round;
}

/* The same for the owner, which knows its round; a condition of waits that are signalled behind a fence (event.h). */
static inline int bri_view_is_complete(const struct bri_job_view *view)
{
    return bri_load_seq_cst(&view->job->ended) == view->round;
}

/* What the owner wants done. */
struct bri_job_wish {
    brood_function *function;
    const void *items;
    const brood_message *spans; /* job in bytes: instead of items */
    size_t count, item_bytes, result_bytes, chunk_items;
    void *results; /* lies in the arena: workers write there; else NULL */
    bri_offset notify;
    uint64_t first_index;
    uint32_t workers;
    uint32_t retries, timeout_ms, item_timeout_ms;
    int is_of_stream; /* may be offered while the pool is closing */
    int is_awaited;   /* by the submitter, who does nothing else meanwhile */
    int tells_each;
};

/* Lays out and fills the job; owned by the caller.  -ENOMEM; -EINVAL: sizes overflow. */
int bri_job_make(const struct bri_job_wish *wish, struct bri_job_view *ret_view);

/* Whose it is. */
static inline bri_name bri_job_owner(const struct bri_job_shm *job)
{
    return bri_tag_owner(bri_load_relaxed(&bri_block_of(job)->tag));
}

/* To the name in aux[2]. */
static inline void bri_block_pass_to_owner(struct bri_block_shm *block)
{
    bri_block_pass(block, (bri_name)bri_load_relaxed(&block->aux[2]));
}

/* With its failures, resumes and replies, as far as they can be found. */
void bri_job_free(const struct bri_job_view *view);

/* Of a complete job that is to have another round. */
void bri_job_forget_failures(struct bri_job_shm *job);

/* J8, second half; by anybody. */
void bri_job_complete_if_counted(struct bri_job_shm *job);

/* Raises `cancel` and cancels the FREE chunks: how many items these are.  By the owner, and by the supervisor while it looks. */
uint64_t bri_job_cancel(const struct bri_job_view *view, enum bri_job_cancel level);

/* Is nothing of it to run any more? */
static inline int bri_job_is_stopped(struct bri_job_shm *job)
{
    return bri_load_seq_cst(&job->cancel) >= BRI_CANCEL_RUNNING;
}

/* The chunk that the worker has claimed; BRI_NO_CHUNK: none. */
uint64_t bri_job_claim_of(const struct bri_job_view *view, uint32_t worker);

/* Signals who waits: a chunk is done.  Behind a sequentially consistent fence, exchange or CAS (event.h), as the next. */
void bri_job_tell(struct bri_job_shm *job);

/* Signals a complete job's waiters and descriptor; the undertaker does it again for a worker that died between COMPLETE and this. */
void bri_job_announce(struct bri_job_shm *job);

/* Where the chunk of the items first … end - 1 begins now: with the first, or behind what a dead worker had done. */
uint64_t bri_job_resume_item(struct bri_job_shm *job, uint64_t chunk, uint64_t first, uint64_t end);

static inline uint64_t bri_view_resume_item(const struct bri_job_view *view, uint64_t chunk)
{
    return bri_job_resume_item(view->job, chunk, bri_view_first_item(view, chunk),
                               bri_view_end_item(view, chunk));
}

/* How often a worker has died in the item, with another try following; `ret_own`, unless NULL: whether `dead` is among them. */
uint32_t bri_job_attempts(struct bri_job_shm *job, uint64_t item, bri_name dead, int *ret_own);

/* Is it on one of the job's lists? */
int bri_is_on(const _Atomic bri_offset *list, const void *payload);

/* The failure of the item, or NULL. */
struct bri_failure_shm *bri_job_failure(struct bri_job_shm *job, uint64_t item);

/* Puts a filled failure block, owned by the caller, on the list, and passes it on. */
void bri_job_push_failure(struct bri_job_shm *job, struct bri_failure_shm *failure);

/* How the item ended, as far as the job alone says.  -ENOTRECOVERABLE: it says nothing that can be. */
int bri_job_outcome(const struct bri_job_view *view, uint64_t item, brood_outcome *ret_outcome);

extern const struct bri_kind_ops bri_failure_ops, bri_reply_ops;

#endif
