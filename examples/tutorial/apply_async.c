/* SPDX-License-Identifier: MIT */
/* Calls that return at once: the four run side by side, then each result is waited for. */
#include <brood.h>
#include <stdio.h>

static int power_n_minus_1(brood_task *task, const void *item, void *result)
{
    const long n = *(const long *)item;
    long power = 1;

    (void)task;
    for (long i = 1; i < n; i++)
        power *= n;
    *(long *)result = power;
    return 0;
}

int main(void)
{
    long powers[4] = {0};
    brood_result *results[4] = {NULL};
    brood_pool *pool = NULL;

    int err = brood_pool_create(NULL, &pool); /* one worker per usable CPU */
    for (long n = 1; n <= 4 && err == 0; n++)
        err = brood_pool_apply_async(pool, power_n_minus_1, &n, sizeof n, sizeof *powers, &results[n - 1]);
    for (int i = 0; i < 4 && err == 0; i++)
        err = brood_result_get(results[i], &powers[i], sizeof powers[i], BROOD_FOREVER);
    if (err < 0)
        fprintf(stderr, "apply_async: %s\n", brood_error_text());
    else
        printf("[%ld, %ld, %ld, %ld]\n", powers[0], powers[1], powers[2], powers[3]);
    for (int i = 0; i < 4; i++)
        brood_result_destroy(results[i]); /* NULL is fine */
    brood_pool_destroy(pool);
    return err < 0;
}
