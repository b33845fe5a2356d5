/* SPDX-License-Identifier: MIT */
/*
 * Greedy matching: places where the same three bytes stood before are chained by a hash of these bytes, the
 * newest first; the longest match among the first CHAIN of them is taken.
 *
 *   newest[hash of the 3 bytes at p]   the last place with that hash, plus 1; 0: none
 *   older[p % WINDOW]                  the one before it, likewise
 *
 * An entry of `older` is overwritten WINDOW places later, when no match can reach it any more.
 */
#include "deflate.h"

#include <stdlib.h>

enum { WINDOW = 32768, HASHES = 1 << 15, CHAIN = 64, SHORTEST = 3, LONGEST = 258, END_OF_BLOCK = 256 };

struct deflate {
    const uint8_t *data;
    size_t bytes;
    uint8_t *out;
    uint64_t bits; /* the lowest `bits_count` are not written yet; deflate fills bytes from the lowest bit */
    int bits_count;
    size_t newest[HASHES];
    size_t older[WINDOW];
};

struct match {
    unsigned length; /* 0: none */
    unsigned distance;
};

size_t deflate_bound(size_t bytes)
{
    return bytes + bytes / 8 + 16; /* no literal is longer than 9 bits */
}

/* ---------------------------------------------------------------------------------------------- bits ---- */

static void put_bits(struct deflate *state, unsigned value, int count)
{
    state->bits |= (uint64_t)value << state->bits_count;
    state->bits_count += count;
    while (state->bits_count >= 8) {
        *state->out++ = (uint8_t)state->bits;
        state->bits >>= 8;
        state->bits_count -= 8;
    }
}

/* Codes, unlike numbers, stand with their highest bit first. */
static void put_code(struct deflate *state, unsigned code, int count)
{
    unsigned reversed = 0;

    for (int i = 0; i < count; i++)
        reversed |= (code >> i & 1) << (count - 1 - i);
    put_bits(state, reversed, count);
}

/* RFC 1951, 3.2.6 */
static void put_symbol(struct deflate *state, unsigned symbol)
{
    if (symbol < 144)
        put_code(state, 0x30 + symbol, 8);
    else if (symbol < 256)
        put_code(state, 0x190 + (symbol - 144), 9);
    else if (symbol < 280)
        put_code(state, symbol - 256, 7);
    else
        put_code(state, 0xc0 + (symbol - 280), 8);
}

/* RFC 1951, 3.2.5: symbols stand for ranges; the place in the range follows in extra bits. */
static void put_length(struct deflate *state, unsigned length)
{
    unsigned from_shortest = length - SHORTEST;
    int extra = 0;

    if (length == LONGEST) {
        put_symbol(state, 285);
        return;
    }
    while (from_shortest >> extra >= 8)
        extra++;
    put_symbol(state, 257 + 4 * (unsigned)extra + (from_shortest >> extra));
    put_bits(state, from_shortest & ((1u << extra) - 1), extra);
}

static void put_distance(struct deflate *state, unsigned distance)
{
    const unsigned from_one = distance - 1;
    int extra = 0;

    while (from_one >> extra >= 4)
        extra++;
    put_code(state, 2 * (unsigned)extra + (from_one >> extra), 5);
    put_bits(state, from_one & ((1u << extra) - 1), extra);
}

/* ------------------------------------------------------------------------------------------- matches ---- */

static size_t hash_at(const uint8_t *data)
{
    const uint32_t three = (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16;

    return three * 2654435761u >> 17;
}

/* Enters the place in its chain. */
static void remember(struct deflate *state, size_t place)
{
    if (state->bytes - place < SHORTEST)
        return;
    const size_t hash = hash_at(state->data + place);
    state->older[place % WINDOW] = state->newest[hash];
    state->newest[hash] = place + 1;
}

static unsigned common_length(const struct deflate *state, size_t before, size_t place)
{
    const size_t rest = state->bytes - place;
    const unsigned most = rest < LONGEST ? (unsigned)rest : LONGEST;
    unsigned length = 0;

    while (length < most && state->data[before + length] == state->data[place + length])
        length++;
    return length;
}

static struct match find_match(const struct deflate *state, size_t place)
{
    struct match best = {0, 0};

    if (state->bytes - place < SHORTEST)
        return best;
    size_t before = state->newest[hash_at(state->data + place)];
    for (int i = 0; i < CHAIN && before != 0 && place - (before - 1) <= WINDOW; i++) {
        const unsigned length = common_length(state, before - 1, place);
        if (length >= SHORTEST && length > best.length)
            best = (struct match){length, (unsigned)(place - (before - 1))};
        before = state->older[(before - 1) % WINDOW];
    }
    return best;
}

/* -------------------------------------------------------------------------------------------- stream ---- */

static void put_block(struct deflate *state)
{
    put_bits(state, 1, 1); /* the last block */
    put_bits(state, 1, 2); /* fixed codes */
    for (size_t place = 0; place < state->bytes;) {
        const struct match match = find_match(state, place);
        if (match.length == 0) {
            put_symbol(state, state->data[place]);
        } else {
            put_length(state, match.length);
            put_distance(state, match.distance);
        }
        const size_t end = place + (match.length == 0 ? 1 : match.length);
        while (place < end)
            remember(state, place++);
    }
    put_symbol(state, END_OF_BLOCK);
    put_bits(state, 0, (8 - state->bits_count) % 8);
}

static uint32_t adler32(const uint8_t *data, size_t bytes)
{
    uint32_t a = 1, b = 0;

    for (size_t i = 0; i < bytes; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

size_t deflate_zlib(const uint8_t *data, size_t bytes, uint8_t *ret_stream)
{
    struct deflate *state = calloc(1, sizeof *state);

    if (state == NULL)
        return 0;
    state->data = data;
    state->bytes = bytes;
    state->out = ret_stream;
    put_bits(state, 0x78, 8); /* deflate, window of 32 KiB */
    put_bits(state, 0x01, 8); /* makes the two a multiple of 31 */
    put_block(state);
    const uint32_t sum = adler32(data, bytes);
    for (int shift = 24; shift >= 0; shift -= 8)
        *state->out++ = (uint8_t)(sum >> shift);
    const size_t length = (size_t)(state->out - ret_stream);
    free(state);
    return length;
}
