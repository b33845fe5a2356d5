/* SPDX-License-Identifier: MIT */
/* Compiled by tests/header/run, as C and as C++: nothing stands before the header ... */
#include <brood.h>

/* ... and it may come twice. */
#include <brood.h>

int main(void)
{
    return 0;
}
