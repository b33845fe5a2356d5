/* SPDX-License-Identifier: MIT */
/*
 * The way to a pool's supervisor when no signal may be sent: an owner that has given up its rights (setuid) may not signal a supervisor that was
 * forked before, and so may a worker have done.  A pipe that all have by fork; the supervisor keeps both ends too, so that it never reads as ended.  A supervisor
 * that was exec'd has none.
 */
#ifndef BRI_DOORBELL_H
#define BRI_DOORBELL_H

#include <stdint.h>
#include <sys/types.h>

struct bri_doorbell {
    int fds[2];     /* -1: none */
    uint64_t inode; /* the host may close our descriptors, and have its own at their numbers later */
};
#define BRI_NO_DOORBELL ((struct bri_doorbell){{-1, -1}, 0})

/* Unless there is one.  Having none is no error: signals do, as long as they may be sent. */
void bri_doorbell_make(struct bri_doorbell *doorbell);

/* The owner's: rings; closes both ends. */
void bri_doorbell_ring(const struct bri_doorbell *doorbell);

/* A worker's, which has it by fork as well: rings, or signals where there is none. */
void bri_doorbell_ring_or_signal(const struct bri_doorbell *doorbell, pid_t supervisor);

void bri_doorbell_drop(struct bri_doorbell *doorbell);

/* The supervisor's: once its descriptor fds[0] is readable. */
void bri_doorbell_drain(const struct bri_doorbell *doorbell);

#endif
