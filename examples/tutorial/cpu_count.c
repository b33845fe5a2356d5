/* SPDX-License-Identifier: MIT */
/* The CPUs this process may really use: affinity and container quotas are taken into account. */
#include <brood.h>
#include <stdio.h>

int main(void)
{
    printf("%d\n", brood_cpu_count());
    return 0;
}
