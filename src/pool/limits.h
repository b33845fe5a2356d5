/* SPDX-License-Identifier: MIT */
/*
 * Limits of workers: memory, CPU time, open files.  All are the kernel's (setrlimit(2)), so that they hold during a task; a worker sets them
 * for itself.
 *
 *   memory   RLIMIT_DATA = what it had at its beginning + max_memory_bytes.  The arena does not count, being shared.  Allocations fail, and
 *            the task says what it has to say.  After a chunk: over half of it still held? Then the worker leaves, so that the next
 *            task of the seat has at least that much.
 *   CPU      RLIMIT_CPU, soft, before each item: used so far + max_cpu_seconds, rounded up.  SIGXCPU ends the worker.
 *   files    RLIMIT_NOFILE, soft
 *
 * Why a worker died is guessed by its supervisor, which alone sees its resource usage, between its end and its burial.
 */
#ifndef BRI_LIMITS_H
#define BRI_LIMITS_H

#include <sys/resource.h>

#include "pool/pool.h"

/* Once, before the initializer.  -errno. */
int bri_limits_begin(struct bri_limits *limits, const struct bri_pool_shm *pool);

/* Before an item of a pool with max_cpu_seconds. */
void bri_limits_begin_item(const struct bri_limits *limits);

/* After a chunk: is it to leave? */
int bri_limits_are_used_up(const struct bri_limits *limits);

/* The supervisor's, of a worker that ended with `status` (exit code or minus the signal).  `oom_kills`: as of the last call; kept up. */
void bri_limits_note_cause(const struct bri_pool_shm *pool, struct bri_seat_shm *seat, int status,
                           const struct rusage *usage, uint64_t *oom_kills);

/* Adds the cause to the outcome of a death. */
void bri_limits_tell(const struct bri_pool_shm *pool, const struct bri_seat_shm *seat,
                     brood_outcome *outcome);

#endif
