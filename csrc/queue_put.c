/* SPDX-License-Identifier: MIT */
/* The putting side of Queue: pickles, several of them, or bytes as they are. */
#include <errno.h>

#include "pickling.h"
#include "queue.h"

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

static int put_message(PyObject *self, brood_queue *queue, void *data, size_t bytes, int64_t deadline)
{
    brood_message message = {data, bytes};
    struct put put = {.queue = queue, .messages = &message, .count = 1};

    ((struct queue *)self)->has_put = 1;
    return core_wait(step_put, &put, deadline);
}

/* ---- one ---- */

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
    int error = put_message(self, queue, pickle.data, pickle.bytes, deadline);
    core_pickle_free(&pickle);
    return error < 0 ? raise_put(self, error) : Py_NewRef(Py_None);
}

PyObject *queue_put(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    struct queue_call call;

    if (queue_parse(self, arguments, count, keywords, "put", "obj", &call) < 0)
        return NULL;
    return put_until(self, call.queue, call.first, call.deadline);
}

PyObject *queue_put_nowait(PyObject *self, PyObject *item)
{
    brood_queue *queue = queue_open_handle(self);

    return queue != NULL ? put_until(self, queue, item, BROOD_NOW) : NULL;
}

PyObject *queue_put_bytes(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    struct queue_call call;
    Py_buffer view;

    if (queue_parse(self, arguments, count, keywords, "put_bytes", "data", &call) < 0 ||
        PyObject_GetBuffer(call.first, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int error = put_message(self, call.queue, view.buf, (size_t)view.len, call.deadline);
    PyBuffer_Release(&view);
    return error < 0 ? raise_put(self, error) : Py_NewRef(Py_None);
}

/* ---- several ---- */

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
    ((struct queue *)self)->has_put |= made > 0;
    int error = made < count ? -EINTR : core_wait(step_put_many, &put, deadline);
    free_batch(pickles, messages, made);
    if (error < 0 && (error != -ETIMEDOUT || put.done == 0))
        return raise_put(self, error);
    return PyLong_FromSize_t(put.done);
}

PyObject *queue_put_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    struct queue_call call;

    if (queue_parse(self, arguments, count, keywords, "put_many", "objs", &call) < 0)
        return NULL;
    PyObject *items = PySequence_Tuple(call.first);
    PyObject *result = items != NULL ? put_batch(self, call.queue, items, call.deadline) : NULL;
    Py_XDECREF(items);
    return result;
}
