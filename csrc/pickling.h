/* SPDX-License-Identifier: MIT */
/* Objects to bytes and back. */
#ifndef BROOD_PICKLING_H
#define BROOD_PICKLING_H

#include "core.h"

/* The pickle of an object, until core_pickle_free. */
struct core_pickle {
    void *data;
    size_t bytes;
    PyObject *owner; /* bytes, or NULL: `view` */
    Py_buffer view;
};

/* 0, or -1 with the exception of the pickler. */
int core_pickle_make(struct core_state *state, PyObject *object, struct core_pickle *ret_pickle);
void core_pickle_free(struct core_pickle *pickle);

/* All of it is of builtin types: no name is in it, no reducer was asked. */
int core_pickle_is_plain(const struct core_pickle *pickle);

/* Of what holds bytes, which it steals. */
int core_pickle_take(PyObject *buffer, struct core_pickle *ret_pickle);

/* From a copy of the bytes, and from where they lie (which must stay until this returns). */
PyObject *core_unpickle(struct core_state *state, const void *data, size_t bytes);
PyObject *core_unpickle_in_place(struct core_state *state, const void *data, size_t bytes);

#endif
