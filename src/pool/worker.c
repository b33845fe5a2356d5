/* SPDX-License-Identifier: MIT */
/* The life of a worker, and what task functions may call. */
#include <errno.h>
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
    uint64_t index;
    uint64_t progress; /* while it runs */
    size_t item_bytes;
    uint32_t worker;
    int failed;
    int is_condemned;      /* it has to end, and the worker with it */
    brood_outcome outcome; /* when it failed */
    void *reply;           /* BRI_KIND_REPLY, or NULL */
};

enum { NO_MEMORY_EXIT = 121, NO_LIMITS_EXIT = 123 };

static uint64_t code_shift; /* of this worker's pool */

/* --- for task functions --- */

int brood_task_fail(brood_task *task, int code, const char *text)
{
    if (code == 0)
        code = -1;
    if (task == NULL)
        return code;
    task->failed = 1;
    task->outcome = (brood_outcome){.kind = BROOD_ERROR, .code = code, .pid = (int)getpid()};
    snprintf(task->outcome.text, sizeof task->outcome.text, "%s", text == NULL ? "" : text);
    return code;
}

size_t brood_task_index(const brood_task *task)
{
    return task == NULL ? 0 : task->job->first_index + task->index;
}

size_t brood_task_item_bytes(const brood_task *task)
{
    return task == NULL ? 0 : task->item_bytes;
}

uint32_t brood_task_worker(const brood_task *task)
{
    return task == NULL ? 0 : task->worker;
}

int brood_task_is_ending(brood_task *task)
{
    if (task == NULL || bri_load_acquire(&task->seat->verdict) != task->progress)
        return 0;
    task->failed = 1; /* whatever the function returns, the end of the item is looked at */
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
    bri_store_release(&bri_block_of(memory)->aux[0], bri_offset_of(bri_job_reply(task->job, task->index)));
    drop_reply(task);
    task->reply = memory;
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
    *failure = (struct bri_failure_shm){.index = task->index, .outcome = task->outcome};
    bri_store_relaxed(&bri_block_of(memory)->aux[2], (uint64_t)bri_job_owner(task->job));
    bri_store_release(&bri_block_of(memory)->aux[0], bri_offset_of(task->job));
    bri_job_push_failure(task->job, failure);
}

static void attach_reply(brood_task *task)
{
    if (task->reply == NULL)
        return;
    bri_store_release(bri_job_reply(task->job, task->index), bri_offset_of(task->reply));
    bri_fault("task.replied");
    bri_block_pass_to_owner(bri_block_of(task->reply));
}

/* Whatever it has come to: its time was over, or it was cancelled.  The next look at the seat is before the next item's first instruction. */
static void be_condemned(brood_task *task)
{
    brood_task_fail(task, 0, "");
    bri_verdict_tell((enum bri_verdict)bri_load_acquire(&task->seat->verdict_kind), task->job, task->index,
                     &task->outcome);
    task->is_condemned = 1;
}

/* What only few items need. */
static void finish_item(brood_task *task, int code)
{
    if (code != 0 && !task->failed)
        brood_task_fail(task, code, "");
    if (brood_task_is_ending(task))
        be_condemned(task);
    if (task->failed)
        record_failure(task);
    else
        attach_reply(task);
    task->failed = 0;
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

static struct cursor cursor_at(const struct bri_job_shm *job, uint64_t item)
{
    struct cursor cursor = {.function = (brood_function *)(uintptr_t)(job->function + code_shift),
                            .items = bri_at(job->items_at),
                            .item_bytes = job->item_bytes,
                            .result_bytes = job->result_bytes,
                            .progress = (uint64_t)job->number << BRI_PROGRESS_JOB_SHIFT | item << 1,
                            .is_timed = job->item_timeout_ms != 0};

    if (job->flags & BRI_JOB_BYTES)
        cursor.spans = (const struct bri_span_shm *)(const void *)cursor.items + item;
    else if (job->item_bytes != 0)
        cursor.item = cursor.items + item * job->item_bytes;
    if (job->result_bytes != 0)
        cursor.result = (char *)bri_at(job->results_at) + item * job->result_bytes;
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
        brood_random_seed(bri_random_mix(claim->pool->seed, task->job->sequence, brood_task_index(task)));
    if (claim->limits.max_cpu_seconds != 0)
        bri_limits_begin_item(&claim->limits);
    if (cursor->is_timed) {
        int64_t end = set_clock(task);
        bri_store_release(claim->progress, task->progress);
        bri_fault("task.timed");
        ring_if_asleep(task, end);
    } else {
        bri_store_release(claim->progress, task->progress);
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

/* J6. */
static void run_items(struct bri_claim *claim, brood_task *task, uint64_t begin, uint64_t end)
{
    struct cursor cursor = cursor_at(task->job, begin);
    _Atomic uint64_t *progress = claim->progress;
    int is_special = cursor.is_timed || claim->limits.max_cpu_seconds != 0 || claim->pool->seed != 0;

    for (uint64_t index = begin; index < end; index++) {
        if (cursor.spans != NULL)
            take_span(&cursor, task);
        task->index = index;
        task->progress = cursor.progress | BRI_PROGRESS_RUNNING;
        if (is_special)
            begin_special_item(claim, &cursor, task);
        else
            bri_store_release(progress, cursor.progress | BRI_PROGRESS_RUNNING);
        int code = cursor.function(task, cursor.item, cursor.result);
        if (code != 0 || task->failed || task->reply != NULL || cursor.is_timed)
            finish_item(task, code);
        cursor.progress += 2;
        bri_store_release(progress, cursor.progress);
        if (task->is_condemned)
            end_condemned(task);
        if (cursor.item != NULL)
            cursor.item += cursor.item_bytes;
        if (cursor.result != NULL)
            cursor.result += cursor.result_bytes;
    }
    if (cursor.is_timed)
        bri_store_release(&claim->seat->ends_at, BROOD_FOREVER);
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
    task.item_bytes = job->item_bytes;
    task.failed = 0;
    task.is_condemned = 0;
    task.reply = NULL;
    if (job->result_bytes != 0)
        memset((char *)bri_at(job->results_at) + begin * job->result_bytes, 0,
               (end - begin) * job->result_bytes);
    run_items(claim, &task, begin, end);
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
    struct bri_claim claim = {
        .pool = shared, .seat = seat, .worker = index, .progress = &bri_slot_of(bri_self())->progress};
    uint64_t done = 0;

    bri_trace("worker %u: begins", index);
    bri_store_release(&seat->pid,
                      (int32_t)getpid()); /* its supervisor may not have come to it yet, or never */
    code_shift = pool->code_shift;
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
        bri_trace("worker %u: job %u chunk %llu done", index, claim.job->number,
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
