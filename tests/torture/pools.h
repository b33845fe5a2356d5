/* SPDX-License-Identifier: MIT */
/*
 * The part "pools": pools whose tasks fail, crash, hang and allocate, with time-outs, cancels, retries and limits, while a thread kills and stops
 * workers and now and then the supervisor; beside them, owners of pools that are killed with all that is theirs.
 */
#ifndef BROOD_TORTURE_POOLS_H
#define BROOD_TORTURE_POOLS_H

#include "tasks.h"

/* The pool that is played with: the controller's, or in a seat that owner's. */
extern brood_pool *pool;
extern uint32_t workers;
extern int is_limited; /* its workers */
extern uint32_t regions_used,
    first_region; /* each owner has regions of its own, and leaves jobs behind when it is killed */

struct batch {
    struct item items[ITEMS];
    uint32_t count;
    brood_result *result;
    int is_bytes;
    struct fate fate;
    uint32_t item_timeout_ms, timeout_ms;
    int64_t cancelled; /* that the call said, less those that were found */
};

/* `batch` has its fate, which is empty for those that nobody waits for. */
void submit(struct batch *batch, int is_bytes, int may_allocate);
void collect(struct batch *batch);

void play_batches(void);
void play_map(void);
void play_stream(void);

/* One that nobody waits for. */
void drop_batch(void);

#endif
