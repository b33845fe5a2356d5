/* SPDX-License-Identifier: MIT */
/* A module that reload_test loads, unloads, and loads in another version. */
#include <brood.h>

brood_function version, fail_with_version;

int version(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item;
    *(int *)result = VERSION;
    return 0;
}

int fail_with_version(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    return VERSION;
}
