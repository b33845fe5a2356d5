/* SPDX-License-Identifier: MIT */
/* The consumers' side.  Steps G1 … G6 and the death table stand in queue.h. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "heap/bulk.h"
#include "queue/queue.h"

struct getting;

/* Takes what it wants from `front` on, with get_lock, and commits: how many messages, or a negative errno. */
typedef int take_function(struct getting *getting, const struct bri_segment *segment,
                          struct bri_front *front);

struct getting {
    struct bri_queue_shm *queue;
    take_function *take;
    char *buffer;
    size_t capacity;
    brood_message *messages; /* get_many, borrow: where the messages go */
    size_t count;
    size_t bytes;                /* of the message taken, or of the one that did not fit */
    struct bri_block_shm *block; /* a large message, taken, the caller's now */
    int is_waiting;              /* looks before it locks */
};

static take_function take_borrowed;

/* G3 and G4 for a message in a block.  A letter has to be there still when what it refers to is opened. */
static int take_block(struct getting *getting, const struct bri_front *front)
{
    struct bri_block_shm *block = bri_message_find(getting->queue, front);

    getting->bytes = front->bytes;
    if (block == NULL)
        return -EBADMSG;
    if (front->bytes > getting->capacity ||
        (getting->take != take_borrowed && bri_letter_is(bri_payload_of(block))))
        return -EMSGSIZE;
    bri_message_claim(block);
    getting->block = block;
    bri_cursor_advance(&getting->queue->got, front->next, 1, front->bytes);
    bri_fault("queue.get.taken");
    return 1;
}

/* G4 for a message that lies in its frame. */
static int commit_one(struct getting *getting, const struct bri_front *front)
{
    bri_fault("queue.get.copied");
    bri_cursor_advance(&getting->queue->got, front->next, 1, front->bytes);
    bri_fault("queue.get.taken");
    return 1;
}

static int take_one(struct getting *getting, const struct bri_segment *segment, struct bri_front *front)
{
    (void)segment;
    if (front->kind == BRI_FRAME_BLOCK)
        return take_block(getting, front);
    getting->bytes = front->bytes;
    if (front->bytes > getting->capacity)
        return -EMSGSIZE;
    if (front->bytes > 0)
        memcpy(getting->buffer, front->frame + 1, front->bytes);
    return commit_one(getting, front);
}

/* Bytes to skip so that the next message begins aligned. */
static size_t gap(const struct getting *getting)
{
    return (size_t)(-(uintptr_t)getting->buffer & (BRI_FRAME_ALIGN - 1));
}

/* One more message into the buffer; 0: it has no room for it. */
static int append_message(struct getting *getting, size_t i, const void *data, size_t bytes)
{
    size_t skip = gap(getting);

    if (getting->capacity < skip || bytes > getting->capacity - skip)
        return 0;
    getting->buffer += skip;
    getting->messages[i] = (brood_message){getting->buffer, bytes};
    if (data != NULL && bytes > 0)
        memcpy(getting->buffer, data, bytes);
    getting->buffer += bytes;
    getting->capacity -= skip + bytes;
    return 1;
}

/* One message that lies in a block.  Its place is only given away once it is the caller's. */
static int take_block_into(struct getting *getting, const struct bri_front *front)
{
    size_t skip = gap(getting), capacity = getting->capacity;

    getting->capacity = capacity < skip ? 0 : capacity - skip;
    int taken = capacity < skip ? -EMSGSIZE : take_block(getting, front);
    getting->capacity = capacity;
    return taken > 0 ? append_message(getting, 0, NULL, front->bytes) : taken;
}

/* Short messages of one segment, as many as there are and fit; or one that lies in a block.  Damage behind the first ends the run. */
static int take_run(struct getting *getting, const struct bri_segment *segment, struct bri_front *front)
{
    struct bri_queue_shm *queue = getting->queue;
    uint64_t bytes = 0, end = bri_load_relaxed(&queue->put_seen), vpos = front->vpos;
    size_t i = 0;

    if (front->kind == BRI_FRAME_BLOCK)
        return take_block_into(getting, front);
    for (int is_there = 1; is_there && front->kind == BRI_FRAME_INLINE; i++) {
        if (i == getting->count || !append_message(getting, i, front->frame + 1, front->bytes))
            break;
        bytes += front->bytes;
        vpos = front->next;
        is_there = vpos < end && bri_frame_read(segment, vpos, front);
    }
    if (i == 0)
        return -EMSGSIZE;
    bri_fault("queue.get.copied");
    bri_cursor_advance(&queue->got, vpos, i, bytes);
    bri_fault("queue.get.taken");
    return (int)i;
}

/* A block changes hands; a short message gets one. */
static int take_borrowed(struct getting *getting, const struct bri_segment *segment, struct bri_front *front)
{
    (void)segment;
    if (front->kind == BRI_FRAME_BLOCK)
        return take_block(getting, front);
    getting->bytes = front->bytes;
    int error = bri_message_create(getting->queue, front->bytes, &getting->block);
    if (error < 0)
        return error;
    memcpy(bri_payload_of(getting->block), front->frame + 1, front->bytes);
    return commit_one(getting, front);
}

/* G5: only who puts into a bounded queue waits.  Room in bytes may suit any of them.  The fence of the unlock stands
 * between the commit and this look. */
static void wake_putters(struct bri_queue_shm *queue, int messages)
{
    bri_event_signal_fenced(&queue->drained, queue->max_bytes == UINT64_MAX ? messages : INT_MAX);
}

/* How many it took; 0: nothing there now; -ESHUTDOWN, -EMSGSIZE, -ENOMEM, -EBADMSG.  `is_closed` is read before the cursor: what
 * was put before the queue was closed is seen. */
static int try_get(void *argument)
{
    struct getting *getting = argument;
    struct bri_queue_shm *queue = getting->queue;
    struct bri_segment segment;
    struct bri_front front;
    int nothing = bri_load_acquire(&queue->is_closed) ? -ESHUTDOWN : 0;

    if (getting->is_waiting && bri_queue_is_empty(queue))
        return nothing;
    bri_mutex_lock(&queue->get_lock);
    int found = bri_queue_front(queue, &segment, &front);
    int taken = found > 0 ? getting->take(getting, &segment, &front) : found == 0 ? nothing : found;
    bri_mutex_unlock(&queue->get_lock);
    if (taken > 0)
        wake_putters(queue, taken);
    bri_check(3, bri_queue_is_valid(queue));
    return taken;
}

static int say_why(struct getting *getting, int error)
{
    switch (error) {
    case -EINTR:
    case -ETIMEDOUT:
        bri_bell_quiet(&getting->queue->bell, bri_queue_is_readable, getting->queue);
        return bri_fail_wait(error, "the queue was empty until the deadline");
    case -ESHUTDOWN:
        return bri_fail(ESHUTDOWN, "the queue is closed and drained: nothing will come any more");
    case -EMSGSIZE:
        return bri_fail(EMSGSIZE, "the oldest message does not fit: capacity is too small");
    case -EBADMSG:
        return bri_queue_is_damaged();
    default:
        return error;
    }
}

static int get_until(struct getting *getting, int64_t deadline)
{
    int taken = try_get(getting);

    if (taken == 0 && deadline == BROOD_NOW && bri_queue_await_ringer(getting->queue))
        taken = try_get(getting);
    if (taken == 0) {
        getting->is_waiting = 1;
        taken = bri_queue_wait(getting->queue, &getting->queue->filled, try_get, getting, deadline);
        bri_queue_pass_on_messages(getting->queue);
    }
    return taken < 0 ? say_why(getting, taken) : taken;
}

/* G6 */
static void copy_out(struct getting *getting, void *data, size_t bytes)
{
    if (getting->block == NULL)
        return;
    if (data != NULL) /* NULL: a message of 0 bytes into no room */
        memcpy(data, bri_payload_of(getting->block), bytes);
    bri_heap_free(bri_payload_of(getting->block));
    getting->block = NULL;
}

/* ---- public ---- */

int brood_queue_get(brood_queue *handle, void *buffer, size_t capacity, size_t *ret_bytes, int64_t deadline)
{
    struct getting getting = {
        .queue = bri_queue_of(handle), .take = take_one, .buffer = buffer, .capacity = capacity};
    int error = bri_queue_enter_until(getting.queue, deadline);

    if (error < 0)
        return error;
    if (buffer == NULL && capacity != 0)
        return bri_fail(EINVAL, "buffer is NULL and capacity is %zu: pass the memory for the message",
                        capacity);
    if (ret_bytes == NULL)
        return bri_fail(EINVAL, "ret_bytes is NULL: pass where the message's length goes");
    int taken = get_until(&getting, deadline);
    if (taken > 0 || taken == -EMSGSIZE)
        *ret_bytes = getting.bytes;
    if (taken < 0)
        return taken;
    copy_out(&getting, buffer, getting.bytes);
    return 0;
}

static int check_many(const void *buffer, const brood_message *messages, size_t count)
{
    if (buffer == NULL)
        return bri_fail(EINVAL, "buffer is NULL: pass the memory for the messages");
    if (messages == NULL)
        return bri_fail(EINVAL, "ret_messages is NULL: pass an array of count messages");
    if (count == 0)
        return bri_fail(EINVAL, "count is 0: pass how many messages to take, at least 1");
    return 0;
}

/* Waits for the first, then takes what is there: a run of one segment or one block at a time. */
static int get_runs(struct getting *getting, int64_t deadline)
{
    brood_message *messages = getting->messages;
    size_t wanted = getting->count;
    int taken = get_until(getting, deadline), done = 0;

    while (taken > 0) {
        copy_out(getting, getting->messages->data, getting->messages->bytes);
        done += taken;
        getting->messages = messages + done;
        getting->count = wanted - (size_t)done;
        taken = getting->count > 0 ? try_get(getting) : 0;
    }
    return done > 0 ? done : taken;
}

int brood_queue_get_many(brood_queue *handle, void *buffer, size_t capacity, brood_message *ret_messages,
                         size_t count, int64_t deadline)
{
    struct getting getting = {.queue = bri_queue_of(handle),
                              .take = take_run,
                              .buffer = buffer,
                              .capacity = capacity,
                              .messages = ret_messages};
    int error = bri_queue_enter_until(getting.queue, deadline);

    if (error == 0)
        error = check_many(buffer, ret_messages, count);
    if (error < 0)
        return error;
    getting.count = count < INT_MAX ? count : INT_MAX;
    return get_runs(&getting, deadline);
}

int brood_queue_borrow(brood_queue *handle, brood_message *ret_message, int64_t deadline)
{
    struct getting getting = {.queue = bri_queue_of(handle), .take = take_borrowed, .capacity = SIZE_MAX};
    int error = bri_queue_enter_until(getting.queue, deadline);

    if (error < 0)
        return error;
    if (ret_message == NULL)
        return bri_fail(EINVAL, "ret_message is NULL: pass where the message goes");
    int taken = get_until(&getting, deadline);
    if (taken < 0)
        return taken;
    bri_store_relaxed(&getting.block->aux[BRI_AUX_FRAME], UINT64_C(0)); /* G6 */
    *ret_message = (brood_message){bri_payload_of(getting.block), getting.bytes};
    return 0;
}

int brood_queue_release(brood_queue *handle, brood_message *message)
{
    return brood_queue_abandon(handle, message);
}
