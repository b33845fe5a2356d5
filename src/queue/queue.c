/* SPDX-License-Identifier: MIT */
/* A queue from its creation to its end, and what is neither put nor get.  Drawn in queue.h. */
#include "queue/queue.h"

#include <errno.h>

#include "arena/undertaker.h"
#include "base/error.h"
#include "base/options.h"
#include "base/time.h"

enum { LEAST_PATIENCE = 4, MOST_PATIENCE = 256, DISTANCE = 64 };

/* ---- handles ---- */

int bri_queue_bad_handle(const void *handle)
{
    if (handle == NULL)
        return bri_fail(EINVAL, "queue is NULL: pass what brood_queue_create returned");
    return bri_fail(EINVAL, "queue (%p) is not a queue of this arena: it was destroyed, or is something else",
                    handle);
}

int bri_queue_bad_deadline(int64_t deadline)
{
    return bri_fail(EINVAL,
                    "deadline is %lld: it must be BROOD_NOW, BROOD_FOREVER or a time from brood_after_ms",
                    (long long)deadline);
}

int bri_queue_is_damaged(void)
{
    return bri_fail(EBADMSG, "the queue is damaged: some process has written into its shared memory");
}

void bri_queue_lock_both(struct bri_queue_shm *queue)
{
    for (;;) {
        bri_mutex_lock(&queue->put_lock);
        if (bri_mutex_try(&queue->get_lock))
            return;
        bri_mutex_unlock(&queue->put_lock);
        bri_mutex_lock(&queue->get_lock); /* sleeps where nothing is held that its owner's undertaker needs */
        bri_mutex_unlock(&queue->get_lock);
    }
}

void bri_queue_unlock_both(struct bri_queue_shm *queue)
{
    bri_mutex_unlock(&queue->get_lock);
    bri_mutex_unlock(&queue->put_lock);
}

/* ---- create and destroy ---- */

static uint64_t bound(uint64_t value)
{
    return value == 0 ? UINT64_MAX : value;
}

int brood_queue_create(const brood_queue_options *options, brood_queue **ret_queue)
{
    brood_queue_options known;
    void *payload;

    if (ret_queue == NULL)
        return bri_fail(EINVAL, "ret_queue is NULL: pass where the queue's handle goes");
    int error = bri_options_take(options, &known, sizeof known, "options");
    if (error == 0)
        error = bri_arena_enter();
    if (error == 0)
        error = bri_heap_alloc_zeroed(BRI_KIND_QUEUE, sizeof(struct bri_queue_shm), bri_self(), &payload);
    if (error < 0)
        return error;
    struct bri_queue_shm *queue = payload;
    queue->max_messages = bound(known.max_messages);
    queue->max_bytes = bound(known.max_bytes);
    bri_store_release(&bri_block_of(queue)->aux[2], BRI_READY); /* mourn may come */
    error = bri_segment_create(queue);
    if (error < 0) {
        bri_heap_free(queue);
        return error;
    }
    bri_fault("queue.create.filled");
    *ret_queue = payload; /* before it is passed on: at no moment is there a queue that nobody knows */
    bri_block_pass(bri_block_of(queue), 0);
    struct bri_segment_shm *first =
        bri_heap_find(bri_load_relaxed(&queue->head), BRI_KIND_SEGMENT, sizeof *first);
    if (first != NULL)
        bri_block_pass(bri_block_of(first), 0);
    return 0;
}

/* Names of the dead do not count, reported or not. */
static int is_waited_in(struct bri_queue_shm *queue)
{
    for (int i = 0; i < BRI_QUEUE_WAITERS; i++) {
        bri_name name = bri_load_acquire(&queue->waiters[i]);
        if (bri_is_alive(name) && !bri_report_if_ended(name))
            return 1;
    }
    return 0;
}

int brood_queue_destroy(brood_queue *handle)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);

    if (handle == NULL)
        return 0;
    int error = bri_queue_enter(queue);
    if (error < 0)
        return error;
    if (is_waited_in(queue))
        return bri_fail(
            EBUSY, "queue is in use: a process waits in it; close it, let its users end, destroy it then");
    bri_bell_close(&queue->bell);
    bri_queue_lock_both(queue);
    bri_block_pass(bri_block_of(queue), bri_self());
    bri_fault("queue.destroy.claimed");
    bri_queue_empty(queue);
    bri_queue_unlock_both(queue);
    bri_fault("queue.destroy.emptied");
    bri_heap_free(queue);
    return 0;
}

/* ---- waiting ---- */

/* Only destroy looks at it: with more waiters than places, those with a place are enough. */
static _Atomic bri_name *take_place(struct bri_queue_shm *queue)
{
    for (int i = 0; i < BRI_QUEUE_WAITERS; i++) {
        bri_name nobody = 0;
        if (bri_load_relaxed(&queue->waiters[i]) == 0 &&
            bri_cas_acq_rel(&queue->waiters[i], &nobody, bri_self()))
            return &queue->waiters[i];
    }
    return NULL;
}

/* Who empties a queue as fast as another fills it, or the other way round, meets that one at every message, and then each message costs both of them
 * the way of several cache lines.  A thread whose last waits all ended so keeps a distance: it lets some messages gather before it looks.
 * Where none gather, since the other waits for an answer, it asks more waits for the next time. */
static _Thread_local struct {
    uint32_t meetings; /* waits in a row that left nothing to do behind */
    uint32_t patience; /* after how many it keeps a distance; 0: LEAST_PATIENCE */
} pace __attribute__((tls_model("initial-exec")));

static int keeps_distance(void)
{
    uint32_t patience = pace.patience == 0 ? LEAST_PATIENCE : pace.patience;

    if (pace.meetings < patience || !bri_may_spin())
        return 0;
    for (int i = 0; i < DISTANCE; i++)
        bri_cpu_relax();
    return 1;
}

static void note_meeting(int has_kept_distance, int is_more_to_do)
{
    if (is_more_to_do) {
        if (has_kept_distance)
            pace.patience = LEAST_PATIENCE;
        else
            pace.meetings = 0;
        return;
    }
    pace.meetings++;
    if (!has_kept_distance)
        return;
    pace.meetings = 0;
    pace.patience = pace.patience < MOST_PATIENCE / 2 ? (pace.patience | LEAST_PATIENCE) * 2 : MOST_PATIENCE;
}

int bri_queue_wait(struct bri_queue_shm *queue, _Atomic uint32_t *event, bri_condition *condition,
                   void *argument, int64_t deadline)
{
    if (deadline == BROOD_NOW)
        return -ETIMEDOUT;
    _Atomic bri_name *place = take_place(queue);
    int has_kept_distance = keeps_distance();
    int met = bri_wait(event, condition, argument, deadline, BRI_QUEUE_SLICE_MS * BRI_NS_PER_MS);
    if (met > 0)
        note_meeting(has_kept_distance, met > 1 || (event == &queue->filled ? !bri_queue_is_empty(queue)
                                                                            : bri_queue_has_room(queue, 0)));
    if (place != NULL)
        bri_store_release(place, (bri_name)0);
    return met;
}

void bri_queue_pass_on_messages(struct bri_queue_shm *queue)
{
    if ((bri_load_seq_cst(&queue->filled) & BRI_EVENT_WAITING) && !bri_queue_is_empty(queue))
        bri_event_signal_slow(&queue->filled, 1);
}

void bri_queue_pass_on_room(struct bri_queue_shm *queue)
{
    if ((bri_load_seq_cst(&queue->drained) & BRI_EVENT_WAITING) && bri_queue_has_room(queue, 0))
        bri_event_signal_slow(&queue->drained, 1);
}

/* got first: it never passes what put shows later. */
int bri_queue_has_room(const struct bri_queue_shm *queue, uint64_t bytes)
{
    uint64_t got_messages, got_bytes, put_messages, put_bytes;

    bri_cursor_read(&queue->got, &got_messages, &got_bytes);
    bri_cursor_read(&queue->put, &put_messages, &put_bytes);
    return put_messages - got_messages < queue->max_messages && bytes <= queue->max_bytes &&
           put_bytes - got_bytes <= queue->max_bytes - bytes;
}

/* ---- looking in ---- */

static int64_t count_messages(const struct bri_queue_shm *queue)
{
    uint64_t got_messages, put_messages, bytes;

    bri_cursor_read(&queue->got, &got_messages, &bytes);
    bri_cursor_read(&queue->put, &put_messages, &bytes);
    return (int64_t)(put_messages - got_messages);
}

int64_t brood_queue_size(brood_queue *handle)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    int error = bri_queue_enter(queue);

    if (error < 0)
        return error;
    int64_t messages = count_messages(queue);
    if (messages == 0 && bri_queue_await_ringer(queue))
        messages = count_messages(queue);
    return messages < 0 ? bri_queue_is_damaged() : messages;
}

/* Under put_lock, so that every put is either before it, and seen by who finds the queue closed, or fails. */
int brood_queue_close(brood_queue *handle)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    int error = bri_queue_enter(queue);

    if (error < 0)
        return error;
    bri_mutex_lock(&queue->put_lock);
    bri_bell_ring(&queue->bell);
    bri_fault("queue.close.rung");
    bri_store_release(&queue->is_closed, 1u);
    bri_fault("queue.close.set");
    bri_mutex_unlock(&queue->put_lock);
    bri_event_signal(&queue->filled, INT_MAX);
    bri_event_signal(&queue->drained, INT_MAX);
    return 0;
}

int bri_queue_await_ringer(struct bri_queue_shm *queue)
{
    if (!bri_bell_is_hung(&queue->bell))
        return 0;
    if (bri_load_seq_cst(&queue->put_lock.owner) != 0) {
        bri_mutex_lock(&queue->put_lock);
        bri_mutex_unlock(&queue->put_lock);
    }
    return 1;
}

/* A holder of put_lock may be between ringing and its commit: see bell.h.  The lock is looked at first. */
int bri_queue_is_readable(void *argument)
{
    struct bri_queue_shm *queue = argument;
    bri_name owner = bri_load_seq_cst(&queue->put_lock.owner);

    if (owner != 0) {
        bri_report_if_ended(owner);
        return 1;
    }
    return bri_load_seq_cst(&queue->is_closed) || !bri_queue_is_empty(queue);
}

int brood_queue_fd(brood_queue *handle)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    int error = bri_queue_enter(queue);

    return error < 0 ? error : bri_bell_open(&queue->bell, bri_queue_is_readable, queue);
}

int brood_queue_fd_close(brood_queue *handle)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    int error = bri_queue_enter(queue);

    if (error < 0)
        return error;
    bri_bell_close(&queue->bell);
    return 0;
}

/* ---- who dies ---- */

static void take_out(struct bri_queue_shm *queue, bri_name dead)
{
    for (int i = 0; i < BRI_QUEUE_WAITERS; i++) {
        bri_name name = dead;
        bri_cas_acq_rel(&queue->waiters[i], &name, (bri_name)0);
    }
    bri_bell_mourn(&queue->bell, dead);
}

/* N3 without N4.  No more than one: who links holds put_lock, and it was not free since. */
static void repair_tail(struct bri_queue_shm *queue)
{
    const struct bri_segment_shm *tail =
        bri_at_checked(bri_load_relaxed(&queue->tail), sizeof *tail, BRI_CACHE_LINE);

    if (tail != NULL && bri_load_acquire(&tail->next) != 0)
        bri_store_release(&queue->tail, bri_load_acquire(&tail->next));
}

static void mourn_queue(void *payload, bri_name dead)
{
    struct bri_queue_shm *queue = payload;
    int is_ownerless = bri_tag_owner(bri_load_acquire(&bri_block_of(queue)->tag)) == dead;

    take_out(queue, dead);
    if (is_ownerless) /* never handed out, or being destroyed */
        bri_queue_empty(queue);
    if (bri_mutex_take_over(&queue->put_lock, dead)) {
        repair_tail(queue);
        bri_fault("queue.mourn.repaired");
        bri_mutex_unlock(&queue->put_lock);
    }
    if (bri_mutex_take_over(&queue->get_lock, dead))
        bri_mutex_unlock(&queue->get_lock);
}

/* ---- BROOD_CHECK=3 ---- */

struct totals {
    uint64_t vpos, messages, bytes;
};

static int frame_is_valid(const struct bri_queue_shm *queue, const struct bri_frame_shm *frame, uint64_t vpos)
{
    if (bri_frame_kind(frame) == BRI_FRAME_INLINE)
        return bri_frame_bytes(frame) <= BRI_INLINE_BYTES;
    void *payload = bri_at(frame->message);
    if (payload == NULL || !bri_heap_is(payload, BRI_KIND_MESSAGE))
        return 0;
    const struct bri_block_shm *block = bri_block_of(payload);
    return bri_load_relaxed(&block->aux[BRI_AUX_QUEUE]) == bri_offset_of(queue) &&
           bri_load_relaxed(&block->aux[BRI_AUX_FRAME]) == vpos + 1 &&
           bri_load_relaxed(&block->aux[BRI_AUX_BYTES]) == bri_frame_bytes(frame) &&
           bri_frame_bytes(frame) <= bri_load_relaxed(&block->bytes);
}

/* Counts the frames of one segment from `vpos` up to `put`; 0: something is wrong. */
static int count_segment(const struct bri_queue_shm *queue, struct bri_segment_shm *segment, uint64_t put,
                         struct totals *seen)
{
    while (seen->vpos < put && seen->vpos < bri_segment_end(segment)) {
        const struct bri_frame_shm *frame = bri_frame_at(segment, seen->vpos);
        if (bri_frame_kind(frame) == BRI_FRAME_SKIP) {
            seen->vpos = bri_segment_end(segment);
            return 1;
        }
        if (!frame_is_valid(queue, frame, seen->vpos))
            return 0;
        seen->vpos += bri_frame_extent(bri_frame_kind(frame), bri_frame_bytes(frame));
        seen->messages++;
        seen->bytes += bri_frame_bytes(frame);
    }
    return seen->vpos <= bri_segment_end(segment);
}

static int walk_is_valid(const struct bri_queue_shm *queue)
{
    uint64_t got_messages, got_bytes, put_messages, put_bytes;
    uint64_t put = bri_cursor_read(&queue->put, &put_messages, &put_bytes);
    struct totals seen = {.vpos = bri_cursor_read(&queue->got, &got_messages, &got_bytes)};
    struct bri_segment_shm *segment = bri_at(bri_load_relaxed(&queue->head));

    if (seen.vpos > put || put > INT64_MAX)
        return 0;
    for (;;) {
        if (!bri_heap_is(segment, BRI_KIND_SEGMENT))
            return 0;
        if (seen.vpos < segment->base)
            seen.vpos = segment->base;
        if (!count_segment(queue, segment, put, &seen))
            return 0;
        struct bri_segment_shm *next = bri_at(bri_load_relaxed(&segment->next));
        if (next == NULL)
            break;
        if (next->base != bri_segment_end(segment))
            return 0;
        segment = next;
    }
    return segment == bri_at(bri_load_relaxed(&queue->tail)) &&
           seen.messages == put_messages - got_messages && seen.bytes == put_bytes - got_bytes &&
           seen.messages <= queue->max_messages && seen.bytes <= queue->max_bytes;
}

int bri_queue_is_valid(void *payload)
{
    struct bri_queue_shm *queue = payload;

    if (bri_tag_owner(bri_load_acquire(&bri_block_of(queue)->tag)) != 0)
        return 1; /* being made or destroyed */
    bri_queue_lock_both(queue);
    int is_valid = walk_is_valid(queue);
    bri_queue_unlock_both(queue);
    return is_valid;
}

const struct bri_kind_ops bri_queue_ops = {
    .bytes = sizeof(struct bri_queue_shm), .mourn = mourn_queue, .is_valid = bri_queue_is_valid};
