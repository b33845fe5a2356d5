/* SPDX-License-Identifier: MIT */
#include "pool/enforce.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "arena/roster.h"
#include "base/check.h"
#include "base/time.h"
#include "base/trace.h"

enum { STOP_MS = 100 };

/* --- looking at jobs --- */

/* 0: there is none, or it is damaged. */
static int find_job(bri_offset job_at, struct bri_job_view *ret_view)
{
    struct bri_job_shm *job = bri_heap_find(job_at, BRI_KIND_JOB, sizeof *job);

    return job != NULL && bri_job_read(job, ret_view);
}

/* A visit (pool.h, J1, J2) of the job that stands in `entry`, whose words may have flags in their low bits; 0: there is none. */
static int begin_look(struct bri_pool_shm *pool, const _Atomic uint64_t *entry, struct bri_job_view *ret_view)
{
    uint64_t word = bri_load_acquire(entry);
    bri_offset job_at = bri_visit_job(word);

    if (job_at == 0)
        return 0;
    bri_store_seq_cst(&pool->looking, job_at);
    if (bri_load_seq_cst(entry) == word && find_job(job_at, ret_view))
        return 1;
    bri_store_release(&pool->looking, (bri_offset)0);
    return 0;
}

static void end_look(struct bri_pool_shm *pool)
{
    bri_store_release(&pool->looking, (bri_offset)0);
}

int bri_enforce_has_call(struct bri_pool_shm *pool)
{
    struct bri_job_view view;

    if (!begin_look(pool, &pool->standing, &view))
        return 0;
    int is_free = view.chunks == 1 && bri_load_acquire(&view.table[0]) == BRI_CHUNK_FREE;
    end_look(pool);
    return is_free;
}

/* --- deadlines of jobs --- */

static void lower_alarm(struct bri_pool_shm *pool, int64_t to)
{
    int64_t seen = bri_load_acquire(&pool->alarm_at);

    while (to < seen && !bri_cas_seq_cst(&pool->alarm_at, &seen, to)) {
    }
}

int bri_enforce_set_alarm(struct bri_pool_shm *pool, int64_t deadline)
{
    lower_alarm(pool, deadline);
    return bri_enforce_is_asleep_at(pool, deadline);
}

static void look_at_deadline(struct bri_pool_shm *pool, const _Atomic uint64_t *entry, int64_t now)
{
    struct bri_job_view view;

    if (!begin_look(pool, entry, &view))
        return;
    int64_t deadline = bri_read_once(view.job->deadline);
    if (deadline != BROOD_FOREVER && !bri_job_is_complete(view.job)) {
        if (deadline > now) {
            lower_alarm(pool, deadline);
        } else if (bri_load_acquire(&view.job->cancel) < BRI_CANCEL_TIME) {
            bri_trace("supervisor: the time of job %u is over", view.job->number);
            bri_job_cancel(&view, BRI_CANCEL_TIME);
        }
    }
    end_look(pool);
}

/* A job is in the ring, visited, or among the returns.  FOREVER first: what the owner sets meanwhile is not lost. */
static void look_at_deadlines(struct bri_pool_shm *pool, uint32_t workers, int64_t now)
{
    uint64_t tail = bri_load_acquire(&pool->tail), head = bri_load_acquire(&pool->head);

    if (now < bri_load_acquire(&pool->alarm_at))
        return;
    bri_store_seq_cst(&pool->alarm_at, BROOD_FOREVER);
    bri_fault("enforce.alarm.taken");
    for (uint64_t index = head; index < tail && index - head < BRI_RING; index++)
        look_at_deadline(pool, bri_pool_ring(pool, index), now);
    for (uint32_t i = 0; i < BRI_RETURNS; i++)
        look_at_deadline(pool, &bri_pool_return(pool, i)->job, now);
    for (uint32_t i = 0; i < workers; i++)
        look_at_deadline(pool, &bri_pool_seat(pool, i)->visiting, now);
}

/* --- one seat --- */

static uint64_t progress_of(const struct bri_seat_shm *seat)
{
    bri_name name = bri_load_acquire(&seat->name);

    return name == 0 ? 0 : bri_load_acquire(&bri_slot_of(name)->progress);
}

static int is_past_its_time(const struct bri_seat_shm *seat, int64_t now)
{
    return (progress_of(seat) & BRI_PROGRESS_RUNNING) && bri_load_acquire(&seat->ends_at) <= now;
}

/* Does it visit a stopped job, other than the one in which it was found without a claim?  From there it goes by itself. */
static int is_in_stopped_job(struct bri_pool_shm *pool, struct bri_seat_shm *seat)
{
    if (!(bri_load_acquire(&seat->visiting) & BRI_VISIT_VALID))
        return 0;
    struct bri_job_view view;
    if (!begin_look(pool, &seat->visiting, &view))
        return 0;
    int is_new = seat->looked_at != bri_offset_of(view.job) ||
                 seat->looked_at_number != bri_read_once(view.job->number);
    int is_stopped = is_new && bri_job_is_stopped(view.job);
    end_look(pool);
    return is_stopped;
}

/* Of a worker that stands still: why it has to end. */
static enum bri_verdict judge(struct bri_pool_shm *pool, uint32_t index, int64_t now)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool, index);
    uint64_t visiting = bri_load_acquire(&seat->visiting);
    struct bri_job_view view;

    if (!(visiting & BRI_VISIT_VALID) || !find_job(bri_visit_job(visiting), &view))
        return BRI_VERDICT_NONE;
    struct bri_job_shm *job = view.job;
    if (is_past_its_time(seat, now))
        return BRI_VERDICT_ITEM_TIME;
    if (!bri_job_is_stopped(job))
        return BRI_VERDICT_NONE;
    if (bri_job_claim_of(&view, index) != BRI_NO_CHUNK)
        return bri_load_acquire(&job->cancel) == BRI_CANCEL_TIME ? BRI_VERDICT_CALL_TIME
                                                                 : BRI_VERDICT_CANCELLED;
    seat->looked_at = bri_offset_of(job);
    seat->looked_at_number = bri_read_once(job->number);
    return BRI_VERDICT_NONE;
}

static void enter_phase(const brood_pool *pool, uint32_t index, enum bri_phase phase, int signal)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);

    seat->phase = phase;
    seat->phase_ends = bri_after_ns(
        (phase == BRI_PHASE_STOPPING ? STOP_MS : (int64_t)pool->options.grace_ms) * BRI_NS_PER_MS);
    kill(pool->posts[index].pid, signal);
}

/* E1 */
static void condemn(const brood_pool *pool, uint32_t index, int64_t now)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);
    enum bri_verdict verdict = judge(pool->shared, index, now);
    uint64_t progress = progress_of(seat);

    seat->phase = BRI_PHASE_CALM;
    if (verdict != BRI_VERDICT_NONE) {
        bri_store_release(&seat->verdict_kind, (uint32_t)verdict);
        bri_fault("enforce.judged");
        bri_store_seq_cst(&seat->verdict, progress & BRI_PROGRESS_RUNNING ? progress : BRI_VERDICT_ALL);
        bri_trace("supervisor: worker %u has to end its item", index);
        if (pool->options.soft_signal != 0)
            enter_phase(pool, index, BRI_PHASE_SOFT, pool->options.soft_signal);
        else
            enter_phase(pool, index, BRI_PHASE_TERM, SIGTERM);
    }
    kill(pool->posts[index].pid, SIGCONT);
}

static int has_stopped(pid_t pid)
{
    siginfo_t info = {.si_pid = 0};

    return waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid != 0;
}

static void look_at_seat(const brood_pool *pool, uint32_t index, int64_t now)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);

    if (pool->posts[index].pid == 0)
        return;
    switch ((enum bri_phase)seat->phase) {
    case BRI_PHASE_CALM:
        if (is_past_its_time(seat, now) || is_in_stopped_job(pool->shared, seat))
            enter_phase(pool, index, BRI_PHASE_STOPPING, SIGSTOP);
        break;
    case BRI_PHASE_STOPPING:
        if (has_stopped(pool->posts[index].pid) || now >= seat->phase_ends)
            condemn(pool, index, now);
        break;
    case BRI_PHASE_SOFT:
        if (now >= seat->phase_ends)
            enter_phase(pool, index, BRI_PHASE_TERM, SIGTERM);
        break;
    case BRI_PHASE_TERM:
        if (now >= seat->phase_ends)
            enter_phase(pool, index, BRI_PHASE_KILLED, SIGKILL);
        break;
    case BRI_PHASE_KILLED:
        break;
    default: /* damage */
        seat->phase = BRI_PHASE_CALM;
    }
}

/* --- the supervisor's loop --- */

void bri_enforce_reset(struct bri_seat_shm *seat)
{
    bri_store_relaxed(&seat->ends_at, BROOD_FOREVER);
    bri_store_relaxed(&seat->verdict, UINT64_C(0));
    seat->phase = BRI_PHASE_CALM;
    seat->looked_at = 0;
}

void bri_enforce(brood_pool *pool, int64_t now)
{
    look_at_deadlines(pool->shared, pool->options.workers, now);
    for (uint32_t i = 0; i < pool->options.workers; i++)
        look_at_seat(pool, i, now);
}

static int64_t seat_ends(const brood_pool *pool, uint32_t index)
{
    const struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);

    if (pool->posts[index].pid == 0 || seat->phase == BRI_PHASE_KILLED)
        return BROOD_FOREVER;
    if (seat->phase != BRI_PHASE_CALM)
        return seat->phase_ends;
    return progress_of(seat) & BRI_PROGRESS_RUNNING ? bri_load_seq_cst(&seat->ends_at) : BROOD_FOREVER;
}

static int64_t earliest_end(const brood_pool *pool)
{
    int64_t earliest = bri_load_seq_cst(&pool->shared->alarm_at);

    for (uint32_t i = 0; i < pool->options.workers; i++)
        earliest = bri_earlier(earliest, seat_ends(pool, i));
    return earliest;
}

int64_t bri_enforce_prepare_sleep(brood_pool *pool, int64_t until)
{
    for (;;) {
        until = bri_earlier(until, earliest_end(pool));
        bri_store_seq_cst(&pool->shared->wakes_at, until); /* S1 */
        bri_fence_seq_cst();
        if (earliest_end(pool) >= until) /* S2 */
            return until;
    }
}

/* --- outcomes --- */

void bri_verdict_tell(enum bri_verdict verdict, const struct bri_job_shm *job, uint64_t item,
                      brood_outcome *outcome)
{
    unsigned long long index = job->first_index + item;

    outcome->kind = verdict == BRI_VERDICT_CANCELLED ? BROOD_CANCELLED : BROOD_TIMED_OUT;
    switch (verdict) {
    case BRI_VERDICT_ITEM_TIME:
        snprintf(outcome->text, sizeof outcome->text,
                 "item %llu: not done within its %u ms; its worker (pid %d) was ended", index,
                 job->item_timeout_ms, outcome->pid);
        break;
    case BRI_VERDICT_CALL_TIME:
        snprintf(
            outcome->text, sizeof outcome->text,
            "item %llu: still running when the %u ms of the whole were over; its worker (pid %d) was ended",
            index, job->timeout_ms, outcome->pid);
        break;
    default:
        snprintf(outcome->text, sizeof outcome->text,
                 "item %llu: cancelled while it ran; its worker (pid %d) was ended", index, outcome->pid);
    }
}
