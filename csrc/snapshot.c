/* SPDX-License-Identifier: MIT */
/* An object with all its data in one piece of shared memory, for Pool.share: written once, read where it lies by all. */
#include "pickling.h"

/* snapshot(object) → a Buffer that holds its letter. */
static PyObject *make_snapshot(PyObject *module, PyObject *object)
{
    struct core_state *state = PyModule_GetState(module);
    struct sink *sink = core_sink_make(state, object, SINK_SNAPSHOT);
    struct core_holding *holding = NULL;

    if (sink == NULL || core_sink_seal(sink) < 0) {
        Py_XDECREF(sink);
        return NULL;
    }
    size_t bytes = core_sink_bytes(sink);
    int error = core_holding_create(bytes, BRI_BULK_SHARED, 0, &holding);
    if (error == 0)
        core_sink_write(sink, bri_bulk_data(holding->bulk));
    Py_DECREF(sink);
    return error < 0 ? core_raise(error) : core_buffer_of(state, holding, 0, bytes, CORE_VIEW_OWN);
}

/* The snapshot as the object sees it: arrays that are writable for all, for this one object alone, or not at all. */
static PyObject *view_snapshot(struct core_state *state, PyObject *snapshot, enum core_view view)
{
    struct core_holding *holding = core_buffer_holding(snapshot);

    if (holding == NULL)
        return PyErr_Format(PyExc_ValueError, "the Buffer is no snapshot");
    core_holding_take(holding);
    return core_buffer_of(state, holding, 0, holding->bulk->bytes, view);
}

/* look(snapshot, view) → the object. */
static PyObject *look(PyObject *module, PyObject *arguments)
{
    struct core_state *state = PyModule_GetState(module);
    PyObject *snapshot, *object = NULL;
    Py_buffer view;
    int kind;

    if (!PyArg_ParseTuple(arguments, "O!i:_look", state->buffer_type, &snapshot, &kind))
        return NULL;
    PyObject *home = view_snapshot(state, snapshot, (enum core_view)kind);
    if (home != NULL && PyObject_GetBuffer(home, &view, PyBUF_SIMPLE) == 0) {
        object = core_letter_load(state, view.buf, (size_t)view.len, home);
        PyBuffer_Release(&view);
    }
    Py_XDECREF(home);
    return object;
}

static PyMethodDef functions[] = {
    {"_snapshot", make_snapshot, METH_O,
     "_snapshot(object, /)\n--\n\nA Buffer that holds all of the object."},
    {"_look", look, METH_VARARGS, "_look(snapshot, view, /)\n--\n\nThe object of a snapshot."},
    {NULL, NULL, 0, NULL},
};

int core_add_snapshot(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "VIEW_SHARED", CORE_VIEW_OWN) < 0 ||
        PyModule_AddIntConstant(module, "VIEW_READ_ONLY", CORE_VIEW_READ_ONLY) < 0 ||
        PyModule_AddIntConstant(module, "VIEW_PRIVATE", CORE_VIEW_APART) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
