/* SPDX-License-Identifier: MIT */
/*
 * Queue: objects pickled into the core's queue, by the caller itself.
 *
 * A message is a pickle.  Objects that no reducer can apply to (exact builtin types, nested a little) go to the pickler written in C
 * directly; all others to ForkingPickler, whose reducers are looked up in Python.  put_bytes and get_bytes move bytes as they are: the
 * other side may be a C program, which knows the queue by its handle.
 */
#include "queue.h"

#include <stddef.h>
#include <structmember.h>

#include "queue/queue.h"

/* ---- construction ---- */

static int init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"maxsize", NULL};
    struct queue *queue = (struct queue *)self;
    Py_ssize_t maxsize = 0;
    brood_queue *made = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|n:Queue", names, &maxsize))
        return -1;
    queue->maxsize = maxsize > 0 ? maxsize : 0;
    struct core_call call = core_call_begin();
    int error = brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = (uint64_t)queue->maxsize), &made);
    core_call_end(call);
    return core_object_fill(self, CORE_QUEUE, error, made);
}

static PyObject *reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return core_object_reduce(self, Py_BuildValue("(n)", ((struct queue *)self)->maxsize));
}

static PyObject *restore(PyObject *self, PyObject *arguments)
{
    return PyArg_ParseTuple(arguments, "n:_restore", &((struct queue *)self)->maxsize) ? Py_NewRef(Py_None)
                                                                                       : NULL;
}

/* A queue of another program: C's, or one that a Python program keeps alive. */
static PyObject *from_handle(PyObject *type, PyObject *handle)
{
    uint64_t address;

    if (core_word(handle, "handle", &address) < 0)
        return NULL;
    brood_queue *queue = (void *)(uintptr_t)address;
    int64_t size = brood_queue_size(queue);
    if (size < 0)
        return core_raise((int)size);
    uint64_t bound = bri_queue_of(queue)->max_messages;
    PyObject *self = ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0);
    if (self == NULL)
        return NULL;
    ((struct queue *)self)->maxsize = bound <= PY_SSIZE_T_MAX ? (Py_ssize_t)bound : 0;
    if (core_object_fill(self, CORE_FOREIGN_QUEUE, 0, queue) < 0)
        Py_CLEAR(self);
    return self;
}

/* ---- calls ---- */

brood_queue *queue_open_handle(PyObject *self)
{
    if (!((struct queue *)self)->is_closed)
        return core_object_handle(self);
    PyObject *refused =
        PyObject_HasAttrString(self, "_refuse") ? PyObject_CallMethod(self, "_refuse", NULL) : NULL;
    Py_XDECREF(refused);
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "Queue %R is closed", self);
    return NULL;
}

int queue_parse(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords,
                const char *function, const char *first, struct queue_call *ret_call)
{
    const char *const names[] = {first, "block", "timeout"};
    PyObject *values[] = {NULL, Py_True, Py_None};
    int skipped = first == NULL;

    ret_call->queue = queue_open_handle(self);
    if (ret_call->queue == NULL ||
        core_parse(arguments, count, keywords, function, names + skipped, 3 - skipped, values + skipped) < 0)
        return -1;
    ret_call->first = values[0];
    return core_deadline_if(values[1], values[2], &ret_call->deadline);
}

/* ---- looks ---- */

static PyObject *qsize(PyObject *self, PyObject *unused)
{
    brood_queue *queue = core_object_handle(self);

    (void)unused;
    if (queue == NULL)
        return NULL;
    int64_t size = brood_queue_size(queue);
    return size < 0 ? core_raise((int)size) : PyLong_FromLongLong(size);
}

static PyObject *empty(PyObject *self, PyObject *unused)
{
    brood_queue *queue = core_object_handle(self);

    (void)unused;
    if (queue != NULL && ((struct queue *)self)->is_closed && ((struct queue *)self)->has_put) {
        PyErr_SetString(PyExc_OSError, "handle is closed");
        return NULL;
    }
    return queue != NULL ? PyBool_FromLong(brood_queue_size(queue) <= 0) : NULL;
}

static PyObject *full(PyObject *self, PyObject *unused)
{
    brood_queue *queue = core_object_handle(self);
    Py_ssize_t maxsize = ((struct queue *)self)->maxsize;

    (void)unused;
    return queue != NULL ? PyBool_FromLong(maxsize > 0 && brood_queue_size(queue) >= maxsize) : NULL;
}

static PyObject *file_number(PyObject *self, PyObject *unused)
{
    brood_queue *queue = core_object_handle(self);

    (void)unused;
    if (queue == NULL)
        return NULL;
    struct core_call call = core_call_begin();
    int fd = brood_queue_fd(queue);
    core_call_end(call);
    ((struct queue *)self)->has_reader = 1;
    return fd < 0 ? core_raise(fd) : PyLong_FromLong(fd);
}

static PyObject *get_handle(PyObject *self, void *unused)
{
    void *handle = core_object_handle(self);

    (void)unused;
    return handle != NULL ? PyLong_FromVoidPtr(handle) : NULL;
}

static PyMethodDef methods[] = {
    {"put", (PyCFunction)(void (*)(void))queue_put, METH_FASTCALL | METH_KEYWORDS,
     "put($self, obj, block=True, timeout=None)\n--\n\nPickles obj and puts it; queue.Full when the time is "
     "over."},
    {"get", (PyCFunction)(void (*)(void))queue_get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, block=True, timeout=None)\n--\n\nTakes the oldest object; queue.Empty when the time is "
     "over."},
    {"put_nowait", queue_put_nowait, METH_O, "put_nowait($self, obj)\n--\n\nput(obj, False)"},
    {"get_nowait", queue_get_nowait, METH_NOARGS, "get_nowait($self)\n--\n\nget(False)"},
    {"put_many", (PyCFunction)(void (*)(void))queue_put_many, METH_FASTCALL | METH_KEYWORDS,
     "put_many($self, objs, block=True, timeout=None)\n--\n\n"
     "Puts all, in order, and returns how many: fewer only when the time is over, queue.Full when none."},
    {"get_many", (PyCFunction)(void (*)(void))queue_get_many, METH_FASTCALL | METH_KEYWORDS,
     "get_many($self, max_items, block=True, timeout=None)\n--\n\n"
     "Waits for the first object and returns a list of it and those behind it that are there, up to "
     "max_items.\n"
     "An object that cannot be unpickled raises, and the list is lost."},
    {"put_bytes", (PyCFunction)(void (*)(void))queue_put_bytes, METH_FASTCALL | METH_KEYWORDS,
     "put_bytes($self, data, block=True, timeout=None)\n--\n\n"
     "Puts the bytes of any bytes-like object as one message, without a pickle; queue.Full when the time is "
     "over.\n"
     "For get_bytes(), and for C programs: get() of such a message fails."},
    {"get_bytes", (PyCFunction)(void (*)(void))queue_get_bytes, METH_FASTCALL | METH_KEYWORDS,
     "get_bytes($self, block=True, timeout=None)\n--\n\nTakes the oldest message as bytes, whatever is in "
     "it; "
     "queue.Empty when the time is over."},
    {"from_handle", from_handle, METH_O | METH_CLASS,
     "from_handle($type, handle, /)\n--\n\n"
     "The queue with that handle in this arena, a C program's say.  It lives and ends as its maker wants: "
     "this "
     "object\n"
     "does not keep it, and its methods raise ValueError once it is destroyed."},
    {"qsize", qsize, METH_NOARGS, "qsize($self)\n--\n\nHow many objects wait now."},
    {"empty", empty, METH_NOARGS, "empty($self)\n--\n\nDo none wait?"},
    {"full", full, METH_NOARGS, "full($self)\n--\n\nDo maxsize objects wait?"},
    {"_fileno", file_number, METH_NOARGS,
     "A descriptor, readable while there are objects; this process's own."},
    {"__reduce__", reduce, METH_NOARGS, "Pickles as a reference."},
    {"_restore", restore, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_closed", T_BOOL, offsetof(struct queue, is_closed), 0, "closed in this process"},
    {"_bound", T_PYSSIZET, offsetof(struct queue, maxsize), READONLY, "maxsize; 0: none"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"handle", get_handle, NULL,
     "The brood_queue * of C programs in the arena, the same number in every process.  The queue lives as "
     "long as "
     "a Python object for it does, somewhere.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "Queue(maxsize=0)\n--\n\nPickled objects, first in first out, among processes."},
    {Py_tp_init, init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "brood._core.Queue",
    .basicsize = sizeof(struct queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = queue_slots,
};

int core_add_queue(PyObject *module)
{
    return core_add_type(module, &queue_spec, &((struct core_state *)PyModule_GetState(module))->queue_type);
}
