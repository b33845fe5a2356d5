/* SPDX-License-Identifier: MIT */
/* The life of a worker, and what task functions may call. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <unistd.h>

#include "arena/roster.h"
#include "base/check.h"
#include "base/error.h"
#include "base/time.h"
#include "base/trace.h"
#include "plat/random.h"
#include "pool/enforce.h"
#include "pool/limits.h"
#include "pool/pool.h"
#include "proc/child.h"
#include "sync/event.h"

struct brood_task {
    struct bri_job_shm *job;
    struct bri_seat_shm *seat;
    brood_pool *pool;
    const _Atomic uint64_t *progress; /* which item it is */
    size_t item_bytes;
    uint32_t worker;
    int is_special; /* there is more to do at the item's end: it failed, has a reply, or has forked and this is the child */
    int failed;
    int is_of_child;
    int is_condemned;      /* it has to end, and the worker with it */
    brood_outcome outcome; /* when it failed */
    void *reply;           /* BRI_KIND_REPLY, or NULL */
};

enum { NO_MEMORY_EXIT = 121, NO_LIMITS_EXIT = 123, ZEROED_BYTES = 1024 };

static uint64_t code_shift;         /* of this worker's pool */
static brood_task *_Atomic current; /* of this worker */
static const _Atomic uint64_t *_Atomic own_progress;
static uint64_t item_at_fork; /* which item it was, in a child that its function has forked */

/* --- for task functions --- */

int brood_task_fail(brood_task *task, int code, const char *text)
{
    if (code == 0)
        code = -1;
    if (task == NULL)
        return code;
    task->failed = task->is_special = 1;
    task->outcome = (brood_outcome){.kind = BROOD_ERROR, .code = code, .pid = (int)getpid()};
    snprintf(task->outcome.text, sizeof task->outcome.text, "%s", text == NULL ? "" : text);
    return code;
}

/* The worker's word is the one place where this stands: one store per item. */
static uint64_t item_of(const brood_task *task)
{
    return task->is_of_child ? item_at_fork : bri_progress_item(bri_load_relaxed(task->progress));
}

size_t brood_task_index(const brood_task *task)
{
    return task == NULL ? 0 : task->job->first_index + item_of(task);
}

size_t brood_task_item_bytes(const brood_task *task)
{
    return task == NULL ? 0 : task->item_bytes;
}

uint32_t brood_task_worker(const brood_task *task)
{
    return task == NULL ? 0 : task->worker;
}

/* The word of an item, not running. */
static uint64_t progress_at(const struct bri_job_shm *job, uint64_t item)
{
    return (uint64_t)job->number << BRI_PROGRESS_JOB_SHIFT | item << 1;
}

int brood_task_is_ending(brood_task *task)
{
    if (task == NULL || bri_load_acquire(&task->seat->verdict) !=
                            (progress_at(task->job, item_of(task)) | BRI_PROGRESS_RUNNING))
        return 0;
    task->failed = task->is_special = 1; /* whatever the function returns, the end of the item is looked at */
    return bri_load_acquire(&task->seat->verdict_kind) == BRI_VERDICT_CANCELLED ? BROOD_CANCELLED
                                                                                : BROOD_TIMED_OUT;
}

static void drop_reply(brood_task *task)
{
    if (task->reply != NULL)
        bri_heap_free(task->reply);
    task->reply = NULL;
}

int brood_task_reply_reserve(brood_task *task, size_t bytes, void **ret_memory)
{
    void *memory;

    if (task == NULL || ret_memory == NULL)
        return bri_fail(EINVAL, "%s is NULL", task == NULL ? "task" : "ret_memory");
    if (!(task->job->flags & BRI_JOB_BYTES))
        return bri_fail(EINVAL, "task has results of a fixed size: write to result");
    int error = bri_heap_alloc(BRI_KIND_REPLY, bytes, bri_self(), &memory);
    if (error < 0)
        return error;
    bri_store_relaxed(&bri_block_of(memory)->aux[1], bri_offset_of(task->job));
    bri_store_relaxed(&bri_block_of(memory)->aux[2], (uint64_t)bri_job_owner(task->job));
    bri_store_release(&bri_block_of(memory)->aux[0], bri_offset_of(bri_job_reply(task->job, item_of(task))));
    drop_reply(task);
    task->reply = memory;
    task->is_special = 1;
    *ret_memory = memory;
    return 0;
}

int brood_task_reply(brood_task *task, const void *data, size_t bytes)
{
    void *memory;

    if (data == NULL && bytes > 0)
        return bri_fail(EINVAL, "data is NULL and bytes is %zu", bytes);
    int error = brood_task_reply_reserve(task, bytes, &memory);
    if (error == 0 && bytes > 0)
        memcpy(memory, data, bytes);
    return error;
}

/* --- one item --- */

/* A worker that cannot say how its item ended says it by dying: the undertaker has memory in reserve. */
static void record_failure(brood_task *task)
{
    void *memory;

    drop_reply(task);
    if (bri_heap_alloc(BRI_KIND_FAILURE, sizeof(struct bri_failure_shm), bri_self(), &memory) < 0)
        _exit(NO_MEMORY_EXIT);
    struct bri_failure_shm *failure = memory;
    *failure = (struct bri_failure_shm){.index = item_of(task), .outcome = task->outcome};
    bri_store_relaxed(&bri_block_of(memory)->aux[2], (uint64_t)bri_job_owner(task->job));
    bri_store_release(&bri_block_of(memory)->aux[0], bri_offset_of(task->job));
    bri_job_push_failure(task->job, failure);
}

static void attach_reply(brood_task *task)
{
    if (task->reply == NULL)
        return;
    bri_store_release(bri_job_reply(task->job, item_of(task)), bri_offset_of(task->reply));
    bri_fault("task.replied");
    bri_block_pass_to_owner(bri_block_of(task->reply));
}

/* Whatever it has come to: its time was over, or it was cancelled.  The next look at the seat is before the next item's first instruction. */
static void be_condemned(brood_task *task)
{
    brood_task_fail(task, 0, "");
    bri_verdict_tell((enum bri_verdict)bri_load_acquire(&task->seat->verdict_kind), task->job, item_of(task),
                     &task->outcome);
    task->is_condemned = 1;
}

/* Before any fork, by any thread: the task itself may be over by now.  A child's children have what it has. */
static void note_item(void)
{
    const _Atomic uint64_t *progress = bri_load_relaxed(&own_progress);

    if (progress != NULL)
        item_at_fork = bri_progress_item(bri_load_relaxed(progress));
}

/* What a function's own fork() left in the child, which has the worker's stack; the worker goes on meanwhile. */
static void note_child(void)
{
    brood_task *task = bri_load_relaxed(&current);

    bri_store_relaxed(&own_progress, (const _Atomic uint64_t *)NULL);
    if (task != NULL)
        task->is_special = task->is_of_child = 1;
}

static void watch_forks(void)
{
    static int is_watching;

    if (!is_watching) /* a worker of a worker's pool has the handler from it */
        is_watching = pthread_atfork(note_item, NULL, note_child) == 0;
}

/* The function came back in a child that it has forked: that is no worker, and must not end the item a second time. */
static _Noreturn void leave_child(const brood_task *task, int code)
{
    fflush(stdout);
    _exit(code != 0 || task->failed);
}

/* What only few items need. */
static void finish_item(brood_task *task, int code)
{
    if (task->is_of_child)
        leave_child(task, code);
    if (code != 0 && !task->failed)
        brood_task_fail(task, code, "");
    if (brood_task_is_ending(task))
        be_condemned(task);
    if (task->failed)
        record_failure(task);
    else
        attach_reply(task);
    task->failed = task->is_special = 0;
    task->reply = NULL;
}

/* Where the next item and result lie, kept out of the task, which the user's function could reach as far as the compiler knows. */
struct cursor {
    brood_function *function;
    const char *item, *items;
    const struct bri_span_shm *spans; /* job in bytes, else NULL */
    char *result;
    size_t item_bytes, result_bytes;
    uint64_t progress; /* of the next item, not running */
    int is_timed;
};

static brood_function *function_of(const struct bri_job_shm *job)
{
    return (brood_function *)(uintptr_t)(job->function + code_shift);
}

/* Of an array at that offset; NULL when there is none, since its items have no bytes. */
static char *place_of(bri_offset array, uint64_t item, size_t item_bytes)
{
    return item_bytes == 0 ? NULL : (char *)bri_at(array) + item * item_bytes;
}

static struct cursor cursor_at(const struct bri_job_shm *job, uint64_t item)
{
    struct cursor cursor = {.function = function_of(job),
                            .item_bytes = job->item_bytes,
                            .result_bytes = job->result_bytes,
                            .progress = progress_at(job, item),
                            .is_timed = job->item_timeout_ms != 0};

    cursor.items = bri_at(job->items_at);
    if (job->flags & BRI_JOB_BYTES)
        cursor.spans = (const struct bri_span_shm *)(const void *)cursor.items + item;
    else
        cursor.item = place_of(job->items_at, item, job->item_bytes);
    cursor.result = place_of(job->results_at, item, job->result_bytes);
    return cursor;
}

static void take_span(struct cursor *cursor, brood_task *task)
{
    cursor->item = cursor->items + cursor->spans->offset;
    task->item_bytes = cursor->spans->bytes;
    cursor->spans++;
}

/* B1 of enforce.h. */
static int64_t set_clock(brood_task *task)
{
    int64_t end = bri_after_ns(task->job->item_timeout_ms * BRI_NS_PER_MS);

    bri_store_release(&task->seat->ends_at, end);
    return end;
}

/* B2 */
static void ring_if_asleep(brood_task *task, int64_t end)
{
    if (bri_enforce_is_asleep_at(task->pool->shared, end))
        bri_doorbell_ring_or_signal(&task->pool->doorbell, getppid());
}

void brood_task_stop_clock(brood_task *task)
{
    if (task != NULL)
        bri_store_release(&task->seat->ends_at, BROOD_FOREVER);
}

void brood_task_start_clock(brood_task *task)
{
    if (task != NULL && task->job->item_timeout_ms != 0)
        ring_if_asleep(task, set_clock(task));
}

/* What only jobs with a time-out, and pools with a limit of CPU time or a seed, need. */
static void begin_special_item(struct bri_claim *claim, const struct cursor *cursor, brood_task *task)
{
    if (claim->pool->seed != 0)
        brood_random_seed(bri_random_mix(claim->pool->seed, task->job->sequence,
                                         task->job->first_index + bri_progress_item(cursor->progress)));
    if (claim->limits.max_cpu_seconds != 0)
        bri_limits_begin_item(&claim->limits);
    if (cursor->is_timed) {
        int64_t end = set_clock(task);
        bri_store_release(claim->progress, cursor->progress | BRI_PROGRESS_RUNNING);
        bri_fault("task.timed");
        ring_if_asleep(task, end);
    } else {
        bri_store_release(claim->progress, cursor->progress | BRI_PROGRESS_RUNNING);
    }
}

/* The supervisor replaces it; what is left of its chunk is resumed by others. */
static _Noreturn void end_condemned(brood_task *task)
{
    brood_pool *pool = task->pool;

    bri_trace("worker %u: has ended its item and ends", task->worker);
    if (pool->hooks.worker_ends != NULL)
        pool->hooks.worker_ends(pool->hooks.argument);
    bri_child_end(BRI_CONDEMNED);
}

/* The end of an item that there is more to do for than to store its progress; that is done, too. */
static void end_item(struct bri_claim *claim, brood_task *task, int code)
{
    finish_item(task, code);
    bri_store_release(claim->progress, progress_at(task->job, item_of(task) + 1));
    if (task->is_condemned)
        end_condemned(task);
}

/* J6 of items with a clock, a limit, a seed, or a size of their own. */
static void run_special_items(struct bri_claim *claim, brood_task *task, uint64_t begin, uint64_t end)
{
    struct cursor cursor = cursor_at(task->job, begin);

    for (uint64_t index = begin; index < end; index++) {
        if (cursor.spans != NULL)
            take_span(&cursor, task);
        begin_special_item(claim, &cursor, task);
        int code = cursor.function(task, cursor.item, cursor.result);
        if (code != 0 || task->is_special || cursor.is_timed)
            end_item(claim, task, code);
        cursor.progress += 2;
        bri_store_release(claim->progress, cursor.progress);
        if (cursor.item != NULL)
            cursor.item += cursor.item_bytes;
        if (cursor.result != NULL)
            cursor.result += cursor.result_bytes;
    }
    if (cursor.is_timed)
        bri_store_release(&claim->seat->ends_at, BROOD_FOREVER);
}

/* J6 of all others.  Short functions are called hundreds of millions of times per second, and what stands in this loop is most of what they
 * cost: an item is over when the next one begins, which is one store for both.  In a function of its own the loop has all registers. */
static __attribute__((noinline)) void run_plain_items(struct bri_claim *claim, brood_task *task,
                                                      uint64_t begin, uint64_t end)
{
    const struct bri_job_shm *job = task->job;
    brood_function *const function = function_of(job);
    _Atomic uint64_t *const progress = claim->progress;
    const size_t item_bytes = job->item_bytes, result_bytes = job->result_bytes;
    uintptr_t item = (uintptr_t)place_of(job->items_at, begin, item_bytes); /* NULL + 0 is for numbers only */
    uintptr_t result = (uintptr_t)place_of(job->results_at, begin, result_bytes);
    uint64_t next = progress_at(job, begin);
    const uint64_t last = progress_at(job, end);

    for (; next != last; next += 2) {
        bri_store_release(progress, next | BRI_PROGRESS_RUNNING);
        int code = function(task, (const void *)item, (void *)result);
        if (__builtin_expect((code | task->is_special) != 0, 0))
            end_item(claim, task, code);
        item += item_bytes;
        result += result_bytes;
    }
    bri_store_release(progress, last);
}

static void run_items(struct bri_claim *claim, brood_task *task, uint64_t begin, uint64_t end)
{
    const struct bri_job_shm *job = task->job;

    if ((job->flags & BRI_JOB_BYTES) || job->item_timeout_ms != 0 || claim->limits.max_cpu_seconds != 0 ||
        claim->pool->seed != 0)
        run_special_items(claim, task, begin, end);
    else
        run_plain_items(claim, task, begin, end);
}

/* Wipes results from `item` on, few enough that this is no pass of its own through memory: up to which. */
static uint64_t zero_results(const struct bri_job_shm *job, uint64_t item, uint64_t end)
{
    size_t result_bytes = job->result_bytes;

    if (result_bytes == 0)
        return end;
    uint64_t items = result_bytes < ZEROED_BYTES ? ZEROED_BYTES / result_bytes : 1;
    if (items > end - item)
        items = end - item;
    memset((char *)bri_at(job->results_at) + item * result_bytes, 0, items * result_bytes);
    return item + items;
}

uint64_t bri_worker_run_chunk(brood_pool *pool, struct bri_claim *claim)
{
    struct bri_job_shm *job = claim->job;
    uint64_t end = bri_job_end_item(job, claim->chunk);
    uint64_t begin = bri_load_acquire(&job->resumes) == 0
                         ? bri_job_first_item(job, claim->chunk)
                         : bri_job_resume_item(job, claim->chunk, bri_job_first_item(job, claim->chunk), end);
    brood_task task;

    task.job = job;
    task.seat = claim->seat;
    task.pool = pool;
    task.worker = claim->worker;
    task.progress = claim->progress;
    task.item_bytes = job->item_bytes;
    task.failed = task.is_special = task.is_of_child = 0;
    task.is_condemned = 0;
    task.reply = NULL;
    bri_store_relaxed(&current, &task);
    for (uint64_t at = begin, next; at < end; at = next) {
        next = zero_results(job, at, end);
        run_items(claim, &task, at, next);
    }
    bri_store_relaxed(&current, NULL);
    if (__fpending(stdout) >
        0) /* a worker may be killed at any time: what its tasks print is not to wait for its end */
        fflush(stdout);
    return end - begin;
}

/* --- the worker --- */

static void initialize(brood_pool *pool, struct bri_seat_shm *seat)
{
    int value =
        pool->options.initializer == NULL ? 0 : pool->options.initializer(pool->options.initializer_argument);

    if (value != 0) {
        bri_store_release(&pool->shared->detail, value);
        bri_child_end(BRI_INITIALIZER_FAILED);
    }
    bri_store_release(&seat->started, 1u);
    bri_event_signal(&pool->shared->event, INT_MAX);
}

/* An idle worker is nobody's wait. */
static int wait_for_chunk(struct bri_claim *claim)
{
    int met;

    do
        met = bri_wait(&claim->pool->work, bri_claim_any, claim, BROOD_FOREVER, 0);
    while (met == -EINTR);
    return met;
}

_Noreturn void bri_worker_main(brood_pool *pool, uint32_t index)
{
    struct bri_pool_shm *shared = pool->shared;
    struct bri_seat_shm *seat = bri_pool_seat(shared, index);
    struct bri_claim claim = {.pool = shared,
                              .seat = seat,
                              .worker = index,
                              .progress = &bri_slot_of(bri_self())->progress,
                              .claims = &bri_slot_of(bri_self())->claims};
    uint64_t done = 0;

    bri_trace("worker %u: begins", index);
    bri_store_relaxed(&own_progress, claim.progress);
    bri_store_release(&seat->pid,
                      (int32_t)getpid()); /* its supervisor may not have come to it yet, or never */
    code_shift = pool->code_shift;
    watch_forks();
    if (bri_limits_begin(&claim.limits, shared) < 0)
        bri_child_end(NO_LIMITS_EXIT);
    if (pool->hooks.worker_begins != NULL)
        pool->hooks.worker_begins(pool->hooks.argument);
    initialize(pool, seat);
    while (wait_for_chunk(&claim) == BRI_CLAIMED) {
        uint64_t items = bri_worker_run_chunk(pool, &claim);
        bri_claim_done(&claim);
        done += items;
        bri_store_relaxed(&seat->items, bri_load_relaxed(&seat->items) + items);
        bri_trace("worker %u: job %u chunk %llu done", index, bri_read_once(claim.job->number),
                  (unsigned long long)claim.chunk);
        if ((shared->tasks_per_worker != 0 && done >= shared->tasks_per_worker) ||
            bri_limits_are_used_up(&claim.limits))
            break;
    }
    if (claim.job != NULL)
        bri_job_complete_if_counted(claim.job);
    bri_store_release(&seat->visiting, UINT64_C(0));
    bri_trace("worker %u: leaves after %llu items", index, (unsigned long long)done);
    if (pool->hooks.worker_ends != NULL)
        pool->hooks.worker_ends(pool->hooks.argument);
    bri_child_end(bri_load_acquire(&seat->verdict) == 0 ? 0 : BRI_CONDEMNED);
}
