/* SPDX-License-Identifier: MIT */
/* Names for addresses of this process image (which its forked children share), static functions included. */
#ifndef STEPKILL_SYMBOLS_H
#define STEPKILL_SYMBOLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* "function+0x1c", or "module+0x1234" for addr2line. */
void symbol_print(char *text, size_t size, uint64_t address);

/* Stops the process for a moment and prints "f+0x1 < g+0x2 < h+0x3": where it is and, by a scan of its stack,
 * through which functions outside the C library it probably got there. */
void process_print_where(char *text, size_t size, pid_t pid);

#endif
