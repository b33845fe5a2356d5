/* SPDX-License-Identifier: MIT */
/* What keepers and supervisors share: life as a parent of other people's programs. */
#ifndef BRI_CHILD_H
#define BRI_CHILD_H

#include <signal.h>
#include <sys/types.h>

#include "arena/arena.h"

/* Flushes stdout and stderr, so that no forked child prints again what stood in their buffers. */
void bri_flush_output(void);

/* Closes every descriptor but stderr (for the trace) and the arena's, which tells how long it is: whoever waits for the end of a pipe must not
 * wait for a keeper. */
void bri_close_descriptors(void);

/* In a fresh child of a keeper or supervisor: dies with its parent (when `dies_with_parent`), gets the user's signal mask, enters the
 * arena under `name`, seeds random numbers.  Ends the process if its parent or its claim is gone already. */
void bri_child_begin(bri_name name, pid_t parent, int dies_with_parent, const sigset_t *mask);

/* Ends the child as its user's return value says: flushes stdout and stderr, runs no atexit handlers. */
_Noreturn void bri_child_end(int exit_code);

/* A descriptor that is readable on SIGCHLD (and on SIGUSR1, the doorbell), with all signals blocked; -errno. */
int bri_signal_descriptor(void);
void bri_signal_drain(int descriptor);

/* waitpid's status as multiprocessing has it: the exit code, or minus the signal. */
int bri_exit_code_of(int status);

/* A descriptor of the participant; -ESRCH when it has ended, -EMFILE, -ENFILE. */
int bri_watch(bri_name name);

/* The caller holds nothing any more: its slot is free at once.  Then _exit. */
_Noreturn void bri_leave_and_exit(void);

/* Kills every child that is left, theirs too as they come to us (PR_SET_CHILD_SUBREAPER), and reaps them. */
void bri_kill_children(void);

#endif
