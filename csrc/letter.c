/* SPDX-License-Identifier: MIT */
/*
 * Letters: a pickle with buffers beside it.
 *
 *   | letter_head | bri_ref_shm, one per buffer | the pickle | small buffers, aligned |
 *
 * A letter begins with a byte that no pickle begins with, so that who reads knows which of the two it is.  What a reference with serial 0 names
 * lies in the letter itself, `at` bytes from its begin.  In a box the letter is all in one bulk, and what travels is a letter of a single
 * reference to that: arguments of tasks, which the core copies, stay short so.
 */
#include <errno.h>
#include <string.h>

#include "arrays.h"
#include "base/error.h"
#include "pickling.h"
#include "plain.h"

#define MAGIC "\0letter1"

enum { IS_COUNTED = 1, IS_BOX = 2 }; /* flags */
enum { PART_ALIGN = 64, BOX_BYTES = 64 * 1024, LONG_COPY = 256 * 1024 };

struct letter_head {
    char magic[8];
    uint32_t count, flags;
    uint64_t pickle_bytes;
};

/* ---- sealing ---- */

/* Other threads run while much is copied; what is copied is ours, or a view of it is. */
static void copy(void *to, const void *from, size_t bytes)
{
    if (bytes == 0)
        return; /* an empty buffer may have no address */
    if (bytes < LONG_COPY) {
        memcpy(to, from, bytes);
    } else {
        Py_BEGIN_ALLOW_THREADS;
        memcpy(to, from, bytes);
        Py_END_ALLOW_THREADS;
    }
    bri_add_relaxed(&core_counts.copied_bytes, (uint64_t)bytes);
}

static void refer(struct sink_part *part, const char *data, uint32_t flags)
{
    struct bri_bulk_shm *bulk = part->holding->bulk;

    part->ref = (struct bri_ref_shm){.bulk = bri_offset_of(bulk),
                                     .serial = bri_load_relaxed(&bulk->serial),
                                     .at = (uint64_t)(data - (char *)bri_bulk_data(bulk)),
                                     .bytes = (uint64_t)part->view.len,
                                     .flags = flags};
}

static int give_bulk(struct sink *sink, struct sink_part *part)
{
    int error = core_holding_create((size_t)part->view.len, 0, 0, &part->holding);

    if (error < 0) {
        core_raise(error);
        return -1;
    }
    char *data = bri_bulk_data(part->holding->bulk);
    copy(data, part->view.buf, (size_t)part->view.len);
    refer(part, data,
          (part->view.readonly ? CORE_REF_FROZEN : 0u) |
              (sink->purpose == SINK_RETRIED ? CORE_REF_APART : 0u));
    return 0;
}

static int settle_part(struct sink *sink, struct sink_part *part)
{
    if (sink->purpose != SINK_SNAPSHOT && part->holding == NULL)
        part->holding = core_holding_find(part->view.buf, (size_t)part->view.len);
    if (part->holding != NULL) {
        bri_add_relaxed(&core_counts.references, UINT64_C(1));
        refer(part, part->view.buf, part->view.readonly ? CORE_REF_READ_ONLY : 0);
        return 0;
    }
    if (sink->purpose != SINK_SNAPSHOT && part->view.len >= CORE_LARGE_BYTES)
        return give_bulk(sink, part);
    sink->bytes = (sink->bytes + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
    part->ref = (struct bri_ref_shm){.at = sink->bytes,
                                     .bytes = (uint64_t)part->view.len,
                                     .flags = part->view.readonly ? CORE_REF_FROZEN : 0};
    sink->bytes += (size_t)part->view.len;
    return 0;
}

static size_t bytes_before_pickle(const struct sink *sink)
{
    return sink->part_count > 0 ? sizeof(struct letter_head) + sink->part_count * sizeof(struct bri_ref_shm)
                                : 0;
}

static int is_counted(const struct sink *sink)
{
    return sink->purpose == SINK_LETTER;
}

/* ---- writing ---- */

static void write_pickle(const struct sink *sink, char *to)
{
    size_t done = 0;

    for (size_t i = 0; i < sink->piece_count; i++) {
        const struct sink_piece *piece = &sink->pieces[i];
        if (piece->after > done) /* small is NULL when there is nothing small at all */
            memcpy(to, sink->small + done, piece->after - done);
        to += piece->after - done;
        done = piece->after;
        copy(to, piece->view.buf, (size_t)piece->view.len);
        to += piece->view.len;
    }
    if (sink->small_bytes > done)
        memcpy(to, sink->small + done, sink->small_bytes - done);
}

static void write_head(char *to, uint32_t count, uint32_t flags, uint64_t pickle_bytes)
{
    struct letter_head head = {.count = count, .flags = flags, .pickle_bytes = pickle_bytes};

    memcpy(head.magic, MAGIC, sizeof head.magic);
    memcpy(to, &head, sizeof head);
}

static void write_all(const struct sink *sink, char *to)
{
    char *refs = to + sizeof(struct letter_head);

    write_pickle(sink, to + bytes_before_pickle(sink));
    if (sink->part_count == 0)
        return;
    write_head(to, (uint32_t)sink->part_count, is_counted(sink) ? IS_COUNTED : 0, sink->pickle_bytes);
    for (size_t i = 0; i < sink->part_count; i++) {
        const struct sink_part *part = &sink->parts[i];
        memcpy(refs + i * sizeof part->ref, &part->ref, sizeof part->ref);
        if (part->holding == NULL)
            copy(to + part->ref.at, part->view.buf, (size_t)part->view.len);
    }
}

static struct bri_ref_shm ref_to_box(const struct sink *sink, size_t bytes)
{
    return (struct bri_ref_shm){.bulk = bri_offset_of(sink->box->bulk),
                                .serial = bri_load_relaxed(&sink->box->bulk->serial),
                                .bytes = bytes};
}

static int put_in_box(struct sink *sink)
{
    int error = core_holding_create(sink->bytes, 0, 0, &sink->box);

    if (error < 0) {
        core_raise(error);
        return -1;
    }
    write_all(sink, bri_bulk_data(sink->box->bulk));
    return 0;
}

int core_sink_seal(struct sink *sink)
{
    if (sink->part_count > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "too many buffers in one object");
        return -1;
    }
    sink->bytes = bytes_before_pickle(sink) + sink->pickle_bytes;
    for (size_t i = 0; i < sink->part_count; i++)
        if (settle_part(sink, &sink->parts[i]) < 0)
            return -1;
    int is_item = sink->purpose == SINK_ITEM || sink->purpose == SINK_RETRIED;
    return is_item && sink->bytes >= BOX_BYTES ? put_in_box(sink) : 0;
}

size_t core_sink_bytes(const struct sink *sink)
{
    return sink->box != NULL ? sizeof(struct letter_head) + sizeof(struct bri_ref_shm) : sink->bytes;
}

void core_sink_write(const struct sink *sink, void *to)
{
    if (sink->box == NULL) {
        write_all(sink, to);
        return;
    }
    struct bri_ref_shm ref = ref_to_box(sink, sink->bytes);
    write_head(to, 1, IS_BOX, 0);
    memcpy((char *)to + sizeof(struct letter_head), &ref, sizeof ref);
}

/* ---- sending ---- */

size_t core_sink_own_bytes(const struct sink *sink)
{
    size_t bytes = sink->box != NULL ? sink->box->bulk->bytes : 0;

    for (size_t i = 0; i < sink->part_count; i++) {
        const struct core_holding *holding = sink->parts[i].holding;
        if (holding != NULL && !(holding->bulk->flags & BRI_BULK_SHARED))
            bytes += holding->bulk->bytes;
    }
    return bytes;
}

int core_sink_is_letter(const struct sink *sink)
{
    for (size_t i = 0; i < sink->part_count; i++)
        if (sink->parts[i].holding != NULL)
            return 1;
    return 0;
}

void core_sink_post(const struct sink *sink, void *payload, size_t at)
{
    if (!core_sink_is_letter(sink))
        return;
    bri_letter_mark(payload, (uint32_t)(at + sizeof(struct letter_head)),
                    (uint32_t)sink->part_count); /* T0 */
    for (size_t i = 0; i < sink->part_count; i++)
        if (sink->parts[i].holding != NULL)
            bri_bulk_add_letter(sink->parts[i].holding->bulk); /* T1 */
}

void core_sink_recall(const struct sink *sink)
{
    for (size_t i = 0; i < sink->part_count; i++)
        if (sink->parts[i].holding != NULL)
            bri_bulk_take_letter(sink->parts[i].holding->bulk);
}

/* ---- reading ---- */

int core_letter_is(const void *data, size_t bytes)
{
    return bytes >= sizeof(struct letter_head) && memcmp(data, MAGIC, 8) == 0;
}

static PyObject *refuse(void)
{
    PyErr_SetString(PyExc_ValueError, "what was received is damaged");
    return NULL;
}

static enum core_view view_of(uint32_t flags)
{
    if (flags & CORE_REF_READ_ONLY)
        return CORE_VIEW_READ_ONLY;
    if (flags & CORE_REF_APART)
        return CORE_VIEW_APART;
    return flags & CORE_REF_FROZEN ? CORE_VIEW_FROZEN : CORE_VIEW_OWN;
}

/* What a reader knows of a letter. */
struct reading {
    struct core_state *state;
    char *data;
    size_t bytes;
    PyObject *home; /* the Buffer that it lies in; NULL: memory that does not stay */
    struct letter_head head;
};

static PyObject *open_part(const struct reading *reading, size_t i)
{
    struct bri_ref_shm ref;
    char *place = reading->data + sizeof(struct letter_head) + i * sizeof ref;
    struct core_holding *holding;

    memcpy(&ref, place, sizeof ref);
    if (ref.serial != 0) {
        int error = core_holding_open(place, (int)(reading->head.flags & IS_COUNTED), &holding);
        return error < 0 ? core_raise(error)
                         : core_buffer_of(reading->state, holding, ref.at, ref.bytes, view_of(ref.flags));
    }
    if (ref.at > reading->bytes || ref.bytes > reading->bytes - ref.at)
        return refuse();
    if (reading->home != NULL)
        return core_buffer_part(reading->state, reading->home, ref.at, ref.bytes,
                                (int)ref.flags & CORE_REF_FROZEN);
    return core_buffer_copy(reading->state, reading->data + ref.at, ref.bytes,
                            (int)ref.flags & CORE_REF_FROZEN);
}

static PyObject *open_parts(const struct reading *reading)
{
    PyObject *parts = PyList_New((Py_ssize_t)reading->head.count);

    for (size_t i = 0; parts != NULL && i < reading->head.count; i++) {
        PyObject *part = open_part(reading, i);
        if (part == NULL)
            Py_CLEAR(parts);
        else
            PyList_SET_ITEM(parts, (Py_ssize_t)i, part);
    }
    return parts;
}

static PyObject *load(struct core_state *state, const void *pickle, size_t bytes, PyObject *parts)
{
    struct core_plain_arrays arrays = {.state = state, .parts = parts};
    PyObject *plain =
        parts != NULL && core_array_type(state) != NULL ? core_plain_loads(pickle, bytes, &arrays) : NULL;
    if (plain != NULL || PyErr_Occurred())
        return plain;
    PyObject *view = PyMemoryView_FromMemory((char *)(uintptr_t)pickle, (Py_ssize_t)bytes, PyBUF_READ);
    PyObject *arguments[] = {view, parts}, *object = NULL;

    if (view != NULL)
        object = PyObject_Vectorcall(state->plain_loads, arguments, 1,
                                     parts != NULL ? state->loads_keywords : NULL);
    Py_XDECREF(view);
    return object;
}

/* No box lies in another. */
static int is_box(const void *data, size_t bytes)
{
    struct letter_head head;

    if (!core_letter_is(data, bytes))
        return 0;
    memcpy(&head, data, sizeof head);
    return (head.flags & IS_BOX) != 0;
}

static PyObject *load_box(const struct reading *reading)
{
    PyObject *home = open_part(reading, 0);
    Py_buffer view;

    if (home == NULL || PyObject_GetBuffer(home, &view, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(home);
        return NULL;
    }
    PyObject *object = is_box(view.buf, (size_t)view.len)
                           ? refuse()
                           : core_letter_load(reading->state, view.buf, (size_t)view.len, NULL);
    PyBuffer_Release(&view);
    Py_DECREF(home);
    return object;
}

PyObject *core_letter_load(struct core_state *state, const void *data, size_t bytes, PyObject *home)
{
    struct reading reading = {state, (char *)(uintptr_t)data, bytes, home, {.count = 0}};

    if (!core_letter_is(data, bytes))
        return load(state, data, bytes, NULL);
    memcpy(&reading.head, data, sizeof reading.head);
    uint64_t before = sizeof reading.head + reading.head.count * (uint64_t)sizeof(struct bri_ref_shm);
    if (before > bytes || reading.head.pickle_bytes > bytes - before)
        return refuse();
    if (reading.head.flags & IS_BOX)
        return reading.head.count == 1 ? load_box(&reading) : refuse();
    PyObject *parts = open_parts(&reading);
    PyObject *object =
        parts != NULL ? load(state, reading.data + before, reading.head.pickle_bytes, parts) : NULL;
    Py_XDECREF(parts);
    return object;
}
