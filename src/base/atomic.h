/* SPDX-License-Identifier: MIT */
/* Atomics with the memory order in the name.  All words that processes share are accessed through these. */
#ifndef BRI_ATOMIC_H
#define BRI_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
               "words of shared memory must be lock-free");

#define bri_load_relaxed(word)            atomic_load_explicit((word), memory_order_relaxed)
#define bri_load_acquire(word)            atomic_load_explicit((word), memory_order_acquire)
#define bri_load_seq_cst(word)            atomic_load_explicit((word), memory_order_seq_cst)
#define bri_store_relaxed(word, value)    atomic_store_explicit((word), (value), memory_order_relaxed)
#define bri_store_release(word, value)    atomic_store_explicit((word), (value), memory_order_release)
#define bri_store_seq_cst(word, value)    atomic_store_explicit((word), (value), memory_order_seq_cst)
#define bri_exchange_acq_rel(word, value) atomic_exchange_explicit((word), (value), memory_order_acq_rel)
#define bri_add_relaxed(word, value)      atomic_fetch_add_explicit((word), (value), memory_order_relaxed)
#define bri_add_acq_rel(word, value)      atomic_fetch_add_explicit((word), (value), memory_order_acq_rel)
#define bri_or_seq_cst(word, value)       atomic_fetch_or_explicit((word), (value), memory_order_seq_cst)
#define bri_cas_acq_rel(word, expected, value)                                                 \
    atomic_compare_exchange_strong_explicit((word), (expected), (value), memory_order_acq_rel, \
                                            memory_order_acquire)
#define bri_cas_seq_cst(word, expected, value)                                                 \
    atomic_compare_exchange_strong_explicit((word), (expected), (value), memory_order_seq_cst, \
                                            memory_order_seq_cst)
#define bri_fence_seq_cst() atomic_thread_fence(memory_order_seq_cst)

/* A plain word of shared memory whose value is about to be checked: one load, which the compiler may not repeat. */
#define bri_read_once(object) __atomic_load_n(&(object), __ATOMIC_RELAXED)

/* Its counterpart, for a plain word that others may be looking at. */
#define bri_write_once(object, value) __atomic_store_n(&(object), (value), __ATOMIC_RELAXED)

static inline void bri_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
