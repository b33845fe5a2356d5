/* SPDX-License-Identifier: MIT */
#include "base/trace.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/time.h"

enum { UNKNOWN, OFF, ON };

int bri_trace_is_on(void)
{
    static _Atomic int state = UNKNOWN;
    int now = bri_load_relaxed(&state);

    if (now == UNKNOWN) {
        const char *value = getenv("BROOD_TRACE");
        now = value != NULL && value[0] != '\0' && strcmp(value, "0") != 0 ? ON : OFF;
        bri_store_relaxed(&state, now);
    }
    return now == ON;
}

void bri_trace_write(const char *format, ...)
{
    char line[512];
    int64_t now = bri_now_ns();
    int saved_errno = errno;
    va_list args;

    int used = snprintf(line, sizeof line, "brood %lld.%06lld [%d] ", (long long)(now / BRI_NS_PER_S),
                        (long long)(now % BRI_NS_PER_S / 1000), (int)getpid());
    va_start(args, format);
    used += vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
    va_end(args);
    if (used > (int)sizeof line - 2)
        used = (int)sizeof line - 2;
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)used) < 0)
        errno = saved_errno; /* nowhere to print to: tracing never fails a program */
    errno = saved_errno;
}
