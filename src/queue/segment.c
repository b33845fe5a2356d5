/* SPDX-License-Identifier: MIT */
/* The queue's memory: segments, blocks of large messages, and what becomes of them in a death.  Drawn in queue.h. */
#include <errno.h>

#include "base/error.h"
#include "queue/queue.h"

/* Of a segment's block, headers included: they fill slabs and pages without a rest. */
enum {
    FIRST_BYTES = 8 * 1024,
    OVERHEAD = sizeof(struct bri_block_shm) + sizeof(struct bri_segment_shm),
    FRAMES_AT_LEAST = 8, /* so that the rest at a segment's end stays small */
    LOOKS_MOST = 4
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
static uint64_t choose_total(const struct bri_queue_shm *queue, uint64_t old_bytes, uint64_t extent)
{
    uint64_t backlog = bri_cursor_vpos(&queue->put) - bri_cursor_vpos(&queue->got);
    uint64_t total = old_bytes + OVERHEAD;

    if (backlog > old_bytes / 2)
        total *= 2;
    while (total < extent * FRAMES_AT_LEAST)
        total *= 2;
    return total < BRI_SEGMENT_BYTES ? total : BRI_SEGMENT_BYTES;
}

int bri_segment_append(struct bri_queue_shm *queue, const struct bri_segment *old, uint64_t vpos,
                       uint64_t extent)
{
    struct bri_segment_shm *segment;
    uint64_t end = old->base + old->bytes;
    int error = make_segment(queue, end, choose_total(queue, old->bytes, extent), &segment); /* N1 */

    if (error < 0)
        return error;
    bri_fault("queue.segment.made");
    bri_check(1, vpos > old->base); /* any frame fits into an empty segment */
    if (vpos < end)
        *bri_frame_in(old, vpos) = bri_frame_make(BRI_FRAME_SKIP, 0, 0); /* N2 */
    bri_fault("queue.segment.skipped");
    bri_store_release(&old->shared->next, bri_offset_of(segment)); /* N3 */
    bri_fault("queue.segment.linked");
    bri_store_release(&queue->tail, bri_offset_of(segment)); /* N4 */
    bri_fault("queue.segment.tail");
    bri_block_pass(bri_block_of(segment), 0); /* N5 */
    return 0;
}

/* The segment at this offset, if it is one of this queue's; else NULL. */
static struct bri_segment_shm *find_segment(const struct bri_queue_shm *queue, bri_offset at)
{
    struct bri_segment_shm *segment = bri_heap_find(at, BRI_KIND_SEGMENT, sizeof *segment);

    return segment != NULL &&
                   bri_load_acquire(&bri_block_of(segment)->aux[BRI_AUX_QUEUE]) == bri_offset_of(queue)
               ? segment
               : NULL;
}

/* Makes the segment the caller's: who frees a block carries its name. */
static void claim_segment(struct bri_segment_shm *segment)
{
    bri_block_pass(bri_block_of(segment), bri_self());
}

/* 0: it is none that may go, or the last. */
static int retire(struct bri_queue_shm *queue, bri_offset at)
{
    struct bri_segment_shm *segment = find_segment(queue, at);
    bri_offset next = segment == NULL ? 0 : bri_load_acquire(&segment->next);

    if (next == 0 || next == at)
        return 0;
    claim_segment(segment); /* R1 */
    bri_fault("queue.retire.claimed");
    bri_store_release(&queue->head, next); /* R2 */
    bri_fault("queue.retire.unlinked");
    bri_heap_free(segment); /* R3 */
    return 1;
}

/* G2, where the oldest frame is not at `vpos` of the first segment.  In a queue that is whole two looks are enough, since each segment but
 * the last holds a frame before put.vpos. */
static __attribute__((noinline)) int find_frame(struct bri_queue_shm *queue, uint64_t vpos,
                                                struct bri_segment *ret_segment, struct bri_front *ret_front)
{
    for (int look = 0; look < LOOKS_MOST; look++) {
        bri_offset head = bri_load_relaxed(&queue->head);
        if (!bri_segment_read(head, ret_segment))
            return -EBADMSG;
        if (vpos < ret_segment->base)
            vpos = ret_segment->base;
        if (vpos >= bri_load_relaxed(&queue->put_seen))
            return -EBADMSG;
        if (vpos - ret_segment->base < ret_segment->bytes) {
            if (!bri_frame_read(ret_segment, vpos, ret_front))
                return -EBADMSG;
            if (ret_front->kind != BRI_FRAME_SKIP)
                return ret_front->kind < BRI_FRAME_SKIP ? 1 : -EBADMSG;
        }
        vpos = ret_segment->base + ret_segment->bytes;
        if (!retire(queue, head))
            return -EBADMSG;
    }
    return -EBADMSG;
}

int bri_queue_front(struct bri_queue_shm *queue, struct bri_segment *ret_segment, struct bri_front *ret_front)
{
    uint64_t vpos = bri_cursor_vpos(&queue->got);

    if (vpos >= bri_load_relaxed(&queue->put_seen)) {           /* G1 */
        uint64_t put = bri_load_acquire(&queue->put.word) >> 1; /* E1 */
        bri_store_relaxed(&queue->put_seen, put);
        if (vpos >= put)
            return 0;
    }
    if (bri_segment_read(bri_load_relaxed(&queue->head), ret_segment) &&
        bri_frame_read(ret_segment, vpos, ret_front) && ret_front->kind < BRI_FRAME_SKIP)
        return 1;
    return find_frame(queue, vpos, ret_segment, ret_front);
}

/* ---- blocks of large messages ---- */

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

struct bri_block_shm *bri_message_find(const struct bri_queue_shm *queue, const struct bri_front *front)
{
    void *payload = bri_heap_find(bri_read_once(front->frame->message), BRI_KIND_MESSAGE,
                                  front->bytes == 0 ? 1 : front->bytes);

    if (payload == NULL)
        return NULL;
    struct bri_block_shm *block = bri_block_of(payload);
    return bri_load_acquire(&block->aux[BRI_AUX_QUEUE]) == bri_offset_of(queue) &&
                   bri_load_acquire(&block->aux[BRI_AUX_FRAME]) == front->vpos + 1
               ? block
               : NULL;
}

void bri_message_claim(struct bri_block_shm *block)
{
    bri_block_pass(block, bri_self()); /* G3 */
    bri_fault("queue.get.claimed");
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

/* Of a queue that is damaged, what can be reached; the rest stays as it is until the arena ends. */
static void empty_frames(struct bri_queue_shm *queue)
{
    struct bri_segment segment;
    struct bri_front front;

    while (bri_queue_front(queue, &segment, &front) == 1 &&
           front.next <= bri_load_acquire(&queue->put.word) >> 1) { /* so each goes on from the one before */
        struct bri_block_shm *block = front.kind == BRI_FRAME_BLOCK ? bri_message_find(queue, &front) : NULL;
        if (block != NULL)
            bri_message_claim(block);
        bri_cursor_advance(&queue->got, front.next, 1, front.bytes);
        bri_fault("queue.empty.taken");
        if (block != NULL)
            bri_heap_free(bri_payload_of(block));
    }
}

void bri_queue_empty(struct bri_queue_shm *queue)
{
    struct bri_segment_shm *segment;

    empty_frames(queue);
    bri_store_release(&queue->tail, UINT64_C(0)); /* settle goes by it */
    while ((segment = find_segment(queue, bri_load_relaxed(&queue->head))) != NULL) {
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
    return bri_heap_find(bri_load_relaxed(&block->aux[BRI_AUX_QUEUE]), BRI_KIND_QUEUE,
                         sizeof(struct bri_queue_shm));
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
    const struct bri_segment_shm *last = bri_at_checked(tail, sizeof *last, BRI_CACHE_LINE);
    if (last != NULL)
        is_linked = bri_load_acquire(&last->next) == at && bri_load_acquire(&queue->tail) == tail;
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
