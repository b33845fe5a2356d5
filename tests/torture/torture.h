/* SPDX-License-Identifier: MIT */
/*
 * The C part of the fault campaign: what its files share.
 *
 *   program = rounds until time and faults are enough;   round = a part of the campaign, played by a process of its own
 *
 * The *warden* is the program's first process.  It starts a *controller* for each round, in a session of its own, so that whatever a round
 * leaves behind can be found; it sees to it that no round hangs, and now and then it kills the controller with all that is its.  The
 * controller has an arena, makes objects, fills seats, lets faults happen, stops everything, counts and destroys.
 *
 * A *seat* is a place for one process at a time.  Half of them are forked by hand, so that nobody watches them and the others have to find
 * out; half are brood_processes.  What a seat notes down lies in memory that is shared but not the arena's, and outlives its process: so
 * the books are kept by somebody whom the library cannot disturb.
 *
 * The same seed gives the same rounds, objects and victims.  Who runs when is the kernel's choice.
 */
#ifndef BROOD_TORTURE_H
#define BROOD_TORTURE_H

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "arena/roster.h"
#include "base/atomic.h"
#include "base/time.h"
#include "brood.h"
#include "heap/heap.h"

enum {
    SEATS_MAX = 32,
    ROUND_MS = 1300,
    WITHIN_MS = 30000,      /* whatever has an end */
    ENDS_WITHIN_MS = 20000, /* a process */
    GONE_WITHIN_MS =
        3000, /* all that is an owner's, after its end: promised is one second, of a machine that is not overloaded */
    HANGS_AFTER_MS = 120000 /* a round */
};

/* What is done to processes; fault_names in run.c. */
enum fault {
    KILL_PLAYER,
    KILL_HOLDER,
    KILL_PRODUCER,
    KILL_CONSUMER,
    KILL_KEEPER,
    KILL_UNDERTAKER,
    KILL_WORKER,
    KILL_SUPERVISOR,
    KILL_OWNER,
    STOP_PLAYER,
    STOP_WORKER,
    STOP_SUPERVISOR,
    CRASH_KILL,
    CRASH_FAULT,
    CRASH_ABORT,
    CRASH_STACK,
    CRASH_EXIT,
    CRASH_EXIT_AT_ONCE,
    LATE_ITEM,
    LATE_WHOLE,
    CANCEL,
    CANCEL_RUNNING,
    LIMIT_MEMORY,
    LIMIT_FILES,
    LIMIT_CPU,
    OOM_KILL,
    NO_ROOM,
    FAULTS
};

/* What must hold; check_names in run.c. */
enum check {
    HANGS,
    PROCESSES,
    LEAVINGS,
    CALLS,
    EXCLUSION,
    COUNTS,
    TOKENS,
    TICKETS,
    ARRIVALS,
    MEMORY,
    TAKEN,
    ORDER,
    CONTENT,
    OUTCOMES,
    ONCE,
    VALUES,
    DEATHS,
    CHECKS
};

/* What was checked: things, not assertions. */
enum tally { TASKS, MESSAGES, OPERATIONS, TALLIES };

struct seat_shm {
    _Atomic bri_name name; /* of the process in it, once it has joined */
    _Atomic pid_t pid;
    _Atomic uint32_t uncertain; /* what its call in progress may have done without a note of it */
    const char *_Atomic
        doing; /* for the one who looks at a hang; the string lies in the program, at the same address for all */
};

struct run_shm {
    _Atomic uint32_t complaints;
    _Atomic uint32_t failed[CHECKS];
    _Atomic uint64_t faults[FAULTS], tallies[TALLIES];
    _Atomic uint32_t stop;  /* the round is over: finish what you do, and leave */
    _Atomic uint32_t ready; /* the controller has made its objects */
    struct seat_shm seats[SEATS_MAX];
};

enum killed { ALIVE, KILLED, KILLED_RECOVERING /* noted as KILL_UNDERTAKER already */ };

struct seat {
    pid_t pid;              /* of the process in it; 0: it is empty */
    brood_process *process; /* or NULL: forked by hand */
    uint32_t life;          /* number of the process in it, unique in the round */
    int keeper_was_killed;
    enum killed killed;
    int64_t killed_at;
    pid_t stopped_pid;
    _Atomic int64_t stopped_until; /* or 0; then a thread of the controller's sends SIGCONT */
};

struct part {
    const char *name;
    uint64_t checks;          /* bits of enum check, besides those that the warden makes */
    void (*play_round)(void); /* the controller */
    /* Seats, if it has any: their number, the life of the process in one, and what the books have to know of: before a process is killed (may
     * be NULL), and when one has ended. */
    uint32_t seats;
    void (*play)(uint32_t seat, uint32_t life, uint64_t random);
    void (*condemn)(uint32_t seat);
    void (*bury)(uint32_t seat, enum killed killed);
    uint32_t lives; /* at most, in a round, and each may leave when it is done; 0: any number, and all stay */
    uint64_t arena_bytes; /* its bound; 0: the default */
};

extern const struct part locks_part, queues_part, pools_part, room_part;

struct torture {
    uint64_t seed;
    uint64_t random; /* the controller's stream */
    uint32_t round;
    const struct part *part;
    int is_doomed; /* the controller will be killed */
    uint32_t next_life;
    struct seat seats[SEATS_MAX];
    uint32_t seats_count;
    struct run_shm *shared;
};

extern struct torture torture;

/* --- random: splitmix64 --- */

static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 … bound - 1. */
static inline uint32_t below(uint64_t *state, uint32_t bound)
{
    return (uint32_t)((next_random(state) >> 32) * bound >> 32);
}

/* BROOD_NOW, a little later, or mostly never. */
static inline int64_t choose_deadline(uint64_t *random, uint32_t most_ms)
{
    switch (below(random, 4)) {
    case 0:
        return BROOD_NOW;
    case 1:
        return brood_after_ms(below(random, most_ms));
    default:
        return BROOD_FOREVER;
    }
}

/* --- run.c: what is noted --- */

/* A violation: one line, by one write, from any process.  Only the first few are printed. */
__attribute__((format(printf, 2, 3))) void complain(enum check check, const char *format, ...);

#define expect(check, condition, ...) ((condition) ? (void)0 : complain((check), __VA_ARGS__))

/* For calls that have no reason to fail. */
void expect_0(int error, const char *what);

void *shared_pages(size_t bytes);

static inline void note_fault(enum fault fault)
{
    bri_add_relaxed(&torture.shared->faults[fault], UINT64_C(1));
}

static inline void note_checked(enum tally tally, uint64_t count)
{
    bri_add_relaxed(&torture.shared->tallies[tally], count);
}

static inline int has_failed(void)
{
    return bri_load_relaxed(&torture.shared->complaints) > 0;
}

static inline int is_stopping(void)
{
    return (int)bri_load_acquire(&torture.shared->stop);
}

/* The controller's objects are there: from now on it may be killed. */
static inline void say_ready(void)
{
    bri_store_release(&torture.shared->ready, 1u);
}

static inline void pause_us(uint32_t microseconds)
{
    struct timespec time = {.tv_nsec = (long)microseconds * 1000};

    ppoll(NULL, 0, &time, NULL);
}

/* --- seats.c --- */

static inline struct seat_shm *notes_of(uint32_t seat)
{
    return &torture.shared->seats[seat];
}

static inline void now_doing(uint32_t seat, const char *what)
{
    bri_store_relaxed(&notes_of(seat)->doing, what);
}

void fill_seat(uint32_t index);
void fill_all_seats(void);

/* SIGKILL, sometimes to somebody besides: a keeper, or whoever passes on what the victim held.  `bury` of the part notes the fault. */
void kill_seat(uint32_t index);

/* SIGSTOP, and SIGCONT a little later. */
void stop_seat(uint32_t index);

/* Empties the seats whose processes have ended, and fills them anew. */
void sweep_seats(void);

/* Nobody is stopped or dying any more, and every seat is taken. */
void settle_seats(void);

/* How much the call in progress of one that has ended may have done unnoted. */
uint32_t uncertain_in(uint32_t index);

/* Waits for the processes in seats [from, to) to leave by themselves; `nudge` (or NULL) wakes those that wait for
 * others.  Once `stop` is set. */
void await_seats(uint32_t from, uint32_t to, void (*nudge)(void));

/* --- leavings.c: what a round leaves --- */

struct stock {
    uint64_t blocks;
    int descriptors;
};

struct stock take_stock(void);

/* Nobody watches those who were forked by hand: whoever wants to count has to ask. */
void bury_all(void);

/* Everything is destroyed: the arena and the controller's descriptors are as before the round, and it is alone. */
void check_leavings(const struct stock *before);

/* Frees what nobody knows any more; how many blocks that was. */
uint32_t free_forgotten_blocks(void);

/* Processes of the session `of` but for the caller, zombies not counted.  Calls `visit` for each, if that is not NULL. */
int count_session(pid_t of, void (*visit)(pid_t pid));

/* Waits until there is none. */
int is_session_empty(pid_t of, int64_t deadline);

/* At a hang: what every process of the session is and does, with its stack where gdb is there. */
void print_states(pid_t of);

#endif
