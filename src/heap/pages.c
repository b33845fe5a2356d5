/* SPDX-License-Identifier: MIT */
/*
 * The page table.  Walks go from one first word to the next, + the run's pages.
 *
 * take, with the page lock held
 *   T1  joins free runs that lie next to each other: the first one's count grows (one store); the second one's word stays, inside
 *   T2  writes the words inside the run to INSIDE; they lie inside a free run, nobody reads them by walking
 *   T3  writes FREE(rest) behind the run: inside the free run still
 *   T4  the first word: FREE(n) → used(k).  The commit
 * give
 *   G1  the first word → FREE(n).  The commit
 * grow
 *   the file is made longer, the word at `grown` becomes FREE(n), `grown` += n: the commit
 *
 * death table: killed after any step, the table is whole, as each is one store; only the lock is left, which bri_heap_mourn frees.  `search_from`
 * is a hint that may be too low, so it is lowered before a commit and raised after; mourning sets it to 0.
 */
#include "heap/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/error.h"
#include "plat/memory.h"
#include "sync/mutex.h"

#define STEP_PAGES   UINT64_C(64)
#define MARGIN_BYTES (UINT64_C(1) << 20) /* page tables and what the program itself touches meanwhile */

static struct bri_header_shm *header(void)
{
    return bri_arena_current->header;
}

/* Free pages. */
struct run {
    uint64_t page, pages;
};
#define NO_RUN ((struct run){0, 0})

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Our descriptor, not something that took its number after the host had closed it. */
static int check_memfd(struct stat *ret_status)
{
    if (!bri_arena_stat(ret_status))
        return bri_fail(ENOMEM, "the arena's descriptor (%d) was closed in this process",
                        bri_arena_current->memfd);
    return 0;
}

int bri_pages_check_descriptor(void)
{
    struct stat status;

    return check_memfd(&status);
}

static int lengthen(uint64_t pages)
{
    struct stat status;
    struct rlimit limit;
    uint64_t length = bri_arena_current->pages_at + (bri_arena_grown() + pages) * BRI_PAGE_BYTES;
    int error = check_memfd(&status);

    if (error < 0 || (uint64_t)status.st_size >= length)
        return error;
    /* Beyond this limit the kernel would send SIGXFSZ. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && length > limit.rlim_cur)
        return bri_fail(ENOMEM, "the arena cannot grow to %llu bytes: ulimit -f allows %llu",
                        (unsigned long long)length, (unsigned long long)limit.rlim_cur);
    if (ftruncate(bri_arena_current->memfd, (off_t)length) != 0)
        return bri_fail_os(ENOMEM, "the arena cannot grow to %llu bytes", (unsigned long long)length);
    return 0;
}

/* Bytes that will be in use once everything up to `pages` is touched, and are not yet: memory that was given out and not touched counts, too. */
static uint64_t bytes_to_come(uint64_t pages, const struct stat *status)
{
    uint64_t length = bri_arena_current->pages_at + pages * BRI_PAGE_BYTES,
             there = (uint64_t)status->st_blocks * 512;
    uint64_t never_touched =
        bri_arena_current->pages_at - bri_arena_current->table_at; /* most of the page table */

    return length > there + never_touched ? length - there - never_touched : 0;
}

static int has_headroom(uint64_t pages, const struct stat *status, uint64_t headroom)
{
    uint64_t wanted = bytes_to_come(pages, status);

    return headroom >= MARGIN_BYTES && wanted <= headroom - MARGIN_BYTES;
}

/* How much to grow for a wish of `pages`: a step of some size when there is room for it, else just the wish. */
static int choose_step(uint64_t pages, uint64_t *ret_step)
{
    struct stat status;
    uint64_t grown = bri_arena_grown();
    uint64_t room = bri_arena_current->max_bytes / BRI_PAGE_BYTES - grown;
    uint64_t step = least(room, pages > STEP_PAGES ? pages : STEP_PAGES);

    if (pages > room)
        return bri_fail(ENOMEM,
                        "the arena is full: its bound is %llu bytes (max_bytes of brood_arena_create)",
                        (unsigned long long)bri_arena_current->max_bytes);
    int error = check_memfd(&status);
    if (error < 0)
        return error;
    uint64_t headroom = bri_memory_headroom();
    if (!has_headroom(grown + step, &status, headroom))
        step = pages;
    if (!has_headroom(grown + step, &status, headroom))
        return bri_fail(ENOMEM,
                        "no memory for %llu bytes more in the arena: %llu are left in this machine or cgroup",
                        (unsigned long long)(step * BRI_PAGE_BYTES), (unsigned long long)headroom);
    *ret_step = step;
    return 0;
}

static int grow(uint64_t pages)
{
    uint64_t step, grown = bri_arena_grown();
    int error = choose_step(pages, &step);

    if (error == 0)
        error = lengthen(step);
    if (error < 0)
        return error;
    bri_store_relaxed(bri_page_word(grown), bri_page_make(BRI_PAGE_FREE, step, 0));
    bri_store_release(&header()->grown, grown + step);
    return 0;
}

/* The pages of the run that begins at a page before `grown`, by the page's word.  A word that is damaged leads no walk astray or on the spot. */
static uint64_t run_length(uint64_t word, uint64_t page, uint64_t grown)
{
    uint64_t pages = bri_page_count_of(word);

    bri_check(3, pages != 0 && pages <= grown - page);
    return pages == 0 ? 1 : least(pages, grown - page);
}

/* Where walks for free pages begin. */
static uint64_t search_from(uint64_t grown)
{
    return least(bri_load_relaxed(&header()->search_from), grown);
}

/* T1.  Returns the joined count. */
static uint64_t join_free(uint64_t page, uint64_t pages, uint64_t wanted, uint64_t grown)
{
    while (pages < wanted && page + pages < grown) {
        uint64_t next = bri_load_relaxed(bri_page_word(page + pages));
        if (bri_page_state_of(next) != BRI_PAGE_FREE)
            break;
        pages += run_length(next, page + pages, grown);
        bri_store_release(bri_page_word(page), bri_page_make(BRI_PAGE_FREE, pages, 0));
    }
    return pages;
}

/* First fit from the lowest page: what was used before, and is warm, goes first.  NO_RUN: there is none. */
static struct run find_free(uint64_t wanted)
{
    uint64_t grown = bri_arena_grown(), first_free = grown;

    for (uint64_t page = search_from(grown), pages; page < grown; page += pages) {
        uint64_t word = bri_load_relaxed(bri_page_word(page));
        pages = run_length(word, page, grown);
        if (bri_page_state_of(word) != BRI_PAGE_FREE)
            continue;
        first_free = least(first_free, page);
        pages = join_free(page, pages, wanted, grown);
        if (pages >= wanted) {
            bri_store_relaxed(&header()->search_from, first_free);
            return (struct run){page, pages};
        }
    }
    return NO_RUN;
}

/* Free pages right before the file's end: growth adds to them. */
static uint64_t count_free_at_end(void)
{
    uint64_t grown = bri_arena_grown(), free = 0;

    for (uint64_t page = search_from(grown), pages; page < grown; page += pages) {
        uint64_t word = bri_load_relaxed(bri_page_word(page));
        pages = run_length(word, page, grown);
        free = bri_page_state_of(word) == BRI_PAGE_FREE ? free + pages : 0;
    }
    return free;
}

static int find_or_grow(uint64_t wanted, struct run *ret_run)
{
    *ret_run = find_free(wanted);
    if (ret_run->pages != 0)
        return 0;
    uint64_t free = count_free_at_end();
    int error = grow(free < wanted ? wanted - free : wanted);
    if (error < 0)
        return error;
    *ret_run = find_free(wanted);
    return ret_run->pages != 0
               ? 0
               : bri_fail(ENOMEM, "the arena's page table is damaged: some process has written "
                                  "into its shared memory");
}

static void commit(uint64_t page, uint64_t pages, uint64_t found, uint64_t word)
{
    for (uint64_t i = 1; i < pages; i++) /* T2 */
        bri_store_relaxed(bri_page_word(page + i), bri_page_make(BRI_PAGE_INSIDE, 0, 0));
    if (found > pages) /* T3 */
        bri_store_relaxed(bri_page_word(page + pages), bri_page_make(BRI_PAGE_FREE, found - pages, 0));
    bri_fault("heap.pages.split");
    bri_store_release(bri_page_word(page), word); /* T4 */
}

int bri_pages_take(uint64_t pages, enum bri_page_state state, unsigned class,
                   void (*prepare)(char *memory, void *argument), void *argument, uint64_t *ret_page,
                   int *ret_is_fresh)
{
    struct run run;

    bri_mutex_lock(&header()->page_lock);
    int error = find_or_grow(pages, &run);
    if (error == 0) {
        uint64_t page = run.page;
        uint64_t touched = bri_load_relaxed(&header()->touched);
        if (page + pages > touched)
            bri_store_relaxed(&header()->touched, page + pages);
        uint64_t use = bri_load_relaxed(&header()->uses) + 1;
        bri_store_relaxed(&header()->uses, use);
        prepare(bri_page_at(page), argument);
        commit(page, pages, run.pages, bri_page_with_use(bri_page_make(state, pages, class), use));
        *ret_page = page;
        *ret_is_fresh = page >= touched;
    }
    bri_mutex_unlock(&header()->page_lock);
    return error;
}

void bri_pages_give(uint64_t page)
{
    bri_mutex_lock(&header()->page_lock);
    uint64_t word = bri_load_relaxed(bri_page_word(page));
    if (page < bri_load_relaxed(&header()->search_from))
        bri_store_relaxed(&header()->search_from, page);
    bri_store_release(bri_page_word(page), bri_page_make(BRI_PAGE_FREE, bri_page_count_of(word), 0)); /* G1 */
    bri_mutex_unlock(&header()->page_lock);
}
