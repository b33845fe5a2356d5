/* SPDX-License-Identifier: MIT */
/* run-model: cc=-DCOLLAPSE pan=-E pan=-m300000 */
/*
 * The event count and the wait loop: src/sync/event.h (W1 … W4, S1 … S4), bri_wait and bri_event_signal_slow in event.c, bri_futex_wait with two
 * words (futex_waitv), bri_obituary_publish.
 *
 * The condition is a token: each waker makes one and wakes one, each waiter takes one.  GIVE_BACK: one token that is there from the start and
 * that each waiter gives back: a mutex.  Waiter 0 has a deadline that may pass at any time, the others wait for ever.  Anybody dies between any
 * two steps, the first undertaker too; the second goes on.  Who is woken among the sleepers is open, a dead one that the kernel has not taken
 * out of its queue yet included; a sleeper may be woken while it is still on its way to the second word, or while its deadline passes.
 * Memory is sequentially consistent: that S1 is seen before S2 is read, and W1 before W2, is what the fences are for (BUG_NO_FENCE, BUG_NO_RECHECK).
 *
 * Two protocols for waking one:
 *   default    S3 leaves WAITING on (sequence + 1).  S5: when the kernel woke fewer than asked, sequence + 1 and WAITING off, if the word has not
 *              changed; S6: wakes all, who fell asleep in between.  No condition needs to know of it.
 *   PASS_ON    S3 turns WAITING off.  Whoever slept (called bri_event_sleep) and takes something wakes another, if something is left: as
 *              bri_queue_pass_on_messages does.  Each condition with more than one token must do so, else: BUG_WAITING_OFF.
 *
 * property     when nothing moves any more, no living waiter sleeps while there is a token
 *
 * runs: checked whole
 *   default                              2 waiters, 2 wakers, 1 death
 *   -DPASS_ON
 *   -DWAKERS=1 -DCRASHES=2               2 deaths, the undertaker's among them
 *   -DGIVE_BACK -DWAKERS=0 -DWAITERS=3   a mutex
 *   -DGIVE_BACK -DWAKERS=0 -DWAITERS=3 -DMUTEX_OFF   a mutex, whose S3 turns WAITING off and nobody passes on: one token needs no more
 *
 * mutations: an error must be found
 *   -DBUG_WAITING_OFF                    S3 turns WAITING off, nobody passes on: of two signals before the woken one is at W1 again, the second
 *                                        wakes nobody, though another sleeps and there are two tokens
 *   -DBUG_CLEAR_WITHOUT_WAKE             no S6
 *   -DBUG_NO_FENCE                       S2 reads the word before S1
 *   -DBUG_NO_RECHECK                     no W2
 *   -DBUG_NO_OBITUARY                    deaths wake nobody
 *   -DBUG_OBITUARY_KEY_LATE              the obituary is read after W2
 *   -DBUG_TIMEOUT_LEAVES                 who times out does not look again: it may have been woken for a token
 *   -DPASS_ON -DBUG_TIMEOUT_LEAVES
 *   -DPASS_ON -DBUG_NO_REARM             the woken one looks before W1
 *   -DPASS_ON -DBUG_ONLY_IF_SLEPT        passes on only if the kernel put it to sleep: a wake may hit it on its way there
 */
#ifndef WAITERS
#define WAITERS 2
#endif
#ifndef WAKERS
#define WAKERS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#define UNDERTAKERS 2
#define PARTICIPANTS (WAITERS + WAKERS + UNDERTAKERS)
#define BIT(p) (1 << (p))
#define WAITING 1
#ifdef GIVE_BACK
#define TOKENS 1
#else
#define TOKENS 0
#endif
#define HAS_DEADLINE(w) (w == 0)

byte word;                   /* sequence << 1 | WAITING */
byte obituary;
byte tokens = TOKENS;        /* the condition: there is one */

/* bits, one per participant: waiters, wakers, undertakers */
byte queued;                 /* the kernel: has an entry in the queue of the event word, */
byte queued_obituary;        /* of the obituary, */
byte woken;                  /* and was woken through one of them */
byte has;                    /* took a token: the owner word of the thing */
byte finished;
byte dead;
byte buried;
byte dying;                  /* participant + 1: only it moves, and only to its end */

inline look()                /* may change state: try to take; d_step or atomic around it */
{
    if
    :: tokens > 0 -> tokens--; has = has | BIT(me)
    :: else
    fi
}

/* bri_event_signal(e, 1): each step touches shared memory once */
inline signal()
{
    if
    :: !(word & WAITING)                                         /* S2 */
    :: d_step { word & WAITING -> seen = word };
       do
#if defined(PASS_ON) || defined(MUTEX_OFF) || defined(BUG_WAITING_OFF)
       :: d_step { word == seen -> word = seen + 1; seen = 0 };  /* S3: sequence + 1, WAITING off */
          wake_one();                                            /* S4 */
          count = 0;
          break
#else
       :: d_step { word == seen ->                               /* S3: sequence + 1, WAITING stays */
#ifndef BUG_NO_SEQUENCE
              seen = seen + 2;
#endif
              word = seen
          };
          wake_one();                                            /* S4 */
          if
          :: d_step { count == 0 && word == seen -> word = seen + 1; seen = 0 };          /* S5: nobody slept: sequence + 1, WAITING off */
#ifndef BUG_CLEAR_WITHOUT_WAKE
               d_step { woken = woken | queued; queued = 0 }     /* S6: those who fell asleep between S4 and S5 */
#endif
          :: d_step { else -> seen = 0; count = 0 }
          fi;
          break
#endif
       :: d_step { word != seen && (word & WAITING) -> seen = word }
       :: d_step { word != seen && !(word & WAITING) -> seen = 0 } break
       od
    fi
}

inline wake_one()
{
    atomic {
        count = 1;
        if
        :: queued & 1 -> queued = queued & ~1; woken = woken | 1
        :: queued & 2 -> queued = queued & ~2; woken = woken | 2
        :: queued & 4 -> queued = queued & ~4; woken = woken | 4
        :: else -> count = 0
        fi
    }
}

proctype Waiter(byte me) provided (dying == 0 || dying == _pid)
{
    byte key, obit, seen, count;
    bool timed_out, slept;

    {
        atomic {                                                 /* the look that costs nothing when there is one */
            look();
            if
            :: has & BIT(me) -> goto out
            :: else
            fi
        };
again:
#ifdef BUG_NO_REARM
        atomic {
            if
            :: slept ->
                look();
                if
                :: has & BIT(me) -> goto out
                :: else
                fi
            :: else
            fi
        };
#endif
        obit = obituary;                                         /* before the condition */
        d_step { word = word | WAITING; key = word };            /* W1 */
        atomic {                                                 /* W2 */
#ifndef BUG_NO_RECHECK
            look();
#endif
            if
            :: (has & BIT(me)) || timed_out -> key = 0; obit = 0; goto out
            :: else
            fi
        };
#ifdef BUG_OBITUARY_KEY_LATE
        obit = obituary;
#endif
        atomic {                                                 /* W3: into the queue of the event word … */
            if
            :: word == key -> key = 0; queued = queued | BIT(me)
            :: else -> key = 0; obit = 0; goto again
            fi
        };
#ifndef BUG_NO_OBITUARY
        atomic {                                                 /* … and of the obituary (futex_waitv) */
            if
            :: obituary == obit -> obit = 0; queued_obituary = queued_obituary | BIT(me)
            :: else ->                                           /* may have been woken all the same */
#ifndef BUG_ONLY_IF_SLEPT
                slept = true;
#endif
                obit = 0; queued = queued & ~BIT(me); woken = woken & ~BIT(me); goto again
            fi
        };
#endif
        atomic {
            if
            :: woken & BIT(me)
            :: HAS_DEADLINE(me) -> timed_out = true
            fi;
            slept = true;
            queued = queued & ~BIT(me); queued_obituary = queued_obituary & ~BIT(me); woken = woken & ~BIT(me);
#ifdef BUG_TIMEOUT_LEAVES
            if
            :: timed_out -> goto out
            :: else
            fi;
#endif
            goto again                                           /* W4 */
        };
out:
#ifdef PASS_ON
        if
        :: d_step { (has & BIT(me)) && slept && tokens > 0 -> slept = false; timed_out = false };
           signal()                                              /* there is more than I took */
        :: d_step { else -> slept = false; timed_out = false }
        fi;
#endif
#ifdef GIVE_BACK
        if
        :: d_step { has & BIT(me) -> has = has & ~BIT(me); tokens++ }; signal()
        :: else
        fi;
#endif
        atomic { slept = false; timed_out = false; finished = finished | BIT(me) }
    } unless {
        d_step { dying == me + 1 -> dead = dead | BIT(me); dying = 0; key = 0; obit = 0; seen = 0; count = 0; timed_out = false; slept = false }
    }
}

proctype Waker(byte me) provided (dying == 0 || dying == _pid)
{
    byte seen, count;

    {
#ifdef BUG_NO_FENCE
        if                                                       /* S2's load before S1 */
        :: !(word & WAITING) -> tokens++
        :: word & WAITING -> tokens++; signal()
        fi;
#else
        tokens++;                                                /* S1 */
        signal();
#endif
        finished = finished | BIT(me)
    } unless {
        d_step { dying == me + 1 -> dead = dead | BIT(me); dying = 0; seen = 0; count = 0 }
    }
}

/* bri_undertake, as far as it concerns waiting */
proctype Undertaker(byte me) provided (dying == 0 || dying == _pid)
{
    byte d;

    {
        me == WAITERS + WAKERS || (dead & BIT(WAITERS + WAKERS));  /* the second when the first has died */
        do
        :: d_step {
               dead & ~buried ->
               do
               :: !(dead & ~buried & BIT(d)) -> d++
               :: else -> break
               od;
               queued = queued & ~BIT(d); queued_obituary = queued_obituary & ~BIT(d); woken = woken & ~BIT(d);
#ifdef GIVE_BACK
               if                                                /* mourn: what it held is free again */
               :: has & BIT(d) -> has = has & ~BIT(d); tokens++
               :: else
               fi;
#endif
               buried = buried | BIT(d);                         /* the worst place: before the obituary */
               d = 0
           };
#ifndef BUG_NO_OBITUARY
           obituary++;                                           /* bri_obituary_publish */
           d_step { woken = woken | queued_obituary; queued_obituary = 0 }
#endif
        od
    } unless {
        d_step { dying == me + 1 -> dead = dead | BIT(me); dying = 0 }
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
           :: v < PARTICIPANTS - 2 -> v++                        /* the last undertaker is immortal */
           :: break
           od;
           if
           :: !((dead | finished) & BIT(v)) -> dying = v + 1; left--; v = 0
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
        :: p < WAITERS -> run Waiter(p); p++
        :: p >= WAITERS && p < WAITERS + WAKERS -> run Waker(p); p++
        :: p >= WAITERS + WAKERS && p < PARTICIPANTS -> run Undertaker(p); p++
        :: p == PARTICIPANTS -> break
        od;
        run Reaper();
        p = 0
    };
    timeout -> assert(tokens == 0 || ((finished | dead) & (BIT(WAITERS) - 1)) == BIT(WAITERS) - 1)
}
