/* SPDX-License-Identifier: MIT */
/*
 * Private views of a bulk's data.
 *
 * Data that nobody shares on purpose belongs to the one process that holds it, which may write to it.  When that process forks, both have to
 * see what was there, and not what the other writes from then on, as with all memory that is forked.  So the holder maps the data anew before
 * the fork, MAP_PRIVATE, at the same address: the file's pages stand still from then on, and what either writes is its own.  The pages are the
 * arena's again only when the last of them drops the bulk, and each has mapped them as before by then.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/error.h"
#include "heap/bulk.h"
#include "heap/pages.h"

enum { MACHINE_PAGE = 4096 };

static size_t mapped_bytes(const struct bri_bulk_shm *bulk)
{
    return (bulk->bytes + MACHINE_PAGE - 1) / MACHINE_PAGE * MACHINE_PAGE;
}

/* At `place`, or wherever the kernel likes. */
static int map(struct bri_bulk_shm *bulk, void *place, int flags, void **ret_memory)
{
    int error = bri_pages_check_descriptor();

    if (error < 0)
        return error;
    void *memory = mmap(place, mapped_bytes(bulk), PROT_READ | PROT_WRITE, flags | MAP_NORESERVE,
                        bri_arena_current->memfd, (off_t)bri_offset_of(bri_bulk_data(bulk)));
    if (memory == MAP_FAILED)
        return bri_fail_os(ENOMEM, "cannot map %zu bytes of the arena", mapped_bytes(bulk));
    madvise(memory, mapped_bytes(bulk),
            MADV_DONTDUMP); /* as the window: else the kernel could not join them again */
    *ret_memory = memory;
    return 0;
}

int bri_bulk_detach(struct bri_bulk_shm *bulk)
{
    void *memory = bri_bulk_data(bulk);

    return map(bulk, memory, MAP_PRIVATE | MAP_FIXED, &memory);
}

int bri_bulk_attach(struct bri_bulk_shm *bulk)
{
    void *memory = bri_bulk_data(bulk);

    return map(bulk, memory, MAP_SHARED | MAP_FIXED, &memory);
}

int bri_bulk_map(struct bri_bulk_shm *bulk, void **ret_memory)
{
    return map(bulk, NULL, MAP_PRIVATE, ret_memory);
}

void bri_bulk_unmap(const struct bri_bulk_shm *bulk, void *memory)
{
    munmap(memory, mapped_bytes(bulk));
}
