/* SPDX-License-Identifier: MIT */
/* A module that reload_test loads, unloads, and loads in another version. */
#include <brood.h>

brood_function version;

int version(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item;
    *(int *)result = VERSION;
    return 0;
}
