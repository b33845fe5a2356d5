/* SPDX-License-Identifier: MIT */
/*
 * Blocks of shared memory.
 *
 * Small blocks (header included up to 32 KiB) are cut from slab pages, one size class per page; larger ones are runs of whole pages.  Every
 * block begins with a header of 64 bytes, so that its payload is aligned to 64.
 *
 *   block:  | tag | bytes | link | aux[0] | aux[1] | aux[2] | … 64 | payload … |
 *
 * tag:  63 ........ 32 | 31 ... 16 | 15 .... 8 | 7 .... 0
 *       owner's name   | class     | kind      | 0 free, 1 used
 *
 * The tag is the ground truth of a small block; the free list of a class is a copy, made anew by a walk when its lock's holder died.  The page
 * table is the ground truth of runs.
 *
 *   page word:  63 ............. 32 | 31 .... 16 | 15 ..... 8 | 7 .... 0
 *               pages of the run    | use        | class      | 0 inside a run (or never used), 1 free run, 2 slab, 3 used run
 *
 * use: differs from one use of the page to the next, so that who reads a block without a lock can tell whether it still is one.
 *
 * Owner of a block: 0, the arena (lives until freed); a name: freed when that participant dies, unless the block's kind says by its
 * `settle` function that it has been passed on.  Passing on is a store to the tag (bri_block_pass).
 *
 * Kinds of sync objects (kind < BRI_KIND_SYNC_END) have slabs of their own, so that memory that holds a lock is never put to another use.
 *
 * Before an allocation fails, what can be had back is: see bri_heap_reclaim.
 */
#ifndef BRI_HEAP_H
#define BRI_HEAP_H

#include "arena/arena.h"

enum bri_kind {
    BRI_KIND_NONE,
    BRI_KIND_LOCK,
    BRI_KIND_RLOCK,
    BRI_KIND_SEMAPHORE,
    BRI_KIND_CONDITION,
    BRI_KIND_EVENT,
    BRI_KIND_BARRIER,
    BRI_KIND_QUEUE,
    BRI_KIND_SYNC_END,
    BRI_KIND_USER = BRI_KIND_SYNC_END, /* brood_alloc */
    BRI_KIND_SEGMENT,                  /* of a queue */
    BRI_KIND_MESSAGE,                  /* large or reserved message of a queue */
    BRI_KIND_PROCESS,
    BRI_KIND_POOL,
    BRI_KIND_JOB,
    BRI_KIND_DATA, /* items, results, tables of jobs */
    BRI_KIND_FAILURE,
    BRI_KIND_REPLY,
    BRI_KIND_BULK, /* large data, see bulk.h */
    BRI_KINDS
};

struct bri_block_shm {
    _Atomic uint64_t tag;
    _Atomic uint64_t bytes;  /* of the payload, as asked for */
    _Atomic bri_offset link; /* next free block of the class; while used: not 0 in a letter, see bulk.h */
    _Atomic uint64_t aux[3]; /* the owner's: where the block is bound for, so that `settle` can decide */
    uint64_t padding[2];
};
_Static_assert(sizeof(struct bri_block_shm) == BRI_CACHE_LINE, "payloads are aligned to a cache line");

/* In aux[2]: the payload is whole though the block is still its maker's. */
#define BRI_READY UINT64_C(1)

/* What the undertaker asks of a kind.  All may be NULL.  The table is defined by pool/kinds.c, the rightmost layer. */
struct bri_kind_ops {
    uint64_t
        bytes; /* of the payload, that settle and mourn look at; of a block that has no room for it nothing is asked: damage */
    /* While all locks of the dead are still theirs (nothing that they were changing moves): does this block, tagged with a dead one's
     * name, live on?  Returns 1 and the block is the arena's from now on, or 0: it is freed. */
    int (*settle)(struct bri_block_shm *block, bri_name dead);
    /* Called for blocks that are the arena's (owner 0), or that say BRI_READY: a block under construction belongs to its maker and is left
     * alone.  Repairs the object if the dead held its locks, takes the dead out of it, wakes whom that concerns.  Idempotent. */
    void (*mourn)(void *payload, bri_name dead);
    /* BROOD_CHECK=3: is the object whole?  May be called while others use it only if it takes the object's own locks. */
    int (*is_valid)(void *payload);
};
extern const struct bri_kind_ops *const bri_kind_ops[BRI_KINDS]; /* NULL: nothing is asked */

/* A block of `bytes` (0 counts as 1), not zeroed, owned by `owner` (0 or bri_self()).  On return aux and link are 0.
 * -ENOMEM with the sentence set.  Kill: a block that was not returned yet is freed with its owner — so allocate with bri_self() and pass on. */
int bri_heap_alloc(enum bri_kind kind, uint64_t bytes, bri_name owner, void **ret_payload);

/* As above, payload zeroed. */
int bri_heap_alloc_zeroed(enum bri_kind kind, uint64_t bytes, bri_name owner, void **ret_payload);

/* The payload is a used block of the arena (any kind). */
void bri_heap_free(void *payload);

static inline struct bri_block_shm *bri_block_of(const void *payload)
{
    return (struct bri_block_shm *)((uintptr_t)payload - sizeof(struct bri_block_shm));
}

static inline void *bri_payload_of(struct bri_block_shm *block)
{
    return block + 1;
}

static inline bri_name bri_tag_owner(uint64_t tag)
{
    return (bri_name)(tag >> 32);
}

static inline enum bri_kind bri_tag_kind(uint64_t tag)
{
    return (enum bri_kind)((tag >> 8) & 0xff);
}

static inline int bri_tag_is_used(uint64_t tag)
{
    return (tag & 0xff) == 1;
}

static inline uint64_t bri_tag_with_owner(uint64_t tag, bri_name owner)
{
    return (tag & UINT64_C(0xffffffff)) | (uint64_t)owner << 32;
}

/* The block is `owner`'s from now on (0: the arena's).  By its present owner only. */
static inline void bri_block_pass(struct bri_block_shm *block, bri_name owner)
{
    uint64_t tag = bri_load_relaxed(&block->tag);

    bri_store_release(&block->tag, bri_tag_with_owner(tag, owner));
}

/* Before -ENOMEM: blocks that this process keeps though nobody needs them (bri_heap_give_up); with no mutex held, what the dead held; slabs
 * without a block in use become pages for any use.  bri_heap_alloc has done it when it fails; who held a mutex then, and holds none now, may do
 * it again and retry.  Not earlier: warm slabs stay. */
void bri_heap_reclaim(void);

/* Set by a later layer that keeps blocks for later.  It is called with any lock of the calling thread held: it may try one, not wait. */
typedef void bri_give_up(void);
extern bri_give_up *_Atomic bri_heap_give_up;

/* Is this the payload of a used block of that kind?  For checks of handles and pointers that users pass: reads the page table first, so any
 * address at all may be asked about. */
int bri_heap_is(const void *payload, enum bri_kind kind);

/* The same for an offset that was read from shared memory: the payload, if the block has room for `bytes` (at least 1), as its page says; else NULL. */
void *bri_heap_find(bri_offset offset, enum bri_kind kind, uint64_t bytes);

/* BROOD_CHECK=3: walks the page table, slabs and free lists.  1 when whole. */
int bri_heap_is_valid(void);

/* Calls visit for each used block; takes no lock.  A block that is freed meanwhile may be seen or not. */
typedef void bri_visit(struct bri_block_shm *block, uint64_t tag, void *argument);
void bri_heap_walk(bri_visit *visit, void *argument);

/* For the undertaker: repairs and frees the heap's own locks that `dead` held. */
void bri_heap_mourn(bri_name dead);

#endif
