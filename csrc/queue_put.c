/* SPDX-License-Identifier: MIT */
/* The putting side of Queue: pickles, several of them, or bytes as they are. */
#include <errno.h>

#include "pickling.h"
#include "queue.h"

/* Messages, and which of them lie in the arena already. */
struct put {
    brood_queue *queue;
    brood_message *messages;
    const char *is_reserved;
    size_t count, done;
};

static int step_put(void *argument, int64_t deadline)
{
    struct put *put = argument;

    return brood_queue_put(put->queue, put->messages->data, put->messages->bytes, deadline);
}

static int step_commit(void *argument, int64_t deadline)
{
    struct put *put = argument;

    return brood_queue_commit(put->queue, put->messages, deadline);
}

/* How many messages from `done` on are to be copied. */
static size_t count_plain(const struct put *put)
{
    size_t end = put->done;

    while (end < put->count && !put->is_reserved[end])
        end++;
    return end - put->done;
}

/* 0 only when all are in; how many are in is `done`. */
static int step_put_many(void *argument, int64_t deadline)
{
    struct put *put = argument;

    while (put->done < put->count) {
        brood_message *next = put->messages + put->done;
        size_t plain = count_plain(put);
        int result = plain > 0 ? brood_queue_put_many(put->queue, next, plain, deadline)
                               : brood_queue_commit(put->queue, next, deadline);
        if (result < 0)
            return result;
        put->done += plain > 0 ? (size_t)result : 1;
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

/* A pickle in pieces goes where it stays.  0, or a negative errno. */
static int reserve_for(brood_queue *queue, const struct core_pickle *pickle, brood_message *ret_message)
{
    int error = brood_queue_reserve(queue, pickle->bytes, ret_message);

    if (error < 0)
        return error;
    core_pickle_write(pickle, ret_message->data);
    core_sink_post(pickle->sink, ret_message->data, 0);
    return 0;
}

/* It was not sent. */
static void abandon(brood_queue *queue, const struct core_pickle *pickle, brood_message *message)
{
    core_sink_recall(pickle->sink);
    brood_queue_abandon(queue, message);
}

static int put_in_pieces(PyObject *self, brood_queue *queue, const struct core_pickle *pickle,
                         int64_t deadline)
{
    brood_message message;
    struct put put = {.queue = queue, .messages = &message, .count = 1};
    int error = reserve_for(queue, pickle, &message);

    if (error < 0)
        return error;
    ((struct queue *)self)->has_put = 1;
    error = core_wait(step_commit, &put, deadline);
    if (error < 0)
        abandon(queue, pickle, &message);
    return error;
}

static PyObject *put_until(PyObject *self, brood_queue *queue, PyObject *item, int64_t deadline)
{
    struct core_pickle pickle;

    if (core_pickle_make(core_state_of(self), item, SINK_LETTER, &pickle) < 0)
        return PyErr_ExceptionMatches(PyExc_MemoryError) ? NULL : tell_of_unpicklable(self, item);
    int error = pickle.sink != NULL ? put_in_pieces(self, queue, &pickle, deadline)
                                    : put_message(self, queue, pickle.data, pickle.bytes, deadline);
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

struct batch {
    struct core_pickle *pickles;
    brood_message *messages;
    char *is_reserved;
    size_t made;
};

static int begin_batch(struct batch *batch, size_t count)
{
    *batch = (struct batch){.pickles = PyMem_New(struct core_pickle, count + 1),
                            .messages = PyMem_New(brood_message, count + 1),
                            .is_reserved = PyMem_Calloc(count + 1, 1)};
    if (batch->pickles != NULL && batch->messages != NULL && batch->is_reserved != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* The first `done` are in the queue. */
static void end_batch(struct batch *batch, brood_queue *queue, size_t done)
{
    for (size_t i = 0; i < batch->made; i++) {
        if (i >= done && batch->is_reserved[i])
            abandon(queue, &batch->pickles[i], &batch->messages[i]);
        core_pickle_free(&batch->pickles[i]);
    }
    PyMem_Free(batch->pickles);
    PyMem_Free(batch->messages);
    PyMem_Free(batch->is_reserved);
}

static int add_to_batch(struct core_state *state, struct batch *batch, brood_queue *queue, PyObject *item)
{
    struct core_pickle *pickle = &batch->pickles[batch->made];
    int error = 0;

    if (core_pickle_make(state, item, SINK_LETTER, pickle) < 0)
        return -1;
    batch->messages[batch->made] = (brood_message){pickle->data, pickle->bytes};
    if (pickle->sink != NULL)
        error = reserve_for(queue, pickle, &batch->messages[batch->made]);
    if (error < 0) {
        core_pickle_free(pickle);
        core_raise(error);
        return -1;
    }
    batch->is_reserved[batch->made++] = pickle->sink != NULL;
    return 0;
}

/* All of them are pickled before the first is put: one that cannot be leaves the queue as it was. */
static PyObject *put_batch(PyObject *self, brood_queue *queue, PyObject *items, int64_t deadline)
{
    size_t count = (size_t)PyTuple_GET_SIZE(items);
    struct batch batch;
    int error = begin_batch(&batch, count) < 0 ? -EINTR : 0;

    while (error == 0 && batch.made < count)
        if (add_to_batch(core_state_of(self), &batch, queue, PyTuple_GET_ITEM(items, batch.made)) < 0)
            error = -EINTR;
    struct put put = {
        .queue = queue, .messages = batch.messages, .is_reserved = batch.is_reserved, .count = batch.made};
    ((struct queue *)self)->has_put |= batch.made > 0;
    if (error == 0)
        error = core_wait(step_put_many, &put, deadline);
    end_batch(&batch, queue, put.done);
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
