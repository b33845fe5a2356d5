/* SPDX-License-Identifier: MIT */
/*
 * Tally: how much of what was put into a JoinableQueue is done.
 *
 * unfinished = all that was ever put (the queue's own cursor) - done
 *
 * So a put is one step, as with any queue: no process that is killed in it leaves a count behind that join would wait for in vain.
 *
 * field   writer               readers        protection
 * done    task_done, by CAS    task_done,     none is needed
 *                              join
 * zeros   task_done            join           atomic: how often nothing was unfinished; a join that slept through such a moment
 *                                             sees that there was one
 *
 * Killed between done + 1 and the notify: who joins looks again by itself every so often.
 */
#include "core.h"

#include <errno.h>
#include <stddef.h>

#include "queue/queue.h"

enum { LOOK_AGAIN_MS = 100 };

struct tally_shm {
    _Atomic uint64_t done;
    _Atomic uint64_t zeros;
};

struct join {
    struct tally_shm *tally;
    struct bri_queue_shm *queue;
    brood_condition *room;
    uint64_t zeros; /* when it began */
};

static uint64_t puts_into(const struct bri_queue_shm *queue)
{
    uint64_t messages, bytes;

    bri_cursor_read(&queue->put, &messages, &bytes);
    return messages;
}

static int is_over(const struct join *join)
{
    return bri_load_seq_cst(&join->tally->zeros) != join->zeros ||
           bri_load_seq_cst(&join->tally->done) >= puts_into(join->queue);
}

static int step_enter(void *room, int64_t deadline)
{
    return brood_condition_acquire(room, deadline);
}

/* The room is entered before the look, so that no notify falls between the look and the wait. */
static int step_join(void *argument, int64_t deadline)
{
    struct join *join = argument;
    int result = 0;

    if (deadline == BROOD_NOW) /* with the GIL, for which the holder of the room may be waiting */
        return is_over(join) ? 0 : -ETIMEDOUT;
    while (!is_over(join)) {
        int64_t slice = brood_after_ms(LOOK_AGAIN_MS);
        result = brood_condition_acquire(join->room, deadline);
        if (result < 0)
            break;
        result = is_over(join) ? 0 : brood_condition_wait(join->room, slice < deadline ? slice : deadline);
        brood_condition_release(join->room);
        if (result == -ETIMEDOUT && slice < deadline)
            result = 0;
        if (result < 0)
            break;
    }
    return result != -EINTR && is_over(join) ? 0 : result;
}

/* The arguments of both functions: the queue and the room.  Borrowed. */
static int parse(PyObject *self, PyObject *arguments, const char *format, struct join *ret_join)
{
    PyObject *queue, *room;
    const struct core_state *state = core_state_of(self);

    if (!PyArg_ParseTuple(arguments, format, state->queue_type, &queue, state->condition_type, &room))
        return -1;
    ret_join->tally = core_object_handle(self);
    ret_join->queue = core_object_handle(queue);
    ret_join->room = core_object_handle(room);
    return ret_join->tally != NULL && ret_join->queue != NULL && ret_join->room != NULL ? 0 : -1;
}

/* -1 when there is nothing to be done; else 1 when this was the last. */
static int count_done(struct tally_shm *tally, const struct bri_queue_shm *queue)
{
    uint64_t done = bri_load_acquire(&tally->done), puts;

    do {
        puts = puts_into(queue);
        if (done >= puts)
            return -1;
    } while (!bri_cas_seq_cst(&tally->done, &done, done + 1));
    return done + 1 == puts;
}

static PyObject *task_done(PyObject *self, PyObject *arguments)
{
    struct join join;

    if (parse(self, arguments, "O!O!:task_done", &join) < 0)
        return NULL;
    int is_last = count_done(join.tally, join.queue);
    if (is_last < 0) {
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
        return NULL;
    }
    if (is_last) {
        bri_add_relaxed(&join.tally->zeros, UINT64_C(1));
        int result = core_wait(step_enter, join.room, BROOD_FOREVER);
        if (result < 0)
            return core_raise(result);
        struct core_call call = core_call_begin();
        brood_condition_notify(join.room, UINT32_MAX);
        brood_condition_release(join.room);
        core_call_end(call);
    }
    Py_RETURN_NONE;
}

static PyObject *join_tally(PyObject *self, PyObject *arguments)
{
    struct join join;

    if (parse(self, arguments, "O!O!:join", &join) < 0)
        return NULL;
    join.zeros = bri_load_seq_cst(&join.tally->zeros);
    int result = core_wait(step_join, &join, BROOD_FOREVER);
    return result < 0 ? core_raise(result) : Py_NewRef(Py_None);
}

static int init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    void *memory = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, ":Tally", names))
        return -1;
    struct core_call call = core_call_begin();
    int error = brood_alloc(sizeof(struct tally_shm), &memory);
    core_call_end(call);
    return core_object_fill(self, CORE_TALLY, error, memory);
}

static PyObject *reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return core_object_reduce(self, PyTuple_New(0));
}

static PyMethodDef methods[] = {
    {"task_done", task_done, METH_VARARGS,
     "task_done($self, queue, room)\n--\n\nOne more of the queue's is done."},
    {"join", join_tally, METH_VARARGS,
     "join($self, queue, room)\n--\n\nWaits until all that was put is done."},
    {"__reduce__", reduce, METH_NOARGS, "Pickles as a reference."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tally_slots[] = {
    {Py_tp_doc, "Tally()\n--\n\nHow much of what was put into a queue is done."},
    {Py_tp_init, init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "brood._core.Tally",
    .basicsize = sizeof(struct core_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = tally_slots,
};

int core_add_tally(PyObject *module)
{
    return core_add_type(module, &spec, &((struct core_state *)PyModule_GetState(module))->tally_type);
}
