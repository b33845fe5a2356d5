/* SPDX-License-Identifier: MIT */
/* What the harness must catch, and what it must not. */
#define _GNU_SOURCE
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LOOP_TURNS = 200,
    LOOKS = 30,         /* at things that others do, or do not, notice */
    NOTICED_ALWAYS = 8, /* at most: the first steps of any victim, and its end */
    NOTICED_PER_LOOK = 8,
    NOTICED_WITH_THREADS = 5, /* all calls with descriptors */
};

struct shared {
    atomic_int lock;
    long counter;
    long left, right;
    pthread_mutex_t robust;
    pid_t middle, worker;
    int jobs_fd, acks_fd, child_fds[2];
    int stat_fd, pipe_fds[2];
    char text[512];
    atomic_int handled, signals, finished;
};

static void *make_shared(void)
{
    return stepkill_shared(sizeof(struct shared));
}

/* --- a spinlock that dies with its owner: wedges ---------------------------------------------- */

static void add_under_spinlock(void *ctx)
{
    struct shared *s = ctx;
    int unlocked = 0;
    stepkill_begin();
    while (!atomic_compare_exchange_strong(&s->lock, &unlocked, 1))
        unlocked = 0;
    s->counter++;
    atomic_store(&s->lock, 0);
    stepkill_end();
}

static int check_spinlock(void *ctx)
{
    struct shared *s = ctx;
    add_under_spinlock(s);
    return s->counter == 1 || s->counter == 2 ? 0 : stepkill_fail("counter is %ld", s->counter);
}

/* --- a transfer in two steps: money is lost --------------------------------------------------- */

static void *make_accounts(void)
{
    struct shared *s = make_shared();
    s->left = 10;
    return s;
}

static void transfer(void *ctx)
{
    volatile struct shared *s = ctx;
    stepkill_begin();
    s->left--;
    s->right++;
    stepkill_end();
}

static int check_accounts(void *ctx)
{
    const struct shared *s = ctx;
    return s->left + s->right == 10 ? 0 : stepkill_fail("%ld + %ld is not 10", s->left, s->right);
}

/* --- a robust mutex: clean -------------------------------------------------------------------- */

static void *make_robust(void)
{
    struct shared *s = make_shared();
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&s->robust, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return s;
}

static void add_under_robust(void *ctx)
{
    struct shared *s = ctx;
    stepkill_begin();
    if (pthread_mutex_lock(&s->robust) == EOWNERDEAD)
        pthread_mutex_consistent(&s->robust);
    s->counter++;
    pthread_mutex_unlock(&s->robust);
    stepkill_end();
}

static int check_robust(void *ctx)
{
    struct shared *s = ctx;
    add_under_robust(s);
    return s->counter == 1 || s->counter == 2 ? 0 : stepkill_fail("counter is %ld", s->counter);
}

/* The same after a long loop: most of the way is not single-stepped. */
static void add_after_loop(void *ctx)
{
    struct shared *s = ctx;
    volatile long turns = 0;
    stepkill_begin();
    for (turns = 0; turns < LOOP_TURNS; turns++)
        continue;
    if (pthread_mutex_lock(&s->robust) == EOWNERDEAD)
        pthread_mutex_consistent(&s->robust);
    s->counter++;
    pthread_mutex_unlock(&s->robust);
    stepkill_end();
}

/* A loop, then a transfer in two steps: the shortcut must not jump over the gap. */
static void transfer_after_loop(void *ctx)
{
    volatile struct shared *s = ctx;
    stepkill_begin();
    for (s->counter = 0; s->counter < LOOP_TURNS; s->counter++)
        continue;
    s->left--;
    s->right++;
    stepkill_end();
}

/* --- a process that is not our child ---------------------------------------------------------- */

/*
 * setup -> middle -> worker. The worker sleeps in read; between its two steps it has taken a job and not yet
 * answered. The middle process reaps it and, in the good family, answers for it.
 */
static _Noreturn void be_worker(struct shared *s)
{
    eventfd_t job;
    for (;;) {
        if (eventfd_read(s->jobs_fd, &job) != 0)
            continue;
        atomic_fetch_add(&s->handled, 1);
        eventfd_write(s->acks_fd, 1);
    }
}

static _Noreturn void be_middle(struct shared *s, int answers)
{
    const pid_t worker = fork();
    if (worker == 0)
        be_worker(s);
    s->worker = worker;
    eventfd_write(s->child_fds[0], 1);
    while (waitpid(worker, NULL, 0) < 0)
        continue;
    if (answers)
        eventfd_write(s->acks_fd, 1);
    _exit(0);
}

static void *make_family(int answers)
{
    struct shared *s = make_shared();
    eventfd_t ready;
    s->jobs_fd = eventfd(0, EFD_CLOEXEC);
    s->acks_fd = eventfd(0, EFD_CLOEXEC);
    s->child_fds[0] = eventfd(0, EFD_CLOEXEC);
    s->middle = fork();
    if (s->middle == 0)
        be_middle(s, answers);
    return s->middle > 0 && eventfd_read(s->child_fds[0], &ready) == 0 ? s : NULL;
}

static void *make_good_family(void)
{
    return make_family(1);
}

static void *make_bad_family(void)
{
    return make_family(0);
}

static pid_t worker_pid(void *ctx)
{
    return ((struct shared *)ctx)->worker;
}

static int give_job(void *ctx)
{
    const struct shared *s = ctx;
    return eventfd_write(s->jobs_fd, 1) == 0 ? 0 : stepkill_fail("eventfd: %s", strerror(errno));
}

static int check_family(void *ctx)
{
    const struct shared *s = ctx;
    eventfd_t acks;
    waitpid(s->middle, NULL, 0);
    return eventfd_read(s->acks_fd, &acks) == 0 ? 0 : stepkill_fail("eventfd: %s", strerror(errno));
}

/* --- blocking system calls, signals and children in the stepped operation --------------------- */

static struct shared *handler_state;

static void count_signal(int signal)
{
    (void)signal;
    atomic_fetch_add(&handler_state->signals, 1);
}

static void *make_fds(void)
{
    struct shared *s = make_shared();
    s->jobs_fd = eventfd(0, EFD_CLOEXEC);
    handler_state = s;
    signal(SIGUSR1, count_signal);
    return s;
}

/* Sleeps until the driver wakes it, is signalled, forks and vforks children which must run free. */
static void sleep_and_fork(void *ctx)
{
    struct shared *s = ctx;
    eventfd_t job;
    stepkill_begin();
    eventfd_read(s->jobs_fd, &job);
    raise(SIGUSR1);
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    int status = 0;
    waitpid(child, &status, 0);
    child = vfork();
    if (child == 0)
        _exit(8);
    waitpid(child, &s->child_fds[1], 0);
    s->child_fds[0] = status;
    atomic_store(&s->finished, 1);
    stepkill_end();
}

static void wake_victim(void *ctx)
{
    eventfd_write(((struct shared *)ctx)->jobs_fd, 1);
}

/* A group-stop in the operation; the driver continues it. */
static void stop_itself(void *ctx)
{
    struct shared *s = ctx;
    s->worker = getpid();
    stepkill_begin();
    raise(SIGSTOP);
    atomic_store(&s->finished, 1);
    stepkill_end();
}

static void continue_victim(void *ctx)
{
    kill(((struct shared *)ctx)->worker, SIGCONT);
}

/* Without the continuation it would never be over, and wedge. */
static int is_finished(void *ctx)
{
    return atomic_load(&((struct shared *)ctx)->finished);
}

static int check_children(void *ctx)
{
    const struct shared *s = ctx;
    if (atomic_load(&s->finished) == 0)
        return 0;
    if (atomic_load(&s->signals) != 1)
        return stepkill_fail("%d signals", atomic_load(&s->signals));
    if (WEXITSTATUS(s->child_fds[0]) != 7 || WEXITSTATUS(s->child_fds[1]) != 8)
        return stepkill_fail("children ended with 0x%x, 0x%x", s->child_fds[0], s->child_fds[1]);
    return 0;
}

/* --- a child that nobody ends: reported ------------------------------------------------------- */

static void leave_orphan(void *ctx)
{
    (void)ctx;
    stepkill_begin();
    if (fork() == 0)
        for (;;)
            poll(NULL, 0, -1);
    stepkill_end();
}

static int check_nothing(void *ctx)
{
    (void)ctx;
    return 0;
}

/* --- system calls that others notice, and those that they do not (quiet.h) --------------------- */

static void *make_looks(void)
{
    struct shared *s = make_shared();
    s->stat_fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (s->stat_fd < 0 || pipe2(s->pipe_fds, O_CLOEXEC) != 0)
        return NULL;
    return write(s->pipe_fds[1], s->text, LOOKS) == LOOKS ? s : NULL;
}

static void look_into_proc(void *ctx)
{
    char text[512];
    (void)ctx;
    stepkill_begin();
    for (int i = 0; i < LOOKS; i++) {
        const int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const ssize_t got = getdents64(proc, text, sizeof text);
        const int stat = openat(proc, "self/stat", O_RDONLY | O_CLOEXEC);
        if (got <= 0 || read(stat, text, sizeof text) <= 0 || lseek(stat, 0, SEEK_SET) != 0 ||
            openat(proc, "0/stat", O_RDONLY | O_CLOEXEC) >= 0)
            _exit(1);
        close(stat);
        close(proc);
    }
    stepkill_end();
}

/* What is like it, but: a pipe is closed and read, a position is the driver's too, a buffer is shared, a file is no such file. */
static void do_noticed_things(void *ctx)
{
    struct shared *s = ctx;
    char text[512];
    stepkill_begin();
    for (int i = 0; i < LOOKS; i++) {
        close(dup(s->pipe_fds[1]));
        const int stat = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
        if (read(s->pipe_fds[0], text, 1) != 1 || read(s->stat_fd, text, sizeof text) < 0 ||
            lseek(s->stat_fd, 0, SEEK_SET) != 0 || read(stat, s->text, sizeof s->text) <= 0)
            _exit(1);
        close(stat);
        close(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    }
    stepkill_end();
}

/* A descriptor that a child has, too. */
static void look_after_fork(void *ctx)
{
    stepkill_begin();
    const int stat = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    const pid_t child = fork();
    if (child == 0)
        _exit(0);
    for (int i = 0; i < LOOKS; i++)
        if (lseek(stat, i, SEEK_SET) != i)
            _exit(1);
    waitpid(child, NULL, 0);
    stepkill_end();
    (void)ctx;
}

static void *sleep_for_ever(void *unused)
{
    for (;;)
        poll(NULL, 0, -1);
    return unused;
}

/* Another thread might fork at any time. */
static void look_with_threads(void *ctx)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleep_for_ever, NULL) != 0)
        _exit(1);
    look_into_proc(ctx);
}

/* Between its two steps it has taken a byte, and not told. */
static void take_byte(void *ctx)
{
    struct shared *s = ctx;
    char byte;
    stepkill_begin();
    if (read(s->pipe_fds[0], &byte, 1) == 1)
        s->counter = 1;
    stepkill_end();
}

static int check_bytes(void *ctx)
{
    struct shared *s = ctx;
    const ssize_t left = read(s->pipe_fds[0], s->text, sizeof s->text);
    return left + s->counter == LOOKS ? 0 : stepkill_fail("%zd bytes and %ld", left, s->counter);
}

/* The same with the position in a file of /proc that is open in the driver, too. */
static void move_position(void *ctx)
{
    struct shared *s = ctx;
    char text[512];
    stepkill_begin();
    if (read(s->stat_fd, text, sizeof text) > 0)
        s->counter = 1;
    stepkill_end();
}

static int check_position(void *ctx)
{
    const struct shared *s = ctx;
    const int has_moved = lseek(s->stat_fd, 0, SEEK_CUR) > 0;
    return has_moved == s->counter ? 0 : stepkill_fail("it has moved: %d, %ld", has_moved, s->counter);
}

const struct stepkill_scenario stepkill_selftest[] = {
    {.name = "selftest.spinlock",
     .setup = make_shared,
     .victim = add_under_spinlock,
     .check = check_spinlock,
     .timeout_ms = 250,
     .expect = STEPKILL_WEDGES},
    {.name = "selftest.transfer",
     .setup = make_accounts,
     .victim = transfer,
     .check = check_accounts,
     .expect = STEPKILL_VIOLATES},
    {.name = "selftest.robust", .setup = make_robust, .victim = add_under_robust, .check = check_robust},
    {.name = "selftest.loop-robust", .setup = make_robust, .victim = add_after_loop, .check = check_robust},
    {.name = "selftest.loop-transfer",
     .setup = make_accounts,
     .victim = transfer_after_loop,
     .check = check_accounts,
     .expect = STEPKILL_VIOLATES},
    {.name = "selftest.grandchild",
     .setup = make_good_family,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_family},
    {.name = "selftest.grandchild-bad",
     .setup = make_bad_family,
     .victim_pid = worker_pid,
     .provoke = give_job,
     .check = check_family,
     .timeout_ms = 250,
     .expect = STEPKILL_WEDGES},
    {.name = "selftest.blocks-and-forks",
     .setup = make_fds,
     .victim = sleep_and_fork,
     .unblock = wake_victim,
     .check = check_children},
    {.name = "selftest.stop-continue",
     .setup = make_shared,
     .victim = stop_itself,
     .unblock = continue_victim,
     .settled = is_finished,
     .check = check_nothing},
    {.name = "selftest.orphan",
     .setup = make_shared,
     .victim = leave_orphan,
     .check = check_nothing,
     .expect = STEPKILL_VIOLATES},
    {.name = "selftest.quiet",
     .setup = make_looks,
     .victim = look_into_proc,
     .check = check_nothing,
     .noticed_least = 1,
     .noticed_most = NOTICED_ALWAYS},
    {.name = "selftest.noticed",
     .setup = make_looks,
     .victim = do_noticed_things,
     .check = check_nothing,
     .noticed_least = LOOKS * NOTICED_PER_LOOK,
     .noticed_most = LOOKS * NOTICED_PER_LOOK + NOTICED_ALWAYS},
    {.name = "selftest.noticed-after-fork",
     .setup = make_looks,
     .victim = look_after_fork,
     .check = check_nothing,
     .noticed_least = LOOKS},
    {.name = "selftest.noticed-with-threads",
     .setup = make_looks,
     .victim = look_with_threads,
     .check = check_nothing,
     .noticed_least = LOOKS * NOTICED_WITH_THREADS},
    {.name = "selftest.takes-byte",
     .setup = make_looks,
     .victim = take_byte,
     .check = check_bytes,
     .expect = STEPKILL_VIOLATES},
    {.name = "selftest.moves-position",
     .setup = make_looks,
     .victim = move_position,
     .check = check_position,
     .expect = STEPKILL_VIOLATES},
    {.name = NULL},
};
