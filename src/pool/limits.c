/* SPDX-License-Identifier: MIT */
#include "pool/limits.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/time.h"
#include "plat/memory.h"
#include "pool/enforce.h"

#define MIB (UINT64_C(1) << 20)

/* --- the worker's --- */

/* The soft limit, as far as the hard one lets it. */
static int set_soft(__rlimit_resource_t resource, uint64_t value)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0)
        return -errno;
    limit.rlim_cur = value < limit.rlim_max ? value : limit.rlim_max;
    return setrlimit(resource, &limit) < 0 ? -errno : 0;
}

int bri_limits_begin(struct bri_limits *limits, const struct bri_pool_shm *pool)
{
    int error = 0;

    *limits = (struct bri_limits){.max_memory_bytes = pool->max_memory_bytes,
                                  .max_cpu_seconds = pool->max_cpu_seconds};
    if (limits->max_memory_bytes != 0) {
        limits->memory_at_birth = bri_memory_private();
        error = set_soft(RLIMIT_DATA, limits->memory_at_birth + limits->max_memory_bytes);
    }
    if (error == 0 && pool->max_open_files != 0)
        error = set_soft(RLIMIT_NOFILE, pool->max_open_files);
    if (limits->max_cpu_seconds != 0)
        signal(SIGXCPU, SIG_DFL);
    return error;
}

void bri_limits_begin_item(const struct bri_limits *limits)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    long micros = usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    long used = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (micros + 999999) / 1000000;
    set_soft(RLIMIT_CPU, (uint64_t)used + limits->max_cpu_seconds);
}

int bri_limits_are_used_up(const struct bri_limits *limits)
{
    if (limits->max_memory_bytes == 0)
        return 0;
    return bri_memory_private() > limits->memory_at_birth + limits->max_memory_bytes / 2;
}

/* --- the supervisor's --- */

static enum brood_cause guess(const struct bri_pool_shm *pool, const struct bri_seat_shm *seat, int status,
                              uint64_t peak_bytes, int oom_kills_rose)
{
    if (status == -SIGXCPU && pool->max_cpu_seconds != 0)
        return BROOD_CAUSE_CPU;
    if (status == -SIGKILL && seat->phase == BRI_PHASE_CALM && oom_kills_rose)
        return BROOD_CAUSE_OOM;
    if (status != 0 && pool->max_memory_bytes != 0 && peak_bytes >= pool->max_memory_bytes / 10 * 9)
        return BROOD_CAUSE_MEMORY;
    return BROOD_CAUSE_UNKNOWN;
}

void bri_limits_note_cause(const struct bri_pool_shm *pool, struct bri_seat_shm *seat, int status,
                           const struct rusage *usage, uint64_t *oom_kills)
{
    uint64_t peak_bytes = (uint64_t)usage->ru_maxrss * 1024, seen = *oom_kills;

    if (status == -SIGKILL)
        *oom_kills = bri_memory_oom_kills();
    bri_store_relaxed(&seat->peak_bytes, peak_bytes);
    bri_store_release(&seat->cause, (uint32_t)guess(pool, seat, status, peak_bytes, *oom_kills != seen));
}

void bri_limits_tell(const struct bri_pool_shm *pool, const struct bri_seat_shm *seat, brood_outcome *outcome)
{
    unsigned long long peak = bri_load_relaxed(&seat->peak_bytes) / MIB;
    size_t length = strlen(outcome->text), room = sizeof outcome->text - length;
    char *end = outcome->text + length;

    outcome->cause = (int)bri_load_acquire(&seat->cause);
    switch ((enum brood_cause)outcome->cause) {
    case BROOD_CAUSE_CPU:
        snprintf(end, room, "; it used more than its %u CPU seconds", pool->max_cpu_seconds);
        break;
    case BROOD_CAUSE_MEMORY:
        snprintf(end, room, "; out of memory is likely: its peak was %llu MiB, max_memory_bytes is %llu MiB",
                 peak, (unsigned long long)(pool->max_memory_bytes / MIB));
        break;
    case BROOD_CAUSE_OOM:
        snprintf(
            end, room,
            "; likely by the OOM killer: the kernel's count of such kills rose, and its peak was %llu MiB",
            peak);
        break;
    case BROOD_CAUSE_UNKNOWN:
        break;
    }
}
