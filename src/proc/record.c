/* SPDX-License-Identifier: MIT */
#include "proc/record.h"

#include <limits.h>

#include "arena/roster.h"
#include "base/check.h"
#include "sync/event.h"

static int is_last(uint32_t before, uint32_t who)
{
    return (before & BRI_GONE_BOTH) != BRI_GONE_BOTH && ((before | who) & BRI_GONE_BOTH) == BRI_GONE_BOTH;
}

void bri_process_leave(struct bri_process_shm *record, uint32_t who)
{
    uint32_t before = bri_load_acquire(&record->gone), after;

    do
        after = before | who | (is_last(before, who) ? who << 2 : 0);
    while (!bri_cas_seq_cst(&record->gone, &before, after));
    bri_fault("process.gone");
    if (is_last(before, who))
        bri_heap_free(record);
}

static void set_state(struct bri_process_shm *record, enum bri_process_state from, enum bri_process_state to)
{
    uint32_t expected = (uint32_t)from;

    if (bri_cas_acq_rel(&record->state, &expected, (uint32_t)to))
        bri_event_signal(&record->event, INT_MAX);
}

/* One that leaves in good order has said ENDED or FAILED, and its status stands. */
static void mourn_keeper(struct bri_process_shm *record)
{
    uint32_t state = bri_load_acquire(&record->state);

    if (state == BRI_PROCESS_ENDED || state == BRI_PROCESS_FAILED)
        return;
    bri_store_relaxed(&record->status, BRI_STATUS_UNKNOWN);
    set_state(record, BRI_PROCESS_RUNNING, BRI_PROCESS_LOST);
    if (!bri_is_alive(bri_load_relaxed(&record->child)))
        set_state(record, BRI_PROCESS_LOST, BRI_PROCESS_ENDED);
}

/* The bits come last: the record may be freed by them. */
static void mourn(void *payload, bri_name dead)
{
    struct bri_process_shm *record = payload;
    uint32_t gone = 0;

    if (bri_load_relaxed(&record->child) == dead)
        set_state(record, BRI_PROCESS_LOST, BRI_PROCESS_ENDED);
    if (bri_load_relaxed(&record->keeper) == dead)
        mourn_keeper(record);
    if (bri_load_relaxed(&record->keeper) == dead)
        gone |= BRI_GONE_KEEPER;
    if (bri_load_relaxed(&record->starter) == dead)
        gone |= BRI_GONE_STARTER;
    if (bri_load_acquire(&record->gone) & gone << 2) /* it was to free the record */
        bri_heap_free(record);
    else if (gone != 0)
        bri_process_leave(record, gone);
}

const struct bri_kind_ops bri_process_ops = {.bytes = sizeof(struct bri_process_shm), .mourn = mourn};
