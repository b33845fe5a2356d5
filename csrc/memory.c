/* SPDX-License-Identifier: MIT */
/* Memory: a block of the arena with the buffer protocol; ctypes objects of sharedctypes lie in it. */
#include "core.h"

struct memory {
    struct core_object object;
    Py_ssize_t bytes;
    int is_whole; /* bytes is set */
};

static int init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"size", NULL};
    Py_ssize_t bytes;
    void *block = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "n:Memory", names, &bytes))
        return -1;
    if (bytes < 0) {
        PyErr_Format(PyExc_ValueError, "Size %zd out of range", bytes);
        return -1;
    }
    if (((struct core_object *)self)->lease != NULL) { /* a buffer may be exported */
        PyErr_SetString(PyExc_RuntimeError, "Memory.__init__() was called before");
        return -1;
    }
    struct core_call call = core_call_begin();
    int error = brood_alloc(bytes > 0 ? (size_t)bytes : 1, &block);
    core_call_end(call);
    if (core_object_fill(self, CORE_MEMORY, error, block) < 0)
        return -1;
    ((struct memory *)self)->bytes = bytes;
    ((struct memory *)self)->is_whole = 1;
    return 0;
}

static PyObject *reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return core_object_reduce(self, Py_BuildValue("(n)", ((struct memory *)self)->bytes));
}

/* For _rebuild, once: whoever else calls it must not make the buffer longer than the memory is. */
static PyObject *restore(PyObject *self, PyObject *arguments)
{
    Py_ssize_t bytes;
    struct memory *memory = (struct memory *)self;

    if (!PyArg_ParseTuple(arguments, "n:_restore", &bytes))
        return NULL;
    if (memory->is_whole) {
        PyErr_SetString(PyExc_ValueError, "the size of memory cannot change");
        return NULL;
    }
    memory->bytes = bytes;
    memory->is_whole = 1;
    Py_RETURN_NONE;
}

static int get_buffer(PyObject *self, Py_buffer *view, int flags)
{
    void *memory = core_object_handle(self);

    if (memory == NULL) {
        view->obj = NULL;
        return -1;
    }
    return PyBuffer_FillInfo(view, self, memory, ((struct memory *)self)->bytes, 0, flags);
}

static Py_ssize_t length(PyObject *self)
{
    return ((struct memory *)self)->bytes;
}

static PyObject *create_memoryview(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyMemoryView_FromObject(self);
}

static PyObject *get_address(PyObject *self, void *unused)
{
    void *memory = core_object_handle(self);

    (void)unused;
    return memory != NULL ? PyLong_FromVoidPtr(memory) : NULL;
}

static PyObject *get_size(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(length(self));
}

static PyMethodDef methods[] = {
    {"create_memoryview", create_memoryview, METH_NOARGS,
     "create_memoryview($self)\n--\n\nA writable memoryview of all of it."},
    {"__reduce__", reduce, METH_NOARGS, "Pickles as a reference: the memory is shared, not copied."},
    {"_restore", restore, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"address", get_address, NULL, "Where it lies, in every process.", NULL},
    {"size", get_size, NULL, "Its length in bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot memory_slots[] = {
    {Py_tp_doc, "Memory(size)\n--\n\nZeroed shared memory, aligned to 64 bytes."},
    {Py_tp_init, init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_sq_length, length},
    {Py_bf_getbuffer, get_buffer},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "brood._core.Memory",
    .basicsize = sizeof(struct memory),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = memory_slots,
};

int core_add_memory(PyObject *module)
{
    return core_add_type(module, &spec, &((struct core_state *)PyModule_GetState(module))->memory_type);
}
