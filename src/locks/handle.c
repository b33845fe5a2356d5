/* SPDX-License-Identifier: MIT */
#include "locks/handle.h"

#include <errno.h>

#include "base/check.h"
#include "base/error.h"

static const char *const nouns[BRI_KIND_SYNC_END] = {
    [BRI_KIND_LOCK] = "brood_lock",           [BRI_KIND_RLOCK] = "brood_rlock",
    [BRI_KIND_SEMAPHORE] = "brood_semaphore", [BRI_KIND_CONDITION] = "brood_condition",
    [BRI_KIND_EVENT] = "brood_event",         [BRI_KIND_BARRIER] = "brood_barrier",
};

int bri_handle_refuse(const void *handle, enum bri_kind kind, const char *argument)
{
    if (handle == NULL)
        return bri_fail(EINVAL, "%s is NULL: pass what %s_create gave", argument, nouns[kind]);
    return bri_fail(EINVAL, "%s (%p) is no %s of this arena, or was destroyed: pass what %s_create gave",
                    argument, handle, nouns[kind], nouns[kind]);
}

int bri_deadline_refuse(int64_t deadline)
{
    return bri_fail(EINVAL, "deadline is %lld: pass what brood_after_ms gave, BROOD_NOW or BROOD_FOREVER",
                    (long long)deadline);
}

int bri_output_refuse(const char *argument)
{
    return bri_fail(EINVAL, "%s is NULL: pass where the handle goes", argument);
}

int bri_object_make(enum bri_kind kind, uint64_t bytes, void **ret_payload)
{
    int error = bri_arena_enter();

    if (error < 0)
        return error;
    return bri_heap_alloc(kind, bytes, bri_self(), ret_payload);
}

void bri_object_publish(void *payload)
{
    bri_fault("object.create.made");
    bri_block_pass(bri_block_of(payload), 0);
}

void bri_object_unmake(void *payload)
{
    bri_block_pass(bri_block_of(payload), bri_self());
    bri_fault("object.destroy.unmade");
    bri_heap_free(payload);
}

int bri_object_is_published(const void *payload, enum bri_kind kind)
{
    uint64_t tag = bri_load_acquire(&bri_block_of(payload)->tag);

    return bri_tag_is_used(tag) && bri_tag_kind(tag) == kind && bri_tag_owner(tag) == 0;
}
