/* SPDX-License-Identifier: MIT */
/* run-model: cc=-DCOLLAPSE pan=-E pan=-m300000 */
/*
 * Calls in the standing job: src/pool/standing.c (C1 … C6, L1 … L4), job.h, pool.h (F1, F2), claim.c, mourn.c.
 *
 * Modelled: the standing job and those that follow it once it is given up: word, round, ended, resumes, the failure; standing, again, the list of
 * returns; the seats' visiting and progress.  The owner makes calls one after the other, and frees what it has given up when nobody visits it.  Workers
 * listen, claim, run, leave after a task at their pleasure (tasks_per_worker), and die between any two steps; another sits down once the undertaker
 * is through.  The undertaker dies, too, and another begins from the top.  One step is one access to shared memory, or several of which others see one.
 * Left out: jobs of the ring (claim.pml), sleeping (wait.pml): here who waits for a word notices when it has come.
 *
 * properties   no call runs twice; when a call has ended, its outcome is DIED exactly when it was running at a death, else it has its value; nobody
 *              touches a job's memory once that is freed; all calls end
 *
 * runs: checked whole
 *   default                              2 workers, 2 calls, 1 death
 *   -DCALLS=3                            a round behind the death's
 *   -DWORKERS=1 -DCALLS=3 -DCRASHES=2    2 deaths, the undertaker's among them
 *
 * mutations: an error must be found
 *   -DBUG_NO_ARMING -DCALLS=3            C1 left out: who sees the round sees the DONE of the one before
 *   -DBUG_ENDED_STORED -DCALLS=3         `ended` is stored, whatever it was: who comes late takes it back
 *   -DBUG_RESUMES_STAY                   C6 does not look at resumes: the next call is taken for the one that has ended with its worker
 *   -DBUG_FAILURE_STAYS                  C6 does not forget the failure
 *   -DBUG_RETURNS_STAY -DWORKERS=1 -DCALLS=3 -DCRASHES=2   F1 does not look at the returns
 *   -DBUG_NO_SECOND_LOOK -DCALLS=3       L1 does not look again whether the job stands
 *   -DBUG_FREED_WHILE_LISTENED -DCALLS=3 F2 does not count those who listen
 *   -DBUG_LATE_VISIT                     L2 after J4: a claim of a seat that is said to listen, which the undertaker does not look for
 */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef CALLS
#define CALLS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#define JOBS CALLS           /* at most one for each */
#define NO_JOB JOBS
#define BIT(p) (1 << (p))
#define FREE 0               /* chunk words; seat + 1: claimed */
#define ARMING 253
#define DONE 255
#define VISITS 1             /* visiting: job << 3 | flags */
#define VALID 2
#define LISTEN 4
#define RUNNING 1            /* progress: 0: nothing has run */
#define RAN 2

byte word[JOBS] = ARMING;
byte round[JOBS], ended[JOBS];
bool resumes[JOBS], failure[JOBS];
bool returned[JOBS];         /* is among the returns */
byte standing = NO_JOB;
byte again;
byte visiting[WORKERS], progress[WORKERS];

byte dead, buried, dying;    /* bits: workers, the undertaker */

/* ghosts */
byte call;                   /* which one stands in the job, from C2 */
byte ran[CALLS], value, fell; /* value, fell: bits per call */
bool freed[JOBS], given_up[JOBS], finished;

#define TOUCH(j) assert(!freed[j])

/* bri_job_complete_if_counted; `mine`: the round as it was read */
inline complete(j)
{
    d_step { TOUCH(j); mine = round[j] };
    if
    :: d_step { ended[j] == mine -> TOUCH(j); mine = 0 }
    :: d_step { ended[j] != mine -> TOUCH(j) };
       if
       :: d_step { word[j] != DONE -> TOUCH(j); mine = 0 }
       :: d_step { word[j] == DONE -> TOUCH(j) };
#ifdef BUG_ENDED_STORED
          atomic { ended[j] = mine; mine = 0 }
#else
          d_step {
              TOUCH(j);
              if
              :: ended[j] == mine - 1 -> ended[j] = mine
              :: else
              fi;
              mine = 0
          }
#endif
       fi
    fi
}

proctype Worker(byte me) provided (dying == 0 || (dying & BIT(_pid - 1)))
{
    byte s = NO_JOB, mine, seen;
    bool by_returns;

    do
    :: {
        do
        :: d_step { standing != NO_JOB -> s = standing };
           visiting[me] = s << 3 | VISITS;                       /* L1: J1 */
           if
#ifdef BUG_NO_SECOND_LOOK
           :: true ->
#else
           :: standing == s ->
#endif
               visiting[me] = s << 3 | VISITS | VALID | LISTEN;  /* J2 */
               do
               :: d_step { word[s] == FREE -> TOUCH(s) };
#ifndef BUG_LATE_VISIT
                  visiting[me] = s << 3 | VISITS | VALID;        /* L2 */
#endif
                  progress[me] = 0;                              /* J3 */
                  if
                  :: d_step { word[s] == FREE -> TOUCH(s); word[s] = me + 1 };  /* J4 */
                     if
                     :: d_step { !resumes[s] ->
                            TOUCH(s);
                            progress[me] = RUNNING;              /* J6 */
                            assert(ran[call] == 0);              /* no call runs twice */
                            ran[call]++
                        };
                        d_step { TOUCH(s); value = value | BIT(call); progress[me] = RAN }
                     :: d_step { resumes[s] -> TOUCH(s) }
                     fi;
                     d_step { TOUCH(s); word[s] = DONE };        /* J7 */
                     complete(s);                                /* J8 */
                     if
                     :: true
                     :: complete(s); break                       /* leaves after this task, and another sits down */
                     fi
                  :: d_step { word[s] != FREE -> TOUCH(s) }
                  fi;
                  visiting[me] = s << 3 | VISITS | VALID | LISTEN
               :: d_step { standing != s -> TOUCH(s) };          /* L4 */
                  complete(s);
                  break
               od;
               atomic { visiting[me] = 0; s = NO_JOB }
#ifndef BUG_NO_SECOND_LOOK
           :: standing != s -> atomic { visiting[me] = 0; s = NO_JOB }
#endif
           fi
        :: d_step { again != seen -> seen = again };             /* looks through the returns */
           d_step {
               s = 0;
               do
               :: s < JOBS && !returned[s] -> s++
               :: else -> break
               od
           };
           if
           :: s != NO_JOB ->
               visiting[me] = s << 3 | VISITS;
               if
               :: returned[s] ->
                   visiting[me] = s << 3 | VISITS | VALID;
                   if
                   :: d_step { word[s] == FREE -> TOUCH(s); progress[me] = 0 };
                      if
                      :: d_step { word[s] == FREE -> TOUCH(s); word[s] = me + 1 };
                         if
                         :: d_step { !resumes[s] ->
                                TOUCH(s); progress[me] = RUNNING; assert(ran[call] == 0); ran[call]++ };
                            d_step { TOUCH(s); value = value | BIT(call); progress[me] = RAN }
                         :: d_step { resumes[s] -> TOUCH(s) }
                         fi;
                         d_step { TOUCH(s); word[s] = DONE }
                      :: d_step { word[s] != FREE -> TOUCH(s) }
                      fi
                   :: d_step { word[s] != FREE -> TOUCH(s) }
                   fi;
                   complete(s)
               :: !returned[s]
               fi;
               atomic { visiting[me] = 0; s = NO_JOB }
           :: s == NO_JOB
           fi
        od
       } unless {
           d_step { dying & BIT(me) -> dying = 0; s = NO_JOB; mine = 0; seen = 0 };
           d_step { buried & BIT(me) -> buried = buried & ~BIT(me); dead = dead & ~BIT(me) }
       }
    od
}

/* mourn_visit, of the dead one `d` in the job `s` */
inline repair()
{
    if
    :: d_step { word[s] == d + 1 -> TOUCH(s) };
       if
       :: progress[d] == 0 ->                                    /* FREE again */
           d_step { returned[s] = true; again++ };
           d_step { TOUCH(s); word[s] = FREE }
       :: progress[d] != 0 ->
           if
           :: d_step { progress[d] == RUNNING -> TOUCH(s); failure[s] = true }
           :: progress[d] != RUNNING
           fi;
           d_step { TOUCH(s); resumes[s] = true };
           d_step { TOUCH(s); word[s] = DONE }
       fi
    :: d_step { word[s] != d + 1 -> TOUCH(s) }
    fi;
    again++;
    complete(s)
}

proctype Undertaker() provided (dying == 0 || (dying & BIT(_pid - 1)))
{
    byte d, s = NO_JOB, mine;

    do
    :: {
        do
        :: d_step {
               (dead & ~buried) & (BIT(WORKERS) - 1) ->
               d = 0;
               do
               :: !(dead & ~buried & BIT(d)) -> d++
               :: else -> break
               od
           };
           if
           :: d_step { (visiting[d] & VALID) && !(visiting[d] & LISTEN) -> s = visiting[d] >> 3 };
              repair();
              s = NO_JOB
           :: !(visiting[d] & VALID) || (visiting[d] & LISTEN)
           fi;
           visiting[d] = 0;
           atomic { buried = buried | BIT(d); d = 0 }
        od
       } unless {
           d_step { dying & BIT(WORKERS) -> dying = 0; dead = dead & ~BIT(WORKERS); d = 0; s = NO_JOB; mine = 0 }
       }
    od
}

proctype Owner() provided (dying == 0)
{
    byte s = NO_JOB, made, at;

    do
    :: at < CALLS ->
        if
        :: s == NO_JOB -> d_step { s = made; made++ }; standing = s
        :: s != NO_JOB
        fi;
#ifndef BUG_NO_ARMING
        word[s] = ARMING;                                        /* C1 */
#endif
        call = at;                                               /* C2 */
        round[s] = round[s] + 1;                                 /* C3 */
        word[s] = FREE;                                          /* C4 */
        ended[s] == round[s];                                    /* C5 */
        d_step {
            assert(word[s] == DONE);
            assert(failure[s] == ((fell & BIT(at)) != 0));
            assert(failure[s] || (value & BIT(at)))
        };
#ifdef BUG_FAILURE_STAYS
        if
        :: resumes[s] && at + 1 < CALLS -> resumes[s] = false
        :: else
        fi;
#endif
        if                                                       /* C6 */
#ifdef BUG_RESUMES_STAY
        :: true -> failure[s] = false
#else
#ifdef BUG_FAILURE_STAYS
        :: !resumes[s]
#else
        :: !resumes[s] -> failure[s] = false
#endif
        :: resumes[s] ->
           standing = NO_JOB;                                    /* F1 */
#ifndef BUG_RETURNS_STAY
           returned[s] = false;
#endif
           atomic { given_up[s] = true; s = NO_JOB }
#endif
        fi;
        at++
    :: else -> break
    od;
    atomic { finished = true; at = 0 }
}

#ifdef BUG_FREED_WHILE_LISTENED
#define VISITED(w, j) ((visiting[w] & VISITS) && !(visiting[w] & LISTEN) && (visiting[w] >> 3) == j)
#else
#define VISITED(w, j) ((visiting[w] & VISITS) && (visiting[w] >> 3) == j)
#endif

/* The owner's limbo: F2, looks again some time */
proctype Limbo(byte j) provided (dying == 0)
{
    byte w;

    given_up[j];
look:
    do
    :: w < WORKERS && !VISITED(w, j) -> w++
    :: w < WORKERS && VISITED(w, j) -> !VISITED(w, j) -> w = 0; goto look
    :: else -> break
    od;
    atomic { freed[j] = true; w = 0 }
}

proctype Reaper()
{
    byte left = CRASHES, v;

    do
    :: atomic {
           left > 0 && dying == 0 && !finished ->
           v = 0;
           do
           :: v < WORKERS -> v++
           :: break
           od;
           if
           :: !(dead & BIT(v)) && (v < WORKERS -> visiting[v] != 0 : (dead & ~buried) != 0) ->
               dying = BIT(v); dead = dead | BIT(v); left--;
               if
               :: v < WORKERS && progress[v] == RUNNING && (visiting[v] & VALID) && word[visiting[v] >> 3] == v + 1 -> fell = fell | BIT(call)
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
        :: else -> break
        od;
        run Undertaker();
        run Owner();
        p = 0;
        do
        :: p < JOBS -> run Limbo(p); p++
        :: else -> break
        od;
        run Reaper();
        p = 0
    };
    timeout -> assert(finished)                                  /* all calls have ended */
}
