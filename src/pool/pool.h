/* SPDX-License-Identifier: MIT */
/*
 * A pool: owner → supervisor → workers.
 *
 *   owner       submits jobs: the only writer of ring entries and tail.  Waits on job events.
 *   supervisor  forks workers, reaps them, replaces the dead, ends everything when the owner is gone.  One thread, no user code.
 *   worker      takes chunks of jobs (job.h) until it is told to leave.
 *
 * ring:   entry i & (BRI_RING - 1) holds the job of the i-th submission, or 0 when the owner has taken it back.
 *         head ≤ i < tail: there may be FREE chunks.   head: CAS by any worker that found none in the job at head.   tail: the owner
 *
 * state:  RUNNING --owner--> CLOSING --owner--> TERMINATING          (CLOSING may be left out)
 *            |                  |                   |
 *            +------------------+-- supervisor -----+--> BROKEN (reason), ENDED: no worker is left
 *
 * Freeing a job (owner)                       Visiting it (worker)
 *   F1  entry = 0, if it is still in the ring    J1  visiting = job
 *   F2  fence; no seat visits the job?           J2  entry is still the job and head ≤ i?  Else leave.
 *       else it waits in limbo
 * Either the worker sees the entry gone (or head beyond it), or the owner sees the visit (both sequentially consistent).
 * Limbo is the owner's own: it looks there when it offers or frees a job, in its waits, and before its own allocations fail.
 *
 * The standing job (standing.c) is in no ring: `standing` is its entry, F1 makes that 0.  Workers visit it while they have nothing else to do.
 *
 * Other looks at jobs are visits too, with a word of their own for `visiting`, and the entry in question for the ring's: `looking`, the
 * supervisor's (deadlines, cancels); `replacing`, the undertaker's (is that job on the list of returns complete?).
 *
 * returns:   jobs with chunks that a dead worker gave back.  Written by the undertaker, emptied of complete jobs by the undertaker and, in F1, by
 *            the owner when it frees a job.   again: 0 until something has been put there; + 1 before and after a chunk is FREE again
 *   A job is put there while a dead one's claim keeps it from being complete, so before F1: F1 finds it, and no entry outlives its job.
 *
 * death table
 *   worker       job.h; the supervisor reaps it, notes how it ended in the seat, buries it, and starts another
 *   supervisor   its workers die with it (PR_SET_PDEATHSIG).  The owner, whose waits look at the supervisor at least every 800 ms and at
 *                each obituary, starts another one, which first buries the workers of its predecessor
 *   owner        the supervisor kills the workers and all children they left, passes on what they and the owner held, and ends
 *   all at once  the memory goes with the last of them
 *
 * Damage (arena.h).  Owner and supervisor have their own copies of what they alone write: how many workers there are, who the supervisor is,
 * tail, the workers' pids and names, options.  Nobody reads where seats, returns and ring lie: they follow each other.  What is shared by nature
 * (states, visits, chunks, counts) may be written over so that a job never completes.  Its owner sees that in its waits: no seat visits the job (to
 * listen is not enough), and it is neither in the ring, or standing, nor among the returns with a FREE chunk.  In a pool that is whole this lasts
 * for no moment: a worker visits until it has looked whether the job is complete, and the undertaker puts a job among the returns before it ends
 * the dead one's visit.  Seen in three slices in a row, or with a head that is not within the ring's length of tail, the pool is broken: DAMAGE,
 * -ENOTRECOVERABLE.
 */
#ifndef BRI_POOL_H
#define BRI_POOL_H

#include <pthread.h>
#include <signal.h>

#include "plat/modules.h"
#include "pool/doorbell.h"
#include "pool/job.h"

enum bri_pool_state {
    BRI_POOL_RUNNING,
    BRI_POOL_CLOSING,
    BRI_POOL_TERMINATING,
    BRI_POOL_BROKEN, /* nothing runs any more, by its own fault: reason */
    BRI_POOL_ENDED
};

enum bri_pool_reason {
    BRI_REASON_NONE,
    BRI_REASON_INITIALIZER,
    BRI_REASON_DEATHS,
    BRI_REASON_RESOURCES,
    BRI_REASON_SUPERVISOR,
    BRI_REASON_START,
    BRI_REASON_DAMAGE
};

#define BRI_RING (UINT64_C(1) << 16)
/* In a seat's `visiting`; block offsets are multiples of 64. */
#define BRI_VISIT_VALID  UINT64_C(1)
#define BRI_VISIT_LISTEN UINT64_C(2) /* of the standing job, in which it has claimed nothing */
#define BRI_VISIT_FLAGS  UINT64_C(3)
#define BRI_RETURNS      1024u /* jobs that have lost a worker and are not complete, at once */
enum {                         /* exit codes between worker and supervisor */
       BRI_INITIALIZER_FAILED = 120,
       BRI_CONDEMNED = 122, /* it has ended the item that it was told to, and so itself */
};

/* Two cache lines: what the worker writes at every chunk, and the rest. */
struct bri_seat_shm {
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t visiting; /* the worker; 0 by the undertaker */
    _Atomic uint64_t chunk;                             /* the worker */
    _Atomic uint64_t items; /* that this seat's workers have finished, all in all; the worker */
    _Atomic int64_t
        ends_at; /* when the item that runs is to end, BROOD_FOREVER; the worker, before the item is RUNNING */
    _Alignas(BRI_CACHE_LINE) _Atomic bri_name name; /* the supervisor, before the fork */
    _Atomic int32_t pid;      /* the supervisor and the worker, whoever comes to it first */
    _Atomic uint32_t started; /* the worker: 1 once its initializer is through */
    _Atomic uint32_t deaths;  /* the supervisor */
    _Atomic bri_offset
        spare_failure; /* for the outcome DIED: the supervisor fills it, the undertaker takes it */
    _Atomic bri_offset spare_resume;
    _Atomic uint64_t
        verdict; /* progress word of the item that has to end, see enforce.h; the supervisor, while the worker is stopped */
    _Atomic uint32_t verdict_kind; /* enum bri_verdict; before it */
    uint32_t phase;                /* of its end, enum bri_phase; the supervisor's own, as the next three */
    int64_t phase_ends;
    _Atomic uint32_t
        cause; /* of the worker's death, enum brood_cause; the supervisor, before it buries the worker */
    _Atomic uint64_t peak_bytes; /* of its memory; as cause */
    uint64_t looked_at;          /* the job in whose cause it was stopped last, and found without a claim */
    uint32_t looked_at_number;
    uint64_t born_ns, items_at_birth; /* the supervisor's own */
    uint32_t is_closed;               /* the supervisor's own: its worker left since nothing more was to do */
};

struct bri_return_shm {
    _Atomic bri_offset job;
};

/* One block: | bri_pool_shm | returns | ring | seats |. */
struct bri_pool_shm {
    bri_name owner;
    uint32_t workers, grace_ms, tasks_per_worker;
    int soft_signal; /* before SIGTERM; 0: none */
    uint32_t max_cpu_seconds, max_open_files;
    uint64_t max_memory_bytes; /* 0: none, as of these two */
    uint64_t seed;             /* of the tasks' random numbers; 0: none */
    struct bri_doorbell_shm doorbell;
    _Atomic uint32_t state;      /* above; by CAS, forward only */
    _Atomic uint32_t reason;     /* supervisor or owner, before BROKEN */
    _Atomic int32_t detail;      /* of the reason: the initializer's value, an errno */
    _Atomic bri_name supervisor; /* the owner */
    _Atomic bri_name begun;      /* the supervisor, once it is at work */
    _Atomic uint32_t event;      /* signalled when a worker has started and at each change of state */
    _Alignas(BRI_CACHE_LINE) _Atomic uint32_t work; /* event: workers wait for jobs */
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t head;
    _Atomic uint32_t room; /* event: the owner waits for a place in the ring */
    _Atomic uint32_t
        open_streams; /* the owner: imaps whose iterator may give further items; a closed pool waits for them */
    _Atomic uint32_t finished; /* event: signalled when a job is complete */
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t tail;
    _Alignas(BRI_CACHE_LINE) _Atomic uint64_t again;   /* the undertaker */
    _Atomic bri_offset standing;                       /* the owner's standing job, or 0: see standing.c */
    _Alignas(BRI_CACHE_LINE) _Atomic int64_t wakes_at; /* the supervisor sleeps until then; see enforce.h */
    _Atomic int64_t
        alarm_at; /* a job's deadline comes no earlier: CAS, downward by the owner, anew by the supervisor */
    _Atomic bri_offset looking; /* job that the supervisor looks at: a visit as those of the seats are (F2) */
    _Atomic bri_offset replacing; /* likewise, the undertaker; the next one clears it */
};

static inline struct bri_return_shm *bri_pool_return(struct bri_pool_shm *pool, uint32_t index)
{
    return (struct bri_return_shm *)(void *)(pool + 1) + index;
}

static inline _Atomic bri_offset *bri_pool_ring(struct bri_pool_shm *pool, uint64_t index)
{
    return (_Atomic bri_offset *)(void *)bri_pool_return(pool, BRI_RETURNS) + (index & (BRI_RING - 1));
}

static inline struct bri_seat_shm *bri_pool_seat(struct bri_pool_shm *pool, uint32_t index)
{
    return (struct bri_seat_shm *)(void *)(bri_pool_ring(pool, 0) + BRI_RING) + index;
}

static inline uint64_t bri_pool_bytes(uint32_t workers)
{
    return sizeof(struct bri_pool_shm) + BRI_RETURNS * sizeof(struct bri_return_shm) +
           BRI_RING * sizeof(bri_offset) + workers * sizeof(struct bri_seat_shm);
}

static inline enum bri_pool_state bri_pool_state_of(struct bri_pool_shm *pool)
{
    return (enum bri_pool_state)bri_load_acquire(&pool->state);
}

/* Forward only; signals everybody.  True when this call moved it. */
int bri_pool_advance(struct bri_pool_shm *pool, enum bri_pool_state to);

static inline bri_offset bri_visit_job(uint64_t visiting)
{
    return visiting & ~BRI_VISIT_FLAGS;
}

/* A job that its handle has given up. */
struct bri_limbo {
    struct bri_job_view view;
    uint64_t index;
};

/* A worker as its supervisor knows it; pid 0: there is none. */
struct bri_post {
    pid_t pid;
    bri_name name;
};

/* The private half, in the owner; a supervisor's is a copy by fork, or made from the ticket. */
struct brood_pool {
    struct bri_pool_shm *shared;
    bri_name owner;
    _Atomic bri_name supervisor; /* the owner's; as in the shared half */
    pid_t supervisor_pid; /* the owner's: nobody else has this pid before its slot says that it has ended */
    uint64_t tail;        /* as in the shared half; with `lock` */
    int64_t
        next_offer; /* with `lock`: what lies in the ring is offered anew then, should the words be damaged */
    _Atomic uint32_t
        wanted; /* enum bri_pool_state that the owner has asked for: should the shared word be damaged, it asks again */
    struct bri_post *posts;      /* the supervisor's, one per worker */
    _Atomic uint32_t references; /* the handle, results, streams; and BRI_HOLD_STANDING */
    _Atomic uint32_t is_destroyed;
    pthread_mutex_t lock;         /* threads of the owner: submitting, limbo, restarting the supervisor */
    int supervisor_fd;            /* pidfd of the supervisor */
    struct bri_doorbell doorbell; /* its workers have it too */
    uint32_t supervisor_restarts, failed_starts; /* those that ended before they had begun, in a row */
    _Atomic uint32_t vain_looks,
        unlooked; /* by submissions, for a worker that takes the chunk: is_taken_soon.  A hint */
    struct bri_job_view
        standing;         /* of the thread that holds it, BRI_HOLD_STANDING; job NULL: there is none yet */
    int standing_is_left; /* the wait for its call was interrupted, and it may go on */
    char standing_constants[BRI_JOB_CONSTANTS]; /* of that job */
    _Atomic int64_t look_after_at;              /* polling asks after the supervisor from then on */
    struct bri_modules modules;                 /* where functions may lie */
    brood_pool_options options;
    brood_pool_hooks hooks;
    uint64_t
        code_shift; /* in a process that was exec'd: where functions lie, minus where they lie in the owner */
    sigset_t mask;  /* the workers' */
    struct bri_limbo *limbo;    /* to be freed once they are complete and nobody visits them */
    _Atomic size_t limbo_count; /* with `lock`; others look whether it is 0 */
    size_t limbo_room, limbo_next;
    brood_pool *next; /* list of live handles */
};

/* The shared half, as pool->options say: 0, -ENOMEM. */
int bri_pool_make_shared(brood_pool *pool);

/* The handle is one and this process made it: 0, -EINVAL, -EPERM. */
int bri_pool_check(const brood_pool *pool);

/* The handle is one, whosever; waits for nothing: when it cannot be found out at once, yes. */
int bri_pool_is_handle(const brood_pool *pool);
void bri_pool_hold(brood_pool *pool);
void bri_pool_drop(brood_pool *pool);

/* The same, and has the standing job for itself; 0: another thread has it. */
#define BRI_HOLD_STANDING (1u << 31)
int bri_pool_hold_standing(brood_pool *pool);
void bri_pool_drop_standing(brood_pool *pool);

/* The pool can get no further: ENDED, BROKEN with no worker left.  Also starts a new supervisor when the old one has died.  For conditions. */
int bri_pool_is_over(brood_pool *pool);

/* Has it look at its pool now. */
void bri_pool_ring_supervisor(brood_pool *pool);

/* For waits, now and then: asks the kernel after the supervisor, as nobody else watches it, and frees jobs that were given up, as no worker can. */
void bri_pool_look_after(brood_pool *pool);

/* For those who poll instead of waiting: bri_pool_look_after, unless that was less than 10 ms ago; then no system call. */
void bri_pool_look_after_at_times(brood_pool *pool);

/* Why nothing goes on, as errno with the sentence: -ESHUTDOWN, -ENOTRECOVERABLE, -ECANCELED; 0: it runs.  */
int bri_pool_trouble(brood_pool *pool, int for_submission);

/* One item, few bytes, no options: runs it in the standing job, and copies its result.  What brood_pool_apply returns, or 1: nothing was done, it
 * takes a job of its own. */
int bri_pool_call(brood_pool *pool, const struct bri_job_wish *wish, void *result);

/* Are its constants what the owner has made them? */
int bri_standing_is_whole(const brood_pool *pool);

/* When the pool goes. */
void bri_standing_free(brood_pool *pool);

/* A single chunk was offered, and is awaited or somebody sleeps: will a worker that is awake take it, so that none has to be woken?  Waits some
 * microseconds for that.  tail: the pool's, when it was offered. */
int bri_pool_is_taken_soon(brood_pool *pool, struct bri_job_view *view, uint64_t tail);

/* Offers the job to the workers, and leaves it to the caller to wake one; the pool keeps it until bri_pool_take_back.  -ESHUTDOWN,
 * -ENOTRECOVERABLE. */
#define BRI_STANDING (UINT64_MAX - 1) /* the index of the standing job */
int bri_pool_offer(brood_pool *pool, const struct bri_job_view *view, uint64_t *ret_index);
void bri_pool_take_back(brood_pool *pool, const struct bri_job_view *view, uint64_t index);

/* Is there nobody who could ever finish the job that was offered with this index, for damage?  A snapshot: see above. */
int bri_pool_has_lost(brood_pool *pool, const struct bri_job_view *view, uint64_t index);

/* Breaks the pool: what waits ends with -ENOTRECOVERABLE. */
void bri_pool_declare_damaged(brood_pool *pool);

/* Frees the jobs that were given up and that nobody claims in any more. */
void bri_pool_sweep(brood_pool *pool);
void bri_pool_sweep_some(brood_pool *pool);
void bri_pool_sweep_unless_busy(brood_pool *pool);

/* The pool may be given jobs of this function: 0, or the error of a submitting function. */
int bri_pool_check_function(brood_pool *pool, brood_function *function);

/* supervisor.c: for bri_fork_detached; argument: struct bri_supervise. */
struct bri_supervise {
    brood_pool *pool;
    bri_name name;
};
void bri_supervisor_main(void *supervise);

/* Their supervisor was killed, and they die with it: waits for that and buries them. */
void bri_pool_bury_workers(brood_pool *pool);

/* An empty seat for a new worker of a name of its own: -EAGAIN, -ENOMEM. */
int bri_seat_give(struct bri_seat_shm *seat, bri_name owner, bri_name *ret_name);

/* worker.c: the life of a worker, after it has entered the arena. */
_Noreturn void bri_worker_main(brood_pool *pool, uint32_t index);

/* Of a worker, see limits.h; all 0: none. */
struct bri_limits {
    uint64_t memory_at_birth, max_memory_bytes;
    uint32_t max_cpu_seconds;
};

/* claim.c */
struct bri_claim {
    struct bri_pool_shm *pool;
    struct bri_seat_shm *seat;
    _Atomic uint64_t *progress, *claims; /* of the worker's slot */
    uint32_t worker;
    struct bri_job_shm *job; /* the job being visited, or NULL */
    uint64_t chunk;          /* the chunk claimed */
    uint64_t index;          /* where the visit is: of the ring; BRI_STANDING; BRI_NO_CHUNK: of the returns */
    uint64_t own_next;       /* next chunk of the own share to try */
    uint64_t own_end;        /* behind the own share */
    uint32_t victim;         /* whose share is being taken from */
    uint64_t victim_begin;   /* its first chunk */
    uint64_t victim_left;    /* chunks of it still to be tried, from its far end */
    uint64_t seen_again;     /* returns looked through at this count */
    struct bri_limits limits;
};
enum { BRI_CLAIMED = 1, BRI_LEAVE = 2 };
/* A condition for bri_wait: BRI_CLAIMED, BRI_LEAVE, or 0. */
int bri_claim_any(void *claim);
/* J6, in worker.c: runs the items of the chunk that is claimed; how many these are. */
uint64_t bri_worker_run_chunk(brood_pool *pool, struct bri_claim *claim);
/* J7, J8. */
void bri_claim_done(struct bri_claim *claim);

/* mourn.c */
extern const struct bri_kind_ops bri_pool_ops;

#endif
