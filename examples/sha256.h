/* SPDX-License-Identifier: MIT */
/* SHA-256 as in FIPS 180-4: init, update with as many pieces as one likes, final. */
#ifndef SHA256_H
#define SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_DIGEST_BYTES = 32, SHA256_BLOCK_BYTES = 64 };

struct sha256 {
    uint32_t state[8];
    uint64_t bytes;                    /* hashed so far; modulo 64: how much of `block` is filled */
    uint8_t block[SHA256_BLOCK_BYTES]; /* the begun block */
};

void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *data, size_t bytes);
void sha256_final(struct sha256 *hash, uint8_t ret_digest[SHA256_DIGEST_BYTES]);

#endif
