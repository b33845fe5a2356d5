/* SPDX-License-Identifier: MIT */
/* Holds one process under ptrace and moves it forward by exactly k instructions. */
#ifndef STEPKILL_TRACER_H
#define STEPKILL_TRACER_H

#include "harness.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The recorded way of an operation: ip[i] is the address after i steps, place[i] a small number for that address.
 * To get to step k, hop: run freely until the n-th arrival at ip[j], for some j <= k, again from there, and step
 * the rest. It is exact as long as the operation goes the recorded way; the address at k tells if it did not.
 */
struct trace {
    unsigned long length; /* entries in use: steps + 1 */
    unsigned long capacity;
    uint64_t *ip;
    uint32_t *place; /* TRACE_NEVER: arrivals are not to be counted (rep-prefixed instructions) */
    uint32_t places;
    uint8_t *is_visible; /* others could notice the instruction that led here; of the first steps always */
    uint32_t *points;    /* where to kill: those, or all */
    unsigned long points_count;
    unsigned long in_doubt; /* instructions that could not be judged: taken for visible */
};

#define TRACE_NEVER UINT32_MAX

void trace_number_places(struct trace *trace);

/* Fills in the points: the visible ones, or `all`. */
void trace_choose_points(struct trace *trace, bool all);

enum advance {
    ADVANCE_STEPPED, /* k instructions done, the victim is stopped */
    ADVANCE_OVER,    /* stepkill_end was reached first */
    ADVANCE_ASLEEP,  /* it sleeps in a system call and nothing will wake it */
    ADVANCE_GONE,    /* it has died or exited by itself; status says how */
    ADVANCE_ASTRAY,  /* it did not go the recorded way: repeat with single steps */
};

struct tracee {
    const struct stepkill_scenario *scenario;
    void *ctx;
    atomic_int *over; /* shared with the victim */
    pid_t pid;
    int status; /* once gone */
    int signal; /* to be delivered when it is resumed */
    bool gone, listening, unblocked, asleep;
    unsigned quiet_ticks;
    unsigned long steps; /* instructions since begin */
    unsigned long traps; /* ptrace stops it took */
};

bool tracer_is_possible(void);

/* Both leave the victim stopped at its instruction 0; -1 after stepkill_fail(). */
int tracee_spawn(struct tracee *t);
int tracee_adopt(struct tracee *t);

/* With record, fills it on the way; with known, uses it for a shortcut. Either may be NULL. */
enum advance tracee_advance(struct tracee *t, unsigned long k, struct trace *record,
                            const struct trace *known);

/* Where it is, 0 if that cannot be told. */
uint64_t tracee_ip(const struct tracee *t);

/* SIGKILL and wait; sets status. */
void tracee_kill(struct tracee *t);

/* 'R', 'S', 't', ... as in /proc/PID/stat; 0 if there is no such process. */
char process_state(pid_t pid);

#endif
