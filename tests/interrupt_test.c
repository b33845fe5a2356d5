/* SPDX-License-Identifier: MIT */
/* brood_on_interrupt: every function that waits ends with -EINTR when the hook says so, and goes on when it does not.  A timer's signal
 * comes again and again, so that no test depends on where it hits. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "brood.h"

enum { PERIOD_US = 5000, TIMES = 3 };

static volatile sig_atomic_t signals;
static int asked, asked_for_end;

static void count_signal(int signal)
{
    (void)signal;
    signals++;
}

static int end_at_once(void)
{
    return signals > 0;
}

/* Says no twice: the wait has to go on. */
static int end_at_third(void)
{
    asked += signals > 0;
    return asked >= TIMES ? ++asked_for_end : 0;
}

static int start_signals(void **unused)
{
    struct sigaction action = {.sa_handler = count_signal};
    struct itimerval every = {{0, PERIOD_US}, {0, PERIOD_US}};

    (void)unused;
    signals = asked = asked_for_end = 0;
    sigaction(SIGALRM, &action, NULL); /* without SA_RESTART, as hosts that want waits to end have it */
    return setitimer(ITIMER_REAL, &every, NULL);
}

static int stop_signals(void **unused)
{
    struct itimerval never = {0};

    (void)unused;
    brood_on_interrupt(NULL);
    return setitimer(ITIMER_REAL, &never, NULL);
}

static void locks_end(void **unused)
{
    brood_lock *lock;
    brood_semaphore *semaphore;
    brood_event *event;
    brood_condition *condition;

    (void)unused;
    assert_int_equal(brood_lock_create(&lock), 0);
    assert_int_equal(brood_semaphore_create(0, &semaphore), 0);
    assert_int_equal(brood_event_create(&event), 0);
    assert_int_equal(brood_condition_create(NULL, &condition), 0);
    brood_on_interrupt(end_at_once);
    assert_int_equal(brood_lock_acquire(lock, BROOD_FOREVER), 0);
    assert_int_equal(brood_lock_acquire(lock, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_semaphore_acquire(semaphore, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_event_wait(event, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_condition_acquire(condition, BROOD_FOREVER), 0);
    assert_int_equal(brood_condition_wait(condition, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_condition_release(condition), 0); /* it came back with the lock */
    assert_int_equal(brood_lock_release(lock), 0);
    assert_int_equal(brood_lock_destroy(lock) | brood_semaphore_destroy(semaphore) |
                         brood_event_destroy(event) | brood_condition_destroy(condition),
                     0);
}

static void barriers_end_and_break(void **unused)
{
    brood_barrier *barrier;

    (void)unused;
    assert_int_equal(brood_barrier_create(2, &barrier), 0);
    brood_on_interrupt(end_at_once);
    assert_int_equal(brood_barrier_wait(barrier, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_barrier_is_broken(barrier), 1); /* the others are not to wait for one who went */
    assert_int_equal(brood_barrier_destroy(barrier), 0);
}

static void queues_end(void **unused)
{
    brood_queue *queue;
    size_t bytes = 99;
    char buffer[8];

    (void)unused;
    assert_int_equal(brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = 1), &queue), 0);
    brood_on_interrupt(end_at_once);
    assert_int_equal(brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_FOREVER), -EINTR);
    assert_int_equal(bytes, 99);
    assert_int_equal(brood_queue_put(queue, "a", 1, BROOD_FOREVER), 0);
    assert_int_equal(brood_queue_put(queue, "b", 1, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_queue_size(queue), 1);
    assert_int_equal(brood_queue_destroy(queue), 0);
}

static int wait_for_ever(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    while (getpid() > 0)
        pause();
    return 0;
}

static int sleep_for_ever(void *argument)
{
    (void)argument;
    while (getpid() > 0)
        pause();
    return 0;
}

static void pools_and_processes_end(void **unused)
{
    brood_pool *pool;
    brood_result *result;
    brood_process *process;

    (void)unused;
    assert_int_equal(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .grace_ms = 1), &pool), 0);
    assert_int_equal(brood_pool_apply_async(pool, wait_for_ever, NULL, 0, 0, &result), 0);
    assert_int_equal(brood_process_start(sleep_for_ever, NULL, NULL, &process), 0);
    brood_on_interrupt(end_at_once);
    assert_int_equal(brood_result_wait(result, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_process_join(process, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_pool_close(pool), 0);
    assert_int_equal(brood_pool_join(pool, BROOD_FOREVER), -EINTR);
    assert_int_equal(brood_pool_destroy(pool), 0); /* goes on to its end, signals or not */
    assert_int_equal(brood_result_destroy(result), 0);
    assert_int_equal(brood_process_kill(process), 0);
    brood_on_interrupt(NULL);
    assert_int_equal(brood_process_join(process, BROOD_FOREVER), 0);
    brood_process_destroy(process);
}

static void waits_go_on_until_told(void **unused)
{
    brood_event *event;

    (void)unused;
    assert_int_equal(brood_event_create(&event), 0);
    brood_on_interrupt(end_at_third);
    assert_int_equal(brood_event_wait(event, BROOD_FOREVER), -EINTR);
    assert_int_equal(asked, TIMES);
    assert_int_equal(asked_for_end, 1);
    brood_on_interrupt(NULL);
    assert_int_equal(brood_event_wait(event, brood_after_ms(4 * PERIOD_US / 1000)), -ETIMEDOUT);
    assert_int_equal(brood_event_destroy(event), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(locks_end, start_signals, stop_signals),
        cmocka_unit_test_setup_teardown(barriers_end_and_break, start_signals, stop_signals),
        cmocka_unit_test_setup_teardown(queues_end, start_signals, stop_signals),
        cmocka_unit_test_setup_teardown(pools_and_processes_end, start_signals, stop_signals),
        cmocka_unit_test_setup_teardown(waits_go_on_until_told, start_signals, stop_signals),
    };

    return cmocka_run_group_tests_name("interrupt", tests, NULL, NULL);
}
