/* SPDX-License-Identifier: MIT */
/*
 * The children of a process of one thread, as /proc knows them; zombies are among them.
 *
 * The kernel's own list, /proc/PID/task/PID/children, where it has one (CONFIG_PROC_CHILDREN): three system calls.  Else all of /proc, and
 * whose parent /proc/PID/stat names: three more for each process of the machine.
 *
 * Who asks after its own children and reaps none meanwhile is told of each that it had when it asked: the kernel goes on after the pid that it
 * gave last, and a child stays in both lists until it is reaped.  Who becomes its child meanwhile may be left out.
 */
#ifndef BRI_CHILDREN_H
#define BRI_CHILDREN_H

#include <sys/types.h>

typedef void bri_child_visit(pid_t child, void *argument);

/* Calls visit for each.  -errno when there is no /proc to look into; then some may have been visited. */
int bri_children_each(pid_t parent, bri_child_visit *visit, void *argument);

/* Its two ways, for the tests. */
int bri_children_listed(pid_t parent, bri_child_visit *visit, void *argument);
int bri_children_found(pid_t parent, bri_child_visit *visit, void *argument);

#endif
