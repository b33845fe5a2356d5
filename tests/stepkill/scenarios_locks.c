/* SPDX-License-Identifier: MIT */
/*
 * Every operation of locks and semaphores, killed at every instruction.  Nobody watches the
 * victim: the survivor finds out by waiting.  After each kill the same questions are asked of one object of each kind: can a
 * survivor use it, are all tokens there, is a death told at most once, does destroying all leave no block behind.
 */
#define _GNU_SOURCE
#include "locks_ask.h"

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
    {.name = "locks.create", .setup = setup, .victim = create_each, .check = check_created},
    {.name = "locks.destroy", .setup = setup, .victim = destroy_each, .check = check_destroyed},
    {.name = "locks.mourn", .setup = setup_killed, .victim = mourn_all, .check = check_mourned},
    {.name = "locks.mourn.clean", .setup = setup_ended, .victim = mourn_all, .check = check_mourned},
    {.name = NULL},
};
