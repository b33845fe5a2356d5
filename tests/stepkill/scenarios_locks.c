/* SPDX-License-Identifier: MIT */
/*
 * Every operation of locks, semaphores, conditions, events and barriers, killed at every instruction.  Nobody watches the
 * victim: the survivor finds out by waiting.  After each kill the same questions are asked of one object of each kind: can a
 * survivor use it, are all tokens there, is a death told at most once, does destroying all leave no block behind.
 */
#define _GNU_SOURCE
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

static uint64_t blocks_in_use(void)
{
    return arena_now().used_blocks;
}

static void *setup(void)
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
static void enter(struct state *s)
{
    brood_event_is_set(s->event);
    brood_lock_acquire(s->lock, brood_after_ms(0));
    brood_lock_release(s->lock);
    brood_rlock_acquire(s->rlock, BROOD_NOW);
    brood_rlock_release(s->rlock);
    s->victim = bri_self();
}

static struct state *begin(void *ctx)
{
    enter(ctx);
    stepkill_begin();
    return ctx;
}

static pid_t start_helper(struct state *s, int (*work)(struct state *s))
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

static void reap_helper(struct state *s)
{
    waitpid(s->helper, NULL, 0);
}

/* ------------------------------------------------------------------------------------ what survivors ask ---- */

static int check_lock(struct state *s)
{
    REQUIRE(brood_lock_acquire(s->lock, BROOD_FOREVER) >= 0);
    REQUIRE(brood_lock_release(s->lock) == 0);
    REQUIRE(brood_lock_acquire(s->lock, BROOD_NOW) == 0 && brood_lock_release(s->lock) == 0);
    return 0;
}

static int check_rlock(struct state *s)
{
    REQUIRE(brood_rlock_acquire(s->rlock, BROOD_FOREVER) >= 0);
    REQUIRE(brood_rlock_acquire(s->rlock, BROOD_NOW) == 0);
    REQUIRE(brood_rlock_release(s->rlock) == 0 && brood_rlock_release(s->rlock) == 0);
    REQUIRE(brood_rlock_release(s->rlock) == -EPERM);
    return 0;
}

static int check_semaphore(struct state *s)
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

static int check_condition(struct state *s)
{
    bri_report_if_ended(s->victim);
    REQUIRE(brood_condition_acquire(s->condition, BROOD_FOREVER) >= 0);
    REQUIRE(brood_condition_notify(s->condition, UINT32_MAX) == 0);
    REQUIRE(brood_condition_wait(s->condition, BROOD_NOW) == -ETIMEDOUT);
    REQUIRE(brood_condition_release(s->condition) == 0);
    return 0;
}

static int check_event(struct state *s)
{
    REQUIRE(brood_event_set(s->event) == 0 && brood_event_wait(s->event, BROOD_FOREVER) == 0);
    REQUIRE(brood_event_clear(s->event) == 0);
    REQUIRE(brood_event_wait(s->event, BROOD_NOW) == -ETIMEDOUT);
    return 0;
}

static int work_barrier(struct state *s)
{
    return brood_barrier_wait(s->barrier, BROOD_FOREVER);
}

/* Whoever was a member and has ended breaks the barrier when that becomes known: let it be known before. */
static void report_members(struct state *s)
{
    for (uint32_t slot = 0; slot < bri_load_relaxed(&s->barrier->width); slot++)
        bri_vigil_ask_slot(slot);
}

static int check_barrier(struct state *s)
{
    report_members(s);
    REQUIRE(brood_barrier_reset(s->barrier) == 0);
    REQUIRE(start_helper(s, work_barrier) > 0);
    int got = brood_barrier_wait(s->barrier, BROOD_FOREVER);
    reap_helper(s);
    REQUIRE(got >= 0 && got + s->helper_got == 1);
    return 0;
}

static int all_are_valid(const struct state *s)
{
    return bri_lock_ops.is_valid(s->lock) && bri_rlock_ops.is_valid(s->rlock) &&
           bri_semaphore_ops.is_valid(s->semaphore) && bri_condition_ops.is_valid(s->condition) &&
           bri_event_ops.is_valid(s->event) && bri_barrier_ops.is_valid(s->barrier);
}

static int destroy_all(struct state *s)
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

static int check(void *ctx)
{
    struct state *s = ctx;

    if (check_lock(s) < 0 || check_rlock(s) < 0 || check_semaphore(s) < 0)
        return -1;
    bri_report_if_ended(s->victim);
    if (check_condition(s) < 0 || check_event(s) < 0 || check_barrier(s) < 0)
        return -1;
    return destroy_all(s);
}

/* --------------------------------------------------------------------------------------- lock and rlock ---- */

static void use_lock(void *ctx)
{
    struct state *s = begin(ctx);

    brood_lock_acquire(s->lock, BROOD_FOREVER);
    brood_lock_release(s->lock);
    stepkill_end();
}

static void use_rlock(void *ctx)
{
    struct state *s = begin(ctx);

    brood_rlock_acquire(s->rlock, BROOD_FOREVER);
    brood_rlock_acquire(s->rlock, BROOD_FOREVER);
    brood_rlock_release(s->rlock);
    brood_rlock_release(s->rlock);
    stepkill_end();
}

static void *setup_held(void)
{
    struct state *s = setup();

    if (s == NULL || brood_lock_acquire(s->lock, BROOD_NOW) != 0 ||
        brood_rlock_acquire(s->rlock, BROOD_NOW) != 0)
        return NULL;
    return s;
}

static void wait_for_lock(void *ctx)
{
    struct state *s = ctx;

    brood_event_is_set(s->event);
    brood_lock_acquire(s->lock, BROOD_NOW);
    s->victim = bri_self();
    stepkill_begin();
    brood_lock_acquire(s->lock, BROOD_FOREVER);
    brood_lock_release(s->lock);
    stepkill_end();
}

static void wait_for_rlock(void *ctx)
{
    struct state *s = ctx;

    brood_event_is_set(s->event);
    brood_rlock_acquire(s->rlock, BROOD_NOW);
    s->victim = bri_self();
    stepkill_begin();
    brood_rlock_acquire(s->rlock, BROOD_FOREVER);
    brood_rlock_release(s->rlock);
    stepkill_end();
}

static void release_held(void *ctx)
{
    struct state *s = ctx;

    s->unblocked = 1;
    brood_lock_release(s->lock);
    brood_rlock_release(s->rlock);
}

static int check_held(void *ctx)
{
    struct state *s = ctx;

    if (!s->unblocked)
        release_held(s);
    return check(s);
}

static void create_each(void *ctx)
{
    struct state *s = begin(ctx);

    brood_lock_create((brood_lock **)&s->made[0]);
    brood_rlock_create((brood_rlock **)&s->made[1]);
    brood_semaphore_create(1, (brood_semaphore **)&s->made[2]);
    brood_condition_create(NULL, (brood_condition **)&s->made[3]);
    brood_event_create((brood_event **)&s->made[4]);
    brood_barrier_create(2, (brood_barrier **)&s->made[5]);
    stepkill_end();
}

/* The victim may have died between making an object and telling anybody: the arena keeps it then. */
static int check_created(void *ctx)
{
    struct state *s = ctx;
    uint64_t known = 0;

    bri_report_if_ended(s->victim);
    for (int i = 0; i < OBJECTS; i++)
        known += s->made[i] != NULL;
    s->left = blocks_in_use() - s->blocks - OBJECTS;
    REQUIRE(s->left >= known && s->left <= known + 1);
    return check(s);
}

static void destroy_each(void *ctx)
{
    struct state *s = begin(ctx);

    brood_lock_destroy(s->lock);
    brood_rlock_destroy(s->rlock);
    brood_semaphore_destroy(s->semaphore);
    brood_condition_destroy(s->condition);
    brood_event_destroy(s->event);
    brood_barrier_destroy(s->barrier);
    stepkill_end();
}

/* Each is whole, or gone with its block. */
static int check_destroyed(void *ctx)
{
    struct state *s = ctx;
    uint64_t gone = 0;

    bri_report_if_ended(s->victim);
    const uint64_t left = blocks_in_use() - s->blocks;
    if (!bri_heap_is(s->lock, BRI_KIND_LOCK) && ++gone)
        REQUIRE(brood_lock_create(&s->lock) == 0);
    if (!bri_heap_is(s->rlock, BRI_KIND_RLOCK) && ++gone)
        REQUIRE(brood_rlock_create(&s->rlock) == 0);
    if (!bri_heap_is(s->semaphore, BRI_KIND_SEMAPHORE) && ++gone)
        REQUIRE(brood_semaphore_create(2, &s->semaphore) == 0);
    if (!bri_heap_is(s->condition, BRI_KIND_CONDITION) && ++gone)
        REQUIRE(brood_condition_create(NULL, &s->condition) == 0);
    if (!bri_heap_is(s->event, BRI_KIND_EVENT) && ++gone)
        REQUIRE(brood_event_create(&s->event) == 0);
    if (!bri_heap_is(s->barrier, BRI_KIND_BARRIER) && ++gone)
        REQUIRE(brood_barrier_create(2, &s->barrier) == 0);
    REQUIRE(left == OBJECTS - gone);
    return check(s);
}

/* -------------------------------------------------------------------------------------------- semaphore ---- */

static void use_semaphore(void *ctx)
{
    struct state *s = begin(ctx);

    brood_semaphore_acquire(s->semaphore, BROOD_FOREVER);
    brood_semaphore_acquire(s->semaphore, BROOD_FOREVER);
    brood_semaphore_release(s->semaphore);
    brood_semaphore_release(s->semaphore);
    stepkill_end();
}

static void release_token(void *ctx)
{
    struct state *s = begin(ctx);

    brood_semaphore_release(s->semaphore);
    stepkill_end();
}

static int check_added(void *ctx)
{
    struct state *s = ctx;

    s->tokens_most = 3;
    return check(s);
}

static void *setup_taken(void)
{
    struct state *s = setup();

    if (s == NULL || brood_semaphore_acquire(s->semaphore, BROOD_NOW) != 0 ||
        brood_semaphore_acquire(s->semaphore, BROOD_NOW) != 0)
        return NULL;
    return s;
}

/* Both tokens are the survivor's, but for the one that the victim may have released. */
static int check_released_for_other(void *ctx)
{
    struct state *s = ctx;

    bri_report_if_ended(s->victim);
    for (int free = brood_semaphore_value(s->semaphore); free < 2; free++)
        REQUIRE(brood_semaphore_release(s->semaphore) == 0);
    return check(s);
}

static void wait_for_token(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    brood_semaphore_acquire(s->semaphore, BROOD_NOW);
    stepkill_begin();
    brood_semaphore_acquire(s->semaphore, BROOD_FOREVER);
    stepkill_end();
}

/* One only: the victim may be stopped anywhere once it has been woken, within the semaphore's mutex too. */
static void release_first(void *ctx)
{
    struct state *s = ctx;

    s->unblocked = 1;
    brood_semaphore_release(s->semaphore);
}

static int check_taken(void *ctx)
{
    struct state *s = ctx;

    for (int released = s->unblocked; released < 2; released++)
        REQUIRE(brood_semaphore_release(s->semaphore) == 0);
    return check(s);
}

/* ------------------------------------------------------------------------------- condition and event ---- */

static void wait_in_condition(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    brood_condition_wait(s->condition, BROOD_NOW);
    stepkill_begin();
    brood_condition_wait(s->condition, BROOD_FOREVER);
    stepkill_end();
    brood_condition_release(s->condition);
}

static int work_condition(struct state *s)
{
    if (brood_condition_acquire(s->condition, BROOD_FOREVER) < 0)
        return -1;
    int got = brood_condition_wait(s->condition, BROOD_FOREVER);
    return brood_condition_release(s->condition) < 0 ? -1 : got;
}

/* Until the condition has given out so many tickets; the lock is held then. */
static void take_when_waiting(struct state *s, uint64_t tickets)
{
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    while (bri_load_relaxed(&s->condition->next) < tickets) {
        brood_condition_release(s->condition);
        sched_yield();
        brood_condition_acquire(s->condition, BROOD_FOREVER);
    }
}

/* Another one waits behind the victim; one of the two is notified, the victim. */
static void notify_victim(void *ctx)
{
    struct state *s = ctx;
    uint64_t tickets = bri_load_relaxed(&s->condition->next);

    start_helper(s, work_condition);
    take_when_waiting(s, tickets + 1);
    s->unblocked = brood_condition_notify(s->condition, 1) == 1;
    kill(s->helper, SIGSTOP); /* else it might find the victim dead before note_whether_listed has looked */
    waitpid(s->helper, NULL, WUNTRACED);
    brood_condition_release(s->condition);
}

static void note_whether_listed(void *ctx, pid_t pid, int status)
{
    struct state *s = ctx;

    (void)pid, (void)status;
    for (uint32_t i = 0; i < bri_load_relaxed(&s->condition->width); i++)
        if (bri_load_relaxed(&s->condition->waiters[i].ticket) != 0 &&
            bri_load_relaxed(&s->condition->waiters[i].name) == s->victim)
            s->victim_is_listed = 1;
}

static int check_waited(void *ctx)
{
    struct state *s = ctx;

    if (s->unblocked)
        kill(s->helper, SIGCONT);
    if (s->unblocked && s->victim_is_listed) {
        reap_helper(s); /* the notify has passed on to it */
        REQUIRE(s->helper_got >= 0);
    } else if (s->unblocked) {
        REQUIRE(brood_condition_acquire(s->condition, BROOD_FOREVER) >= 0);
        REQUIRE(brood_condition_notify(s->condition, 1) == 1); /* it has not */
        REQUIRE(brood_condition_release(s->condition) == 0);
        reap_helper(s);
        REQUIRE(s->helper_got >= 0);
    }
    return check(s);
}

static void time_out_in_condition(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    brood_condition_wait(s->condition, BROOD_NOW);
    stepkill_begin();
    brood_condition_wait(s->condition, BROOD_NOW);
    stepkill_end();
}

static void *setup_waiting(void)
{
    struct state *s = setup();

    if (s == NULL || start_helper(s, work_condition) < 0)
        return NULL;
    take_when_waiting(s, 1);
    brood_condition_release(s->condition);
    return s;
}

static void notify_all(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    stepkill_begin();
    brood_condition_notify(s->condition, UINT32_MAX);
    stepkill_end();
}

static int check_notified(void *ctx)
{
    struct state *s = ctx;

    REQUIRE(brood_condition_acquire(s->condition, BROOD_FOREVER) >= 0);
    int left = brood_condition_notify(s->condition, UINT32_MAX);
    REQUIRE(left == 0 || left == 1);
    REQUIRE(brood_condition_release(s->condition) == 0);
    reap_helper(s);
    REQUIRE(s->helper_got >= 0);
    return check(s);
}

static int work_event(struct state *s)
{
    return brood_event_wait(s->event, BROOD_FOREVER);
}

static void *setup_waiting_for_event(void)
{
    struct state *s = setup();

    return s == NULL || start_helper(s, work_event) < 0 ? NULL : s;
}

static void use_event(void *ctx)
{
    struct state *s = begin(ctx);

    brood_event_set(s->event);
    brood_event_wait(s->event, BROOD_FOREVER);
    stepkill_end();
}

static int check_set(void *ctx)
{
    struct state *s = ctx;

    if (brood_event_is_set(s->event) == 0)
        REQUIRE(brood_event_set(s->event) == 0);
    reap_helper(s); /* whoever has set it: the helper sees it */
    REQUIRE(s->helper_got == 0);
    return check(s);
}

static void wait_for_event(void *ctx)
{
    struct state *s = begin(ctx);

    brood_event_wait(s->event, BROOD_FOREVER);
    brood_event_clear(s->event);
    stepkill_end();
}

static void set_event(void *ctx)
{
    brood_event_set(((struct state *)ctx)->event);
}

static void *setup_asleep_for_event(void)
{
    struct state *s = setup_waiting_for_event();

    while (s != NULL && (bri_load_relaxed(bri_event_berth(s->event)) & BRI_EVENT_WAITING) == 0)
        sched_yield();
    return s;
}

static void destroy_event(void *ctx)
{
    struct state *s = begin(ctx);

    brood_event_destroy(s->event);
    stepkill_end();
}

/* The helper learns that it is gone, or it is not and can be set. */
static int check_event_destroyed(void *ctx)
{
    struct state *s = ctx;

    bri_report_if_ended(s->victim);
    const int is_gone = !bri_heap_is(s->event, BRI_KIND_EVENT);
    if (!is_gone)
        REQUIRE(brood_event_set(s->event) == 0);
    reap_helper(s);
    REQUIRE(s->helper_got == (is_gone ? -EINVAL : 0));
    if (is_gone)
        REQUIRE(brood_event_create(&s->event) == 0);
    return check(s);
}

/* ---------------------------------------------------------------------------------------------- barrier ---- */

static void *setup_one_waits(void)
{
    struct state *s = setup();

    if (s == NULL || start_helper(s, work_barrier) < 0)
        return NULL;
    while (brood_barrier_waiting(s->barrier) == 0)
        sched_yield();
    return s;
}

static void wait_in_barrier(void *ctx)
{
    struct state *s = begin(ctx);

    brood_barrier_wait(s->barrier, BROOD_FOREVER);
    stepkill_end();
}

/* The helper has passed, or is told, or the victim never came. */
static int check_one_waited(void *ctx)
{
    struct state *s = ctx;

    bri_report_if_ended(s->victim);
    int waiting = brood_barrier_waiting(s->barrier);
    if (waiting > 0)
        REQUIRE(brood_barrier_abort(s->barrier) == 0);
    reap_helper(s);
    REQUIRE(s->helper_got == (waiting > 0 ? -EPIPE : 0) || s->helper_got == -EPIPE);
    return check(s);
}

static void trip_for_victim(void *ctx)
{
    struct state *s = ctx;

    s->unblocked = brood_barrier_wait(s->barrier, BROOD_FOREVER) == 1;
}

static int check_tripped(void *ctx)
{
    struct state *s = ctx;

    bri_report_if_ended(s->victim);
    REQUIRE(s->unblocked || brood_barrier_waiting(s->barrier) == 0);
    return check(s);
}

static void change_barrier(void *ctx)
{
    struct state *s = begin(ctx);

    brood_barrier_wait(s->barrier, BROOD_NOW);
    brood_barrier_reset(s->barrier);
    brood_barrier_abort(s->barrier);
    stepkill_end();
}

/* ------------------------------------------------------------------------------- mourning, cut short ---- */

/* Dies as holder of everything, as member of the barrier, and notified: the notify passes to one of the survivor's two. */
static int work_and_die(struct state *s)
{
    brood_lock_acquire(s->lock, BROOD_FOREVER);
    brood_rlock_acquire(s->rlock, BROOD_FOREVER);
    brood_semaphore_acquire(s->semaphore, BROOD_FOREVER);
    brood_semaphore_acquire(s->semaphore, BROOD_FOREVER);
    brood_barrier_wait(s->barrier, BROOD_FOREVER);
    s->dead = bri_self();
    brood_condition_acquire(s->condition, BROOD_FOREVER);
    return brood_condition_wait(s->condition, BROOD_FOREVER);
}

static void *setup_dead(uint32_t end)
{
    struct state *s = setup();

    for (int added = 0; s != NULL && added < 3; added++)
        brood_semaphore_release(s->semaphore);
    if (s == NULL || start_helper(s, work_and_die) < 0 || brood_barrier_wait(s->barrier, BROOD_FOREVER) < 0)
        return NULL;
    take_when_waiting(s, 1);
    for (uint32_t i = 1; i <= 2; i++) {
        bri_store_relaxed(&s->condition->waiters[i].event, 0u);
        bri_store_relaxed(&s->condition->waiters[i].name, bri_self());
        bri_store_relaxed(&s->condition->waiters[i].ticket, UINT64_C(1) + i);
    }
    bri_store_relaxed(&s->condition->next, UINT64_C(3));
    bri_store_relaxed(&s->condition->width, 3u);
    if (brood_condition_notify(s->condition, 1) != 1 || kill(s->helper, SIGKILL) != 0)
        return NULL;
    reap_helper(s);
    brood_condition_release(s->condition);
    bri_roster_bury(s->dead, end);
    s->tokens_least = s->tokens_most = end == BRI_END_CLEAN ? 3 : 5; /* a clean end spends two */
    return s;
}

static void *setup_killed(void)
{
    return setup_dead(BRI_END_KILLED);
}

static void *setup_ended(void)
{
    return setup_dead(BRI_END_CLEAN);
}

static void mourn_all(void *ctx)
{
    struct state *s = ctx;

    brood_event_is_set(s->event); /* joins; whoever waited would report the dead */
    s->victim = bri_self();
    stepkill_begin();
    bri_lock_ops.mourn(s->lock, s->dead);
    bri_rlock_ops.mourn(s->rlock, s->dead);
    bri_semaphore_ops.mourn(s->semaphore, s->dead);
    bri_condition_ops.mourn(s->condition, s->dead);
    bri_barrier_ops.mourn(s->barrier, s->dead);
    stepkill_end();
}

static int check_mourned(void *ctx)
{
    struct state *s = ctx;
    struct bri_waiter_shm *waiters = s->condition->waiters;
    const int killed = s->tokens_least == 5;

    bri_report_if_ended(s->victim);
    bri_undertake();
    REQUIRE(brood_lock_acquire(s->lock, BROOD_NOW) == BROOD_OWNER_DIED);
    REQUIRE(brood_rlock_acquire(s->rlock, BROOD_NOW) == BROOD_OWNER_DIED);
    REQUIRE(brood_semaphore_acquire(s->semaphore, BROOD_NOW) == (killed ? BROOD_OWNER_DIED : 0));
    REQUIRE(brood_barrier_is_broken(s->barrier) == killed);
    REQUIRE(bri_load_relaxed(&s->condition->notified) == 1);
    REQUIRE(bri_load_relaxed(&waiters[1].ticket) == 1 && bri_load_relaxed(&waiters[2].ticket) == 3);
    bri_store_relaxed(&waiters[1].ticket, UINT64_C(0));
    bri_store_relaxed(&waiters[2].ticket, UINT64_C(0));
    REQUIRE(brood_lock_release(s->lock) == 0 && brood_rlock_release(s->rlock) == 0);
    REQUIRE(brood_semaphore_release(s->semaphore) == 0);
    return check(s);
}

#define PLAIN .setup = setup, .check = check

const struct stepkill_scenario stepkill_locks[] = {
    {.name = "lock.use", PLAIN, .victim = use_lock},
    {.name = "lock.wait",
     .setup = setup_held,
     .victim = wait_for_lock,
     .unblock = release_held,
     .check = check_held},
    {.name = "rlock.use", PLAIN, .victim = use_rlock},
    {.name = "rlock.wait",
     .setup = setup_held,
     .victim = wait_for_rlock,
     .unblock = release_held,
     .check = check_held},
    {.name = "semaphore.use", PLAIN, .victim = use_semaphore},
    {.name = "semaphore.add", .setup = setup, .victim = release_token, .check = check_added},
    {.name = "semaphore.other",
     .setup = setup_taken,
     .victim = release_token,
     .check = check_released_for_other},
    {.name = "semaphore.wait",
     .setup = setup_taken,
     .victim = wait_for_token,
     .unblock = release_first,
     .check = check_taken},
    {.name = "condition.wait",
     .setup = setup,
     .victim = wait_in_condition,
     .unblock = notify_victim,
     .after_kill = note_whether_listed,
     .check = check_waited},
    {.name = "condition.timeout", PLAIN, .victim = time_out_in_condition},
    {.name = "condition.notify", .setup = setup_waiting, .victim = notify_all, .check = check_notified},
    {.name = "event.set", .setup = setup_waiting_for_event, .victim = use_event, .check = check_set},
    {.name = "event.destroy",
     .setup = setup_asleep_for_event,
     .victim = destroy_event,
     .check = check_event_destroyed},
    {.name = "event.wait", PLAIN, .victim = wait_for_event, .unblock = set_event},
    {.name = "barrier.trip", .setup = setup_one_waits, .victim = wait_in_barrier, .check = check_one_waited},
    {.name = "barrier.wait",
     .setup = setup,
     .victim = wait_in_barrier,
     .unblock = trip_for_victim,
     .check = check_tripped},
    {.name = "barrier.change", PLAIN, .victim = change_barrier},
    {.name = "locks.create", .setup = setup, .victim = create_each, .check = check_created},
    {.name = "locks.destroy", .setup = setup, .victim = destroy_each, .check = check_destroyed},
    {.name = "locks.mourn", .setup = setup_killed, .victim = mourn_all, .check = check_mourned},
    {.name = "locks.mourn.clean", .setup = setup_ended, .victim = mourn_all, .check = check_mourned},
    {.name = NULL},
};
