/* SPDX-License-Identifier: MIT */
#include "plat/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/time.h"
#include "brood.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* the same number on every architecture */
#endif

enum { WORDS_MAX = 3, SLICE_MS = 20 };

/* struct futex_waitv and its flag, which older kernel headers lack. */
struct wait_word {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};
#define WAIT_WORD_32_BITS 2u

static struct timespec to_timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / BRI_NS_PER_S), .tv_nsec = (long)(ns % BRI_NS_PER_S)};
}

static long wait_any(const struct bri_futex *futexes, unsigned count, const struct timespec *until)
{
    struct wait_word words[WORDS_MAX];

    for (unsigned i = 0; i < count; i++)
        words[i] = (struct wait_word){.value = futexes[i].value,
                                      .address = (uint64_t)(uintptr_t)futexes[i].word,
                                      .flags = WAIT_WORD_32_BITS};
    return syscall(SYS_futex_waitv, words, count, 0u, until, CLOCK_MONOTONIC);
}

static long wait_one(const struct bri_futex *futex, const struct timespec *until)
{
    return syscall(SYS_futex, futex->word, FUTEX_WAIT_BITSET, futex->value, until, NULL,
                   FUTEX_BITSET_MATCH_ANY);
}

/* The fallback may miss a wake of the other words, so it looks again after a slice. */
static long wait_slice(const struct bri_futex *futexes, unsigned count, int64_t deadline)
{
    for (unsigned i = 1; i < count; i++)
        if (bri_load_seq_cst(futexes[i].word) != futexes[i].value)
            return 0;
    struct timespec until = to_timespec(bri_earlier(deadline, bri_after_ns(SLICE_MS * BRI_NS_PER_MS)));
    return wait_one(futexes, &until);
}

int bri_futex_wait(const struct bri_futex *futexes, unsigned count, int64_t deadline)
{
    static _Atomic int waitv_is_missing; /* a fact about the kernel, not about shared state */
    struct timespec until = to_timespec(deadline);
    const struct timespec *limit = deadline == BROOD_FOREVER ? NULL : &until;
    int saved_errno = errno;
    long woken;

    if (count == 1) {
        woken = wait_one(futexes, limit);
    } else if (!bri_load_relaxed(&waitv_is_missing)) {
        woken = wait_any(futexes, count, limit);
        if (woken < 0 && (errno == ENOSYS || errno == EPERM)) {
            bri_store_relaxed(&waitv_is_missing, 1);
            woken = wait_slice(futexes, count, deadline);
        }
    } else {
        woken = wait_slice(futexes, count, deadline);
    }
    int interrupted = woken < 0 && errno == EINTR;
    errno = saved_errno;
    if (deadline != BROOD_FOREVER && bri_now_ns() >= deadline)
        return -ETIMEDOUT;
    return interrupted ? -EINTR : 0;
}

int bri_futex_wake(_Atomic uint32_t *word, int count)
{
    int saved_errno = errno;
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);

    errno = saved_errno;
    return woken < 0 ? 0 : (int)woken;
}
