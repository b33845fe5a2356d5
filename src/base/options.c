/* SPDX-License-Identifier: MIT */
#include "base/options.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

static int all_zero(const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != 0)
            return 0;
    return 1;
}

int bri_options_take(const void *options, void *ret_known, size_t known_bytes, const char *what)
{
    size_t size = known_bytes;

    if (options != NULL)
        memcpy(&size, options, sizeof size);
    if (size < sizeof size)
        return bri_fail(EINVAL, "%s->size is %zu: fill the struct by its macro, or set size to its sizeof",
                        what, size);
    if (size > 4096)
        return bri_fail(E2BIG, "%s->size is %zu: no options struct is that large; set size to its sizeof",
                        what, size);
    if (size > known_bytes && !all_zero((const unsigned char *)options + known_bytes, size - known_bytes))
        return bri_fail(E2BIG,
                        "%s is of a newer brood (size %zu, this library knows %zu bytes) and sets a field "
                        "that this library does not know",
                        what, size, known_bytes);
    memset(ret_known, 0, known_bytes);
    if (options != NULL)
        memcpy(ret_known, options, size < known_bytes ? size : known_bytes);
    memcpy(ret_known, &known_bytes, sizeof known_bytes);
    return 0;
}
