/* SPDX-License-Identifier: MIT */
/* The error sentence of the calling thread: what brood_error_text() returns. */
#ifndef BRI_ERROR_H
#define BRI_ERROR_H

/* Sets the calling thread's sentence and returns -err, so that a check reads
 *     if (items == NULL) return bri_fail(EINVAL, "items is NULL: pass the array of items");
 * errno itself is left alone.  The text is cut at 511 bytes. */
#define bri_fail(err, ...) \
    (bri_error_set(__VA_ARGS__), -(err)) /* a macro, so that compilers see that it is not 0 */
/* Of a wait that ended without what it waited for: -EINTR with its sentence, or -ETIMEDOUT with this one. */
#define bri_fail_wait(why, ...)                                             \
    ((why) == -EINTR ? bri_fail(EINTR, "a signal's handler ended the wait") \
                     : bri_fail(ETIMEDOUT, __VA_ARGS__))
void bri_error_set(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As bri_fail, for what the kernel refused: adds ": " and strerror(err). */
int bri_fail_os(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
