/* SPDX-License-Identifier: MIT */
/* The warden: options, rounds, the owner's death, hangs, and what is said at the end.  See torture.h. */
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "plat/process.h"
#include "torture.h"

enum { COMPLAINTS_MAX = 12, DOOMED_ONE_IN = 5, SLICE_MS = 200 };

static const char *const fault_names[FAULTS] = {
    [KILL_PLAYER] = "process killed",
    [KILL_HOLDER] = "holder of a lock or token killed",
    [KILL_PRODUCER] = "producer killed",
    [KILL_CONSUMER] = "consumer killed",
    [KILL_KEEPER] = "keeper killed",
    [KILL_UNDERTAKER] = "process killed that was recovering another's death",
    [KILL_WORKER] = "worker killed",
    [KILL_SUPERVISOR] = "supervisor killed",
    [KILL_OWNER] = "owner killed",
    [STOP_PLAYER] = "process stopped",
    [STOP_WORKER] = "worker stopped",
    [STOP_SUPERVISOR] = "supervisor stopped",
    [CRASH_KILL] = "task raises SIGKILL",
    [CRASH_FAULT] = "task raises SIGSEGV",
    [CRASH_ABORT] = "task aborts",
    [CRASH_STACK] = "task overflows its stack",
    [CRASH_EXIT] = "task calls exit",
    [CRASH_EXIT_AT_ONCE] = "task calls _exit",
    [LATE_ITEM] = "item past its time",
    [LATE_WHOLE] = "map past its time",
    [CANCEL] = "map cancelled",
    [CANCEL_RUNNING] = "map cancelled, what runs ended",
    [LIMIT_MEMORY] = "memory limit met",
    [LIMIT_FILES] = "file limit met",
    [LIMIT_CPU] = "CPU limit met",
    [OOM_KILL] = "task killed by the OOM killer",
    [NO_ROOM] = "arena full",
};

static const char *const check_names[CHECKS] = {
    [HANGS] = "no round hangs",
    [PROCESSES] = "processes end as they should",
    [LEAVINGS] = "no process, descriptor or block of the arena is left",
    [CALLS] = "no call fails for a reason it should not have",
    [EXCLUSION] = "a lock has one holder, and a second one only hears of a death after a death",
    [COUNTS] = "counters under locks are exact but for the dead",
    [TOKENS] = "semaphores never have more holders than tokens, and all tokens at the end",
    [TICKETS] = "what is given under a condition is taken once, and nobody sleeps on",
    [ARRIVALS] = "barriers give out each order of arrival equally often, but for the dead",
    [MEMORY] = "shared memory holds what was written to it",
    [TAKEN] = "what was committed is taken once, and only the dead's last takes are missing",
    [ORDER] = "the messages of a producer arrive in its order",
    [CONTENT] = "the messages are whole",
    [OUTCOMES] = "every item has one outcome, the one that it should have",
    [ONCE] = "no item is begun more often than it may be",
    [VALUES] = "values are right, and streams in order",
    [DEATHS] = "items die as they were told to, or at the hands of the killer",
};

static const char *const tally_names[TALLIES] = {
    [TASKS] = "tasks", [MESSAGES] = "messages", [OPERATIONS] = "operations on locks and memory"};

static const struct part *const parts[] = {&locks_part, &queues_part, &pools_part, &room_part};

enum { PARTS = sizeof parts / sizeof parts[0] };

struct torture torture;

static struct {
    const char *program;
    const struct part *only;
    uint32_t first_round;
    double seconds;
    uint64_t faults;   /* enough */
    int terminal;      /* where the line of progress goes, or -1 */
    off_t said_before; /* to stderr */
    uint64_t checks;
} warden = {.seconds = 8, .first_round = 1, .terminal = -1};

void complain(enum check check, const char *format, ...)
{
    char text[600];
    va_list arguments;

    bri_add_relaxed(&torture.shared->failed[check], 1u);
    if (bri_add_relaxed(&torture.shared->complaints, 1u) >= COMPLAINTS_MAX)
        return;
    int length = snprintf(text, sizeof text,
                          "# violation, seed %llu, round %u (%s): ", (unsigned long long)torture.seed,
                          torture.round, torture.part->name);
    va_start(arguments, format);
    length += vsnprintf(text + length, sizeof text - (size_t)length - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof text - 2)
        length = (int)sizeof text - 2;
    text[length] = '\n';
    if (write(STDOUT_FILENO, text, (size_t)length + 1) < 0)
        abort();
}

void expect_0(int error, const char *what)
{
    expect(CALLS, error == 0, "%s: %d: %s", what, error, brood_error_text());
}

void *shared_pages(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return memory;
}

/* --- options --- */

static _Noreturn void say_usage(int status)
{
    fprintf(
        status == 0 ? stdout : stderr,
        "usage: %s [--seed N] [--first N] [--seconds N] [--faults N] [--part NAME]\n"
        "Kills, stops and crashes processes of locks, queues and pools, and asks the others.\n"
        "  --seed N     the same rounds, objects and victims as the run that printed N; default: from the "
        "environment's\n"
        "               BROOD_TORTURE_SEED, else from getrandom(2)\n"
        "  --first N    begins with round N of the seed\n"
        "  --seconds N  stops after the round in which they are over; default: 8\n"
        "  --faults N   stops when so many faults are done, if that is earlier\n"
        "  --part NAME  locks, queues, pools or room alone\n"
        "The status is 1 when there were violations.\n",
        warden.program);
    exit(status);
}

static double number_of(const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || value < 0)
        say_usage(2);
    return value;
}

static const struct part *part_named(const char *name)
{
    for (uint32_t i = 0; i < PARTS; i++)
        if (strcmp(parts[i]->name, name) == 0)
            return parts[i];
    say_usage(2);
}

static void choose_seed(void)
{
    const char *wanted = getenv("BROOD_TORTURE_SEED");
    uint32_t seed = 0;

    if (wanted == NULL && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        abort();
    torture.seed = wanted != NULL ? strtoull(wanted, NULL, 10) : seed;
}

static void parse_arguments(int count, char **arguments)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"first", required_argument, NULL, 'r'},
                                            {"seconds", required_argument, NULL, 't'},
                                            {"faults", required_argument, NULL, 'f'},
                                            {"part", required_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1)
        if (option == 's')
            torture.seed = strtoull(optarg, NULL, 10);
        else if (option == 'r')
            warden.first_round = (uint32_t)number_of(optarg);
        else if (option == 't')
            warden.seconds = number_of(optarg);
        else if (option == 'f')
            warden.faults = (uint64_t)number_of(optarg);
        else if (option == 'p')
            warden.only = part_named(optarg);
        else
            say_usage(option == 'h' ? 0 : 2);
    if (optind != count)
        say_usage(2);
}

/* --- what is said meanwhile, and by whom nobody waits for --- */

static uint64_t all_faults(void)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < FAULTS; i++)
        sum += bri_load_relaxed(&torture.shared->faults[i]);
    return sum;
}

static void show_progress(int64_t begun)
{
    if (warden.terminal >= 0)
        dprintf(warden.terminal, "\r\033[Kround %u (%s), %llu faults, %u violations, %.0f s", torture.round,
                torture.part->name, (unsigned long long)all_faults(),
                bri_load_relaxed(&torture.shared->complaints), (double)(bri_now_ns() - begun) / 1e9);
}

/* Assertions fail in supervisors and keepers too, of which nobody sees the end: but they say so. */
static void catch_stderr(void)
{
    int fd = memfd_create("torture-stderr", MFD_CLOEXEC);

    if (isatty(STDERR_FILENO))
        warden.terminal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (fd < 0 || fcntl(fd, F_SETFL, O_APPEND) != 0 || dup2(fd, STDERR_FILENO) < 0)
        perror("memfd_create");
    else
        close(fd);
}

static void check_assertions(void)
{
    char said[4000];
    ssize_t got = pread(STDERR_FILENO, said, sizeof said - 1, warden.said_before);

    if (got <= 0)
        return;
    said[got] = '\0';
    warden.said_before += got;
    if (strstr(said, "does not hold") != NULL || strstr(said, "Sanitizer: ") != NULL ||
        strstr(said, "runtime error: ") != NULL)
        complain(PROCESSES, "an assertion failed");
    for (char *line = strtok(said, "\n"); line != NULL; line = strtok(NULL, "\n"))
        printf("# stderr: %s\n", line);
}

/* --- rounds --- */

static void be_controller(pid_t parent)
{
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(98);
    int error = brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = torture.part->arena_bytes));
    expect_0(error, "brood_arena_create");
    if (error == 0) {
        struct stock stock = take_stock();
        torture.part->play_round();
        check_leavings(&stock);
    }
    fflush(stdout);
    _exit(0);
}

static pid_t start_controller(void)
{
    pid_t parent = getpid();

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        be_controller(parent);
    if (pid < 0) {
        perror("fork");
        exit(2);
    }
    return pid;
}

static void kill_one(pid_t pid)
{
    kill(pid, SIGKILL);
}

static void wake_one(pid_t pid)
{
    kill(pid, SIGCONT);
}

/* All that is the owner's goes with it: its pool's workers, its daemons, those that it forked by hand.  Whom it had stopped, nobody else would
 * wake. */
static void kill_controller(pid_t pid, uint32_t after_ms)
{
    int64_t limit = brood_after_ms(WITHIN_MS);

    while (!bri_load_acquire(&torture.shared->ready) && waitpid(pid, NULL, WNOHANG | WNOWAIT) == 0 &&
           bri_now_ns() < limit)
        pause_us(500);
    pause_us(after_ms * 1000);
    kill(pid, SIGKILL);
    note_fault(KILL_OWNER);
    count_session(pid, wake_one);
}

/* Waits for the controller's end; a round that takes too long is printed, and ended. */
static void await_controller(pid_t pid, int64_t begun)
{
    int fd = bri_pidfd_open(pid), status = 0;
    int64_t limit = bri_after_ns(HANGS_AFTER_MS * INT64_C(1000000));

    while (fd >= 0 && bri_pidfd_wait(fd, brood_after_ms(SLICE_MS)) != 0 && bri_now_ns() < limit)
        show_progress(begun);
    if (bri_now_ns() >= limit) {
        complain(HANGS, "not over after %d s", HANGS_AFTER_MS / 1000);
        print_states(pid);
        kill_one(pid);
    }
    if (fd >= 0)
        close(fd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0 && !(torture.is_doomed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        complain(PROCESSES, "the controller ended with status %#x", (unsigned)status);
}

static void check_session(pid_t session)
{
    if (is_session_empty(session, brood_after_ms(GONE_WITHIN_MS)))
        return;
    complain(LEAVINGS, "%d processes are left%s", count_session(session, NULL),
             torture.is_doomed ? " of an owner that was killed" : "");
    print_states(session);
    count_session(session, kill_one);
}

static void begin_round(void)
{
    torture.round++;
    torture.random = torture.seed + torture.round;
    next_random(&torture.random);
    torture.part = warden.only != NULL ? warden.only : parts[torture.round % PARTS];
    torture.is_doomed = below(&torture.random, DOOMED_ONE_IN) == 0;
    torture.next_life = 0;
    torture.seats_count = torture.part->seats;
    memset(torture.seats, 0, sizeof torture.seats);
    memset(torture.shared->seats, 0, sizeof torture.shared->seats);
    bri_store_release(&torture.shared->stop, 0u);
    bri_store_release(&torture.shared->ready, 0u);
    warden.checks |= torture.part->checks | 1u << HANGS | 1u << PROCESSES | 1u << LEAVINGS | 1u << CALLS;
}

static void play_round(int64_t begun)
{
    begin_round();
    show_progress(begun);
    uint32_t after_ms = below(&torture.random, ROUND_MS / 2);
    pid_t controller = start_controller();
    if (torture.is_doomed)
        kill_controller(controller, after_ms);
    await_controller(controller, begun);
    check_session(controller);
    check_assertions();
}

/* --- the end --- */

static void print_faults(void)
{
    for (uint32_t i = 0; i < FAULTS; i++) {
        uint64_t count = bri_load_relaxed(&torture.shared->faults[i]);
        if (count > 0)
            printf("# %8llu  %s\n", (unsigned long long)count, fault_names[i]);
    }
}

static void print_tap(void)
{
    uint32_t number = 0;

    printf("1..%d\n", __builtin_popcountll(warden.checks));
    for (uint32_t i = 0; i < CHECKS; i++)
        if (warden.checks >> i & 1)
            printf("%sok %u - %s\n", bri_load_relaxed(&torture.shared->failed[i]) ? "not " : "", ++number,
                   check_names[i]);
}

static void print_summary(double seconds)
{
    print_faults();
    for (uint32_t i = 0; i < TALLIES; i++)
        printf("# %8llu  %s checked\n", (unsigned long long)bri_load_relaxed(&torture.shared->tallies[i]),
               tally_names[i]);
    printf("# C, seed %llu, %u rounds: %llu faults, %llu tasks, %u violations, %.0f s\n",
           (unsigned long long)torture.seed, torture.round - warden.first_round + 1,
           (unsigned long long)all_faults(),
           (unsigned long long)bri_load_relaxed(&torture.shared->tallies[TASKS]),
           bri_load_relaxed(&torture.shared->complaints), seconds);
}

int main(int count, char **arguments)
{
    static const struct rlimit none = {0, 0};

    warden.program = arguments[0];
    choose_seed();
    parse_arguments(count, arguments);
    setrlimit(RLIMIT_CORE, &none);
    setvbuf(stdout, NULL, _IOLBF, 0);
    torture.shared = shared_pages(sizeof *torture.shared);
    torture.round = warden.first_round > 0 ? warden.first_round - 1 : 0;
    printf("# seed %llu\n", (unsigned long long)torture.seed);
    catch_stderr();
    int64_t begun = bri_now_ns(), end = bri_after_ns((int64_t)(warden.seconds * 1e9));
    do
        play_round(begun);
    while (bri_now_ns() < end && !has_failed() && (warden.faults == 0 || all_faults() < warden.faults));
    if (warden.terminal >= 0)
        dprintf(warden.terminal, "\r\033[K");
    print_tap();
    print_summary((double)(bri_now_ns() - begun) / 1e9);
    return has_failed();
}
