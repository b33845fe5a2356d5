/* SPDX-License-Identifier: MIT */
/*
 * Handles: checks of arguments, and how an object comes to be and ceases to.
 *
 * tag of the block:   free --bri_object_make--> used, ours --bri_object_publish--> used, the arena's
 *                     free <--bri_object_unmake (2)-- used, ours <--bri_object_unmake (1)--+
 *
 * "ours" is owned by the calling process: the undertaker frees the block if it dies.  So the one store of publish makes
 * the object, and the one store of (1) unmakes it; before and after, a death leaves no block behind.
 *
 * A block under construction is known to its maker only, but an undertaker's walk sees it: mourn touches objects that are
 * the arena's, and words that name a dead process (see vigil.h).
 */
#ifndef BRI_HANDLE_H
#define BRI_HANDLE_H

#include "arena/roster.h"
#include "heap/heap.h"

int bri_handle_refuse(const void *handle, enum bri_kind kind, const char *argument);
int bri_deadline_refuse(int64_t deadline);
int bri_output_refuse(const char *argument);

/* 0 when it is the handle of an object of that kind, and this process has a name then.  -EINVAL; -EAGAIN: the roster is
 * full. */
static inline int bri_handle_check(const void *handle, enum bri_kind kind, const char *argument)
{
    if (!bri_heap_is(handle, kind))
        return bri_handle_refuse(handle, kind, argument);
    return bri_self() != 0 ? 0 : bri_arena_enter();
}

static inline int bri_deadline_check(int64_t deadline)
{
    return deadline >= 0 ? 0 : bri_deadline_refuse(deadline);
}

/* A block for an object, not zeroed: the caller sets every word, a mutex's owner last.  Errors of bri_arena_enter and
 * bri_heap_alloc. */
int bri_object_make(enum bri_kind kind, uint64_t bytes, void **ret_payload);

/* The object is there from now on. */
void bri_object_publish(void *payload);

/* The caller has closed the object to all others. */
void bri_object_unmake(void *payload);

/* Is the block an object of that kind that was published and not unmade? */
int bri_object_is_published(const void *payload, enum bri_kind kind);

#endif
