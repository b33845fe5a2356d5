/* SPDX-License-Identifier: MIT */
/*
 * Pickling without a copy: a pickler writes frames of small things as bytes, which are gathered, and large bytes, strings and bytearrays as
 * they are, of which only views are taken.  Buffers that objects offer beside the pickle (protocol 5: NumPy, pyarrow, pandas) are viewed, too.
 * All is copied once, to where it goes.
 *
 * Arrays of NumPy.  Pickles of protocol 5 make arrays that do not own their memory, and read-only ones of read-only ones, which is not what
 * multiprocessing's do.  So small arrays are pickled as by protocol 4, and only large ones offer a buffer.
 */
#include "sink.h"

#include "arrays.h"

#include <string.h>

enum { PIECE_BYTES = 32 * 1024 };

static _Thread_local struct sink *current;

struct sink *core_sink_open(struct sink *sink)
{
    struct sink *before = current;

    current = sink;
    return before;
}

void core_sink_close(struct sink *before)
{
    current = before;
}

int core_sink_is_open(enum sink_purpose *ret_purpose)
{
    if (current == NULL)
        return 0;
    *ret_purpose = current->purpose;
    return 1;
}

/* ---- growing ---- */

/* One more element of `size`; memory moves.  -1 with MemoryError. */
static int grow(void *array, size_t *room, size_t wanted, size_t size)
{
    void **memory = array;
    size_t more = *room != 0 ? *room : 4;

    while (more < wanted)
        more *= 2;
    if (wanted <= *room)
        return 0;
    void *grown = PyMem_Realloc(*memory, more * size);
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *memory = grown;
    *room = more;
    return 0;
}

static int add_small(struct sink *sink, const void *data, size_t bytes)
{
    if (grow(&sink->small, &sink->small_room, sink->small_bytes + bytes, 1) < 0)
        return -1;
    memcpy(sink->small + sink->small_bytes, data, bytes);
    sink->small_bytes += bytes;
    return 0;
}

/* Takes the view. */
static int add_piece(struct sink *sink, Py_buffer *view)
{
    if (grow(&sink->pieces, &sink->piece_room, sink->piece_count + 1, sizeof *sink->pieces) < 0) {
        PyBuffer_Release(view);
        return -1;
    }
    sink->pieces[sink->piece_count++] = (struct sink_piece){*view, sink->small_bytes};
    return 0;
}

int core_sink_add(struct sink *sink, const Py_buffer *view, struct core_holding *holding)
{
    if (grow(&sink->parts, &sink->part_room, sink->part_count + 1, sizeof *sink->parts) < 0)
        return -1;
    sink->parts[sink->part_count++] = (struct sink_part){.view = *view, .holding = holding};
    return 0;
}

int core_sink_append(struct sink *sink, const void *data, size_t bytes)
{
    if (add_small(sink, data, bytes) < 0)
        return -1;
    sink->pickle_bytes += bytes;
    return 0;
}

static PyObject *write_bytes(PyObject *self, PyObject *data)
{
    struct sink *sink = (struct sink *)self;
    Py_buffer view;

    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t bytes = view.len;
    int error = 0;
    if (bytes >= PIECE_BYTES) {
        error = add_piece(sink, &view);
    } else {
        error = add_small(sink, view.buf, (size_t)bytes);
        PyBuffer_Release(&view);
    }
    sink->pickle_bytes += (size_t)bytes;
    return error < 0 ? NULL : PyLong_FromSsize_t(bytes);
}

/* buffer_callback(PickleBuffer): true: it goes into the pickle. */
static PyObject *offer(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    struct sink *sink = (struct sink *)self;
    PyObject *buffer;
    Py_buffer view;

    (void)keywords;
    if (!PyArg_ParseTuple(arguments, "O:offer", &buffer) ||
        PyObject_GetBuffer(buffer, &view, PyBUF_FULL_RO) < 0)
        return NULL;
    if (view.len < CORE_LARGE_BYTES && !bri_arena_holds(view.buf, 1)) {
        PyBuffer_Release(&view);
        Py_RETURN_TRUE;
    }
    if (core_sink_add(sink, &view, NULL) < 0) {
        PyBuffer_Release(&view);
        return NULL;
    }
    Py_RETURN_FALSE;
}

/* ---- arrays ---- */

/* Of an array's attribute; 0 when it has none. */
static Py_ssize_t get_size(PyObject *array, const char *name)
{
    PyObject *value = PyObject_GetAttrString(array, name);
    Py_ssize_t size = value != NULL ? PyLong_AsSsize_t(value) : -1;

    Py_XDECREF(value);
    return size;
}

/* brood._arrays.reduce(array) → what it is reduced to when it lies in shared memory, else None. */
static PyObject *reduce_shared(PyObject *array)
{
    PyObject *module = PyImport_ImportModule("brood._arrays");
    PyObject *reduced = module != NULL ? PyObject_CallMethod(module, "reduce", "O", array) : NULL;

    Py_XDECREF(module);
    return reduced;
}

/* Only for picklers that write to a sink. */
static PyObject *reduce_array(PyObject *module, PyObject *array)
{
    Py_ssize_t bytes = get_size(array, "nbytes");

    (void)module;
    if (bytes < 0)
        return NULL;
    if (core_holding_has_shared() && current != NULL && current->purpose != SINK_SNAPSHOT) {
        PyObject *reduced = reduce_shared(array);
        if (reduced != Py_None)
            return reduced;
        Py_DECREF(reduced);
    }
    return PyObject_CallMethod(array, "__reduce_ex__", "i", bytes >= CORE_LARGE_BYTES ? 5 : 4);
}

/* In this pickler alone, and unless the program has a reducer of its own. */
static int teach_arrays(struct core_state *state, PyObject *pickler)
{
    PyObject *type = core_array_type(state), *table;

    if (type == NULL)
        return 0;
    table = PyObject_GetAttrString(pickler, "dispatch_table");
    if (table == NULL)
        return -1;
    int error = 0;
    if (PyDict_CheckExact(table) && core_arrays_are_ours(state, table) &&
        core_arrays_are_ours(state, state->copyreg_table))
        error = PyDict_SetItem(table, type, state->reduce_array);
    if (PyErr_Occurred())
        error = -1;
    Py_DECREF(table);
    return error;
}

static PyObject *arrays_are_ours(PyObject *module, PyObject *unused)
{
    struct core_state *state = PyModule_GetState(module);

    (void)unused;
    int are_ours = core_array_type(state) != NULL && core_no_reducer_applies(state);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(are_ours);
}

/* The reducer of arrays for all other picklers of multiprocessing, which is brood._arrays' own. */
static PyObject *set_elsewhere(PyObject *module, PyObject *reducer)
{
    struct core_state *state = PyModule_GetState(module);

    Py_XSETREF(state->reduce_elsewhere, Py_NewRef(reducer));
    Py_RETURN_NONE;
}

/* ---- the type ---- */

struct sink *core_sink_new(struct core_state *state, enum sink_purpose purpose)
{
    struct sink *sink = (struct sink *)PyType_GenericAlloc((PyTypeObject *)state->sink_type, 0);

    if (sink != NULL)
        sink->purpose = purpose;
    return sink;
}

static PyObject *make_pickler(struct core_state *state, struct sink *sink)
{
    PyObject *arguments[] = {(PyObject *)sink, PyLong_FromLong(5), Py_True, (PyObject *)sink};
    PyObject *pickler = PyObject_Vectorcall(state->forking_pickler, arguments, 4, NULL);

    Py_XDECREF(arguments[1]);
    if (pickler != NULL && teach_arrays(state, pickler) < 0)
        Py_CLEAR(pickler);
    return pickler;
}

static int dump(struct core_state *state, struct sink *sink, PyObject *object)
{
    PyObject *pickler = make_pickler(state, sink), *name = PyUnicode_InternFromString("dump"), *done = NULL;
    struct sink *before = core_sink_open(sink);

    if (pickler != NULL && name != NULL)
        done = PyObject_CallMethodOneArg(pickler, name, object);
    core_sink_close(before);
    Py_XDECREF(name);
    Py_XDECREF(pickler);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

struct sink *core_sink_make(struct core_state *state, PyObject *object, enum sink_purpose purpose)
{
    struct sink *sink = core_sink_new(state, purpose);
    if (sink != NULL && dump(state, sink, object) < 0)
        Py_CLEAR(sink);
    return sink;
}

void core_sink_strip(struct sink *sink)
{
    for (size_t i = 0; i < sink->piece_count; i++)
        PyBuffer_Release(&sink->pieces[i].view);
    sink->piece_count = 0;
    for (size_t i = 0; i < sink->part_count; i++)
        PyBuffer_Release(&sink->parts[i].view);
    PyMem_Free(sink->small);
    sink->small = NULL;
}

static void dealloc(PyObject *self)
{
    struct sink *sink = (struct sink *)self;
    PyTypeObject *type = Py_TYPE(self);

    core_sink_strip(sink);
    for (size_t i = 0; i < sink->part_count; i++)
        core_holding_drop(sink->parts[i].holding);
    core_holding_drop(sink->box);
    PyMem_Free(sink->pieces);
    PyMem_Free(sink->parts);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"write", write_bytes, METH_O, "write($self, data, /)\n--\n\nFor a pickler: it is a file."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "What a pickler writes to, and calls with buffers."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_tp_call, offer},
    {0, NULL},
};

static PyType_Spec spec = {.name = "brood._core._Sink",
                           .basicsize = sizeof(struct sink),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                           .slots = slots};

static PyMethodDef functions[] = {
    {"_reduce_array", reduce_array, METH_O, "_reduce_array(array, /)\n--\n\nThe reducer of NumPy's arrays."},
    {"_arrays_are_ours", arrays_are_ours, METH_NOARGS,
     "_arrays_are_ours()\n--\n\nNumPy is there, and the program has no reducer of arrays of its own."},
    {"_set_elsewhere", set_elsewhere, METH_O,
     "_set_elsewhere(reducer, /)\n--\n\nTheir reducer in other picklers."},
    {NULL, NULL, 0, NULL},
};

int core_add_sink(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);

    if (PyModule_AddFunctions(module, functions) < 0 || core_add_type(module, &spec, &state->sink_type) < 0)
        return -1;
    state->reduce_array = PyObject_GetAttrString(module, "_reduce_array");
    return state->reduce_array != NULL ? 0 : -1;
}
