/* SPDX-License-Identifier: MIT */
/* The event count: nobody who looked too early sleeps on, and nobody makes a system call for nothing. */
#include "sync/event.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/time.h"
#include "brood.h"
#include "plat/futex.h"

enum { SLEEPERS = 4, ROUNDS = 2000, WITHIN_MS = 30000 };

static struct shared {
    _Atomic uint32_t event;
    _Atomic int tokens, taken;
    _Atomic bri_name child;
} * shared;

static int enter(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return bri_arena_enter();
}

static int clear(void **state)
{
    (void)state;
    *shared = (struct shared){0};
    return 0;
}

static int take_token(void *unused)
{
    int seen = bri_load_relaxed(&shared->tokens);

    (void)unused;
    while (seen > 0)
        if (bri_cas_acq_rel(&shared->tokens, &seen, seen - 1))
            return 1;
    return 0;
}

/* --- the word --- */

static void signals_change_the_word_only_when_somebody_waits(void **unused)
{
    (void)unused;
    bri_event_signal(&shared->event, 1);
    assert_int_equal(shared->event, 0);
    uint32_t key = bri_event_prepare(&shared->event);
    assert_int_equal(key, BRI_EVENT_WAITING);
    assert_int_equal(bri_event_prepare(&shared->event), key);
    bri_event_signal(&shared->event, INT_MAX);
    assert_int_not_equal(shared->event, key);
    assert_false(shared->event & BRI_EVENT_WAITING);
    key = bri_event_prepare(&shared->event);
    bri_event_signal(&shared->event, 1); /* nobody sleeps: WAITING is taken off */
    assert_int_not_equal(shared->event, key);
    assert_false(shared->event & BRI_EVENT_WAITING);
}

static void a_stale_key_does_not_sleep(void **unused)
{
    uint32_t obituary = bri_obituary_key(), key = bri_event_prepare(&shared->event);

    (void)unused;
    bri_event_signal(&shared->event, 1);
    assert_int_equal(bri_event_sleep(&shared->event, key, obituary, brood_after_ms(WITHIN_MS)), 0);
    key = bri_event_prepare(&shared->event);
    bri_obituary_publish();
    assert_int_equal(bri_event_sleep(&shared->event, key, obituary, brood_after_ms(WITHIN_MS)), 0);
}

static void sleep_keeps_its_deadline(void **unused)
{
    uint32_t obituary = bri_obituary_key(), key = bri_event_prepare(&shared->event);
    int64_t deadline = brood_after_ms(15);

    (void)unused;
    while (bri_event_sleep(&shared->event, key, obituary, deadline) == 0) {
    }
    assert_true(bri_now_ns() >= deadline);
    assert_int_equal(bri_wait(&shared->event, take_token, NULL, BROOD_NOW, 0), -ETIMEDOUT);
    assert_int_equal(bri_wait(&shared->event, take_token, NULL, brood_after_ms(5), 0), -ETIMEDOUT);
    shared->tokens = 1;
    assert_int_equal(bri_wait(&shared->event, take_token, NULL, BROOD_NOW, 0), 1);
}

static int look_often(void *looks)
{
    return ++*(int *)looks > 5 ? 7 : 0;
}

static void slices_look_without_a_signal(void **unused)
{
    int looks = -1000;

    (void)unused;
    assert_int_equal(bri_wait(&shared->event, look_often, &looks, brood_after_ms(WITHIN_MS), 10000), 7);
}

/* --- sleepers --- */

static void *take_one(void *unused)
{
    int met = bri_wait(&shared->event, take_token, NULL, brood_after_ms(WITHIN_MS), 0);

    bri_add_acq_rel(&shared->taken, 1);
    return met == 1 ? unused : shared;
}

/* Each sleeper has its token, though the signals come faster than the woken run. */
static void as_many_wake_as_are_signalled(void **unused)
{
    pthread_t threads[SLEEPERS];
    void *failed;

    (void)unused;
    for (int round = 0; round < ROUNDS / 10; round++) {
        for (int i = 0; i < SLEEPERS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, take_one, NULL), 0);
        for (int i = 0; i < SLEEPERS; i++) {
            bri_add_acq_rel(&shared->tokens, 1);
            bri_event_signal(&shared->event, 1);
        }
        for (int i = 0; i < SLEEPERS; i++) {
            pthread_join(threads[i], &failed);
            assert_null(failed);
        }
    }
    assert_int_equal(shared->taken, ROUNDS / 10 * SLEEPERS);
    assert_int_equal(shared->tokens, 0);
}

static void take_many(void)
{
    if (bri_arena_enter() != 0)
        _exit(1);
    bri_store_release(&shared->child, bri_self());
    for (int i = 0; i < ROUNDS; i++)
        if (bri_wait(&shared->event, take_token, NULL, brood_after_ms(WITHIN_MS), 0) != 1)
            _exit(2);
    _exit(0);
}

static pid_t start_taker(void)
{
    pid_t pid = fork();

    if (pid == 0)
        take_many();
    assert_true(pid > 0);
    return pid;
}

static void processes_wake_each_other(void **unused)
{
    pid_t takers[2] = {start_taker(), start_taker()};
    int status;

    (void)unused;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        bri_add_acq_rel(&shared->tokens, 1);
        bri_event_signal(&shared->event, 1);
    }
    for (int i = 0; i < 2; i++) {
        waitpid(takers[i], &status, 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(shared->tokens, 0);
}

/* A death wakes everybody: what the dead one was woken for may be theirs. */
static void the_obituary_wakes(void **unused)
{
    pid_t taker = start_taker();
    pthread_t thread;
    void *failed;

    (void)unused;
    while (bri_load_acquire(&shared->child) == 0)
        sched_yield();
    assert_int_equal(pthread_create(&thread, NULL, take_one, NULL), 0);
    while (!bri_load_acquire(&bri_slot_of(bri_self())->idle))
        sched_yield();
    bri_store_release(&shared->tokens, 1); /* not signalled: its waker dies here */
    kill(taker, SIGKILL);
    waitpid(taker, NULL, 0);
    int was_taken = bri_load_acquire(&shared->tokens) == 0;
    bri_report_if_ended(shared->child);
    if (was_taken) /* by the one that died */
        bri_add_acq_rel(&shared->tokens, 1), bri_event_signal(&shared->event, 1);
    pthread_join(thread, &failed);
    assert_null(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(signals_change_the_word_only_when_somebody_waits, clear),
        cmocka_unit_test_setup(a_stale_key_does_not_sleep, clear),
        cmocka_unit_test_setup(sleep_keeps_its_deadline, clear),
        cmocka_unit_test_setup(slices_look_without_a_signal, clear),
        cmocka_unit_test_setup(as_many_wake_as_are_signalled, clear),
        cmocka_unit_test_setup(processes_wake_each_other, clear),
        cmocka_unit_test_setup(the_obituary_wakes, clear),
    };

    return cmocka_run_group_tests_name("sync/event", tests, enter, NULL);
}
