/* SPDX-License-Identifier: MIT */
/*
 * A lane runs one kill point after the other. What the processes share, and who writes it:
 *
 *   struct board   one per scenario   claims and totals: all lanes, by atomics; trace: the measuring lane,
 *                                     before the others start; failures[i]: the lane that claimed i
 *   struct run     one per lane       the driver; the lane reads it once the driver is dead or out of time
 */
#ifndef STEPKILL_LANE_H
#define STEPKILL_LANE_H

#include "tracer.h"

enum {
    DEFAULT_MAX_FAILURES = 10,
    FAILURES_KEPT = 64,
};

enum phase { PHASE_SETUP, PHASE_ATTACH, PHASE_STEP, PHASE_KILL, PHASE_AFTER_KILL, PHASE_CHECK, PHASE_DONE };

enum verdict { VERDICT_CLEAN, VERDICT_VIOLATION, VERDICT_WEDGED, VERDICT_REPEAT };

struct run {
    unsigned long k;
    int is_plain;
    atomic_int phase; /* enum phase */
    enum advance end;
    unsigned long steps, traps;
    uint64_t ip;
    int has_failed;
    char message[1500];
};

struct failure {
    unsigned long k;
    enum verdict verdict;
    char text[2400];
};

struct board {
    atomic_ulong next; /* of the trace's points, and, behind them, of the kills after the end */
    atomic_ulong points, wedges, violations, failures_used, traps, repeats;
    atomic_uint over_runs, broken_lanes;
    struct trace trace;
    struct failure failures[FAILURES_KEPT];
};

struct lane {
    const struct stepkill_scenario *scenario;
    const struct stepkill_options *options;
    struct board *board;
    struct run *run;
};

/* Where stepkill_fail writes to; NULL outside of drivers. */
extern struct run *current_run;

/* The two lives of a lane. It must be a subreaper and have no other children. */
void be_measurer(const struct lane *lane);
void be_enumerator(const struct lane *lane);

/* From one kill point to the next. */
unsigned long lane_stride(const struct lane *lane);

#endif
