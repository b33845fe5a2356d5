/* SPDX-License-Identifier: MIT */
/* Offering jobs and taking them back: F1, F2 of pool.h; and the public submitting functions. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "arena/roster.h"
#include "base/check.h"
#include "base/error.h"
#include "base/options.h"
#include "base/time.h"
#include "base/trace.h"
#include "pool/enforce.h"
#include "pool/pool.h"
#include "pool/result.h"
#include "sync/event.h"

enum { SLICE_MS = 100, LIMBO_STEP = 64, LIMBO_LOOKS = 2, RETRIES_MAX = 1000, UNLOOKED_MOST = 15 };

/* --- offer and take back --- */

/* Between head and the owner's own tail; a head that is nowhere near ends the pool. */
static uint64_t waiting_jobs(brood_pool *pool)
{
    uint64_t waiting = pool->tail - bri_load_acquire(&pool->shared->head);

    if (waiting > BRI_RING)
        bri_pool_declare_damaged(pool);
    return waiting;
}

static int has_room(void *argument)
{
    brood_pool *pool = argument;

    return waiting_jobs(pool) < BRI_RING || bri_pool_trouble(pool, 1) < 0;
}

/* Law 7: more than BRI_RING jobs that nobody has begun make the submitter wait. */
static int wait_for_room(brood_pool *pool)
{
    int met;

    while ((met = bri_wait(&pool->shared->room, has_room, pool, bri_after_ns(SLICE_MS * BRI_NS_PER_MS), 0)) <
           0) {
        if (met == -EINTR)
            return bri_fail_wait(met, "the pool has no room for a further job");
        pthread_mutex_unlock(&pool->lock);
        bri_pool_look_after(pool);
        bri_pool_is_over(pool);
        bri_thread_lock(&pool->lock);
    }
    return 0;
}

static void sweep_some(brood_pool *pool);

/* What was given up goes first: no worker can have it back, however much its tasks need the memory. */
int bri_pool_offer(brood_pool *pool, const struct bri_job_view *view, uint64_t *ret_index)
{
    struct bri_pool_shm *shared = pool->shared;
    struct bri_job_shm *job = view->job;
    int64_t deadline = BROOD_FOREVER;

    bri_thread_lock(&pool->lock);
    sweep_some(pool);
    int error = wait_for_room(pool);
    if (error == 0)
        error = bri_pool_trouble(
            pool, !(view->flags & BRI_JOB_STREAM)); /* an imap that began before the close goes on */
    if (error == 0) {
        uint64_t tail = pool->tail++;
        job->number = (uint32_t)((tail + 1) &
                                 ((1u << (BRI_JOB_NUMBER_BITS - 1)) - 1)); /* the others are standing jobs' */
        job->sequence = tail;
        if (view->timeout_ms != 0)
            job->deadline = deadline = bri_after_ns(view->timeout_ms * BRI_NS_PER_MS);
        bri_store_release(bri_pool_ring(shared, tail), bri_offset_of(job));
        bri_store_seq_cst(&shared->tail, tail + 1);
        *ret_index = tail;
    }
    pthread_mutex_unlock(&pool->lock);
    if (error == 0 && deadline != BROOD_FOREVER && bri_enforce_set_alarm(shared, deadline))
        bri_pool_ring_supervisor(pool);
    return error;
}

static void wake_workers(brood_pool *pool, uint64_t chunks)
{
    bri_event_signal(&pool->shared->work, chunks < pool->options.workers ? (int)chunks : INT_MAX);
}

static int somebody_is_awake(brood_pool *pool)
{
    for (uint32_t i = 0; i < pool->options.workers; i++) {
        bri_name name = bri_load_relaxed(&bri_pool_seat(pool->shared, i)->name);
        if (name != 0 && !bri_load_relaxed(&bri_slot_of(name)->idle))
            return 1;
    }
    return 0;
}

static int is_complete(void *argument)
{
    return bri_view_is_complete(argument);
}

/* Submissions that looked in vain are followed by ever more that do not look. */
static int may_look(brood_pool *pool)
{
    uint32_t unlooked = bri_load_relaxed(&pool->unlooked);

    if (unlooked >= bri_load_relaxed(&pool->vain_looks))
        return 1;
    bri_store_relaxed(&pool->unlooked, unlooked + 1);
    return 0;
}

static void note_look(brood_pool *pool, int is_taken)
{
    uint32_t vain = bri_load_relaxed(&pool->vain_looks);
    uint32_t more = vain * 2 + 1 < UNLOOKED_MOST ? vain * 2 + 1 : UNLOOKED_MOST;

    bri_store_relaxed(&pool->unlooked, 0u);
    if (vain != 0 || !is_taken)
        bri_store_relaxed(&pool->vain_looks, is_taken ? 0 : more);
}

/* A worker that is awake takes a single chunk at once, and then nobody has to be woken, which would cost more than the call.  Whether one is awake,
 * and with nothing else to do, is a guess; when nobody has come within some microseconds, one is woken after all.  Who came may have been woken
 * for what another thread has offered meanwhile: then another is, for that.  To look at the chunk's word all
 * the time would hold up the worker, who writes there. */
int bri_pool_is_taken_soon(brood_pool *pool, struct bri_job_view *view, uint64_t tail)
{
    if (!somebody_is_awake(pool) || !may_look(pool))
        return 0;
    int is_taken = bri_look(is_complete, view) || bri_load_relaxed(&view->table[0]) != BRI_CHUNK_FREE;
    note_look(pool, is_taken);
    if (is_taken && bri_load_acquire(&pool->shared->tail) != tail)
        wake_workers(pool, 1);
    return is_taken;
}

/* But for visits with one of these flags. */
static int is_visited_by_worker(brood_pool *pool, bri_offset job_at, uint64_t ignored)
{
    for (uint32_t i = 0; i < pool->options.workers; i++) {
        uint64_t visiting = bri_load_seq_cst(&bri_pool_seat(pool->shared, i)->visiting);
        if (bri_visit_job(visiting) == job_at && (visiting & ignored) == 0)
            return 1;
    }
    return bri_load_seq_cst(&pool->shared->replacing) == job_at;
}

static int is_visited(brood_pool *pool, bri_offset job_at)
{
    return is_visited_by_worker(pool, job_at, 0) || (bri_load_seq_cst(&pool->shared->looking) == job_at &&
                                                     bri_pool_state_of(pool->shared) < BRI_POOL_BROKEN);
}

static void withdraw(struct bri_pool_shm *shared, struct bri_job_shm *job, uint64_t index)
{
    bri_offset job_at = bri_offset_of(job), expected = job_at;

    if (index == BRI_STANDING) /* F1 */
        bri_cas_seq_cst(&shared->standing, &expected, (bri_offset)0);
    else if (index >= bri_load_seq_cst(&shared->head))
        bri_cas_seq_cst(bri_pool_ring(shared, index), &expected, (bri_offset)0);
    if (bri_load_acquire(&shared->again) == 0) /* nothing has ever been on the list of returns */
        return;
    for (uint32_t i = 0; i < BRI_RETURNS; i++) {
        expected = job_at;
        if (bri_load_acquire(&bri_pool_return(shared, i)->job) == job_at)
            bri_cas_seq_cst(&bri_pool_return(shared, i)->job, &expected, (bri_offset)0);
    }
}

/* F1, F2.  A job that is not complete goes on: only what nobody claims in, and nobody looks at, is freed. */
static int try_to_free(brood_pool *pool, const struct bri_limbo *given_up)
{
    struct bri_job_shm *job = given_up->view.job;

    if (!bri_view_is_complete(&given_up->view) && bri_pool_state_of(pool->shared) < BRI_POOL_BROKEN)
        return 0;
    withdraw(pool->shared, job, given_up->index);
    bri_fault("pool.withdrawn");
    bri_fence_seq_cst();
    if (is_visited(pool, bri_offset_of(job)))
        return 0;
    bri_job_free(&given_up->view);
    return 1;
}

static size_t in_limbo(const brood_pool *pool)
{
    return bri_load_relaxed(&pool->limbo_count);
}

static void sweep_limbo(brood_pool *pool)
{
    size_t kept = 0;

    for (size_t i = 0; i < in_limbo(pool); i++)
        if (!try_to_free(pool, &pool->limbo[i]))
            pool->limbo[kept++] = pool->limbo[i];
    bri_store_relaxed(&pool->limbo_count, kept);
}

void bri_pool_sweep(brood_pool *pool)
{
    bri_thread_lock(&pool->lock);
    sweep_limbo(pool);
    pthread_mutex_unlock(&pool->lock);
}

void bri_pool_sweep_unless_busy(brood_pool *pool)
{
    if (pthread_mutex_trylock(&pool->lock) != 0)
        return;
    sweep_limbo(pool);
    pthread_mutex_unlock(&pool->lock);
}

/* So that large jobs do not stay until limbo is full, and that many that wait there cost a constant each time. */
static void sweep_some(brood_pool *pool)
{
    for (int i = 0; i < LIMBO_LOOKS && in_limbo(pool) > 0; i++) {
        size_t at = pool->limbo_next++ % in_limbo(pool), last = in_limbo(pool) - 1;
        if (!try_to_free(pool, &pool->limbo[at]))
            continue;
        pool->limbo[at] = pool->limbo[last];
        bri_store_relaxed(&pool->limbo_count, last);
    }
}

void bri_pool_sweep_some(brood_pool *pool)
{
    if (in_limbo(pool) == 0)
        return;
    bri_thread_lock(&pool->lock);
    sweep_some(pool);
    pthread_mutex_unlock(&pool->lock);
}

static void put_in_limbo(brood_pool *pool, const struct bri_limbo *given_up)
{
    size_t count = in_limbo(pool);

    if (count == pool->limbo_room) {
        sweep_limbo(pool);
        count = in_limbo(pool);
    }
    if (count == pool->limbo_room) {
        size_t room = count * 2 + LIMBO_STEP;
        struct bri_limbo *grown = realloc(pool->limbo, room * sizeof *grown);
        if (grown == NULL)
            return; /* the job stays in the arena until the pool's owner ends: nothing else can be done without memory */
        pool->limbo = grown;
        pool->limbo_room = room;
    }
    pool->limbo[count] = *given_up;
    bri_store_relaxed(&pool->limbo_count, count + 1);
}

void bri_pool_take_back(brood_pool *pool, const struct bri_job_view *view, uint64_t index)
{
    struct bri_limbo given_up = {*view, index};

    bri_thread_lock(&pool->lock);
    sweep_some(pool);
    if (!try_to_free(pool, &given_up))
        put_in_limbo(pool, &given_up);
    pthread_mutex_unlock(&pool->lock);
}

/* --- damage --- */

static int is_among_returns(struct bri_pool_shm *shared, bri_offset job_at)
{
    for (uint32_t i = 0; i < BRI_RETURNS; i++)
        if (bri_load_acquire(&bri_pool_return(shared, i)->job) == job_at)
            return 1;
    return 0;
}

static int has_free_chunk(const struct bri_job_view *view)
{
    for (uint64_t chunk = 0; chunk < view->chunks; chunk++)
        if (bri_load_acquire(&view->table[chunk]) == BRI_CHUNK_FREE)
            return 1;
    return 0;
}

/* The words of the ring that workers wait by are made right: an event word that was written over wakes nobody.  Once for all results. */
static void offer_anew(brood_pool *pool)
{
    int64_t now = bri_now_ns();

    if (now < pool->next_offer)
        return;
    pool->next_offer = now + SLICE_MS * BRI_NS_PER_MS;
    bri_store_seq_cst(&pool->shared->tail, pool->tail);
    bri_event_prepare(&pool->shared->work);
    bri_event_signal(&pool->shared->work, INT_MAX);
}

static int is_offered(const brood_pool *pool, const struct bri_job_view *view, uint64_t index)
{
    struct bri_pool_shm *shared = pool->shared;
    bri_offset job_at = bri_offset_of(view->job);

    if (index == BRI_STANDING)
        return bri_load_acquire(&shared->standing) == job_at && has_free_chunk(view) &&
               bri_standing_is_whole(pool);
    return bri_load_seq_cst(&shared->head) <= index &&
           bri_load_acquire(bri_pool_ring(shared, index)) == job_at;
}

int bri_pool_has_lost(brood_pool *pool, const struct bri_job_view *view, uint64_t index)
{
    struct bri_pool_shm *shared = pool->shared;
    bri_offset job_at = bri_offset_of(view->job);

    if (is_visited_by_worker(pool, job_at, BRI_VISIT_LISTEN)) /* who only listens does not finish it */
        return 0;
    pthread_mutex_lock(&pool->lock); /* nobody offers: tail stands */
    int is_there = is_offered(pool, view, index);
    if (is_there)
        offer_anew(pool);
    pthread_mutex_unlock(&pool->lock);
    return !is_there && !(is_among_returns(shared, job_at) && has_free_chunk(view));
}

/* --- public --- */

static int check_code(const brood_pool *pool, brood_function *function)
{
    if (bri_modules_hold(&pool->modules, (uintptr_t)function))
        return 0;
    return bri_fail(
        EFAULT,
        "function (%p) does not lie in a module that was loaded when the pool was created and still is: "
        "workers do not have it",
        (void *)(uintptr_t)function);
}

int bri_pool_check_function(brood_pool *pool, brood_function *function)
{
    int error = bri_pool_check(pool);

    if (error < 0)
        return error;
    if (function == NULL)
        return bri_fail(EINVAL, "function is NULL: pass the function that the workers are to run");
    error = check_code(pool, function);
    return error < 0 ? error : (bri_pool_is_over(pool), bri_pool_trouble(pool, 1));
}

static int check_sizes(const void *items, size_t item_bytes, size_t result_bytes, size_t count)
{
    size_t product;

    if (count == 0)
        return bri_fail(EINVAL, "count is 0: there is nothing to map over");
    if (items == NULL && item_bytes != 0)
        return bri_fail(EINVAL, "items is NULL: pass the array of %zu items of %zu bytes", count, item_bytes);
    if (__builtin_mul_overflow(count, item_bytes, &product) || product > (size_t)1 << 46)
        return bri_fail(EINVAL, "count (%zu) times item_bytes (%zu) is more than any arena has", count,
                        item_bytes);
    if (__builtin_mul_overflow(count, result_bytes, &product) || product > (size_t)1 << 46)
        return bri_fail(EINVAL, "count (%zu) times result_bytes (%zu) is more than any arena has", count,
                        result_bytes);
    return 0;
}

/* Jobs that were given up go before a new one is refused; another thread may hold the lock, so the heap's own try was not enough. */
static int make_job(brood_pool *pool, const struct bri_job_wish *wish, struct bri_job_view *ret_view)
{
    int error = bri_job_make(wish, ret_view);

    if (error != -ENOMEM)
        return error;
    bri_pool_sweep(pool);
    return bri_job_make(wish, ret_view);
}

/* Makes the job, offers it, and puts it into the handle, which holds the pool already. */
static int submit_for(brood_result *result, struct bri_job_wish *wish)
{
    brood_pool *pool = result->pool;
    struct bri_job_view view;
    uint64_t index = 0;

    wish->workers = pool->options.workers;
    wish->notify = bri_offset_of(&pool->shared->finished);
    int error = make_job(pool, wish, &view);
    if (error < 0)
        return error;
    error = bri_pool_offer(pool, &view, &index);
    if (error < 0) {
        bri_job_free(&view);
        return error;
    }
    if (view.chunks != 1 || !(wish->is_awaited || bri_event_has_waiters(&pool->shared->work)) ||
        !bri_pool_is_taken_soon(pool, &view, index + 1))
        wake_workers(pool, view.chunks);
    bri_trace("owner: job %u of %llu items in %llu chunks", view.job->number, (unsigned long long)view.count,
              (unsigned long long)view.chunks);
    result->view = view;
    result->index = index;
    return 0;
}

static int submit(brood_pool *pool, struct bri_job_wish *wish, brood_result **ret_result)
{
    if (ret_result == NULL)
        return bri_fail(EINVAL, "ret_result is NULL: pass where the result handle goes");
    brood_result *result = malloc(sizeof *result);
    if (result == NULL)
        return bri_fail(ENOMEM, "no memory for a result handle");
    bri_result_init(result, pool);
    int error = submit_for(result, wish);
    if (error < 0) {
        bri_result_fini(result);
        free(result);
        return error;
    }
    *ret_result = result;
    return 0;
}

static int take_options(struct bri_job_wish *wish, const brood_map_options *options)
{
    wish->chunk_items = options->chunk_items;
    wish->timeout_ms = options->timeout_ms;
    wish->item_timeout_ms = options->item_timeout_ms;
    wish->retries = options->retries;
    wish->tells_each = options->tell_each != 0;
    return bri_check_retries(options->retries);
}

/* The arguments of a map are right, and the wish says all of it. */
static int take_map(brood_pool *pool, struct bri_job_wish *wish, const brood_map_options *options)
{
    brood_map_options known;
    int error = bri_pool_check_function(pool, wish->function);

    if (error == 0)
        error = check_sizes(wish->items, wish->item_bytes, wish->result_bytes, wish->count);
    if (error == 0)
        error = bri_options_take(options, &known, sizeof known, "options");
    return error < 0 ? error : take_options(wish, &known);
}

int brood_pool_map_async(brood_pool *pool, brood_function *function, const void *items, size_t item_bytes,
                         size_t result_bytes, size_t count, const brood_map_options *options,
                         brood_result **ret_result)
{
    struct bri_job_wish wish = {.function = function,
                                .items = items,
                                .item_bytes = item_bytes,
                                .result_bytes = result_bytes,
                                .count = count};

    int error = take_map(pool, &wish, options);
    return error < 0 ? error : submit(pool, &wish, ret_result);
}

int brood_pool_map(brood_pool *pool, brood_function *function, const void *items, size_t item_bytes,
                   void *results, size_t result_bytes, size_t count, const brood_map_options *options)
{
    struct bri_job_wish wish = {.function = function,
                                .items = items,
                                .item_bytes = item_bytes,
                                .result_bytes = result_bytes,
                                .count = count};
    brood_result result;

    if (results == NULL && result_bytes != 0)
        return bri_fail(EINVAL, "results is NULL: pass an array for %zu results of %zu bytes", count,
                        result_bytes);
    if (result_bytes != 0 && bri_arena_holds(results, 1))
        wish.results = results;
    int error = take_map(pool, &wish, options);
    if (error < 0)
        return error;
    if (count == 1 && options == NULL && (error = bri_pool_call(pool, &wish, results)) <= 0)
        return error;
    wish.is_awaited = 1;
    bri_result_init(&result, pool);
    error = submit_for(&result, &wish);
    if (error == 0) {
        error = bri_result_get(&result, wish.results == NULL ? results : NULL, BROOD_FOREVER);
        bri_pool_take_back(pool, &result.view, result.index);
    }
    bri_result_fini(&result);
    return error;
}

int brood_pool_apply_async(brood_pool *pool, brood_function *function, const void *item, size_t item_bytes,
                           size_t result_bytes, brood_result **ret_result)
{
    return brood_pool_map_async(pool, function, item, item_bytes, result_bytes, 1, NULL, ret_result);
}

int brood_pool_apply(brood_pool *pool, brood_function *function, const void *item, size_t item_bytes,
                     void *result, size_t result_bytes)
{
    return brood_pool_map(pool, function, item, item_bytes, result, result_bytes, 1, NULL);
}

static int check_spans(const brood_message *items, size_t count)
{
    if (items == NULL || count == 0)
        return bri_fail(EINVAL, "%s: pass an array of at least one item",
                        items == NULL ? "items is NULL" : "count is 0");
    for (size_t i = 0; i < count; i++)
        if (items[i].data == NULL && items[i].bytes != 0)
            return bri_fail(EINVAL, "items[%zu].data is NULL and its bytes %zu", i, items[i].bytes);
    return 0;
}

int bri_check_retries(uint32_t retries)
{
    return retries <= RETRIES_MAX
               ? 0
               : bri_fail(EINVAL, "options->retries is %u: at most %d", retries, RETRIES_MAX);
}

int bri_pool_submit_flight(brood_pool *pool, brood_function *function, const brood_message *item,
                           uint64_t index, const brood_imap_options *options, brood_result **ret_result)
{
    struct bri_job_wish wish = {.function = function,
                                .item_timeout_ms = options->item_timeout_ms,
                                .retries = options->retries,
                                .spans = item,
                                .count = 1,
                                .chunk_items = 1,
                                .first_index = index,
                                .is_of_stream = 1};
    int error = check_spans(item, 1);

    if (error == 0)
        error = check_code(pool, function); /* its module may have gone since the stream began */
    return error < 0 ? error : submit(pool, &wish, ret_result);
}

int brood_pool_map_bytes_async(brood_pool *pool, brood_function *function, const brood_message *items,
                               size_t count, const brood_map_options *options, brood_result **ret_result)
{
    struct bri_job_wish wish = {.function = function, .spans = items, .count = count};
    brood_map_options known;
    int error = bri_pool_check_function(pool, function);

    if (error == 0)
        error = check_spans(items, count);
    if (error == 0)
        error = bri_options_take(options, &known, sizeof known, "options");
    if (error == 0)
        error = take_options(&wish, &known);
    return error < 0 ? error : submit(pool, &wish, ret_result);
}
