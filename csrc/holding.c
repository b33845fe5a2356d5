/* SPDX-License-Identifier: MIT */
/*
 * Which bulks this process holds: one holding per bulk, sorted by address, under the table's mutex of lease.c.
 *
 * A fork.  Before it, each bulk that a Buffer shows expects one more holder, and data that nobody shares on purpose becomes private in place
 * (src/heap/bulk_map.c), so that neither side sees what the other writes.  In the child these are held; what is only on its way (in a job, or
 * in a pickle that another thread makes) stays the parent's business.  Whether a child has come so far is told by a socket, of which it has one
 * end: a byte, or the end of the stream when it was killed before.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "bulk.h"

struct birth;

static struct core_holding **table;
static struct birth *births,
    *current; /* children that were forked and have not said anything yet; the one that is being forked */
static size_t table_count, table_room;
static _Atomic size_t shared_count;

struct core_counts core_counts;

int core_holding_has_shared(void)
{
    return bri_load_relaxed(&shared_count) > 0;
}

/* The first that does not lie below the address. */
static size_t place_of(const void *address)
{
    size_t low = 0, high = table_count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((const char *)table[middle]->bulk < (const char *)address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int make_room(void)
{
    size_t room = table_room != 0 ? 2 * table_room : 64;

    if (table_count < table_room)
        return 0;
    struct core_holding **grown = PyMem_RawRealloc(table, room * sizeof *table);
    if (grown == NULL)
        return bri_fail(ENOMEM, "no memory for the table of data");
    table = grown;
    table_room = room;
    return 0;
}

static struct core_holding *insert(struct bri_bulk_shm *bulk)
{
    struct core_holding *holding = make_room() == 0 ? PyMem_RawCalloc(1, sizeof *holding) : NULL;
    size_t place = place_of(bulk);

    if (holding == NULL)
        return NULL;
    holding->bulk = bulk;
    memmove(table + place + 1, table + place, (table_count - place) * sizeof *table);
    table[place] = holding;
    table_count++;
    if (bulk->flags & BRI_BULK_SHARED)
        bri_add_relaxed(&shared_count, (size_t)1);
    return holding;
}

static void take_out(size_t place)
{
    if (table[place]->bulk->flags & BRI_BULK_SHARED)
        bri_add_relaxed(&shared_count, (size_t)-1);
    table_count--;
    memmove(table + place, table + place + 1, (table_count - place) * sizeof *table);
}

/* The bulk is held by this process: by the holding from now on, or, on a failure, not any more. */
static int hold(struct bri_bulk_shm *bulk, struct core_holding **ret_holding)
{
    size_t place = place_of(bulk);
    struct core_holding *holding =
        place < table_count && table[place]->bulk == bulk ? table[place] : insert(bulk);

    if (holding == NULL) {
        bri_bulk_drop(bulk);
        return bri_fail(ENOMEM, "no memory for the table of data");
    }
    holding->count++;
    *ret_holding = holding;
    return 0;
}

int core_holding_create(size_t bytes, uint32_t flags, int is_zeroed, struct core_holding **ret_holding)
{
    struct bri_bulk_shm *bulk = NULL;
    int error = bri_arena_enter();

    if (error == 0)
        error = bri_bulk_create(bytes, flags, is_zeroed, &bulk);
    if (error < 0)
        return error;
    bri_add_relaxed(&core_counts.bulks_made, UINT64_C(1));
    core_lock_table();
    if (births != NULL)
        core_holdings_look_after_births();
    error = hold(bulk, ret_holding);
    core_unlock_table();
    return error;
}

int core_holding_open(void *ref, int is_counted, struct core_holding **ret_holding)
{
    struct bri_bulk_shm *bulk;
    int error = bri_arena_enter();

    if (error < 0)
        return error;
    core_lock_table();
    error = bri_bulk_open(ref, is_counted, &bulk);
    if (error == 0)
        error = hold(bulk, ret_holding);
    core_unlock_table();
    return error;
}

static int holds(const struct core_holding *holding, const char *memory, size_t bytes)
{
    const char *data = bri_bulk_data(holding->bulk);

    return memory >= data && bytes <= holding->bulk->bytes &&
           (size_t)(memory - data) <= holding->bulk->bytes - bytes;
}

struct core_holding *core_holding_find(const void *memory, size_t bytes)
{
    struct core_holding *found = NULL;

    if (!core_holding_has_shared() || !bri_arena_holds(memory, 1))
        return NULL;
    core_lock_table();
    size_t place = place_of(memory);
    if (place > 0 && (table[place - 1]->bulk->flags & BRI_BULK_SHARED) &&
        holds(table[place - 1], memory, bytes)) {
        found = table[place - 1];
        found->count++;
    }
    core_unlock_table();
    return found;
}

void core_holding_take(struct core_holding *holding)
{
    core_lock_table();
    holding->count++;
    core_unlock_table();
}

void core_holding_export(struct core_holding *holding, int by)
{
    core_lock_table();
    holding->exports += (uint32_t)by;
    core_unlock_table();
}

/* A bulk that cannot be mapped as before stays held: its pages must not become anybody else's. */
static void let_go(struct core_holding *holding)
{
    if (bri_arena_enter() == 0 && (!holding->is_detached || bri_bulk_attach(holding->bulk) == 0))
        bri_bulk_drop(holding->bulk);
}

void core_holding_drop(struct core_holding *holding)
{
    if (holding == NULL)
        return;
    core_lock_table();
    if (--holding->count == 0) {
        if (!holding->is_left) {
            take_out(place_of(holding->bulk));
            let_go(holding);
        }
        PyMem_RawFree(holding);
    }
    core_unlock_table();
}

/* What it held is the undertaker's, before the objects that have it go. */
void core_holdings_leave(void)
{
    core_lock_table();
    while (table_count > 0) {
        table[table_count - 1]->is_left = 1;
        take_out(table_count - 1);
    }
    core_unlock_table();
}

/* ---- forks ---- */

enum { PARENTS_END, CHILDS_END };

/* A child that is being forked, until it has said that it holds what it was shown, or has ended without. */
struct birth {
    struct birth *next;
    int ends[2];     /* of a socket */
    ino_t inodes[2]; /* what the program has closed is another file by now, perhaps */
    size_t count;
    struct {
        struct bri_bulk_shm *bulk;
        uint64_t serial;
    } shown[];
};

static int is_open(const struct birth *birth, int end)
{
    struct stat status;

    return fstat(birth->ends[end], &status) == 0 && S_ISSOCK(status.st_mode) &&
           status.st_ino == birth->inodes[end];
}

static void close_end(struct birth *birth, int end)
{
    if (is_open(birth, end))
        close(birth->ends[end]);
}

/* Without memory or descriptors there is none: then what a child was shown that dies at once stays as long as the arena. */
static struct birth *new_birth(size_t most)
{
    struct birth *birth = PyMem_RawCalloc(1, sizeof *birth + most * sizeof birth->shown[0]);
    struct stat status[2];

    if (birth == NULL ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, birth->ends) != 0) {
        PyMem_RawFree(birth);
        return NULL;
    }
    for (int end = PARENTS_END; end <= CHILDS_END; end++)
        if (fstat(birth->ends[end], &status[end]) == 0)
            birth->inodes[end] = status[end].st_ino;
    return birth;
}

static void miscarry(const struct birth *birth)
{
    for (size_t i = 0; i < birth->count; i++)
        if (bri_load_acquire(&birth->shown[i].bulk->serial) == birth->shown[i].serial)
            bri_bulk_unexpect(birth->shown[i].bulk);
}

/* True when there is nothing to wait for any more.  A child that has said nothing, and has no socket any more, has ended. */
static int has_settled(const struct birth *birth)
{
    char word;

    if (!is_open(birth, PARENTS_END))
        return 1;
    ssize_t got = recv(birth->ends[PARENTS_END], &word, 1, MSG_DONTWAIT);
    if (got == 0)
        miscarry(birth);
    return got >= 0;
}

void core_holdings_look_after_births(void)
{
    struct birth **link = &births;

    while (*link != NULL) {
        struct birth *birth = *link;
        if (!has_settled(birth)) {
            link = &birth->next;
            continue;
        }
        *link = birth->next;
        close_end(birth, PARENTS_END);
        PyMem_RawFree(birth);
    }
}

static void show(struct core_holding *holding)
{
    struct bri_bulk_shm *bulk = holding->bulk;

    bri_bulk_expect(bulk);
    if (current != NULL) {
        current->shown[current->count].bulk = bulk;
        current->shown[current->count++].serial = bri_load_relaxed(&bulk->serial);
    }
    if (!(bulk->flags & BRI_BULK_SHARED) && !holding->is_detached && bri_bulk_has_pages(bulk))
        holding->is_detached = bri_bulk_detach(bulk) == 0;
}

void core_holdings_before_fork(void)
{
    core_holdings_look_after_births();
    current = NULL;
    for (size_t i = 0; i < table_count; i++) {
        if (table[i]->exports == 0)
            continue;
        if (current == NULL)
            current = new_birth(table_count);
        show(table[i]);
    }
}

void core_holdings_after_fork_in_parent(void)
{
    if (current == NULL)
        return;
    close_end(current, CHILDS_END);
    current->next = births;
    births = current;
    current = NULL;
}

static void hold_what_was_shown(void)
{
    size_t i = 0;

    while (i < table_count) {
        struct core_holding *holding = table[i];
        if (holding->exports > 0) {
            bri_bulk_arrive(holding->bulk);
            i++;
        } else {
            holding->is_left = 1;
            take_out(i);
        }
    }
}

/* The parent's births are no business of the child's. */
void core_holdings_after_fork_in_child(void)
{
    hold_what_was_shown();
    if (current != NULL) {
        if (is_open(current, CHILDS_END))
            send(current->ends[CHILDS_END], "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        close_end(current, CHILDS_END);
        current->next = births;
        births = current;
        current = NULL;
    }
    while (births != NULL) {
        struct birth *birth = births;
        births = birth->next;
        close_end(birth, PARENTS_END);
        PyMem_RawFree(birth);
    }
}
