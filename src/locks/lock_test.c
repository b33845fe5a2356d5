/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>

#include "locks/locks.h"
#include "locks/testing.h"

enum { CHILDREN = 4, ROUNDS = 20000, WITHIN_MS = 5000 };

struct state {
    brood_lock *lock;
    brood_rlock *rlock;
    long *counter; /* one for each; plain: only the locks keep them right */
};

static struct state state;

static int make_state(void **unused)
{
    (void)unused;
    state.counter = shared(2 * sizeof *state.counter);
    return brood_lock_create(&state.lock) < 0 || brood_rlock_create(&state.rlock) < 0;
}

static int drop_state(void **unused)
{
    (void)unused;
    return brood_lock_destroy(state.lock) < 0 || brood_rlock_destroy(state.rlock) < 0 ||
           brood_free(state.counter) < 0;
}

static void lock_excludes_and_frees(void **unused)
{
    (void)unused;
    assert_int_equal(brood_lock_acquire(state.lock, BROOD_NOW), 0);
    assert_refused(brood_lock_acquire(state.lock, BROOD_NOW), ETIMEDOUT, "lock");
    assert_refused(brood_lock_acquire(state.lock, brood_after_ms(5)), ETIMEDOUT, "lock");
    assert_refused(brood_lock_destroy(state.lock), EBUSY, "lock");
    assert_int_equal(brood_lock_release(state.lock), 0);
    assert_refused(brood_lock_release(state.lock), EPERM, "lock");
    assert_int_equal(brood_lock_acquire(state.lock, BROOD_FOREVER), 0);
    assert_int_equal(brood_lock_release(state.lock), 0);
}

static void release_lock(void *unused)
{
    (void)unused;
    child_check(brood_lock_release(state.lock) == 0);
}

static void another_process_may_release(void **unused)
{
    (void)unused;
    assert_int_equal(brood_lock_acquire(state.lock, BROOD_NOW), 0);
    assert_exits_well(start_child(release_lock, NULL));
    assert_int_equal(brood_lock_acquire(state.lock, BROOD_NOW), 0);
    assert_int_equal(brood_lock_release(state.lock), 0);
}

static void count_up(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        child_check(brood_lock_acquire(state.lock, BROOD_FOREVER) == 0);
        ++*state.counter;
        child_check(brood_lock_release(state.lock) == 0);
        child_check(brood_rlock_acquire(state.rlock, BROOD_FOREVER) == 0);
        child_check(brood_rlock_acquire(state.rlock, BROOD_FOREVER) == 0);
        ++state.counter[1];
        child_check(brood_rlock_release(state.rlock) == 0);
        child_check(brood_rlock_release(state.rlock) == 0);
    }
}

static void sections_do_not_overlap(void **unused)
{
    pid_t pids[CHILDREN];

    (void)unused;
    state.counter[0] = state.counter[1] = 0;
    for (int i = 0; i < CHILDREN; i++)
        pids[i] = start_child(count_up, NULL);
    for (int i = 0; i < CHILDREN; i++)
        assert_exits_well(pids[i]);
    assert_int_equal(state.counter[0], CHILDREN * ROUNDS);
    assert_int_equal(state.counter[1], CHILDREN * ROUNDS);
}

static void die_holding_both(void *unused)
{
    (void)unused;
    child_check(brood_lock_acquire(state.lock, BROOD_NOW) >= 0);
    child_check(brood_rlock_acquire(state.rlock, BROOD_NOW) >= 0);
    child_check(brood_rlock_acquire(state.rlock, BROOD_NOW) == 0);
    die();
}

static void the_next_holder_is_told_once(void **unused)
{
    (void)unused;
    assert_is_killed(start_child(die_holding_both, NULL));
    assert_int_equal(brood_lock_acquire(state.lock, brood_after_ms(WITHIN_MS)), BROOD_OWNER_DIED);
    assert_int_equal(brood_lock_release(state.lock), 0);
    assert_int_equal(brood_lock_acquire(state.lock, BROOD_NOW), 0);
    assert_int_equal(brood_lock_release(state.lock), 0);
    assert_int_equal(brood_rlock_acquire(state.rlock, brood_after_ms(WITHIN_MS)), BROOD_OWNER_DIED);
    assert_int_equal(brood_rlock_acquire(state.rlock, BROOD_NOW), 0);
    assert_int_equal(brood_rlock_release(state.rlock), 0);
    assert_int_equal(brood_rlock_release(state.rlock), 0);
    assert_int_equal(brood_rlock_acquire(state.rlock, BROOD_NOW), 0);
    assert_int_equal(brood_rlock_release(state.rlock), 0);
}

static void polling_finds_the_dead(void **unused)
{
    int64_t limit = brood_after_ms(WITHIN_MS);
    int got;

    (void)unused;
    assert_is_killed(start_child(die_holding_both, NULL));
    do {
        got = brood_lock_acquire(state.lock, BROOD_NOW);
    } while (got == -ETIMEDOUT && brood_after_ms(0) < limit);
    assert_int_equal(got, BROOD_OWNER_DIED);
    assert_int_equal(brood_lock_release(state.lock), 0);
    assert_int_equal(brood_rlock_acquire(state.rlock, brood_after_ms(WITHIN_MS)), BROOD_OWNER_DIED);
    assert_int_equal(brood_rlock_release(state.rlock), 0);
}

static void wait_for_dying_holder(void *argument)
{
    int *ready = argument;

    __atomic_store_n(ready, 1, __ATOMIC_RELEASE);
    child_check(brood_lock_acquire(state.lock, BROOD_FOREVER) == BROOD_OWNER_DIED);
    child_check(brood_lock_release(state.lock) == 0);
}

static void die_holding_when_told(void *argument)
{
    int *ready = argument;

    child_check(brood_lock_acquire(state.lock, BROOD_NOW) == 0);
    __atomic_store_n(ready, 1, __ATOMIC_RELEASE);
    for (;;)
        pause();
}

static void await(const int *ready)
{
    while (!__atomic_load_n(ready, __ATOMIC_ACQUIRE))
        sched_yield();
}

static void waiters_of_the_dead_go_on(void **unused)
{
    int *ready = shared(2 * sizeof *ready);

    (void)unused;
    pid_t holder = start_child(die_holding_when_told, &ready[0]);
    await(&ready[0]);
    pid_t waiter = start_child(wait_for_dying_holder, &ready[1]);
    await(&ready[1]);
    kill(holder, SIGKILL);
    assert_is_killed(holder);
    assert_exits_well(waiter);
    assert_int_equal(brood_free(ready), 0);
}

static void the_dead_do_not_make_it_busy(void **unused)
{
    brood_lock *kept_lock = state.lock;
    brood_rlock *kept_rlock = state.rlock;

    (void)unused;
    uint64_t before = blocks_in_use();
    assert_int_equal(brood_lock_create(&state.lock), 0);
    assert_int_equal(brood_rlock_create(&state.rlock), 0);
    assert_is_killed(start_child(die_holding_both, NULL));
    assert_int_equal(brood_lock_destroy(state.lock), 0);
    assert_int_equal(brood_rlock_destroy(state.rlock), 0);
    assert_int_equal(blocks_in_use(), before);
    state.lock = kept_lock;
    state.rlock = kept_rlock;
}

static void *try_as_another_thread(void *unused)
{
    (void)unused;
    return (void *)(intptr_t)(brood_rlock_acquire(state.rlock, BROOD_NOW) == -ETIMEDOUT &&
                              brood_rlock_release(state.rlock) == -EPERM);
}

static void try_as_another_process(void *unused)
{
    (void)unused;
    child_check(try_as_another_thread(NULL) != NULL);
}

static void rlock_belongs_to_a_thread(void **unused)
{
    pthread_t thread;
    void *refused;

    (void)unused;
    assert_refused(brood_rlock_release(state.rlock), EPERM, "lock");
    for (int i = 0; i < 3; i++)
        assert_int_equal(brood_rlock_acquire(state.rlock, BROOD_NOW), 0);
    assert_int_equal(pthread_create(&thread, NULL, try_as_another_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, &refused), 0);
    assert_non_null(refused);
    assert_exits_well(start_child(try_as_another_process, NULL));
    for (int i = 0; i < 3; i++)
        assert_int_equal(brood_rlock_release(state.rlock), 0);
    assert_refused(brood_rlock_release(state.rlock), EPERM, "lock");
}

static void rlock_is_bounded(void **unused)
{
    (void)unused;
    assert_int_equal(brood_rlock_acquire(state.rlock, BROOD_NOW), 0);
    bri_store_relaxed(&state.rlock->count, UINT32_C(1) << 30);
    assert_refused(brood_rlock_acquire(state.rlock, BROOD_NOW), EAGAIN, "lock");
    bri_store_relaxed(&state.rlock->count, 1u);
    assert_int_equal(brood_rlock_release(state.rlock), 0);
}

static void bad_input_is_refused(void **unused)
{
    long local = 0;

    (void)unused;
    assert_refused(brood_lock_create(NULL), EINVAL, "ret_lock");
    assert_refused(brood_lock_acquire(NULL, BROOD_NOW), EINVAL, "lock");
    assert_refused(brood_lock_acquire((brood_lock *)&local, BROOD_NOW), EINVAL, "lock");
    assert_refused(brood_lock_acquire((brood_lock *)state.rlock, BROOD_NOW), EINVAL, "lock");
    assert_refused(brood_lock_acquire(state.lock, -1), EINVAL, "deadline");
    assert_refused(brood_lock_release((brood_lock *)state.counter), EINVAL, "lock");
    assert_refused(brood_lock_destroy((brood_lock *)(void *)((char *)state.lock + 1)), EINVAL, "lock");
    assert_refused(brood_rlock_create(NULL), EINVAL, "ret_lock");
    assert_refused(brood_rlock_acquire(NULL, BROOD_NOW), EINVAL, "lock");
    assert_refused(brood_rlock_acquire(state.rlock, INT64_MIN), EINVAL, "deadline");
    assert_refused(brood_rlock_acquire((brood_rlock *)state.lock, BROOD_NOW), EINVAL, "lock");
    assert_refused(brood_rlock_release((brood_rlock *)(uintptr_t)64), EINVAL, "lock");
    assert_refused(brood_rlock_destroy((brood_rlock *)UINTPTR_MAX), EINVAL, "lock");
    assert_int_equal(brood_lock_destroy(NULL), 0);
    assert_int_equal(brood_rlock_destroy(NULL), 0);
}

static void a_destroyed_lock_is_no_lock(void **unused)
{
    brood_lock *lock;
    brood_rlock *rlock;

    (void)unused;
    uint64_t before = blocks_in_use();
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(brood_lock_create(&lock), 0);
        assert_int_equal(brood_rlock_create(&rlock), 0);
        assert_int_equal(brood_lock_destroy(lock), 0);
        assert_int_equal(brood_rlock_destroy(rlock), 0);
        assert_refused(brood_lock_acquire(lock, BROOD_NOW), EINVAL, "lock");
        assert_refused(brood_rlock_destroy(rlock), EINVAL, "lock");
    }
    assert_int_equal(blocks_in_use(), before);
}

static void use_both(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        child_check(brood_lock_acquire(state.lock, BROOD_FOREVER) == 0);
        child_check(brood_lock_release(state.lock) == 0);
        child_check(brood_rlock_acquire(state.rlock, BROOD_FOREVER) == 0);
        child_check(brood_rlock_release(state.rlock) == 0);
    }
}

static void uncontended_makes_no_system_call(void **unused)
{
    (void)unused;
    assert_makes_no_system_call(use_both, NULL);
}

static void objects_are_whole(void **unused)
{
    (void)unused;
    assert_true(bri_lock_ops.is_valid(state.lock));
    assert_true(bri_rlock_ops.is_valid(state.rlock));
    assert_int_equal(brood_rlock_acquire(state.rlock, BROOD_NOW), 0);
    assert_true(bri_rlock_ops.is_valid(state.rlock));
    assert_int_equal(brood_rlock_release(state.rlock), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lock_excludes_and_frees),
        cmocka_unit_test(another_process_may_release),
        cmocka_unit_test(sections_do_not_overlap),
        cmocka_unit_test(the_next_holder_is_told_once),
        cmocka_unit_test(polling_finds_the_dead),
        cmocka_unit_test(waiters_of_the_dead_go_on),
        cmocka_unit_test(the_dead_do_not_make_it_busy),
        cmocka_unit_test(rlock_belongs_to_a_thread),
        cmocka_unit_test(rlock_is_bounded),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(a_destroyed_lock_is_no_lock),
        cmocka_unit_test(uncontended_makes_no_system_call),
        cmocka_unit_test(objects_are_whole),
    };

    return cmocka_run_group_tests_name("locks/lock", tests, make_state, drop_state);
}
