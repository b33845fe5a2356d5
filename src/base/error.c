/* SPDX-License-Identifier: MIT */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "brood.h"

enum { TEXT_BYTES = 512 };

static _Thread_local char error_text[TEXT_BYTES];

const char *brood_error_text(void)
{
    return error_text;
}

void bri_error_set(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error_text, sizeof error_text, format, args);
    va_end(args);
}

int bri_fail_os(int err, const char *format, ...)
{
    char reason[96];
    va_list args;

    va_start(args, format);
    int used = vsnprintf(error_text, sizeof error_text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof error_text) {
        /* GNU strerror_r: the returned pointer, not the buffer, is the text. */
        const char *text = strerror_r(err, reason, sizeof reason);
        snprintf(error_text + used, sizeof error_text - (size_t)used, ": %s", text);
    }
    return -err;
}
