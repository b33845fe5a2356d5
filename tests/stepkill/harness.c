/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "lane.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_MAX_STEPS = 1000000,
    MAX_LANES = 64,
};

/* --- for scenarios ---------------------------------------------------------------------------- */

int stepkill_fail(const char *format, ...)
{
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (current_run == NULL) {
        fprintf(stderr, "stepkill: %s\n", text);
        return -1;
    }
    const size_t used = strlen(current_run->message);
    snprintf(current_run->message + used, sizeof current_run->message - used, "%s%s", used > 0 ? "; " : "",
             text);
    current_run->has_failed = 1;
    return -1;
}

void *stepkill_shared(size_t size)
{
    const int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "stepkill: mmap of %zu bytes: %s\n", size, strerror(errno));
        _exit(2);
    }
    return memory;
}

/* --- main process ----------------------------------------------------------------------------- */

static int count_lanes(const struct stepkill_options *options)
{
    cpu_set_t usable;
    int lanes = (int)options->jobs;
    if (lanes == 0)
        lanes = sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : 1;
    return lanes < MAX_LANES ? lanes : MAX_LANES;
}

static void start_lane(const struct lane *lane, void (*work)(const struct lane *))
{
    fflush(stdout);
    if (fork() != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    work(lane);
    _exit(0);
}

static void run_lanes(struct lane *lane, int count, void (*work)(const struct lane *))
{
    const size_t bytes = (size_t)count * sizeof(struct run);
    struct run *runs = stepkill_shared(bytes);
    for (int i = 0; i < count; i++) {
        lane->run = &runs[i];
        start_lane(lane, work);
    }
    for (int i = 0; i < count; i++) {
        int status = -1;
        while (waitpid(-1, &status, 0) < 0 && errno == EINTR)
            continue;
        if (status != 0)
            atomic_fetch_add(&lane->board->broken_lanes, 1);
    }
    munmap(runs, bytes);
}

static struct board *new_board(const struct stepkill_scenario *scenario)
{
    struct board *board = stepkill_shared(sizeof *board);
    struct trace *trace = &board->trace;
    trace->capacity = (scenario->max_steps != 0 ? scenario->max_steps : DEFAULT_MAX_STEPS) + 1;
    trace->ip = stepkill_shared(trace->capacity * sizeof *trace->ip);
    trace->place = stepkill_shared(trace->capacity * sizeof *trace->place);
    trace->is_visible = stepkill_shared(trace->capacity * sizeof *trace->is_visible);
    trace->points = stepkill_shared(trace->capacity * sizeof *trace->points);
    return board;
}

static void free_board(struct board *board)
{
    munmap(board->trace.ip, board->trace.capacity * sizeof *board->trace.ip);
    munmap(board->trace.place, board->trace.capacity * sizeof *board->trace.place);
    munmap(board->trace.is_visible, board->trace.capacity * sizeof *board->trace.is_visible);
    munmap(board->trace.points, board->trace.capacity * sizeof *board->trace.points);
    munmap(board, sizeof *board);
}

static bool has_points_as_expected(const struct lane *lane)
{
    const unsigned long least = lane->scenario->noticed_least, most = lane->scenario->noticed_most;
    const unsigned long count = lane->board->trace.points_count;
    if (lane->options->is_full || lane->options->to != 0)
        return true;
    return count >= least && (most == 0 || count <= most);
}

static bool is_as_expected(const struct lane *lane)
{
    const struct board *board = lane->board;
    const bool wedges = atomic_load(&board->wedges) > 0, violates = atomic_load(&board->violations) > 0;
    if (atomic_load(&board->broken_lanes) > 0 || !has_points_as_expected(lane))
        return false;
    switch (lane->scenario->expect) {
    case STEPKILL_WEDGES:
        return wedges && !violates;
    case STEPKILL_VIOLATES:
        return violates && !wedges;
    case STEPKILL_CLEAN:
        break;
    }
    return !wedges && !violates && atomic_load(&board->points) > 0;
}

static void print_failures(struct board *board, const struct stepkill_options *options)
{
    const unsigned most = options->max_failures != 0 ? options->max_failures : DEFAULT_MAX_FAILURES;
    const unsigned long used = atomic_load(&board->failures_used);
    for (unsigned long i = 0; i < used && i < FAILURES_KEPT; i++) {
        const struct failure *f = &board->failures[i];
        char point[32] = "no kill";
        if (f->k < board->trace.capacity - 1)
            snprintf(point, sizeof point, "k=%lu", f->k);
        printf("# %s: %s: %s\n", point, f->verdict == VERDICT_WEDGED ? "wedged" : "violation", f->text);
    }
    if (used >= most)
        printf("# given up after %lu failures\n", used);
}

/* TAP for one scenario; true if it is as expected. */
static bool report(const struct lane *lane, int number, double took)
{
    static const char *const remarks[] = {"", " (must wedge)", " (must violate)"};
    const struct stepkill_scenario *s = lane->scenario;
    struct board *board = lane->board;
    const unsigned long stride = lane_stride(lane);
    char stride_text[40] = "one";
    if (stride > 1)
        snprintf(stride_text, sizeof stride_text, "%luth", stride);
    const bool ok = is_as_expected(lane);
    printf("%s %d - %s: %lu kill points, %lu wedged, %lu violations%s\n", ok ? "ok" : "not ok", number,
           s->name, atomic_load(&board->points), atomic_load(&board->wedges), atomic_load(&board->violations),
           remarks[s->expect]);
    printf("# %lu instructions, %lu that others can notice, every %s of these; %.1f s\n", board->trace.length,
           board->trace.points_count, stride_text, took);
    if (!has_points_as_expected(lane))
        printf("# expected that others can notice at least %lu, at most %lu (0: any number)\n",
               s->noticed_least, s->noticed_most);
    if (board->trace.in_doubt > 0)
        printf("# %lu of these could not be judged, and count as noticed\n", board->trace.in_doubt);
    if (atomic_load(&board->repeats) > 0)
        printf("# %lu runs left the recorded way and were repeated with single steps\n",
               atomic_load(&board->repeats));
    if (atomic_load(&board->broken_lanes) > 0)
        printf("# the harness itself died in %u lanes\n", atomic_load(&board->broken_lanes));
    if (!ok || s->expect != STEPKILL_CLEAN)
        print_failures(board, lane->options);
    fflush(stdout);
    return ok;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

struct totals {
    int number, bad;
    unsigned long points, traps;
};

static void run_scenario(const struct stepkill_scenario *s, const struct stepkill_options *options,
                         struct totals *totals)
{
    struct lane lane = {.scenario = s, .options = options, .board = new_board(s)};
    struct board *board = lane.board;
    const double start = seconds();
    run_lanes(&lane, 1, be_measurer);
    if (atomic_load(&board->failures_used) == 0)
        run_lanes(&lane, count_lanes(options), be_enumerator);
    totals->number++;
    totals->bad += !report(&lane, totals->number, seconds() - start);
    totals->points += atomic_load(&board->points);
    totals->traps += atomic_load(&board->traps);
    free_board(board);
}

static bool is_wanted(const struct stepkill_scenario *s, const char *only)
{
    return only == NULL || strncmp(s->name, only, strlen(only)) == 0;
}

static int count_wanted(const struct stepkill_scenario *const *arrays, const char *only)
{
    int count = 0;
    for (; *arrays != NULL; arrays++)
        for (const struct stepkill_scenario *s = *arrays; s->name != NULL; s++)
            count += is_wanted(s, only);
    return count;
}

int stepkill_run(const struct stepkill_scenario *const *arrays, const struct stepkill_options *options)
{
    struct totals totals = {0};
    const double start = seconds();
    if (!tracer_is_possible()) {
        printf("1..0 # SKIP step-kill needs x86-64 and a kernel that permits ptrace\n");
        return 0;
    }
    printf("1..%d\n", count_wanted(arrays, options->only));
    for (; *arrays != NULL; arrays++)
        for (const struct stepkill_scenario *s = *arrays; s->name != NULL; s++)
            if (is_wanted(s, options->only))
                run_scenario(s, options, &totals);
    const double took = seconds() - start;
    printf("# %.1f s, %lu ptrace stops, %.0f per second\n", took, totals.traps, (double)totals.traps / took);
    printf("# total kill points %lu\n", totals.points);
    return totals.bad != 0;
}
