/* SPDX-License-Identifier: MIT */
/* One function over an array: map waits until all results are there, in the order of the items. */
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
    const long numbers[] = {1, 2, 3, 4};
    long powers[4] = {0};
    brood_pool *pool = NULL;

    int err = brood_pool_create(NULL, &pool); /* one worker per usable CPU */
    if (err == 0)
        err =
            brood_pool_map(pool, power_n_minus_1, numbers, sizeof *numbers, powers, sizeof *powers, 4, NULL);
    if (err < 0)
        fprintf(stderr, "map: %s\n", brood_error_text());
    else
        printf("[%ld, %ld, %ld, %ld]\n", powers[0], powers[1], powers[2], powers[3]);
    brood_pool_destroy(pool); /* NULL is fine */
    return err < 0;
}
