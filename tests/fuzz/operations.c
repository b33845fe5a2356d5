/* SPDX-License-Identifier: MIT */
/*
 * Sequences of operations on one process's memory, queues, locks, semaphores and events, each compared with a model of what it should answer;
 * then everything is given back, and nothing may be left.  Deadlines are BROOD_NOW: a call that would wait answers -ETIMEDOUT.
 *
 * Every operation takes its arguments from the input: two bytes say which and on which object, more follow as it needs them.  An input that has
 * ended reads as zeros.  Objects that are not there stand as stale handles: what was destroyed, or nothing, or some address in the arena; the
 * call has to refuse them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/arena.h"
#include "brood.h"
#include "heap/heap.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { BLOCKS = 8, QUEUES = 2, LOCKS = 2, WAITING_MOST = 64, MESSAGE_MOST = 20000, DEEP_MOST = 4 };

struct message {
    size_t bytes;
    uint8_t fill;
};

struct queue {
    brood_queue *handle;
    uint64_t max_messages, max_bytes, waiting_bytes;
    struct message waiting[WAITING_MOST];
    uint32_t count;
    int is_closed;
    struct message reserved_as, borrowed_as;
    brood_message reserved, borrowed; /* data NULL: none */
};

static struct {
    struct {
        uint8_t *memory;
        size_t bytes;
        uint8_t fill;
    } blocks[BLOCKS];
    struct queue queues[QUEUES];
    struct {
        brood_lock *handle;
        int is_held;
    } locks[LOCKS];
    struct {
        brood_rlock *handle;
        int depth;
    } rlocks[LOCKS];
    struct {
        brood_semaphore *handle;
        int value, most, is_bounded;
    } semaphores[LOCKS];
    struct {
        brood_event *handle;
        int is_set;
    } events[LOCKS];
} model;

static const char *doing = "nothing";

/* What libFuzzer keeps the input for. */
static void must(int64_t expected, int64_t found)
{
    if (expected == found)
        return;
    fprintf(stderr, "%s: %lld instead of %lld: %s\n", doing, (long long)found, (long long)expected,
            brood_error_text());
    abort();
}

/* Mostly short, and now and then around the sizes where the representation changes. */
static size_t take_size(void)
{
    uint32_t size = take(2);

    return size % 4 == 0 ? size * 2u % MESSAGE_MOST : size % 300;
}

static int is_filled(const uint8_t *memory, size_t bytes, uint8_t fill)
{
    for (size_t i = 0; i < bytes; i++)
        if (memory[i] != fill)
            return 0;
    return 1;
}

/* --- memory --- */

static void free_block(uint32_t which)
{
    doing = "brood_free";
    if (model.blocks[which].memory == NULL)
        return;
    must(1, is_filled(model.blocks[which].memory, model.blocks[which].bytes, model.blocks[which].fill));
    must(0, brood_free(model.blocks[which].memory));
    must(-EINVAL, brood_free(model.blocks[which].memory)); /* nobody has allocated since */
    model.blocks[which].memory = NULL;
}

static void allocate(uint32_t which)
{
    void *memory;

    free_block(which);
    doing = "brood_alloc";
    model.blocks[which].bytes = take_size() * (take(1) % 16 == 0 ? 40u : 1u);
    model.blocks[which].fill = (uint8_t)take(1);
    must(model.blocks[which].bytes == 0 ? -EINVAL : 0, brood_alloc(model.blocks[which].bytes, &memory));
    if (model.blocks[which].bytes == 0)
        return;
    model.blocks[which].memory = memory;
    must(1, is_filled(memory, model.blocks[which].bytes, 0));
    memset(memory, model.blocks[which].fill, model.blocks[which].bytes);
}

/* --- what is no such object --- */

static int is_live(const void *address)
{
    int found = 0;

    for (uint32_t i = 0; i < BLOCKS; i++)
        found |= address == model.blocks[i].memory;
    for (uint32_t i = 0; i < QUEUES; i++)
        found |= address == model.queues[i].handle;
    for (uint32_t i = 0; i < LOCKS; i++)
        found |= address == model.locks[i].handle || address == model.rlocks[i].handle ||
                 address == model.semaphores[i].handle || address == model.events[i].handle;
    return found;
}

/* NULL, a small number, or somewhere in the arena or right behind what it has grown to. */
static void *take_address(void)
{
    static char *base;
    uint32_t where = take(4);

    if (base == NULL)
        base = (char *)bri_arena_current->base;
    return where % 8 == 0 ? (void *)(uintptr_t)(where % 4096)
                          : base + where % (32u << 20) / 8 *
                                       (where % 3 == 0 ? 1 : 8); /* NOLINT(performance-no-int-to-ptr) */
}

static void refuse_strangers(void)
{
    void *address = take_address();
    size_t bytes;
    char buffer[16];
    brood_message message = {address, 1};

    doing = "a call with what is no object";
    if (is_live(address))
        return;
    must(address == NULL ? 0 : -EINVAL, brood_free(address));
    must(-EINVAL, brood_lock_acquire(address, BROOD_NOW));
    must(-EINVAL, brood_rlock_release(address));
    must(-EINVAL, brood_semaphore_value(address));
    must(-EINVAL, brood_condition_notify(address, 1));
    must(-EINVAL, brood_event_set(address));
    must(-EINVAL, brood_barrier_wait(address, BROOD_NOW));
    must(-EINVAL, brood_queue_put(address, "x", 1, BROOD_NOW));
    must(-EINVAL, brood_queue_get(address, buffer, sizeof buffer, &bytes, BROOD_NOW));
    must(-EINVAL, brood_queue_size(address));
    if (model.queues[0].handle != NULL && address != model.queues[0].reserved.data &&
        address != model.queues[1].reserved.data)
        must(-EINVAL, brood_queue_abandon(model.queues[0].handle, &message));
    if (model.queues[0].handle != NULL && address != model.queues[0].borrowed.data &&
        address != model.queues[1].borrowed.data)
        must(-EINVAL, brood_queue_release(model.queues[0].handle, &message));
}

/* --- queues --- */

static int has_room(const struct queue *queue, size_t bytes)
{
    return (queue->max_messages == 0 || queue->count < queue->max_messages) &&
           (queue->max_bytes == 0 || queue->waiting_bytes + bytes <= queue->max_bytes);
}

static int expected_put(const struct queue *queue, size_t bytes)
{
    if (queue->max_bytes != 0 && bytes > queue->max_bytes)
        return -EMSGSIZE;
    return queue->is_closed ? -ESHUTDOWN : has_room(queue, bytes) ? 0 : -ETIMEDOUT;
}

static void note_put(struct queue *queue, struct message message)
{
    queue->waiting[queue->count++] = message;
    queue->waiting_bytes += message.bytes;
}

static void note_got(struct queue *queue)
{
    queue->waiting_bytes -= queue->waiting[0].bytes;
    memmove(queue->waiting, queue->waiting + 1, --queue->count * sizeof queue->waiting[0]);
}

static int64_t expected_get(const struct queue *queue)
{
    return queue->count > 0 ? 0 : queue->is_closed ? -ESHUTDOWN : -ETIMEDOUT;
}

static void put(struct queue *queue)
{
    static uint8_t bytes[MESSAGE_MOST];
    struct message message = {take_size(), (uint8_t)take(1)};

    doing = "brood_queue_put";
    if (queue->count == WAITING_MOST)
        return;
    memset(bytes, message.fill, message.bytes);
    int expected = expected_put(queue, message.bytes);
    must(expected, brood_queue_put(queue->handle, bytes, message.bytes, BROOD_NOW));
    if (expected == 0)
        note_put(queue, message);
}

static void put_many(struct queue *queue)
{
    static uint8_t bytes[MESSAGE_MOST];
    struct message each = {take_size(), (uint8_t)take(1)};
    brood_message messages[5];
    uint32_t wanted = 1 + take(1) % 5, fits = 0;

    doing = "brood_queue_put_many";
    if (queue->count + wanted > WAITING_MOST)
        return;
    memset(bytes, each.fill, each.bytes);
    int expected = expected_put(queue, each.bytes);
    for (uint32_t i = 0; i < wanted; i++)
        messages[i] = (brood_message){bytes, each.bytes};
    while (expected == 0 && fits < wanted && has_room(queue, each.bytes)) {
        note_put(queue, each);
        fits++;
    }
    must(expected == 0 ? (int)fits : expected,
         brood_queue_put_many(queue->handle, messages, wanted, BROOD_NOW));
}

static void get(struct queue *queue)
{
    static uint8_t buffer[MESSAGE_MOST];
    size_t bytes = 12345, capacity = take(1) % 4 == 0 ? take_size() : sizeof buffer;
    int64_t expected = expected_get(queue);

    doing = "brood_queue_get";
    if (expected == 0 && queue->waiting[0].bytes > capacity)
        expected = -EMSGSIZE;
    must(expected, brood_queue_get(queue->handle, buffer, capacity, &bytes, BROOD_NOW));
    must(expected == 0 || expected == -EMSGSIZE ? (int64_t)queue->waiting[0].bytes : 12345, (int64_t)bytes);
    if (expected != 0)
        return;
    must(1, is_filled(buffer, bytes, queue->waiting[0].fill));
    note_got(queue);
}

static void get_many(struct queue *queue)
{
    static uint8_t buffer[2 * MESSAGE_MOST];
    brood_message messages[6];
    size_t capacity = take(1) % 2 == 0 ? take_size() : sizeof buffer, used = 0;
    uint32_t wanted = 1 + take(1) % 6, fits = 0;
    int64_t expected = expected_get(queue);

    doing = "brood_queue_get_many";
    if (expected == 0 && queue->waiting[0].bytes > capacity)
        expected = -EMSGSIZE;
    while (expected == 0 && fits < wanted && fits < queue->count &&
           used + queue->waiting[fits].bytes <= capacity)
        used = (used + queue->waiting[fits++].bytes + 15) / 16 * 16;
    must(expected == 0 ? (int64_t)fits : expected,
         brood_queue_get_many(queue->handle, buffer, capacity, messages, wanted, BROOD_NOW));
    for (uint32_t i = 0; i < fits; i++) {
        must((int64_t)queue->waiting[0].bytes, (int64_t)messages[i].bytes);
        must(1, is_filled(messages[i].data, messages[i].bytes, queue->waiting[0].fill));
        note_got(queue);
    }
}

static void reserve(struct queue *queue)
{
    struct message message = {take_size(), (uint8_t)take(1)};

    doing = "brood_queue_reserve";
    if (queue->reserved.data != NULL)
        return;
    int is_too_long = queue->max_bytes != 0 && message.bytes > queue->max_bytes;
    must(is_too_long ? -EMSGSIZE : 0, brood_queue_reserve(queue->handle, message.bytes, &queue->reserved));
    if (is_too_long)
        return;
    memset(queue->reserved.data, message.fill, message.bytes);
    queue->reserved_as = message;
}

static void commit(struct queue *queue)
{
    doing = "brood_queue_commit";
    if (queue->reserved.data == NULL || queue->count == WAITING_MOST)
        return;
    int expected = expected_put(queue, queue->reserved_as.bytes);
    must(expected, brood_queue_commit(queue->handle, &queue->reserved, BROOD_NOW));
    if (expected != 0)
        return;
    note_put(queue, queue->reserved_as);
    queue->reserved.data = NULL;
}

static void abandon(struct queue *queue)
{
    doing = "brood_queue_abandon";
    if (queue->reserved.data == NULL)
        return;
    must(0, brood_queue_abandon(queue->handle, &queue->reserved));
    queue->reserved.data = NULL;
}

static void borrow(struct queue *queue)
{
    int64_t expected = expected_get(queue);

    doing = "brood_queue_borrow";
    if (queue->borrowed.data != NULL)
        return;
    must(expected, brood_queue_borrow(queue->handle, &queue->borrowed, BROOD_NOW));
    if (expected != 0)
        return;
    queue->borrowed_as = queue->waiting[0];
    note_got(queue);
}

static void release(struct queue *queue)
{
    doing = "brood_queue_release";
    if (queue->borrowed.data == NULL)
        return;
    must((int64_t)queue->borrowed_as.bytes, (int64_t)queue->borrowed.bytes);
    must(1, is_filled(queue->borrowed.data, queue->borrowed.bytes, queue->borrowed_as.fill));
    must(0, brood_queue_release(queue->handle, &queue->borrowed));
    queue->borrowed.data = NULL;
}

static void destroy_queue(struct queue *queue)
{
    if (queue->handle == NULL)
        return;
    abandon(queue);
    release(queue);
    doing = "brood_queue_destroy";
    must(0, brood_queue_destroy(queue->handle));
    must(-EINVAL, brood_queue_size(queue->handle));
    *queue = (struct queue){0};
}

static void make_queue(struct queue *queue)
{
    uint32_t bounds = take(1);

    destroy_queue(queue);
    doing = "brood_queue_create";
    queue->max_messages = bounds & 1 ? bounds % 20 : 0;
    queue->max_bytes = bounds & 2 ? take_size() : 0;
    must(0, brood_queue_create(
                BROOD_QUEUE_OPTIONS(.max_messages = queue->max_messages, .max_bytes = queue->max_bytes),
                &queue->handle));
}

static void close_queue(struct queue *queue)
{
    doing = "brood_queue_close";
    must(0, brood_queue_close(queue->handle));
    queue->is_closed = 1;
}

static void play_queue(struct queue *queue, uint32_t operation)
{
    static void (*const operations[])(struct queue *) = {put,     put,    put_many, get,    get,    get_many,
                                                         reserve, commit, abandon,  borrow, release};
    enum { OPERATIONS = sizeof operations / sizeof *operations };

    if (queue->handle == NULL)
        make_queue(queue);
    else if (operation % 32 == 31)
        destroy_queue(queue);
    else if (operation % 32 == 30)
        close_queue(queue);
    else
        operations[operation % OPERATIONS](queue);
    if (queue->handle != NULL)
        must(queue->count, brood_queue_size(queue->handle));
}

/* --- locks --- */

static void play_lock(uint32_t which, uint32_t operation)
{
    brood_lock **handle = &model.locks[which].handle;
    int *is_held = &model.locks[which].is_held;

    doing = "a lock";
    if (*handle == NULL) {
        must(0, brood_lock_create(handle));
    } else if (operation % 8 == 7) {
        must(*is_held ? -EBUSY : 0, brood_lock_destroy(*handle));
        *handle = *is_held ? *handle : NULL;
    } else if (operation % 2) {
        must(*is_held ? -ETIMEDOUT : 0, brood_lock_acquire(*handle, BROOD_NOW));
        *is_held = 1;
    } else {
        must(*is_held ? 0 : -EPERM, brood_lock_release(*handle));
        *is_held = 0;
    }
}

static void play_rlock(uint32_t which, uint32_t operation)
{
    brood_rlock **handle = &model.rlocks[which].handle;
    int *depth = &model.rlocks[which].depth;

    doing = "a recursive lock";
    if (*handle == NULL) {
        must(0, brood_rlock_create(handle));
    } else if (operation % 8 == 7) {
        must(*depth > 0 ? -EBUSY : 0, brood_rlock_destroy(*handle));
        *handle = *depth > 0 ? *handle : NULL;
    } else if (operation % 2 && *depth < DEEP_MOST) {
        must(0, brood_rlock_acquire(*handle, BROOD_NOW));
        ++*depth;
    } else {
        must(*depth > 0 ? 0 : -EPERM, brood_rlock_release(*handle));
        *depth -= *depth > 0;
    }
}

static void make_semaphore(uint32_t which)
{
    int value = (int)(take(1) % 5), is_bounded = (int)(take(1) % 2);

    must(0, is_bounded ? brood_semaphore_create_bounded((uint32_t)value, &model.semaphores[which].handle)
                       : brood_semaphore_create((uint32_t)value, &model.semaphores[which].handle));
    model.semaphores[which].value = model.semaphores[which].most = value;
    model.semaphores[which].is_bounded = is_bounded;
}

static void play_semaphore(uint32_t which, uint32_t operation)
{
    brood_semaphore **handle = &model.semaphores[which].handle;
    int *value = &model.semaphores[which].value;
    int is_full = model.semaphores[which].is_bounded && *value == model.semaphores[which].most;

    doing = "a semaphore";
    if (*handle == NULL) {
        make_semaphore(which);
        return;
    }
    if (operation % 8 == 7) {
        must(0, brood_semaphore_destroy(*handle));
        must(-EINVAL, brood_semaphore_value(*handle));
        *handle = NULL;
        return;
    }
    if (operation % 2) {
        must(*value > 0 ? 0 : -ETIMEDOUT, brood_semaphore_acquire(*handle, BROOD_NOW));
        *value -= *value > 0;
    } else {
        must(is_full ? -EOVERFLOW : 0, brood_semaphore_release(*handle));
        *value += !is_full;
    }
    must(*value, brood_semaphore_value(*handle));
}

static void play_event(uint32_t which, uint32_t operation)
{
    brood_event **handle = &model.events[which].handle;
    int *is_set = &model.events[which].is_set;

    doing = "an event";
    if (*handle == NULL) {
        must(0, brood_event_create(handle));
        *is_set = 0;
        return;
    }
    if (operation % 8 == 7) {
        must(0, brood_event_destroy(*handle));
        *handle = NULL;
        return;
    }
    if (operation % 8 < 3) {
        must(0, operation % 2 ? brood_event_set(*handle) : brood_event_clear(*handle));
        *is_set = (int)(operation % 2);
    }
    must(*is_set ? 0 : -ETIMEDOUT, brood_event_wait(*handle, BROOD_NOW));
    must(*is_set, brood_event_is_set(*handle));
}

/* --- the whole --- */

static void play(void)
{
    uint32_t kind = take(1), operation = take(1);

    switch (kind % 16) {
    case 0:
    case 1:
        allocate(operation % BLOCKS);
        break;
    case 2:
        free_block(operation % BLOCKS);
        break;
    case 3:
        refuse_strangers();
        break;
    case 4:
        play_lock(operation / 8 % LOCKS, operation);
        break;
    case 5:
        play_rlock(operation / 8 % LOCKS, operation);
        break;
    case 6:
        play_semaphore(operation / 8 % LOCKS, operation);
        break;
    case 7:
        play_event(operation / 8 % LOCKS, operation);
        break;
    default:
        play_queue(&model.queues[kind / 16 % QUEUES], operation);
    }
}

static void give_all_back(void)
{
    for (uint32_t i = 0; i < BLOCKS; i++)
        free_block(i);
    for (uint32_t i = 0; i < QUEUES; i++)
        destroy_queue(&model.queues[i]);
    for (uint32_t i = 0; i < LOCKS; i++) {
        while (model.rlocks[i].depth > 0)
            play_rlock(i, 0);
        if (model.locks[i].is_held)
            play_lock(i, 0);
        if (model.locks[i].handle != NULL)
            play_lock(i, 7);
        if (model.rlocks[i].handle != NULL)
            play_rlock(i, 7);
        if (model.semaphores[i].handle != NULL)
            play_semaphore(i, 7);
        if (model.events[i].handle != NULL)
            play_event(i, 7);
    }
}

static uint64_t used_blocks(void)
{
    brood_arena_stats stats = {.size = sizeof stats};

    must(0, brood_arena_stats_get(&stats));
    return stats.used_blocks;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    doing = "bri_arena_enter";
    must(0, bri_arena_enter());
    uint64_t before = used_blocks();
    input.at = data;
    input.left = bytes;
    while (input.left > 0)
        play();
    give_all_back();
    doing = "the end";
    must((int64_t)before, (int64_t)used_blocks());
    must(1, bri_heap_is_valid());
    return 0;
}
