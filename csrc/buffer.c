/* SPDX-License-Identifier: MIT */
/* Buffer: large data as an object with the buffer protocol; arrays lie in it, and it lives as long as they do. */
#include "bulk.h"

#include <string.h>

#include "arena/undertaker.h"
#include "sink.h"

/* One of holding, home and own says where the memory is from. */
struct buffer {
    PyObject_HEAD struct core_holding *holding;
    PyObject *home; /* the Buffer of which this is a part */
    void *own;      /* PyMem */
    void *apart;    /* a private view of the holding's data, or NULL */
    char *data;
    Py_ssize_t bytes;
    char is_read_only;
    char
        is_frozen; /* says that it is read-only, and is writable to who insists: what came from read-only memory and is the receiver's own */
};

static struct buffer *make(struct core_state *state)
{
    return (struct buffer *)PyType_GenericAlloc((PyTypeObject *)state->buffer_type, 0);
}

/* Takes the holding. */
static int fill(struct buffer *buffer, struct core_holding *holding, uint64_t at, uint64_t bytes)
{
    buffer->holding = holding;
    core_holding_export(holding, 1);
    buffer->data = (char *)bri_bulk_data(holding->bulk) + at;
    buffer->bytes = (Py_ssize_t)bytes;
    return 0;
}

/* Small data is copied: it has no pages of its own. */
static int set_apart(struct buffer *buffer, uint64_t at)
{
    struct bri_bulk_shm *bulk = buffer->holding->bulk;

    if (bri_bulk_has_pages(bulk)) {
        int error = bri_bulk_map(bulk, &buffer->apart);
        if (error < 0) {
            core_raise(error);
            return -1;
        }
        buffer->data = (char *)buffer->apart + at;
        return 0;
    }
    buffer->own = PyMem_Malloc((size_t)buffer->bytes + 1);
    if (buffer->own == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    buffer->data = memcpy(buffer->own, buffer->data, (size_t)buffer->bytes);
    return 0;
}

PyObject *core_buffer_of(struct core_state *state, struct core_holding *holding, uint64_t at, uint64_t bytes,
                         enum core_view view)
{
    struct buffer *buffer = make(state);

    if (buffer == NULL) {
        core_holding_drop(holding);
        return NULL;
    }
    fill(buffer, holding, at, bytes);
    buffer->is_read_only = view == CORE_VIEW_READ_ONLY;
    buffer->is_frozen = view == CORE_VIEW_FROZEN;
    if (view == CORE_VIEW_APART && set_apart(buffer, at) < 0)
        Py_CLEAR(buffer);
    return (PyObject *)buffer;
}

PyObject *core_buffer_part(struct core_state *state, PyObject *home, uint64_t at, uint64_t bytes,
                           int is_frozen)
{
    struct buffer *buffer = make(state), *whole = (struct buffer *)home;

    if (buffer == NULL)
        return NULL;
    buffer->home = Py_NewRef(home);
    buffer->data = whole->data + at;
    buffer->bytes = (Py_ssize_t)bytes;
    buffer->is_read_only = whole->is_read_only;
    buffer->is_frozen = (char)is_frozen;
    return (PyObject *)buffer;
}

PyObject *core_buffer_copy(struct core_state *state, const void *data, size_t bytes, int is_frozen)
{
    struct buffer *buffer = make(state);

    if (buffer == NULL)
        return NULL;
    buffer->own = PyMem_Malloc(bytes + 1);
    if (buffer->own == NULL) {
        Py_DECREF(buffer);
        return PyErr_NoMemory();
    }
    buffer->data = memcpy(buffer->own, data, bytes);
    buffer->bytes = (Py_ssize_t)bytes;
    buffer->is_frozen = (char)is_frozen;
    return (PyObject *)buffer;
}

struct core_holding *core_buffer_holding(PyObject *buffer)
{
    return ((struct buffer *)buffer)->holding;
}

/* ---- the type ---- */

/* Buffer(size, zeroed): new shared data. */
static PyObject *new_buffer(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"size", "zeroed", NULL};
    struct core_holding *holding;
    Py_ssize_t bytes;
    int is_zeroed = 0;

    (void)type;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "n|p:Buffer", names, &bytes, &is_zeroed))
        return NULL;
    if (bytes < 0)
        return PyErr_Format(PyExc_ValueError, "size must not be negative, not %zd", bytes);
    int error = core_holding_create((size_t)bytes, BRI_BULK_SHARED, is_zeroed, &holding);
    if (error < 0)
        return core_raise(error);
    return core_buffer_of(PyType_GetModuleState(type), holding, 0, (uint64_t)bytes, CORE_VIEW_OWN);
}

static void dealloc(PyObject *self)
{
    struct buffer *buffer = (struct buffer *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (buffer->apart != NULL)
        bri_bulk_unmap(buffer->holding->bulk, buffer->apart);
    if (buffer->holding != NULL) {
        core_holding_export(buffer->holding, -1);
        core_holding_drop(buffer->holding);
    }
    PyMem_Free(buffer->own);
    Py_XDECREF(buffer->home);
    type->tp_free(self);
    Py_DECREF(type);
}

static int get_buffer(PyObject *self, Py_buffer *view, int flags)
{
    struct buffer *buffer = (struct buffer *)self;
    int is_read_only = buffer->is_read_only || (buffer->is_frozen && !(flags & PyBUF_WRITABLE));

    return PyBuffer_FillInfo(view, self, buffer->data, buffer->bytes, is_read_only, flags);
}

static Py_ssize_t length(PyObject *self)
{
    return ((struct buffer *)self)->bytes;
}

/* What a pickle of this thread refers to is appended to this list, by whose owner it is held as long as the pickle is of use; or NULL. */
static _Thread_local PyObject *held;

static PyObject *refer(struct core_state *state, const struct buffer *buffer, int is_expected)
{
    struct bri_bulk_shm *bulk = buffer->holding->bulk;

    return Py_BuildValue("O(KKKKi)", state->open_buffer, (unsigned long long)bri_offset_of(bulk),
                         (unsigned long long)bri_load_relaxed(&bulk->serial),
                         (unsigned long long)(buffer->data - (char *)bri_bulk_data(bulk)),
                         (unsigned long long)buffer->bytes, is_expected);
}

/* In a letter: a reference.  Elsewhere, as for a process that is being started: it may never be opened, and then the data lives as long as
 * the arena. */
static PyObject *reduce(PyObject *self, PyObject *protocol)
{
    struct core_state *state = core_state_of(self);
    struct buffer *buffer = (struct buffer *)self;

    enum sink_purpose purpose;
    int is_letter = core_sink_is_open(&purpose) && PyLong_AsLong(protocol) >= 5;

    if (is_letter && purpose != SINK_SNAPSHOT) {
        PyObject *picklable = PyPickleBuffer_FromObject(self);
        return picklable != NULL ? Py_BuildValue("O(N)", state->take_buffer, picklable) : NULL;
    }
    if (is_letter || buffer->holding == NULL || !(buffer->holding->bulk->flags & BRI_BULK_SHARED) ||
        buffer->apart != NULL) {
        PyErr_SetString(PyExc_TypeError, "a Buffer is shared as it is, and not as a part of what is");
        return NULL;
    }
    if (held != NULL)
        return PyList_Append(held, self) < 0 ? NULL : refer(state, buffer, 0);
    bri_bulk_expect(buffer->holding->bulk);
    return refer(state, buffer, 1);
}

static PyObject *open_buffer(PyObject *module, PyObject *arguments)
{
    unsigned long long offset, serial, at, bytes;
    struct core_holding *holding;
    int is_expected;

    if (!PyArg_ParseTuple(arguments, "KKKKi:_open_buffer", &offset, &serial, &at, &bytes, &is_expected))
        return NULL;
    struct bri_ref_shm ref = {.bulk = offset, .serial = serial, .at = at, .bytes = bytes};
    int error = core_holding_open(&ref, 0, &holding);
    if (error < 0)
        return core_raise(error);
    if (is_expected)
        bri_bulk_unexpect(holding->bulk);
    return core_buffer_of(PyModule_GetState(module), holding, at, bytes, CORE_VIEW_OWN);
}

/* hold(list or None) → what it was: see `held`. */
static PyObject *hold(PyObject *module, PyObject *list)
{
    PyObject *before = held != NULL ? held : Py_NewRef(Py_None);

    (void)module;
    held = list != Py_None ? Py_NewRef(list) : NULL;
    return before;
}

static PyObject *is_holding(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(held != NULL);
}

static PyObject *take_buffer(PyObject *module, PyObject *buffer)
{
    (void)module;
    return Py_NewRef(buffer);
}

/* The shared data that begins at an address and is so long: (Buffer of all of it, where in it); None: it is no shared data. */
static PyObject *home_of(PyObject *module, PyObject *arguments)
{
    unsigned long long address, bytes;

    if (!PyArg_ParseTuple(arguments, "KK:_home_of", &address, &bytes))
        return NULL;
    const char *memory = (const char *)(uintptr_t)address;
    struct core_holding *holding = core_holding_find(memory, bytes);
    if (holding == NULL)
        Py_RETURN_NONE;
    unsigned long long at = (unsigned long long)(memory - (char *)bri_bulk_data(holding->bulk));
    PyObject *buffer =
        core_buffer_of(PyModule_GetState(module), holding, 0, holding->bulk->bytes, CORE_VIEW_OWN);
    return buffer != NULL ? Py_BuildValue("NK", buffer, at) : NULL;
}

static PyObject *bulk_counts(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return Py_BuildValue("{sKsKsK}", "copied_bytes",
                         (unsigned long long)bri_load_relaxed(&core_counts.copied_bytes), "bulks_made",
                         (unsigned long long)bri_load_relaxed(&core_counts.bulks_made), "references",
                         (unsigned long long)bri_load_relaxed(&core_counts.references));
}

static PyObject *sweep(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (bri_arena_current != NULL && bri_arena_enter() == 0) {
        core_lock_table();
        core_holdings_look_after_births();
        core_unlock_table();
        bri_bury_the_ended();
        bri_bulk_sweep();
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"_sweep", sweep, METH_NOARGS,
     "_sweep()\n--\n\nGives large data back that was lost with a process or a message."},
    {"_open_buffer", open_buffer, METH_VARARGS,
     "_open_buffer(offset, serial, at, bytes, is_expected, /)\n--\n\nUnpickles."},
    {"_hold", hold, METH_O,
     "_hold(buffers, /)\n--\n\nThe list to which this thread's picklers append what their pickles refer to."},
    {"_is_holding", is_holding, METH_NOARGS, "_is_holding()\n--\n\nIs there such a list?"},
    {"_take_buffer", take_buffer, METH_O, "_take_buffer(buffer, /)\n--\n\nUnpickles."},
    {"_home_of", home_of, METH_VARARGS,
     "_home_of(address, bytes, /)\n--\n\n(Buffer, where in it) of shared data, or None."},
    {"_bulk_counts", bulk_counts, METH_NOARGS,
     "_bulk_counts()\n--\n\nWhat this process has done with large data: bytes copied, bulks made, references "
     "sent."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef methods[] = {
    {"__reduce_ex__", reduce, METH_O, "Pickles as a reference: the data is shared, not copied."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Buffer(size, zeroed=False)\n--\n\nLarge data in shared memory, for arrays to lie in."},
    {Py_tp_new, new_buffer},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_sq_length, length},
    {Py_bf_getbuffer, get_buffer},
    {0, NULL},
};

static PyType_Spec spec = {.name = "brood._core.Buffer",
                           .basicsize = sizeof(struct buffer),
                           .flags = Py_TPFLAGS_DEFAULT,
                           .slots = slots};

int core_add_buffer(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);

    if (PyModule_AddFunctions(module, functions) < 0 || core_add_type(module, &spec, &state->buffer_type) < 0)
        return -1;
    state->open_buffer = PyObject_GetAttrString(module, "_open_buffer");
    state->take_buffer = PyObject_GetAttrString(module, "_take_buffer");
    return state->open_buffer != NULL && state->take_buffer != NULL ? 0 : -1;
}
