/* SPDX-License-Identifier: MIT */
/* run-model: cc=-DCOLLAPSE pan=-E pan=-m300000 */
/*
 * The claim of chunks and what the undertaker does about a worker's death: src/pool/job.h (J1 … J8), pool.h (F1, F2), claim.c, mourn.c,
 * submit.c (withdraw, is_visited).
 *
 * Modelled: one job; its chunk words, counts, `cancel`, resume records, attempts, outcomes DIED; the seats' visiting, chunk and progress; the ring's entry and head
 * and the list of returns with its counter `again`; completion by whoever finds the sum full; cancelling; the owner taking the memory back.
 * Workers die between any two steps of a visit, the first undertaker between any two of its own; a new worker sits down in a seat
 * whose last holder is wholly undertaken.  One step is one access to shared memory, or several of which others see only one.
 * Left out: which chunk is tried first, more jobs than one, results and failures as memory, sleeping (wait.pml): the owner sleeps on one bit
 * that a signal and the obituary set.
 *
 * properties   no item runs twice, but for attempts that were counted; a stopped job is complete though nobody
 *              claims in it any more; at the moment of completion each chunk is DONE or CANCELLED, and each item has one outcome: DIED exactly
 *              when it was running at a death and had no attempt left, CANCELLED only when it never began, else a value;
 *              the owner learns of the completion; nobody touches the job's memory once it is freed; the undertaker's word is free at the end
 *
 * runs: checked whole
 *   default                              2 workers, 2 chunks of 2 items, 1 death
 *   -DCANCEL -DITEMS=1                   the owner cancels meanwhile
 *   -DSTOP -DITEMS=1                     and has nothing of it run any more
 *   -DCHUNKS=1 -DCRASHES=2               2 deaths, the undertaker's among them
 *   -DCHUNKS=1 -DCRASHES=2 -DRETRIES=1   an item whose worker died is tried again once
 *
 * mutations: an error must be found
 *   -DBUG_TWO_STORES                     J8: count and last chunk by a store each
 *   -DBUG_SUM_BEFORE_COUNT               J8's store and the sum's loads not sequentially consistent
 *   -DBUG_PROGRESS_STAYS -DCRASHES=2     no J3: the last chunk's progress is taken for this one's
 *   -DBUG_STALE_CHUNK                    J2: W.chunk is another job's
 *   -DBUG_NO_SECOND_LOOK                 J2: does not look again whether the job is still offered
 *   -DBUG_NO_RESUME                      the chunk begins anew
 *   -DBUG_CHUNK_STAYS -DCHUNKS=1 -DCRASHES=2    W.chunk is left as it was when the chunk goes back to FREE: another worker finishes the chunk,
 *                                        and the next undertaker takes it for done but not counted
 *   -DBUG_OFFERS_ALWAYS                  puts the job among the returns though the dead had claimed nothing in it: it may be complete,
 *                                        and the owner through with its own look at the returns
 *   -DBUG_AGAIN_LATE                     `again` + 1 after FREE only: the owner that sees 0 does not look at the returns
 *   -DBUG_UNDERTAKER_DOES_NOT_SUM        leaves the completion to the workers
 *   -DBUG_EARLY_SEAT                     a new worker sits down before the undertaker is through
 *   -DBUG_CANCEL_STORES -DCANCEL -DITEMS=1      cancels by load and store
 *   -DBUG_SUM_WHEN_CANCELLED -DCANCEL -DITEMS=1 the sum of counts is asked though chunks were cancelled
 *   -DBUG_COUNTS_TWICE -DCHUNKS=1 -DCRASHES=2 -DRETRIES=1   a second undertaker counts the same death as another attempt
 */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef CHUNKS
#define CHUNKS 2
#endif
#ifndef ITEMS
#define ITEMS 2              /* of a chunk */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef RETRIES
#define RETRIES 0
#endif
#ifdef STOP
#define CANCEL
#endif
#define BIT(p) (1 << (p))
#define MORTALS (WORKERS + 1) /* workers, an undertaker; another undertaker goes on */
#define NONE 255
#define FREE 0               /* chunk words; seat + 1: claimed */
#define CANCELLED 254
#define DONE 255
#define VISITS 1
#define VALID 2
#define FIRST(c) ((c) * ITEMS)
#define END(c) (((c) + 1) * ITEMS)

/* the job */
byte chunk_word[CHUNKS];
byte resume[CHUNKS];         /* the item that the chunk goes on with; 0: none */
byte counts[WORKERS];        /* chunks done << 4 | last chunk + 1 */
bool cancel;                 /* not NONE */
bool is_stopped;                /* at RUNNING */
byte attempts[CHUNKS * ITEMS];
byte counted;                /* the dead whose death is among the attempts: a bit per participant */
byte died;                   /* failures: DIED, a bit per item */
bool complete;
bool offered = true;         /* the ring's entry is this job */
bool passed;                 /* the ring's head is beyond it: it is found among the returns only */
bool returned;               /* an entry of the returns is this job */
byte again;                  /* counts what was put among the returns */

/* seats */
byte visiting[WORKERS];
byte chunk[WORKERS] = NONE;
byte progress[WORKERS];      /* item << 1 | RUNNING */

/* bits per participant: workers, undertakers */
byte undertaker;             /* owner word: participant + 1 */
byte dead;
byte buried;
byte dying;

bool rung = true;            /* the owner's event and the obituary, see wait.pml */

/* ghosts */
byte began, value;           /* a bit per item */
byte falls[CHUNKS * ITEMS];  /* workers killed in the item */
bool freed, finished;

#define TOUCH assert(!freed) /* the job's memory */
#define LAST(count) ((count) & 15)

inline check_outcomes()
{
    d_step {
        i = 0;
        do
        :: i < CHUNKS * ITEMS ->
            assert(falls[i] <= RETRIES + 1);
#ifndef STOP
            assert(((died & BIT(i)) != 0) == (falls[i] == RETRIES + 1));
            assert(attempts[i] == (falls[i] < RETRIES -> falls[i] : RETRIES));
#endif
            assert(chunk_word[i / ITEMS] == DONE || chunk_word[i / ITEMS] == CANCELLED);
            if
            :: died & BIT(i) -> assert(began & BIT(i))
            :: else ->
                if
                :: chunk_word[i / ITEMS] == CANCELLED && i >= resume[i / ITEMS] -> assert(!(began & BIT(i)))
                :: else -> assert(value & BIT(i))
                fi
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

#define HAS_ENDED(c) (chunk_word[c] == DONE || chunk_word[c] == CANCELLED)

/* bri_job_complete_if_counted: a sum, or a walk through the table, that is not one step; CAS; signal */
inline complete_if_counted()
{
#ifdef CANCEL
#ifndef BUG_SUM_WHEN_CANCELLED
    if
    :: d_step { cancel -> TOUCH; sum = 0; i = 0 };
        do
        :: d_step { i < CHUNKS && HAS_ENDED(i) -> TOUCH; i++ }
        :: d_step { i < CHUNKS && !HAS_ENDED(i) -> i = CHUNKS + 1 }
        :: i >= CHUNKS -> break
        od;
        atomic { sum = (i == CHUNKS -> CHUNKS : 0); i = 0 };
        if
        :: atomic { sum == CHUNKS && !complete -> sum = 0; check_outcomes(); complete = true };
            rung = true
        :: d_step { else -> sum = 0 }
        fi
    :: d_step { !cancel -> TOUCH };
#endif
#endif
    d_step { TOUCH; sum = counts[0] >> 4 };
#if WORKERS > 2
    sum = sum + (counts[1] >> 4);
#endif
    if
    :: atomic {
           sum + (counts[WORKERS - 1] >> 4) == CHUNKS && !complete ->
           sum = 0;
           check_outcomes();
           complete = true
       };
       rung = true
    :: d_step { else -> sum = 0 }
    fi
#ifdef CANCEL
#ifndef BUG_SUM_WHEN_CANCELLED
    fi
#endif
#endif
}

inline count_chunk(seat, c)
{
#ifdef BUG_TWO_STORES
    counts[seat] = counts[seat] + 16;
    counts[seat] = (counts[seat] & 240) | (c + 1)
#else
    counts[seat] = ((counts[seat] & 240) + 16) | (c + 1)
#endif
}

proctype Worker(byte me) provided (dying == 0 || (dying & BIT(_pid - 1)))
{
    byte c, item, sum, seen, i;

    do
    :: {
        do
        :: d_step {
               (offered && !passed) || (returned && again != seen) -> seen = again
           };
            d_step {
#ifdef BUG_STALE_CHUNK
                chunk[me] = 0;                                   /* left from a chunk of another job */
#else
                chunk[me] = NONE;
#endif
                visiting[me] = VISITS                            /* J1 */
            };
            if
#ifdef BUG_NO_SECOND_LOOK
            :: true ->
#else
            :: offered || returned ->
#endif
                visiting[me] = VISITS | VALID;                   /* J2 */
                do
                :: d_step { c < CHUNKS && chunk_word[c] == FREE ->
                       TOUCH;
#ifndef BUG_PROGRESS_STAYS
                       progress[me] = 0                          /* J3 */
#endif
                   };
                   if
                   :: d_step { chunk_word[c] == FREE -> chunk_word[c] = me + 1 };  /* J4 */
#ifdef STOP
                       if
                       :: is_stopped -> d_step { chunk_word[c] = CANCELLED; c++ }; goto next_chunk
                       :: !is_stopped
                       fi;
#endif
                       d_step { chunk[me] = c; item = (resume[c] > FIRST(c) -> resume[c] : FIRST(c)) };  /* J5 */
                       do                                        /* J6 */
                       :: d_step { item < END(c) ->
                              progress[me] = item << 1 | 1;
                              assert(!(began & BIT(item)));      /* no item runs twice */
                              began = began | BIT(item)
                          };
                          d_step { TOUCH; value = value | BIT(item); item++; progress[me] = item << 1 }
                       :: d_step { item == END(c) ->
#ifdef BUG_SUM_BEFORE_COUNT                                      /* its own count is still in its store buffer */
                              sum = 1 + (counts[0] >> 4) + (counts[WORKERS - 1] >> 4);
#endif
                              chunk_word[c] = DONE; item = 0     /* J7 */
                          } break
                       od;
                       count_chunk(me, c);                       /* J8 */
                       c++;
next_chunk:
                       skip
                   :: d_step { chunk_word[c] != FREE -> c++ }
                   fi
                :: d_step { c < CHUNKS && chunk_word[c] != FREE -> TOUCH; c++ }
                :: d_step { c == CHUNKS -> c = 0; passed = true } break
                od;
#ifdef BUG_SUM_BEFORE_COUNT
                if
                :: sum == CHUNKS && !complete -> sum = 0; complete = true; rung = true
                :: else -> sum = 0
                fi;
#else
                complete_if_counted();
#endif
                visiting[me] = 0
#ifndef BUG_NO_SECOND_LOOK
            :: !offered && !returned -> visiting[me] = 0
#endif
            fi
        od
       } unless {
           d_step { dying & BIT(me) -> dying = 0; c = 0; item = 0; sum = 0; seen = 0; i = 0 };
#ifndef BUG_EARLY_SEAT
           d_step { buried & BIT(me) -> buried = buried & ~BIT(me); dead = dead & ~BIT(me) }  /* another sits down: a new name */
#endif
       }
    od
}

/* What the undertaker does about the job that the dead one visited. */
inline repair_job()
{
#ifdef BUG_OFFERS_ALWAYS
    d_step { TOUCH; returned = true };
#endif
    if
    :: d_step { chunk[d] != NONE && chunk_word[chunk[d]] == DONE && LAST(counts[d]) != chunk[d] + 1 -> TOUCH; c = chunk[d] };
       count_chunk(d, c);                                        /* J7 */
       c = 0
    :: else
    fi;
    do
    :: d_step { c < CHUNKS && chunk_word[c] != d + 1 -> c++ }
    :: d_step { c < CHUNKS && chunk_word[c] == d + 1 -> item = progress[d] >> 1 };
       if
#if RETRIES > 0
#ifdef BUG_COUNTS_TWICE
       :: d_step { (progress[d] & 1) && attempts[item] < RETRIES ->
#else
       :: d_step { (progress[d] & 1) && (attempts[item] < RETRIES || (counted & BIT(d))) ->
              if
              :: !(counted & BIT(d)) ->
#endif
                  attempts[item]++; counted = counted | BIT(d); began = began & ~BIT(item)
#ifndef BUG_COUNTS_TWICE
              :: else
              fi
#endif
          }
       :: d_step { (progress[d] & 1) && !(attempts[item] < RETRIES || (counted & BIT(d))) -> died = died | BIT(item); item++ }
#ifdef BUG_COUNTS_TWICE
       :: d_step { (progress[d] & 1) && (counted & BIT(d)) && attempts[item] >= RETRIES -> died = died | BIT(item); item++ }
#endif
#else
       :: d_step { progress[d] & 1 -> died = died | BIT(item); item++ }
#endif
       :: !(progress[d] & 1)
       fi;
       if
       :: progress[d] == 0 || item < END(c) ->
#ifndef BUG_NO_RESUME
           if
           :: progress[d] != 0 -> resume[c] = item
           :: else
           fi;
#endif
           d_step {                                              /* offer_again: while the chunk is claimed the job cannot be complete */
#ifndef BUG_OFFERS_ALWAYS
               returned = true;
#endif
#if !defined(BUG_AGAIN_LATE) && !defined(STOP)
               again++;                                          /* before FREE: the owner looks at the returns once it is not 0 */
#endif
               skip
           };
#ifndef BUG_CHUNK_STAYS
           chunk[d] = NONE;                                      /* before FREE: another may finish it, and count it */
#endif
           atomic { chunk_word[c] = FREE; item = 0 };
#ifdef STOP
           if
           :: d_step { is_stopped && chunk_word[c] == FREE -> chunk_word[c] = CANCELLED }
           :: !is_stopped || chunk_word[c] != FREE
           fi;
#endif
           c++
       :: else ->
           atomic { chunk_word[c] = DONE; item = 0 };
           count_chunk(d, c);
           c++
       fi
    :: d_step { c == CHUNKS -> c = 0 } break
    od;
    again++;                                                     /* after FREE, for those that looked before it */
#ifndef BUG_UNDERTAKER_DOES_NOT_SUM
    complete_if_counted()
#endif
}

proctype Undertaker(byte me) provided (dying == 0 || (dying & BIT(_pid - 1)))
{
    byte d, c, item, sum, i;

    {
        me == WORKERS || (dead & BIT(WORKERS));                  /* the second when the first has died: who is faster is not of interest */
        do
        :: d_step {                                              /* U1 */
               (dead & ~buried) && (undertaker == 0 || (dead & BIT(undertaker - 1))) -> undertaker = me + 1
           };
           do
           :: d_step {
                  dead & ~buried ->
                  d = 0;
                  do
                  :: !(dead & ~buried & BIT(d)) -> d++
                  :: else -> break
                  od
              };
              if
              :: d < WORKERS && (visiting[d] & VALID) -> repair_job(); visiting[d] = 0
              :: d_step { d < WORKERS && !(visiting[d] & VALID) -> visiting[d] = 0 }
              :: d >= WORKERS
              fi;
              atomic { buried = buried | BIT(d); counted = counted & ~BIT(d); d = 0 };
              rung = true                                        /* the obituary */
           :: d_step { !(dead & ~buried) -> undertaker = 0 } break
           od
        od
    } unless {
        d_step { dying & BIT(me) -> dying = 0; d = 0; c = 0; item = 0; sum = 0; i = 0 }
    }
}

proctype Owner() provided (dying == 0)
{
    byte c, sum, i;

#ifdef CANCEL
#ifdef STOP
    is_stopped = true;                                              /* brood_result_cancel_running */
#endif
    cancel = true;
    do                                                           /* brood_result_cancel */
    :: c < CHUNKS ->
#ifdef BUG_CANCEL_STORES
        if
        :: chunk_word[c] == FREE -> chunk_word[c] = CANCELLED
        :: else
        fi;
#else
        if
        :: d_step { chunk_word[c] == FREE -> chunk_word[c] = CANCELLED }
        :: chunk_word[c] != FREE
        fi;
#endif
        c++
    :: else -> break
    od;
    c = 0;
    complete_if_counted();
#endif
    do                                                           /* brood_result_wait */
    :: d_step { rung && !complete -> rung = false }
    :: d_step { rung && complete -> rung = false } break
    od;
limbo:
#ifdef STOP
    atomic { offered = false; returned = false; c = 0 };         /* F1; when it looks through the returns is left to the other runs, for memory */
#else
    atomic { offered = false; returned = returned && again == 0; c = 0 };  /* F1: looks through the returns if there ever was any */
#endif
    do                                                           /* F2 */
    :: c < WORKERS && visiting[c] == 0 -> c++
    :: c < WORKERS && visiting[c] != 0 -> visiting[c] == 0 -> goto limbo  /* looks again some time */
    :: else -> break
    od;
    atomic { freed = true; finished = true; c = 0 }
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
           :: !(dead & BIT(v)) && (v < WORKERS -> visiting[v] != 0 : undertaker == v + 1) ->  /* else it has nothing to do with the job */
               dying = BIT(v); dead = dead | BIT(v); left--;
               if
               :: v < WORKERS && (progress[v] & 1) && chunk_word[(progress[v] >> 1) / ITEMS] == v + 1 -> falls[progress[v] >> 1]++
               :: else
               fi;
               v = 0
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
        :: p < WORKERS -> run Worker(p); p++
        :: p >= WORKERS && p < WORKERS + 2 -> run Undertaker(p); p++
        :: else -> break
        od;
        run Owner();
        run Reaper();
        p = 0
    };
    timeout -> assert(finished && undertaker == 0)               /* the owner got its outcomes, and its memory back */
}
