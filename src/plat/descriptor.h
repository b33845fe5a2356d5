/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that are kept.  They are never 0, 1 or 2, also where the host runs with these closed: a host that opens its standard output
 * later would get a number that is ours by dup2, or print into what we keep.
 */
#ifndef BRI_PLAT_DESCRIPTOR_H
#define BRI_PLAT_DESCRIPTOR_H

/* Of a descriptor that a system call has just given, close-on-exec: itself, or a duplicate above 2 in its place.  For -1: -errno.  Fails
 * with the descriptor closed: -EMFILE. */
int bri_fd_high(int fd);

/* A pipe, neither end of which waits: 0; -EMFILE, -ENFILE. */
int bri_pipe_high(int ret_fds[2]);

#endif
