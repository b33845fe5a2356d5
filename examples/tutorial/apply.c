/* SPDX-License-Identifier: MIT */
/* One call at a time on a worker process: apply waits for its result. */
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
    brood_pool *pool = NULL;

    int err = brood_pool_create(NULL, &pool); /* one worker per usable CPU */
    for (long n = 1; n <= 4 && err == 0; n++)
        err = brood_pool_apply(pool, power_n_minus_1, &n, sizeof n, &powers[n - 1], sizeof powers[n - 1]);
    if (err < 0)
        fprintf(stderr, "apply: %s\n", brood_error_text());
    else
        printf("[%ld, %ld, %ld, %ld]\n", powers[0], powers[1], powers[2], powers[3]);
    brood_pool_destroy(pool); /* NULL is fine */
    return err < 0;
}
