/* SPDX-License-Identifier: MIT */
/* brood_alloc and brood_free, and the arena's counts. */
#include <errno.h>

#include "arena/roster.h"
#include "base/error.h"
#include "base/options.h"
#include "brood.h"
#include "heap/user.h"

/* aux[0], aux[1] of a user's block: the task that allocated it, see heap/user.h. */
int brood_alloc(size_t bytes, void **ret_memory)
{
    void *memory;

    if (ret_memory == NULL)
        return bri_fail(EINVAL, "ret_memory is NULL: pass where the address goes");
    if (bytes == 0 || bytes > (size_t)1 << 47)
        return bri_fail(EINVAL, "bytes is %zu: from 1 to 2^47", bytes);
    int error = bri_arena_enter();
    if (error < 0)
        return error;
    const struct bri_slot_shm *slot = bri_slot_of(bri_self());
    uint64_t progress = bri_load_relaxed(&slot->progress);
    bri_name owner = progress & BRI_PROGRESS_RUNNING ? bri_self() : 0;
    error = bri_heap_alloc_zeroed(BRI_KIND_USER, bytes, owner, &memory);
    if (error < 0)
        return error;
    bri_store_relaxed(&bri_block_of(memory)->aux[1], bri_load_relaxed(&slot->claims));
    bri_store_release(&bri_block_of(memory)->aux[0], progress);
    *ret_memory = memory;
    return 0;
}

int brood_free(void *memory)
{
    if (memory == NULL)
        return 0;
    if (!bri_heap_is(memory, BRI_KIND_USER))
        return bri_fail(EINVAL, "memory (%p) does not come from brood_alloc, or was freed before", memory);
    int error = bri_arena_enter();
    if (error == 0)
        bri_heap_free(memory);
    return error;
}

/* What the dead had allocated in a task that is over is other people's by now. */
static int settle(struct bri_block_shm *block, bri_name dead)
{
    const struct bri_slot_shm *slot = bri_slot_of(dead);
    uint64_t born_in = bri_load_acquire(&block->aux[0]);

    return born_in != 0 && (born_in != bri_load_relaxed(&slot->progress) ||
                            bri_load_relaxed(&block->aux[1]) != bri_load_relaxed(&slot->claims));
}

const struct bri_kind_ops bri_user_ops = {.settle = settle};

static void count_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    brood_arena_stats *stats = argument;

    (void)tag;
    stats->used_blocks++;
    stats->used_bytes += bri_load_relaxed(&block->bytes) + sizeof *block;
}

static uint32_t count_participants(void)
{
    uint32_t high = bri_slots_high(), count = 0;

    for (uint32_t slot = 0; slot < high; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        count += (state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED) && !bri_roster_has_ended(name);
    }
    return count;
}

int brood_arena_stats_get(brood_arena_stats *ret_stats)
{
    if (ret_stats == NULL || ret_stats->size < sizeof *ret_stats)
        return bri_fail(EINVAL,
                        "ret_stats is NULL or its size too small: set size to sizeof (brood_arena_stats)");
    int error = bri_arena_enter();
    if (error < 0)
        return error;
    brood_arena_stats stats = {.size = ret_stats->size};
    bri_heap_walk(count_block, &stats);
    stats.max_bytes = bri_arena_current->max_bytes;
    stats.grown_bytes = bri_arena_grown() * BRI_PAGE_BYTES;
    stats.participants = count_participants();
    *ret_stats = stats;
    return 0;
}
