/* SPDX-License-Identifier: MIT */
/* Compiles where OpenMP is installed for the compiler. */
#include <omp.h>

int main(void)
{
    return omp_get_max_threads() < 1;
}
