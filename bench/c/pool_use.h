/* SPDX-License-Identifier: MIT */
/* What the programs that measure brood itself share. */
#ifndef BENCH_POOL_USE_H
#define BENCH_POOL_USE_H

#include <brood.h>

const char *brood_version(void);
/* Ends the program with brood's own sentence unless `result` is a success. */
long must_brood(long result, const char *what);

brood_pool *start_pool(uint32_t workers);
/* close, join, destroy: every task has been done. */
void end_pool(brood_pool *pool);
/* CPU time that the owner, the supervisor and the workers have used so far. */
double cpu_us_of_pool(brood_pool *pool);
/* The same without the owner. */
double cpu_us_of_workers(brood_pool *pool);
/* How often all of these have slept. */
long sleeps_of_pool(brood_pool *pool);

#endif
