/* SPDX-License-Identifier: MIT */
/*
 * The arena: one memfd, mapped as one reserved window that forked processes inherit at the same address.
 *
 *   window:  | header | roster (slots) | page table | page 0 | page 1 | … | grown | reserved, behind the file's end … |
 *
 *   offset of page p = pages_at + p × BRI_PAGE_BYTES;   file length = pages_at + grown × BRI_PAGE_BYTES
 *
 * Shared memory holds offsets (from the window's start) and words, never pointers; offset 0 is "none".
 *
 * A participant is a process that uses the arena.  It has a slot of the roster and a name: (epoch << 12 | slot), which is never 0 and
 * differs from the names of all who had the slot before.  Locks, claims and blocks carry names.  A name is alive as long as its
 * slot's word still shows its epoch and is not DEAD or FREE: one load.
 *
 * slot word:   63 .......... 32 | 31 ....... 8 | 7 ..... 0
 *              see below        | epoch        | state
 *
 *   FREE --claim (CAS)--> CLAIMED --enter--> LIVE --bury (CAS)--> DEAD --all that it held is passed on--> FREE, epoch + 1 at the next claim
 *     |                      |                                     ^
 *     |                      +---- bury: its maker died -----------+
 *     +--claim for oneself (CAS)--> JOINING --enter--> LIVE        JOINING of a process that has ended counts as FREE
 *
 *   upper half:  CLAIMED: the name of the maker.   JOINING: the pid.   DEAD: how it ended (BRI_END_…).   LIVE, FREE: 0
 *
 * What stands in shared memory may be damaged: any participant can scribble over all of it.  Offsets, sizes and indices are
 * therefore checked by who is not to fall with another (a pool's owner and supervisor, both sides of a queue):
 *
 *   1  the word is read once, into a local variable (an atomic load, or bri_read_once)
 *   2  the variable is checked: bri_at_checked; bri_heap_find (heap.h) for a block of a kind, with room for so many bytes
 *   3  the variable is used, never the word again
 *
 * So it does not matter what the word becomes after 1.  That a range was inside the arena stays true: pages are never unmapped,
 * the file is sealed against shrinking, and pages_at and seen_bytes are this process's own.  What lies in the range may change at any time: a
 * copy of it is some bytes, and lengths or offsets among them are words in their own right, from 1.  Lists are
 * walked with a bound, since damage may close them to a ring.
 * right:  at = bri_load_acquire(&list); node = bri_at_checked(at, sizeof *node, 64)      wrong:  bri_at_checked(list, …); bri_at(list)
 *
 * What everything else is told by is not believed either, as far as it could lead out of the arena, round in a ring or nowhere:
 *   layout          each process has its own copy, from when it came
 *   grown           the kernel is asked how long the file is, once for each time that it has grown
 *   slots_high      never more than there are slots.   A claim whose maker is a claim, and a LIVE slot without a pid, count as ended
 *   page words      a run has a page at least, and ends where the pages end
 *   free lists      what is taken is a free block of the class by its page's word and its tag; else the list is made anew from the tags
 *   tags            what a block's kind says is looked at only in a block that has room for it
 *   mutexes         an owner that is no name of anybody, alive or not yet passed on, holds nothing: who wants the mutex takes it (sync/mutex.h)
 * So damage there costs what was in the arena, and not the process that looks.  Nothing helps against a name that lives: a mutex that carries it
 * makes all wait who want it, and a slot that is said to be dead loses what it held.
 */
#ifndef BRI_ARENA_H
#define BRI_ARENA_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"

#define BRI_PAGE_BYTES ((uint64_t)64 * 1024)
#define BRI_SLOTS      4096u
#define BRI_SLOT_BITS  12u
#define BRI_CACHE_LINE 64

typedef uint64_t bri_offset;
typedef uint32_t bri_name;

enum bri_slot_state { BRI_SLOT_FREE, BRI_SLOT_CLAIMED, BRI_SLOT_JOINING, BRI_SLOT_LIVE, BRI_SLOT_DEAD };

/* What a participant is; decides who may go on when its maker dies. */
enum bri_role {
    BRI_ROLE_USER,       /* made the arena, or was forked by the user */
    BRI_ROLE_PROCESS,    /* runs the function of a brood_process */
    BRI_ROLE_KEEPER,     /* watches a brood_process */
    BRI_ROLE_SUPERVISOR, /* watches the workers of a pool */
    BRI_ROLE_WORKER
};

/* How a participant ended, in the upper half of its slot's word. */
enum { BRI_END_UNKNOWN = 0, BRI_END_CLEAN = 1, BRI_END_KILLED = 2 };

/* Two cache lines each: what all others look at before they spin, and what a worker writes at each item.  Writer: the participant itself after
 * CLAIMED, its maker before; `word` by CAS only. */
struct bri_slot_shm {
    _Atomic uint64_t word;
    _Atomic uint64_t start_time; /* of the process, in clock ticks since boot: tells a reused pid */
    _Atomic uint64_t pid;        /* epoch << 32 | pid, 0 until it is known: bri_roster_pid_of */
    _Atomic uint32_t role;
    _Atomic bri_name boss; /* the participant that it depends on; 0: none */
    _Atomic uint32_t idle; /* asleep in a wait: does not count as runnable when others think of spinning */
    _Atomic int32_t
        end_status; /* its parent, before it buries: exit code, or minus the signal; BRI_STATUS_UNKNOWN */
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t
        progress; /* worker: which item it runs; blocks allocated in a task carry it: see pool/job.h */
    _Atomic uint64_t claims; /* worker: chunks that it has claimed; likewise */
};
#define BRI_STATUS_UNKNOWN INT32_MIN
_Static_assert(sizeof(struct bri_slot_shm) == (size_t)2 * BRI_CACHE_LINE, "no line is two participants'");

/* Two words: see sync/mutex.h.  Declared here because the header holds some. */
struct bri_mutex_shm {
    _Atomic bri_name owner;
    _Atomic uint32_t event;
};

#define BRI_BERTHS  64u
#define BRI_CLASSES 64u /* slab classes of the heap, see heap/ */

/* field – writer – readers – protection */
struct bri_header_shm {
    uint64_t magic;        /* maker, before anybody else is there */
    uint64_t window_bytes; /* maker */
    uint64_t max_bytes;    /* maker */
    uint64_t table_at;     /* maker: offset of the page table */
    uint64_t pages_at;     /* maker: offset of page 0 */
    uint64_t memfd_inode;  /* maker: to recognise our descriptor */
    uint32_t cpus; /* maker: usable CPUs; spinning is for times when no more than these are runnable */
    _Alignas(BRI_CACHE_LINE) _Atomic uint32_t
        obituary; /* whoever passed on what a dead one held: +1; everybody who sleeps watches it */
    _Atomic uint32_t slots_high; /* slots ever claimed: walks of the roster stop here; only grows, by CAS */
    _Alignas(BRI_CACHE_LINE) _Atomic uint32_t berths
        [BRI_BERTHS]; /* event words for those who wait for an object that may be gone when they wake: see locks/event.c */
    _Atomic uint64_t events_made; /* brood_events ever made; by addition */
    _Alignas(BRI_CACHE_LINE) struct bri_mutex_shm
        undertaker; /* who passes on what the dead held; see heap/recover.h */
    _Alignas(BRI_CACHE_LINE) struct bri_mutex_shm page_lock; /* the page table and `grown` */
    _Atomic uint64_t grown;       /* pages that the file has; holder of page_lock */
    _Atomic uint64_t search_from; /* hint: no free run starts before this page; holder of page_lock */
    _Atomic uint64_t
        touched; /* pages at or above this have never been used: still zero; holder of page_lock */
    _Atomic uint64_t
        uses; /* how often pages were taken: tells one use of a page from the next; holder of page_lock */
    _Alignas(BRI_CACHE_LINE) struct bri_mutex_shm bulk_lock; /* who holds which bulk, see heap/bulk.h */
    _Atomic uint64_t bulk_serial;                            /* bulks ever made; by addition */
    _Atomic uint32_t bulk_deaths; /* 1: somebody who may have held one died; a hint */
    _Alignas(BRI_CACHE_LINE) struct {
        struct bri_mutex_shm lock;
        _Atomic bri_offset free; /* first free block: holder of lock */
        uint64_t padding[6];
    } classes[BRI_CLASSES];
    struct bri_slot_shm slots[BRI_SLOTS];
};

/* The private half: one per process, inherited by fork. */
struct bri_arena {
    char *base;                    /* of the window; the same in all processes of the arena */
    struct bri_header_shm *header; /* == base */
    int memfd;
    uint64_t window_bytes, max_bytes, table_at, pages_at,
        memfd_inode;             /* the header's, as they were when this process came to the arena */
    _Atomic uint64_t seen_bytes; /* of pages that the file is known to have; only grows */
};

/* The arena of this process; NULL before it is made. */
extern struct bri_arena *bri_arena_current;

/* What only this very process may see; the page is wiped by the kernel in a forked child (MADV_WIPEONFORK), so that no child ever acts in
 * its parent's name. */
struct bri_identity {
    _Atomic bri_name name;
    pthread_mutex_t
        lock; /* among this process's threads; wiped to "free", so that a child is not stuck with what another thread held */
};
extern struct bri_identity *_Atomic bri_identity; /* never NULL; stored with release once its name is there */

struct bri_arena_wish {
    uint64_t max_bytes; /* 0: the default */
    int must_be_new;
    const struct brood_arena_ticket *ticket; /* or NULL: somebody else's arena, see brood_arena_attach */
};

/* Opens the arena if this process has none.  0, -EALREADY when it must be new, -ENOMEM, -EMFILE, -ENFILE; with a ticket also -EINVAL, -EADDRINUSE. */
int bri_arena_open(const struct bri_arena_wish *wish);

/* For public functions: sees to it that there is an arena and that this process has a slot in it (a forked one joins at its first
 * call).  0; -ENOMEM, -EMFILE, -ENFILE from making it; -EAGAIN: the roster is full. */
int bri_arena_enter(void);

/* Is this address range inside the arena of this process?  Also false without an arena. */
int bri_arena_holds(const void *memory, size_t bytes);

static inline void *bri_at(bri_offset offset)
{
    return offset == 0 ? NULL : bri_arena_current->base + offset;
}

/* What the kernel says of the arena's file: 1; 0: its descriptor was closed in this process, and may be something else by now. */
struct stat;
int bri_arena_stat(struct stat *ret_status);

/* How many pages there are: `grown`, but never more than the file has.  Without a descriptor nobody knows better than `grown`. */
uint64_t bri_arena_grown(void);

/* Walks of the roster stop here. */
static inline uint32_t bri_slots_high(void)
{
    uint32_t high = bri_load_acquire(&bri_arena_current->header->slots_high);

    return high < BRI_SLOTS ? high : BRI_SLOTS;
}

/* The slow half: the file may have grown since. */
void *bri_at_unseen(bri_offset offset, uint64_t bytes);

/* `bytes` (at least 1) of pages at an offset that was read from shared memory, aligned to a power of two; NULL when that is not in the arena. */
static inline void *bri_at_checked(bri_offset offset, uint64_t bytes, uint64_t alignment)
{
    const struct bri_arena *arena = bri_arena_current;
    uint64_t at = offset - arena->pages_at, seen = bri_load_relaxed(&arena->seen_bytes);

    if ((offset & (alignment - 1)) != 0)
        return NULL;
    int is_inside =
        at < seen && (bytes <= alignment || bytes <= seen - at); /* pages end at multiples of any alignment */
    return is_inside ? arena->base + offset : bri_at_unseen(offset, bytes);
}

static inline bri_offset bri_offset_of(const void *memory)
{
    return memory == NULL ? 0 : (bri_offset)((const char *)memory - bri_arena_current->base);
}

#endif
