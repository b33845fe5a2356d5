/* SPDX-License-Identifier: MIT */
/* Whole pages: the page table, drawn in heap.h, and the file's growth. */
#ifndef BRI_PAGES_H
#define BRI_PAGES_H

#include "heap/heap.h"

enum bri_page_state { BRI_PAGE_INSIDE, BRI_PAGE_FREE, BRI_PAGE_SLAB, BRI_PAGE_RUN };

static inline _Atomic uint64_t *bri_page_word(uint64_t page)
{
    return (_Atomic uint64_t *)(void *)(bri_arena_current->base + bri_arena_current->table_at) + page;
}

static inline char *bri_page_at(uint64_t page)
{
    return bri_arena_current->base + bri_arena_current->pages_at + page * BRI_PAGE_BYTES;
}

static inline uint64_t bri_page_make(enum bri_page_state state, uint64_t pages, unsigned class)
{
    return pages << 32 | (uint64_t) class << 8 | (uint64_t)state;
}

static inline enum bri_page_state bri_page_state_of(uint64_t word)
{
    return (enum bri_page_state)(word & 0xff);
}

static inline uint64_t bri_page_count_of(uint64_t word)
{
    return word >> 32;
}

static inline unsigned bri_page_class_of(uint64_t word)
{
    return (unsigned)(word >> 8) & 0xff;
}

static inline uint64_t bri_page_with_use(uint64_t word, uint64_t use)
{
    return word | (use & 0xffff) << 16;
}

/* Takes `pages` pages and turns their first word into (state, pages, class) by one store, the commit.  Before that, with the page lock held,
 * prepare(first byte, argument) writes what must be there from the first moment on.  ret_is_fresh: the memory has never been used, it is zero
 * (but for what prepare wrote).  -ENOMEM, with the sentence. */
int bri_pages_take(uint64_t pages, enum bri_page_state state, unsigned class,
                   void (*prepare)(char *memory, void *argument), void *argument, uint64_t *ret_page,
                   int *ret_is_fresh);

/* -ENOMEM, with the sentence: the arena's descriptor was closed in this process, or is another file's by now. */
int bri_pages_check_descriptor(void);

/* The page is the first of a used run, or a slab that nobody has a block of any more. */
void bri_pages_give(uint64_t page);

#endif
