/* SPDX-License-Identifier: MIT */
/* Options structs: they begin with their size; see "Options" in brood.h. */
#ifndef BRI_OPTIONS_H
#define BRI_OPTIONS_H

#include <stddef.h>

/* Copies the caller's options (NULL: all defaults) into the library's own struct of known_bytes, its size field included.
 * `what` names the argument.  0, -EINVAL: size smaller than its own field, or -E2BIG: bytes that we do not know are not zero. */
int bri_options_take(const void *options, void *ret_known, size_t known_bytes, const char *what);

#endif
