/* SPDX-License-Identifier: MIT */
/* The getting side of Queue: objects, several of them, or bytes as they are. */
#include <errno.h>

#include "pickling.h"
#include "queue.h"
#include "queue/queue.h"

enum { SMALL_BYTES = 4096, BATCH_BYTES = 256 * 1024, BATCH_ITEMS = 4096 };

/* From a message to what the caller gets.  The bytes stay until it returns. */
typedef PyObject *load_message(struct core_state *state, const void *data, size_t bytes);

static PyObject *load_pickle(struct core_state *state, const void *data, size_t bytes)
{
    return bytes > SMALL_BYTES ? core_unpickle_in_place(state, data, bytes)
                               : core_unpickle(state, data, bytes);
}

static PyObject *load_bytes(struct core_state *state, const void *data, size_t bytes)
{
    (void)state;
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes);
}

static PyObject *load_borrowed(struct core_state *state, brood_queue *queue, brood_message *message,
                               load_message *load)
{
    PyObject *item = load(state, message->data, message->bytes);
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    struct core_call call = core_call_begin();
    brood_queue_release(queue, message);
    core_call_end(call);
    PyErr_Restore(type, value, traceback);
    return item;
}

/* The core's descriptor says "perhaps" until a get finds nothing.  Whoever polls here (asyncio's add_reader) gets one object each time
 * that it is readable, and would then wait in the get: so that who takes the last one looks for that get. */
static void quiet_reader(PyObject *self, brood_queue *queue)
{
    if (!((struct queue *)self)->has_reader || brood_queue_size(queue) != 0)
        return;
    struct bri_queue_shm *shm = bri_queue_of(queue);
    struct core_call call = core_call_begin();
    bri_bell_quiet(&shm->bell, bri_queue_is_readable, shm);
    core_call_end(call);
}

static PyObject *raise_get(PyObject *self, int error)
{
    if (error != -ETIMEDOUT)
        return core_raise(error);
    PyErr_SetNone(core_state_of(self)->empty);
    return NULL;
}

/* ---- one ---- */

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

static PyObject *get_until(PyObject *self, brood_queue *queue, int64_t deadline, load_message *load)
{
    struct get get;
    struct core_state *state = core_state_of(self);

    get.queue = queue;
    get.is_borrowed = 0;
    int error = core_wait(step_get, &get, deadline);
    if (error < 0)
        return raise_get(self, error);
    quiet_reader(self, queue);
    return get.is_borrowed ? load_borrowed(state, queue, &get.message, load)
                           : load(state, get.buffer, get.bytes);
}

PyObject *queue_get(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    struct queue_call call;

    if (queue_parse(self, arguments, count, keywords, "get", NULL, &call) < 0)
        return NULL;
    return get_until(self, call.queue, call.deadline, load_pickle);
}

PyObject *queue_get_nowait(PyObject *self, PyObject *unused)
{
    brood_queue *queue = queue_open_handle(self);

    (void)unused;
    return queue != NULL ? get_until(self, queue, BROOD_NOW, load_pickle) : NULL;
}

PyObject *queue_get_bytes(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    struct queue_call call;

    if (queue_parse(self, arguments, count, keywords, "get_bytes", NULL, &call) < 0)
        return NULL;
    return get_until(self, call.queue, call.deadline, load_bytes);
}

/* ---- several ---- */

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
        PyObject *item = get->is_borrowed ? load_borrowed(state, get->queue, message, load_pickle)
                                          : load_pickle(state, message->data, message->bytes);
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
        if (result > 0)
            quiet_reader(self, queue);
        items = result < 0 ? raise_get(self, result) : load_batch(self, &get, result);
    }
    PyMem_RawFree(get.buffer);
    PyMem_Free(get.messages);
    return items;
}

PyObject *queue_get_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    struct queue_call call;

    if (queue_parse(self, arguments, count, keywords, "get_many", "max_items", &call) < 0)
        return NULL;
    Py_ssize_t max_items = PyNumber_AsSsize_t(call.first, PyExc_OverflowError);
    if (max_items == -1 && PyErr_Occurred())
        return NULL;
    if (max_items < 1)
        return PyErr_Format(PyExc_ValueError, "max_items must be at least 1, not %zd", max_items);
    return get_batch(self, call.queue, max_items, call.deadline);
}
