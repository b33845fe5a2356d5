/* SPDX-License-Identifier: MIT */
/* imap: a window of jobs of one item each, filled from the iterator in the thread that takes the results. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "arena/roster.h"
#include "base/error.h"
#include "base/options.h"
#include "base/time.h"
#include "pool/pool.h"
#include "pool/result.h"
#include "sync/event.h"

enum { ITEMS_PER_WORKER = 4, ITEMS_LEAST = 8, SLICE_MS = 100 };
#define DEFAULT_BYTES ((size_t)64 << 20)

struct flight {
    struct flight *next;
    brood_result *result;
    size_t index, bytes;
};

struct brood_stream {
    brood_pool *pool; /* held */
    brood_function *function;
    brood_iterator *next;
    void *argument;
    brood_imap_options options;
    int in_order;
    struct flight *first, **last; /* in the order of the items */
    size_t count, bytes, next_index;
    size_t pending_bytes; /* what `pending` counts as */
    int has_pending; /* an item that the arena had no room for; the iterator is not called again before it is in */
    brood_message pending;
    int ended;             /* 1: the iterator has; negative: with this errno */
    struct flight *shown;  /* the result that the caller looks at */
    struct flight **found; /* by find_ready */
};

static void drop(struct flight *flight)
{
    if (flight == NULL)
        return;
    brood_result_destroy(flight->result);
    free(flight);
}

/* The iterator has given its last: a closed pool need not wait for more. */
static void end_input(brood_stream *stream, int how)
{
    if (stream->ended)
        return;
    stream->ended = how;
    bri_add_acq_rel(&stream->pool->shared->open_streams, UINT32_MAX);
    bri_event_signal(&stream->pool->shared->work, INT_MAX);
}

static int pull(brood_stream *stream)
{
    if (stream->has_pending)
        return 1;
    if (stream->ended)
        return 0;
    int got = stream->next(stream->argument, &stream->pending);
    if (got <= 0)
        end_input(stream, got == 0 ? 1 : got);
    stream->has_pending = got > 0;
    stream->pending_bytes = stream->pending.bytes + (got > 1 ? (size_t)got : 0);
    return got > 0;
}

static int launch(brood_stream *stream)
{
    struct flight *flight = calloc(1, sizeof *flight);

    if (flight == NULL)
        return bri_fail(ENOMEM, "no memory for the stream's window");
    int error = bri_pool_submit_flight(stream->pool, stream->function, &stream->pending, stream->next_index,
                                       &stream->options, &flight->result);
    if (error < 0) {
        free(flight);
        return error;
    }
    flight->index = stream->next_index++;
    flight->bytes = stream->pending_bytes;
    *stream->last = flight;
    stream->last = &flight->next;
    stream->count++;
    stream->bytes += flight->bytes;
    stream->has_pending = 0;
    return 0;
}

/* Law 7: by items and by bytes, but one item at least is let in.  No memory is back-pressure as long as something is in flight. */
static int fill(brood_stream *stream)
{
    while (stream->count < stream->options.max_items &&
           (stream->count == 0 || stream->bytes < stream->options.max_bytes) && pull(stream)) {
        int error = launch(stream);
        if (error == -ENOMEM && stream->count > 0)
            return 0;
        if (error < 0)
            return error;
    }
    return 0;
}

static int is_over(struct flight *flight)
{
    return bri_result_is_ready(flight->result);
}

static int find_ready(void *argument)
{
    brood_stream *stream = argument;

    for (struct flight **at = &stream->first; *at != NULL; at = &(*at)->next) {
        if (is_over(*at)) {
            stream->found = at;
            return 1;
        }
        if (stream->in_order)
            return 0;
    }
    return 0;
}

static void look_after(brood_stream *stream)
{
    int64_t now = bri_now_ns();

    bri_pool_look_after(stream->pool);
    for (struct flight *flight = stream->first; flight != NULL; flight = flight->next)
        bri_result_look_for_loss(flight->result, now);
}

static int wait_for_one(brood_stream *stream, int64_t deadline)
{
    for (;;) {
        int64_t until =
            deadline == BROOD_NOW ? BROOD_NOW : bri_earlier(deadline, bri_after_ns(SLICE_MS * BRI_NS_PER_MS));
        int met = bri_wait(&stream->pool->shared->finished, find_ready, stream, until, 0);
        if (met == -EINTR)
            return bri_fail_wait(met, "no result of the stream is ready yet");
        if (met > 0)
            return 0;
        if (deadline == BROOD_NOW || bri_now_ns() >= deadline)
            return bri_fail(ETIMEDOUT, "no result of the stream is ready yet");
        look_after(stream);
    }
}

static void unlink_found(brood_stream *stream)
{
    struct flight *flight = *stream->found;

    *stream->found = flight->next;
    if (stream->last == &flight->next)
        stream->last = stream->found;
    stream->count--;
    stream->bytes -= flight->bytes;
    stream->shown = flight;
}

static int show(brood_stream *stream, brood_stream_item *ret_item)
{
    brood_stream_item item = {.index = stream->shown->index};

    int error = brood_result_outcome(stream->shown->result, 0, &item.outcome);
    if (error == 0 && item.outcome.kind == BROOD_CANCELLED)
        return bri_pool_trouble(stream->pool, 0);
    if (error == 0 && item.outcome.kind == BROOD_VALUE)
        error = brood_result_bytes(stream->shown->result, 0, &item.reply);
    if (error < 0)
        return error;
    *ret_item = item;
    return 1;
}

static int check(const brood_stream *stream)
{
    if (stream == NULL)
        return bri_fail(EINVAL, "stream is NULL: pass what brood_pool_imap gave");
    if (bri_arena_current == NULL || stream->pool->owner != bri_self())
        return bri_fail(EPERM, "stream belongs to another process: only the pool's owner may use it");
    return 0;
}

int brood_stream_next(brood_stream *stream, brood_stream_item *ret_item, int64_t deadline)
{
    int error = check(stream);

    if (error < 0)
        return error;
    if (ret_item == NULL)
        return bri_fail(EINVAL, "ret_item is NULL: pass where the result goes");
    if (deadline < 0)
        return bri_fail(EINVAL, "deadline is negative: use brood_after_ms, BROOD_NOW or BROOD_FOREVER");
    drop(stream->shown);
    stream->shown = NULL;
    error = fill(stream);
    if (error < 0 && stream->count == 0)
        return error;
    if (stream->count == 0)
        return stream->ended < 0 ? bri_fail(-stream->ended, "the iterator ended with an error") : 0;
    error = wait_for_one(stream, deadline);
    if (error < 0)
        return error;
    unlink_found(stream);
    return show(stream, ret_item);
}

static brood_stream *make(brood_pool *pool, brood_function *function, brood_iterator *next, void *argument,
                          const brood_imap_options *options)
{
    brood_stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL)
        return NULL;
    stream->pool = pool;
    stream->function = function;
    stream->next = next;
    stream->argument = argument;
    stream->options = *options;
    stream->last = &stream->first;
    if (stream->options.max_items == 0) {
        size_t wanted = (size_t)pool->options.workers * ITEMS_PER_WORKER;
        stream->options.max_items = wanted > ITEMS_LEAST ? wanted : ITEMS_LEAST;
    }
    if (stream->options.max_bytes == 0)
        stream->options.max_bytes = DEFAULT_BYTES;
    bri_pool_hold(pool);
    bri_add_acq_rel(&pool->shared->open_streams, 1u);
    return stream;
}

static int imap(brood_pool *pool, brood_function *function, brood_iterator *next, void *argument,
                const brood_imap_options *options, int in_order, brood_stream **ret_stream)
{
    brood_imap_options known;
    int error = bri_pool_check_function(pool, function);

    if (error < 0)
        return error;
    if (next == NULL || ret_stream == NULL)
        return bri_fail(EINVAL, "%s is NULL", next == NULL ? "next" : "ret_stream");
    error = bri_options_take(options, &known, sizeof known, "options");
    if (error == 0)
        error = bri_check_retries(known.retries);
    if (error < 0)
        return error;
    brood_stream *stream = make(pool, function, next, argument, &known);
    if (stream == NULL)
        return bri_fail(ENOMEM, "no memory for a stream");
    stream->in_order = in_order;
    error = fill(stream);
    if (error < 0) {
        brood_stream_destroy(stream);
        return error;
    }
    *ret_stream = stream;
    return 0;
}

int brood_pool_imap(brood_pool *pool, brood_function *function, brood_iterator *next, void *argument,
                    const brood_imap_options *options, brood_stream **ret_stream)
{
    return imap(pool, function, next, argument, options, 1, ret_stream);
}

int brood_pool_imap_unordered(brood_pool *pool, brood_function *function, brood_iterator *next,
                              void *argument, const brood_imap_options *options, brood_stream **ret_stream)
{
    return imap(pool, function, next, argument, options, 0, ret_stream);
}

int brood_stream_destroy(brood_stream *stream)
{
    if (stream == NULL)
        return 0;
    int error = check(stream);
    if (error < 0)
        return error;
    end_input(stream, 1);
    drop(stream->shown);
    while (stream->first != NULL) {
        struct flight *flight = stream->first;
        stream->first = flight->next;
        brood_result_cancel(flight->result);
        drop(flight);
    }
    bri_pool_drop(stream->pool);
    free(stream);
    return 0;
}
