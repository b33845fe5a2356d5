/* SPDX-License-Identifier: MIT */
/* Writes PNG pictures with a palette (ISO/IEC 15948, colour type 3, 8 bits). */
#ifndef PNG_H
#define PNG_H

#include <stdint.h>
#include <stdio.h>

struct png_colour {
    uint8_t red;
    uint8_t green;
    uint8_t blue;
};

/* A byte per pixel, row by row from the top.  0 or a negative errno; flushes the file. */
int png_write(FILE *file, const uint8_t *pixels, uint32_t width, uint32_t height,
              const struct png_colour palette[256]);

#endif
