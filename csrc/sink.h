/* SPDX-License-Identifier: MIT */
/* Sink: where a pickler puts an object.  A file to it, and what it calls with the buffers that travel beside the pickle. */
#ifndef BROOD_SINK_H
#define BROOD_SINK_H

#include "bulk.h"

enum sink_purpose {
    SINK_LETTER,   /* a message or a reply: opened once */
    SINK_ITEM,     /* arguments of a task: held by the job */
    SINK_RETRIED,  /* the same, and they may be needed again as they are now */
    SINK_SNAPSHOT, /* all of it in one piece, which refers to nothing */
};

/* Large bytes of the pickle itself, left where they are until they are copied to where they go. */
struct sink_piece {
    Py_buffer view;
    size_t after; /* so many small bytes */
};

/* A buffer beside the pickle. */
struct sink_part {
    Py_buffer view;
    struct core_holding *holding; /* of its bulk; NULL: it lies in the letter */
    struct bri_ref_shm ref;       /* without a bulk: where it lies from the letter's begin */
};

struct sink {
    PyObject_HEAD enum sink_purpose purpose;
    char *small;
    size_t small_bytes, small_room;
    struct sink_piece *pieces;
    size_t piece_count, piece_room;
    struct sink_part *parts;
    size_t part_count, part_room;
    size_t pickle_bytes;      /* small ones and pieces */
    size_t bytes;             /* of the whole, once it is sealed */
    struct core_holding *box; /* holds the whole: what is left is a reference to it */
};

/* The pickle of the object by ForkingPickler, not sealed yet; NULL with an exception. */
struct sink *core_sink_make(struct core_state *state, PyObject *object, enum sink_purpose purpose);

/* An empty one, and, around a call of a pickler in this thread that writes to it, what tells reducers that it does. */
struct sink *core_sink_new(struct core_state *state, enum sink_purpose purpose);
struct sink *core_sink_open(struct sink *sink);
void core_sink_close(struct sink *before);
int core_sink_is_open(enum sink_purpose *ret_purpose);

/* A buffer beside the pickle, and what it lies in; bytes of the pickle.  Takes both; 0, or -1 with MemoryError, and nothing is taken. */
int core_sink_add(struct sink *sink, const Py_buffer *view, struct core_holding *holding);
int core_sink_append(struct sink *sink, const void *data, size_t bytes);

/* It was written: of the object nothing is needed any more, only the bulks are held. */
void core_sink_strip(struct sink *sink);

/* letter.c: decides where everything lies, and copies what gets bulks of its own.  0, or -1 with an exception: MemoryError. */
int core_sink_seal(struct sink *sink);

/* ---- letter.c: of a sealed one ---- */

size_t core_sink_bytes(const struct sink *sink);
void core_sink_write(const struct sink *sink, void *to);

/* Of its bulks, those that were made for it. */
size_t core_sink_own_bytes(const struct sink *sink);

/* Does it refer to bulks? */
int core_sink_is_letter(const struct sink *sink);

/* It has been written to a block of ours, `at` bytes into it, that will be sent now.  recall: it was not. */
void core_sink_post(const struct sink *sink, void *payload, size_t at);
void core_sink_recall(const struct sink *sink);

/* Is it a letter, or a plain pickle? */
int core_letter_is(const void *data, size_t bytes);

/* The object of a letter or a pickle.  The memory stays until this returns; home: the Buffer that it lies in, which may be referred to. */
PyObject *core_letter_load(struct core_state *state, const void *data, size_t bytes, PyObject *home);

#endif
