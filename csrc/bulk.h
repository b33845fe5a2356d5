/* SPDX-License-Identifier: MIT */
/*
 * Large data: it lies in bulks of the arena (src/heap/bulk.h), and pickles refer to it.
 *
 *   holding.c   which bulks this process holds, also across forks       sink.c      pickling: what of an object is put where
 *   buffer.c    Buffer: the data as a Python object                     letter.c    letters: written, sent, read
 *   snapshot.c  an object with all its data in one bulk, for share()            arrays.c     arrays of NumPy without a pickler
 *
 * A buffer on its way, and who holds its bulk:
 *
 *   pickled      the sink (struct core_pickle), for the sender
 *   sent         the letter, which is a message of a queue or the reply of a task; of a task's arguments: the job, in its owner
 *   received     the Buffer, and so the array that lies in it, for the receiver, whose own it is: nobody else sees it, it is writable
 *
 * What a program shares on purpose (brood.empty and the like) has the flag BRI_BULK_SHARED and is passed on as a reference.
 */
#ifndef BROOD_CORE_BULK_H
#define BROOD_CORE_BULK_H

#include "core.h"

#include "heap/bulk.h"

enum {
    CORE_LARGE_BYTES = 64 * 1024
}; /* a buffer of at least so many bytes gets a bulk: design 0011 has the figures */

/* Flags of a bri_ref_shm. */
enum {
    CORE_REF_FROZEN = 1, /* was read-only where it came from */
    CORE_REF_APART = 2,  /* to be opened as a private view: it may have to be opened again as it was */
    CORE_REF_READ_ONLY = 4
};

/* ---- holding.c ---- */

/* What this process holds of one bulk. */
struct core_holding {
    struct bri_bulk_shm *bulk;
    uint32_t count;   /* of those who have it here; table's mutex, as all */
    uint32_t exports; /* of these, Buffers through which the data is seen */
    char is_detached; /* the data is private to this process, in place */
    char
        is_left; /* of the parent, and this is a child that has nothing to do with it; or this process takes part no more */
};

/* 0, or a negative errno. */
int core_holding_create(size_t bytes, uint32_t flags, int is_zeroed, struct core_holding **ret_holding);
int core_holding_open(void *ref, int is_counted, struct core_holding **ret_holding);

/* That of shared data of which these bytes are a part, once more; NULL: there is none. */
struct core_holding *core_holding_find(const void *memory, size_t bytes);

void core_holding_take(struct core_holding *holding);
void core_holding_drop(struct core_holding *holding);
void core_holding_export(struct core_holding *holding, int by);

/* False as long as there is nothing shared that could be found: asked for each array that is pickled. */
int core_holding_has_shared(void);

/* By lease.c, before this process says that it ends. */
void core_holdings_leave(void);

/* By lease.c, with the table's mutex. */
void core_holdings_before_fork(void);
void core_holdings_after_fork_in_parent(void);
void core_holdings_after_fork_in_child(void);
void core_holdings_look_after_births(void);

/* ---- buffer.c ---- */

enum core_view { CORE_VIEW_OWN, CORE_VIEW_FROZEN, CORE_VIEW_READ_ONLY, CORE_VIEW_APART };

/* Of what the holding has, at…at + bytes.  Steals the holding. */
PyObject *core_buffer_of(struct core_state *state, struct core_holding *holding, uint64_t at, uint64_t bytes,
                         enum core_view view);

/* A part of another Buffer. */
PyObject *core_buffer_part(struct core_state *state, PyObject *home, uint64_t at, uint64_t bytes,
                           int is_frozen);

/* A copy in this process's own memory. */
PyObject *core_buffer_copy(struct core_state *state, const void *data, size_t bytes, int is_frozen);

struct core_holding *core_buffer_holding(PyObject *buffer);

/* ---- counts, for tests: what this process has done ---- */

struct core_counts {
    _Atomic uint64_t copied_bytes, bulks_made, references;
};
extern struct core_counts core_counts;

#endif
