/* SPDX-License-Identifier: MIT */
/* Bulks and letters; bulk.h has the protocol. */
#include "heap/bulk.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/error.h"
#include "sync/mutex.h"

enum {
    MACHINE_PAGE = 4096,
    RUN_DATA_AT = MACHINE_PAGE - sizeof(struct bri_block_shm),
    SMALL_DATA_AT = (sizeof(struct bri_bulk_shm) + BRI_CACHE_LINE - 1) / BRI_CACHE_LINE * BRI_CACHE_LINE,
    SMALL_BYTES = 16 * 1024, /* of data: a slab's block will do */
    WORDS = BRI_SLOTS / 64,
    MOST_LOST = 128 /* that one sweep looks for */
};

/* So many bytes are made between two sweeps, or so many bulks. */
#define SWEEP_BYTES (UINT64_C(256) << 20)
#define SWEEP_BULKS 256u

static struct bri_header_shm *header(void)
{
    return bri_arena_current->header;
}

static void lock(void)
{
    bri_mutex_lock(&header()->bulk_lock);
}

static void unlock(void)
{
    bri_mutex_unlock(&header()->bulk_lock);
}

/* ---- who holds it ---- */

static void set_bit(struct bri_bulk_shm *bulk, bri_name name, int on)
{
    uint32_t slot = name & (BRI_SLOTS - 1);
    uint64_t bit = UINT64_C(1) << slot % 64, word = bri_load_relaxed(&bulk->holders[slot / 64]);

    bri_store_relaxed(&bulk->holders[slot / 64], on ? word | bit : word & ~bit);
}

static int has_bit(const struct bri_bulk_shm *bulk, bri_name name)
{
    uint32_t slot = name & (BRI_SLOTS - 1);

    return bri_load_relaxed(&bulk->holders[slot / 64]) >> slot % 64 & 1;
}

static int is_held(const struct bri_bulk_shm *bulk)
{
    uint64_t all = bri_load_relaxed(&bulk->expected);

    for (unsigned i = 0; i < WORDS; i++)
        all |= bri_load_relaxed(&bulk->holders[i]);
    return all != 0;
}

/* D2, D3.  With the lock. */
static void destroy(struct bri_bulk_shm *bulk)
{
    bri_store_release(&bulk->serial, UINT64_C(0));
    bri_fault("bulk.destroyed");
    bri_heap_free(bulk);
}

static void destroy_unless_used(struct bri_bulk_shm *bulk)
{
    if (is_held(bulk))
        return;
    if (bri_load_relaxed(&bulk->letters) == 0)
        destroy(bulk);
}

/* ---- coming to be ---- */

int bri_bulk_has_pages(const struct bri_bulk_shm *bulk)
{
    return bulk->data_at == RUN_DATA_AT;
}

/* Counts are a process's own, and one more or less does not matter. */
static void sweep_sometimes(uint64_t bytes)
{
    static _Atomic uint64_t made_bytes;
    static _Atomic uint32_t made;
    uint64_t all = bri_load_relaxed(&made_bytes) + bytes;
    uint32_t bulks = bri_load_relaxed(&made) + 1;

    if (all >= SWEEP_BYTES || bulks >= SWEEP_BULKS || bri_load_relaxed(&header()->bulk_deaths)) {
        bri_bulk_sweep();
        all = bulks = 0;
    }
    bri_store_relaxed(&made_bytes, all);
    bri_store_relaxed(&made, bulks);
}

static uint64_t next_serial(void)
{
    return bri_add_relaxed(&header()->bulk_serial, UINT64_C(1)) + 1;
}

int bri_bulk_create(uint64_t bytes, uint32_t flags, int is_zeroed, struct bri_bulk_shm **ret_bulk)
{
    uint32_t data_at = bytes <= SMALL_BYTES ? SMALL_DATA_AT : RUN_DATA_AT;
    void *memory;

    sweep_sometimes(bytes);
    int error = (is_zeroed ? bri_heap_alloc_zeroed : bri_heap_alloc)(BRI_KIND_BULK, data_at + bytes,
                                                                     bri_self(), &memory); /* C1 */
    if (error < 0)
        return error;
    struct bri_bulk_shm *bulk = memory;
    memset(bulk, 0, sizeof *bulk);
    bulk->bytes = bytes;
    bulk->data_at = data_at;
    bulk->flags = flags;
    set_bit(bulk, bri_self(), 1);
    bri_store_release(&bulk->serial, next_serial()); /* C2 */
    bri_fault("bulk.made");
    bri_block_pass(bri_block_of(bulk), 0); /* C3 */
    *ret_bulk = bulk;
    return 0;
}

/* ---- letters ---- */

void bri_bulk_add_letter(struct bri_bulk_shm *bulk)
{
    lock();
    bri_store_relaxed(&bulk->tickets, bri_load_relaxed(&bulk->tickets) + 1);
    bri_store_relaxed(&bulk->letters, bri_load_relaxed(&bulk->letters) + 1);
    unlock();
}

static void lower(_Atomic uint32_t *count)
{
    uint32_t now = bri_load_relaxed(count);

    bri_store_relaxed(count, now - (now > 0));
}

void bri_bulk_take_letter(struct bri_bulk_shm *bulk)
{
    lock();
    lower(&bulk->letters);
    unlock();
}

void bri_letter_mark(void *payload, uint32_t at, uint32_t count)
{
    bri_store_release(&bri_block_of(payload)->link, (uint64_t)at << 32 | count);
}

/* What the reference says was read from a letter, which may say anything: see arena.h. */
static int open_locked(const struct bri_ref_shm *ref, int is_counted, struct bri_bulk_shm **ret_bulk)
{
    struct bri_bulk_shm *bulk = bri_heap_find(ref->bulk, BRI_KIND_BULK, sizeof *bulk);

    if (bulk == NULL || ref->serial == 0 || bri_load_acquire(&bulk->serial) != ref->serial) /* O1 */
        return -ENOENT;
    if (ref->at > bulk->bytes || ref->bytes > bulk->bytes - ref->at)
        return -EINVAL;
    set_bit(bulk, bri_self(), 1); /* O2 */
    bri_fault("bulk.opened");
    if (is_counted)
        lower(&bulk->letters); /* O3 */
    *ret_bulk = bulk;
    return 0;
}

int bri_bulk_open(void *ref, int is_counted, struct bri_bulk_shm **ret_bulk)
{
    struct bri_ref_shm copy;

    memcpy(&copy, ref, sizeof copy);
    lock();
    int error = open_locked(&copy, is_counted && !copy.is_opened, ret_bulk);
    unlock();
    if (error == -ENOENT)
        return bri_fail(ENOENT, "the data is gone: nobody had it any more when it was asked for");
    if (error < 0)
        return bri_fail(EINVAL, "the reference is none to data of this arena");
    copy.is_opened = 1;
    if (is_counted)
        memcpy((char *)ref + offsetof(struct bri_ref_shm, is_opened), &copy.is_opened, sizeof copy.is_opened);
    return 0;
}

/* ---- going ---- */

void bri_bulk_drop(struct bri_bulk_shm *bulk)
{
    lock();
    set_bit(bulk, bri_self(), 0); /* D1 */
    destroy_unless_used(bulk);
    unlock();
}

void bri_bulk_expect(struct bri_bulk_shm *bulk)
{
    lock();
    bri_store_relaxed(&bulk->expected, bri_load_relaxed(&bulk->expected) + 1);
    unlock();
}

void bri_bulk_unexpect(struct bri_bulk_shm *bulk)
{
    lock();
    lower(&bulk->expected);
    unlock();
}

void bri_bulk_arrive(struct bri_bulk_shm *bulk)
{
    bri_name self = bri_self(), boss = bri_roster_boss_of(self);
    int is_of_supervisor =
        boss != 0 && bri_load_relaxed(&bri_slot_of(self)->role) == BRI_ROLE_WORKER && bri_is_alive(boss);

    lock();
    int was_expected = !is_of_supervisor || !has_bit(bulk, boss);
    if (is_of_supervisor)
        set_bit(bulk, boss, 1);
    set_bit(bulk, self, 1);
    if (was_expected)
        lower(&bulk->expected);
    unlock();
}

/* As the heir it is one that was expected: it has forked itself, so to speak. */
static void pass_to_heir(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    struct bri_bulk_shm *bulk = bri_payload_of(block);
    bri_name heir = *(bri_name *)argument;

    if (bri_tag_kind(tag) != BRI_KIND_BULK || !has_bit(bulk, bri_self()))
        return;
    lock();
    if (heir != 0) {
        set_bit(bulk, heir, 1);
        lower(&bulk->expected);
    }
    set_bit(bulk, bri_self(), 0);
    destroy_unless_used(bulk);
    unlock();
}

void bri_bulk_leave(bri_name heir)
{
    bri_heap_walk(pass_to_heir, &heir);
}

static void mourn(void *payload, bri_name dead)
{
    struct bri_bulk_shm *bulk = payload;

    bri_store_relaxed(&header()->bulk_deaths, UINT32_C(1)); /* its letters go after this */
    lock();
    if (bri_load_acquire(&bulk->serial) != 0 && has_bit(bulk, dead)) {
        set_bit(bulk, dead, 0);
        destroy_unless_used(bulk);
    }
    unlock();
}

const struct bri_kind_ops bri_bulk_ops = {.mourn = mourn};

/* ---- sweep ---- */

struct lost {
    struct bri_bulk_shm *bulk;
    uint64_t serial, tickets;
    int is_named;
};

struct search {
    unsigned count;
    struct lost lost[MOST_LOST];
};

/* S1.  Also what was destroyed but for D3. */
static void note_if_lost(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    struct search *search = argument;
    struct bri_bulk_shm *bulk = bri_payload_of(block);

    if (bri_tag_kind(tag) != BRI_KIND_BULK || bri_tag_owner(tag) != 0 || search->count == MOST_LOST)
        return;
    struct lost lost = {bulk, bri_load_acquire(&bulk->serial), bri_load_acquire(&bulk->tickets), 0};
    if (!is_held(bulk))
        search->lost[search->count++] = lost;
}

static void find_named(struct search *search, const struct bri_ref_shm *ref)
{
    for (unsigned i = 0; i < search->count; i++)
        if (search->lost[i].serial == ref->serial && bri_offset_of(search->lost[i].bulk) == ref->bulk)
            search->lost[i].is_named = 1;
}

/* S2.  A letter that goes meanwhile may be read as anything: then something stays until the next sweep. */
static void read_letter(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    uint64_t link = bri_load_acquire(&block->link), at = link >> 32, count = (uint32_t)link;
    uint64_t bytes = bri_load_relaxed(&block->bytes), end = at + count * sizeof(struct bri_ref_shm);

    if (link == 0 || (bri_tag_kind(tag) != BRI_KIND_MESSAGE && bri_tag_kind(tag) != BRI_KIND_REPLY) ||
        end > bytes || bri_at_checked(bri_offset_of(block), bytes, 1) == NULL)
        return;
    for (uint64_t i = 0; i < count; i++) {
        struct bri_ref_shm ref;
        memcpy(&ref, (char *)bri_payload_of(block) + at + i * sizeof ref, sizeof ref);
        find_named(argument, &ref);
    }
}

/* S3 */
static void destroy_lost(const struct lost *lost)
{
    struct bri_bulk_shm *bulk = bri_heap_find(bri_offset_of(lost->bulk), BRI_KIND_BULK, sizeof *bulk);

    if (bulk == NULL || bri_tag_owner(bri_load_acquire(&bri_block_of(bulk)->tag)) != 0 ||
        bri_load_acquire(&bulk->serial) != lost->serial ||
        bri_load_relaxed(&bulk->tickets) != lost->tickets || is_held(bulk))
        return;
    destroy(bulk);
}

/* Its mutex keeps two from freeing the same, and it is tried alone: the heap may ask with locks held. */
void bri_bulk_sweep(void)
{
    struct search search = {.count = 0};

    bri_store_relaxed(&header()->bulk_deaths, UINT32_C(0));
    bri_heap_walk(note_if_lost, &search);
    if (search.count == 0)
        return;
    bri_fence_seq_cst();
    bri_heap_walk(read_letter, &search);
    bri_fence_seq_cst();
    if (!bri_mutex_try(&header()->bulk_lock))
        return;
    for (unsigned i = 0; i < search.count; i++)
        if (!search.lost[i].is_named)
            destroy_lost(&search.lost[i]);
    unlock();
}
