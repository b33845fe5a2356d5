/* SPDX-License-Identifier: MIT */
/* What all scenarios ask of the arena, before and after. */
#ifndef STEPKILL_ARENA_CHECKS_H
#define STEPKILL_ARENA_CHECKS_H

#include "harness.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "brood.h"
#include "heap/heap.h"

static inline void take_a_nap(void)
{
    const struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, NULL);
}

/* The arena of a driver, in which nobody spins: a victim that is stepped would spin for thousands of instructions. */
static inline int open_arena(void)
{
    setenv("BROOD_CPU_COUNT", "1", 1);
    const int error = bri_arena_enter();
    return error == 0 ? 0 : stepkill_fail("arena: %s", brood_error_text());
}

static inline brood_arena_stats arena_now(void)
{
    brood_arena_stats stats = {.size = sizeof stats};
    brood_arena_stats_get(&stats);
    return stats;
}

static inline void tell_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    (void)argument;
    stepkill_fail("kind %d of %" PRIu64 " bytes, owner %x", (int)bri_tag_kind(tag),
                  bri_load_relaxed(&block->bytes), (unsigned)bri_tag_owner(tag));
}

static inline int check_heap(uint64_t blocks)
{
    const uint64_t used = arena_now().used_blocks;
    if (!bri_heap_is_valid())
        return stepkill_fail("the heap is not valid");
    if (used == blocks)
        return 0;
    stepkill_fail("%" PRIu64 " blocks are in use, not %" PRIu64, used, blocks);
    bri_heap_walk(tell_block, NULL);
    return -1;
}

/* Small blocks, a run of pages, zeroed as promised. */
static inline int check_allocations(void)
{
    static const size_t sizes[] = {1, 200, 20000, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *memory;
        void *any;
        if (brood_alloc(sizes[i], &any) != 0)
            return stepkill_fail("brood_alloc(%zu): %s", sizes[i], brood_error_text());
        memory = any;
        if (memory[0] != 0 || memory[sizes[i] - 1] != 0)
            return stepkill_fail("brood_alloc(%zu) is not zeroed", sizes[i]);
        memory[0] = memory[sizes[i] - 1] = 0xff;
        if (brood_free(memory) != 0)
            return stepkill_fail("brood_free: %s", brood_error_text());
    }
    return 0;
}

/* Are there others in the roster? Reports those that nobody watches, as whoever meets their name would. */
static inline int report_others(void)
{
    int others = 0;
    for (uint32_t slot = 0; slot < bri_load_acquire(&bri_arena_current->header->slots_high); slot++) {
        enum bri_slot_state state;
        const bri_name name = bri_roster_name_at(slot, &state);
        if (state == BRI_SLOT_FREE || state == BRI_SLOT_JOINING ||
            name == bri_self()) /* a dead one's JOINING counts as free */
            continue;
        others++;
        if (state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED)
            bri_report_if_ended(name);
        else
            bri_undertake(); /* DEAD: whoever was to pass it on is dead too, or it was killed while it left */
    }
    return others;
}

/* Blocks until nobody else uses the arena, and nobody dead is unburied; the watchdog knows how long that may take. */
static inline void wait_until_alone(void)
{
    while (report_others() > 0)
        take_a_nap();
}

/* Runs life(argument) in a forked process. */
static inline pid_t fork_to(void (*life)(void *argument), void *argument)
{
    const pid_t pid = fork();
    if (pid == 0) {
        life(argument);
        _exit(0);
    }
    return pid;
}

#endif
