/* SPDX-License-Identifier: MIT */
/*
 * A victim is attached with PTRACE_SEIZE, so that group-stops keep their meaning, and with EXITKILL: a driver
 * which dies takes it along. Its children are not traced. There is no time-out in waitpid: while the
 * victim runs, an interval timer interrupts it every TICK_US, and only then is it asked whether it sleeps.
 *
 * Only x86-64: with load-linked/store-conditional each step breaks the reservation and a lock is never taken.
 */
#define _GNU_SOURCE
#include "tracer.h"
#include "visible.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_US = 5000,
    QUIET_TICKS = 10, /* asleep that long in one system call: for good */
    ADOPT_WAIT_MS = 2000,
    SYSCALL_BYTES = 2,
    HOP_COST = 8,  /* in steps: what setting a breakpoint costs */
    RESTARTED = 3, /* steps: a victim that was attached to in a system call enters that again */
    RAREST = 32,   /* arrivals: places as rare as that are worth a hop on the way to another hop */
};

enum pace { FREELY, ONE_STEP };
enum event { EVENT_TRAP, EVENT_RESUME, EVENT_ASLEEP, EVENT_GONE };

atomic_int *stepkill_over;

/* --- the machine ------------------------------------------------------------------------------ */

#ifdef __x86_64__

static uint64_t read_ip(pid_t pid)
{
    errno = 0;
    const long ip = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL);
    return errno == 0 ? (uint64_t)ip : 0;
}

/* Debug registers belong to one thread and are not inherited by fork. Address 0 clears the breakpoint. */
static bool set_breakpoint(pid_t pid, uint64_t address)
{
    const size_t dr0 = offsetof(struct user, u_debugreg[0]), dr7 = offsetof(struct user, u_debugreg[7]);
    if (ptrace(PTRACE_POKEUSER, pid, dr7, 0L) != 0)
        return false;
    return address == 0 ||
           (ptrace(PTRACE_POKEUSER, pid, dr0, address) == 0 && ptrace(PTRACE_POKEUSER, pid, dr7, 1L) == 0);
}

#else

static uint64_t read_ip(pid_t pid)
{
    (void)pid;
    return 0;
}

static bool set_breakpoint(pid_t pid, uint64_t address)
{
    (void)pid, (void)address;
    return false;
}

#endif

bool tracer_is_possible(void)
{
#ifdef __x86_64__
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
#else
    return false;
#endif
}

char process_state(pid_t pid)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    const ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    const char *end_of_name = strrchr(text, ')');
    return end_of_name == NULL || end_of_name[1] == 0 ? 0 : end_of_name[2];
}

/* --- ticks ------------------------------------------------------------------------------------ */

static void ignore_tick(int signal)
{
    (void)signal;
}

static void start_ticks(void)
{
    const struct itimerval every = {{0, TICK_US}, {0, TICK_US}};
    struct sigaction action = {.sa_handler = ignore_tick};
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
}

static void stop_ticks(void)
{
    const struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_DFL);
}

/*
 * True when the victim sleeps, or is stopped, for good. Hooks run without ticks, which would interrupt their
 * system calls.
 */
static bool tick_says_over(struct tracee *t)
{
    const struct stepkill_scenario *s = t->scenario;
    bool over = false;
    if (!t->listening && process_state(t->pid) != 'S') {
        t->quiet_ticks = 0;
        return false;
    }
    stop_ticks();
    if (s->unblock != NULL && !t->unblocked) {
        t->unblocked = true;
        s->unblock(t->ctx);
    } else {
        over = s->settled != NULL ? s->settled(t->ctx) != 0 : ++t->quiet_ticks >= QUIET_TICKS;
    }
    start_ticks();
    return over;
}

/* --- moving ----------------------------------------------------------------------------------- */

static enum event classify(struct tracee *t, int status)
{
    const int signal = WSTOPSIG(status), event = status >> 16;
    if (!WIFSTOPPED(status)) {
        t->gone = true;
        t->status = status;
        return EVENT_GONE;
    }
    t->listening = event == PTRACE_EVENT_STOP && signal != SIGTRAP;
    if (event == PTRACE_EVENT_STOP)
        return EVENT_RESUME;
    if (signal == SIGTRAP)
        return EVENT_TRAP;
    t->signal = signal;
    return EVENT_RESUME;
}

static enum event wait_for_event(struct tracee *t)
{
    int status;
    t->quiet_ticks = 0;
    for (;;) {
        if (waitpid(t->pid, &status, __WALL) == t->pid)
            return classify(t, status);
        if (errno != EINTR) {
            t->gone = true;
            t->status = 0;
            return EVENT_GONE;
        }
        if (tick_says_over(t)) {
            t->asleep = true;
            return EVENT_ASLEEP;
        }
    }
}

static void ptrace_on(pid_t pid, enum pace pace, long signal)
{
    if (pace == ONE_STEP)
        ptrace(PTRACE_SINGLESTEP, pid, NULL, signal);
    else
        ptrace(PTRACE_CONT, pid, NULL, signal);
}

/* One trap further: step, breakpoint or marker. Other signals go to the victim, group-stops are kept. */
static enum event resume(struct tracee *t, enum pace pace)
{
    enum event event;
    do {
        const long signal = t->signal;
        if (t->listening) {
            ptrace(PTRACE_LISTEN, t->pid, NULL, NULL);
        } else {
            t->signal = 0;
            ptrace_on(t->pid, pace, signal);
        }
        event = wait_for_event(t);
    } while (event == EVENT_RESUME);
    t->traps++;
    return event;
}

static enum advance not_stepped(enum event event)
{
    return event == EVENT_GONE ? ADVANCE_GONE : ADVANCE_ASLEEP;
}

static bool is_over(const struct tracee *t)
{
    return atomic_load_explicit(t->over, memory_order_acquire) != 0;
}

static enum visible look_ahead(const struct tracee *t, const struct trace *record)
{
    if (record == NULL || t->steps < RESTARTED)
        return VISIBLE_YES;
    return visible_next(t->pid, record->ip[record->length - 1]);
}

static void record_step(struct trace *record, pid_t pid, enum visible visible)
{
    if (record->length == record->capacity)
        return;
    record->in_doubt += visible == VISIBLE_IN_DOUBT;
    record->is_visible[record->length] = visible != VISIBLE_NO;
    record->ip[record->length++] = read_ip(pid);
}

static enum advance step_to(struct tracee *t, unsigned long k, struct trace *record)
{
    while (t->steps < k) {
        const enum visible before = look_ahead(t, record);
        const enum event event = resume(t, ONE_STEP);
        if (event != EVENT_TRAP)
            return not_stepped(event);
        t->steps++;
        if (is_over(t))
            return ADVANCE_OVER;
        if (record != NULL)
            record_step(record, t->pid, visible_after(t->pid, before));
    }
    return ADVANCE_STEPPED;
}

struct hop {
    unsigned long to;   /* 0: none */
    unsigned long cost; /* in steps, with the steps from there to k */
    uint32_t arrivals;  /* at ip[to], from where it starts */
};

/* The best of all single hops. rare[n], where not NULL: the last place that is arrived at up to 2^n times. */
static struct hop choose_last_hop(const struct trace *known, unsigned long from, unsigned long k,
                                  uint32_t *counts, struct hop *rare)
{
    struct hop best = {0, k - from, 0};
    memset(counts, 0, known->places * sizeof *counts);
    for (unsigned long i = from + 1; i <= k; i++) {
        const uint32_t place = known->place[i];
        if (place == TRACE_NEVER || place == known->place[from])
            continue;
        const struct hop hop = {i, HOP_COST + counts[place] + 1 + k - i, ++counts[place]};
        if (hop.cost < best.cost)
            best = hop;
        for (unsigned n = 0; rare != NULL && 1u << n <= RAREST; n++)
            if (hop.arrivals <= 1u << n)
                rare[n] = hop;
    }
    return best;
}

/* The next hop, perhaps only to where the last one is cheaper. counts has room for each place. */
static struct hop choose_hop(const struct trace *known, unsigned long from, unsigned long k, uint32_t *counts)
{
    struct hop rare[16] = {{0}};
    struct hop best = choose_last_hop(known, from, k, counts, rare);
    for (unsigned n = 0; 1u << n <= RAREST; n++) {
        if (rare[n].to == 0)
            continue;
        const struct hop last = choose_last_hop(known, rare[n].to, k, counts, NULL);
        rare[n].cost = HOP_COST + rare[n].arrivals + last.cost;
        if (rare[n].cost < best.cost)
            best = rare[n];
    }
    return best;
}

static bool run_to(struct tracee *t, const struct trace *known, const struct hop *hop)
{
    if (!set_breakpoint(t->pid, known->ip[hop->to]))
        return false;
    for (uint32_t arrival = 0; arrival < hop->arrivals; arrival++) {
        const enum event event = resume(t, FREELY);
        if (event != EVENT_TRAP || is_over(t) || read_ip(t->pid) != known->ip[hop->to])
            return false;
    }
    t->steps = hop->to;
    return set_breakpoint(t->pid, 0);
}

/* Near k, if that is on the recorded way; else to its end. */
static bool hop_towards(struct tracee *t, unsigned long k, const struct trace *known)
{
    const unsigned long to = k < known->length ? k : known->length - 1;
    uint32_t *counts = calloc(known->places, sizeof *counts);
    bool is_on_its_way = counts != NULL;
    for (struct hop hop = {1, 0, 0}; is_on_its_way && hop.to != 0;) {
        hop = choose_hop(known, t->steps, to, counts);
        is_on_its_way = hop.to == 0 || run_to(t, known, &hop);
    }
    free(counts);
    return is_on_its_way && step_to(t, to, NULL) == ADVANCE_STEPPED && read_ip(t->pid) == known->ip[to];
}

static enum advance advance(struct tracee *t, unsigned long k, struct trace *record,
                            const struct trace *known)
{
    if (known != NULL && read_ip(t->pid) == known->ip[0] && !hop_towards(t, k, known))
        return ADVANCE_ASTRAY;
    if (record != NULL) {
        record->is_visible[0] = 1;
        record->ip[record->length++] = read_ip(t->pid);
    }
    return step_to(t, k, record);
}

enum advance tracee_advance(struct tracee *t, unsigned long k, struct trace *record,
                            const struct trace *known)
{
    start_ticks();
    const enum advance result = advance(t, k, record, known);
    stop_ticks();
    return result;
}

uint64_t tracee_ip(const struct tracee *t)
{
    char path[64], text[256];
    if (t->gone)
        return 0;
    if (!t->asleep)
        return read_ip(t->pid);
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)t->pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    const char *last = strrchr(text, ' ');
    return last == NULL ? 0 : strtoull(last, NULL, 16);
}

void tracee_kill(struct tracee *t)
{
    int status;
    if (t->gone)
        return;
    kill(t->pid, SIGKILL);
    while (!t->gone) {
        if (waitpid(t->pid, &status, __WALL) == t->pid)
            classify(t, status);
        else if (errno != EINTR)
            t->gone = true;
    }
}

/* --- attaching -------------------------------------------------------------------------------- */

static int seize(pid_t pid)
{
    if (ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_EXITKILL) != 0)
        return stepkill_fail("cannot trace process %d: %s", (int)pid, strerror(errno));
    return 0;
}

static _Noreturn void be_victim(const struct tracee *t, int go_fd)
{
    char go;
    if (read(go_fd, &go, 1) != 1)
        _exit(126);
    close(go_fd);
    stepkill_over = t->over;
    t->scenario->victim(t->ctx);
    _exit(0);
}

/* The victim runs already: a PTRACE_CONT before the first wait might be the one past its begin. */
static enum event wait_for_begin(struct tracee *t)
{
    const enum event event = wait_for_event(t);
    return event == EVENT_RESUME ? resume(t, FREELY) : event;
}

int tracee_spawn(struct tracee *t)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return stepkill_fail("pipe: %s", strerror(errno));
    t->pid = fork();
    if (t->pid == 0) {
        close(pipe_fds[1]);
        be_victim(t, pipe_fds[0]);
    }
    close(pipe_fds[0]);
    if (t->pid < 0)
        return stepkill_fail("fork: %s", strerror(errno));
    if (seize(t->pid) != 0)
        return -1;
    const bool sent = write(pipe_fds[1], "", 1) == 1;
    close(pipe_fds[1]);
    if (!sent || wait_for_begin(t) != EVENT_TRAP)
        return stepkill_fail("the victim never reached stepkill_begin (status 0x%x)", (unsigned)t->status);
    return 0;
}

/* So that it starts from a place that is the same in each run. */
static int wait_until_asleep(pid_t pid)
{
    const struct timespec millisecond = {0, 1000000};
    for (int sleepy = 0, ms = 0; ms < ADOPT_WAIT_MS; ms++) {
        sleepy = process_state(pid) == 'S' ? sleepy + 1 : 0;
        if (sleepy == 2)
            return 0;
        nanosleep(&millisecond, NULL);
    }
    return stepkill_fail("process %d does not come to rest (state %c)", (int)pid, process_state(pid));
}

int tracee_adopt(struct tracee *t)
{
    enum event event;
    t->pid = t->scenario->victim_pid(t->ctx);
    if (t->pid <= 0)
        return stepkill_fail("victim_pid returned %d", (int)t->pid);
    if (wait_until_asleep(t->pid) != 0 || seize(t->pid) != 0)
        return -1;
    ptrace(PTRACE_INTERRUPT, t->pid, NULL, NULL);
    event = wait_for_event(t);
    if (event == EVENT_GONE)
        return stepkill_fail("process %d died when attached to", (int)t->pid);
    return t->scenario->provoke != NULL ? t->scenario->provoke(t->ctx) : 0;
}

/* --- recorded ways ---------------------------------------------------------------------------- */

struct place {
    uint64_t ip;
    uint32_t number;
};

static struct place *find_place(struct place *table, size_t mask, uint64_t ip, uint32_t *count)
{
    size_t i = (size_t)(ip * 0x9E3779B97F4A7C15u >> 20) & mask;
    while (table[i].ip != 0 && table[i].ip != ip)
        i = (i + 1) & mask;
    if (table[i].ip == 0)
        table[i] = (struct place){ip, (*count)++};
    return &table[i];
}

/* A victim that was attached to in a system call enters that again, which no recorded step shows. */
void trace_number_places(struct trace *trace)
{
    size_t slots = 64;
    while (slots < trace->length * 2)
        slots *= 2;
    struct place *table = calloc(slots, sizeof *table);
    for (unsigned long i = 0; table != NULL && i < trace->length; i++) {
        struct place *place = find_place(table, slots - 1, trace->ip[i], &trace->places);
        if ((i > 0 && trace->ip[i] == trace->ip[i - 1]) || trace->ip[i] == trace->ip[0] - SYSCALL_BYTES)
            place->number = TRACE_NEVER;
    }
    for (unsigned long i = 0; i < trace->length; i++)
        trace->place[i] =
            table == NULL ? TRACE_NEVER : find_place(table, slots - 1, trace->ip[i], NULL)->number;
    free(table);
}

void trace_choose_points(struct trace *trace, bool all)
{
    for (unsigned long i = 0; i < trace->length; i++)
        if (all || trace->is_visible[i])
            trace->points[trace->points_count++] = (uint32_t)i;
}
