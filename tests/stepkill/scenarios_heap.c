/* SPDX-License-Identifier: MIT */
/* Blocks of the arena: nothing is lost, nothing is doubled, whoever dies; and the undertaker may die itself. */
#define _GNU_SOURCE
#include "arena_checks.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/check.h"

enum {
    SMALL = 20000, /* two blocks of this class to a page: walks are short */
    PAGE = 60000,  /* one page */
    MORE_THAN_GROWN = 80 * 65536,
    BOUND = 16 * 65536,
    KEPT_MESSAGES = 2,
};

struct state {
    uint64_t blocks; /* in use before the victim began */
    void *block;     /* for the victim to free */
    brood_lock *lock;
    brood_semaphore *semaphore;
    brood_queue *queue;
    bri_name victim, dead; /* by themselves */
    uint64_t bytes;        /* for the victim to allocate */
};

static struct state *state; /* shared with the victim */

static void *new_state(void)
{
    state = stepkill_shared(sizeof *state);
    return open_arena() == 0 ? state : NULL;
}

static void *take(uint64_t bytes)
{
    void *memory = NULL;
    if (bri_heap_alloc(BRI_KIND_DATA, bytes, 0, &memory) != 0)
        stepkill_fail("alloc: %s", brood_error_text());
    return memory;
}

static void *ready(uint64_t bytes)
{
    state->bytes = bytes;
    state->blocks = arena_now().used_blocks;
    return state;
}

/* --- what the victim finds -------------------------------------------------------------------- */

static void *setup_empty(void)
{
    return new_state() == NULL ? NULL : ready(SMALL);
}

static void *setup_free_list(void)
{
    if (new_state() == NULL)
        return NULL;
    state->block = take(SMALL);
    bri_heap_free(take(SMALL));
    return ready(SMALL);
}

/* Pages: hole of three | used | ... */
static void *setup_hole(void)
{
    if (new_state() == NULL)
        return NULL;
    void *hole = take(3 * PAGE);
    state->block = take(PAGE);
    bri_heap_free(hole);
    return ready(PAGE);
}

/* Pages: hole | hole | used: a run of two joins the holes. */
static void *setup_holes(void)
{
    if (new_state() == NULL)
        return NULL;
    void *first = take(PAGE), *second = take(PAGE);
    state->block = take(2 * PAGE);
    bri_heap_free(first);
    bri_heap_free(second);
    return ready(2 * PAGE);
}

static void *setup_too_small(void)
{
    if (setup_free_list() == NULL)
        return NULL;
    return ready(MORE_THAN_GROWN);
}

/* A small arena, full of small blocks that are free again but for one: a page has to come from another class's slabs. */
static void *setup_full(void)
{
    void *blocks[64];
    int count = 0;
    state = stepkill_shared(sizeof *state);
    if (brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = BOUND)) != 0 || open_arena() != 0)
        return NULL;
    while (bri_heap_alloc(BRI_KIND_DATA, SMALL, 0, &blocks[count]) == 0)
        count++;
    state->block = blocks[--count];
    while (count > 0)
        bri_heap_free(blocks[--count]);
    return ready(2 * PAGE);
}

static void *setup_user_block(void)
{
    if (new_state() == NULL || brood_alloc(1000, &state->block) != 0)
        return NULL;
    return ready(1000);
}

/* --- what it does ----------------------------------------------------------------------------- */

static void enter(void)
{
    if (bri_arena_enter() != 0)
        _exit(1);
    state->victim = bri_self();
}

static void alloc(void *ctx)
{
    void *memory;
    (void)ctx;
    enter();
    stepkill_begin();
    bri_heap_alloc(BRI_KIND_DATA, state->bytes, bri_self(), &memory);
    stepkill_end();
}

static void free_one(void *ctx)
{
    (void)ctx;
    enter();
    stepkill_begin();
    bri_heap_free(state->block);
    stepkill_end();
}

static void alloc_and_free(void *ctx)
{
    void *memory;
    (void)ctx;
    enter();
    stepkill_begin();
    if (bri_heap_alloc(BRI_KIND_DATA, state->bytes, bri_self(), &memory) == 0)
        bri_heap_free(memory);
    stepkill_end();
}

static void alloc_for_user(void *ctx)
{
    void *memory;
    (void)ctx;
    enter();
    stepkill_begin();
    brood_alloc(state->bytes, &memory);
    stepkill_end();
}

static void free_for_user(void *ctx)
{
    (void)ctx;
    enter();
    stepkill_begin();
    brood_free(state->block);
    stepkill_end();
}

static void join_arena(void *ctx)
{
    (void)ctx;
    stepkill_begin();
    bri_arena_enter();
    stepkill_end();
}

/* --- what must be left ------------------------------------------------------------------------ */

static void report_victim(void *ctx, pid_t pid, int status)
{
    (void)ctx, (void)pid, (void)status;
    bri_report_if_ended(state->victim);
}

static int check_goes_on(uint64_t blocks)
{
    if (report_others() != 0)
        return stepkill_fail("the dead are not buried");
    if (check_heap(blocks) != 0 || check_allocations() != 0)
        return -1;
    return check_heap(blocks);
}

static int check_nothing_new(void *ctx)
{
    (void)ctx;
    return check_goes_on(state->blocks);
}

/* The pages are there for every use, or can be had by the next one; and the block that was in use is whole. */
static int check_trimmed(void *ctx)
{
    void *page;
    (void)ctx;
    if (report_others() != 0)
        return stepkill_fail("the dead are not buried");
    if (!bri_heap_is(state->block, BRI_KIND_DATA) || check_heap(state->blocks) != 0)
        return stepkill_fail("the block that was in use is lost");
    page = take(10 * 65536);
    if (page == NULL)
        return -1;
    bri_heap_free(page);
    bri_heap_free(take(SMALL));
    return check_heap(state->blocks);
}

/* Freed or not: then it can be. */
static int check_freed(void *ctx)
{
    (void)ctx;
    if (bri_heap_is(state->block, BRI_KIND_DATA))
        bri_heap_free(state->block);
    return check_goes_on(state->blocks - 1);
}

static int check_user_freed(void *ctx)
{
    (void)ctx;
    const int error = brood_free(state->block);
    if (error != 0 && error != -EINVAL)
        return stepkill_fail("brood_free: %s", brood_error_text());
    return check_goes_on(state->blocks - 1);
}

/* A block for everybody, whose address only the dead one knew, is everybody's. */
static int check_one_more_at_most(void *ctx)
{
    (void)ctx;
    const uint64_t blocks = arena_now().used_blocks;
    if (blocks > state->blocks + 1)
        return stepkill_fail("%" PRIu64 " blocks more", blocks - state->blocks);
    return check_goes_on(blocks);
}

static void live_shortly(void *ctx)
{
    (void)ctx;
    enter();
}

/* Others join, and are buried; the slots are used again. */
static int check_joined(void *ctx)
{
    const uint32_t high = bri_load_acquire(&bri_arena_current->header->slots_high);
    for (int i = 0; i < 3; i++) {
        report_others();
        waitpid(fork_to(live_shortly, ctx), NULL, 0);
    }
    report_others();
    if (bri_load_acquire(&bri_arena_current->header->slots_high) > (high < 2 ? 2 : high))
        return stepkill_fail("a slot is lost");
    return check_goes_on(state->blocks);
}

/* --- the undertaker is killed ----------------------------------------------------------------- */

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS

static const char *fatal_point;

static void die_there(const char *point)
{
    if (strcmp(point, fatal_point) == 0)
        raise(SIGKILL);
}

/* A process that joins, and dies in life(). */
static int lose_one(void (*life)(void), const char *point)
{
    fatal_point = point;
    const pid_t pid = fork();
    if (pid == 0) {
        if (bri_arena_enter() != 0)
            _exit(1);
        state->dead = bri_self();
        bri_fault_hook = die_there;
        life();
        raise(SIGKILL);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? 0 : stepkill_fail("the first to die did not");
}

static void take_own(uint64_t bytes)
{
    void *memory;
    if (bri_heap_alloc(BRI_KIND_DATA, bytes, bri_self(), &memory) != 0)
        _exit(1);
}

static void own_blocks(void)
{
    take_own(SMALL);
    take_own(2 * PAGE);
    take_own(SMALL);
}

static void own_small(void)
{
    take_own(SMALL);
}

static void own_page(void)
{
    take_own(PAGE);
}

static void free_block(void)
{
    bri_heap_free(state->block);
}

static void hold_lock(void)
{
    brood_lock_acquire(state->lock, BROOD_FOREVER);
}

static void hold_token(void)
{
    brood_semaphore_acquire(state->semaphore, BROOD_FOREVER);
}

static void put_one(void)
{
    brood_queue_put(state->queue, "3rd", 3, BROOD_FOREVER);
}

static void get_one(void)
{
    char message[8];
    size_t bytes;
    brood_queue_get(state->queue, message, sizeof message, &bytes, BROOD_FOREVER);
}

static void *setup_dead(void (*life)(void), const char *point)
{
    if (setup_free_list() == NULL || lose_one(life, point) != 0)
        return NULL;
    return state;
}

static void *setup_dead_in_alloc(void)
{
    return setup_dead(own_small, "heap.alloc.unlinked");
}

static void *setup_dead_in_free(void)
{
    return setup_dead(free_block, "heap.free.unlisted");
}

static void *setup_dead_in_split(void)
{
    return setup_dead(own_page, "heap.pages.split");
}

static void *setup_dead_with_blocks(void)
{
    return setup_dead(own_blocks, "");
}

static void *setup_dead_with_lock(void)
{
    if (new_state() == NULL || brood_lock_create(&state->lock) != 0)
        return NULL;
    ready(SMALL);
    return lose_one(hold_lock, "") == 0 ? state : NULL;
}

static void *setup_dead_with_token(void)
{
    if (new_state() == NULL || brood_semaphore_create_bounded(1, &state->semaphore) != 0)
        return NULL;
    ready(SMALL);
    return lose_one(hold_token, "") == 0 ? state : NULL;
}

static void *setup_dead_in_queue(void (*life)(void), const char *point)
{
    if (new_state() == NULL || brood_queue_create(NULL, &state->queue) != 0)
        return NULL;
    for (int i = 0; i < KEPT_MESSAGES; i++)
        brood_queue_put(state->queue, "kept", 4, BROOD_FOREVER);
    ready(SMALL);
    return lose_one(life, point) == 0 ? state : NULL;
}

static void *setup_dead_in_put(void)
{
    return setup_dead_in_queue(put_one, "queue.put.framed");
}

static void *setup_dead_in_get(void)
{
    return setup_dead_in_queue(get_one, "queue.get.taken");
}

static void bury(void *ctx)
{
    (void)ctx;
    enter();
    stepkill_begin();
    bri_report_if_ended(state->dead);
    stepkill_end();
}

/* The victim first: it may hold what the other one needs. */
static void report_both(void *ctx, pid_t pid, int status)
{
    (void)ctx, (void)pid, (void)status;
    bri_report_if_ended(state->victim);
    bri_report_if_ended(state->dead);
}

static int check_lock(void *ctx)
{
    if (brood_lock_acquire(state->lock, BROOD_FOREVER) != BROOD_OWNER_DIED)
        return stepkill_fail("the lock does not say that its owner died");
    if (brood_lock_release(state->lock) != 0 || brood_lock_acquire(state->lock, BROOD_NOW) != 0 ||
        brood_lock_release(state->lock) != 0)
        return stepkill_fail("the lock: %s", brood_error_text());
    return check_nothing_new(ctx);
}

static int check_token(void *ctx)
{
    if (brood_semaphore_acquire(state->semaphore, BROOD_FOREVER) != BROOD_OWNER_DIED)
        return stepkill_fail("the semaphore does not say that an owner died");
    if (brood_semaphore_value(state->semaphore) != 0 || brood_semaphore_release(state->semaphore) != 0 ||
        brood_semaphore_value(state->semaphore) != 1)
        return stepkill_fail("the semaphore has %d tokens", brood_semaphore_value(state->semaphore));
    return check_nothing_new(ctx);
}

static int check_queue(void *ctx)
{
    char message[8];
    size_t bytes;
    int got = 0;
    (void)ctx;
    if (brood_queue_put(state->queue, "last", 4, BROOD_FOREVER) != 0)
        return stepkill_fail("put: %s", brood_error_text());
    do
        if (brood_queue_get(state->queue, message, sizeof message, &bytes, BROOD_FOREVER) != 0)
            return stepkill_fail("get: %s", brood_error_text());
    while (got++, memcmp(message, "last", 4) != 0);
    if (got < KEPT_MESSAGES || got > KEPT_MESSAGES + 2 || brood_queue_size(state->queue) != 0)
        return stepkill_fail("%d messages were there", got);
    if (brood_queue_destroy(state->queue) != 0)
        return stepkill_fail("destroy: %s", brood_error_text());
    return check_goes_on(0);
}

#endif

const struct stepkill_scenario stepkill_heap[] = {
    {.name = "heap.join", .setup = setup_empty, .victim = join_arena, .check = check_joined},
    {.name = "heap.alloc.small",
     .setup = setup_free_list,
     .victim = alloc,
     .after_kill = report_victim,
     .check = check_nothing_new},
    {.name = "heap.alloc.refill",
     .setup = setup_hole,
     .victim = alloc_and_free,
     .after_kill = report_victim,
     .check = check_nothing_new},
    {.name = "heap.alloc.first",
     .setup = setup_empty,
     .victim = alloc,
     .after_kill = report_victim,
     .check = check_nothing_new},
    {.name = "heap.alloc.split",
     .setup = setup_hole,
     .victim = alloc,
     .after_kill = report_victim,
     .check = check_nothing_new},
    {.name = "heap.alloc.join",
     .setup = setup_holes,
     .victim = alloc,
     .after_kill = report_victim,
     .check = check_nothing_new},
    {.name = "heap.alloc.grow",
     .setup = setup_too_small,
     .victim = alloc,
     .after_kill = report_victim,
     .check = check_nothing_new},
    {.name = "heap.trim",
     .setup = setup_full,
     .victim = alloc,
     .after_kill = report_victim,
     .check = check_trimmed},
    {.name = "heap.free.small",
     .setup = setup_free_list,
     .victim = free_one,
     .after_kill = report_victim,
     .check = check_freed},
    {.name = "heap.free.run",
     .setup = setup_holes,
     .victim = free_one,
     .after_kill = report_victim,
     .check = check_freed},
    {.name = "heap.user.alloc",
     .setup = setup_user_block,
     .victim = alloc_for_user,
     .after_kill = report_victim,
     .check = check_one_more_at_most},
    {.name = "heap.user.free",
     .setup = setup_user_block,
     .victim = free_for_user,
     .after_kill = report_victim,
     .check = check_user_freed},
#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS
    {.name = "recover.alloc",
     .setup = setup_dead_in_alloc,
     .victim = bury,
     .after_kill = report_both,
     .check = check_nothing_new},
    {.name = "recover.free",
     .setup = setup_dead_in_free,
     .victim = bury,
     .after_kill = report_both,
     .check = check_freed},
    {.name = "recover.split",
     .setup = setup_dead_in_split,
     .victim = bury,
     .after_kill = report_both,
     .check = check_nothing_new},
    {.name = "recover.blocks",
     .setup = setup_dead_with_blocks,
     .victim = bury,
     .after_kill = report_both,
     .check = check_nothing_new},
    {.name = "recover.lock",
     .setup = setup_dead_with_lock,
     .victim = bury,
     .after_kill = report_both,
     .check = check_lock},
    {.name = "recover.semaphore",
     .setup = setup_dead_with_token,
     .victim = bury,
     .after_kill = report_both,
     .check = check_token},
    {.name = "recover.queue-put",
     .setup = setup_dead_in_put,
     .victim = bury,
     .after_kill = report_both,
     .check = check_queue},
    {.name = "recover.queue-get",
     .setup = setup_dead_in_get,
     .victim = bury,
     .after_kill = report_both,
     .check = check_queue},
#endif
    {.name = NULL},
};
