/* SPDX-License-Identifier: MIT */
/* Pools of hosts that have to know of forks: hooks, and a supervisor that is exec'd.  The program starts itself anew; it is position-independent,
 * so that functions lie elsewhere there. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "arena/roster.h"
#include "base/atomic.h"
#include "base/testing.h"
#include "brood.h"
#include "plat/process.h"
#include "pool/pool.h"

enum { WORKERS = 2, ITEMS = 100, FAILED = 9, NOBODY = 65534 };

/* In the arena. */
struct counts {
    _Atomic uint32_t begun, ended, initialized;
    _Atomic uint32_t before, after; /* in the owner */
    _Atomic uint32_t held_up;       /* supervisors that are exec'd wait before they begin */
};

static int square(brood_task *task, const void *item, void *result)
{
    long value = *(const long *)item;

    (void)task;
    if (value < 0)
        raise(SIGKILL);
    *(long *)result = value * value;
    return 0;
}

static void worker_begins(void *argument)
{
    bri_add_relaxed(&((struct counts *)argument)->begun, 1u);
}

static void worker_ends(void *argument)
{
    bri_add_relaxed(&((struct counts *)argument)->ended, 1u);
}

static void before_fork(void *argument)
{
    bri_add_relaxed(&((struct counts *)argument)->before, 1u);
}

static void after_fork(void *argument)
{
    bri_add_relaxed(&((struct counts *)argument)->after, 1u);
}

static int initialize(void *argument)
{
    bri_add_relaxed(&((struct counts *)argument)->initialized, 1u);
    return 0;
}

/* --- the exec'd process: program, fd, base, bytes, pool, anchor, supervisor, counts --- */

static uint64_t number_of(const char *text)
{
    return strtoull(text, NULL, 16);
}

static int be_supervisor(char **arguments)
{
    brood_arena_ticket arena = {.size = sizeof arena,
                                .fd = (int)number_of(arguments[1]),
                                .base = number_of(arguments[2]),
                                .window_bytes = number_of(arguments[3])};
    brood_pool_ticket pool = {.size = sizeof pool,
                              .pool = number_of(arguments[4]),
                              .anchor = number_of(arguments[5]),
                              .supervisor = (uint32_t)number_of(arguments[6])};
    void *counts = (void *)(uintptr_t)number_of(arguments[7]); /* NOLINT(performance-no-int-to-ptr) */

    if (brood_arena_attach(&arena) < 0)
        return FAILED;
    while (bri_load_acquire(&((struct counts *)counts)->held_up))
        sched_yield();
    brood_pool_supervise(
        &pool,
        BROOD_POOL_OPTIONS(.initializer = initialize, .initializer_argument = counts,
                           .hooks = BROOD_POOL_HOOKS(.worker_begins = worker_begins,
                                                     .worker_ends = worker_ends, .argument = counts)),
        square);
    return FAILED;
}

static int start_by_exec(void *argument, const brood_pool_ticket *ticket)
{
    brood_arena_ticket arena = {.size = sizeof arena};
    char text[7][24];

    if (brood_arena_ticket_get(&arena) < 0)
        return -ENOMEM;
    uint64_t numbers[7] = {
        (uint64_t)dup(arena.fd), arena.base,         arena.window_bytes,           ticket->pool,
        ticket->anchor,          ticket->supervisor, (uint64_t)(uintptr_t)argument};
    for (int i = 0; i < 7; i++)
        snprintf(text[i], sizeof text[i], "%llx", (unsigned long long)numbers[i]);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "supervisor", text[0], text[1], text[2], text[3], text[4], text[5], text[6],
              (char *)NULL);
        _exit(127);
    }
    close((int)numbers[0]);
    return pid;
}

static int start_nothing(void *argument, const brood_pool_ticket *ticket)
{
    (void)argument, (void)ticket;
    return -EAGAIN;
}

static int start_and_fail(void *argument, const brood_pool_ticket *ticket)
{
    pid_t pid = fork();

    (void)argument, (void)ticket;
    if (pid == 0)
        _exit(FAILED);
    return pid;
}

/* --- the tests --- */

static struct counts *counts;

static int make_counts(void **unused)
{
    void *memory;

    (void)unused;
    alarm(60);
    if (brood_alloc(sizeof *counts, &memory) < 0)
        return -1;
    counts = memory;
    return 0;
}

static int free_counts(void **unused)
{
    (void)unused;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    return brood_free(counts);
}

static void map_squares(brood_pool *pool)
{
    long items[ITEMS], results[ITEMS];

    for (long i = 0; i < ITEMS; i++)
        items[i] = i;
    assert_int_equal(
        brood_pool_map(pool, square, items, sizeof *items, results, sizeof *results, ITEMS, NULL), 0);
    for (long i = 0; i < ITEMS; i++)
        assert_int_equal(results[i], i * i);
}

static void lose_one(brood_pool *pool)
{
    long item = -1, result;

    assert_int_equal(brood_pool_apply(pool, square, &item, sizeof item, &result, sizeof result), -EOWNERDEAD);
}

static brood_pool *create(int (*start_supervisor)(void *, const brood_pool_ticket *))
{
    brood_pool *pool = NULL;
    int error = brood_pool_create(
        BROOD_POOL_OPTIONS(.workers = WORKERS, .in_background = start_supervisor == start_by_exec,
                           .initializer = initialize, .initializer_argument = counts,
                           .hooks =
                               BROOD_POOL_HOOKS(.before_fork = before_fork, .after_fork = after_fork,
                                                .worker_begins = worker_begins, .worker_ends = worker_ends,
                                                .start_supervisor = start_supervisor, .anchor = square,
                                                .argument = counts)),
        &pool);

    assert_int_equal(error, 0);
    return pool;
}

static void close_and_join(brood_pool *pool)
{
    assert_int_equal(brood_pool_close(pool), 0);
    assert_int_equal(brood_pool_join(pool, BROOD_FOREVER), 0);
    assert_int_equal(brood_pool_destroy(pool), 0);
}

static void hooks_are_called_around_forks(void **unused)
{
    brood_pool *pool = create(NULL);

    (void)unused;
    assert_int_equal(bri_load_relaxed(&counts->before), 1);
    assert_int_equal(bri_load_relaxed(&counts->after), 1);
    assert_int_equal(bri_load_relaxed(&counts->begun), WORKERS);
    assert_int_equal(bri_load_relaxed(&counts->initialized), WORKERS);
    map_squares(pool);
    lose_one(pool); /* its successor is forked by the supervisor, of which the owner knows nothing */
    map_squares(pool);
    assert_int_equal(bri_load_relaxed(&counts->before), 1);
    close_and_join(pool);
    uint32_t ended = bri_load_relaxed(&counts->ended), begun = bri_load_relaxed(&counts->begun);
    assert_true(ended + 1 == begun); /* all but the one that was killed */
}

static void an_exec_d_supervisor_forks_the_workers(void **unused)
{
    brood_pool *pool = create(start_by_exec);

    (void)unused;
    map_squares(pool);
    lose_one(pool);
    map_squares(pool);
    close_and_join(pool);
    assert_int_equal(bri_load_relaxed(&counts->before), 0);
    assert_true(bri_load_relaxed(&counts->initialized) >= WORKERS);
    assert_int_equal(bri_load_relaxed(&counts->ended) + 1, bri_load_relaxed(&counts->begun));
}

static void another_is_exec_d_when_it_is_killed(void **unused)
{
    brood_pool *pool = create(start_by_exec);

    (void)unused;
    map_squares(pool);
    bri_name first = bri_load_acquire(&pool->shared->supervisor);
    kill((pid_t)bri_roster_pid_of(first), SIGKILL);
    map_squares(pool); /* perhaps by those who are about to die with it */
    lose_one(pool);
    map_squares(pool);
    assert_true(bri_load_acquire(&pool->shared->supervisor) != first);
    close_and_join(pool);
}

static void one_that_has_not_begun_lives_to_see_what_it_is_rung_for(void **unused)
{
    (void)unused;
    for (int is_terminated = 0; is_terminated < 2; is_terminated++) {
        bri_store_release(&counts->held_up, 1u);
        brood_pool *pool = create(start_by_exec);
        bri_name first = bri_load_acquire(&pool->shared->supervisor);
        assert_int_equal(is_terminated ? brood_pool_terminate(pool) : brood_pool_close(pool), 0);
        bri_store_release(&counts->held_up, 0u);
        assert_int_equal(brood_pool_join(pool, BROOD_FOREVER), 0);
        assert_int_equal(bri_load_acquire(&pool->shared->supervisor), first);
        assert_int_equal(brood_pool_destroy(pool), 0);
    }
}

static int ignore_and_wait(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    signal(SIGTERM, SIG_IGN);
    for (;;)
        pause();
    return 0;
}

/* In a process of its own, whose supervisor cannot be signalled any more: it is rung, and kills. */
static int destroy_without_rights(void)
{
    brood_pool *pool;
    brood_result *result;

    alarm(60);
    if (brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .grace_ms = 10,
                                             .hooks = BROOD_POOL_HOOKS(.start_supervisor = start_by_exec,
                                                                       .anchor = square, .argument = counts)),
                          &pool) < 0 ||
        setuid(NOBODY) != 0 || bri_pidfd_signal(pool->supervisor_fd, 0) != -EPERM ||
        brood_pool_apply_async(pool, ignore_and_wait, NULL, 0, 0, &result) < 0)
        return 1;
    while (!bri_load_acquire(&bri_pool_seat(pool->shared, 0)->visiting))
        sched_yield();
    return brood_pool_destroy(pool) == 0 && brood_result_destroy(result) == 0 ? 0 : 2;
}

static void its_owner_may_give_up_its_rights(void **unused)
{
    int status = 0;

    (void)unused;
    if (getuid() != 0)
        skip_because("only root has rights to give up");
    pid_t pid = fork();
    if (pid == 0)
        _exit(destroy_without_rights());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void a_supervisor_that_cannot_be_started_is_an_error(void **unused)
{
    brood_pool *pool = NULL;
    brood_pool_hooks hooks = {.size = sizeof hooks, .start_supervisor = start_nothing, .anchor = square};

    (void)unused;
    assert_int_equal(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .hooks = &hooks), &pool), -EAGAIN);
    hooks.start_supervisor = start_and_fail;
    assert_int_equal(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .hooks = &hooks), &pool),
                     -ENOTRECOVERABLE);
    hooks.anchor = NULL;
    assert_int_equal(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .hooks = &hooks), &pool), -EINVAL);
    assert_null(pool);
}

static void bad_tickets_are_refused(void **unused)
{
    brood_pool_ticket ticket = {.size = sizeof ticket, .pool = 64};
    brood_pool *pool = create(NULL);

    (void)unused;
    assert_int_equal(brood_pool_supervise(NULL, NULL, square), -EINVAL);
    assert_int_equal(brood_pool_supervise(&ticket, NULL, square), -EINVAL);
    ticket.pool = bri_offset_of(pool->shared);
    assert_int_equal(brood_pool_supervise(&ticket, NULL, square), -EINVAL); /* not its supervisor's name */
    ticket.supervisor = bri_load_acquire(&pool->shared->supervisor);
    assert_int_equal(brood_pool_supervise(&ticket, NULL, NULL), -EINVAL);
    assert_int_equal(brood_pool_supervise(&ticket, NULL, square), -EINVAL); /* it has one */
    close_and_join(pool);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hooks_are_called_around_forks, make_counts, free_counts),
        cmocka_unit_test_setup_teardown(an_exec_d_supervisor_forks_the_workers, make_counts, free_counts),
        cmocka_unit_test_setup_teardown(another_is_exec_d_when_it_is_killed, make_counts, free_counts),
        cmocka_unit_test_setup_teardown(one_that_has_not_begun_lives_to_see_what_it_is_rung_for, make_counts,
                                        free_counts),
        cmocka_unit_test_setup_teardown(its_owner_may_give_up_its_rights, make_counts, free_counts),
        cmocka_unit_test_setup_teardown(a_supervisor_that_cannot_be_started_is_an_error, make_counts,
                                        free_counts),
        cmocka_unit_test_setup_teardown(bad_tickets_are_refused, make_counts, free_counts),
    };

    if (count == 8)
        return be_supervisor(arguments);
    return cmocka_run_group_tests_name("supervise", tests, NULL, NULL);
}
