/* SPDX-License-Identifier: MIT */
/* Time: CLOCK_MONOTONIC in nanoseconds.  A deadline is such a time, BROOD_NOW (0) or BROOD_FOREVER (INT64_MAX). */
#ifndef BRI_TIME_H
#define BRI_TIME_H

#include <stdint.h>

#define BRI_NS_PER_MS INT64_C(1000000)
#define BRI_NS_PER_S  INT64_C(1000000000)

int64_t bri_now_ns(void);

/* now + ns, at most BROOD_FOREVER. */
int64_t bri_after_ns(int64_t ns);

static inline int64_t bri_earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#endif
