/* SPDX-License-Identifier: MIT */
/*
 * The queue: messages in first-in first-out order between any number of producers and consumers.
 *
 *   got.vpos                                   put.vpos
 *      v                                          v
 *   [ segment: frame frame frame SKIP ] -> [ segment: frame frame ......... ] -> 0
 *      ^ head                                 ^ tail
 *
 * Messages lie as frames in segments.  A virtual position (vpos) counts bytes over all segments and only grows:
 * a segment holds base … base + bytes, and the next segment's base is this one's end.  Frames begin at multiples
 * of 16 and have a header of 16 bytes:
 *
 *   frame word:  63 ............. 2 | 1 .......... 0         INLINE: the message follows the header
 *                bytes              | enum bri_frame         BLOCK: `message` is the offset of a block that holds it
 *                                                            SKIP: nothing more in this segment
 * Cursors.  Each is one word and two copies of what goes with it:
 *
 *   cursor word: 63 ............. 1 | 0
 *                vpos               | g: copy[g] counts the messages and bytes before vpos
 *
 * One store of the word moves position and counts together: copy[!g] is filled first, and nobody reads it.
 *
 *   messages that wait = put.messages − got.messages        bytes that wait = put.bytes − got.bytes
 *   write position = max(put.vpos, tail.base)               read position = max(got.vpos, head.base)
 *   empty ⇔ put.vpos == got.vpos
 *
 * field             writer                   readers              protection
 *   max_…           create                   all                  none, constant
 *   is_closed       close                    all                  put_lock; only becomes 1
 *   put             holder of put_lock       all                  one store; others read with a retry (bri_cursor_read)
 *   tail            holder of put_lock       holder of put_lock   put_lock
 *   room_seen_…     holder of put_lock       holder of put_lock   put_lock; old values of got: never too high
 *   got             holder of get_lock       all                  as put
 *   head            holder of get_lock       holder of get_lock   get_lock
 *   put_seen        holder of get_lock       holder of get_lock   get_lock; an old value of put.vpos: never too high
 *   frames          holder of put_lock, from put.vpos on          holder of get_lock, before put.vpos
 *   segment.next    holder of put_lock, once                      holder of get_lock, once put.vpos has passed it
 *   waiters         who waits: CAS 0 → name, store 0              destroy; mourn takes the dead out
 * settle and mourn read them all: of the dead, which no longer move.
 *
 * Overlap: one put, one get and any number of size, close and fd calls at a time.
 *
 * put, with put_lock                                  get, with get_lock
 *   P1  not closed, and there is room, else wait        G1  something before put.vpos, else wait             [E1]
 *   P2  the segment has room, else N1 … N5              G2  while at the segment's end: R1 … R3
 *   P3  BLOCK: aux of the block ← queue, vpos + 1       G3  INLINE: copy the message out
 *   P4  the frame, behind put.vpos                          BLOCK: tag of the block ← own name
 *   P5  rings the bell, should somebody poll            G4  got ← behind the frame.  LINEARISATION POINT     [E2]
 *   P6  put ← behind the frame.  LINEARISATION POINT [E1]  G5  unlock; wake who waits for room
 *   P7  unlock; wake who waits for messages             G6  BLOCK: copy out, free (or the caller's: aux ← 0)
 *
 * next segment                                        retire a segment
 *   N1  new block, tag: own name; base, bytes           R1  tag ← own name
 *   N2  SKIP at put.vpos, if there is room for it       R2  head ← next                                      [E1]
 *   N3  old.next ← new: the queue's from here on        R3  free
 *   N4  tail ← new
 *   N5  tag ← 0, the arena's
 * Several frames may be written before one P6, and several read before one G4, but a segment is only left with
 * everything committed: N2 and R2 stand at the cursor.
 *
 * Ordering.  E1: frames, next and base are written before the release store of put; a consumer reads put with
 * acquire.  E2: a frame is read before the release store of got; its memory is only used again after R3 and the
 * heap's lock.  The fence of bri_mutex_unlock is S2 of sync/event.h for P7 and G5.
 *
 * Blocks of large messages keep the tag of their producer while they wait: there is no store after P6 that
 * could hit a block that a fast consumer has freed already.
 *
 * death table: killed after …
 *   P1, P2       nothing                                  the lock is left → mourn frees it
 *   P3 … P5      a frame behind put.vpos: not there       lock → mourn; the block is not between the cursors → freed
 *   P6           the message is there, whole              lock → mourn; sleepers: their slice, and the obituary;
 *                                                         pollers: rung before, see bell.h
 *   N1, N2       a block tagged with the dead's name,     settle: not linked → freed.  SKIP at put.vpos is
 *                not linked                               overwritten by the next frame
 *   N3, N4       linked                                   settle: lives on.  mourn: tail ← next
 *   R1           head still refers to it                  settle: lives on, the arena's
 *   R2           nothing refers to it                     settle: freed
 *   G3           not taken: got stands before it          settle: between the cursors → lives on, the arena's
 *   G4           taken: the dead had it                   settle: before got → freed with the dead
 * create: block and segment carry the maker's name until both are whole; then the queue's tag ← 0: the queue is there.
 * destroy: queue's tag ← own name: it is gone.  Killed before or after: mourn finds the queue tagged with the dead's
 * name, empties it (bri_queue_empty, itself repeatable), and the undertaker frees it.
 * The undertaker itself, anywhere: settle has decided while the locks were the dead's.  Once decided it stays so:
 * living blocks have tag 0; of those to be freed, segments are never linked again, messages lose their aux.
 *
 * The argument.  Every instruction leaves cursors and links whole, since each changes by one store; all else (tail,
 * …_seen, frames behind put.vpos) is derived or not looked at.  A block is freed by exactly one: before P6 by the dead
 * producer's undertaker, from G3 on by the consumer whose name it carries, between them by nobody.  No wake is
 * lost among the living: who waits prepares its event (W1) before it looks with a seq_cst load, and who was woken and
 * leaves something behind wakes the next (bri_queue_pass_on_…).
 *
 * Damage (arena.h, what is checked and how).  A segment is one that lies in the arena as a whole, a frame one that lies in its segment as a
 * whole, a block one that carries this queue and this position and has room for the message; a segment is retired if it carries this queue and is
 * followed by another.  Whoever finds anything else returns -EBADMSG, and moves nothing.  Whatever is at the places that are read and
 * written then, they are in the pages of the arena.
 *
 * right:  lock; front; copy; advance; unlock          wrong:  lock; front; advance; copy; unlock (killed between: lost,
 *                                                             and a producer may own the memory)
 * right:  wait with no lock held, then look again     wrong:  wait with get_lock held: no other getter could time out
 */
#ifndef BRI_QUEUE_H
#define BRI_QUEUE_H

#include "base/check.h"
#include "brood.h"
#include "heap/heap.h"
#include "queue/bell.h"
#include "sync/event.h"
#include "sync/mutex.h"

enum bri_frame { BRI_FRAME_INLINE, BRI_FRAME_BLOCK, BRI_FRAME_SKIP };

enum {
    BRI_FRAME_ALIGN = 16,
    BRI_INLINE_BYTES = 4096,       /* longer messages have a block of their own */
    BRI_SEGMENT_BYTES = 64 * 1024, /* no segment's block is longer */
    BRI_QUEUE_WAITERS = 16,
    BRI_QUEUE_SLICE_MS = 100 /* nobody watches the user's own processes: one may die between P6 and P7 */
};

struct bri_frame_shm {
    uint64_t word;
    bri_offset message; /* BLOCK: its payload */
};

struct bri_segment_shm {
    uint64_t base;  /* vpos of its first frame */
    uint64_t bytes; /* for frames; a multiple of BRI_FRAME_ALIGN */
    _Atomic bri_offset next;
    uint64_t padding[5];
};
_Static_assert(sizeof(struct bri_segment_shm) == BRI_CACHE_LINE, "frames begin aligned");

struct bri_cursor_shm {
    _Atomic uint64_t word;
    struct {
        _Atomic uint64_t messages, bytes;
    } copy[2];
};

struct bri_queue_shm {
    uint64_t max_messages; /* UINT64_MAX: no bound */
    uint64_t max_bytes;
    _Atomic uint32_t is_closed;
    _Atomic uint32_t filled;  /* event: getters wait for messages */
    _Atomic uint32_t drained; /* event: putters wait for room */
    _Alignas(BRI_CACHE_LINE) struct bri_mutex_shm put_lock;
    _Atomic bri_offset tail;
    _Atomic uint64_t room_seen_messages, room_seen_bytes;
    _Alignas(BRI_CACHE_LINE) struct bri_cursor_shm put;
    _Alignas(BRI_CACHE_LINE) struct bri_mutex_shm get_lock;
    _Atomic bri_offset head;
    _Atomic uint64_t put_seen;
    _Alignas(BRI_CACHE_LINE) struct bri_cursor_shm got;
    _Alignas(BRI_CACHE_LINE) _Atomic bri_name waiters[BRI_QUEUE_WAITERS];
    _Alignas(BRI_CACHE_LINE) struct bri_bell_shm bell; /* for those who poll: brood_queue_fd */
};

/* aux of blocks.  SEGMENT: QUEUE.  MESSAGE: QUEUE, FRAME (vpos + 1; 0: in nobody's queue), BYTES of the message. */
enum { BRI_AUX_QUEUE, BRI_AUX_FRAME, BRI_AUX_BYTES };

/* ---- cursors ---- */

static inline uint64_t bri_cursor_vpos(const struct bri_cursor_shm *cursor)
{
    return bri_load_relaxed(&cursor->word) >> 1;
}

/* By the holder of the cursor's lock. */
static inline void bri_cursor_own(const struct bri_cursor_shm *cursor, uint64_t *ret_messages,
                                  uint64_t *ret_bytes)
{
    uint64_t g = bri_load_relaxed(&cursor->word) & 1;

    *ret_messages = bri_load_relaxed(&cursor->copy[g].messages);
    *ret_bytes = bri_load_relaxed(&cursor->copy[g].bytes);
}

/* By anybody: position and counts that belong together. */
static inline uint64_t bri_cursor_read(const struct bri_cursor_shm *cursor, uint64_t *ret_messages,
                                       uint64_t *ret_bytes)
{
    for (;;) {
        uint64_t word = bri_load_seq_cst(&cursor->word);
        *ret_messages = bri_load_acquire(&cursor->copy[word & 1].messages);
        *ret_bytes = bri_load_acquire(&cursor->copy[word & 1].bytes);
        if (bri_load_relaxed(&cursor->word) == word)
            return word >> 1;
    }
}

/* The one store.  The copies are stored with release so that a reader who sees one sees that the word has moved. */
static inline void bri_cursor_advance(struct bri_cursor_shm *cursor, uint64_t vpos, uint64_t messages,
                                      uint64_t bytes)
{
    uint64_t g = bri_load_relaxed(&cursor->word) & 1;
    uint64_t all_messages = bri_load_relaxed(&cursor->copy[g].messages) + messages;
    uint64_t all_bytes = bri_load_relaxed(&cursor->copy[g].bytes) + bytes;

    bri_store_release(&cursor->copy[g ^ 1].messages, all_messages);
    bri_fault("queue.cursor.half");
    bri_store_release(&cursor->copy[g ^ 1].bytes, all_bytes);
    bri_fault("queue.cursor.filled");
    bri_store_release(&cursor->word, vpos << 1 | (g ^ 1));
}

/* ---- frames and segments ---- */

static inline struct bri_frame_shm bri_frame_make(enum bri_frame kind, uint64_t bytes, bri_offset message)
{
    return (struct bri_frame_shm){bytes << 2 | (uint64_t)kind, message};
}

static inline enum bri_frame bri_frame_kind(const struct bri_frame_shm *frame)
{
    return (enum bri_frame)(frame->word & 3);
}

static inline uint64_t bri_frame_bytes(const struct bri_frame_shm *frame)
{
    return frame->word >> 2;
}

/* What a frame takes in its segment. */
static inline uint64_t bri_frame_extent(enum bri_frame kind, uint64_t bytes)
{
    uint64_t payload = kind == BRI_FRAME_BLOCK ? 0 : bytes;

    return sizeof(struct bri_frame_shm) +
           ((payload + BRI_FRAME_ALIGN - 1) & ~(uint64_t)(BRI_FRAME_ALIGN - 1));
}

static inline uint64_t bri_segment_end(const struct bri_segment_shm *segment)
{
    return segment->base + segment->bytes;
}

/* A segment as it was read, once: its frames lie in the arena.  No segment goes beyond its page. */
struct bri_segment {
    struct bri_segment_shm *shared;
    uint64_t base, bytes;
};

/* 1, or 0: there is none at this offset. */
static inline int bri_segment_read(bri_offset at, struct bri_segment *ret_segment)
{
    struct bri_segment_shm *shared = bri_at_checked(at, sizeof *shared, BRI_CACHE_LINE);

    if (shared == NULL)
        return 0;
    uint64_t bytes = bri_read_once(shared->bytes) & ~(uint64_t)(BRI_FRAME_ALIGN - 1);
    *ret_segment = (struct bri_segment){shared, bri_read_once(shared->base), bytes};
    return bytes <= BRI_PAGE_BYTES - sizeof *shared - at % BRI_PAGE_BYTES;
}

static inline struct bri_frame_shm *bri_frame_in(const struct bri_segment *segment, uint64_t vpos)
{
    return (struct bri_frame_shm *)(void *)((char *)(segment->shared + 1) + (vpos - segment->base));
}

/* A frame as it was read, once: it lies in its segment, an INLINE message included. */
struct bri_front {
    const struct bri_frame_shm *frame;
    uint64_t vpos, next; /* next: behind the frame */
    uint64_t bytes;
    enum bri_frame kind;
};

/* 1, or 0: there is none at this position. */
static inline int bri_frame_read(const struct bri_segment *segment, uint64_t vpos,
                                 struct bri_front *ret_front)
{
    uint64_t inside = vpos - segment->base;

    if (inside >= segment->bytes || (inside & (BRI_FRAME_ALIGN - 1)) != 0)
        return 0;
    struct bri_frame_shm *frame = bri_frame_in(segment, vpos);
    uint64_t word = bri_read_once(frame->word);
    enum bri_frame kind = (enum bri_frame)(word & 3);
    uint64_t extent = bri_frame_extent(kind, word >> 2);
    *ret_front = (struct bri_front){frame, vpos, vpos + extent, word >> 2, kind};
    return extent <= segment->bytes - inside;
}

static inline struct bri_frame_shm *bri_frame_at(struct bri_segment_shm *segment, uint64_t vpos)
{
    return (struct bri_frame_shm *)(void *)((char *)(segment + 1) + (vpos - segment->base));
}

/* The first segment of a queue that is being made. */
int bri_segment_create(struct bri_queue_shm *queue);

/* N1 … N5, with put_lock and everything committed up to `vpos`, which is in or right behind `old`, the tail.  -ENOMEM. */
int bri_segment_append(struct bri_queue_shm *queue, const struct bri_segment *old, uint64_t vpos,
                       uint64_t extent);

/* G1 and G2: the oldest frame and its segment: 1; 0: empty; -EBADMSG: damaged. */
int bri_queue_front(struct bri_queue_shm *queue, struct bri_segment *ret_segment,
                    struct bri_front *ret_front);

/* The block of a BLOCK frame; NULL: damaged. */
struct bri_block_shm *bri_message_find(const struct bri_queue_shm *queue, const struct bri_front *front);

/* G3 for a BLOCK: it carries the caller's name now. */
void bri_message_claim(struct bri_block_shm *block);

/* Takes out and frees all that the queue holds, its segments too.  May be killed and repeated. */
void bri_queue_empty(struct bri_queue_shm *queue);

/* A block for a message, the caller's.  -ENOMEM. */
int bri_message_create(struct bri_queue_shm *queue, uint64_t bytes, struct bri_block_shm **ret_block);

/* The block of a message that the user has in hand; -EINVAL when it is not this process's, naming `message`. */
int bri_message_check(const brood_message *message, struct bri_block_shm **ret_block);

/* ---- waiting ---- */

static inline int bri_queue_is_empty(const struct bri_queue_shm *queue)
{
    return bri_load_seq_cst(&queue->got.word) >> 1 == bri_load_seq_cst(&queue->put.word) >> 1;
}

/* Is there room for one more message of so many bytes?  By anybody; a snapshot. */
int bri_queue_has_room(const struct bri_queue_shm *queue, uint64_t bytes);

/* bri_wait, with the caller among the waiters.  At once -ETIMEDOUT when the deadline is BROOD_NOW. */
int bri_queue_wait(struct bri_queue_shm *queue, _Atomic uint32_t *event, bri_condition *condition,
                   void *argument, int64_t deadline);

/* Who was woken and leaves something for others wakes the next. */
void bri_queue_pass_on_messages(struct bri_queue_shm *queue);
void bri_queue_pass_on_room(struct bri_queue_shm *queue);

/* After a look that found nothing: true when it is worth another, since a putter may have rung this process and not have
 * committed then (bell.h).  Waits for that putter. */
int bri_queue_await_ringer(struct bri_queue_shm *queue);

/* For the bell: is there something to read, or may there be soon? */
int bri_queue_is_readable(void *queue);

/* ---- handles ---- */

int bri_queue_bad_handle(const void *handle);
int bri_queue_bad_deadline(int64_t deadline);

/* -EBADMSG with its sentence. */
int bri_queue_is_damaged(void);

/* Every public function begins here: checks the handle, and that this process has a slot. */
static inline int bri_queue_enter(const struct bri_queue_shm *queue)
{
    return bri_heap_is(queue, BRI_KIND_QUEUE) ? bri_arena_enter() : bri_queue_bad_handle(queue);
}

static inline int bri_queue_enter_until(const struct bri_queue_shm *queue, int64_t deadline)
{
    return deadline < 0 ? bri_queue_bad_deadline(deadline) : bri_queue_enter(queue);
}

static inline struct bri_queue_shm *bri_queue_of(brood_queue *handle)
{
    return (struct bri_queue_shm *)(void *)handle;
}

/* Takes both locks and holds neither while waiting for the other. */
void bri_queue_lock_both(struct bri_queue_shm *queue);
void bri_queue_unlock_both(struct bri_queue_shm *queue);

/* BROOD_CHECK=3. */
int bri_queue_is_valid(void *queue);

extern const struct bri_kind_ops bri_queue_ops, bri_segment_ops, bri_message_ops;

#endif
