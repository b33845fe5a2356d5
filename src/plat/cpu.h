/* SPDX-License-Identifier: MIT */
/* How many CPUs this process may really use: the parts of brood_cpu_count() that tests replace. */
#ifndef BRI_CPU_H
#define BRI_CPU_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "brood.h"

/* As sched_getaffinity(): -1 with errno EINVAL when the mask is too small for the CPUs the kernel knows. */
typedef int bri_affinity_call(pid_t pid, size_t mask_bytes, cpu_set_t *mask);

/* brood_cpu_info_get() with `root` put before /proc and /sys; affinity and environment are the real ones.
 * Sets all of *ret_info and cannot fail: what is not to be had counts as absent. */
void bri_cpu_measure(const char *root, brood_cpu_info *ret_info);

/* The calling thread's mask, however many CPUs there are; CPU_FREE() it.  -ENOMEM, or what the call says. */
int bri_cpu_affinity(bri_affinity_call *call, cpu_set_t **ret_mask, size_t *ret_mask_bytes);

/* The CPUs that `affinity` CPUs under a quota are worth; a period of 0 stands for no quota.  At least 1. */
int bri_cpu_usable(int affinity, uint64_t quota_us, uint64_t period_us);

#endif
