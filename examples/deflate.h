/* SPDX-License-Identifier: MIT */
/* A small compressor: zlib format (RFC 1950), one deflate block with the fixed codes (RFC 1951). */
#ifndef DEFLATE_H
#define DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/* The most that deflate_zlib makes of so many bytes. */
size_t deflate_bound(size_t bytes);

/* Compresses into ret_stream, which has room for deflate_bound(bytes).  Returns the stream's length, or 0
 * without memory. */
size_t deflate_zlib(const uint8_t *data, size_t bytes, uint8_t *ret_stream);

#endif
