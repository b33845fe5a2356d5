/* SPDX-License-Identifier: MIT */
/*
 * Arrays of NumPy that lie in shared memory, on their way without a pickler: plain.c writes and reads what they are reduced to, which is
 * brood._arrays._lying(buffer, dtype, shape, order), and their memory is a reference beside the pickle, as in every letter.
 *
 * Only what is most common: exactly of the type ndarray, in one piece, writable, of a dtype that is the one of its name (numbers and their like in
 * this machine's order, not records), and not when the program has a reducer of its own.  All others are brood._arrays.reduce's.
 */
#include "arrays.h"

#include "plain.h"

/* numpy.ndarray and numpy.dtype, once the program has imported NumPy. */
static int have_types(struct core_state *state)
{
    if (state->array_type != NULL)
        return 1;
    PyObject *numpy = PyDict_GetItemString(PyImport_GetModuleDict(), "numpy"); /* borrowed */
    if (numpy == NULL)
        return 0;
    PyObject *dtype = PyObject_GetAttrString(numpy, "dtype");
    PyObject *array = PyObject_GetAttrString(numpy, "ndarray");
    PyErr_Clear();
    if (dtype != NULL && array != NULL) { /* it is imported to the end */
        Py_XSETREF(state->dtype_type, Py_NewRef(dtype));
        Py_XSETREF(state->array_type, Py_NewRef(array));
    }
    Py_XDECREF(dtype);
    Py_XDECREF(array);
    return state->array_type != NULL;
}

PyObject *core_array_type(struct core_state *state)
{
    return have_types(state) ? state->array_type : NULL;
}

int core_arrays_are_ours(struct core_state *state, PyObject *table)
{
    PyObject *reducer = PyDict_GetItemWithError(table, state->array_type); /* borrowed */

    return (reducer == NULL && !PyErr_Occurred()) || (reducer != NULL && reducer == state->reduce_elsewhere);
}

/* ---- writing ---- */

int core_no_reducer_applies(struct core_state *state)
{
    PyObject *extra = PyObject_GetAttrString(state->forking_pickler, "_extra_reducers");
    int is_ours = extra != NULL && PyDict_CheckExact(extra) && core_arrays_are_ours(state, extra) &&
                  PyDict_CheckExact(state->copyreg_table) &&
                  core_arrays_are_ours(state, state->copyreg_table);

    Py_XDECREF(extra);
    return is_ours;
}

/* dtype.str, a new reference, where numpy.dtype(dtype.str) is that very dtype; else NULL.  The last one is remembered. */
static PyObject *name_of(struct core_state *state, PyObject *dtype)
{
#ifndef Py_GIL_DISABLED
    if (dtype == state->last_dtype)
        return Py_NewRef(state->last_dtype_name);
#endif
    PyObject *name = PyObject_GetAttrString(dtype, "str");
    PyObject *same = name != NULL ? PyObject_CallOneArg(state->dtype_type, name) : NULL;
    int is_same = same == dtype;
    Py_XDECREF(same);
    if (!is_same) {
        Py_XDECREF(name);
        return NULL;
    }
#ifndef Py_GIL_DISABLED
    Py_XSETREF(state->last_dtype, Py_NewRef(dtype));
    Py_XSETREF(state->last_dtype_name, Py_NewRef(name));
#endif
    return name;
}

static PyObject *shape_of(const Py_buffer *view)
{
    PyObject *shape = PyTuple_New(view->ndim);

    for (int i = 0; shape != NULL && i < view->ndim; i++) {
        PyObject *length = PyLong_FromSsize_t(view->shape[i]);
        if (length == NULL)
            Py_CLEAR(shape);
        else
            PyTuple_SET_ITEM(shape, i, length);
    }
    return shape;
}

static PyObject *describe(struct core_state *state, PyObject *array, const Py_buffer *view)
{
    PyObject *dtype = PyObject_GetAttrString(array, "dtype");
    PyObject *name = dtype != NULL ? name_of(state, dtype) : NULL;
    PyObject *shape = name != NULL ? shape_of(view) : NULL;
    PyObject *arguments = NULL;

    if (shape != NULL)
        arguments = Py_BuildValue("OOs", name, shape, PyBuffer_IsContiguous(view, 'C') ? "C" : "F");
    Py_XDECREF(dtype);
    Py_XDECREF(name);
    Py_XDECREF(shape);
    return arguments;
}

/* Takes the view, and what it lies in, for the sink. */
static int take_part(struct core_plain_arrays *arrays, Py_buffer *view)
{
    struct core_holding *holding = core_holding_find(view->buf, (size_t)view->len);

    if (holding == NULL)
        return 0;
    if (arrays->sink == NULL)
        arrays->sink = core_sink_new(arrays->state, arrays->purpose);
    if (arrays->sink != NULL && core_sink_add(arrays->sink, view, holding) == 0)
        return 1;
    core_holding_drop(holding);
    return 0;
}

PyObject *core_array_reduce(struct core_plain_arrays *arrays, PyObject *array)
{
    Py_buffer view;
    PyObject *arguments = NULL;

    if (!core_no_reducer_applies(arrays->state) ||
        PyObject_GetBuffer(array, &view, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE) < 0)
        return NULL;
    if (view.len > 0)
        arguments = describe(arrays->state, array, &view);
    if (arguments == NULL || !take_part(arrays, &view)) {
        Py_XDECREF(arguments);
        PyBuffer_Release(&view);
        return NULL;
    }
    return arguments;
}

/* ---- reading ---- */

PyObject *core_array_rebuild(struct core_state *state, PyObject *arguments)
{
    if (PyTuple_GET_SIZE(arguments) != 4)
        return NULL;
    PyObject *const *given = ((PyTupleObject *)arguments)->ob_item;
    PyObject *zero = PyLong_FromLong(0);
    PyObject *all[] = {given[2], given[1], given[0], zero, Py_None, given[3]};
    PyObject *array = zero != NULL ? PyObject_Vectorcall(state->array_type, all, 6, NULL) : NULL;

    Py_XDECREF(zero);
    return array;
}
