/* SPDX-License-Identifier: MIT */
/* What is done to an item.  A file of its own: nobody may inline it. */
#include "work.h"

#include "items.h"

void add_one(const uint64_t *item, uint64_t *result)
{
    *result = *item + 1;
}

void step_on(const uint64_t *steps, uint64_t *result)
{
    uint64_t x = 88172645463325252u;

    for (uint64_t i = 0; i < *steps; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    *result = x;
}

/* Steps until z² + c leaves the circle, summed over a row. */
void draw_row(const uint64_t *row, uint64_t *result)
{
    uint64_t sum = 0;

    for (int column = 0; column < ROW_PIXELS; column++) {
        const double cx = 3.0 * column / ROW_PIXELS - 2.2, cy = 2.4 * (double)*row / ROWS - 1.2;
        double x = 0, y = 0;
        int i = 0;

        for (; i < 500 && x * x + y * y < 4; i++) {
            const double next = x * x - y * y + cx;
            y = 2 * x * y + cy;
            x = next;
        }
        sum += (uint64_t)i;
    }
    *result = sum;
}
