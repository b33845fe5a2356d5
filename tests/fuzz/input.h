/* SPDX-License-Identifier: MIT */
/* The input of a fuzz target, from which it takes what it does. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

static struct {
    const uint8_t *at;
    size_t left;
} input;

/* So many bytes, the first the highest; 0 where the input is over. */
static uint32_t take(uint32_t bytes)
{
    uint32_t value = 0;

    for (; bytes > 0; bytes--) {
        value = value << 8 | (input.left > 0 ? *input.at : 0);
        input.at += input.left > 0;
        input.left -= input.left > 0;
    }
    return value;
}

#endif
