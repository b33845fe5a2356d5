/* SPDX-License-Identifier: MIT */
/*
 * Bulks: blocks of large data that several processes use, and letters: blocks that refer to bulks.
 *
 * Rule: a bulk lives as long as a process holds it, or a letter that refers to it is there, or a process that will hold it is being started.
 * Who holds it is a bit per slot of the roster, so that a death takes itself out; which letters there are is what the heap holds.
 *
 *   bulk:    | block's header | bri_bulk_shm | data …    data_at from the payload: a page of the machine's, where the bulk has pages of its own
 *   letter:  a MESSAGE or REPLY block whose link is  at << 32 | count: that many bri_ref_shm, at bytes into the payload
 *
 * field – writer – protection (all by one store each, so that a killed holder of the lock leaves each of them whole)
 *   serial                     maker; 0 by who destroys       bulk_lock of the header
 *   holders, letters, expected whoever takes and gives        bulk_lock
 *   tickets                    whoever writes a letter        bulk_lock; only grows
 *   bytes, data_at, flags      maker                          before it is passed to the arena
 *
 * letters is how many references are in letters that nobody has opened: a hint that is exact unless a letter is lost, and then too high.
 * expected is how many processes are being started and will hold it by themselves.
 *
 * create   C1  a block with the maker's name   C2  the record, own bit   C3  the block is the arena's (linearisation)
 * ticket   T0  by a holder: the letter is marked   T1  tickets + 1, letters + 1   after that the letter may be sent
 * open     O1  serial is another's: gone   O2  own bit   O3  letters - 1   then the reference says that it was opened
 *          The letter is still there: whoever opens frees it afterwards.
 * drop     D1  own bit off   D2  nobody left: serial = 0 (linearisation)   D3  the block is freed
 * sweep    for bulks that nobody holds and letters says are under way
 *          S1  serial and tickets are noted   S2  a walk over all letters: is there one?
 *          S3  none, and still the same serial and tickets, and no holder: D2, D3
 *
 * Why S3 is right.  A reference goes from a holder to a letter (T0) and from a letter to a holder (O2), nowhere else, and each time it is there
 * before it is gone here.  A letter that S2 did not see was opened before, and then its holder shows at S3, or has dropped the bulk; or it was
 * marked after S1, and then tickets is another.  Items of a job name bulks, too: these the job's owner holds as long as there is the job.
 *
 * death table
 *   C1, C2    the block has the dead one's name: freed
 *   C3        mourn: own bit off, D2, D3
 *   T0, T1    letters is too high, or the letter is one that goes with its dead owner → sweep
 *   O2, O3    mourn takes the bit; letters too high → sweep
 *   D1        nobody looks → sweep, as sweep sees to all that are held by nobody
 *   D2        serial 0 and the arena's: sweep frees it
 *   expected  of a process that was killed before it was itself: who expected it takes it back (unexpect); should that one die as well before it
 *             knows, it stays, and with it the bulk as long as the arena
 *
 * sweep runs before the heap says -ENOMEM, when a participant has died, and now and then as bulks are made.
 */
#ifndef BRI_BULK_H
#define BRI_BULK_H

#include "heap/heap.h"

enum { BRI_BULK_SHARED = 1 }; /* flags: the program shares it on purpose, and it is passed on by reference */

struct bri_bulk_shm {
    _Atomic uint64_t serial; /* tells one use of the memory from the next; 0: destroyed */
    uint64_t bytes;          /* of data */
    uint32_t data_at;
    uint32_t flags;
    _Atomic uint64_t tickets;
    _Atomic uint32_t letters, expected;
    _Atomic uint64_t holders[BRI_SLOTS / 64];
};

/* What a letter says of one bulk.  A reference with serial 0 is none. */
struct bri_ref_shm {
    bri_offset bulk;
    uint64_t serial;
    uint64_t at, bytes; /* of the data */
    uint32_t flags;     /* the letter's readers' */
    uint32_t is_opened; /* 1: letters was lowered */
};

/* A bulk of `bytes` of data, held by the caller, who is a participant.  is_zeroed: else what was there before.  -ENOMEM. */
int bri_bulk_create(uint64_t bytes, uint32_t flags, int is_zeroed, struct bri_bulk_shm **ret_bulk);

static inline void *bri_bulk_data(struct bri_bulk_shm *bulk)
{
    return (char *)bulk + bulk->data_at;
}

/* The data begins where a page of the machine begins, and nothing else lies in its last one. */
int bri_bulk_has_pages(const struct bri_bulk_shm *bulk);

/* The caller holds the bulk that the reference names from now on.  is_counted: the reference lies in a letter.
 * ref: the bytes of a bri_ref_shm, aligned to nothing, as letters are.  -ENOENT: it is gone.  -EINVAL: no bulk, or less than the reference says. */
int bri_bulk_open(void *ref, int is_counted, struct bri_bulk_shm **ret_bulk);

/* T1, and what undoes it when the letter is not sent.  By a holder. */
void bri_bulk_add_letter(struct bri_bulk_shm *bulk);
void bri_bulk_take_letter(struct bri_bulk_shm *bulk);

/* The block, of this process and known to nobody yet, is a letter. */
void bri_letter_mark(void *payload, uint32_t at, uint32_t count);

static inline int bri_letter_is(const void *payload)
{
    return bri_load_acquire(&bri_block_of(payload)->link) != 0;
}

/* The caller does not hold it any more. */
void bri_bulk_drop(struct bri_bulk_shm *bulk);

/* A process is being started that will hold it, and says so by itself; unexpect: it has opened it, or never will. */
void bri_bulk_expect(struct bri_bulk_shm *bulk);
void bri_bulk_unexpect(struct bri_bulk_shm *bulk);

/* In that process, when it was forked.  A worker speaks for its supervisor, too, of which all its successors are copies. */
void bri_bulk_arrive(struct bri_bulk_shm *bulk);

/* Before the caller gives its name up: what it holds is held by `heir`, as which it goes on, or, for 0, by it no more. */
void bri_bulk_leave(bri_name heir);

/* Frees what nobody holds and no letter names.  Does nothing when another is at it. */
void bri_bulk_sweep(void);

extern const struct bri_kind_ops bri_bulk_ops;

/* ---- bulk_map.c: for a bulk that has pages, held by the caller; 0 or -ENOMEM ---- */

/* In this process, and in those that it forks, the data is private from now on, and attach: as before. */
int bri_bulk_detach(struct bri_bulk_shm *bulk);
int bri_bulk_attach(struct bri_bulk_shm *bulk);

/* A private view at another address, as the data is now, if nobody else writes to it. */
int bri_bulk_map(struct bri_bulk_shm *bulk, void **ret_memory);
void bri_bulk_unmap(const struct bri_bulk_shm *bulk, void *memory);

#endif
