/* SPDX-License-Identifier: MIT */
/* Objects to bytes and back. */
#ifndef BROOD_PICKLING_H
#define BROOD_PICKLING_H

#include "sink.h"

/* The pickle of an object, until core_pickle_free. */
struct core_pickle {
    void *data; /* NULL: it is in pieces, which core_pickle_write puts together */
    size_t bytes;
    PyObject *owner;   /* bytes, or a sink, or NULL: `view` */
    struct sink *sink; /* the owner, of one in pieces */
    Py_buffer view;
};

/* 0, or -1 with the exception of the pickler, or MemoryError. */
int core_pickle_make(struct core_state *state, PyObject *object, enum sink_purpose purpose,
                     struct core_pickle *ret_pickle);
void core_pickle_free(struct core_pickle *pickle);

/* All of it is of builtin types: no name is in it, no reducer was asked. */
int core_pickle_is_plain(const struct core_pickle *pickle);

/* All its bytes to where there is room for them. */
void core_pickle_write(const struct core_pickle *pickle, void *to);

/* What has to live as long as what was written is needed; NULL: nothing.  A new reference; the pickle cannot be written again. */
PyObject *core_pickle_keep(const struct core_pickle *pickle);

/* Of a sink that was written to, and of what holds bytes; steals it. */
int core_pickle_take_sink(struct sink *sink, struct core_pickle *ret_pickle);
int core_pickle_take(PyObject *buffer, struct core_pickle *ret_pickle);

/* From a copy of the bytes, and from where they lie (which must stay until this returns). */
PyObject *core_unpickle(struct core_state *state, const void *data, size_t bytes);
PyObject *core_unpickle_in_place(struct core_state *state, const void *data, size_t bytes);

#endif
