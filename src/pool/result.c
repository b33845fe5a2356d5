/* SPDX-License-Identifier: MIT */
/* Result handles: waiting for a job, and looking at how its items ended. */
#include "pool/result.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena/roster.h"
#include "base/error.h"
#include "base/time.h"
#include "sync/event.h"

enum { SLICE_MS = 100, SLICE_LONGEST_MS = 800 };

brood_result *bri_result_alloc(brood_pool *pool)
{
    brood_result *result = calloc(1, sizeof *result);

    if (result != NULL) {
        result->pool = pool;
        result->descriptor = -1;
        bri_pool_hold(pool);
    }
    return result;
}

void bri_result_discard(brood_result *result)
{
    bri_pool_drop(result->pool);
    free(result);
}

void bri_result_attach(brood_result *result, struct bri_job_shm *job, uint64_t index)
{
    result->job = job;
    result->index = index;
}

int bri_result_check(const brood_result *result)
{
    if (result == NULL)
        return bri_fail(EINVAL, "result is NULL: pass what the submitting function gave");
    if (bri_arena_current == NULL || result->pool->owner != bri_self())
        return bri_fail(EPERM, "result belongs to another process: only the pool's owner may use it");
    return 0;
}

int bri_result_is_ready(brood_result *result)
{
    return bri_job_is_complete(result->job) || bri_pool_is_over(result->pool);
}

static int is_ready(void *argument)
{
    return bri_result_is_ready(argument);
}

static int wait_until_ready(brood_result *result, int64_t deadline)
{
    for (int64_t slice = SLICE_MS * BRI_NS_PER_MS;;
         slice = bri_earlier(slice * 2, SLICE_LONGEST_MS * BRI_NS_PER_MS)) {
        int64_t until = deadline == BROOD_NOW ? BROOD_NOW : bri_earlier(deadline, bri_after_ns(slice));
        int met = bri_wait(&result->job->event, is_ready, result, until, 0);
        if (met == -EINTR)
            return bri_fail_wait(met, "the result is not ready yet");
        if (met > 0)
            return 0;
        bri_pool_look_after(result->pool);
        if (deadline == BROOD_NOW || bri_now_ns() >= deadline)
            return bri_result_is_ready(result) ? 0 : bri_fail(ETIMEDOUT, "the result is not ready yet");
    }
}

int brood_result_wait(brood_result *result, int64_t deadline)
{
    int error = bri_result_check(result);

    if (error < 0)
        return error;
    if (deadline < 0)
        return bri_fail(EINVAL, "deadline is negative: use brood_after_ms, BROOD_NOW or BROOD_FOREVER");
    error = wait_until_ready(result, deadline);
    if (error < 0 && result->descriptor >= 0)
        bri_result_refresh_descriptor(result);
    return error;
}

struct several {
    brood_result *const *results;
    size_t count, found;
};

static int find_ready(void *argument)
{
    struct several *several = argument;

    for (several->found = 0; several->found < several->count; several->found++)
        if (bri_result_is_ready(several->results[several->found]))
            return 1;
    return 0;
}

static int check_several(brood_result *const *results, size_t count, int64_t deadline)
{
    if (results == NULL || count == 0 || count > INT_MAX)
        return bri_fail(
            EINVAL, "results is NULL or count (%zu) not from 1 to 2^31-1: pass an array of results", count);
    for (size_t i = 0; i < count; i++) {
        int error = bri_result_check(results[i]);
        if (error < 0)
            return error;
        if (results[i]->pool != results[0]->pool)
            return bri_fail(EINVAL,
                            "results[%zu] is another pool's than results[0]: pass results of one pool", i);
    }
    return deadline < 0
               ? bri_fail(EINVAL, "deadline is negative: use brood_after_ms, BROOD_NOW or BROOD_FOREVER")
               : 0;
}

int brood_result_wait_any(brood_result *const *results, size_t count, int64_t deadline)
{
    struct several several = {results, count, 0};
    int error = check_several(results, count, deadline);
    int64_t slice = SLICE_MS * BRI_NS_PER_MS;

    if (error < 0)
        return error;
    for (;; slice = bri_earlier(slice * 2, SLICE_LONGEST_MS * BRI_NS_PER_MS)) {
        int64_t until = deadline == BROOD_NOW ? BROOD_NOW : bri_earlier(deadline, bri_after_ns(slice));
        int met = bri_wait(&results[0]->pool->shared->finished, find_ready, &several, until, 0);
        if (met > 0)
            return (int)several.found;
        bri_pool_look_after(results[0]->pool);
        if (met == -EINTR || deadline == BROOD_NOW || bri_now_ns() >= deadline)
            return find_ready(&several) ? (int)several.found
                                        : bri_fail_wait(met, "none of the results is ready yet");
    }
}

/* Nobody would tell a caller who never waits that the supervisor was killed: a look that finds that out starts another, or ends the pool. */
int brood_result_ready(brood_result *result)
{
    int error = bri_result_check(result);

    if (error < 0)
        return error;
    if (bri_result_is_ready(result))
        return 1;
    bri_pool_look_after_at_times(result->pool);
    return bri_result_is_ready(result);
}

size_t brood_result_count(brood_result *result)
{
    return result == NULL ? 0 : result->job->count;
}

/* What the item's outcome is for the caller: a pool that is over has nothing pending. */
static void outcome_of(brood_result *result, uint64_t item, brood_outcome *ret_outcome)
{
    int over = bri_pool_is_over(result->pool);

    bri_job_outcome(result->job, item, ret_outcome);
    if (ret_outcome->kind == BROOD_PENDING && over)
        ret_outcome->kind = BROOD_CANCELLED;
}

/* --- how the whole ended --- */

static uint64_t first_failure(struct bri_job_shm *job)
{
    uint64_t first = UINT64_MAX;

    for (bri_offset at = bri_load_acquire(&job->failures); at != 0;) {
        const struct bri_failure_shm *failure = bri_at(at);
        first = failure->index < first ? failure->index : first;
        at = failure->next;
    }
    return first;
}

static int fail_as(brood_result *result, uint64_t item)
{
    brood_outcome outcome;

    outcome_of(result, item, &outcome);
    if (outcome.kind == BROOD_DIED)
        return bri_fail(EOWNERDEAD, "%s", outcome.text);
    if (outcome.kind == BROOD_TIMED_OUT || outcome.kind == BROOD_CANCELLED)
        return bri_fail(outcome.kind == BROOD_TIMED_OUT ? ETIME : ECANCELED, "%s", outcome.text);
    return bri_fail(EREMOTEIO, "item %llu: the function failed with %d: %s", (unsigned long long)item,
                    outcome.code, outcome.text);
}

static int has_cancelled_chunk(struct bri_job_shm *job)
{
    for (uint64_t chunk = 0; chunk < job->chunks; chunk++)
        if (bri_load_acquire(bri_job_chunk(job, chunk)) == BRI_CHUNK_CANCELLED)
            return 1;
    return 0;
}

/* Nothing has failed; was there something left to be cancelled, when it was cancelled? */
static int fail_as_cancelled(struct bri_job_shm *job)
{
    uint32_t cancel = bri_load_acquire(&job->cancel);

    if (cancel == BRI_CANCEL_NONE || !has_cancelled_chunk(job))
        return 0;
    return cancel == BRI_CANCEL_TIME
               ? bri_fail(ETIME, "items were not done when the %u ms of the whole were over", job->timeout_ms)
               : bri_fail(ECANCELED, "items of this job were cancelled");
}

/* Complete: the first failure; cancelled items; else all is well.  Not complete: the pool's trouble. */
static int conclude(brood_result *result)
{
    uint64_t failed = first_failure(result->job);

    if (!bri_job_is_complete(result->job)) {
        int trouble = bri_pool_trouble(result->pool, 0);
        return trouble < 0 ? trouble : bri_fail(ECANCELED, "the pool has ended before this was done");
    }
    if (failed != UINT64_MAX)
        return fail_as(result, failed);
    return fail_as_cancelled(result->job);
}

int brood_result_successful(brood_result *result)
{
    int ready = brood_result_ready(result);

    if (ready < 0)
        return ready;
    return ready ? conclude(result) == 0 : bri_fail(EAGAIN, "the result is not ready yet");
}

/* What never ran has left its results as the memory was: the caller sees zeros. */
static void copy_results(struct bri_job_shm *job, char *results)
{
    memcpy(results, bri_at(job->results_at), job->count * job->result_bytes);
    for (uint64_t chunk = 0; chunk < job->chunks && bri_load_relaxed(&job->cancel) != BRI_CANCEL_NONE;
         chunk++) {
        if (bri_load_relaxed(bri_job_chunk(job, chunk)) != BRI_CHUNK_CANCELLED)
            continue;
        uint64_t begin = bri_job_resume_item(job, chunk), end = bri_job_end_item(job, chunk);
        memset(results + begin * job->result_bytes, 0, (end - begin) * job->result_bytes);
    }
}

int bri_result_get(brood_result *result, void *results, int64_t deadline)
{
    int error = wait_until_ready(result, deadline);

    if (error < 0)
        return error;
    if (results != NULL && result->job->result_bytes > 0 && bri_job_is_complete(result->job))
        copy_results(result->job, results);
    return conclude(result);
}

int brood_result_get(brood_result *result, void *results, size_t capacity, int64_t deadline)
{
    int error = bri_result_check(result);

    if (error < 0)
        return error;
    if (deadline < 0)
        return bri_fail(EINVAL, "deadline is negative: use brood_after_ms, BROOD_NOW or BROOD_FOREVER");
    if (results == NULL && capacity != 0)
        return bri_fail(EINVAL, "results is NULL and capacity %zu", capacity);
    if (capacity < result->job->count * result->job->result_bytes)
        return bri_fail(EMSGSIZE, "capacity is %zu: the results are %llu of %llu bytes", capacity,
                        (unsigned long long)result->job->count,
                        (unsigned long long)result->job->result_bytes);
    return bri_result_get(result, results, deadline);
}

/* --- items --- */

static int check_item(const brood_result *result, size_t index)
{
    int error = bri_result_check(result);

    if (error == 0 && index >= result->job->count)
        return bri_fail(ERANGE, "index is %zu: the job has %llu items", index,
                        (unsigned long long)result->job->count);
    return error;
}

int brood_result_outcome(brood_result *result, size_t index, brood_outcome *ret_outcome)
{
    int error = check_item(result, index);

    if (error < 0)
        return error;
    if (ret_outcome == NULL)
        return bri_fail(EINVAL, "ret_outcome is NULL: pass where the outcome goes");
    outcome_of(result, index, ret_outcome);
    return 0;
}

int brood_result_bytes(brood_result *result, size_t index, brood_message *ret_reply)
{
    brood_outcome outcome;
    int error = brood_result_outcome(result, index, &outcome);

    if (error < 0)
        return error;
    if (ret_reply == NULL || !(result->job->flags & BRI_JOB_BYTES))
        return bri_fail(EINVAL, "%s",
                        ret_reply == NULL ? "ret_reply is NULL: pass where the reply goes"
                                          : "result has results of a fixed size: use brood_result_get");
    if (outcome.kind != BROOD_VALUE)
        return outcome.kind == BROOD_PENDING
                   ? bri_fail(EAGAIN, "item %zu is not ready yet", index)
                   : bri_fail(ENODATA, "item %zu has no value: %s", index, outcome.text);
    bri_offset reply = bri_load_acquire(bri_job_reply(result->job, index));
    static char nothing;
    *ret_reply = reply == 0
                     ? (brood_message){&nothing, 0}
                     : (brood_message){bri_at(reply), bri_load_relaxed(&bri_block_of(bri_at(reply))->bytes)};
    return 0;
}

static int64_t cancel(brood_result *result, enum bri_job_cancel level)
{
    int error = bri_result_check(result);

    return error < 0 ? error : (int64_t)bri_job_cancel(result->job, level);
}

int64_t brood_result_cancel(brood_result *result)
{
    return cancel(result, BRI_CANCEL_WAITING);
}

int64_t brood_result_cancel_running(brood_result *result)
{
    int64_t items = cancel(result, BRI_CANCEL_RUNNING);

    if (items >= 0 && !bri_result_is_ready(result))
        bri_pool_ring_supervisor(result->pool);
    return items;
}

int brood_result_destroy(brood_result *result)
{
    if (result == NULL)
        return 0;
    int error = bri_result_check(result);
    if (error < 0)
        return error;
    bri_result_close_descriptor(result);
    bri_pool_take_back(result->pool, result->job, result->index);
    bri_pool_drop(result->pool);
    free(result);
    return 0;
}
