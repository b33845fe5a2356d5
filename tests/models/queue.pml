/* SPDX-License-Identifier: MIT */
/* run-model: cc=-DCOLLAPSE pan=-E pan=-m300000 */
/*
 * The queue with two locks and what becomes of its messages when somebody dies: src/queue/queue.h (P1 … P7, G1 … G6), settle_message in
 * segment.c, mourn_queue in queue.c, src/heap/recover.c (U1 … U6).
 *
 * Modelled: each message is a block with its tag and its aux (vpos + 1); frames; both cursors, each committed by one store; both locks, whose
 * words name their holder; the undertaker: for each dead name settle, mourn, free, release, in this order, with steps of its own.
 * Anybody dies between any two steps; the first undertaker too, and the second takes its word over and does everything again.
 * Left out: segments (frames lie in a ring that is re-used at once, which is harder), inline messages (a frame read before got moves), the
 * heap's own steps, sleeping (wait.pml), closing and destroying.
 *
 * properties   at each take: the message is there, is whole, and is the next of its producer (so: once, in order, none left out); its block is
 *              not changed while the consumer copies; whoever frees a block frees one that is used and not between the cursors;
 *              at the end: all locks are free, the dead are released, what was committed was delivered or is in the queue, no block
 *              leaked, and as long as a consumer lives the queue is drained and the living producers are through
 *
 * runs: checked whole
 *   default                                     2 producers, 2 consumers, a ring of 2, 2 deaths
 *   -DMESSAGES=2 -DPRODUCERS=1                  order, and blocks used again by the same name
 *   -DMESSAGES=2 -DCONSUMERS=1 -DCRASHES=1      the queue is full at times
 *   -DMESSAGES=2 -DPRODUCERS=1 -DSAME_PROCESS   a consumer that is a thread of the producer's process, with the same name
 *
 * mutations: an error must be found
 *   -DBUG_TAG_AFTER_COMMIT -DCONSUMERS=1 -DCRASHES=1   after P6 the producer makes the block the arena's: it may be freed already, and somebody else's
 *   -DBUG_TAG_AFTER_TAKE -DCONSUMERS=1    G3 after G4
 *   -DBUG_COMMIT_BEFORE_FRAME -DCONSUMERS=1 -DCRASHES=1   P6 before P3
 *   -DBUG_TWO_STORES -DMESSAGES=2 -DCONSUMERS=1 -DCRASHES=1   P6: position and count by a store each
 *   -DBUG_MOURN_FIRST -DCONSUMERS=1       U3 before U2: the cursors that settle goes by move
 *   -DBUG_AUX_STAYS -DCONSUMERS=1         settle does not forget the destination of a message that was not put: settling again, after another
 *                                         undertaker died in U4, finds another message there and lets the block live
 *   -DBUG_SETTLE_STORES -DCONSUMERS=1     settle's verdict by a store: a living consumer has taken the block meanwhile
 *   -DBUG_NO_UNDERTAKER_LOCK -DCONSUMERS=1   two undertakers at a time
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef MESSAGES
#define MESSAGES 1           /* of each producer */
#endif
#ifndef RING
#define RING 2
#endif
#ifndef BLOCKS
#define BLOCKS 3
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#define UNDERTAKERS 2
#define MORTALS (PRODUCERS + CONSUMERS + UNDERTAKERS - 1) /* the last undertaker goes on */
#define BIT(p) (1 << (p))
#define NOBODY 0
#define ARENA 0
#define FREE 255

/* Participant p has name p + 1.  SAME_PROCESS: consumer 0 is a thread of the process of producer 0 and has its name. */
#ifdef SAME_PROCESS
#define NAME(p) ((p) == PRODUCERS -> 1 : (p) + 1)
#define THREADS(p) ((p) == 0 || (p) == PRODUCERS -> BIT(0) | BIT(PRODUCERS) : BIT(p))
#else
#define NAME(p) ((p) + 1)
#define THREADS(p) BIT(p)
#endif
#if CONSUMERS == 1
#define CONSUMERS_ARE_DEAD (dead & BIT(NAME(PRODUCERS)))
#else
#define CONSUMERS_ARE_DEAD ((dead & BIT(NAME(PRODUCERS))) && (dead & BIT(NAME(PRODUCERS + 1))))
#endif
#define MESSAGE(p, n) ((p) * 8 + (n) + 1)

byte put_lock, get_lock, undertaker; /* owner words */
byte put, got;                       /* the cursors' words: vpos, in messages */
byte frame[RING];                    /* vpos % RING → block */
byte tag[BLOCKS] = FREE;             /* the owner's name, ARENA, or FREE */
byte aux[BLOCKS];                    /* vpos + 1; 0: in nobody's queue */
byte payload[BLOCKS];
#ifdef BUG_TWO_STORES
byte put_messages, got_messages;
#define ROOM (put_messages - got_messages < RING)
#else
#define ROOM (put - got < RING)
#endif

/* names, as bits: */
byte dead;                           /* slot DEAD */
byte buried;                         /* slot free again */
byte dying;                          /* participants: only they move, and only to their end */

/* ghosts: what ought to be */
byte committed[PRODUCERS], delivered[PRODUCERS];

/* Who frees a block frees one that is used and that is not between the cursors. */
inline free_block(b)
{
    assert(tag[b] != FREE);
    assert(got == put || frame[got % RING] != b);
    assert(put - got < 2 || frame[(got + 1) % RING] != b);
#if RING > 2
    assert(put - got < 3 || frame[(got + 2) % RING] != b);
#endif
    tag[b] = FREE; payload[b] = 0
}

proctype Producer(byte me) provided (dying == 0 || (dying & BIT(_pid - 1)))
{
    byte b, n;

    {
        do
        :: n < MESSAGES ->
            d_step {                                             /* bri_message_create, filled; the heap's own steps are not here */
                tag[0] == FREE || tag[1] == FREE || tag[BLOCKS - 1] == FREE ||  tag[BLOCKS / 2] == FREE ->
                b = 0;
                do
                :: tag[b] != FREE -> b++
                :: else -> break
                od;
                tag[b] = NAME(me); payload[b] = MESSAGE(me, n);
                aux[b] = 0
            };
lock:       atomic { put_lock == NOBODY -> put_lock = NAME(me) };
            if                                                   /* P1 */
            :: ROOM
            :: else -> put_lock = NOBODY; ROOM -> goto lock
            fi;
#ifdef BUG_COMMIT_BEFORE_FRAME
            d_step { put++; committed[me]++ };
#endif
            aux[b] = put + 1;                                    /* P3 */
            frame[put % RING] = b;                               /* P4 */
#ifndef BUG_COMMIT_BEFORE_FRAME
            d_step { put++; committed[me]++ };                   /* P6 */
#endif
#ifdef BUG_TWO_STORES
            put_messages++;
#endif
#ifdef BUG_TAG_AFTER_COMMIT
            tag[b] = ARENA;
#endif
            d_step { put_lock = NOBODY; b = 0; n++ }             /* P7 */
        :: else -> break
        od;
end_idle:
        false
    } unless {
        d_step { dying & BIT(me) -> dying = dying & ~BIT(me); b = 0; n = 0 }
    }
}

proctype Consumer(byte me) provided (dying == 0 || (dying & BIT(_pid - 1)))
{
    byte b, m;

    {
end_empty:
        do
        :: got != put ->                                         /* waits with no lock held */
            d_step { get_lock == NOBODY -> get_lock = NAME(me) };
            if
            :: d_step { got != put -> b = frame[got % RING] }    /* G1, G2 */
#ifndef BUG_TAG_AFTER_TAKE
                tag[b] = NAME(me);                               /* G3 */
#endif
                d_step {                                         /* G4 */
                    m = payload[b];
                    assert(tag[b] != FREE && m != 0);
                    assert(m == MESSAGE((m - 1) / 8, delivered[(m - 1) / 8])); /* the next of its producer: once, in order */
                    delivered[(m - 1) / 8]++;
                    got++
                };
#ifdef BUG_TWO_STORES
                got_messages++;
#endif
#ifdef BUG_TAG_AFTER_TAKE
                tag[b] = NAME(me);
#endif
                get_lock = NOBODY;                               /* G5 */
                d_step { assert(payload[b] == m); free_block(b); b = 0; m = 0 }  /* G6 */
            :: else -> get_lock = NOBODY
            fi
        od
    } unless {
        d_step { dying & BIT(me) -> dying = dying & ~BIT(me); b = 0; m = 0 }
    }
}

/* bri_mutex_take_over, repair, unlock */
inline mourn(lock)
{
    if
    :: d_step { lock == d -> lock = NAME(me) } lock = NOBODY
    :: lock != d
    fi
}

/* settle_message: decides, then heap/recover.c makes the living the arena's */
inline settle(b)
{
    if
    :: tag[b] == d ->
        v = aux[b];
        if
        :: d_step { v > put -> v = 0;                            /* it had not put it */
#ifndef BUG_AUX_STAYS
               if
               :: tag[b] == d -> aux[b] = 0
               :: else
               fi
#endif
           }
        :: v != 0 && v <= put ->
            if
            :: d_step { got >= v -> v = 0 }                      /* it had taken it */
            :: got < v ->                                        /* it is in the queue */
                d_step {
                    v = 0;
#ifdef BUG_SETTLE_STORES
                    tag[b] = ARENA
#else
                    if
                    :: tag[b] == d -> tag[b] = ARENA             /* CAS */
                    :: else
                    fi
#endif
                }
            fi
        :: v == 0
        fi
    :: else
    fi
}

inline settle_all()
{
    i = 0;
    do
    :: i < BLOCKS -> settle(i); i++
    :: else -> break
    od;
    i = 0
}

/* heap/recover.c */
proctype Undertaker(byte me) provided (dying == 0 || (dying & BIT(_pid - 1)))
{
    byte d, i, v;

    {
#ifndef BUG_NO_UNDERTAKER_LOCK
        me == PRODUCERS + CONSUMERS || (dead & BIT(NAME(PRODUCERS + CONSUMERS)));  /* the second when the first has died */
#endif
end_watch:
        do
        :: d_step {                                              /* U1 */
#ifdef BUG_NO_UNDERTAKER_LOCK
               dead & ~buried -> undertaker = NOBODY
#else
               (dead & ~buried) && (undertaker == NOBODY || (dead & BIT(undertaker))) ->
               undertaker = NAME(me)
#endif
           };
           do
           :: d_step {
                  dead & ~buried ->
                  d = 1;
                  do
                  :: !(dead & ~buried & BIT(d)) -> d++
                  :: else -> break
                  od
              };
#ifdef BUG_MOURN_FIRST
              mourn(put_lock);
              mourn(get_lock);
#endif
              settle_all();                                      /* U2 */
#ifndef BUG_MOURN_FIRST
              mourn(put_lock);                                   /* U3 */
              mourn(get_lock);
#endif
              do                                                 /* U4 */
              :: i < BLOCKS ->
                  if
                  :: tag[i] == d -> d_step { free_block(i); i++ }
                  :: else -> i++
                  fi
              :: else -> break
              od;
              atomic { buried = buried | BIT(d); i = 0; d = 0 }  /* U5 */
           :: else -> break
           od;
           undertaker = NOBODY                                   /* U6: and the obituary */
        od
    } unless {
        d_step { dying & BIT(me) -> dying = dying & ~BIT(me); d = 0; i = 0; v = 0 }
    }
}

proctype Reaper()
{
    byte left = CRASHES, v;

    do
    :: atomic {
           left > 0 && dying == 0 ->
           v = 0;
           do
           :: v < MORTALS - 1 -> v++
           :: break
           od;
           if
           :: !(dead & BIT(NAME(v))) && (v < PRODUCERS + CONSUMERS || undertaker == NAME(v)) -> dying = THREADS(v); dead = dead | BIT(NAME(v)); left--; v = 0
           :: else -> v = 0
           fi
       }
    :: d_step { dying == 0 -> left = 0 } break
    od
}

init
{
    byte p;

    atomic {
        do
        :: p < PRODUCERS -> run Producer(p); p++
        :: p >= PRODUCERS && p < PRODUCERS + CONSUMERS -> run Consumer(p); p++
        :: p >= PRODUCERS + CONSUMERS && p < MORTALS + 1 -> run Undertaker(p); p++
        :: else -> break
        od;
        run Reaper();
        p = 0
    };
    timeout ->                                                   /* nothing moves any more */
    d_step {
        assert(put_lock == NOBODY && get_lock == NOBODY && undertaker == NOBODY);
        assert(buried == dead);
        do                                                       /* what was committed was delivered or is there, in order */
        :: got != put ->
            assert(tag[frame[got % RING]] != FREE);
            p = payload[frame[got % RING]];
            assert(p == MESSAGE((p - 1) / 8, delivered[(p - 1) / 8]));
            delivered[(p - 1) / 8]++;
            p = frame[got % RING];
            tag[p] = FREE;                                       /* accounted for */
            got++;
            assert(CONSUMERS_ARE_DEAD)                           /* a consumer that lives leaves nothing */
        :: else -> break
        od;
        p = 0;
        do                                                       /* each that lives got everything in, if somebody took it out */
        :: p < PRODUCERS ->
            assert(delivered[p] == committed[p]);
            assert(committed[p] == MESSAGES || (dead & BIT(NAME(p))) || CONSUMERS_ARE_DEAD);
            p++
        :: else -> break
        od;
        p = 0;
        do                                                       /* nothing leaked but what a living producer holds */
        :: p < BLOCKS -> assert(tag[p] == FREE || (tag[p] <= PRODUCERS && !(dead & BIT(tag[p])) && CONSUMERS_ARE_DEAD && tag[p] != ARENA)); p++
        :: else -> break
        od
    }
}
