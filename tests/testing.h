/* SPDX-License-Identifier: MIT */
/*
 * What the tests across layers share: a check for leaks around each test, children that must not fail by cmocka (whose longjmp would go on
 * with its parent's tests), deadlines instead of sleeps.
 */
#ifndef BROOD_TESTING_H
#define BROOD_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/atomic.h"
#include "base/testing.h"
#include "base/time.h"
#include "brood.h"
#include "plat/process.h"
#include "pool/pool.h"

enum { WITHIN_MS = 30000, TEST_SECONDS = 120 };

/* --- waiting --- */

static inline void breathe(void)
{
    poll(NULL, 0, 1);
}

/* Looks again and again until the condition holds; fails after WITHIN_MS. */
#define await_true(condition)                            \
    do {                                                 \
        int64_t await_end = brood_after_ms(WITHIN_MS);   \
        while (!(condition) && bri_now_ns() < await_end) \
            breathe();                                   \
        assert_true(condition);                          \
    } while (0)

/* A descriptor of any process, or -1 when it has ended. */
static inline int pidfd_of(pid_t pid)
{
    int fd = bri_pidfd_open(pid);

    return fd < 0 ? -1 : fd;
}

/* Closes the descriptor. */
static inline void assert_ends_within(int pidfd, int64_t milliseconds)
{
    if (pidfd < 0)
        return;
    int error = bri_pidfd_wait(pidfd, brood_after_ms(milliseconds));
    close(pidfd);
    assert_int_equal(error, 0);
}

/* --- refusals --- */

/* The errno, and a sentence that names the argument. */
#define assert_refused(call, err, argument)                                                 \
    do {                                                                                    \
        assert_int_equal((call), -(err));                                                   \
        if (strstr(brood_error_text(), (argument)) == NULL)                                 \
            fail_msg("%s: \"%s\" does not name %s", #call, brood_error_text(), (argument)); \
    } while (0)

#define assert_ok(call)                                                  \
    do {                                                                 \
        int ok_error = (call);                                           \
        if (ok_error != 0)                                               \
            fail_msg("%s: %d: %s", #call, ok_error, brood_error_text()); \
    } while (0)

/* --- children --- */

#define child_check(condition)                                                                         \
    ((condition) ? (void)0                                                                             \
                 : (dprintf(STDERR_FILENO, "# %s:%d: does not hold in the child: %s (%s)\n", __FILE__, \
                            __LINE__, #condition, brood_error_text()),                                 \
                    _exit(99)))

/* cmocka's handlers of crashes go on with the next test: not in a child or worker. */
static inline void crash_for_real(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS};

    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_DFL);
}

/* A child that the user forked; it ends with 0 after function(argument), and with its parent. */
static inline pid_t start_child(void (*function)(void *argument), void *argument)
{
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(98);
        crash_for_real();
        function(argument);
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

static inline int status_of(pid_t pid)
{
    int status = -1;
    pid_t waited;

    do
        waited = waitpid(pid, &status, 0);
    while (waited < 0 && errno == EINTR);
    assert_int_equal(waited, pid);
    return status;
}

#define assert_exits_well(pid) assert_int_equal(status_of(pid), 0)

/* Runs function(argument) in a child and fails if it does. */
static inline void in_child(void (*function)(void *argument), void *argument)
{
    assert_exits_well(start_child(function, argument));
}

/* Zeroed, and shared with all children forked later. */
static inline void *shared_pages(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(memory != MAP_FAILED);
    return memory;
}

/* --- random, from a printed seed --- */

static inline uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* BROOD_TEST_SEED replays. */
static inline uint32_t choose_seed(void)
{
    const char *wanted = getenv("BROOD_TEST_SEED");
    uint32_t seed =
        wanted != NULL ? (uint32_t)strtoul(wanted, NULL, 10) : (uint32_t)brood_random_between(1, UINT32_MAX);

    fprintf(stderr, "# BROOD_TEST_SEED=%u\n", (unsigned)seed);
    return seed;
}

/* --- looking into pools --- */

static inline pid_t supervisor_pid(brood_pool *pool)
{
    return (pid_t)bri_roster_pid_of(bri_load_acquire(&pool->shared->supervisor));
}

static inline brood_pool *new_pool(uint32_t workers)
{
    brood_pool *pool = NULL;

    crash_for_real();
    assert_ok(brood_pool_create(BROOD_POOL_OPTIONS(.workers = workers), &pool));
    return pool;
}

/* Visits it a job, other than to listen for calls? */
static inline int is_at_job(brood_pool *pool, uint32_t worker)
{
    uint64_t visiting = bri_load_acquire(&bri_pool_seat(pool->shared, worker)->visiting);

    return visiting != 0 && !(visiting & BRI_VISIT_LISTEN);
}

/* --- leaks --- */

struct resources {
    int descriptors, children, mappings;
    uint64_t blocks;
    uint32_t participants;
};

/* Field 4 of /proc/PID/stat. */
static inline pid_t parent_of(const char *pid)
{
    char path[300], stat[512] = "";
    long parent = 0;

    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fgets(stat, sizeof stat, file) != NULL && strrchr(stat, ')') != NULL)
        parent = strtol(strrchr(stat, ')') + 4, NULL, 10);
    fclose(file);
    return (pid_t)parent;
}

static inline int count_children(void)
{
    DIR *processes = opendir("/proc");
    int count = 0;

    assert_non_null(processes);
    for (struct dirent *entry; (entry = readdir(processes)) != NULL;)
        count += entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && parent_of(entry->d_name) == getpid();
    closedir(processes);
    return count;
}

/* Nobody watches children that the user forked. */
static inline void report_the_ended(void)
{
    for (uint32_t slot = 0; slot < bri_load_acquire(&bri_arena_current->header->slots_high); slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (state == BRI_SLOT_LIVE)
            bri_report_if_ended(name);
    }
}

static inline struct resources take_stock(void)
{
    report_the_ended();
    brood_arena_stats stats = {.size = sizeof stats};

    assert_ok(brood_arena_stats_get(&stats));
    return (struct resources){.descriptors = count_entries("/proc/self/fd"),
                              .children = count_children(),
                              .mappings = count_arena_mappings(),
                              .blocks = stats.used_blocks,
                              .participants = stats.participants};
}

static inline int is_same(const struct resources *a, const struct resources *b)
{
    return a->descriptors == b->descriptors && a->children == b->children && a->mappings == b->mappings &&
           a->blocks == b->blocks && a->participants == b->participants;
}

static struct resources stock;

/* Before each test.  A test that hangs ends the program. */
static inline int note_resources(void **unused)
{
    (void)unused;
    stock = take_stock();
    alarm(TEST_SECONDS);
    return 0;
}

static inline void print_block(struct bri_block_shm *block, uint64_t tag, void *unused)
{
    (void)unused;
    fprintf(stderr, "# block of kind %d, owner %x, %llu bytes\n", (int)bri_tag_kind(tag),
            (unsigned)bri_tag_owner(tag), (unsigned long long)bri_load_relaxed(&block->bytes));
}

/* What a group does to have its pool free what it keeps for later. */
static void (*tidy_up)(void) = breathe;

/* Supervisors and keepers that end by themselves are given time. */
static inline void assert_nothing_leaked(void)
{
    int64_t end = brood_after_ms(5000);
    struct resources now = take_stock();

    while (!is_same(&now, &stock) && bri_now_ns() < end) {
        tidy_up();
        now = take_stock();
    }
    if (now.blocks != stock.blocks)
        bri_heap_walk(print_block, NULL);
    if (!is_same(&now, &stock))
        fail_msg("leaked, before → after: descriptors %d → %d, children %d → %d, mappings %d → %d, blocks "
                 "%llu → %llu, "
                 "participants %u → %u",
                 stock.descriptors, now.descriptors, stock.children, now.children, stock.mappings,
                 now.mappings, (unsigned long long)stock.blocks, (unsigned long long)now.blocks,
                 (unsigned)stock.participants, (unsigned)now.participants);
}

/* After each test. */
static inline int check_resources(void **unused)
{
    (void)unused;
    alarm(0);
    assert_nothing_leaked();
    errno = 0;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    return 0;
}

#define clean_test(function) cmocka_unit_test_setup_teardown(function, note_resources, check_resources)

/* First in main.  BROOD_TEST_ONLY: a pattern of names. */
static inline void prepare_tests(void)
{
    const struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    if (getenv("BROOD_TEST_ONLY") != NULL)
        cmocka_set_test_filter(getenv("BROOD_TEST_ONLY"));
}

/* For the group: the arena is there before the first test takes stock. */
static inline int make_arena(void **unused)
{
    void *memory = NULL;

    (void)unused;
    return brood_alloc(1, &memory) < 0 || brood_free(memory) < 0;
}

#endif
