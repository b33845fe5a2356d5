/* SPDX-License-Identifier: MIT */
#include "sync/event.h"

#include <errno.h>
#include <sched.h>

#include "arena/roster.h"
#include "base/time.h"
#include "brood.h"
#include "plat/futex.h"
#include "plat/process.h"

enum {
    SPIN_NS = 40000,
    ROUNDS_PER_CLOCK = 32,
    FIRST_YIELD = 24,
    ROUNDS_PER_YIELD = 256,
    LOOKS = 200,
    APART = 400,
    APART_GAP = 64,
    SLICE_GROWTH = 8,
    YIELD_NS = 5000
};

void bri_event_signal_slow(_Atomic uint32_t *event, int count)
{
    uint32_t seen = bri_load_relaxed(event);
    uint32_t step =
        count == INT_MAX ? 1 : 2; /* the odd word + 1: sequence + 1, WAITING off; + 2: WAITING stays */

    while (seen & BRI_EVENT_WAITING) {
        if (!bri_cas_seq_cst(event, &seen, seen + step)) /* S3 */
            continue;
        int woken = bri_futex_wake(event, count); /* S4 */
        uint32_t mine = seen + 2;
        if (step == 2 && woken < count && bri_cas_seq_cst(event, &mine, seen + 3)) /* S5 */
            bri_futex_wake(event, INT_MAX);                                        /* S6 */
        return;
    }
}

int bri_event_sleep(_Atomic uint32_t *event, uint32_t key, uint32_t obituary, int64_t deadline)
{
    struct bri_futex futexes[2] = {{event, key}, {&bri_arena_current->header->obituary, obituary}};

    return bri_futex_wait(futexes, 2, deadline);
}

void bri_obituary_publish(void)
{
    _Atomic uint32_t *obituary = &bri_arena_current->header->obituary;

    atomic_fetch_add(obituary, 1u);
    bri_futex_wake(obituary, INT_MAX);
}

int bri_may_spin(void)
{
    const struct bri_header_shm *header = bri_arena_current->header;
    uint32_t high = bri_slots_high(), runnable = 0;

    for (uint32_t i = 0; i < high; i++)
        runnable += (bri_load_relaxed(&header->slots[i].word) & 0xff) == BRI_SLOT_LIVE &&
                    !bri_load_relaxed(&header->slots[i].idle);
    return runnable <= header->cpus && header->cpus > 1;
}

/* Lets others run: whoever is waited for may have no CPU but this one, since other programs run, too.  Did anybody? */
static int somebody_ran(void)
{
    int64_t before = bri_now_ns();

    sched_yield();
    return bri_now_ns() - before > YIELD_NS;
}

/* What comes within some microseconds comes without a system call.  Where others want this CPU the spinning ends: law 6 means them as well,
 * and who sleeps is let in sooner than who has had his share.  The first to let in are those who have been woken to do what is waited for: the
 * kernel likes to put them on the CPU of who woke them. */
static int spin(bri_condition *condition, void *argument)
{
    int64_t end = 0;
    int met = 0, is_over = 0;

    for (int round = 1; met == 0 && !is_over; round++) {
        bri_cpu_relax();
        if (round == FIRST_YIELD || round % ROUNDS_PER_YIELD == 0)
            is_over = somebody_ran();
        if (round == ROUNDS_PER_CLOCK)
            end = bri_after_ns(SPIN_NS);
        else if (round % ROUNDS_PER_CLOCK == 0)
            is_over |= bri_now_ns() >= end;
        met = condition(argument);
    }
    return met;
}

/* At distances that double up to `widest`, until they sum up to `all`; both in pauses of the processor. */
static int look(bri_condition *condition, void *argument, int all, int widest)
{
    int met = condition(argument);

    for (int gap = 1, waited = 0; met == 0 && waited < all; waited += gap) {
        for (int i = 0; i < gap; i++)
            bri_cpu_relax();
        met = condition(argument);
        if (gap < widest)
            gap *= 2;
    }
    return met;
}

int bri_look(bri_condition *condition, void *argument)
{
    return look(condition, argument, LOOKS, 1);
}

int bri_look_apart(bri_condition *condition, void *argument)
{
    return look(condition, argument, APART, APART_GAP);
}

static int64_t slice_end(int64_t deadline, int64_t slice_ns)
{
    return slice_ns > 0 ? bri_earlier(deadline, bri_after_ns(slice_ns)) : deadline;
}

static int (*_Atomic interrupt_check)(void);

void brood_on_interrupt(int (*check)(void))
{
    bri_store_release(&interrupt_check, check);
}

int bri_is_interrupted(void)
{
    int (*check)(void) = bri_load_acquire(&interrupt_check);

    return check != NULL && check() != 0;
}

static void (*_Atomic sleep_hook)(void);

void bri_on_sleep(void (*hook)(void))
{
    bri_store_release(&sleep_hook, hook);
}

void bri_before_sleep(void)
{
    void (*hook)(void) = bri_load_acquire(&sleep_hook);

    if (hook != NULL)
        hook();
}

void bri_set_idle(uint32_t is_idle)
{
    bri_store_relaxed(&bri_slot_of(bri_self())->idle, is_idle);
}

static int sleep_once(_Atomic uint32_t *event, uint32_t key, uint32_t obituary, int64_t until)
{
    bri_before_sleep();
    bri_set_idle(1);
    int slept = bri_event_sleep(event, key, obituary, until);
    bri_set_idle(0);
    return slept;
}

int bri_wait(_Atomic uint32_t *event, bri_condition *condition, void *argument, int64_t deadline,
             int64_t slice_ns)
{
    int met = condition(argument);
    int64_t longest_slice = slice_ns * SLICE_GROWTH;

    if (met == 0 && deadline == BROOD_NOW)
        return -ETIMEDOUT;
    if (met == 0 && bri_may_spin())
        met = spin(condition, argument);
    while (met == 0) {
        uint32_t obituary = bri_obituary_key();
        uint32_t key = bri_event_prepare(event);
        met = condition(argument);
        if (met == 0 && deadline != BROOD_FOREVER && bri_now_ns() >= deadline)
            return -ETIMEDOUT;
        if (met == 0 && sleep_once(event, key, obituary, slice_end(deadline, slice_ns)) < 0 &&
            bri_is_interrupted())
            return -EINTR; /* asked after slices too: a signal may come right before the sleep */
        slice_ns = bri_earlier(slice_ns * 2, longest_slice);
    }
    return met;
}

int bri_wait_for_end(int pidfd, int64_t deadline)
{
    int error;

    bri_set_idle(1);
    do
        error = bri_pidfd_wait_once(pidfd, deadline);
    while (error == -EINTR && !bri_is_interrupted());
    bri_set_idle(0);
    return error;
}
