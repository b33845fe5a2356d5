/* SPDX-License-Identifier: MIT */
/*
 * Ends are bounded: however a pool or its owner ends, and whatever its workers do meanwhile, nobody is left.  Every end against every deed, each
 * in an owner of its own.  How long an end takes is not looked at (docs/FAULTS.md has figures): only that none of them hangs.
 */
#include "testing.h"

#include <sys/file.h>

enum { WORKERS = 2, GRACE_MS = 60, OTHERS = 2, STOPS = 8, PIDS = WORKERS * (1 + OTHERS) };

/* Shared by this program, the owner of a round, and all that it starts. */
static struct notes {
    _Atomic int count, may_end;
    _Atomic pid_t pids[PIDS], supervisor;
} * notes;

static int pipe_fds[2];

static int make_notes(void **state)
{
    notes = shared_pages(sizeof *notes);
    return pipe2(pipe_fds, O_CLOEXEC) != 0 || make_arena(state) != 0;
}

static void note_self(void)
{
    bri_store_release(&notes->pids[bri_add_acq_rel(&notes->count, 1)], getpid());
}

static void sleep_for_ever(void)
{
    for (;;)
        pause();
}

static void ignore_all(void)
{
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_IGN); /* those that can be */
}

/* --- what workers do --- */

static void be_deaf(void)
{
    ignore_all();
    note_self();
    sleep_for_ever();
}

static void be_busy(void)
{
    ignore_all();
    note_self();
    for (;;)
        bri_cpu_relax();
}

static void read_pipe(void)
{
    char byte;

    note_self();
    while (read(pipe_fds[0], &byte, 1) != 1) {
    }
}

/* Of two files for the same inode one has the lock; who has it waits for nobody. */
static void wait_for_file_lock(void)
{
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    note_self();
    while (flock(file, LOCK_EX) != 0) {
    }
    sleep_for_ever();
}

/* The parent of a vfork waits in the kernel, and hears nothing but SIGKILL. */
static void wait_in_vfork(void)
{
    note_self();
    pid_t pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
    if (pid == 0)
        for (;;)
            pause();
    sleep_for_ever();
}

static void stop_self(void)
{
    note_self();
    for (;;)
        raise(SIGSTOP);
}

/* In its own session, its parent gone, deaf. */
static void start_runaway(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        setsid();
        pid = fork();
        if (pid == 0)
            be_deaf();
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void have_children(void)
{
    pid_t pid = fork();

    if (pid == 0)
        be_deaf();
    start_runaway();
    be_deaf();
}

struct deed {
    const char *name;
    void (*act)(void);
    int pids; /* of each worker */
};

static const struct deed deeds[] = {{"deaf", be_deaf, 1},
                                    {"busy", be_busy, 1},
                                    {"reads a pipe", read_pipe, 1},
                                    {"waits for a file's lock", wait_for_file_lock, 1},
                                    {"waits in vfork", wait_in_vfork, 1},
                                    {"stopped", stop_self, 1},
                                    {"has deaf children", have_children, 1 + OTHERS}};

static const struct deed *deed_of_round;

static int do_deed(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    deed_of_round->act();
    return 0;
}

/* --- how it ends --- */

static void await_noted(void)
{
    while (bri_load_acquire(&notes->count) < WORKERS * deed_of_round->pids)
        breathe();
}

/* Once terminate and join, or destroy, are back nobody is there any more. */
static void check_that_all_are_gone(void)
{
    for (int i = 0; i < WORKERS * deed_of_round->pids; i++)
        child_check(kill(bri_load_acquire(&notes->pids[i]), 0) != 0 && errno == ESRCH);
}

static void terminate(brood_pool *pool)
{
    child_check(brood_pool_terminate(pool) == 0);
    child_check(brood_pool_join(pool, brood_after_ms(WITHIN_MS)) == 0);
    check_that_all_are_gone();
    child_check(brood_pool_destroy(pool) == 0);
}

static void destroy(brood_pool *pool)
{
    child_check(brood_pool_destroy(pool) == 0);
    check_that_all_are_gone();
}

static void destroy_with_supervisor_stopped(brood_pool *pool)
{
    kill(bri_load_acquire(&notes->supervisor), SIGSTOP);
    destroy(pool);
}

/* From the end's beginning until well into it, again and again; who waits for the end wakes it. */
static void terminate_and_stop_supervisor(brood_pool *pool)
{
    child_check(brood_pool_terminate(pool) == 0);
    for (int i = 0; i < STOPS; i++) {
        kill(bri_load_acquire(&notes->supervisor), SIGSTOP);
        if (brood_pool_join(pool, brood_after_ms(i == STOPS - 1 ? WITHIN_MS : GRACE_MS / 4)) == 0)
            break;
        child_check(i < STOPS - 1);
    }
    destroy(pool);
}

static void leave_by_exit(brood_pool *pool)
{
    (void)pool;
    exit(0);
}

static void leave_at_once(brood_pool *pool)
{
    (void)pool;
    _exit(0);
}

static void wait_for_signal(brood_pool *pool)
{
    (void)pool;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sleep_for_ever();
}

struct end {
    const char *name;
    void (*act)(brood_pool *pool); /* in the owner */
    int signals[2];                /* to the owner, then; 0: none */
    int status;
};

static const struct end ends[] = {
    {"terminate and join", terminate, {0}, 0},
    {"destroy", destroy, {0}, 0},
    {"destroy with a stopped supervisor", destroy_with_supervisor_stopped, {0}, 0},
    {"terminate, and the supervisor is stopped", terminate_and_stop_supervisor, {0}, 0},
    {"exit", leave_by_exit, {0}, 0},
    {"_exit", leave_at_once, {0}, 0},
    {"SIGTERM", wait_for_signal, {SIGTERM}, SIGTERM},
    {"SIGINT", wait_for_signal, {SIGINT}, SIGINT},
    {"SIGKILL", wait_for_signal, {SIGKILL}, SIGKILL},
    {"killed while it is stopped", wait_for_signal, {SIGSTOP, SIGKILL}, SIGKILL},
    {"destroy by an owner that is stopped and goes on", destroy, {SIGSTOP, SIGCONT}, 0},
};

static void own(void *argument)
{
    const struct end *end = argument;
    brood_pool *pool;
    brood_result *result;

    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS, .grace_ms = GRACE_MS), &pool) == 0);
    child_check(brood_pool_map_async(pool, do_deed, NULL, 0, 0, WORKERS, BROOD_MAP_OPTIONS(.chunk_items = 1),
                                     &result) == 0);
    await_noted();
    bri_store_release(&notes->supervisor, supervisor_pid(pool));
    while (bri_load_acquire(&notes->may_end) == 0)
        breathe();
    end->act(pool);
}

static void end_once(const struct end *end, const struct deed *deed)
{
    int pidfds[PIDS + 1] = {0}, count = WORKERS * deed->pids;

    memset(notes, 0, sizeof *notes);
    deed_of_round = deed;
    pid_t owner = start_child(own, (void *)(uintptr_t)end);
    await_true(bri_load_acquire(&notes->supervisor) != 0);
    for (int i = 0; i < count; i++)
        pidfds[i] = pidfd_of(bri_load_acquire(&notes->pids[i]));
    pidfds[count] = pidfd_of(bri_load_acquire(&notes->supervisor));
    bri_store_release(&notes->may_end, 1);
    for (int i = 0; i < 2 && end->signals[i] != 0; i++)
        kill(owner, end->signals[i]);
    int status = status_of(owner);
    if (status != end->status)
        fail_msg("%s, workers: %s: the owner's status is %x", end->name, deed->name, (unsigned)status);
    for (int i = 0; i <= count; i++)
        assert_ends_within(pidfds[i], WITHIN_MS);
}

static void every_end(const struct deed *deed)
{
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        end_once(&ends[i], deed);
}

static void workers_are_deaf(void **unused)
{
    (void)unused;
    every_end(&deeds[0]);
}

static void workers_are_busy(void **unused)
{
    (void)unused;
    every_end(&deeds[1]);
}

static void workers_read_a_pipe(void **unused)
{
    (void)unused;
    every_end(&deeds[2]);
}

static void workers_wait_for_a_files_lock(void **unused)
{
    (void)unused;
    every_end(&deeds[3]);
}

static void workers_wait_in_vfork(void **unused)
{
    (void)unused;
    every_end(&deeds[4]);
}

static void workers_are_stopped(void **unused)
{
    (void)unused;
    every_end(&deeds[5]);
}

static void workers_have_deaf_children(void **unused)
{
    (void)unused;
    every_end(&deeds[6]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(workers_are_deaf),           clean_test(workers_are_busy),
        clean_test(workers_read_a_pipe),        clean_test(workers_wait_for_a_files_lock),
        clean_test(workers_wait_in_vfork),      clean_test(workers_are_stopped),
        clean_test(workers_have_deaf_children),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("ends", tests, make_notes, NULL);
}
