/* SPDX-License-Identifier: MIT */
#ifndef BRI_RANDOM_H
#define BRI_RANDOM_H

/* Seeds libc's generators (rand and random share a state; drand48 and its family) of this process from getrandom(2): called in every
 * process that brood forks, since they would else all draw their parent's numbers. */
void bri_random_reseed(void);

#endif
