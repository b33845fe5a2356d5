/* SPDX-License-Identifier: MIT */
/*
 * Queue: objects pickled into the core's queue, by the caller itself.
 *
 * A message is a pickle.  Objects that no reducer can apply to (exact builtin types, nested a little) go to the pickler written in C
 * directly; all others to ForkingPickler, whose reducers are looked up in Python.
 */
#include "core.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>

#include "pickling.h"
#include "queue/queue.h"

enum { SMALL_BYTES = 4096, BATCH_BYTES = 256 * 1024, BATCH_ITEMS = 4096 };

struct queue {
    struct core_object object;
    Py_ssize_t maxsize; /* 0: none */
    char is_closed;     /* in this process, through this object */
};

/* ---------------------------------------------------------------------------------------------- construction ---- */

static int init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"maxsize", NULL};
    struct queue *queue = (struct queue *)self;
    Py_ssize_t maxsize = 0;
    brood_queue *made = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|n:Queue", names, &maxsize))
        return -1;
    queue->maxsize = maxsize > 0 ? maxsize : 0;
    int error = brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = (uint64_t)queue->maxsize), &made);
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

/* The handle of a queue that is open; else NULL with an exception: ValueError, or what the subclass's _refuse raises. */
static brood_queue *open_handle(PyObject *self)
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

/* --------------------------------------------------------------------------------------------------------- put ---- */

struct put {
    brood_queue *queue;
    brood_message *messages;
    size_t count, done;
};

static int step_put(void *argument, int64_t deadline)
{
    struct put *put = argument;

    return brood_queue_put(put->queue, put->messages->data, put->messages->bytes, deadline);
}

/* 0 only when all are in; how many are in is `done`. */
static int step_put_many(void *argument, int64_t deadline)
{
    struct put *put = argument;

    while (put->done < put->count) {
        int result =
            brood_queue_put_many(put->queue, put->messages + put->done, put->count - put->done, deadline);
        if (result < 0)
            return result;
        put->done += (size_t)result;
    }
    return 0;
}

static PyObject *raise_put(PyObject *self, int error)
{
    if (error != -ETIMEDOUT)
        return core_raise(error);
    PyErr_SetNone(core_state_of(self)->full);
    return NULL;
}

/* An object cannot be pickled: the hook of the standard library's feeder thread decides.  Ours raises it again, here, in the
 * caller of put.  None, or NULL with an exception. */
static PyObject *tell_of_unpicklable(PyObject *self, PyObject *item)
{
    PyObject *type, *error, *traceback, *told = NULL;

    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    PyObject *hook = PyObject_GetAttrString(self, "_on_queue_feeder_error");
    if (hook == NULL) { /* not a Queue: raises */
        PyErr_Restore(type, error, traceback);
        return NULL;
    }
    told = PyObject_CallFunctionObjArgs(hook, error, item, NULL);
    Py_DECREF(hook);
    Py_DECREF(type);
    Py_DECREF(error);
    Py_XDECREF(traceback);
    return told;
}

static PyObject *put_until(PyObject *self, brood_queue *queue, PyObject *item, int64_t deadline)
{
    struct core_pickle pickle;

    if (core_pickle_make(core_state_of(self), item, &pickle) < 0)
        return tell_of_unpicklable(self, item);
    brood_message message = {pickle.data, pickle.bytes};
    struct put put = {.queue = queue, .messages = &message, .count = 1};
    int error = core_wait(step_put, &put, deadline);
    core_pickle_free(&pickle);
    return error < 0 ? raise_put(self, error) : Py_NewRef(Py_None);
}

static PyObject *put(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"obj", "block", "timeout"};
    PyObject *values[] = {NULL, Py_True, Py_None};
    int64_t deadline;
    brood_queue *queue = open_handle(self);

    if (queue == NULL || core_parse(arguments, count, keywords, "put", names, 3, values) < 0 ||
        core_deadline_if(values[1], values[2], &deadline) < 0)
        return NULL;
    return put_until(self, queue, values[0], deadline);
}

static PyObject *put_nowait(PyObject *self, PyObject *item)
{
    brood_queue *queue = open_handle(self);

    return queue != NULL ? put_until(self, queue, item, BROOD_NOW) : NULL;
}

static void free_batch(struct core_pickle *pickles, brood_message *messages, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        core_pickle_free(&pickles[i]);
    PyMem_Free(pickles);
    PyMem_Free(messages);
}

/* All of them are pickled before the first is put: one that cannot be leaves the queue as it was. */
static PyObject *put_batch(PyObject *self, brood_queue *queue, PyObject *items, int64_t deadline)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(items), made = 0;
    struct core_pickle *pickles = PyMem_New(struct core_pickle, (size_t)count + 1);
    brood_message *messages = PyMem_New(brood_message, (size_t)count + 1);

    if (pickles == NULL || messages == NULL) {
        free_batch(pickles, messages, 0);
        return PyErr_NoMemory();
    }
    for (; made < count; made++) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, made); /* a list of our own, or a tuple */
        if (core_pickle_make(core_state_of(self), item, &pickles[made]) < 0)
            break;
        messages[made] = (brood_message){pickles[made].data, pickles[made].bytes};
    }
    struct put put = {.queue = queue, .messages = messages, .count = (size_t)made};
    int error = made < count ? -EINTR : core_wait(step_put_many, &put, deadline);
    free_batch(pickles, messages, made);
    if (error < 0 && (error != -ETIMEDOUT || put.done == 0))
        return raise_put(self, error);
    return PyLong_FromSize_t(put.done);
}

static PyObject *put_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"objs", "block", "timeout"};
    PyObject *values[] = {NULL, Py_True, Py_None};
    int64_t deadline;
    brood_queue *queue = open_handle(self);

    if (queue == NULL || core_parse(arguments, count, keywords, "put_many", names, 3, values) < 0 ||
        core_deadline_if(values[1], values[2], &deadline) < 0)
        return NULL;
    PyObject *items = PySequence_Tuple(values[0]);
    PyObject *result = items != NULL ? put_batch(self, queue, items, deadline) : NULL;
    Py_XDECREF(items);
    return result;
}

/* --------------------------------------------------------------------------------------------------------- get ---- */

struct get {
    brood_queue *queue;
    brood_message message;
    int is_borrowed; /* message lies in the arena: it is to be released */
    size_t bytes;    /* of what is in `buffer` otherwise */
    char buffer[SMALL_BYTES];
};

/* Small messages are copied out, which needs no second call; large ones are read where they lie. */
static int step_get(void *argument, int64_t deadline)
{
    struct get *get = argument;
    int error;

    do {
        error = brood_queue_get(get->queue, get->buffer, sizeof get->buffer, &get->bytes, deadline);
        if (error != -EMSGSIZE)
            return error;
        error = brood_queue_borrow(get->queue, &get->message, BROOD_NOW);
    } while (error == -ETIMEDOUT); /* somebody else had it */
    get->is_borrowed = error == 0;
    return error;
}

static PyObject *raise_get(PyObject *self, int error)
{
    if (error != -ETIMEDOUT)
        return core_raise(error);
    PyErr_SetNone(core_state_of(self)->empty);
    return NULL;
}

static PyObject *load_borrowed(struct core_state *state, brood_queue *queue, brood_message *message)
{
    PyObject *item = core_unpickle_in_place(state, message->data, message->bytes);
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    brood_queue_release(queue, message);
    PyErr_Restore(type, value, traceback);
    return item;
}

static PyObject *get_until(PyObject *self, brood_queue *queue, int64_t deadline)
{
    struct get get;
    struct core_state *state = core_state_of(self);

    get.queue = queue;
    get.is_borrowed = 0;
    int error = core_wait(step_get, &get, deadline);
    if (error < 0)
        return raise_get(self, error);
    return get.is_borrowed ? load_borrowed(state, queue, &get.message)
                           : core_unpickle(state, get.buffer, get.bytes);
}

static PyObject *get(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"block", "timeout"};
    PyObject *values[] = {Py_True, Py_None};
    int64_t deadline;
    brood_queue *queue = open_handle(self);

    if (queue == NULL || core_parse(arguments, count, keywords, "get", names, 2, values) < 0 ||
        core_deadline_if(values[0], values[1], &deadline) < 0)
        return NULL;
    return get_until(self, queue, deadline);
}

static PyObject *get_nowait(PyObject *self, PyObject *unused)
{
    brood_queue *queue = open_handle(self);

    (void)unused;
    return queue != NULL ? get_until(self, queue, BROOD_NOW) : NULL;
}

struct get_many {
    brood_queue *queue;
    char *buffer;
    brood_message *messages;
    size_t count;
    int is_borrowed;
};

static int step_get_many(void *argument, int64_t deadline)
{
    struct get_many *get = argument;
    int result;

    do {
        result =
            brood_queue_get_many(get->queue, get->buffer, BATCH_BYTES, get->messages, get->count, deadline);
        if (result != -EMSGSIZE)
            return result;
        result = brood_queue_borrow(get->queue, get->messages, BROOD_NOW);
    } while (result == -ETIMEDOUT);
    get->is_borrowed = result == 0;
    return result == 0 ? 1 : result;
}

static PyObject *load_batch(PyObject *self, struct get_many *get, int count)
{
    struct core_state *state = core_state_of(self);
    PyObject *items = PyList_New(0);

    for (int i = 0; items != NULL && i < count; i++) {
        brood_message *message = &get->messages[i];
        PyObject *item = get->is_borrowed ? load_borrowed(state, get->queue, message)
                                          : core_unpickle(state, message->data, message->bytes);
        if (item == NULL || PyList_Append(items, item) < 0)
            Py_CLEAR(items);
        Py_XDECREF(item);
    }
    return items;
}

static PyObject *get_batch(PyObject *self, brood_queue *queue, Py_ssize_t max_items, int64_t deadline)
{
    struct get_many get = {.queue = queue,
                           .count = max_items < BATCH_ITEMS ? (size_t)max_items : BATCH_ITEMS};

    get.buffer = PyMem_RawMalloc(BATCH_BYTES);
    get.messages = PyMem_New(brood_message, get.count);
    PyObject *items = NULL;
    if (get.buffer == NULL || get.messages == NULL) {
        PyErr_NoMemory();
    } else {
        int result = core_wait(step_get_many, &get, deadline);
        items = result < 0 ? raise_get(self, result) : load_batch(self, &get, result);
    }
    PyMem_RawFree(get.buffer);
    PyMem_Free(get.messages);
    return items;
}

static PyObject *get_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"max_items", "block", "timeout"};
    PyObject *values[] = {NULL, Py_True, Py_None};
    int64_t deadline;
    brood_queue *queue = open_handle(self);

    if (queue == NULL || core_parse(arguments, count, keywords, "get_many", names, 3, values) < 0 ||
        core_deadline_if(values[1], values[2], &deadline) < 0)
        return NULL;
    Py_ssize_t max_items = PyNumber_AsSsize_t(values[0], PyExc_OverflowError);
    if (max_items == -1 && PyErr_Occurred())
        return NULL;
    if (max_items < 1)
        return PyErr_Format(PyExc_ValueError, "max_items must be at least 1, not %zd", max_items);
    return get_batch(self, queue, max_items, deadline);
}

/* ------------------------------------------------------------------------------------------------------- looks ---- */

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
    int fd = brood_queue_fd(queue);
    return fd < 0 ? core_raise(fd) : PyLong_FromLong(fd);
}

static PyMethodDef methods[] = {
    {"put", (PyCFunction)(void (*)(void))put, METH_FASTCALL | METH_KEYWORDS,
     "put($self, obj, block=True, timeout=None)\n--\n\nPickles obj and puts it; queue.Full when the time is "
     "over."},
    {"get", (PyCFunction)(void (*)(void))get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, block=True, timeout=None)\n--\n\nTakes the oldest object; queue.Empty when the time is "
     "over."},
    {"put_nowait", put_nowait, METH_O, "put_nowait($self, obj)\n--\n\nput(obj, False)"},
    {"get_nowait", get_nowait, METH_NOARGS, "get_nowait($self)\n--\n\nget(False)"},
    {"put_many", (PyCFunction)(void (*)(void))put_many, METH_FASTCALL | METH_KEYWORDS,
     "put_many($self, objs, block=True, timeout=None)\n--\n\n"
     "Puts all, in order, and returns how many: fewer only when the time is over, queue.Full when none."},
    {"get_many", (PyCFunction)(void (*)(void))get_many, METH_FASTCALL | METH_KEYWORDS,
     "get_many($self, max_items, block=True, timeout=None)\n--\n\n"
     "Waits for the first object and returns a list of it and those behind it that are there, up to "
     "max_items.\n"
     "An object that cannot be unpickled raises, and the list is lost."},
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
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "Queue(maxsize=0)\n--\n\nPickled objects, first in first out, among processes."},
    {Py_tp_init, init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
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
