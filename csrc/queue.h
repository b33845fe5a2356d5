/* SPDX-License-Identifier: MIT */
/* The parts of brood._core.Queue: queue.c has the type, queue_put.c and queue_get.c its two sides. */
#ifndef BROOD_CORE_QUEUE_H
#define BROOD_CORE_QUEUE_H

#include "core.h"

struct queue {
    struct core_object object;
    Py_ssize_t maxsize; /* 0: none */
    char is_closed;     /* in this process, through this object */
    char has_reader;    /* _fileno() was asked for: see quiet_reader */
    char has_put; /* so has this: empty() tells then that it is closed, as the standard library's does */
};

/* One call of put, get or their kin. */
struct queue_call {
    brood_queue *queue;
    PyObject *first; /* borrowed; NULL for those without */
    int64_t deadline;
};

/* The handle of a queue that is open; else NULL with an exception: ValueError, or what the subclass's _refuse raises. */
brood_queue *queue_open_handle(PyObject *self);

/* Arguments (METH_FASTCALL | METH_KEYWORDS) of a method `function` that has `first` (NULL: it has none), block and timeout.  -1 with an
 * exception, the queue being closed one of the reasons. */
int queue_parse(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords,
                const char *function, const char *first, struct queue_call *ret_call);

/* ---- methods: METH_FASTCALL | METH_KEYWORDS but for the last of each side ---- */

PyObject *queue_put(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *queue_put_bytes(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *queue_put_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *queue_put_nowait(PyObject *self, PyObject *item); /* METH_O */

PyObject *queue_get(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *queue_get_bytes(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *queue_get_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
PyObject *queue_get_nowait(PyObject *self, PyObject *unused); /* METH_NOARGS */

#endif
