/* SPDX-License-Identifier: MIT */
/* The queue's memory: segments, blocks of large messages, and what becomes of them in a death.  Drawn in queue.h. */
#include <errno.h>

#include "base/error.h"
#include "queue/queue.h"

/* Of a segment's block, headers included: they fill slabs and pages without a rest. */
enum {
    FIRST_BYTES = 8 * 1024,
    MOST_BYTES = 64 * 1024,
    OVERHEAD = sizeof(struct bri_block_shm) + sizeof(struct bri_segment_shm),
    FRAMES_AT_LEAST = 8 /* so that the rest at a segment's end stays small */
};

/* ---- segments ---- */

/* N1 */
static int make_segment(struct bri_queue_shm *queue, uint64_t base, uint64_t total,
                        struct bri_segment_shm **ret_segment)
{
    void *payload;
    int error = bri_heap_alloc(BRI_KIND_SEGMENT, total - sizeof(struct bri_block_shm), bri_self(), &payload);

    if (error < 0)
        return error;
    struct bri_segment_shm *segment = payload;
    segment->base = base;
    segment->bytes = total - OVERHEAD;
    bri_store_relaxed(&segment->next, UINT64_C(0));
    bri_store_release(&bri_block_of(segment)->aux[BRI_AUX_QUEUE], bri_offset_of(queue));
    *ret_segment = segment;
    return 0;
}

int bri_segment_create(struct bri_queue_shm *queue)
{
    struct bri_segment_shm *segment;
    int error = make_segment(queue, 0, FIRST_BYTES, &segment);

    if (error < 0)
        return error;
    bri_fault("queue.create.segment");
    bri_store_release(&queue->head, bri_offset_of(segment));
    bri_fault("queue.create.head");
    bri_store_release(&queue->tail, bri_offset_of(segment));
    return 0;
}

/* Small as long as the queue is short, so that its memory stays in the cache; longer when it piles up. */
static uint64_t choose_total(const struct bri_queue_shm *queue, const struct bri_segment_shm *old,
                             uint64_t extent)
{
    uint64_t backlog = bri_cursor_vpos(&queue->put) - bri_cursor_vpos(&queue->got);
    uint64_t total = old->bytes + OVERHEAD;

    if (backlog > old->bytes / 2)
        total *= 2;
    while (total < extent * FRAMES_AT_LEAST)
        total *= 2;
    return total < MOST_BYTES ? total : MOST_BYTES;
}

int bri_segment_append(struct bri_queue_shm *queue, uint64_t extent)
{
    struct bri_segment_shm *segment, *old = bri_at(bri_load_relaxed(&queue->tail));
    uint64_t vpos = bri_cursor_vpos(&queue->put), end = bri_segment_end(old);
    int error = make_segment(queue, end, choose_total(queue, old, extent), &segment); /* N1 */

    if (error < 0)
        return error;
    bri_fault("queue.segment.made");
    bri_check(1, vpos > old->base); /* any frame fits into an empty segment */
    if (vpos < end)
        *bri_frame_at(old, vpos) = bri_frame_make(BRI_FRAME_SKIP, 0, 0); /* N2 */
    bri_fault("queue.segment.skipped");
    bri_store_release(&old->next, bri_offset_of(segment)); /* N3 */
    bri_fault("queue.segment.linked");
    bri_store_release(&queue->tail, bri_offset_of(segment)); /* N4 */
    bri_fault("queue.segment.tail");
    bri_block_pass(bri_block_of(segment), 0); /* N5 */
    return 0;
}

/* Makes the segment the caller's: who frees a block carries its name. */
static void claim_segment(struct bri_segment_shm *segment)
{
    bri_block_pass(bri_block_of(segment), bri_self());
}

static struct bri_segment_shm *retire(struct bri_queue_shm *queue, struct bri_segment_shm *segment)
{
    bri_offset next = bri_load_acquire(&segment->next);

    bri_check(1, next != 0);
    claim_segment(segment); /* R1 */
    bri_fault("queue.retire.claimed");
    bri_store_release(&queue->head, next); /* R2 */
    bri_fault("queue.retire.unlinked");
    bri_heap_free(segment); /* R3 */
    return bri_at(next);
}

static int is_at_end(struct bri_segment_shm *segment, uint64_t vpos)
{
    return vpos >= bri_segment_end(segment) || bri_frame_kind(bri_frame_at(segment, vpos)) == BRI_FRAME_SKIP;
}

struct bri_frame_shm *bri_queue_front(struct bri_queue_shm *queue, struct bri_segment_shm **ret_segment,
                                      uint64_t *ret_vpos)
{
    uint64_t vpos = bri_cursor_vpos(&queue->got);

    if (vpos >= bri_load_relaxed(&queue->put_seen)) {           /* G1 */
        uint64_t put = bri_load_acquire(&queue->put.word) >> 1; /* E1 */
        bri_store_relaxed(&queue->put_seen, put);
        if (vpos >= put)
            return NULL;
    }
    struct bri_segment_shm *segment = bri_at(bri_load_relaxed(&queue->head));
    if (vpos < segment->base)
        vpos = segment->base;
    while (is_at_end(segment, vpos)) { /* G2 */
        segment = retire(queue, segment);
        vpos = segment->base;
    }
    *ret_segment = segment;
    *ret_vpos = vpos;
    return bri_frame_at(segment, vpos);
}

/* ---- blocks of messages ---- */

int bri_message_create(struct bri_queue_shm *queue, uint64_t bytes, struct bri_block_shm **ret_block)
{
    void *payload;
    int error = bri_heap_alloc(BRI_KIND_MESSAGE, bytes, bri_self(), &payload);

    if (error < 0)
        return error;
    *ret_block = bri_block_of(payload);
    bri_store_relaxed(&(*ret_block)->aux[BRI_AUX_BYTES], bytes);
    bri_store_release(&(*ret_block)->aux[BRI_AUX_QUEUE], bri_offset_of(queue));
    return 0;
}

struct bri_block_shm *bri_message_claim(const struct bri_frame_shm *frame)
{
    struct bri_block_shm *block = bri_block_of(bri_at(frame->message));

    bri_check(2, bri_heap_is(bri_at(frame->message), BRI_KIND_MESSAGE));
    bri_block_pass(block, bri_self()); /* G3 */
    bri_fault("queue.get.claimed");
    return block;
}

int bri_message_check(const brood_message *message, struct bri_block_shm **ret_block)
{
    if (message == NULL || !bri_heap_is(message->data, BRI_KIND_MESSAGE))
        return bri_fail(EINVAL,
                        "message is not one: pass what brood_queue_reserve or brood_queue_borrow has filled");
    struct bri_block_shm *block = bri_block_of(message->data);
    if (bri_tag_owner(bri_load_relaxed(&block->tag)) != bri_self() ||
        bri_load_relaxed(&block->aux[BRI_AUX_FRAME]) != 0)
        return bri_fail(EINVAL,
                        "message is not in this process's hands: it was put already, or another process's");
    if (message->bytes > bri_load_relaxed(&block->bytes))
        return bri_fail(EINVAL, "message->bytes is %zu, more than the %llu reserved", message->bytes,
                        (unsigned long long)bri_load_relaxed(&block->bytes));
    *ret_block = block;
    return 0;
}

/* ---- the end of a queue ---- */

static void empty_frames(struct bri_queue_shm *queue)
{
    struct bri_segment_shm *segment;
    struct bri_frame_shm *frame;
    uint64_t vpos;

    while ((frame = bri_queue_front(queue, &segment, &vpos)) != NULL) {
        enum bri_frame kind = bri_frame_kind(frame);
        uint64_t bytes = bri_frame_bytes(frame);
        struct bri_block_shm *block = kind == BRI_FRAME_BLOCK ? bri_message_claim(frame) : NULL;
        bri_cursor_advance(&queue->got, vpos + bri_frame_extent(kind, bytes), 1, bytes);
        bri_fault("queue.empty.taken");
        if (block != NULL)
            bri_heap_free(bri_payload_of(block));
    }
}

void bri_queue_empty(struct bri_queue_shm *queue)
{
    empty_frames(queue);
    bri_store_release(&queue->tail, UINT64_C(0)); /* settle goes by it */
    for (;;) {
        struct bri_segment_shm *segment = bri_at(bri_load_relaxed(&queue->head));
        if (segment == NULL)
            return;
        claim_segment(segment);
        bri_fault("queue.empty.claimed");
        bri_store_release(&queue->head, bri_load_relaxed(&segment->next));
        bri_fault("queue.empty.unlinked");
        bri_heap_free(segment);
    }
}

/* ---- who dies ---- */

/* The queue that a block is bound for; NULL when that does not exist (any more). */
static struct bri_queue_shm *queue_of(struct bri_block_shm *block)
{
    void *queue = bri_at(bri_load_relaxed(&block->aux[BRI_AUX_QUEUE]));

    return queue != NULL && bri_heap_is(queue, BRI_KIND_QUEUE) ? queue : NULL;
}

/* A segment with a name is being linked (its maker holds put_lock: tail stands) or retired (head stands). */
static int settle_segment(struct bri_block_shm *block, bri_name dead)
{
    const struct bri_queue_shm *queue = queue_of(block);
    bri_offset at = bri_offset_of(bri_payload_of(block));
    int is_linked = 0;

    (void)dead;
    if (queue == NULL)
        return 0;
    bri_offset tail = bri_load_acquire(&queue->tail);
    if (tail != 0)
        is_linked = bri_load_acquire(&((struct bri_segment_shm *)bri_at(tail))->next) == at &&
                    bri_load_acquire(&queue->tail) == tail;
    return is_linked || tail == at || bri_load_acquire(&queue->head) == at;
}

/* A message that the dead had not put loses its aux: by the time somebody asks again, another may lie at its vpos.
 * One that is taken carries its consumer's name by now. */
static int settle_message(struct bri_block_shm *block, bri_name dead)
{
    const struct bri_queue_shm *queue = queue_of(block);
    uint64_t vpos = bri_load_acquire(&block->aux[BRI_AUX_FRAME]) - 1;

    if (queue == NULL || vpos == UINT64_MAX)
        return 0;
    if (vpos < bri_load_acquire(&queue->put.word) >> 1)
        return bri_load_acquire(&queue->got.word) >> 1 <= vpos;
    if (bri_tag_owner(bri_load_acquire(&block->tag)) == dead)
        bri_store_release(&block->aux[BRI_AUX_FRAME], UINT64_C(0));
    return 0;
}

const struct bri_kind_ops bri_segment_ops = {.settle = settle_segment};
const struct bri_kind_ops bri_message_ops = {.settle = settle_message};
