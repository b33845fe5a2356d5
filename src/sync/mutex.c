/* SPDX-License-Identifier: MIT */
#include "sync/mutex.h"

#include "arena/undertaker.h"
#include "base/time.h"
#include "brood.h"
#include "plat/process.h"
#include "sync/event.h"

enum { SPINS = 100, SLICE_MS = 20 };

_Thread_local unsigned bri_mutexes_held;
_Thread_local unsigned bri_undertaking_is_due;

int bri_mutex_is_damaged(bri_name owner)
{
    if (owner == 0 || owner == BRI_MUTEX_GRAVE)
        return 0;
    if (owner == bri_self())
        return bri_process_has_one_thread();
    return !bri_is_alive(owner) && !bri_is_dead_and_unburied(owner);
}

/* Sections are short: the holder is nearly always running.  So whoever is woken looks again before it sleeps again: else all who have met one
 * holder that was preempted would sleep and be woken at each section from then on. */
static int spin(struct bri_mutex_shm *mutex)
{
    for (int i = 0; i < SPINS; i++) {
        if (bri_load_relaxed(&mutex->owner) == 0 && bri_mutex_try(mutex))
            return 1;
        bri_cpu_relax();
    }
    return 0;
}

void bri_mutex_lock_slow(struct bri_mutex_shm *mutex)
{
    if (spin(mutex))
        return;
    bri_before_sleep();
    for (int64_t look_at = bri_after_ns(SLICE_MS * BRI_NS_PER_MS);
         ;) { /* however often others' deaths wake us */
        uint32_t obituary = bri_obituary_key();
        uint32_t key = bri_event_prepare(&mutex->event);
        if (bri_mutex_try(mutex))
            return;
        bri_event_sleep(&mutex->event, key, obituary, look_at);
        if (spin(mutex))
            return;
        bri_name owner = bri_load_acquire(&mutex->owner);
        if (owner == 0 || bri_now_ns() < look_at)
            continue;
        look_at = bri_after_ns(SLICE_MS * BRI_NS_PER_MS);
        if (bri_mutex_is_damaged(owner) && bri_mutex_take_over(mutex, owner))
            return;
        bri_report_if_ended(owner);
    }
}

void bri_mutex_unlock_slow(struct bri_mutex_shm *mutex)
{
    bri_event_signal(&mutex->event, 1);
    if (bri_undertaking_is_due && bri_mutexes_held == 0) {
        bri_undertaking_is_due = 0;
        bri_undertake();
    }
}
