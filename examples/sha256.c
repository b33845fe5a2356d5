/* SPDX-License-Identifier: MIT */
/*
 * SHA-256.  Letters and names (a … h, w, k, ch, maj, Σ as "sum", σ as "mix") are those of FIPS 180-4.
 *
 * Two functions do the work on whole blocks and give the same result: one in portable C, one with the SHA
 * instructions of x86, taken when the processor says at run time that it has them.
 */
#include "sha256.h"

#include <string.h>

static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* ------------------------------------------------------------------------------------------ portable ---- */

static inline uint32_t rotate_right(uint32_t x, int bits)
{
    return x >> bits | x << (32 - bits);
}

static inline uint32_t load_big_endian(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void expand(uint32_t w[64], const uint8_t *block)
{
    for (int i = 0; i < 16; i++)
        w[i] = load_big_endian(block + 4 * i);
    for (int i = 16; i < 64; i++) {
        const uint32_t mix0 = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ w[i - 15] >> 3;
        const uint32_t mix1 = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + mix0 + w[i - 7] + mix1;
    }
}

/* One round without moving the letters: the caller turns their order instead. */
static inline void turn(uint32_t a, uint32_t b, uint32_t c, uint32_t *d, uint32_t e, uint32_t f, uint32_t g,
                        uint32_t *h, uint32_t k_plus_w)
{
    const uint32_t sum0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
    const uint32_t sum1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
    const uint32_t ch = g ^ (e & (f ^ g));
    const uint32_t maj = (a & b) | (c & (a | b));

    *h += sum1 + ch + k_plus_w;
    *d += *h;
    *h += sum0 + maj;
}

static void hash_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    expand(w, block);
    for (int i = 0; i < 64; i += 8) {
        turn(a, b, c, &d, e, f, g, &h, k[i] + w[i]);
        turn(h, a, b, &c, d, e, f, &g, k[i + 1] + w[i + 1]);
        turn(g, h, a, &b, c, d, e, &f, k[i + 2] + w[i + 2]);
        turn(f, g, h, &a, b, c, d, &e, k[i + 3] + w[i + 3]);
        turn(e, f, g, &h, a, b, c, &d, k[i + 4] + w[i + 4]);
        turn(d, e, f, &g, h, a, b, &c, k[i + 5] + w[i + 5]);
        turn(c, d, e, &f, g, h, a, &b, k[i + 6] + w[i + 6]);
        turn(b, c, d, &e, f, g, h, &a, k[i + 7] + w[i + 7]);
    }
    const uint32_t letters[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; i++)
        state[i] += letters[i];
}

static void hash_blocks_portable(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    for (; count > 0; count--, blocks += SHA256_BLOCK_BYTES)
        hash_block(state, blocks);
}

/* ------------------------------------------------------------------------------ x86 SHA instructions ---- */

#if defined __x86_64__ && defined __GNUC__
#include <cpuid.h>
#include <immintrin.h>

#define TARGET_SHA __attribute__((target("sha,sse4.1")))

/* The instructions keep the letters in two registers of four; the arguments name them from high to low. */
struct letters {
    __m128i abef;
    __m128i cdgh;
};

static int has_sha_instructions(void)
{
    const unsigned ssse3_and_sse41 = 1u << 9 | 1u << 19;
    const unsigned sha = 1u << 29;
    unsigned eax, ebx, ecx, edx;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & ssse3_and_sse41) != ssse3_and_sse41)
        return 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & sha) != 0;
}

TARGET_SHA static struct letters load_letters(const uint32_t state[8])
{
    const __m128i dcba = _mm_loadu_si128((const __m128i *)(const void *)state);
    const __m128i hgfe = _mm_loadu_si128((const __m128i *)(const void *)(state + 4));
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
    const __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);

    return (struct letters){_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xf0)};
}

TARGET_SHA static void store_letters(uint32_t state[8], struct letters letters)
{
    const __m128i feba = _mm_shuffle_epi32(letters.abef, 0x1b);
    const __m128i dchg = _mm_shuffle_epi32(letters.cdgh, 0xb1);

    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Four rounds each time through: w0 … w3 are the last sixteen words of w. */
TARGET_SHA static struct letters hash_block_x86(struct letters in, const uint8_t *block)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i *words = (const __m128i *)(const void *)block;
    __m128i w0 = _mm_shuffle_epi8(_mm_loadu_si128(words), big_endian);
    __m128i w1 = _mm_shuffle_epi8(_mm_loadu_si128(words + 1), big_endian);
    __m128i w2 = _mm_shuffle_epi8(_mm_loadu_si128(words + 2), big_endian);
    __m128i w3 = _mm_shuffle_epi8(_mm_loadu_si128(words + 3), big_endian);
    struct letters out = in;

    for (int i = 0; i < 64; i += 4) {
        const __m128i sum = _mm_add_epi32(w0, _mm_loadu_si128((const __m128i *)(const void *)(k + i)));
        out.cdgh = _mm_sha256rnds2_epu32(out.cdgh, out.abef, sum);
        out.abef = _mm_sha256rnds2_epu32(out.abef, out.cdgh, _mm_shuffle_epi32(sum, 0x0e));
        const __m128i mixed = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
        w0 = w1;
        w1 = w2;
        w2 = w3;
        w3 = _mm_sha256msg2_epu32(mixed, w3);
    }
    return (struct letters){_mm_add_epi32(in.abef, out.abef), _mm_add_epi32(in.cdgh, out.cdgh)};
}

TARGET_SHA static void hash_blocks_x86(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    struct letters letters = load_letters(state);

    for (; count > 0; count--, blocks += SHA256_BLOCK_BYTES)
        letters = hash_block_x86(letters, blocks);
    store_letters(state, letters);
}
#else
static int has_sha_instructions(void)
{
    return 0;
}

static void hash_blocks_x86(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    hash_blocks_portable(state, blocks, count);
}
#endif

static void hash_blocks(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    static int has = -1;

    if (has < 0)
        has = has_sha_instructions();
    if (has)
        hash_blocks_x86(state, blocks, count);
    else
        hash_blocks_portable(state, blocks, count);
}

/* -------------------------------------------------------------------------------- any length of data ---- */

void sha256_init(struct sha256 *hash)
{
    *hash = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                                      0x1f83d9ab, 0x5be0cd19}};
}

/* Adds to the begun block, and hashes it when it is full.  Returns how much of the data that took. */
static size_t fill_block(struct sha256 *hash, const uint8_t *data, size_t bytes)
{
    const size_t filled = hash->bytes % SHA256_BLOCK_BYTES;
    const size_t room = SHA256_BLOCK_BYTES - filled;
    const size_t taken = bytes < room ? bytes : room;

    memcpy(hash->block + filled, data, taken);
    hash->bytes += taken;
    if (taken == room)
        hash_blocks(hash->state, hash->block, 1);
    return taken;
}

void sha256_update(struct sha256 *hash, const void *data, size_t bytes)
{
    const uint8_t *rest = data;

    if (bytes > 0 && hash->bytes % SHA256_BLOCK_BYTES != 0) {
        const size_t taken = fill_block(hash, rest, bytes);
        rest += taken;
        bytes -= taken;
    }
    const size_t whole = bytes / SHA256_BLOCK_BYTES;
    if (whole > 0) {
        hash_blocks(hash->state, rest, whole);
        hash->bytes += whole * SHA256_BLOCK_BYTES;
        rest += whole * SHA256_BLOCK_BYTES;
        bytes -= whole * SHA256_BLOCK_BYTES;
    }
    if (bytes > 0)
        fill_block(hash, rest, bytes);
}

/* A one bit, zeros up to eight bytes before the end of a block, and the message's length in bits. */
void sha256_final(struct sha256 *hash, uint8_t ret_digest[SHA256_DIGEST_BYTES])
{
    const uint64_t bits = hash->bytes * 8;
    const uint8_t end[SHA256_BLOCK_BYTES] = {0x80};
    const size_t zeros = (SHA256_BLOCK_BYTES + 55 - hash->bytes % SHA256_BLOCK_BYTES) % SHA256_BLOCK_BYTES;
    uint8_t length[8];

    sha256_update(hash, end, 1 + zeros);
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_update(hash, length, sizeof length);
    for (int i = 0; i < SHA256_DIGEST_BYTES; i++)
        ret_digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}
