/* SPDX-License-Identifier: MIT */
#include "base/time.h"

#include <time.h>

#include "brood.h"

int64_t bri_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * BRI_NS_PER_S + now.tv_nsec;
}

int64_t bri_after_ns(int64_t ns)
{
    int64_t now = bri_now_ns();

    return ns > BROOD_FOREVER - now ? BROOD_FOREVER : now + ns;
}

int64_t brood_after_ms(int64_t milliseconds)
{
    if (milliseconds < 0)
        milliseconds = 0;
    if (milliseconds > BROOD_FOREVER / BRI_NS_PER_MS)
        return BROOD_FOREVER;
    return bri_after_ns(milliseconds * BRI_NS_PER_MS);
}
