/* SPDX-License-Identifier: MIT */
/*
 * The way to a pool's supervisor when no signal may be sent: an owner that has given up its rights (setuid) may not signal a supervisor that was
 * started before, and so may a worker have done.  A pipe that owner, supervisor and workers have by fork; the supervisor keeps both ends too, so
 * that it never reads as ended.  A supervisor that was exec'd opens it as the owner's descriptor, through /proc, while both have the same
 * rights.
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

/* In the pool, for a supervisor that is exec'd: the owner's, written before it starts one. */
struct bri_doorbell_shm {
    uint64_t inode;
    int32_t fd; /* in the owner */
};

/* Unless there is one.  Having none is no error: signals do, as long as they may be sent. */
void bri_doorbell_make(struct bri_doorbell *doorbell);

/* The owner's: says where it is; rings; closes both ends. */
void bri_doorbell_tell(const struct bri_doorbell *doorbell, struct bri_doorbell_shm *ret_place);
void bri_doorbell_ring(const struct bri_doorbell *doorbell);

/* A worker's, which has it by fork as well: rings, or signals where there is none. */
void bri_doorbell_ring_or_signal(const struct bri_doorbell *doorbell, pid_t supervisor);

void bri_doorbell_drop(struct bri_doorbell *doorbell);

/* The supervisor's: opens what the owner, which has this pid, has told of, or there is none; once its descriptor fds[0] is readable. */
void bri_doorbell_open(struct bri_doorbell *ret_doorbell, uint32_t owner,
                       const struct bri_doorbell_shm *place);
void bri_doorbell_drain(const struct bri_doorbell *doorbell);

#endif
