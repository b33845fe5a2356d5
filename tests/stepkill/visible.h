/* SPDX-License-Identifier: MIT */
/*
 * What others can notice of a process that is about to die: system calls, and stores to memory that is mapped shared.
 *
 * Killed between two instructions of which neither is one of these, a process leaves the same memory and the same kernel behind as if it had
 * been killed before the first: its private memory and its registers go with it.  So of a recorded way only the instructions that others can
 * notice need a kill right after them; the rest leaves no other state (--full tries it all the same).
 */
#ifndef STEPKILL_VISIBLE_H
#define STEPKILL_VISIBLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Can others notice the instruction at `ip`, which the stopped process executes next?  In doubt, yes. */
bool visible_next(pid_t pid, uint64_t ip);

#endif
