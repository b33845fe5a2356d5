/* SPDX-License-Identifier: MIT */
/* Pickles of plain objects, made and read without a pickler. */
#ifndef BROOD_PLAIN_H
#define BROOD_PLAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct core_plain_arrays;

/* bytes; NULL without an exception: the object is none of those that plain.c is for, or there is no memory.  arrays: NULL, or see arrays.h. */
PyObject *core_plain_dumps(PyObject *object, struct core_plain_arrays *arrays);

/* The object; NULL without an exception: the bytes are for a real unpickler.  NULL with one: no memory. */
PyObject *core_plain_loads(const void *data, size_t bytes, struct core_plain_arrays *arrays);

#endif
