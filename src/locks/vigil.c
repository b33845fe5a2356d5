/* SPDX-License-Identifier: MIT */
#include "locks/vigil.h"

#include <errno.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/time.h"
#include "brood.h"
#include "locks/handle.h"

enum { FIRST_SLICE_MS = 50, LAST_SLICE_MS = 800, MUTEX_SLICE_MS = 5 };

static _Thread_local int64_t inquired_at;

static void inquire_now(bri_inquire *inquire, void *argument)
{
    if (inquire != NULL)
        inquire(argument);
    inquired_at = bri_now_ns();
}

static int last_look(bri_condition *condition, bri_inquire *inquire, void *argument)
{
    if (bri_now_ns() - inquired_at < FIRST_SLICE_MS * BRI_NS_PER_MS)
        return -ETIMEDOUT;
    inquire_now(inquire, argument);
    int met = condition(argument);
    return met != 0 ? met : -ETIMEDOUT;
}

int bri_vigil_wait(_Atomic uint32_t *event, bri_condition *condition, bri_inquire *inquire, void *argument,
                   int64_t deadline)
{
    int64_t slice_ms = FIRST_SLICE_MS;

    for (;;) {
        int64_t until = bri_earlier(deadline, bri_after_ns(slice_ms * BRI_NS_PER_MS));
        int met = bri_wait(event, condition, argument, until, 0);
        if (met != -ETIMEDOUT)
            return met;
        if (until == deadline)
            return last_look(condition, inquire, argument);
        inquire_now(inquire, argument);
        slice_ms = bri_earlier(slice_ms * 2, LAST_SLICE_MS);
    }
}

int bri_vigil_wait_turn(_Atomic uint32_t *event, bri_condition *condition, bri_inquire *inquire,
                        void *argument, int64_t deadline)
{
    int met = deadline != BROOD_NOW && bri_may_spin() ? bri_look_apart(condition, argument) : 0;

    return met != 0 ? met : bri_vigil_wait(event, condition, inquire, argument, deadline);
}

void bri_vigil_ask_slot(uint32_t slot)
{
    enum bri_slot_state state;
    bri_name name = bri_roster_name_at(slot, &state);

    if (state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED || state == BRI_SLOT_DEAD)
        bri_report_if_ended(name);
}

void bri_vigil_ask_holder(struct bri_mutex_shm *mutex)
{
    bri_name holder = bri_load_acquire(&mutex->owner);

    if (holder != BRI_MUTEX_GRAVE)
        bri_report_if_ended(holder);
}

int bri_slot_is_dead(uint32_t slot)
{
    enum bri_slot_state state;

    bri_roster_name_at(slot, &state);
    return state == BRI_SLOT_DEAD;
}

int bri_vigil_holder_is_dead(struct bri_mutex_shm *mutex)
{
    bri_name holder = bri_load_acquire(&mutex->owner);

    return holder != BRI_MUTEX_GRAVE && bri_is_dead_and_unburied(holder);
}

static int take_mutex(struct bri_mutex_shm *mutex)
{
    bri_name holder = bri_load_acquire(&mutex->owner);

    if (holder == 0)
        return bri_mutex_try(mutex);
    return holder != BRI_MUTEX_GRAVE && (bri_is_dead_and_unburied(holder) || bri_mutex_is_damaged(holder)) &&
           bri_mutex_take_over(mutex, holder);
}

/* The holder lives, or its death is not known yet. */
static void wait_for_holder(struct bri_mutex_shm *mutex)
{
    uint32_t obituary = bri_obituary_key();
    uint32_t key = bri_event_prepare(&mutex->event);

    if (bri_load_seq_cst(&mutex->owner) == 0)
        return;
    bri_event_sleep(&mutex->event, key, obituary, bri_after_ns(MUTEX_SLICE_MS * BRI_NS_PER_MS));
    bri_vigil_ask_holder(mutex);
}

int bri_vigil_lock(void *payload, enum bri_kind kind, struct bri_mutex_shm *mutex)
{
    while (bri_object_is_published(payload, kind)) {         /* V1 */
        if (!take_mutex(mutex)) {                            /* V2 */
            wait_for_holder(mutex);                          /* V4 */
        } else if (bri_object_is_published(payload, kind)) { /* V3 */
            return 1;
        } else {
            bri_mutex_unlock(mutex);
            return 0;
        }
    }
    return 0;
}

void bri_vigil_unmake(void *payload, struct bri_mutex_shm *mutex)
{
    bri_block_pass(bri_block_of(payload), bri_self());
    bri_fault("object.destroy.unmade");
    bri_store_release(&mutex->owner, BRI_MUTEX_GRAVE);
    bri_mutexes_held--;
    bri_heap_free(payload); /* its last unlock undertakes, if that is due */
}
