/* SPDX-License-Identifier: MIT */
/* Arrays of NumPy in shared memory, written and read without a pickler. */
#ifndef BROOD_ARRAYS_H
#define BROOD_ARRAYS_H

#include "sink.h"

/* What plain.c has besides for arrays: of a writer, where their memory is noted; of a reader, the buffers that came beside the pickle. */
struct core_plain_arrays {
    struct core_state *state;
    enum sink_purpose purpose;
    struct sink *sink; /* once there is an array, a new reference */
    PyObject *parts;   /* list of Buffers, borrowed */
    Py_ssize_t next;   /* of these */
};

/* numpy.ndarray, borrowed; NULL: NumPy is not there, or not yet. */
PyObject *core_array_type(struct core_state *state);

/* In this table of reducers there is none of the program's own for arrays. */
int core_arrays_are_ours(struct core_state *state, PyObject *table);

/* Nor in any of those that a pickler of multiprocessing is made of; NumPy is there. */
int core_no_reducer_applies(struct core_state *state);

/* The arguments of brood._arrays._lying behind the buffer, a new reference, and the buffer in the sink; NULL, perhaps with an exception, which says
 * nothing: it is for a pickler. */
PyObject *core_array_reduce(struct core_plain_arrays *arrays, PyObject *array);

/* brood._arrays._lying(*arguments), a new reference, or NULL. */
PyObject *core_array_rebuild(struct core_state *state, PyObject *arguments);

#endif
