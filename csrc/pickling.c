/* SPDX-License-Identifier: MIT */
/* Objects to bytes and back: without a pickler where that can be (plain.c), the pickler in C where no reducer can apply, ForkingPickler elsewhere. */
#include "pickling.h"

#include "plain.h"

/* So many objects are looked at, at most, before ForkingPickler is taken: the look must stay cheap beside the pickling. */
enum { LOOKS = 64, DEPTH = 4 };

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

/* Exactly of a builtin type whose pickling is built into the pickler, before it looks for reducers. */
static int is_plain(PyObject *object, int depth, int *looks)
{
    if (--*looks < 0)
        return 0;
    if (object == Py_None || PyLong_CheckExact(object) || PyUnicode_CheckExact(object) ||
        PyBytes_CheckExact(object) || PyFloat_CheckExact(object) || PyBool_Check(object))
        return 1;
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

int core_pickle_make(struct core_state *state, PyObject *object, struct core_pickle *ret_pickle)
{
    int looks = LOOKS;
    PyObject *bytes = core_plain_dumps(object);

    if (bytes != NULL) {
        *ret_pickle = (struct core_pickle){
            .data = PyBytes_AS_STRING(bytes), .bytes = (size_t)PyBytes_GET_SIZE(bytes), .owner = bytes};
        return 0;
    }
    if (is_plain(object, DEPTH, &looks))
        return make_plain(state, object, ret_pickle);
    PyObject *buffer = PyObject_CallOneArg(state->forking_dumps, object);
    return buffer != NULL ? core_pickle_take(buffer, ret_pickle) : -1;
}

int core_pickle_take(PyObject *buffer, struct core_pickle *ret_pickle)
{
    int error = PyObject_GetBuffer(buffer, &ret_pickle->view, PyBUF_SIMPLE);
    Py_DECREF(buffer); /* the view keeps it */
    if (error < 0)
        return -1;
    ret_pickle->owner = NULL;
    ret_pickle->data = ret_pickle->view.buf;
    ret_pickle->bytes = (size_t)ret_pickle->view.len;
    return 0;
}

int core_pickle_is_plain(const struct core_pickle *pickle)
{
    return pickle->owner != NULL;
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
    PyObject *plain = core_plain_loads(data, bytes);

    if (plain != NULL || PyErr_Occurred())
        return plain;
    PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes);
    PyObject *object = copy != NULL ? PyObject_CallOneArg(state->plain_loads, copy) : NULL;

    Py_XDECREF(copy);
    return object;
}

PyObject *core_unpickle_in_place(struct core_state *state, const void *data, size_t bytes)
{
    PyObject *plain = core_plain_loads(data, bytes);

    if (plain != NULL || PyErr_Occurred())
        return plain;
    PyObject *view = PyMemoryView_FromMemory((char *)(uintptr_t)data, (Py_ssize_t)bytes, PyBUF_READ);
    PyObject *object = view != NULL ? PyObject_CallOneArg(state->plain_loads, view) : NULL;

    Py_XDECREF(view);
    return object;
}
