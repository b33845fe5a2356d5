/* SPDX-License-Identifier: MIT */
/* For the unit tests of all layers. */
#ifndef BRI_TESTING_H
#define BRI_TESTING_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Is the test run by tools/sanitize under that tool ("valgrind", "asan", "tsan")?  For cases that the tool cannot run. */
static inline int runs_under(const char *tool)
{
    const char *name = getenv("BROOD_TEST_TOOL");

    return name != NULL && strcmp(name, tool) == 0;
}

/* cmocka's skip(), with the reason that tools/run-tests prints. */
#define skip_because(reason) (fprintf(stderr, "# skipped %s: %s\n", __func__, (reason)), skip())

#endif
