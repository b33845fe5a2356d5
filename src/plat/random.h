/* SPDX-License-Identifier: MIT */
#ifndef BRI_RANDOM_H
#define BRI_RANDOM_H

#include <stdint.h>

/* Seeds libc's generators (rand and random share a state; drand48 and its family) of this process from getrandom(2): called in every
 * process that brood forks, since they would else all draw their parent's numbers. */
void bri_random_reseed(void);

/* A seed of its own for each (a, b), as good as chosen at random. */
uint64_t bri_random_mix(uint64_t seed, uint64_t a, uint64_t b);

#endif
