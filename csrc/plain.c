/* SPDX-License-Identifier: MIT */
/*
 * Pickles of plain objects: numbers, None, short strings and bytes in ASCII, and tuples, lists and dicts of these.  They are real pickles, of
 * protocol 3, which any unpickler reads; what makes them cheap is what is left out: a pickler with its memo, its frames, and a call for each object.
 *
 * What a pickler would do otherwise is left to it:
 *   - an object that occurs twice is to be one object on the other side: a container that is met again ends the attempt.  Numbers are never
 *     shared, in a pickle of theirs either; of strings there are few, and short ones, so that what is lost by copying them is little;
 *   - subclasses, reducers, other types: only what is exactly of one of the types is written, and a pickler asks nobody about these either.
 * So the attempt may end anywhere, with nothing done, and the same holds for reading: the first opcode that is not ours ends it.
 *
 * Arrays that lie in shared memory are among them (arrays.c), if the other side has what they lie in beside the pickle.
 *
 * Numbers may be any many: tuples of a million are what maps send.  Of other objects there are at most OTHERS.
 */
#include "plain.h"

#include "arrays.h"

#include <stdint.h>
#include <string.h>

enum { OTHERS = 64, DEPTH = 4, STRING_BYTES = 1024, SMALL = 512, STACK = 128 };

enum opcode {
    PROTO = 0x80,
    PROTOCOL = 3,
    PROTOCOL_OF_BUFFERS = 5,
    STOP = '.',
    NONE = 'N',
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    BININT = 'J',  /* 4 bytes, signed */
    BININT1 = 'K', /* 1 byte, unsigned */
    BININT2 = 'M', /* 2 bytes, unsigned */
    LONG1 = 0x8a,  /* a length of 1 byte, and as many: two's complement */
    BINFLOAT = 'G',
    BINUNICODE = 'X',     /* a length of 4 bytes, UTF-8 */
    SHORT_BINBYTES = 'C', /* a length of 1 byte */
    BINBYTES = 'B',       /* of 4 bytes */
    MARK = '(',           /* what follows is for the next of TUPLE, APPENDS, SETITEMS */
    EMPTY_TUPLE = ')',
    TUPLE = 't',
    TUPLE1 = 0x85,
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    EMPTY_LIST = ']',
    APPENDS = 'e',
    EMPTY_DICT = '}',
    SETITEMS = 'u',
    GLOBAL = 'c',       /* two lines */
    NEXT_BUFFER = 0x97, /* what came beside the pickle; protocol 5 */
    REDUCE = 'R',
};

static const char lying[] = "cbrood._arrays\n_lying\n"; /* with its opcode */

/* --- writing --- */

struct writer {
    unsigned char *begin, *at, *end;
    PyObject *bytes; /* where they lie; NULL: still in `small` */
    int others, depth;
    struct core_plain_arrays *arrays; /* or NULL */
    PyObject *seen[OTHERS];           /* containers and arrays; the first `seen_count` */
    int seen_count;
    unsigned char small[SMALL];
};

static int grow(struct writer *writer, size_t bytes)
{
    size_t used = (size_t)(writer->at - writer->begin);
    size_t wanted = 2 * (size_t)(writer->end - writer->begin) + bytes;

    if (writer->bytes != NULL) {
        if (_PyBytes_Resize(&writer->bytes, (Py_ssize_t)wanted) < 0)
            return 0;
    } else {
        writer->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)wanted);
        if (writer->bytes == NULL)
            return 0;
        memcpy(PyBytes_AS_STRING(writer->bytes), writer->small, used);
    }
    writer->begin = (unsigned char *)PyBytes_AS_STRING(writer->bytes);
    writer->at = writer->begin + used;
    writer->end = writer->begin + wanted;
    return 1;
}

/* Room for `bytes` more; NULL: none. */
static inline unsigned char *room_for(struct writer *writer, size_t bytes)
{
    if (bytes > (size_t)(writer->end - writer->at) && !grow(writer, bytes))
        return NULL;
    unsigned char *place = writer->at;
    writer->at += bytes;
    return place;
}

static int write_byte(struct writer *writer, enum opcode opcode)
{
    unsigned char *place = room_for(writer, 1);

    if (place != NULL)
        *place = (unsigned char)opcode;
    return place != NULL;
}

/* The lowest `bytes` bytes of the number, behind the opcode. */
static inline int write_number(struct writer *writer, enum opcode opcode, uint64_t number, size_t bytes)
{
    unsigned char *place = room_for(writer, 1 + bytes);

    if (place == NULL)
        return 0;
    *place++ = (unsigned char)opcode;
    for (size_t i = 0; i < bytes; i++)
        place[i] = (unsigned char)(number >> 8 * i);
    return 1;
}

static int write_int(struct writer *writer, PyObject *object)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);

    if (overflow != 0)
        return 0;
    if (number >= 0 && number <= UINT8_MAX)
        return write_number(writer, BININT1, (uint64_t)number, 1);
    if (number >= 0 && number <= UINT16_MAX)
        return write_number(writer, BININT2, (uint64_t)number, 2);
    if (number >= INT32_MIN && number <= INT32_MAX)
        return write_number(writer, BININT, (uint64_t)number, 4);
    unsigned char *place =
        write_number(writer, LONG1, sizeof number, 1) ? room_for(writer, sizeof number) : NULL;
    for (size_t i = 0; place != NULL && i < sizeof number; i++)
        place[i] = (unsigned char)((uint64_t)number >> 8 * i);
    return place != NULL;
}

static int write_float(struct writer *writer, PyObject *object)
{
    double number = PyFloat_AS_DOUBLE(object);
    uint64_t bits;

    memcpy(&bits, &number, sizeof bits);
    return write_number(writer, BINFLOAT, __builtin_bswap64(bits), sizeof bits);
}

static int write_text(struct writer *writer, enum opcode opcode, size_t length_bytes, const void *text,
                      size_t bytes)
{
    if (bytes > STRING_BYTES || !write_number(writer, opcode, bytes, length_bytes))
        return 0;
    unsigned char *place = room_for(writer, bytes);
    if (place != NULL)
        memcpy(place, text, bytes);
    return place != NULL;
}

static int write_object(struct writer *writer, PyObject *object);

static int write_all(struct writer *writer, PyObject *const *items, Py_ssize_t count)
{
    if (count > SMALL && (size_t)count * (1 + sizeof(int32_t)) > (size_t)(writer->end - writer->at) &&
        !grow(writer, (size_t)count * (1 + sizeof(int32_t)))) /* at once, as most are ints */
        return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!write_object(writer, items[i]))
            return 0;
    return 1;
}

static int write_tuple(struct writer *writer, PyObject *tuple)
{
    static const enum opcode short_ones[] = {EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3};
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    PyObject *const *items = ((PyTupleObject *)tuple)->ob_item;

    if (count <= 3)
        return write_all(writer, items, count) && write_byte(writer, short_ones[count]);
    return write_byte(writer, MARK) && write_all(writer, items, count) && write_byte(writer, TUPLE);
}

static int write_run(struct writer *writer, PyObject *const *items, Py_ssize_t count, enum opcode empty,
                     enum opcode add)
{
    return write_byte(writer, empty) &&
           (count == 0 ||
            (write_byte(writer, MARK) && write_all(writer, items, count) && write_byte(writer, add)));
}

static int write_list(struct writer *writer, PyObject *list)
{
    return write_run(writer, ((PyListObject *)list)->ob_item, PyList_GET_SIZE(list), EMPTY_LIST, APPENDS);
}

static int write_dict(struct writer *writer, PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;

    if (PyDict_GET_SIZE(dict) == 0)
        return write_byte(writer, EMPTY_DICT);
    if (!write_byte(writer, EMPTY_DICT) || !write_byte(writer, MARK))
        return 0;
    while (PyDict_Next(dict, &position, &key, &value))
        if (!write_object(writer, key) || !write_object(writer, value))
            return 0;
    return write_byte(writer, SETITEMS);
}

/* References to what is in a container: with arrays there may be a collection, or another thread's turn, while it is written.  A new reference; NULL:
 * it has changed meanwhile, or there is no memory. */
static PyObject *hold_items(PyObject *object)
{
    int is_list = PyList_CheckExact(object);
    Py_ssize_t count = is_list ? PyList_GET_SIZE(object) : 2 * PyDict_GET_SIZE(object), position = 0, i = 0;
    PyObject *items = PyTuple_New(count), *key, *value;

    if (items == NULL || count != (is_list ? PyList_GET_SIZE(object) : 2 * PyDict_GET_SIZE(object))) {
        Py_XDECREF(items);
        return NULL;
    }
    for (; is_list && i < count; i++)
        PyTuple_SET_ITEM(items, i, Py_NewRef(PyList_GET_ITEM(object, i)));
    while (!is_list && PyDict_Next(object, &position, &key, &value)) {
        PyTuple_SET_ITEM(items, i++, Py_NewRef(key));
        PyTuple_SET_ITEM(items, i++, Py_NewRef(value));
    }
    return items;
}

/* A list or a dict. */
static int write_holding(struct writer *writer, PyObject *object)
{
    PyObject *items = hold_items(object);
    int is_list = PyList_CheckExact(object);
    int done = items != NULL && write_run(writer, ((PyTupleObject *)items)->ob_item, PyTuple_GET_SIZE(items),
                                          is_list ? EMPTY_LIST : EMPTY_DICT, is_list ? APPENDS : SETITEMS);

    Py_XDECREF(items);
    return done;
}

/* Is it the first time that it occurs?  No more than `others` are asked for. */
static int note(struct writer *writer, PyObject *object)
{
    for (int i = 0; i < writer->seen_count; i++)
        if (writer->seen[i] == object)
            return 0;
    writer->seen[writer->seen_count++] = object;
    return 1;
}

/* Without the GIL another thread may change a list or a dict while it is written. */
static int write_container(struct writer *writer, PyObject *object)
{
    int done = 0;

    if (!note(writer, object) || writer->depth == DEPTH)
        return 0;
    writer->depth++;
    if (PyTuple_CheckExact(object))
        done = write_tuple(writer, object);
#ifndef Py_GIL_DISABLED
    else if (writer->arrays != NULL && (PyList_CheckExact(object) || PyDict_CheckExact(object)))
        done = write_holding(writer, object);
    else if (PyList_CheckExact(object))
        done = write_list(writer, object);
    else if (PyDict_CheckExact(object))
        done = write_dict(writer, object);
#endif
    writer->depth--;
    return done;
}

static int write_array(struct writer *writer, PyObject *array)
{
    PyObject *arguments = note(writer, array) ? core_array_reduce(writer->arrays, array) : NULL;
    unsigned char *place = arguments != NULL ? room_for(writer, sizeof lying - 1) : NULL;
    int done = 0, seen = writer->seen_count;

    if (place != NULL) {
        memcpy(place, lying, sizeof lying - 1);
        writer->begin[1] = PROTOCOL_OF_BUFFERS;
        done = write_byte(writer, MARK) && write_byte(writer, NEXT_BUFFER) &&
               write_all(writer, ((PyTupleObject *)arguments)->ob_item, PyTuple_GET_SIZE(arguments)) &&
               write_byte(writer, TUPLE) && write_byte(writer, REDUCE);
    }
    writer->seen_count = seen; /* the arguments go, and others may come where they were */
    Py_XDECREF(arguments);
    return done;
}

static int write_other(struct writer *writer, PyObject *object)
{
    if (writer->others++ == OTHERS)
        return 0;
    if (writer->arrays != NULL && Py_IS_TYPE(object, (PyTypeObject *)core_array_type(writer->arrays->state)))
        return write_array(writer, object);
    if (PyUnicode_CheckExact(object))
        return PyUnicode_IS_COMPACT_ASCII(object) && write_text(writer, BINUNICODE, 4, PyUnicode_DATA(object),
                                                                (size_t)PyUnicode_GET_LENGTH(object));
    if (PyBytes_CheckExact(object)) {
        size_t bytes = (size_t)PyBytes_GET_SIZE(object);
        return bytes <= UINT8_MAX ? write_text(writer, SHORT_BINBYTES, 1, PyBytes_AS_STRING(object), bytes)
                                  : write_text(writer, BINBYTES, 4, PyBytes_AS_STRING(object), bytes);
    }
    return write_container(writer, object);
}

/* 0: it is not for us. */
static int write_object(struct writer *writer, PyObject *object)
{
    if (PyLong_CheckExact(object))
        return write_int(writer, object);
    if (PyFloat_CheckExact(object))
        return write_float(writer, object);
    if (object == Py_None)
        return write_byte(writer, NONE);
    if (PyBool_Check(object))
        return write_byte(writer, object == Py_True ? NEWTRUE : NEWFALSE);
    return write_other(writer, object);
}

PyObject *core_plain_dumps(PyObject *object, struct core_plain_arrays *arrays)
{
    struct writer writer;

    writer.begin = writer.at = writer.small;
    writer.end = writer.small + SMALL;
    writer.bytes = NULL;
    writer.arrays = arrays;
    writer.others = writer.depth = writer.seen_count = 0;
    if (write_number(&writer, PROTO, PROTOCOL, 1) && write_object(&writer, object) &&
        write_byte(&writer, STOP)) {
        if (writer.bytes == NULL)
            writer.bytes = PyBytes_FromStringAndSize((const char *)writer.begin, writer.at - writer.begin);
        else
            _PyBytes_Resize(&writer.bytes, writer.at - writer.begin);
    } else {
        Py_CLEAR(writer.bytes);
    }
    if (writer.bytes == NULL)
        PyErr_Clear();
    return writer.bytes;
}

/* --- reading --- */

struct reader {
    const unsigned char *at, *end;
    PyObject **stack, **top, **limit; /* [stack, top) are ours */
    struct core_plain_arrays *arrays; /* or NULL */
    Py_ssize_t
        marks[DEPTH + 3]; /* how many objects lie below each mark; an array has one, and its shape may */
    int mark_count, open_arrays; /* whose type is on the stack, and which are not there yet */
    PyObject *small[STACK];
};

static int push(struct reader *reader, PyObject *object)
{
    if (object == NULL)
        return 0;
    if (reader->top == reader->limit) {
        size_t count = (size_t)(reader->top - reader->stack);
        PyObject **grown =
            PyMem_Realloc(reader->stack == reader->small ? NULL : reader->stack, 2 * count * sizeof *grown);
        if (grown == NULL) {
            Py_DECREF(object);
            PyErr_NoMemory();
            return 0;
        }
        if (reader->stack == reader->small)
            memcpy(grown, reader->small, sizeof reader->small);
        reader->stack = grown;
        reader->top = grown + count;
        reader->limit = grown + 2 * count;
    }
    *reader->top++ = object;
    return 1;
}

/* The next `bytes`; NULL: so many are not there. */
static const unsigned char *take(struct reader *reader, size_t bytes)
{
    const unsigned char *place = reader->at;

    if (bytes > (size_t)(reader->end - reader->at))
        return NULL;
    reader->at += bytes;
    return place;
}

static inline int take_number(struct reader *reader, size_t bytes, uint64_t *ret_number)
{
    const unsigned char *place = take(reader, bytes);

    *ret_number = 0;
    for (size_t i = 0; place != NULL && i < bytes; i++)
        *ret_number |= (uint64_t)place[i] << 8 * i;
    return place != NULL;
}

static inline int read_int(struct reader *reader, size_t bytes)
{
    uint64_t number;

    return take_number(reader, bytes, &number) &&
           push(reader, PyLong_FromLong(bytes == 4 ? (long)(int32_t)number : (long)number));
}

static int read_long(struct reader *reader)
{
    uint64_t bytes, number;

    return take_number(reader, 1, &bytes) && bytes == sizeof number &&
           take_number(reader, sizeof number, &number) &&
           push(reader, PyLong_FromLongLong((long long)number));
}

static int read_float(struct reader *reader)
{
    uint64_t bits;
    double number;

    if (!take_number(reader, sizeof bits, &bits))
        return 0;
    bits = __builtin_bswap64(bits);
    memcpy(&number, &bits, sizeof number);
    return push(reader, PyFloat_FromDouble(number));
}

static int read_text(struct reader *reader, size_t length_bytes, PyObject *make(const char *, Py_ssize_t))
{
    uint64_t bytes;

    if (!take_number(reader, length_bytes, &bytes) || bytes > STRING_BYTES)
        return 0;
    const unsigned char *text = take(reader, bytes);
    return text != NULL && push(reader, make((const char *)text, (Py_ssize_t)bytes));
}

static PyObject *unicode(const char *text, Py_ssize_t bytes)
{
    return PyUnicode_DecodeUTF8(text, bytes, NULL);
}

static PyObject *binary(const char *text, Py_ssize_t bytes)
{
    return PyBytes_FromStringAndSize(text, bytes);
}

/* Of the topmost objects. */
static int read_tuple(struct reader *reader, Py_ssize_t count)
{
    if (count < 0 || count > reader->top - reader->stack)
        return 0;
    PyObject *tuple = PyTuple_New(count);
    if (tuple == NULL)
        return 0;
    reader->top -= count;
    memcpy(((PyTupleObject *)tuple)->ob_item, reader->top, (size_t)count * sizeof *reader->top);
    return push(reader, tuple);
}

/* How many lie above the last mark, which goes; -1: there is none. */
static Py_ssize_t unmark(struct reader *reader)
{
    return reader->mark_count == 0 ? -1 : reader->top - reader->stack - reader->marks[--reader->mark_count];
}

static int read_mark(struct reader *reader)
{
    if (reader->mark_count == sizeof reader->marks / sizeof reader->marks[0])
        return 0;
    reader->marks[reader->mark_count++] = reader->top - reader->stack;
    return 1;
}

static int read_list(struct reader *reader)
{
    Py_ssize_t count = unmark(reader);
    PyObject **items = reader->top - count;

    if (count < 0 || items == reader->stack || !PyList_CheckExact(items[-1]) ||
        PyList_GET_SIZE(items[-1]) != 0)
        return 0;
    PyObject *list = PyList_New(count);
    if (list == NULL)
        return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        PyList_SET_ITEM(list, i, items[i]);
    reader->top = items;
    Py_SETREF(items[-1], list);
    return 1;
}

static int read_dict(struct reader *reader)
{
    Py_ssize_t count = unmark(reader);
    PyObject **items = reader->top - count;

    if (count < 0 || count % 2 != 0 || items == reader->stack || !PyDict_CheckExact(items[-1]))
        return 0;
    for (Py_ssize_t i = 0; i < count; i += 2)
        if (PyDict_SetItem(items[-1], items[i], items[i + 1]) < 0)
            return 0;
    while (reader->top > items)
        Py_DECREF(*--reader->top);
    return 1;
}

/* The type stands for the function, until the arguments are there. */
static int read_global(struct reader *reader)
{
    const unsigned char *name = reader->arrays != NULL ? take(reader, sizeof lying - 2) : NULL;

    reader->open_arrays++;
    return name != NULL && memcmp(name, lying + 1, sizeof lying - 2) == 0 &&
           push(reader, Py_NewRef(core_array_type(reader->arrays->state)));
}

static int read_buffer(struct reader *reader)
{
    struct core_plain_arrays *arrays = reader->arrays;

    return arrays != NULL && arrays->next < PyList_GET_SIZE(arrays->parts) &&
           push(reader, Py_NewRef(PyList_GET_ITEM(arrays->parts, arrays->next++)));
}

static int read_array(struct reader *reader)
{
    PyObject **top = reader->top;

    if (reader->arrays == NULL || top - reader->stack < 2 || !PyTuple_CheckExact(top[-1]) ||
        top[-2] != core_array_type(reader->arrays->state))
        return 0;
    PyObject *array = core_array_rebuild(reader->arrays->state, top[-1]);
    if (array == NULL)
        return 0;
    Py_DECREF(top[-1]);
    reader->top--;
    reader->open_arrays--;
    Py_SETREF(top[-2], array);
    return 1;
}

static int read_container(struct reader *reader, unsigned char opcode)
{
    switch (opcode) {
    case MARK:
        return read_mark(reader);
    case EMPTY_TUPLE:
        return read_tuple(reader, 0);
    case TUPLE1:
    case TUPLE2:
    case TUPLE3:
        return read_tuple(reader, opcode - TUPLE1 + 1);
    case TUPLE:
        return read_tuple(reader, unmark(reader));
    case EMPTY_LIST:
        return push(reader, PyList_New(0));
    case APPENDS:
        return read_list(reader);
    case EMPTY_DICT:
        return push(reader, PyDict_New());
    case SETITEMS:
        return read_dict(reader);
    case GLOBAL:
        return read_global(reader);
    case NEXT_BUFFER:
        return read_buffer(reader);
    case REDUCE:
        return read_array(reader);
    default:
        return 0;
    }
}

/* 0: it is not one of ours. */
static int read_one(struct reader *reader, unsigned char opcode)
{
    switch (opcode) {
    case BININT:
        return read_int(reader, 4);
    case BININT1:
        return read_int(reader, 1);
    case BININT2:
        return read_int(reader, 2);
    case LONG1:
        return read_long(reader);
    case BINFLOAT:
        return read_float(reader);
    case NONE:
        return push(reader, Py_NewRef(Py_None));
    case NEWTRUE:
        return push(reader, Py_NewRef(Py_True));
    case NEWFALSE:
        return push(reader, Py_NewRef(Py_False));
    case BINUNICODE:
        return read_text(reader, 4, unicode);
    case SHORT_BINBYTES:
        return read_text(reader, 1, binary);
    case BINBYTES:
        return read_text(reader, 4, binary);
    default:
        return read_container(reader, opcode);
    }
}

PyObject *core_plain_loads(const void *data, size_t bytes, struct core_plain_arrays *arrays)
{
    struct reader reader;
    PyObject *object = NULL;
    const unsigned char *head = data;

    if (bytes < 3 || head[0] != PROTO || head[1] != (arrays != NULL ? PROTOCOL_OF_BUFFERS : PROTOCOL))
        return NULL;
    reader.at = head + 2;
    reader.end = head + bytes;
    reader.stack = reader.top = reader.small;
    reader.limit = reader.small + STACK;
    reader.mark_count = reader.open_arrays = 0;
    reader.arrays = arrays;
    int is_fine = 1;
    while (is_fine && reader.at < reader.end && *reader.at != STOP)
        is_fine = read_one(&reader, *reader.at++);
    if (is_fine && reader.at < reader.end && reader.top - reader.stack == 1 && reader.mark_count == 0 &&
        reader.open_arrays == 0)
        object = *--reader.top;
    if (object == NULL && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear(); /* a real one says what is wrong with them */
    while (reader.top > reader.stack)
        Py_DECREF(*--reader.top);
    if (reader.stack != reader.small)
        PyMem_Free(reader.stack);
    return object;
}
