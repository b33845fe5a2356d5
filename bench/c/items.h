/* SPDX-License-Identifier: MIT */
/* The picture of draw_row. */
#ifndef BENCH_ITEMS_H
#define BENCH_ITEMS_H

#include <stdint.h>

enum { ROWS = 1000, ROW_PIXELS = 1600 };

void draw_row(const uint64_t *row, uint64_t *result);

#endif
