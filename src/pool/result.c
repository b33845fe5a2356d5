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

enum { SLICE_MS = 100, SLICE_LONGEST_MS = 800, LOST_LOOKS = 3 };

void bri_result_init(brood_result *result, brood_pool *pool)
{
    *result = (brood_result){.pool = pool, .descriptor = -1};
    bri_pool_hold(pool);
}

void bri_result_fini(brood_result *result)
{
    bri_result_close_descriptor(result);
    bri_pool_drop(result->pool);
}

int bri_result_check(const brood_result *result)
{
    if (result == NULL)
        return bri_fail(EINVAL, "result is NULL: pass what the submitting function gave");
    if (bri_arena_current == NULL || result->pool->owner != bri_self())
        return bri_fail(EPERM, "result belongs to another process: only the pool's owner may use it");
    return 0;
}

static int check_item(const brood_result *result, size_t index)
{
    int error = bri_result_check(result);

    if (error == 0 && index >= result->view.count)
        return bri_fail(ERANGE, "index is %zu: the job has %llu items", index,
                        (unsigned long long)result->view.count);
    return error;
}

int bri_result_is_ready(brood_result *result)
{
    return bri_view_is_complete(&result->view) || bri_pool_is_over(result->pool);
}

static int is_ready(void *argument)
{
    return bri_result_is_ready(argument);
}

/* A chunk's word says it of all its items; what is known of single ones, in a chunk that goes on, takes a walk. */
int bri_result_has_item(brood_result *result, uint64_t item)
{
    const struct bri_job_view *view = &result->view;
    uint16_t word = bri_load_seq_cst(&view->table[item / view->chunk_items]); /* signalled behind a fence */
    brood_outcome outcome;

    if (word == BRI_CHUNK_DONE || word == BRI_CHUNK_CANCELLED || bri_result_is_ready(result))
        return 1;
    return (bri_load_relaxed(&view->job->failures) | bri_load_relaxed(&view->job->resumes)) != 0 &&
           (bri_job_outcome(view, item, &outcome) < 0 || outcome.kind != BROOD_PENDING);
}

struct item_of {
    brood_result *result;
    uint64_t item;
};

static int has_item(void *argument)
{
    const struct item_of *wanted = argument;

    return bri_result_has_item(wanted->result, wanted->item);
}

/* However often one waits for a moment: the looks lie apart, so that what is true of them lasts. */
void bri_result_look_for_loss(brood_result *result, int64_t now)
{
    if (now < result->next_look)
        return;
    result->next_look = now + SLICE_MS * BRI_NS_PER_MS;
    if (bri_result_is_ready(result) || !bri_pool_has_lost(result->pool, &result->view, result->index))
        result->lost_looks = 0;
    else if (++result->lost_looks >= LOST_LOOKS)
        bri_pool_declare_damaged(result->pool);
}

/* Until the condition, which comes at the latest when the result is ready, is met. */
static int wait_until(brood_result *result, bri_condition *condition, void *argument, int64_t deadline)
{
    for (int64_t slice = SLICE_MS * BRI_NS_PER_MS;;
         slice = bri_earlier(slice * 2, SLICE_LONGEST_MS * BRI_NS_PER_MS)) {
        int64_t until = deadline == BROOD_NOW ? BROOD_NOW : bri_earlier(deadline, bri_after_ns(slice));
        int met = bri_wait(&result->view.job->event, condition, argument, until, 0);
        if (met == -EINTR)
            return bri_fail_wait(met, "the result is not ready yet");
        if (met > 0)
            return 0;
        bri_pool_look_after(result->pool);
        bri_result_look_for_loss(result, bri_now_ns());
        if (deadline == BROOD_NOW || bri_now_ns() >= deadline)
            return condition(argument) ? 0 : bri_fail(ETIMEDOUT, "the result is not ready yet");
    }
}

static int wait_until_ready(brood_result *result, int64_t deadline)
{
    return wait_until(result, is_ready, result, deadline);
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

int brood_result_wait_item(brood_result *result, size_t index, int64_t deadline)
{
    struct item_of wanted = {result, index};
    int error = check_item(result, index);

    if (error < 0)
        return error;
    if (deadline < 0)
        return bri_fail(EINVAL, "deadline is negative: use brood_after_ms, BROOD_NOW or BROOD_FOREVER");
    return wait_until(result, has_item, &wanted, deadline);
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
        int64_t now = bri_now_ns();
        for (size_t i = 0; i < count; i++)
            bri_result_look_for_loss(results[i], now);
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
    return result == NULL ? 0 : result->view.count;
}

static int fail_as_damaged(void)
{
    return bri_fail(ENOTRECOVERABLE,
                    "the result is damaged: some process has written into its shared memory");
}

/* What the item's outcome is for the caller: a pool that is over has nothing pending.  -ENOTRECOVERABLE. */
static int outcome_of(brood_result *result, uint64_t item, brood_outcome *ret_outcome)
{
    int over = bri_pool_is_over(result->pool);

    if (bri_job_outcome(&result->view, item, ret_outcome) < 0)
        return fail_as_damaged();
    if (ret_outcome->kind == BROOD_PENDING && over)
        ret_outcome->kind = BROOD_CANCELLED;
    return 0;
}

/* --- how the whole ended --- */

/* 1 and the first item that has failed, or 0; -ENOTRECOVERABLE. */
static int first_failure(const struct bri_job_view *view, uint64_t *ret_item)
{
    struct bri_walk walk = bri_walk_begin(&view->job->failures);
    uint64_t first = UINT64_MAX;

    for (const struct bri_failure_shm *failure; (failure = bri_walk_next(&walk)) != NULL;) {
        uint64_t index = bri_read_once(failure->index);
        first = index < first ? index : first;
    }
    if (walk.is_damaged || (first != UINT64_MAX && first >= view->count))
        return fail_as_damaged();
    *ret_item = first;
    return first != UINT64_MAX;
}

static int fail_as(brood_result *result, uint64_t item)
{
    brood_outcome outcome;
    int error = outcome_of(result, item, &outcome);

    if (error < 0)
        return error;
    if (outcome.kind == BROOD_DIED)
        return bri_fail(EOWNERDEAD, "%s", outcome.text);
    if (outcome.kind == BROOD_TIMED_OUT || outcome.kind == BROOD_CANCELLED)
        return bri_fail(outcome.kind == BROOD_TIMED_OUT ? ETIME : ECANCELED, "%s", outcome.text);
    return bri_fail(EREMOTEIO, "item %llu: the function failed with %d%s%s", (unsigned long long)item,
                    outcome.code, outcome.text[0] != 0 ? ": " : "", outcome.text);
}

static int has_cancelled_chunk(const struct bri_job_view *view)
{
    for (uint64_t chunk = 0; chunk < view->chunks; chunk++)
        if (bri_load_acquire(&view->table[chunk]) == BRI_CHUNK_CANCELLED)
            return 1;
    return 0;
}

/* Nothing has failed; was there something left to be cancelled, when it was cancelled? */
static int fail_as_cancelled(const struct bri_job_view *view)
{
    uint32_t cancel = bri_load_acquire(&view->job->cancel);

    if (cancel == BRI_CANCEL_NONE || !has_cancelled_chunk(view))
        return 0;
    return cancel == BRI_CANCEL_TIME
               ? bri_fail(ETIME, "items were not done when the %u ms of the whole were over",
                          view->timeout_ms)
               : bri_fail(ECANCELED, "items of this job were cancelled");
}

/* Complete: the first failure; cancelled items; else all is well.  Not complete: the pool's trouble. */
static int conclude(brood_result *result)
{
    uint64_t failed;

    if (!bri_view_is_complete(&result->view)) {
        int trouble = bri_pool_trouble(result->pool, 0);
        return trouble < 0 ? trouble : bri_fail(ECANCELED, "the pool has ended before this was done");
    }
    int found = first_failure(&result->view, &failed);
    if (found < 0)
        return found;
    return found ? fail_as(result, failed) : fail_as_cancelled(&result->view);
}

int brood_result_successful(brood_result *result)
{
    int ready = brood_result_ready(result);

    if (ready < 0)
        return ready;
    return ready ? conclude(result) == 0 : bri_fail(EAGAIN, "the result is not ready yet");
}

/* What never ran has left its results as the memory was: the caller sees zeros. */
static void copy_results(const struct bri_job_view *view, char *results)
{
    memcpy(results, view->results, view->count * view->result_bytes);
    for (uint64_t chunk = 0; chunk < view->chunks && bri_load_relaxed(&view->job->cancel) != BRI_CANCEL_NONE;
         chunk++) {
        if (bri_load_relaxed(&view->table[chunk]) != BRI_CHUNK_CANCELLED)
            continue;
        uint64_t begin = bri_view_resume_item(view, chunk), end = bri_view_end_item(view, chunk);
        memset(results + begin * view->result_bytes, 0, (end - begin) * view->result_bytes);
    }
}

int bri_result_get(brood_result *result, void *results, int64_t deadline)
{
    int error = wait_until_ready(result, deadline);

    if (error < 0)
        return error;
    if (results != NULL && result->view.result_bytes > 0 && bri_view_is_complete(&result->view))
        copy_results(&result->view, results);
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
    if (capacity < result->view.count * result->view.result_bytes)
        return bri_fail(EMSGSIZE, "capacity is %zu: the results are %llu of %llu bytes", capacity,
                        (unsigned long long)result->view.count,
                        (unsigned long long)result->view.result_bytes);
    return bri_result_get(result, results, deadline);
}

/* --- items --- */

int brood_result_outcome(brood_result *result, size_t index, brood_outcome *ret_outcome)
{
    int error = check_item(result, index);

    if (error < 0)
        return error;
    if (ret_outcome == NULL)
        return bri_fail(EINVAL, "ret_outcome is NULL: pass where the outcome goes");
    brood_outcome outcome;
    error = outcome_of(result, index, &outcome);
    if (error == 0)
        *ret_outcome = outcome;
    return error;
}

static int find_reply(bri_offset at, brood_message *ret_reply)
{
    static char nothing;
    void *reply = at == 0 ? &nothing : bri_heap_find(at, BRI_KIND_REPLY, 1);
    uint64_t bytes = reply == NULL || at == 0 ? 0 : bri_load_relaxed(&bri_block_of(reply)->bytes);

    if (reply == NULL || (bytes > 0 && bri_heap_find(at, BRI_KIND_REPLY, bytes) == NULL))
        return fail_as_damaged();
    *ret_reply = (brood_message){reply, bytes};
    return 0;
}

int brood_result_bytes(brood_result *result, size_t index, brood_message *ret_reply)
{
    brood_outcome outcome;
    int error = brood_result_outcome(result, index, &outcome);

    if (error < 0)
        return error;
    if (ret_reply == NULL || result->view.replies == NULL)
        return bri_fail(EINVAL, "%s",
                        ret_reply == NULL ? "ret_reply is NULL: pass where the reply goes"
                                          : "result has results of a fixed size: use brood_result_get");
    if (outcome.kind != BROOD_VALUE)
        return outcome.kind == BROOD_PENDING
                   ? bri_fail(EAGAIN, "item %zu is not ready yet", index)
                   : bri_fail(ENODATA, "item %zu has no value: %s", index, outcome.text);
    return find_reply(bri_load_acquire(&result->view.replies[index]), ret_reply);
}

static int64_t cancel(brood_result *result, enum bri_job_cancel level)
{
    int error = bri_result_check(result);

    return error < 0 ? error : (int64_t)bri_job_cancel(&result->view, level);
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
    bri_result_close_descriptor(result); /* what rings it goes with the job */
    bri_pool_take_back(result->pool, &result->view, result->index);
    bri_result_fini(result);
    free(result);
    return 0;
}
