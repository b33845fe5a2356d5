/* SPDX-License-Identifier: MIT */
/*
 * The condition variable, on an rlock.
 *
 * Each waiter takes a ticket, in the order of waiting, into an entry of the table.
 *
 *   ticket:  0                       the entry is free
 *            1 … notified            its waiter is notified
 *            notified + 1 … next     its waiter waits
 *
 * So to notify the oldest n waiters is to raise `notified` to the n-th ticket above it: one store, for all of them.
 *
 * field            writer                      readers            protection
 * notified, next   notify, wait                everybody          mutex; both only grow
 * ticket           its waiter, mourn           its waiter, mutex  mutex.  It is what makes an entry an entry
 * name             the waiter, before ticket   holder of mutex    mutex
 * event            see sync/event.h
 * width            holder of mutex             holder of mutex    mutex; entries from there on are free
 *
 * All operations may overlap, as far as the rlock lets them: wait and notify begin with the rlock held.
 *
 * wait     W1  lock mutex; next + 1                          notify   N1  lock mutex
 *          W2  ticket = next in a free entry (waits from           N2  notified = the count-th ticket above it
 *              here on); unlock                                        (linearisation point)
 *          W3  release the rlock                                   N3  unlock
 *          W4  wait until ticket <= notified, or the deadline      N4  signal each entry that it covered
 *          W5  acquire the rlock, however long it takes
 *          W6  lock mutex; notified?  ticket = 0 (linearisation point); unlock
 *          W7  0 or BROOD_OWNER_DIED when notified, else -ETIMEDOUT
 *
 * A notify between the deadline and W6 counts.  A waiter that timed out and was told of a death by W5 has no way to say
 * so: it hands the message on to the next who acquires the rlock.
 *
 * mourn    M1  lock mutex (from a dead holder too), then for each entry of a dead waiter:
 *          M2  it was notified, and no other entry has its ticket: the oldest waiter gets its ticket, so is notified
 *          M3  ticket = 0
 *          M4  unlock; signal whoever got a ticket
 *
 * order    "mutex": everything here.  "asleep": W4's look at notified and N2, M2 against the entry's event word as in
 *          sync/event.h
 *
 * death table
 *   W1               a number is skipped
 *   W2 … W5          the entry names the dead → M2, M3: what it was notified of passes on.  The rlock: see rlock.c
 *   W6 …             the notify was taken by one who died after it: holding the rlock, so the next holder is told
 *   N1               taken over by mourn, nothing to repair
 *   N2 … N4          the waiters are notified; they sleep on → their slice ends, or an obituary comes (vigil.h)
 *   M2               two entries have one ticket: the next mourner sees that and goes on with M3
 *   M3 …             as N2
 *
 * Why no wake-up is spurious: W6 looks at the entry's own ticket, which is new with each wait and above notified then.
 * Why none is lost: tickets only pass from waiter to waiter, or are taken by W6.
 *
 * right:  while (!predicate) if ((got = brood_condition_wait(c, deadline)) < 0) break;
 * wrong:  if (!predicate) brood_condition_wait(c, deadline);      another process may act between notify and W5
 * wrong:  change the predicate without the lock; notify            -EPERM
 */
#include <errno.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/error.h"
#include "brood.h"
#include "locks/handle.h"
#include "locks/locks.h"
#include "locks/vigil.h"

struct wait {
    brood_condition *condition;
    struct bri_waiter_shm *waiter;
};

/* Its own, should the offset be damaged. */
static brood_rlock *lock_of(const brood_condition *condition)
{
    brood_rlock *lock = bri_at_checked(bri_read_once(condition->lock), sizeof *lock, BRI_CACHE_LINE);

    return lock != NULL ? lock : (brood_rlock *)(uintptr_t)&condition->own;
}

static int is_covered(const brood_condition *condition, const struct bri_waiter_shm *waiter)
{
    return bri_load_seq_cst(&waiter->ticket) <= bri_load_seq_cst(&condition->notified);
}

/* Entries from here on are not used; never more than there are, whatever the word says. */
static uint32_t width_of(const brood_condition *condition)
{
    uint32_t width = bri_load_acquire(&condition->width);

    return width < BRI_WAITERS ? width : BRI_WAITERS;
}

static int ticket_is_whole(const brood_condition *condition, uint32_t index)
{
    uint64_t ticket = bri_load_relaxed(&condition->waiters[index].ticket);

    if (ticket == 0)
        return 1;
    for (uint32_t i = 0; i < index; i++)
        if (bri_load_relaxed(&condition->waiters[i].ticket) == ticket)
            return 0;
    return ticket <= bri_load_relaxed(&condition->next) &&
           bri_load_relaxed(&condition->waiters[index].name) != 0;
}

static int is_whole(const brood_condition *condition)
{
    uint32_t width = width_of(condition);

    for (uint32_t i = 0; i < width; i++)
        if (!ticket_is_whole(condition, i))
            return 0;
    return width <= BRI_WAITERS && bri_rlock_is_whole(&condition->own) &&
           bri_load_relaxed(&condition->notified) <= bri_load_relaxed(&condition->next);
}

static void unlock(brood_condition *condition)
{
    bri_check(3, is_whole(condition));
    bri_mutex_unlock(&condition->mutex);
}

static struct bri_waiter_shm *find_free_entry(brood_condition *condition)
{
    uint32_t width = width_of(condition);

    for (uint32_t i = 0; i < width; i++)
        if (bri_load_relaxed(&condition->waiters[i].ticket) == 0)
            return &condition->waiters[i];
    if (width == BRI_WAITERS)
        return NULL;
    bri_store_relaxed(&condition->waiters[width].ticket, UINT64_C(0));
    bri_store_relaxed(&condition->waiters[width].event, 0u);
    bri_store_release(&condition->width, width + 1);
    return &condition->waiters[width];
}

/* W1, W2. */
static struct bri_waiter_shm *enlist(brood_condition *condition)
{
    bri_mutex_lock(&condition->mutex);
    struct bri_waiter_shm *waiter = find_free_entry(condition);
    if (waiter != NULL) {
        uint64_t ticket = bri_load_relaxed(&condition->next) + 1;
        bri_store_relaxed(&condition->next, ticket);
        bri_store_relaxed(&waiter->name, bri_self());
        bri_store_release(&waiter->ticket, ticket);
        bri_fault("condition.wait.enlisted");
    }
    unlock(condition);
    return waiter;
}

static void narrow(brood_condition *condition)
{
    uint32_t width = width_of(condition);

    while (width > 0 && bri_load_relaxed(&condition->waiters[width - 1].ticket) == 0)
        width--;
    bri_store_release(&condition->width, width);
}

/* W6. */
static int leave(brood_condition *condition, struct bri_waiter_shm *waiter)
{
    bri_mutex_lock(&condition->mutex);
    int notified = is_covered(condition, waiter);
    bri_store_release(&waiter->ticket, UINT64_C(0));
    bri_fault("condition.wait.left");
    narrow(condition);
    unlock(condition);
    return notified;
}

/* W4.  A bri_condition. */
static int is_notified(void *argument)
{
    const struct wait *wait = argument;

    return is_covered(wait->condition, wait->waiter);
}

/* One who was notified and died before it left has a notify to pass on. */
static void ask_notified(void *argument)
{
    const struct wait *wait = argument;
    brood_condition *condition = wait->condition;
    uint32_t width = width_of(condition);

    bri_vigil_ask_holder(&condition->mutex);
    for (uint32_t i = 0; i < width; i++)
        if (bri_load_acquire(&condition->waiters[i].ticket) != 0 &&
            is_covered(condition, &condition->waiters[i]))
            bri_report_if_ended(bri_load_relaxed(&condition->waiters[i].name));
}

static int check(brood_condition *condition)
{
    int error = bri_handle_check(condition, BRI_KIND_CONDITION, "condition");

    if (error < 0 || lock_of(condition) == &condition->own ||
        bri_rlock_check(lock_of(condition), "lock") == 0)
        return error;
    return bri_fail(EINVAL, "the lock of condition was destroyed: destroy the condition first");
}

static int check_depth(const brood_condition *condition)
{
    uint32_t depth = bri_rlock_depth(lock_of(condition));

    if (depth == 0)
        return bri_fail(EPERM, "the lock of condition is not held by this thread: acquire it first");
    if (depth > 1)
        return bri_fail(EPERM, "the lock of condition is held %u times: wait with it held once", depth);
    return 0;
}

int brood_condition_create(brood_rlock *lock, brood_condition **ret_condition)
{
    void *payload;
    int error = 0;

    if (ret_condition == NULL)
        return bri_output_refuse("ret_condition");
    if (lock != NULL)
        error = bri_rlock_check(lock, "lock");
    if (error == 0)
        error = bri_object_make(BRI_KIND_CONDITION, sizeof(brood_condition), &payload);
    if (error < 0)
        return error;
    brood_condition *condition = payload;
    bri_rlock_init(&condition->own);
    bri_store_relaxed(&condition->width, 0u);
    bri_store_relaxed(&condition->notified, UINT64_C(0));
    bri_store_relaxed(&condition->next, UINT64_C(0));
    condition->lock = bri_offset_of(lock != NULL ? lock : &condition->own);
    bri_vigil_open(&condition->mutex);
    bri_object_publish(condition);
    *ret_condition = condition;
    return 0;
}

int brood_condition_acquire(brood_condition *condition, int64_t deadline)
{
    int error = check(condition);

    return error < 0 ? error : bri_rlock_acquire(lock_of(condition), deadline);
}

int brood_condition_release(brood_condition *condition)
{
    int error = check(condition);

    return error < 0 ? error : bri_rlock_release(lock_of(condition));
}

brood_rlock *brood_condition_lock(brood_condition *condition)
{
    return check(condition) < 0 ? NULL : lock_of(condition);
}

/* Who waits for a condition comes back with the lock held, in every outcome. */
static int take_whatever_comes(brood_rlock *lock)
{
    int died;

    do
        died = bri_rlock_take(lock, BROOD_FOREVER);
    while (died == -EINTR);
    return died;
}

int brood_condition_wait(brood_condition *condition, int64_t deadline)
{
    int error = check(condition);

    if (error == 0)
        error = bri_deadline_check(deadline);
    if (error == 0)
        error = check_depth(condition);
    if (error < 0)
        return error;
    struct wait wait = {condition, enlist(condition)};
    if (wait.waiter == NULL)
        return bri_fail(EAGAIN, "%u wait for condition already, the most that it has room for", BRI_WAITERS);
    brood_rlock *lock = lock_of(condition);
    bri_rlock_give(lock); /* W3 */
    int met = bri_vigil_wait(&wait.waiter->event, is_notified, ask_notified, &wait, deadline);
    bri_fault("condition.wait.woken");
    int died = take_whatever_comes(lock); /* W5 */
    if (leave(condition, wait.waiter))
        return died;
    if (died == BROOD_OWNER_DIED)
        bri_rlock_untell(lock);
    return bri_fail_wait(met, "condition was not notified until the deadline");
}

/* The oldest entry with a ticket above that one; NULL: none. */
static struct bri_waiter_shm *oldest_above(brood_condition *condition, uint64_t ticket)
{
    uint32_t width = width_of(condition);
    struct bri_waiter_shm *oldest = NULL;
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i < width; i++) {
        uint64_t own = bri_load_relaxed(&condition->waiters[i].ticket);
        if (own > ticket && own < least) {
            least = own;
            oldest = &condition->waiters[i];
        }
    }
    return oldest;
}

/* N2.  Returns how many. */
static int raise_notified(brood_condition *condition, uint32_t count)
{
    uint64_t ticket = bri_load_relaxed(&condition->notified);
    uint32_t woken = 0;

    for (; woken < count; woken++) {
        struct bri_waiter_shm *waiter = oldest_above(condition, ticket);
        if (waiter == NULL)
            break;
        ticket = bri_load_relaxed(&waiter->ticket);
    }
    bri_store_release(&condition->notified, ticket);
    bri_fault("condition.notify.raised");
    return (int)woken;
}

/* N4.  Entries may have got new waiters meanwhile: their tickets are higher, and one wake-up too many does no harm. */
static void signal_between(brood_condition *condition, uint64_t above, uint64_t last, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) {
        uint64_t ticket = bri_load_relaxed(&condition->waiters[i].ticket);
        if (ticket > above && ticket <= last)
            bri_event_signal(&condition->waiters[i].event, INT_MAX);
    }
}

int brood_condition_notify(brood_condition *condition, uint32_t count)
{
    int error = check(condition);

    if (error < 0)
        return error;
    if (bri_rlock_depth(lock_of(condition)) == 0)
        return bri_fail(EPERM, "the lock of condition is not held by this thread: acquire it first");
    bri_mutex_lock(&condition->mutex); /* N1 */
    uint64_t before = bri_load_relaxed(&condition->notified);
    int woken = raise_notified(condition, count);
    uint64_t after = bri_load_relaxed(&condition->notified);
    uint32_t width = width_of(condition);
    unlock(condition); /* N3 */
    if (woken > 0)
        signal_between(condition, before, after, width);
    return woken;
}

static int ask_who_waits(brood_condition *condition)
{
    uint32_t width = width_of(condition);
    int some = 0;

    for (uint32_t i = 0; i < width; i++)
        if (bri_load_acquire(&condition->waiters[i].ticket) != 0) {
            bri_report_if_ended(bri_load_relaxed(&condition->waiters[i].name));
            some |= bri_load_acquire(&condition->waiters[i].ticket) != 0;
        }
    return some;
}

int brood_condition_destroy(brood_condition *condition)
{
    if (condition == NULL)
        return 0;
    int error = bri_handle_check(condition, BRI_KIND_CONDITION, "condition");
    if (error < 0)
        return error;
    if (ask_who_waits(condition))
        return bri_fail(EBUSY, "a process waits for condition: notify it first");
    error = bri_rlock_close(&condition->own);
    if (error < 0)
        return error;
    bri_mutex_lock(&condition->mutex);
    bri_vigil_unmake(condition, &condition->mutex);
    return 0;
}

static int is_passed_on(const brood_condition *condition, const struct bri_waiter_shm *waiter)
{
    uint32_t width = width_of(condition);

    for (uint32_t i = 0; i < width; i++)
        if (&condition->waiters[i] != waiter &&
            bri_load_relaxed(&condition->waiters[i].ticket) == bri_load_relaxed(&waiter->ticket))
            return 1;
    return 0;
}

/* M2, M3. */
static void take_out(brood_condition *condition, struct bri_waiter_shm *waiter)
{
    struct bri_waiter_shm *heir = NULL;

    if (is_covered(condition, waiter) && !is_passed_on(condition, waiter))
        heir = oldest_above(condition, bri_load_relaxed(&condition->notified));
    if (heir != NULL)
        bri_store_release(&heir->ticket, bri_load_relaxed(&waiter->ticket)); /* M2 */
    bri_fault("condition.mourn.passed");
    bri_store_release(&waiter->ticket, UINT64_C(0)); /* M3 */
    if (heir != NULL)
        bri_event_signal(&heir->event, INT_MAX);
}

static int waits(const brood_condition *condition, bri_name name)
{
    uint32_t width = width_of(condition);

    for (uint32_t i = 0; i < width; i++)
        if (bri_load_acquire(&condition->waiters[i].ticket) != 0 &&
            bri_load_relaxed(&condition->waiters[i].name) == name)
            return 1;
    return 0;
}

static void mourn(void *payload, bri_name dead)
{
    brood_condition *condition = payload;

    bri_rlock_mourn(&condition->own, dead);
    if (!bri_vigil_holder_is_dead(&condition->mutex) && !waits(condition, dead))
        return;
    if (!bri_vigil_lock(condition, BRI_KIND_CONDITION, &condition->mutex)) /* M1 */
        return;
    uint32_t width = width_of(condition);
    for (uint32_t i = 0; i < width; i++)
        if (bri_load_relaxed(&condition->waiters[i].ticket) != 0 &&
            bri_is_dead_and_unburied(bri_load_relaxed(&condition->waiters[i].name)))
            take_out(condition, &condition->waiters[i]);
    narrow(condition);
    unlock(condition); /* M4 */
}

static int is_valid(void *payload)
{
    brood_condition *condition = payload;

    bri_mutex_lock(&condition->mutex);
    int whole = is_whole(condition);
    bri_mutex_unlock(&condition->mutex);
    return whole;
}

const struct bri_kind_ops bri_condition_ops = {
    .bytes = sizeof(brood_condition), .mourn = mourn, .is_valid = is_valid};
