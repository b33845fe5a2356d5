/* SPDX-License-Identifier: MIT */
/* What a worker does with an item, and what the owner makes of the reply. */
#include "pool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Of the worker.  It has one thread that runs tasks; it gives the GIL away whenever it has none to run. */
static struct {
    struct pool *pool;
    PyThreadState *thread;
    uint64_t serial; /* of `callable`; 0: none */
    PyObject *callable;
    brood_task *task; /* that it runs */
    unsigned attempts;
} worker;

void task_begin_worker(struct pool *pool)
{
    worker.pool = pool;
    worker.serial = 0;
    worker.callable = NULL;
    worker.thread = PyEval_SaveThread();
}

void task_end_worker(void)
{
    PyEval_RestoreThread(worker.thread);
    Py_CLEAR(worker.callable);
}

/* --- items --- */

static const char main_name[] = "__main__";
enum {
    FRAME_BYTES = 2 * 64 * 1024 + 64
}; /* pickle ends one at 64 KiB, before values that are as long themselves */

static int has_main(const void *data, size_t bytes)
{
    return bytes > 0 && memmem(data, bytes, main_name, sizeof main_name - 1) != NULL;
}

/* What is longer than any frame that the pickler gathers is one large value, and names nothing. */
static int sink_names_main(const struct sink *sink)
{
    int found = has_main(sink->small, sink->small_bytes);

    for (size_t i = 0; !found && i < sink->piece_count; i++)
        if (sink->pieces[i].view.len <= FRAME_BYTES)
            found = has_main(sink->pieces[i].view.buf, (size_t)sink->pieces[i].view.len);
    return found;
}

/* Functions and classes of __main__ went by name, which the workers may not have. */
static int names_main(const struct core_pickle *pickle)
{
    if (core_pickle_is_plain(pickle))
        return 0;
    return pickle->sink != NULL ? sink_names_main(pickle->sink) : has_main(pickle->data, pickle->bytes);
}

/* rescue(arguments, mode, first item, error, sink).  error: of plain pickle; writes to the sink, or raises what says what it is that does
 * not travel.  Without one: False if all that plain pickle sent by name is there in the workers.  1: *ret_pickle is made, 0: not needed. */
static int rescue(struct pool *pool, unsigned mode, enum sink_purpose purpose, PyObject *arguments,
                  size_t first, PyObject *error, struct core_pickle *ret_pickle)
{
    struct sink *sink = core_sink_new(pool->state, purpose);
    struct sink *before = core_sink_open(sink);
    PyObject *done = NULL;

    if (sink != NULL)
        done = PyObject_CallFunction(pool->hooks[HOOK_RESCUE], "OInOO", arguments, mode, (Py_ssize_t)first,
                                     error, sink);
    core_sink_close(before);
    int is_written = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    if (is_written > 0)
        return core_pickle_take_sink(sink, ret_pickle) < 0 ? -1 : 1;
    Py_XDECREF(sink);
    return is_written;
}

static int rescue_names(struct pool *pool, unsigned mode, enum sink_purpose purpose, PyObject *arguments,
                        size_t first, struct core_pickle *pickle)
{
    struct core_pickle again;
    int made = rescue(pool, mode, purpose, arguments, first, Py_None, &again);

    if (made != 0)
        core_pickle_free(pickle);
    if (made > 0)
        *pickle = again;
    return made < 0 ? -1 : 0;
}

static int rescue_objects(struct pool *pool, unsigned mode, enum sink_purpose purpose, PyObject *arguments,
                          size_t first, struct core_pickle *ret_pickle)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return -1;
    PyObject *error = core_take_error();
    int made = rescue(pool, mode, purpose, arguments, first, error, ret_pickle);
    Py_DECREF(error);
    if (made == 0)
        PyErr_SetString(PyExc_SystemError, "what plain pickle cannot do was not done");
    return made > 0 ? 0 : -1;
}

static int pickle_arguments(struct pool *pool, unsigned mode, struct task_origin origin, PyObject *arguments,
                            size_t first, struct core_pickle *ret_pickle)
{
    enum sink_purpose purpose = origin.is_retried ? SINK_RETRIED : SINK_ITEM;
    int has_rescue = pool->hooks[HOOK_RESCUE] != Py_None;

    if (core_pickle_make(pool->state, arguments, purpose, ret_pickle) < 0)
        return has_rescue ? rescue_objects(pool, mode, purpose, arguments, first, ret_pickle) : -1;
    if (has_rescue && names_main(ret_pickle))
        return rescue_names(pool, mode, purpose, arguments, first, ret_pickle);
    return 0;
}

int task_make_item(struct pool *pool, const struct callable *callable, struct task_origin origin,
                   PyObject *arguments, size_t first, struct task_item *ret_item)
{
    struct core_pickle pickle;
    struct task_header header = callable->header;

    if (pickle_arguments(pool, callable->header.mode, origin, arguments, first, &pickle) < 0)
        return -1;
    header.job = origin.job;
    header.chunk_items = origin.chunk_items;
    header.first = origin.first;
    size_t inline_bytes = header.blob != 0 ? 0 : header.call_bytes;
    size_t bytes = sizeof header + inline_bytes + pickle.bytes;
    char *item = PyMem_Malloc(bytes);
    if (item == NULL) {
        core_pickle_free(&pickle);
        PyErr_NoMemory();
        return -1;
    }
    memcpy(item, &header, sizeof header);
    if (inline_bytes > 0)
        memcpy(item + sizeof header, PyBytes_AS_STRING(callable->pickled), inline_bytes);
    core_pickle_write(&pickle, item + sizeof header + inline_bytes);
    *ret_item = (struct task_item){{item, bytes}, core_pickle_keep(&pickle), 0};
    if (ret_item->keep != NULL)
        ret_item->kept_bytes = core_sink_own_bytes(pickle.sink);
    core_pickle_free(&pickle);
    return 0;
}

int task_make_nothing(struct task_origin origin, brood_message *ret_item)
{
    struct task_header *header = PyMem_Calloc(1, sizeof *header);

    if (header == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    header->mode = TASK_NOTHING;
    header->job = origin.job;
    header->chunk_items = origin.chunk_items;
    *ret_item = (brood_message){header, sizeof *header};
    return 0;
}

static PyObject *load_callable(const struct task_header *header)
{
    const void *pickled = header->blob != 0 ? (const void *)(uintptr_t)header->blob : header + 1;

    if (header->serial != 0 && header->serial == worker.serial)
        return Py_NewRef(worker.callable);
    brood_task_stop_clock(worker.task); /* it may import a module: not the task's doing */
    PyObject *callable = core_unpickle_in_place(worker.pool->state, pickled, header->call_bytes);
    brood_task_start_clock(worker.task);
    if (callable != NULL && header->serial != 0) {
        Py_XSETREF(worker.callable, Py_NewRef(callable));
        worker.serial = header->serial;
    }
    return callable;
}

static PyObject *load_arguments(const struct task_header *header, size_t item_bytes)
{
    size_t before = sizeof *header + (header->blob != 0 ? 0 : header->call_bytes);

    return core_unpickle_in_place(worker.pool->state, (const char *)header + before, item_bytes - before);
}

/* --- running --- */

/* In a pool with a seed: what is drawn at random depends on the seed, the job and the item alone. */
static int seed_item(const struct task_header *header, uint64_t index)
{
    PyObject *hook = worker.pool->hooks[HOOK_SEED];

    if (hook == Py_None)
        return 0;
    PyObject *done =
        PyObject_CallFunction(hook, "KK", (unsigned long long)header->job, (unsigned long long)index);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static PyObject *call_once(const struct task_header *header, PyObject *callable, PyObject *arguments)
{
    PyObject *args, *kwds;

    if (!PyArg_ParseTuple(arguments, "OO", &args, &kwds) || seed_item(header, 0) < 0)
        return NULL;
    if (PyTuple_CheckExact(args) && (kwds == Py_None || PyDict_CheckExact(kwds)))
        return PyObject_Call(callable, args, kwds == Py_None ? NULL : kwds);
    PyObject *tuple = PySequence_Tuple(args), *dict = PyDict_New(), *value = NULL;
    if (tuple != NULL && dict != NULL && (kwds == Py_None || PyDict_Update(dict, kwds) == 0))
        value = PyObject_Call(callable, tuple, dict);
    Py_XDECREF(tuple);
    Py_XDECREF(dict);
    return value;
}

static PyObject *call_starred(PyObject *callable, PyObject *argument)
{
    PyObject *tuple = PySequence_Tuple(argument);
    PyObject *value = tuple != NULL ? PyObject_CallObject(callable, tuple) : NULL;

    Py_XDECREF(tuple);
    return value;
}

static PyObject *call_one(const struct task_header *header, PyObject *callable, PyObject *argument,
                          uint64_t index)
{
    if (seed_item(header, index) < 0)
        return NULL;
    return header->mode == TASK_STARMAP ? call_starred(callable, argument)
                                        : PyObject_CallOneArg(callable, argument);
}

/* first: the index of the first of them.  *ret_position: which of them failed. */
static PyObject *call_each(const struct task_header *header, PyObject *callable, PyObject *arguments,
                           uint64_t first, Py_ssize_t *ret_position)
{
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    PyObject *values = PyList_New(count);

    for (Py_ssize_t i = 0; values != NULL && i < count; i++) {
        PyObject *value = call_one(header, callable, PyTuple_GET_ITEM(arguments, i), first + (uint64_t)i);
        if (value == NULL) {
            *ret_position = i;
            Py_CLEAR(values);
        } else {
            PyList_SET_ITEM(values, i, value);
        }
    }
    return values;
}

static PyObject *run(const brood_task *task, const struct task_header *header, Py_ssize_t *ret_position)
{
    if (header->mode == TASK_NOTHING)
        Py_RETURN_NONE;
    PyObject *callable = load_callable(header), *value = NULL;
    PyObject *arguments = callable != NULL ? load_arguments(header, brood_task_item_bytes(task)) : NULL;

    if (arguments != NULL && !PyTuple_Check(arguments))
        PyErr_SetString(PyExc_SystemError, "the arguments of a task are no tuple");
    else if (arguments != NULL && header->mode == TASK_CALL)
        value = call_once(header, callable, arguments);
    else if (arguments != NULL)
        value = call_each(header, callable, arguments,
                          header->first + brood_task_index(task) * header->chunk_items, ret_position);
    Py_XDECREF(callable);
    Py_XDECREF(arguments);
    return value;
}

/* --- replies --- */

static int reply_with(brood_task *task, enum task_reply kind, const struct core_pickle *pickle)
{
    void *memory;
    struct core_call call = core_call_begin();
    int error = brood_task_reply_reserve(task, pickle->bytes + TASK_REPLY_HEAD, &memory);
    unsigned char *head = memory;

    core_call_end(call);
    if (error < 0)
        return error;
    head[0] = (unsigned char)kind;
    head[1] = (unsigned char)(worker.attempts < UINT8_MAX ? worker.attempts : UINT8_MAX);
    core_pickle_write(pickle, head + TASK_REPLY_HEAD);
    if (pickle->sink != NULL)
        core_sink_post(pickle->sink, memory, TASK_REPLY_HEAD);
    return 0;
}

/* rescue_value(value, error) → bytes, or the error: it may be of a class that came by value. */
static int pickle_value(struct core_state *state, PyObject *value, struct core_pickle *ret_pickle)
{
    if (core_pickle_make(state, value, SINK_LETTER, ret_pickle) == 0)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *error = core_take_error();
    PyObject *bytes = PyObject_CallFunctionObjArgs(state->rescue_value, value, error, NULL);
    Py_DECREF(error);
    return bytes != NULL ? core_pickle_take(bytes, ret_pickle) : -1;
}

static int reply_with_value(brood_task *task, PyObject *value)
{
    struct core_pickle pickle;

    if (pickle_value(worker.pool->state, value, &pickle) < 0)
        return -1;
    int error = reply_with(task, TASK_VALUE, &pickle);
    core_pickle_free(&pickle);
    if (error < 0)
        core_raise(error);
    return error;
}

/* In a full arena there may be no room for the error either: its type has to do, in words. */
static int fail_without_room(brood_task *task, PyObject *exception)
{
    char text[160];

    snprintf(text, sizeof text, "%s, of which shared memory has no room to tell more",
             exception != NULL ? Py_TYPE(exception)->tp_name : "an error");
    return brood_task_fail(task, -ENOMEM, text);
}

/* helper(exception, position or None, value or None, task's index) → bytes: pool.py makes of the exception what travels. */
static int reply_with_error(brood_task *task, PyObject *value, Py_ssize_t position)
{
    PyObject *exception = core_take_error();
    PyObject *bytes =
        PyObject_CallFunction(worker.pool->state->pack_error, "OnOn", exception, position,
                              value != NULL ? value : Py_None, (Py_ssize_t)brood_task_index(task));
    struct core_pickle pickle;
    int error = bytes == NULL && PyErr_ExceptionMatches(PyExc_MemoryError) ? -ENOMEM : -EINVAL;
    if (bytes != NULL && core_pickle_take(bytes, &pickle) == 0) {
        error = reply_with(task, TASK_ERROR, &pickle);
        core_pickle_free(&pickle);
    }
    if (error == -ENOMEM)
        error = fail_without_room(task, exception);
    else if (error < 0)
        error = brood_task_fail(task, 1, "the error of the task cannot be told");
    Py_XDECREF(exception);
    PyErr_Clear();
    return error;
}

static void flush_output(void)
{
    PyObject *out = PySys_GetObject("stdout"); /* borrowed */
    PyObject *done = out != NULL && out != Py_None ? PyObject_CallMethod(out, "flush", NULL) : NULL;

    Py_XDECREF(done);
    PyErr_Clear();
}

int task_run(brood_task *task, const void *item, void *result)
{
    Py_ssize_t position = -1;
    int code = 0;

    (void)result;
    PyEval_RestoreThread(worker.thread);
    worker.attempts = 1;
    worker.task = task;
    PyObject *value = run(task, item, &position);
    if (value == NULL)
        code = reply_with_error(task, NULL, position);
    else if (reply_with_value(task, value) < 0)
        code = reply_with_error(task, PyErr_ExceptionMatches(PyExc_MemoryError) ? NULL : value, -1);
    Py_XDECREF(value);
    worker.task = NULL; /* from here on nothing is raised because of it */
    flush_output();     /* what a task prints does not wait for the worker's end, which may be a kill */
    worker.thread = PyEval_SaveThread();
    return code;
}

/* --- for what runs --- */

static PyObject *task_ending(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(brood_task_is_ending(worker.task));
}

static PyObject *note_attempts(PyObject *module, PyObject *number)
{
    unsigned long attempts = PyLong_AsUnsignedLong(number);

    (void)module;
    if (PyErr_Occurred())
        return NULL;
    worker.attempts = attempts < UINT8_MAX ? (unsigned)attempts : UINT8_MAX;
    Py_RETURN_NONE;
}

PyMethodDef task_functions[] = {
    {"_task_ending", task_ending, METH_NOARGS,
     "_task_ending()\n--\n\nIn a worker: 0, or as which kind of outcome its task has to end."},
    {"_note_attempts", note_attempts, METH_O,
     "_note_attempts(number, /)\n--\n\nIn a worker: how often its task was begun here."},
    {NULL, NULL, 0, NULL},
};

/* --- the owner's side --- */

int task_attempts(const brood_outcome *outcome, const brood_message *reply)
{
    int here = reply->bytes >= TASK_REPLY_HEAD ? ((const unsigned char *)reply->data)[1] : 1;

    return outcome->attempts > 0 ? outcome->attempts - 1 + here : 0;
}

/* Its worker died of the signals of the pool's end: the owner's doing. */
static int was_ended_with_pool(const struct pool *pool, const brood_outcome *outcome)
{
    return pool->is_terminated && outcome->kind == BROOD_DIED &&
           (outcome->signal == SIGTERM || outcome->signal == SIGKILL);
}

/* helper(pickled error or None, first item, how many, kind, code, pid, signal, exit code, cause, attempts, text, stack_of) → exception. */
static void raise_failure(struct pool *pool, struct task_place place, const brood_outcome *outcome,
                          PyObject *packed)
{
    int is_ended = was_ended_with_pool(pool, outcome);
    PyObject *exception = PyObject_CallFunction(
        pool->state->unpack_error, "OnniiiiiiizO", packed, (Py_ssize_t)place.first, (Py_ssize_t)place.size,
        is_ended ? BROOD_PENDING : outcome->kind, outcome->code, outcome->pid, outcome->signal,
        outcome->exit_code, outcome->cause, outcome->attempts,
        is_ended ? "the pool was terminated before this was done" : outcome->text, pool->hooks[HOOK_STACK]);

    if (exception != NULL && PyExceptionInstance_Check(exception))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else if (exception != NULL)
        PyErr_SetString(PyExc_SystemError, "the error of a task is no exception");
    Py_XDECREF(exception);
}

/* A value that cannot be unpickled is an error of its own task: helper(the error, first item, how many) → exception. */
static PyObject *load_value(struct core_state *state, struct task_place place, const void *data, size_t bytes)
{
    PyObject *value = core_unpickle_in_place(state, data, bytes);

    if (value != NULL || !PyErr_ExceptionMatches(PyExc_Exception))
        return value;
    PyObject *error = core_take_error();
    PyObject *exception = PyObject_CallFunction(state->blame_value, "Onn", error, (Py_ssize_t)place.first,
                                                (Py_ssize_t)place.size);
    if (exception != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(error);
    Py_XDECREF(exception);
    return NULL;
}

PyObject *task_value(struct pool *pool, struct task_place place, const brood_outcome *outcome,
                     const brood_message *reply)
{
    const char *bytes = reply->data;
    int has_reply = outcome->kind == BROOD_VALUE && reply->bytes >= TASK_REPLY_HEAD;

    if (has_reply && bytes[0] == TASK_VALUE)
        return load_value(pool->state, place, bytes + TASK_REPLY_HEAD, reply->bytes - TASK_REPLY_HEAD);
    PyObject *packed = has_reply ? PyBytes_FromStringAndSize(bytes + TASK_REPLY_HEAD,
                                                             (Py_ssize_t)reply->bytes - TASK_REPLY_HEAD)
                                 : Py_NewRef(Py_None);
    if (packed != NULL)
        raise_failure(pool, place, outcome, packed);
    Py_XDECREF(packed);
    return NULL;
}
