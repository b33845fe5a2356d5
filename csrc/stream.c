/* SPDX-License-Identifier: MIT */
/* Stream: imap over an iterator of chunks, bounded in flight. */
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>

struct stream {
    PyObject_HEAD struct pool *pool;
    PyObject *callable;
    PyObject *chunks; /* iterator; NULL once it has ended */
    PyObject *error;  /* what it raised: comes after the results before it */
    PyObject *unsent; /* dict: index of a task that has no pickle → why; one that does nothing runs for it */
    struct task_origin origin;
    size_t made;        /* of the user's items, how many are in chunks */
    size_t tasks;       /* chunks that were made */
    PyObject *keep;     /* dict: what holds the large data of a task that has no result yet */
    brood_message item; /* the latest, which the core has copied when it asks for the next */
    brood_stream *stream;
    char has_ended; /* all results are fetched: no worker reads anything of it any more */
};

/* The exception that is set is of one task alone: it is raised in its place among the results. */
static int set_aside(struct stream *stream)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *error = core_take_error();
    PyObject *index = PyLong_FromSize_t(stream->tasks);
    if (stream->unsent == NULL)
        stream->unsent = PyDict_New();
    int failed = index == NULL || stream->unsent == NULL ||
                 PyDict_SetItem(stream->unsent, index, error) < 0 ||
                 task_make_nothing(stream->origin, &stream->item) < 0;
    Py_XDECREF(index);
    Py_DECREF(error);
    return failed ? -1 : 0;
}

/* Only what is large is kept. */
static int keep_for_task(struct stream *stream, PyObject *keep)
{
    PyObject *number = keep != NULL ? PyLong_FromSize_t(stream->tasks) : NULL;
    int error = keep != NULL ? -1 : 0;

    if (number != NULL)
        error = PyDict_SetItem(stream->keep, number, keep);
    Py_XDECREF(number);
    Py_XDECREF(keep);
    stream->tasks++;
    return error;
}

static void let_go_of_task(struct stream *stream, size_t task)
{
    PyObject *number = PyDict_GET_SIZE(stream->keep) > 0 ? PyLong_FromSize_t(task) : NULL;

    if (number != NULL && PyDict_Contains(stream->keep, number) == 1)
        PyDict_DelItem(stream->keep, number);
    Py_XDECREF(number);
}

/* What it counts as, against the bound on bytes in flight; -1 with an exception. */
static int make_item_of(struct stream *stream, PyObject *chunk)
{
    struct task_item item = {.keep = NULL};

    if (task_make_item(stream->pool, (struct callable *)stream->callable, stream->origin, chunk, stream->made,
                       &item) == 0)
        stream->item = item.message;
    else if (set_aside(stream) < 0)
        return -1;
    stream->made += ((struct callable *)stream->callable)->header.mode == TASK_CALL
                        ? (size_t)stream->origin.chunk_items
                        : (size_t)PyTuple_GET_SIZE(chunk);
    if (keep_for_task(stream, item.keep) < 0)
        return -1;
    return item.kept_bytes < INT_MAX ? (int)item.kept_bytes + 1 : INT_MAX;
}

static int make_next_item(struct stream *stream)
{
    PyObject *chunk = stream->chunks != NULL ? PyIter_Next(stream->chunks) : NULL;

    PyMem_Free(stream->item.data);
    stream->item.data = NULL;
    int weight = chunk != NULL ? make_item_of(stream, chunk) : -1;
    Py_XDECREF(chunk);
    if (weight > 0)
        return weight;
    Py_CLEAR(stream->chunks);
    if (!PyErr_Occurred())
        return 0;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear(); /* Ctrl-C came while the iterator ran: it is not to wait for the results before it */
        PyErr_SetInterrupt();
        return -ECANCELED;
    }
    Py_XSETREF(stream->error, core_take_error());
    return -ECANCELED;
}

/* Called by the core in the thread that asks for the next result, with the GIL or without. */
static int give_next(void *argument, brood_message *ret_item)
{
    struct stream *stream = argument;
    PyGILState_STATE state = PyGILState_Ensure();
    struct core_call call = core_callback_begin();
    int given = make_next_item(stream);

    if (given > 0)
        *ret_item = stream->item;
    core_callback_end(call);
    PyGILState_Release(state);
    return given;
}

/* imap(callable, chunks, in_order, max_items, chunk_items, ends, number) */
static PyObject *imap(PyObject *self, PyObject *arguments)
{
    struct pool *pool = (struct pool *)self;
    PyObject *callable, *chunks;
    Py_ssize_t max_items, chunk_items;
    struct task_ends ends;
    unsigned long long number;
    int in_order, error;

    if (!PyArg_ParseTuple(arguments, "O!Opnn(III)K:imap", pool->state->callable_type, &callable, &chunks,
                          &in_order, &max_items, &chunk_items, &ends.item_timeout_ms, &ends.timeout_ms,
                          &ends.retries, &number) ||
        pool_handle(pool) == NULL)
        return NULL;
    pool_sweep(pool, 0);
    struct stream *stream = (struct stream *)PyType_GenericAlloc((PyTypeObject *)pool->state->stream_type, 0);
    if (stream == NULL)
        return NULL;
    stream->pool = (struct pool *)Py_NewRef(self);
    stream->callable = Py_NewRef(callable);
    stream->origin = (struct task_origin){number, (uint64_t)chunk_items, 0, ends.retries > 0};
    stream->keep = PyDict_New();
    stream->chunks = stream->keep != NULL ? PyObject_GetIter(chunks) : NULL;
    brood_pool *handle = pool->handle;
    const brood_imap_options options = {.size = sizeof options,
                                        .max_items = (size_t)max_items,
                                        .item_timeout_ms = ends.item_timeout_ms,
                                        .retries = ends.retries};
    if (stream->chunks != NULL) {
        Py_BEGIN_ALLOW_THREADS;
        error = in_order ? brood_pool_imap(handle, task_run, give_next, stream, &options, &stream->stream)
                         : brood_pool_imap_unordered(handle, task_run, give_next, stream, &options,
                                                     &stream->stream);
        Py_END_ALLOW_THREADS;
        if (error < 0)
            pool_raise(pool->state, error);
    }
    if (PyErr_Occurred())
        Py_CLEAR(stream);
    return (PyObject *)stream;
}

PyMethodDef pool_imap_method = {
    "imap", imap, METH_VARARGS,
    "imap(callable, chunks, in_order, max_items, chunk_items, ends, number)\n--\n\nA "
    "Stream over an iterable of chunks."};

struct asking {
    struct stream *stream;
    brood_stream_item item;
};

static struct task_place place_of(const struct asking *asking)
{
    size_t chunk_items = asking->stream->origin.chunk_items, first = asking->item.index * chunk_items;
    size_t left = asking->stream->made - first; /* the last chunk may have fewer */

    return (struct task_place){first, chunk_items < left ? chunk_items : left};
}

static int step_next(void *argument, int64_t deadline)
{
    struct asking *asking = argument;

    return brood_stream_next(asking->stream->stream, &asking->item, deadline);
}

/* After all results: what the iterator raised, once. */
static PyObject *raise_error(struct stream *stream)
{
    PyObject *error = stream->error;

    stream->error = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
    return NULL;
}

/* What came back is of a task that was never sent, and stands for its error.  1: raised. */
static int raise_unsent(struct stream *stream, uint64_t task)
{
    PyObject *index = stream->unsent != NULL ? PyLong_FromUnsignedLongLong(task) : NULL;
    PyObject *error = index != NULL ? PyDict_GetItemWithError(stream->unsent, index) : NULL; /* borrowed */

    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        if (PyDict_DelItem(stream->unsent, index) < 0)
            PyErr_Clear();
    }
    Py_XDECREF(index);
    return error != NULL;
}

/* next(timeout): the value of the next task; raises what it raised, StopIteration at the end, TimeoutError. */
static PyObject *next(PyObject *self, PyObject *timeout)
{
    struct asking asking = {.stream = (struct stream *)self};
    int64_t deadline;

    if (core_deadline(timeout, &deadline) < 0)
        return NULL;
    int got = core_wait(step_next, &asking, deadline);
    if (got > 0 && asking.item.outcome.kind == BROOD_CANCELLED) /* by the pool's end, then */
        asking.item.outcome.kind = BROOD_PENDING;
    asking.stream->has_ended |= got == 0;
    if (got > 0)
        let_go_of_task(asking.stream, asking.item.index);
    if (got > 0 && raise_unsent(asking.stream, asking.item.index))
        return NULL;
    if (got > 0)
        return task_value(asking.stream->pool, place_of(&asking), &asking.item.outcome, &asking.item.reply);
    if (got == -EINTR)
        return NULL;
    if (got == -ETIMEDOUT)
        PyErr_SetNone(PyExc_TimeoutError);
    else if (asking.stream->error != NULL)
        return raise_error(asking.stream);
    else if (got == 0 ||
             (got == -ECANCELED && asking.stream->chunks == NULL && !asking.stream->pool->is_terminated))
        PyErr_SetNone(PyExc_StopIteration);
    else
        pool_raise(asking.stream->pool->state, got);
    return NULL;
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    struct stream *stream = (struct stream *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(stream->pool);
    Py_VISIT(stream->chunks);
    Py_VISIT(stream->error);
    Py_VISIT(stream->unsent);
    return 0;
}

static int clear(PyObject *self)
{
    struct stream *stream = (struct stream *)self;

    Py_CLEAR(stream->chunks);
    Py_CLEAR(stream->error);
    Py_CLEAR(stream->unsent);
    return 0;
}

/* The workers may still read the callable: it goes when the pool does.  An error that is on its way stays: an imap that failed ends here. */
static void keep_callable(struct stream *stream)
{
    PyObject *type, *value, *traceback;

    struct callable *callable = (struct callable *)stream->callable;
    if (callable == NULL || stream->has_ended ||
        (callable->header.blob == 0 && PyList_GET_SIZE(callable->held) == 0) || stream->pool->keep == NULL)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyList_Append(stream->pool->keep, stream->callable) < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

static void dealloc(PyObject *self)
{
    struct stream *stream = (struct stream *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    struct core_call call = core_call_begin();
    brood_stream_destroy(stream->stream);
    core_call_end(call);
    PyMem_Free(stream->item.data);
    clear(self);
    keep_callable(stream);
    Py_XDECREF(stream->keep);
    Py_XDECREF(stream->callable);
    Py_XDECREF(stream->pool);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"next", next, METH_O,
     "next(timeout)\n--\n\nThe value of the next task; raises what it raised, or StopIteration."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The results of an imap; Pool.imap makes them."},
    {Py_tp_methods, methods},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {.name = "brood._core.Stream",
                           .basicsize = sizeof(struct stream),
                           .flags =
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                           .slots = slots};

int pool_add_stream(PyObject *module)
{
    return core_add_type(module, &spec, &((struct core_state *)PyModule_GetState(module))->stream_type);
}
