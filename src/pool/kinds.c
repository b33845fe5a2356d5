/* SPDX-License-Identifier: MIT */
/* What the undertaker asks of each kind of block: the one table in which all layers meet.  See heap.h. */
#include "heap/bulk.h"
#include "heap/user.h"
#include "locks/locks.h"
#include "pool/job.h"
#include "pool/pool.h"
#include "proc/record.h"
#include "queue/queue.h"

const struct bri_kind_ops *const bri_kind_ops[BRI_KINDS] = {
    [BRI_KIND_LOCK] = &bri_lock_ops,           [BRI_KIND_RLOCK] = &bri_rlock_ops,
    [BRI_KIND_SEMAPHORE] = &bri_semaphore_ops, [BRI_KIND_CONDITION] = &bri_condition_ops,
    [BRI_KIND_EVENT] = &bri_event_ops,         [BRI_KIND_BARRIER] = &bri_barrier_ops,
    [BRI_KIND_QUEUE] = &bri_queue_ops,         [BRI_KIND_SEGMENT] = &bri_segment_ops,
    [BRI_KIND_MESSAGE] = &bri_message_ops,     [BRI_KIND_USER] = &bri_user_ops,
    [BRI_KIND_PROCESS] = &bri_process_ops,     [BRI_KIND_POOL] = &bri_pool_ops,
    [BRI_KIND_FAILURE] = &bri_failure_ops,     [BRI_KIND_REPLY] = &bri_reply_ops,
    [BRI_KIND_BULK] = &bri_bulk_ops,
};
