/* SPDX-License-Identifier: MIT */
/* The producers' side.  Steps P1 … P7 and the death table stand in queue.h. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "queue/queue.h"

/* What a caller wants to put: messages to be copied, or one block that holds the message already. */
struct putting {
    struct bri_queue_shm *queue;
    const brood_message *messages;
    size_t count;
    struct bri_block_shm *block;
    int is_waiting; /* looks before it locks */
};

/* Frames behind put.vpos that are not committed yet. */
struct run {
    struct bri_segment segment;
    uint64_t vpos;
    uint64_t all_messages, all_bytes; /* put so far, the run's included */
    uint64_t messages, bytes;         /* of the run */
};

/* Who writes asks more than who reads: the header of its block says that it is a segment of this queue.  The page table, which knows for certain,
 * is too dear for each message. */
static int is_own(const struct bri_queue_shm *queue, const struct bri_segment *segment)
{
    const struct bri_block_shm *block = bri_block_of(segment->shared);

    return bri_tag_kind(bri_load_relaxed(&block->tag)) == BRI_KIND_SEGMENT &&
           bri_load_relaxed(&block->aux[BRI_AUX_QUEUE]) == bri_offset_of(queue);
}

/* -EBADMSG: the queue is damaged. */
static int begin_run(struct bri_queue_shm *queue, struct run *run)
{
    *run = (struct run){.vpos = bri_cursor_vpos(&queue->put)};
    bri_cursor_own(&queue->put, &run->all_messages, &run->all_bytes);
    if (!bri_segment_read(bri_load_relaxed(&queue->tail), &run->segment) || !is_own(queue, &run->segment))
        return -EBADMSG;
    if (run->vpos < run->segment.base)
        run->vpos = run->segment.base;
    uint64_t inside = run->vpos - run->segment.base;
    return inside <= run->segment.bytes && (inside & (BRI_FRAME_ALIGN - 1)) == 0 ? 0 : -EBADMSG;
}

static void commit_run(struct bri_queue_shm *queue, struct run *run)
{
    if (run->messages == 0)
        return;
    bri_bell_ring(&queue->bell); /* P5 */
    bri_fault("queue.put.rung");
    bri_cursor_advance(&queue->put, run->vpos, run->messages, run->bytes); /* P6 */
    bri_fault("queue.put.committed");
    run->messages = 0;
    run->bytes = 0;
}

/* P1.  What was seen of `got` is too low at worst, so it is only read anew when it leaves no room. */
static int has_room(struct bri_queue_shm *queue, const struct run *run, uint64_t bytes)
{
    for (int look = 0;; look++) {
        uint64_t messages_there = run->all_messages - bri_load_relaxed(&queue->room_seen_messages);
        uint64_t bytes_there = run->all_bytes - bri_load_relaxed(&queue->room_seen_bytes);
        if (messages_there < queue->max_messages && bytes_there <= queue->max_bytes - bytes)
            return 1;
        if (look == 1)
            return 0;
        uint64_t got_messages, got_bytes;
        bri_cursor_read(&queue->got, &got_messages, &got_bytes);
        bri_store_relaxed(&queue->room_seen_messages, got_messages);
        bri_store_relaxed(&queue->room_seen_bytes, got_bytes);
    }
}

static int has_space(const struct run *run, uint64_t extent)
{
    return extent <= run->segment.bytes - (run->vpos - run->segment.base);
}

/* P2.  Everything is committed before the segment is left. */
static int make_space(struct bri_queue_shm *queue, struct run *run, uint64_t extent)
{
    if (has_space(run, extent))
        return 0;
    commit_run(queue, run);
    int error = bri_segment_append(queue, &run->segment, run->vpos, extent);
    if (error == 0)
        error = begin_run(queue, run);
    return error < 0 || has_space(run, extent) ? error : -EBADMSG;
}

/* P3 */
static void bind(struct bri_queue_shm *queue, struct bri_block_shm *block, uint64_t bytes, uint64_t vpos)
{
    bri_store_relaxed(&block->aux[BRI_AUX_BYTES], bytes);
    bri_store_relaxed(&block->aux[BRI_AUX_QUEUE], bri_offset_of(queue));
    bri_fault("queue.put.binding");
    bri_store_release(&block->aux[BRI_AUX_FRAME], vpos + 1);
    bri_fault("queue.put.bound");
}

/* P4 */
static void write_frame(struct bri_queue_shm *queue, struct run *run, const brood_message *message,
                        struct bri_block_shm *block)
{
    struct bri_frame_shm *frame = bri_frame_in(&run->segment, run->vpos);
    enum bri_frame kind = block != NULL ? BRI_FRAME_BLOCK : BRI_FRAME_INLINE;

    if (block != NULL)
        bind(queue, block, message->bytes, run->vpos);
    *frame = bri_frame_make(kind, message->bytes, block != NULL ? bri_offset_of(bri_payload_of(block)) : 0);
    if (block == NULL && message->bytes > 0)
        memcpy(frame + 1, message->data, message->bytes);
    bri_fault("queue.put.framed");
    run->vpos += bri_frame_extent(kind, message->bytes);
    run->all_messages++;
    run->all_bytes += message->bytes;
    run->messages++;
    run->bytes += message->bytes;
}

static int is_for_frame(const struct putting *putting, size_t i)
{
    return putting->block != NULL || putting->messages[i].bytes <= BRI_INLINE_BYTES;
}

/* As many as there is room for, up to one that needs a block.  Returns how many; when that is none: 0 or why. */
static int put_run(struct putting *putting)
{
    struct bri_queue_shm *queue = putting->queue;
    struct run run;
    enum bri_frame kind = putting->block != NULL ? BRI_FRAME_BLOCK : BRI_FRAME_INLINE;
    int error = begin_run(queue, &run);
    size_t i = 0;

    if (error < 0)
        return error;
    for (; i < putting->count && is_for_frame(putting, i); i++) {
        const brood_message *message = &putting->messages[i];
        if (!has_room(queue, &run, message->bytes))
            break;
        error = make_space(queue, &run, bri_frame_extent(kind, message->bytes));
        if (error < 0)
            break;
        write_frame(queue, &run, message, putting->block);
    }
    commit_run(queue, &run);
    return i > 0 ? (int)i : error;
}

/* P7: the fence of the unlock stands between the commit and this look. */
static void wake_getters(struct bri_queue_shm *queue, int messages)
{
    bri_event_signal_fenced(&queue->filled, messages);
}

static int put_locked(struct putting *putting)
{
    struct bri_queue_shm *queue = putting->queue;

    bri_mutex_lock(&queue->put_lock);
    int put = bri_load_relaxed(&queue->is_closed) ? -ESHUTDOWN : put_run(putting);
    bri_mutex_unlock(&queue->put_lock);
    return put;
}

/* How many it put; 0: no room now; -ESHUTDOWN, -ENOMEM, -EBADMSG. */
static int try_put(void *argument)
{
    struct putting *putting = argument;
    struct bri_queue_shm *queue = putting->queue;

    if (putting->is_waiting && !bri_load_relaxed(&queue->is_closed) &&
        !bri_queue_has_room(queue, putting->messages->bytes))
        return 0;
    int put = put_locked(putting);
    if (put == -ENOMEM) { /* what the dead hold cannot be had back under a lock */
        bri_heap_reclaim();
        put = put_locked(putting);
    }
    if (put > 0)
        wake_getters(queue, put);
    bri_check(3, bri_queue_is_valid(queue));
    return put;
}

static int say_why(int error)
{
    if (error == -ETIMEDOUT || error == -EINTR)
        return bri_fail_wait(error,
                             "the queue was full until the deadline: take messages out, or raise its bounds");
    if (error == -ESHUTDOWN)
        return bri_fail(ESHUTDOWN, "the queue is closed: nothing can be put any more");
    return error == -EBADMSG ? bri_queue_is_damaged() : error;
}

/* Waits for room.  Whatever the end, others may find some too. */
static int wait_for_room(struct bri_queue_shm *queue, bri_condition *condition, void *argument,
                         int64_t deadline)
{
    int met = bri_queue_wait(queue, &queue->drained, condition, argument, deadline);

    bri_queue_pass_on_room(queue);
    return met < 0 ? say_why(met) : met;
}

static int put_until(struct putting *putting, int64_t deadline)
{
    int put = try_put(putting);

    if (put > 0)
        return put;
    if (put < 0)
        return say_why(put);
    putting->is_waiting = 1;
    return wait_for_room(putting->queue, try_put, putting, deadline);
}

/* ---- large messages ---- */

static int seems_open_for(void *argument)
{
    const struct putting *putting = argument;

    return bri_load_acquire(&putting->queue->is_closed) ||
           bri_queue_has_room(putting->queue, putting->messages->bytes);
}

/* Its memory is taken when there is room, not before: a full queue bounds what its producers hold. */
static int put_large(struct putting *putting, int64_t deadline)
{
    struct bri_queue_shm *queue = putting->queue;
    const brood_message *message = putting->messages;

    if (!seems_open_for(putting)) {
        int error = wait_for_room(queue, seems_open_for, putting, deadline);
        if (error < 0)
            return error;
    }
    int put = bri_message_create(queue, message->bytes, &putting->block);
    if (put == 0) {
        memcpy(bri_payload_of(putting->block), message->data, message->bytes);
        bri_fault("queue.put.copied");
        put = put_until(putting, deadline);
        if (put < 0)
            bri_heap_free(bri_payload_of(putting->block));
    }
    if (put < 0)
        bri_queue_pass_on_room(queue);
    return put;
}

/* ---- public ---- */

static int check_size(const struct bri_queue_shm *queue, size_t bytes)
{
    if (bytes > queue->max_bytes)
        return bri_fail(EMSGSIZE, "the message has %zu bytes: the queue's max_bytes is %llu", bytes,
                        (unsigned long long)queue->max_bytes);
    return 0;
}

static int check_message(const struct bri_queue_shm *queue, const void *data, size_t bytes)
{
    if (data == NULL && bytes != 0)
        return bri_fail(EINVAL, "data is NULL and bytes is %zu: pass the message", bytes);
    return check_size(queue, bytes);
}

int brood_queue_put(brood_queue *handle, const void *data, size_t bytes, int64_t deadline)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    const brood_message message = {(void *)(uintptr_t)data, bytes};
    int error = bri_queue_enter_until(queue, deadline);

    if (error == 0)
        error = check_message(queue, data, bytes);
    if (error < 0)
        return error;
    struct putting putting = {.queue = queue, .messages = &message, .count = 1};
    int put = bytes > BRI_INLINE_BYTES ? put_large(&putting, deadline) : put_until(&putting, deadline);
    return put < 0 ? put : 0;
}

static int check_messages(const struct bri_queue_shm *queue, const brood_message *messages, size_t count)
{
    if (messages == NULL && count != 0)
        return bri_fail(EINVAL, "messages is NULL and count is %zu: pass the array of messages", count);
    for (size_t i = 0; i < count; i++) {
        int error = check_message(queue, messages[i].data, messages[i].bytes);
        if (error < 0)
            return error;
    }
    return 0;
}

int brood_queue_put_many(brood_queue *handle, const brood_message *messages, size_t count, int64_t deadline)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    int error = bri_queue_enter_until(queue, deadline);
    size_t done = 0;

    if (count > INT_MAX)
        count = INT_MAX;
    if (error == 0)
        error = check_messages(queue, messages, count);
    while (error == 0 && done < count) {
        struct putting putting = {.queue = queue, .messages = messages + done, .count = count - done};
        int is_large = messages[done].bytes > BRI_INLINE_BYTES;
        if (is_large)
            putting.count = 1;
        int put = is_large ? put_large(&putting, deadline) : put_until(&putting, deadline);
        if (put < 0)
            error = put;
        else
            done += (size_t)put;
    }
    return done > 0 ? (int)done : error;
}

int brood_queue_reserve(brood_queue *handle, size_t bytes, brood_message *ret_message)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    struct bri_block_shm *block;
    int error = bri_queue_enter(queue);

    if (error == 0 && ret_message == NULL)
        return bri_fail(EINVAL, "ret_message is NULL: pass where the message goes");
    if (error == 0)
        error = check_size(queue, bytes);
    if (error == 0)
        error = bri_message_create(queue, bytes, &block);
    if (error == 0)
        *ret_message = (brood_message){bri_payload_of(block), bytes};
    return error;
}

int brood_queue_commit(brood_queue *handle, brood_message *message, int64_t deadline)
{
    struct putting putting = {.queue = bri_queue_of(handle), .messages = message, .count = 1};
    int error = bri_queue_enter_until(putting.queue, deadline);

    if (error == 0)
        error = bri_message_check(message, &putting.block);
    if (error == 0)
        error = check_size(putting.queue, message->bytes);
    if (error < 0)
        return error;
    int put = put_until(&putting, deadline);
    if (put < 0)
        return put;
    *message = (brood_message){NULL, 0};
    return 0;
}

int brood_queue_abandon(brood_queue *handle, brood_message *message)
{
    struct bri_queue_shm *queue = bri_queue_of(handle);
    struct bri_block_shm *block;
    int error = bri_queue_enter(queue);

    if (error == 0)
        error = bri_message_check(message, &block);
    if (error < 0)
        return error;
    bri_heap_free(message->data);
    *message = (brood_message){NULL, 0};
    return 0;
}
