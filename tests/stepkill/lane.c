/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "lane.h"
#include "symbols.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plat/children.h"

enum {
    DEFAULT_TIMEOUT_MS = 5000,
    ORPHAN_GRACE_MS = 1000,
    STEPS_PER_MS = 10, /* pessimistic: time granted for stepping on top of the time-out */
    SLICES = 8,        /* of a time-out, after each of which the watchdog looks at the phase */
    OVER_RUNS = 4,     /* the length may vary a little: so many runs in a row must be over */
    MAX_PROCESSES = 64,
};

static const char *const phase_names[] = {
    "setup", "attaching", "stepping", "killing", "after_kill", "check", "done",
};

struct run *current_run;

/* --- driver: one kill point ------------------------------------------------------------------- */

static void enter(struct run *run, enum phase phase)
{
    atomic_store(&run->phase, (int)phase);
}

static enum advance advance_victim(const struct lane *lane, struct tracee *t)
{
    struct board *board = lane->board;
    struct trace *record = board->trace.length == 0 ? &board->trace : NULL;
    const struct trace *known = record == NULL && !lane->run->is_plain ? &board->trace : NULL;
    return tracee_advance(t, lane->run->k, record, known);
}

static void kill_and_check(const struct lane *lane, struct tracee *t)
{
    const struct stepkill_scenario *s = lane->scenario;
    struct run *run = lane->run;
    enter(run, PHASE_KILL);
    tracee_kill(t);
    enter(run, PHASE_AFTER_KILL);
    if (s->after_kill != NULL)
        s->after_kill(t->ctx, t->pid, t->status);
    enter(run, PHASE_CHECK);
    if (s->check(t->ctx) != 0 && !run->has_failed)
        stepkill_fail("check said no");
    enter(run, PHASE_DONE);
}

static void drive(const struct lane *lane)
{
    const struct stepkill_scenario *s = lane->scenario;
    struct run *run = lane->run;
    struct tracee tracee = {.scenario = s, .over = stepkill_shared(sizeof(atomic_int))};
    enter(run, PHASE_SETUP);
    tracee.ctx = s->setup();
    if (tracee.ctx == NULL) {
        stepkill_fail("setup failed");
        return;
    }
    enter(run, PHASE_ATTACH);
    if ((s->victim_pid != NULL ? tracee_adopt(&tracee) : tracee_spawn(&tracee)) != 0)
        return;
    enter(run, PHASE_STEP);
    run->end = advance_victim(lane, &tracee);
    run->steps = tracee.steps;
    run->traps = tracee.traps;
    run->ip = tracee_ip(&tracee);
    if (run->end != ADVANCE_ASTRAY)
        kill_and_check(lane, &tracee);
}

/* Not inlined: symbols.c ends a stack here. */
static _Noreturn __attribute__((noinline)) void be_driver(const struct lane *lane)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    current_run = lane->run;
    drive(lane);
    _exit(0);
}

/* --- lane: drivers one after the other, watched ----------------------------------------------- */

static void nap(void)
{
    const struct timespec half_a_millisecond = {0, 500000};
    nanosleep(&half_a_millisecond, NULL);
}

struct pids {
    int count;
    pid_t at[MAX_PROCESSES];
};

static void add_pid(pid_t pid, void *argument)
{
    struct pids *pids = argument;
    if (pids->count < MAX_PROCESSES)
        pids->at[pids->count++] = pid;
}

/* The lane is a subreaper: what a driver left are its children now. Returns how many outlived grace. */
static int sweep(int grace_ms)
{
    int outlived = 0, rounds = grace_ms * 2;
    for (;;) {
        pid_t reaped;
        while ((reaped = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
            continue;
        if (reaped < 0 && errno == ECHILD)
            return outlived;
        if (rounds-- <= 0) {
            struct pids left = {.count = 0};
            bri_children_each(getpid(), add_pid, &left);
            for (int i = 0; i < left.count; i++)
                kill(left.at[i], SIGKILL);
            outlived = outlived > left.count ? outlived : left.count;
        }
        nap();
    }
}

static __attribute__((format(printf, 3, 4))) void add_text(char *text, size_t size, const char *format, ...)
{
    const size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
}

static void describe_end(const struct run *run, char *text, size_t size)
{
    static const char *const ends[] = {
        "", " (operation over)", " (asleep)", " (ended by itself)", " (astray)",
    };
    char where[160];
    if (run->phase <= PHASE_STEP) {
        add_text(text, size, "nothing killed yet, in %s", phase_names[run->phase]);
        return;
    }
    symbol_print(where, sizeof where, run->ip);
    add_text(text, size, "killed after %lu steps at %s%s", run->steps, run->ip != 0 ? where : "?",
             ends[run->end]);
}

/* Where the driver and all that descends from it hang. */
static void describe_wedge(const struct lane *lane, pid_t driver, char *text, size_t size)
{
    struct pids family = {.count = 1, .at = {driver}};
    char where[700];
    describe_end(lane->run, text, size);
    add_text(text, size, "; then stuck in %s", phase_names[lane->run->phase]);
    for (int i = 0; i < family.count; i++) {
        const pid_t pid = family.at[i];
        const char state = process_state(pid);
        bri_children_each(pid, add_pid, &family);
        if (state == 0 || state == 'Z')
            continue;
        process_print_where(where, sizeof where, pid);
        add_text(text, size, "\n#     %s %d [%c] %s", i == 0 ? "driver" : "process", (int)pid, state, where);
    }
}

static void note_failure(const struct lane *lane, enum verdict verdict, const char *text)
{
    struct board *board = lane->board;
    const unsigned long i = atomic_fetch_add(&board->failures_used, 1);
    atomic_fetch_add(verdict == VERDICT_WEDGED ? &board->wedges : &board->violations, 1);
    if (i >= FAILURES_KEPT)
        return;
    struct failure *failure = &board->failures[i];
    failure->k = lane->run->k;
    failure->verdict = verdict;
    snprintf(failure->text, sizeof failure->text, "%s", text);
}

static __attribute__((format(printf, 2, 3))) void note_violation(const struct lane *lane, const char *format,
                                                                 ...)
{
    char text[2400] = "", what[1600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    describe_end(lane->run, text, sizeof text);
    add_text(text, sizeof text, ": %s", what);
    note_failure(lane, VERDICT_VIOLATION, text);
}

static enum verdict judge(const struct lane *lane, int status, int orphans)
{
    const struct run *run = lane->run;
    if (run->end == ADVANCE_ASTRAY && run->phase == PHASE_STEP && status == 0)
        return VERDICT_REPEAT;
    if (WIFSIGNALED(status))
        note_violation(lane, "driver died of %s in %s", strsignal(WTERMSIG(status)), phase_names[run->phase]);
    else if (run->has_failed)
        note_violation(lane, "%s", run->message);
    else if (status != 0 || run->phase != PHASE_DONE)
        note_violation(lane, "driver exited with %d in %s", WEXITSTATUS(status), phase_names[run->phase]);
    else if (orphans > 0)
        note_violation(lane, "%d processes lived on, a second after the driver's end", orphans);
    else
        return VERDICT_CLEAN;
    return VERDICT_VIOLATION;
}

static int timeout_ms(const struct lane *lane)
{
    if (lane->options->timeout_ms != 0)
        return (int)lane->options->timeout_ms;
    return (int)(lane->scenario->timeout_ms != 0 ? lane->scenario->timeout_ms : DEFAULT_TIMEOUT_MS);
}

/* Each phase may take the time-out, stepping as much longer as there are steps. */
static bool ends_in_time(const struct lane *lane, pid_t driver)
{
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, driver, 0), .events = POLLIN};
    const int slice_ms = timeout_ms(lane) / SLICES + 1;
    long stepping_ms = (long)(lane->run->k / STEPS_PER_MS);
    int phase = PHASE_SETUP, slices = SLICES, has_ended;
    while ((has_ended = poll(&end, 1, slice_ms) > 0) == 0 && slices > 0) {
        const int phase_now = atomic_load(&lane->run->phase);
        if (phase_now != phase)
            slices = SLICES;
        else if (phase == PHASE_STEP && stepping_ms > 0)
            stepping_ms -= slice_ms;
        else
            slices--;
        phase = phase_now;
    }
    close(end.fd);
    return has_ended;
}

static enum verdict watch(const struct lane *lane, pid_t driver)
{
    char text[2400] = "";
    int status = 0;
    if (ends_in_time(lane, driver)) {
        waitpid(driver, &status, 0);
        const bool is_astray = lane->run->end == ADVANCE_ASTRAY;
        return judge(lane, status, sweep(is_astray ? 0 : ORPHAN_GRACE_MS));
    }
    describe_wedge(lane, driver, text, sizeof text);
    kill(driver, SIGKILL);
    sweep(0);
    note_failure(lane, VERDICT_WEDGED, text);
    return VERDICT_WEDGED;
}

static enum verdict run_once(const struct lane *lane, unsigned long k, int is_plain)
{
    memset(lane->run, 0, sizeof *lane->run);
    lane->run->k = k;
    lane->run->is_plain = is_plain;
    const pid_t driver = fork();
    if (driver == 0)
        be_driver(lane);
    if (driver < 0) {
        note_violation(lane, "fork: %s", strerror(errno));
        return VERDICT_VIOLATION;
    }
    const enum verdict verdict = watch(lane, driver);
    atomic_fetch_add(&lane->board->traps, lane->run->traps);
    return verdict;
}

static void run_kill_point(const struct lane *lane, unsigned long k)
{
    struct board *board = lane->board;
    if (run_once(lane, k, lane->options->plain) == VERDICT_REPEAT) {
        atomic_fetch_add(&board->repeats, 1);
        run_once(lane, k, 1);
    }
    if (lane->run->phase <= PHASE_STEP || lane->run->end == ADVANCE_STEPPED)
        atomic_store(&board->over_runs, 0);
    else
        atomic_fetch_add(&board->over_runs, 1);
    atomic_fetch_add(&board->points, 1);
}

static bool is_done(const struct lane *lane, unsigned long k)
{
    const struct stepkill_options *o = lane->options;
    const unsigned most = o->max_failures != 0 ? o->max_failures : DEFAULT_MAX_FAILURES;
    if (atomic_load(&lane->board->failures_used) >= most)
        return true;
    if (o->to != 0)
        return k > o->to;
    return k >= lane->board->trace.length && atomic_load(&lane->board->over_runs) >= OVER_RUNS;
}

unsigned long lane_stride(const struct lane *lane)
{
    return lane->options->stride != 0 ? lane->options->stride : 1;
}

static unsigned long kill_point(const struct lane *lane, unsigned long number)
{
    const struct trace *trace = &lane->board->trace;
    if (number < trace->points_count)
        return trace->points[number];
    return trace->length + number - trace->points_count;
}

void be_enumerator(const struct lane *lane)
{
    const unsigned long stride = lane_stride(lane);
    for (;;) {
        const unsigned long k = kill_point(lane, atomic_fetch_add(&lane->board->next, stride));
        if (is_done(lane, k))
            return;
        if (k >= lane->options->from)
            run_kill_point(lane, k);
    }
}

/* One run that is killed when it is over: tells the length, and that the scenario is sound without a kill. */
void be_measurer(const struct lane *lane)
{
    struct trace *trace = &lane->board->trace;
    const unsigned long most = trace->capacity - 1;
    run_once(lane, most, 1);
    if (lane->run->end == ADVANCE_STEPPED && lane->run->phase == PHASE_DONE)
        note_violation(lane, "the operation is not over after %lu instructions", most);
    trace_number_places(trace);
    trace_choose_points(trace, lane->options->is_full || lane->options->to != 0);
}
