/* SPDX-License-Identifier: MIT */
/*
 * Step-kill: run an operation, SIGKILL it after its k-th instruction, for every k, and ask the survivors.
 *
 * One kill point is one run, in processes of its own, so nothing leaks from one k to the next:
 *
 *     main -> lane (one per CPU, subreaper, holds the watchdog) -> driver -> victim
 *
 *     driver: ctx = setup(); start the victim; step it k instructions; SIGKILL; after_kill(); check()
 *
 * A run is WEDGED when the driver is not through in time, a VIOLATION when check() says so, when the driver
 * dies, or when processes outlive the driver by more than a second. k counts from 0 until the operation is
 * over (stepkill_end, exit, or asleep for good) before its k-th instruction.
 *
 * Hook         runs in  needed  what it does
 * setup        driver   yes     makes the shared state; NULL means it failed (say why with stepkill_fail)
 * victim       child    one of  the operation between stepkill_begin() and stepkill_end(); ctx is as forked
 * victim_pid   driver   these   pid of a process which the library made in setup, to be stepped instead
 * provoke      driver   no      with victim_pid: gives the victim something to do. It is stopped meanwhile:
 *                               do not wait for it
 * unblock      driver   no      called once, when the victim first sleeps in a system call
 * settled      driver   no      the victim sleeps: is the operation over? Without it, 50 ms asleep means yes
 * after_kill   driver   no      pid is dead; status is from waitpid (a victim_pid is its parent's to reap)
 * check        driver   yes     0, or stepkill_fail(): the others make progress, nothing is lost or doubled
 *
 * check() must not guess at time: let it block if the library would block; the watchdog reports the wedge and
 * where every surviving process hangs.
 */
#ifndef STEPKILL_HARNESS_H
#define STEPKILL_HARNESS_H

#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>

enum stepkill_expect {
    STEPKILL_CLEAN,    /* no wedge, no violation */
    STEPKILL_WEDGES,   /* a self-test: must be seen to wedge */
    STEPKILL_VIOLATES, /* a self-test: must be seen to break its invariant */
};

struct stepkill_scenario {
    const char *name; /* "queue.put"; NULL ends an array of scenarios */
    void *(*setup)(void);
    void (*victim)(void *ctx);
    pid_t (*victim_pid)(void *ctx);
    int (*provoke)(void *ctx); /* 0, or stepkill_fail() */
    void (*unblock)(void *ctx);
    int (*settled)(void *ctx);
    void (*after_kill)(void *ctx, pid_t pid, int status);
    int (*check)(void *ctx);
    unsigned timeout_ms;     /* of one run; 0: 5000 */
    unsigned long max_steps; /* an operation longer than this is a failure; 0: 1000000 */
    /* A self-test: how many of its instructions others can notice; 0: any number. */
    unsigned long noticed_least, noticed_most;
    enum stepkill_expect expect;
};

struct stepkill_options {
    const char *only;       /* names that start so; NULL: all */
    unsigned long from, to; /* kill points; to == 0: until the operation is over */
    unsigned long stride;   /* 0: 1 */
    unsigned timeout_ms;    /* 0: what the scenario says */
    unsigned max_failures;  /* of one scenario, after which it is given up; 0: 10 */
    unsigned jobs;          /* lanes; 0: one per usable CPU */
    int is_full;            /* also after instructions that nobody can notice: see visible.h */
    int plain;              /* single steps only, no hardware breakpoint to get near k */
};

/* Runs every scenario of these arrays (the last entry is NULL), prints TAP, returns an exit code. */
int stepkill_run(const struct stepkill_scenario *const *arrays, const struct stepkill_options *options);

/* Keeps the message for the report and returns -1. For hooks that run in the driver. */
int stepkill_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Zeroed memory, shared with all later children. Never freed: the driver is about to end. */
void *stepkill_shared(size_t size);

/* Not NULL in a victim only, so that its code can also be called by a survivor. Private to the two below. */
extern atomic_int *stepkill_over;

#ifdef __x86_64__
#define STEPKILL_TRAP() __asm__ volatile("int3" ::: "memory")
#else
#define STEPKILL_TRAP() ((void)0)
#endif

/* The first instruction after begin is instruction 1. */
static inline void stepkill_begin(void)
{
    if (stepkill_over != NULL)
        STEPKILL_TRAP();
}

/* The store ends the counting; the trap halts a victim that was not being stepped. */
static inline void stepkill_end(void)
{
    if (stepkill_over != NULL) {
        atomic_store_explicit(stepkill_over, 1, memory_order_release);
        STEPKILL_TRAP();
    }
}

#endif
