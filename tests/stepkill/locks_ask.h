/* SPDX-License-Identifier: MIT */
/* One object of each kind that waits, and what survivors ask of them after a kill. */
#ifndef STEPKILL_LOCKS_ASK_H
#define STEPKILL_LOCKS_ASK_H

#include "arena_checks.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "locks/locks.h"
#include "locks/vigil.h"

enum { OBJECTS = 6 };

struct state {
    brood_lock *lock;
    brood_rlock *rlock;
    brood_semaphore *semaphore;
    brood_condition *condition;
    brood_event *event;
    brood_barrier *barrier;
    void *made[OBJECTS];           /* by the victim */
    int tokens_least, tokens_most; /* that the semaphore may have in the end */
    uint64_t left;                 /* blocks of those */
    int unblocked;
    int victim_is_listed; /* in the condition, when it died */
    uint64_t blocks;      /* in use at the start */
    bri_name victim, dead;
    pid_t helper;
    _Atomic int helper_got;
};

#define REQUIRE(condition)                                                                      \
    do {                                                                                        \
        if (!(condition))                                                                       \
            return stepkill_fail("line %d: %s (%s)", __LINE__, #condition, brood_error_text()); \
    } while (0)

static inline uint64_t blocks_in_use(void)
{
    return arena_now().used_blocks;
}

static inline void *setup(void)
{
    struct state *s = stepkill_shared(sizeof *s);

    if (open_arena() < 0)
        return NULL;
    s->blocks = blocks_in_use();
    if (brood_lock_create(&s->lock) < 0 || brood_rlock_create(&s->rlock) < 0 ||
        brood_semaphore_create(2, &s->semaphore) < 0 || brood_condition_create(NULL, &s->condition) < 0 ||
        brood_event_create(&s->event) < 0 || brood_barrier_create(2, &s->barrier) < 0) {
        stepkill_fail("setup: %s", brood_error_text());
        return NULL;
    }
    s->tokens_least = s->tokens_most = 2;
    return s;
}

/* In the victim, before the counting begins: what is done once per process. */
static inline void enter(struct state *s)
{
    brood_event_is_set(s->event);
    brood_lock_acquire(s->lock, brood_after_ms(0));
    brood_lock_release(s->lock);
    brood_rlock_acquire(s->rlock, BROOD_NOW);
    brood_rlock_release(s->rlock);
    s->victim = bri_self();
}

static inline struct state *begin(void *ctx)
{
    enter(ctx);
    stepkill_begin();
    return ctx;
}

static inline pid_t start_helper(struct state *s, int (*work)(struct state *s))
{
    pid_t pid = fork();

    if (pid == 0) {
        int got = work(s);
        s->helper_got = got;
        _exit(got < 0);
    }
    s->helper = pid;
    return pid;
}

static inline void reap_helper(struct state *s)
{
    waitpid(s->helper, NULL, 0);
}

/* ------------------------------------------------------------------------------------ what survivors ask ---- */

static inline int check_lock(struct state *s)
{
    REQUIRE(brood_lock_acquire(s->lock, BROOD_FOREVER) >= 0);
    REQUIRE(brood_lock_release(s->lock) == 0);
    REQUIRE(brood_lock_acquire(s->lock, BROOD_NOW) == 0 && brood_lock_release(s->lock) == 0);
    return 0;
}

static inline int check_rlock(struct state *s)
{
    REQUIRE(brood_rlock_acquire(s->rlock, BROOD_FOREVER) >= 0);
    REQUIRE(brood_rlock_acquire(s->rlock, BROOD_NOW) == 0);
    REQUIRE(brood_rlock_release(s->rlock) == 0 && brood_rlock_release(s->rlock) == 0);
    REQUIRE(brood_rlock_release(s->rlock) == -EPERM);
    return 0;
}

static inline int check_semaphore(struct state *s)
{
    int told = 0, tokens = 0;

    for (; tokens < s->tokens_least; tokens++) {
        int got = brood_semaphore_acquire(s->semaphore, BROOD_FOREVER);
        REQUIRE(got >= 0);
        told += got == BROOD_OWNER_DIED;
    }
    bri_report_if_ended(s->victim);
    for (int more = brood_semaphore_value(s->semaphore); more > 0; more--, tokens++) {
        int got = brood_semaphore_acquire(s->semaphore, BROOD_NOW);
        REQUIRE(got >= 0);
        told += got == BROOD_OWNER_DIED;
    }
    REQUIRE(tokens <= s->tokens_most && told <= 1);
    REQUIRE(brood_semaphore_acquire(s->semaphore, BROOD_NOW) == -ETIMEDOUT);
    for (int i = 0; i < tokens; i++)
        REQUIRE(brood_semaphore_release(s->semaphore) == 0);
    REQUIRE(brood_semaphore_value(s->semaphore) == tokens);
    return 0;
}

static inline int check_condition(struct state *s)
{
    bri_report_if_ended(s->victim);
    REQUIRE(brood_condition_acquire(s->condition, BROOD_FOREVER) >= 0);
    REQUIRE(brood_condition_notify(s->condition, UINT32_MAX) == 0);
    REQUIRE(brood_condition_wait(s->condition, BROOD_NOW) == -ETIMEDOUT);
    REQUIRE(brood_condition_release(s->condition) == 0);
    return 0;
}

static inline int check_event(struct state *s)
{
    REQUIRE(brood_event_set(s->event) == 0 && brood_event_wait(s->event, BROOD_FOREVER) == 0);
    REQUIRE(brood_event_clear(s->event) == 0);
    REQUIRE(brood_event_wait(s->event, BROOD_NOW) == -ETIMEDOUT);
    return 0;
}

static inline int work_barrier(struct state *s)
{
    return brood_barrier_wait(s->barrier, BROOD_FOREVER);
}

/* Whoever was a member and has ended breaks the barrier when that becomes known: let it be known before. */
static inline void report_members(struct state *s)
{
    for (uint32_t slot = 0; slot < bri_load_relaxed(&s->barrier->width); slot++)
        bri_vigil_ask_slot(slot);
}

static inline int check_barrier(struct state *s)
{
    report_members(s);
    REQUIRE(brood_barrier_reset(s->barrier) == 0);
    REQUIRE(start_helper(s, work_barrier) > 0);
    int got = brood_barrier_wait(s->barrier, BROOD_FOREVER);
    reap_helper(s);
    REQUIRE(got >= 0 && got + s->helper_got == 1);
    return 0;
}

static inline int all_are_valid(const struct state *s)
{
    return bri_lock_ops.is_valid(s->lock) && bri_rlock_ops.is_valid(s->rlock) &&
           bri_semaphore_ops.is_valid(s->semaphore) && bri_condition_ops.is_valid(s->condition) &&
           bri_event_ops.is_valid(s->event) && bri_barrier_ops.is_valid(s->barrier);
}

static inline int destroy_all(struct state *s)
{
    REQUIRE(all_are_valid(s));
    REQUIRE(brood_lock_destroy(s->lock) == 0);
    REQUIRE(brood_rlock_destroy(s->rlock) == 0);
    REQUIRE(brood_semaphore_destroy(s->semaphore) == 0);
    REQUIRE(brood_condition_destroy(s->condition) == 0);
    REQUIRE(brood_event_destroy(s->event) == 0);
    REQUIRE(brood_barrier_destroy(s->barrier) == 0);
    return check_heap(s->blocks + s->left);
}

static inline int check(void *ctx)
{
    struct state *s = ctx;

    if (check_lock(s) < 0 || check_rlock(s) < 0 || check_semaphore(s) < 0)
        return -1;
    bri_report_if_ended(s->victim);
    if (check_condition(s) < 0 || check_event(s) < 0 || check_barrier(s) < 0)
        return -1;
    return destroy_all(s);
}

static inline int work_condition(struct state *s)
{
    if (brood_condition_acquire(s->condition, BROOD_FOREVER) < 0)
        return -1;
    int got = brood_condition_wait(s->condition, BROOD_FOREVER);
    return brood_condition_release(s->condition) < 0 ? -1 : got;
}

static inline int work_event(struct state *s)
{
    return brood_event_wait(s->event, BROOD_FOREVER);
}

/* Until the condition has given out so many tickets; the lock is held then. */
static inline void take_when_waiting(struct state *s, uint64_t tickets)
{
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    while (bri_load_relaxed(&s->condition->next) < tickets) {
        brood_condition_release(s->condition);
        sched_yield();
        brood_condition_acquire(s->condition, BROOD_FOREVER);
    }
}

#define PLAIN .setup = setup, .check = check

#endif
