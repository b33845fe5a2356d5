/* SPDX-License-Identifier: MIT */
/* SemLock, for the condition that waits with one. */
#ifndef BROOD_SYNC_H
#define BROOD_SYNC_H

#include "core.h"

struct semlock {
    struct core_object object;
    int kind;
    int maxvalue;
    char owner_died; /* the last acquire said so */
};

/* Does the calling thread hold it? */
int semlock_is_mine(struct semlock *semlock);

/* -1 with an exception, 0: not by the deadline, 1. */
int semlock_acquire_until(struct semlock *semlock, int64_t deadline);

/* Its methods of these names. */
PyObject *semlock_acquire(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *semlock_enter(PyObject *self, PyObject *unused);
PyObject *semlock_exit(PyObject *self, PyObject *const *details, Py_ssize_t count);
PyObject *semlock_release(PyObject *self, PyObject *unused);

/* Releases it that often.  0, or the core's negative errno. */
int semlock_release_all(struct semlock *semlock, int64_t depth);

#endif
