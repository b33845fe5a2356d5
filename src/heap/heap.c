/* SPDX-License-Identifier: MIT */
/*
 * Small blocks.  Each class has a lock, a list of free blocks (last freed first: warm), and the slab pages that carry its number.
 *
 * alloc, with the class lock held                       free, with the class lock held
 *   A1  block = first of the list; list = its link        F1  tag → free.  The commit
 *   A2  tag → used | owner.  The commit                   F2  link = list; list = block
 * refill: a page is formatted (tags free, linked) while it lies in a free run, then published as SLAB by one store, then put on the list.
 *
 * trim, with the class lock held: pages whose blocks are all free become free runs.  Not of sync classes: memory that held a lock stays such.
 *   S1  list = 0: no block of these pages can be reached any more
 *   S2  for each of them: its word, SLAB → FREE.  The commit, see pages.c
 *   S3  the list is made anew from the tags of the slabs that are left
 * A walk, which takes no lock, may have read SLAB before S2 and a tag after it; then the word is another one by now (`use`): see visit_if_used.
 *
 * death table
 *   A1 … A2, F1 … F2, refill   the tags are whole, the list may lack blocks → bri_heap_mourn makes the list anew from the tags
 *   S1 … S3                    the same; pages before S2 are slabs still, pages after it nobody's
 *   after A2                   a used block owned by the dead: freed by the undertaker
 */
#include "heap/heap.h"

#include <errno.h>
#include <string.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/error.h"
#include "heap/bulk.h"
#include "heap/pages.h"
#include "sync/mutex.h"

enum { SIZES = 16, SYNC_CLASSES_FROM = SIZES, CLASSES_USED = 2 * SIZES, NO_CLASS = CLASSES_USED };

#define MOST_BYTES (UINT64_C(1) << 47)

bri_give_up *_Atomic bri_heap_give_up;

/* Header included; multiples of 64. */
static const uint32_t class_bytes[SIZES] = {128,  192,  256,  384,  512,  768,   1024,  1536,
                                            2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768};

/* 2^64 / class_bytes, rounded up, of which is_multiple makes a remainder without a division: every call by handle looks. */
#define RECIPROCAL(bytes) (UINT64_MAX / (bytes) + 1)
static const uint64_t class_reciprocal[SIZES] = {
    RECIPROCAL(128),  RECIPROCAL(192),   RECIPROCAL(256),   RECIPROCAL(384),
    RECIPROCAL(512),  RECIPROCAL(768),   RECIPROCAL(1024),  RECIPROCAL(1536),
    RECIPROCAL(2048), RECIPROCAL(3072),  RECIPROCAL(4096),  RECIPROCAL(6144),
    RECIPROCAL(8192), RECIPROCAL(12288), RECIPROCAL(16384), RECIPROCAL(32768)};

static uint64_t page_of(const void *memory)
{
    return (bri_offset_of(memory) - bri_arena_current->pages_at) / BRI_PAGE_BYTES;
}

static uint32_t bytes_of(unsigned class)
{
    return class_bytes[class % SIZES];
}

/* Of the class's size?  Lemire, Kaser, Kurz: Faster remainder by direct computation, 2019, section 3.2. */
static int is_multiple(uint32_t inside, unsigned class)
{
    uint64_t reciprocal = class_reciprocal[class % SIZES];

    return inside * reciprocal <= reciprocal - 1;
}

static uint64_t blocks_of(unsigned class)
{
    return BRI_PAGE_BYTES / bytes_of(class);
}

/* The class for a block of so many bytes, header included; NO_CLASS: it takes pages. */
static unsigned class_for(uint64_t total, enum bri_kind kind)
{
    for (unsigned class = 0; class < SIZES; class ++)
        if (total <= class_bytes[class])
            return class + (kind < BRI_KIND_SYNC_END ? (unsigned)SYNC_CLASSES_FROM : 0u);
    return NO_CLASS;
}

static struct bri_block_shm *nth_block(uint64_t page, unsigned class, uint64_t n)
{
    return (struct bri_block_shm *)(void *)(bri_page_at(page) + n * bytes_of(class));
}

static uint64_t make_tag(enum bri_kind kind, unsigned class, bri_name owner)
{
    return (uint64_t)owner << 32 | (uint64_t) class << 16 | (uint64_t)kind << 8 | 1u;
}

static void put_on_list(unsigned class, struct bri_block_shm *block)
{
    _Atomic bri_offset *list = &bri_arena_current->header->classes[class].free;

    bri_store_relaxed(&block->link, bri_load_relaxed(list));
    bri_store_relaxed(list, bri_offset_of(block));
}

static void format_slab(char *memory, void *argument)
{
    unsigned class = *(unsigned *)argument;

    for (uint64_t n = 0; n < blocks_of(class); n++) {
        struct bri_block_shm *block = (struct bri_block_shm *)(void *)(memory + n * bytes_of(class));
        bri_store_relaxed(&block->tag, UINT64_C(0));
    }
}

static int refill(unsigned class)
{
    uint64_t page;
    int fresh;
    int error = bri_pages_take(1, BRI_PAGE_SLAB, class, format_slab, &class, &page, &fresh);

    for (uint64_t n = blocks_of(class); error == 0 && n > 0; n--)
        put_on_list(class, nth_block(page, class, n - 1));
    return error;
}

static void rebuild_list(unsigned class);

/* Of the list, which is not empty; NULL: what it leads to is no free block of the class. */
static struct bri_block_shm *first_of(unsigned class)
{
    bri_offset at = bri_load_relaxed(&bri_arena_current->header->classes[class].free);
    struct bri_block_shm *block = bri_at_checked(at, sizeof *block, BRI_CACHE_LINE);
    uint32_t inside = (uint32_t)(at % BRI_PAGE_BYTES);

    if (block == NULL)
        return NULL;
    uint64_t word = bri_load_relaxed(bri_page_word(page_of(block)));
    int is_of_class = bri_page_state_of(word) == BRI_PAGE_SLAB && bri_page_class_of(word) == class &&
                      is_multiple(inside, class) && inside + bytes_of(class) <= BRI_PAGE_BYTES;
    return is_of_class && !bri_tag_is_used(bri_load_relaxed(&block->tag)) ? block : NULL;
}

/* The list is damaged: it is made anew from what it is derived from. */
static __attribute__((noinline)) int mend_list(unsigned class, struct bri_block_shm **ret_block)
{
    bri_check(3, 0);
    rebuild_list(class);
    if (bri_load_relaxed(&bri_arena_current->header->classes[class].free) == 0 && refill(class) < 0)
        return -ENOMEM;
    *ret_block = first_of(class);
    return *ret_block != NULL
               ? 0
               : bri_fail(ENOMEM, "the arena's lists of free blocks are damaged: some process has "
                                  "written into its shared memory");
}

static int take_small(unsigned class, uint64_t tag, uint64_t bytes, struct bri_block_shm **ret_block)
{
    struct bri_header_shm *header = bri_arena_current->header;
    int error = 0;

    bri_mutex_lock(&header->classes[class].lock);
    if (bri_load_relaxed(&header->classes[class].free) == 0)
        error = refill(class);
    struct bri_block_shm *block = error == 0 ? first_of(class) : NULL;
    if (error == 0 && block == NULL)
        error = mend_list(class, &block);
    if (error == 0) {
        bri_store_relaxed(&header->classes[class].free, bri_load_relaxed(&block->link)); /* A1 */
        for (int i = 0; i < 3; i++)
            bri_store_relaxed(&block->aux[i], UINT64_C(0));
        bri_store_relaxed(&block->bytes, bytes);
        bri_store_relaxed(&block->link, UINT64_C(0));
        bri_fault("heap.alloc.unlinked");
        bri_store_release(&block->tag, tag); /* A2 */
        *ret_block = block;
    }
    bri_mutex_unlock(&header->classes[class].lock);
    return error;
}

struct run_header {
    uint64_t tag, bytes;
};

static void write_run_header(char *memory, void *argument)
{
    const struct run_header *wanted = argument;
    struct bri_block_shm *block = (struct bri_block_shm *)(void *)memory;

    memset(memory, 0, sizeof *block);
    bri_store_relaxed(&block->bytes, wanted->bytes);
    bri_store_relaxed(&block->tag, wanted->tag);
}

static int take_run(uint64_t total, uint64_t tag, uint64_t bytes, struct bri_block_shm **ret_block,
                    int *ret_is_fresh)
{
    struct run_header wanted = {tag, bytes};
    uint64_t page;
    int error = bri_pages_take((total + BRI_PAGE_BYTES - 1) / BRI_PAGE_BYTES, BRI_PAGE_RUN, 0,
                               write_run_header, &wanted, &page, ret_is_fresh);

    if (error == 0)
        *ret_block = (struct bri_block_shm *)(void *)bri_page_at(page);
    return error;
}

static int try_block(enum bri_kind kind, uint64_t bytes, bri_name owner, struct bri_block_shm **ret_block,
                     int *ret_is_fresh)
{
    uint64_t total = (bytes == 0 ? 1 : bytes) + sizeof(struct bri_block_shm);
    unsigned class = class_for(total, kind);

    *ret_is_fresh = 0;
    bri_check(3, bri_heap_is_valid());
    if (bytes > MOST_BYTES)
        return bri_fail(ENOMEM, "%llu bytes are more than any arena has", (unsigned long long)bytes);
    if (class == NO_CLASS)
        return take_run(total, make_tag(kind, 0, owner), bytes, ret_block, ret_is_fresh);
    return take_small(class, make_tag(kind, class, owner), bytes, ret_block);
}

static int take_block(enum bri_kind kind, uint64_t bytes, bri_name owner, struct bri_block_shm **ret_block,
                      int *ret_is_fresh)
{
    int error = try_block(kind, bytes, owner, ret_block, ret_is_fresh);

    if (error != -ENOMEM || bytes > bri_arena_current->max_bytes)
        return error;
    bri_heap_reclaim();
    return try_block(kind, bytes, owner, ret_block, ret_is_fresh);
}

int bri_heap_alloc(enum bri_kind kind, uint64_t bytes, bri_name owner, void **ret_payload)
{
    struct bri_block_shm *block;
    int fresh;
    int error = take_block(kind, bytes, owner, &block, &fresh);

    if (error == 0)
        *ret_payload = bri_payload_of(block);
    return error;
}

int bri_heap_alloc_zeroed(enum bri_kind kind, uint64_t bytes, bri_name owner, void **ret_payload)
{
    struct bri_block_shm *block;
    int fresh;
    int error = take_block(kind, bytes, owner, &block, &fresh);

    if (error < 0)
        return error;
    if (!fresh)
        memset(bri_payload_of(block), 0, bytes);
    *ret_payload = bri_payload_of(block);
    return 0;
}

/* Where the page table or the tag says that there is no such block, nothing is done: damage. */
void bri_heap_free(void *payload)
{
    struct bri_block_shm *block = bri_block_of(payload);
    uint64_t page = page_of(block);
    uint64_t word = bri_load_acquire(bri_page_word(page));
    unsigned class = bri_page_class_of(word);

    bri_check(3, bri_tag_is_used(bri_load_relaxed(&block->tag)));
    if (bri_page_state_of(word) == BRI_PAGE_RUN && bri_page_at(page) == (char *)block) {
        bri_pages_give(page);
        return;
    }
    if (bri_page_state_of(word) != BRI_PAGE_SLAB || class >= CLASSES_USED)
        return;
    struct bri_mutex_shm *lock = &bri_arena_current->header->classes[class].lock;
    bri_mutex_lock(lock);
    int is_used = bri_tag_is_used(bri_load_relaxed(&block->tag));
    bri_check(3, is_used);
    if (is_used) {
        bri_store_release(&block->tag, UINT64_C(0)); /* F1 */
        bri_fault("heap.free.unlisted");
        put_on_list(class, block); /* F2 */
    }
    bri_mutex_unlock(lock);
}

/* Does a block begin there, inside a page with this word, that has room for so many bytes of payload? */
static int has_block(uint64_t word, bri_offset at, uint64_t bytes)
{
    unsigned class = bri_page_class_of(word);
    uint32_t inside = (uint32_t)(at % BRI_PAGE_BYTES), total = bytes_of(class);
    uint64_t wanted = bytes + sizeof(struct bri_block_shm);

    if (bri_page_state_of(word) == BRI_PAGE_SLAB)
        return wanted <= total && is_multiple(inside, class) && inside + total <= BRI_PAGE_BYTES;
    return bri_page_state_of(word) == BRI_PAGE_RUN && inside == 0 &&
           wanted <= bri_page_count_of(word) * BRI_PAGE_BYTES && bri_at_checked(at, wanted, 1) != NULL;
}

void *bri_heap_find(bri_offset offset, enum bri_kind kind, uint64_t bytes)
{
    bri_offset at = offset - sizeof(struct bri_block_shm);
    struct bri_block_shm *block = bri_at_checked(at, sizeof *block, BRI_CACHE_LINE);

    if (block == NULL || bytes > MOST_BYTES)
        return NULL;
    _Atomic uint64_t *page = bri_page_word(page_of(block));
    uint64_t word = bri_load_acquire(page);
    if (!has_block(word, at, bytes))
        return NULL;
    uint64_t tag = bri_load_acquire(&block->tag);
    return bri_tag_is_used(tag) && bri_tag_kind(tag) == kind && bri_load_acquire(page) == word
               ? bri_payload_of(block)
               : NULL;
}

int bri_heap_is(const void *payload, enum bri_kind kind)
{
    return bri_arena_current != NULL &&
           bri_heap_find((uintptr_t)payload - (uintptr_t)bri_arena_current->base, kind, 1) != NULL;
}

/* A walk over the pages; `word` is what it has read of the present one. */
struct walk {
    bri_visit *visit;
    void *argument;
    uint64_t page, word;
};

/* The page may have been put to another use meanwhile, and what was read may be anybody's data: only while the word stands, it is a tag.
 * A block that somebody dead owns keeps its page, so what the undertaker goes by stands for as long as it looks. */
static void visit_if_used(const struct walk *walk, struct bri_block_shm *block)
{
    uint64_t tag = bri_load_acquire(&block->tag);

    if (bri_tag_is_used(tag) && bri_load_acquire(bri_page_word(walk->page)) == walk->word)
        walk->visit(block, tag, walk->argument);
}

static void walk_slab(const struct walk *walk)
{
    unsigned class = bri_page_class_of(walk->word);

    for (uint64_t n = 0; n < blocks_of(class); n++)
        visit_if_used(walk, nth_block(walk->page, class, n));
}

/* Looks at every page, since a run may be joined or split under the walk; words inside runs are INSIDE or stale FREE. */
void bri_heap_walk(bri_visit *visit, void *argument)
{
    struct walk walk = {.visit = visit, .argument = argument};
    uint64_t grown = bri_arena_grown();

    for (; walk.page < grown; walk.page++) {
        walk.word = bri_load_acquire(bri_page_word(walk.page));
        if (bri_page_state_of(walk.word) == BRI_PAGE_SLAB)
            walk_slab(&walk);
        else if (bri_page_state_of(walk.word) == BRI_PAGE_RUN)
            visit_if_used(&walk, (struct bri_block_shm *)(void *)bri_page_at(walk.page));
    }
}

/* The first slab of the class at or behind `page`; UINT64_MAX: none.  Pages come to a class and leave it under its lock only. */
static uint64_t next_slab(uint64_t page, unsigned class)
{
    uint64_t grown = bri_arena_grown();

    for (; page < grown; page++) {
        uint64_t word = bri_load_acquire(bri_page_word(page));
        if (bri_page_state_of(word) == BRI_PAGE_SLAB && bri_page_class_of(word) == class)
            return page;
    }
    return UINT64_MAX;
}

/* The list of a class, from the tags. */
static void rebuild_list(unsigned class)
{
    bri_store_relaxed(&bri_arena_current->header->classes[class].free, UINT64_C(0));
    for (uint64_t page = next_slab(0, class); page != UINT64_MAX; page = next_slab(page + 1, class))
        for (uint64_t n = 0; n < blocks_of(class); n++)
            if (!bri_tag_is_used(bri_load_relaxed(&nth_block(page, class, n)->tag)))
                put_on_list(class, nth_block(page, class, n));
}

/* --- before an allocation fails --- */

/* The next slab that has no block in use, or UINT64_MAX. */
static uint64_t next_free_slab(uint64_t page, unsigned class)
{
    while ((page = next_slab(page, class)) != UINT64_MAX) {
        uint64_t n = 0;
        while (n < blocks_of(class) && !bri_tag_is_used(bri_load_relaxed(&nth_block(page, class, n)->tag)))
            n++;
        if (n == blocks_of(class))
            break;
        page++;
    }
    return page;
}

static void trim(unsigned class)
{
    struct bri_header_shm *header = bri_arena_current->header;

    bri_mutex_lock(&header->classes[class].lock);
    uint64_t page = next_free_slab(0, class);
    if (page != UINT64_MAX) {
        bri_store_release(&header->classes[class].free, UINT64_C(0)); /* S1 */
        bri_fault("heap.trim.unlisted");
        for (; page != UINT64_MAX; page = next_free_slab(page + 1, class))
            bri_pages_give(page); /* S2 */
        bri_fault("heap.trim.given");
        rebuild_list(class); /* S3 */
    }
    bri_mutex_unlock(&header->classes[class].lock);
}

/* Blocks first, then the slabs that they leave empty. */
void bri_heap_reclaim(void)
{
    bri_give_up *give_up = bri_load_acquire(&bri_heap_give_up);

    if (give_up != NULL)
        give_up();
    if (bri_mutexes_held == 0)
        bri_bury_the_ended();
    bri_bulk_sweep();
    for (unsigned class = 0; class < SYNC_CLASSES_FROM; class ++)
        trim(class);
}

/* --- after a death --- */

/* The page lock is the last in the order of locks: it goes first, since rebuilding needs nothing of it, while waiting needs it free. */
void bri_heap_mourn(bri_name dead)
{
    struct bri_header_shm *header = bri_arena_current->header;

    if (bri_mutex_take_over(&header->page_lock, dead)) {
        bri_store_relaxed(&header->search_from, UINT64_C(0));
        bri_mutex_unlock(&header->page_lock);
    }
    if (bri_mutex_take_over(&header->bulk_lock, dead))
        bri_mutex_unlock(&header->bulk_lock); /* what it guards is whole always */
    for (unsigned class = 0; class < CLASSES_USED; class ++)
        if (bri_mutex_take_over(&header->classes[class].lock, dead)) {
            rebuild_list(class);
            bri_mutex_unlock(&header->classes[class].lock);
        }
}

static int class_is_valid(unsigned class)
{
    struct bri_header_shm *header = bri_arena_current->header;
    int whole = 1;

    bri_mutex_lock(&header->classes[class].lock);
    for (bri_offset at = bri_load_relaxed(&header->classes[class].free); at != 0 && whole;) {
        struct bri_block_shm *block = bri_at(at);
        uint64_t word = bri_load_relaxed(bri_page_word(page_of(block)));
        whole = bri_page_state_of(word) == BRI_PAGE_SLAB && bri_page_class_of(word) == class &&
                !bri_tag_is_used(bri_load_relaxed(&block->tag));
        at = bri_load_relaxed(&block->link);
    }
    bri_mutex_unlock(&header->classes[class].lock);
    return whole;
}

static int pages_are_valid(void)
{
    struct bri_header_shm *header = bri_arena_current->header;
    uint64_t page = 0;

    bri_mutex_lock(&header->page_lock);
    uint64_t grown = bri_arena_grown();
    while (page < grown) {
        uint64_t word = bri_load_relaxed(bri_page_word(page));
        if (bri_page_count_of(word) == 0 || bri_page_state_of(word) == BRI_PAGE_INSIDE)
            break;
        page += bri_page_count_of(word);
    }
    bri_mutex_unlock(&header->page_lock);
    return page == grown;
}

int bri_heap_is_valid(void)
{
    for (unsigned class = 0; class < CLASSES_USED; class ++)
        if (!class_is_valid(class))
            return 0;
    return pages_are_valid();
}
