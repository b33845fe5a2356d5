/* SPDX-License-Identifier: MIT */
/* brood_pool_dump: reads words, takes no lock, allocates nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "arena/roster.h"
#include "base/error.h"
#include "pool/pool.h"

static const char *const state_names[] = {"running", "closing", "terminating", "broken", "ended"};
enum { STATES = sizeof state_names / sizeof *state_names };

static void dump_seat(struct bri_pool_shm *shared, uint32_t index, int fd)
{
    struct bri_seat_shm *seat = bri_pool_seat(shared, index);
    bri_name name = bri_load_acquire(&seat->name);
    uint64_t progress = name == 0 ? 0 : bri_load_acquire(&bri_slot_of(name)->progress);
    uint64_t item = bri_progress_item(progress);

    dprintf(fd, "  worker %u: pid %d, %s, %llu items done, %u deaths", index,
            (int)bri_load_relaxed(&seat->pid),
            name == 0            ? "none"
            : bri_is_alive(name) ? (bri_load_relaxed(&bri_slot_of(name)->idle) ? "idle" : "awake")
                                 : "dead",
            (unsigned long long)bri_load_relaxed(&seat->items), bri_load_relaxed(&seat->deaths));
    if (progress & BRI_PROGRESS_RUNNING)
        dprintf(fd, ", runs item %llu of job %llu", (unsigned long long)item,
                (unsigned long long)(progress >> BRI_PROGRESS_JOB_SHIFT));
    dprintf(fd, "\n");
}

/* Only block headers tell whether the job is still there; a job that goes away under this look prints numbers of the past. */
static void dump_job(struct bri_pool_shm *shared, uint64_t index, int fd)
{
    bri_offset at = bri_load_acquire(bri_pool_ring(shared, index));
    struct bri_job_shm *job = bri_heap_find(at, BRI_KIND_JOB, sizeof *job);

    if (job == NULL)
        return;
    dprintf(fd, "  job %u: %llu items in %llu chunks of %llu%s\n", job->number,
            (unsigned long long)job->count, (unsigned long long)job->chunks,
            (unsigned long long)job->chunk_items, bri_job_is_complete(job) ? ", complete" : "");
}

/* Of the standing job, likewise. */
static void dump_calls(struct bri_pool_shm *shared, int fd)
{
    struct bri_job_shm *job = bri_heap_find(bri_load_acquire(&shared->standing), BRI_KIND_JOB, sizeof *job);

    if (job != NULL)
        dprintf(fd, "  %llu calls in the standing job%s\n", (unsigned long long)bri_load_acquire(&job->round),
                bri_job_is_complete(job) ? "" : ", one of them under way");
}

int brood_pool_dump(brood_pool *pool, int fd)
{
    if (pool == NULL)
        return bri_fail(EINVAL, "pool is NULL: pass what brood_pool_create gave");
    if (!bri_pool_is_handle(pool))
        return bri_fail(EINVAL, "pool (%p) is not a pool, or was destroyed", (const void *)pool);
    if (fcntl(fd, F_GETFD) < 0)
        return bri_fail(EINVAL, "fd is %d, which is not an open descriptor", fd);
    struct bri_pool_shm *shared = pool->shared;
    uint64_t head = bri_load_acquire(&shared->head), tail = bri_load_acquire(&shared->tail);
    bri_name supervisor = bri_load_acquire(&pool->supervisor);
    uint32_t state = bri_load_acquire(&shared->state);
    dprintf(fd,
            "pool of %u workers: %s, supervisor pid %u %s, %llu jobs submitted, %llu of them with chunks to "
            "claim\n",
            pool->options.workers, state < STATES ? state_names[state] : "damaged",
            bri_roster_pid_of(supervisor), bri_is_alive(supervisor) ? "alive" : "gone",
            (unsigned long long)tail, (unsigned long long)(tail - head));
    for (uint32_t i = 0; i < pool->options.workers; i++)
        dump_seat(shared, i, fd);
    for (uint64_t index = head; index < tail && index < head + 16; index++)
        dump_job(shared, index, fd);
    dump_calls(shared, fd);
    return 0;
}
