/* SPDX-License-Identifier: MIT */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS
void (*bri_fault_hook)(const char *point);
#endif

_Noreturn void bri_check_failed(const char *condition, const char *file, int line)
{
    dprintf(STDERR_FILENO, "brood[%d]: %s:%d: does not hold: %s\n", (int)getpid(), file, line, condition);
    abort();
}
