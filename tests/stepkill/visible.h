/* SPDX-License-Identifier: MIT */
/*
 * What others can notice of a process that is about to die: system calls, and stores to memory that is mapped shared.
 *
 * Killed between two instructions of which neither is one of these, a process leaves the same memory and the same kernel behind as if it had
 * been killed before the first: its private memory and its registers go with it.  So of a recorded way only the instructions that others can
 * notice need a kill right after them; the rest leaves no other state (--full tries it all the same).  quiet.h says which system calls are
 * of the rest.
 */
#ifndef STEPKILL_VISIBLE_H
#define STEPKILL_VISIBLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* In doubt: it cannot be decoded, or there are too many mappings. */
enum visible { VISIBLE_NO, VISIBLE_YES, VISIBLE_IN_DOUBT };

/* Can others notice the instruction at `ip`, which the stopped process executes next? */
enum visible visible_next(pid_t pid, uint64_t ip);

/* The same once it has been executed, which may tell that it was not. */
enum visible visible_after(pid_t pid, enum visible before);

/* Is any of it mapped shared and writable, as of the last call of visible_next? */
bool visible_is_shared(uint64_t address, uint64_t bytes);

#endif
