/* SPDX-License-Identifier: MIT */
/*
 * Blocks of brood_alloc and the task that they were born in.
 *
 * progress word of a worker's slot:   63 ....... 42 | 41 .......... 1 | 0
 *                                     job's number  | item index      | RUNNING
 *
 * One store begins an item, and one ends it: that or the next item's.  A block allocated while an item runs carries the word in aux[0], how many
 * chunks the worker has claimed in aux[1] (numbers come again: those of calls after half a second), and is owned by the worker: should the worker
 * die while both are still the same, the item has no value, nobody knows the block, and it is freed; else it lives on.
 */
#ifndef BRI_USER_H
#define BRI_USER_H

#include "heap/heap.h"

#define BRI_PROGRESS_RUNNING   UINT64_C(1)
#define BRI_PROGRESS_JOB_SHIFT 42

static inline uint64_t bri_progress_item(uint64_t progress)
{
    return (progress & ((UINT64_C(1) << BRI_PROGRESS_JOB_SHIFT) - 1)) >> 1;
}

extern const struct bri_kind_ops bri_user_ops;

#endif
