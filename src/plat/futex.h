/* SPDX-License-Identifier: MIT */
/* The kernel's wait queues (futex(2), futex_waitv of Linux 5.16) on words of shared memory. */
#ifndef BRI_FUTEX_H
#define BRI_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

struct bri_futex {
    _Atomic uint32_t *word;
    uint32_t value; /* sleep only while *word is this */
};

/* Sleeps until one of `count` (1 … 3) words is woken or differs, a signal arrives, or the deadline passes.  Spurious returns are
 * allowed: the caller looks again.  Where the kernel has no futex_waitv only the first word is watched, in slices of 20 ms.
 * Returns 0, -EINTR when a signal's handler has run, or -ETIMEDOUT once the deadline has passed. */
int bri_futex_wait(const struct bri_futex *futexes, unsigned count, int64_t deadline);

/* Wakes up to `count` sleepers; returns how many. */
int bri_futex_wake(_Atomic uint32_t *word, int count);

#endif
