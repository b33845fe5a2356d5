/* SPDX-License-Identifier: MIT */
/* How much memory there is to be had. */
#ifndef BRI_PLAT_MEMORY_H
#define BRI_PLAT_MEMORY_H

#include <stdint.h>

/* Bytes that may still be touched without waking the OOM killer, as far as can be known: the least of what the machine has available
 * (MemAvailable of /proc/meminfo, proc(5)) and the headroom of each ancestor memory cgroup.  UINT64_MAX when nothing is known. */
uint64_t bri_memory_headroom(void);

#endif
