/* SPDX-License-Identifier: MIT */
/* How much memory there is to be had. */
#ifndef BRI_PLAT_MEMORY_H
#define BRI_PLAT_MEMORY_H

#include <stdint.h>

/* Bytes that may still be touched without waking the OOM killer, as far as can be known: the least of what the machine has available
 * (MemAvailable of /proc/meminfo, proc(5)) and the headroom of each ancestor memory cgroup.  UINT64_MAX when nothing is known. */
uint64_t bri_memory_headroom(void);

/* Bytes of private writable memory that this process has mapped, its stack included (statm of proc(5), "data"): what RLIMIT_DATA bounds.
 * 0: unknown. */
uint64_t bri_memory_private(void);

/* Processes that the OOM killer has killed: in our control group, or, where that does not say, on the machine.  Only the difference of two
 * calls says anything. */
uint64_t bri_memory_oom_kills(void);

#endif
