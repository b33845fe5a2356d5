/* SPDX-License-Identifier: MIT */
/* Objects to bytes and back: without a pickler where that can be (plain.c), the pickler in C where no reducer can apply, ForkingPickler elsewhere. */
#include "pickling.h"

#include <string.h>

#include "arrays.h"
#include "plain.h"

/* So many objects are looked at, at most, before ForkingPickler is taken: the look must stay cheap beside the pickling. */
enum { LOOKS = 64, DEPTH = 4, LONG = 32 * 1024 };

static int is_plain(PyObject *object, int depth, int *looks);

static int items_are_plain(PyObject *const *items, Py_ssize_t count, int depth, int *looks)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (!is_plain(items[i], depth, looks))
            return 0;
    return 1;
}

static int dict_is_plain(PyObject *dict, int depth, int *looks)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;

    while (PyDict_Next(dict, &position, &key, &value))
        if (!is_plain(key, depth, looks) || !is_plain(value, depth, looks))
            return 0;
    return 1;
}

/* Exactly of a builtin type whose pickling is built into the pickler, before it looks for reducers; and not so long that it is worth
 * while to copy it once only, as sinks do. */
static int is_plain(PyObject *object, int depth, int *looks)
{
    if (--*looks < 0)
        return 0;
    if (object == Py_None || PyLong_CheckExact(object) || PyFloat_CheckExact(object) || PyBool_Check(object))
        return 1;
    if (PyUnicode_CheckExact(object))
        return PyUnicode_GET_LENGTH(object) < LONG;
    if (PyBytes_CheckExact(object))
        return PyBytes_GET_SIZE(object) < LONG;
    if (depth == 0)
        return 0;
    if (PyTuple_CheckExact(object))
        return items_are_plain(((PyTupleObject *)object)->ob_item, PyTuple_GET_SIZE(object), depth - 1,
                               looks);
#ifdef Py_GIL_DISABLED
    return 0; /* another thread may change a list or a dict while we look */
#endif
    if (PyList_CheckExact(object))
        return items_are_plain(((PyListObject *)object)->ob_item, PyList_GET_SIZE(object), depth - 1, looks);
    return PyDict_CheckExact(object) && dict_is_plain(object, depth - 1, looks);
}

static int make_plain(struct core_state *state, PyObject *object, struct core_pickle *ret_pickle)
{
    PyObject *bytes = PyObject_CallOneArg(state->plain_dumps, object);

    if (bytes == NULL)
        return -1;
    *ret_pickle = (struct core_pickle){
        .data = PyBytes_AS_STRING(bytes), .bytes = (size_t)PyBytes_GET_SIZE(bytes), .owner = bytes};
    return 0;
}

int core_pickle_take_sink(struct sink *sink, struct core_pickle *ret_pickle)
{
    *ret_pickle = (struct core_pickle){.owner = (PyObject *)sink};
    if (sink->piece_count == 0 && sink->part_count == 0) {
        ret_pickle->data = sink->small;
        ret_pickle->bytes = sink->small_bytes;
        return 0;
    }
    if (core_sink_seal(sink) < 0) {
        Py_DECREF(sink);
        return -1;
    }
    ret_pickle->sink = sink;
    ret_pickle->bytes = core_sink_bytes(sink);
    return 0;
}

/* Steals both. */
static int take_arrays(struct sink *sink, PyObject *bytes, struct core_pickle *ret_pickle)
{
    int error = core_sink_append(sink, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));

    Py_DECREF(bytes);
    if (error == 0)
        return core_pickle_take_sink(sink, ret_pickle);
    Py_DECREF(sink);
    return -1;
}

int core_pickle_make(struct core_state *state, PyObject *object, enum sink_purpose purpose,
                     struct core_pickle *ret_pickle)
{
    int looks = LOOKS;
    struct core_plain_arrays arrays = {.state = state, .purpose = purpose};
    int has_arrays = core_holding_has_shared() && purpose != SINK_SNAPSHOT && core_array_type(state) != NULL;
    PyObject *bytes = core_plain_dumps(object, has_arrays ? &arrays : NULL);

    if (arrays.sink != NULL && bytes != NULL)
        return take_arrays(arrays.sink, bytes, ret_pickle);
    Py_XDECREF(arrays.sink);
    if (bytes != NULL) {
        *ret_pickle = (struct core_pickle){
            .data = PyBytes_AS_STRING(bytes), .bytes = (size_t)PyBytes_GET_SIZE(bytes), .owner = bytes};
        return 0;
    }
    if (is_plain(object, DEPTH, &looks))
        return make_plain(state, object, ret_pickle);
    struct sink *sink = core_sink_make(state, object, purpose);
    return sink != NULL ? core_pickle_take_sink(sink, ret_pickle) : -1;
}

void core_pickle_write(const struct core_pickle *pickle, void *to)
{
    if (pickle->data != NULL)
        memcpy(to, pickle->data, pickle->bytes);
    else
        core_sink_write(pickle->sink, to);
}

PyObject *core_pickle_keep(const struct core_pickle *pickle)
{
    struct sink *sink = pickle->sink;

    if (sink == NULL || (sink->box == NULL && !core_sink_is_letter(sink)))
        return NULL;
    core_sink_strip(sink);
    return Py_NewRef(pickle->owner);
}

int core_pickle_take(PyObject *buffer, struct core_pickle *ret_pickle)
{
    int error = PyObject_GetBuffer(buffer, &ret_pickle->view, PyBUF_SIMPLE);
    Py_DECREF(buffer); /* the view keeps it */
    if (error < 0)
        return -1;
    ret_pickle->owner = NULL;
    ret_pickle->sink = NULL;
    ret_pickle->data = ret_pickle->view.buf;
    ret_pickle->bytes = (size_t)ret_pickle->view.len;
    return 0;
}

int core_pickle_is_plain(const struct core_pickle *pickle)
{
    return pickle->owner != NULL && PyBytes_CheckExact(pickle->owner);
}

void core_pickle_free(struct core_pickle *pickle)
{
    if (pickle->owner != NULL)
        Py_CLEAR(pickle->owner);
    else
        PyBuffer_Release(&pickle->view);
}

PyObject *core_unpickle(struct core_state *state, const void *data, size_t bytes)
{
    PyObject *plain = core_plain_loads(data, bytes, NULL);

    if (plain != NULL || PyErr_Occurred())
        return plain;
    if (core_letter_is(data, bytes))
        return core_letter_load(state, data, bytes, NULL);
    PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes);
    PyObject *object = copy != NULL ? PyObject_CallOneArg(state->plain_loads, copy) : NULL;

    Py_XDECREF(copy);
    return object;
}

PyObject *core_unpickle_in_place(struct core_state *state, const void *data, size_t bytes)
{
    PyObject *plain = core_plain_loads(data, bytes, NULL);

    if (plain != NULL || PyErr_Occurred())
        return plain;
    return core_letter_load(state, data, bytes, NULL);
}
