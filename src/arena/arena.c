/* SPDX-License-Identifier: MIT */
#include "arena/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena/roster.h"
#include "base/check.h"
#include "base/error.h"
#include "base/options.h"
#include "brood.h"
#include "plat/descriptor.h"

#define MAGIC         UINT64_C(0x31646f6f7262) /* "brood1" */
#define DEFAULT_BYTES (UINT64_C(1) << 40)
#define LEAST_BYTES   (UINT64_C(1) << 24)
#define FIRST_PLACE   (UINT64_C(0x20) << 40)
#define LAST_PLACE    (UINT64_C(0x50) << 40)
#define PLACE_STEP    (UINT64_C(0x08) << 40)

/* ThreadSanitizer has its shadow there, and drops the address but not MAP_FIXED_NOREPLACE: the window would come to lie at 0. */
#if defined(__SANITIZE_THREAD__)
#define PLACES_ARE_OURS 0
#else
#define PLACES_ARE_OURS 1
#endif

struct bri_arena *bri_arena_current;
static struct bri_identity nobody = {0, PTHREAD_MUTEX_INITIALIZER};
struct bri_identity *_Atomic bri_identity = &nobody;

static struct bri_arena the_arena;

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* The header's fields of the same names. */
struct layout {
    uint64_t window_bytes, max_bytes, table_at, pages_at;
};

/* Where the parts lie, for a bound of max_bytes. */
static void lay_out(uint64_t max_bytes, struct layout *layout)
{
    uint64_t pages = round_up(max_bytes, BRI_PAGE_BYTES) / BRI_PAGE_BYTES;

    layout->max_bytes = pages * BRI_PAGE_BYTES;
    layout->table_at = round_up(sizeof(struct bri_header_shm), 4096);
    layout->pages_at = round_up(layout->table_at + pages * sizeof(uint64_t), BRI_PAGE_BYTES);
    layout->window_bytes = layout->pages_at + layout->max_bytes;
}

/*
 * The window lies, where that is free, at a place far from where the kernel puts programs, libraries and stacks, whatever its randomisation
 * (Documentation/arch/x86/x86_64/mm.rst: user space has 47 bits; mmap's area is at its top, programs at 2/3): a process that is exec'd has to
 * map it at the same address.  Before Linux 4.17 the place is only a hint, which does as well.
 */
static void *map_at_free_place(int memfd, uint64_t bytes)
{
    for (uint64_t place = FIRST_PLACE; place < LAST_PLACE && PLACES_ARE_OURS; place += PLACE_STEP) {
        void *base = mmap((void *)(uintptr_t)place, bytes,
                          PROT_READ | PROT_WRITE, /* NOLINT(performance-no-int-to-ptr) */
                          MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, memfd, 0);
        if (base != MAP_FAILED)
            return base;
    }
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
}

/* Address space may be short (ulimit -v, 32 bits of it under valgrind): the default bound halves until it fits; one that was asked for does not. */
static void *reserve(int memfd, uint64_t max_bytes, struct layout *layout)
{
    for (uint64_t bytes = max_bytes != 0 ? max_bytes : DEFAULT_BYTES;; bytes /= 2) {
        lay_out(bytes, layout);
        void *base = map_at_free_place(memfd, layout->window_bytes);
        if (base != MAP_FAILED || max_bytes != 0 || bytes / 2 < LEAST_BYTES)
            return base;
    }
}

static int make_identity(struct bri_identity **ret_identity)
{
    long page = sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return bri_fail_os(ENOMEM, "no memory for a page");
    if (madvise(memory, (size_t)page, MADV_WIPEONFORK) != 0) {
        munmap(memory, (size_t)page);
        return bri_fail_os(ENOMEM, "the kernel has no MADV_WIPEONFORK (Linux 4.14)");
    }
    *ret_identity = memory;
    pthread_mutex_init(&(*ret_identity)->lock, NULL); /* all zero: what a wiped page holds, too */
    return 0;
}

static void drop_identity(struct bri_identity *identity)
{
    munmap(identity, (size_t)sysconf(_SC_PAGESIZE));
}

/* A sealed memfd of `bytes`: nobody can shrink it under the others. */
static int make_memfd(void)
{
    int fd = bri_fd_high(memfd_create("brood", MFD_CLOEXEC | MFD_ALLOW_SEALING));

    if (fd < 0)
        return bri_fail_os(-fd, "cannot make the arena's memory (memfd_create)");
    return fd;
}

/* Beyond this limit the kernel would send SIGXFSZ. */
static int check_file_size(uint64_t bytes)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur)
        return 0;
    return bri_fail(ENOMEM, "the arena cannot begin with %llu bytes: ulimit -f allows %llu",
                    (unsigned long long)bytes, (unsigned long long)limit.rlim_cur);
}

static int fill_window(const struct layout *layout)
{
    struct stat status;
    int error = check_file_size(layout->pages_at);

    if (error < 0)
        return error;
    if (ftruncate(the_arena.memfd, (off_t)layout->pages_at) != 0 || fstat(the_arena.memfd, &status) != 0)
        return bri_fail_os(errno == EFBIG ? ENOMEM : errno, "cannot size the arena (ulimit -f?)");
    fcntl(the_arena.memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL);
    madvise(the_arena.base, layout->window_bytes, MADV_DONTDUMP);
    struct bri_header_shm *header = the_arena.header;
    header->window_bytes = layout->window_bytes;
    header->max_bytes = layout->max_bytes;
    header->table_at = layout->table_at;
    header->pages_at = layout->pages_at;
    header->memfd_inode = the_arena.memfd_inode = status.st_ino;
    header->cpus = (uint32_t)brood_cpu_count();
    header->magic = MAGIC;
    return 0;
}

/* What is used of the header from now on as this process's own. */
static void note_layout(const struct layout *layout)
{
    the_arena.window_bytes = layout->window_bytes;
    the_arena.max_bytes = layout->max_bytes;
    the_arena.table_at = layout->table_at;
    the_arena.pages_at = layout->pages_at;
    bri_store_relaxed(&the_arena.seen_bytes, UINT64_C(0));
}

static int map_window(uint64_t max_bytes)
{
    struct layout layout;
    void *base = reserve(the_arena.memfd, max_bytes, &layout);

    if (base == MAP_FAILED)
        return bri_fail_os(ENOMEM, "cannot reserve %llu bytes of address space for the arena",
                           (unsigned long long)layout.window_bytes);
    the_arena.base = base;
    the_arena.header = base;
    note_layout(&layout);
    int error = fill_window(&layout);
    if (error < 0)
        munmap(base, layout.window_bytes);
    return error;
}

/* Is what the ticket leads to an arena, laid out as this library does it? */
static int check_window(const brood_arena_ticket *ticket)
{
    const struct bri_header_shm *header = the_arena.header;
    struct layout layout;

    lay_out(bri_read_once(header->max_bytes), &layout);
    note_layout(&layout);
    if (header->magic == MAGIC && header->window_bytes == ticket->window_bytes &&
        layout.window_bytes == ticket->window_bytes && layout.pages_at == header->pages_at)
        return 0;
    return bri_fail(EINVAL, "ticket->fd is no arena of this version of brood");
}

static int map_of_ticket(const brood_arena_ticket *ticket)
{
    struct stat status;

    if (fstat(the_arena.memfd, &status) != 0 || (uint64_t)status.st_size < sizeof(struct bri_header_shm) ||
        fcntl(the_arena.memfd, F_GET_SEALS) < 0 || !(fcntl(the_arena.memfd, F_GET_SEALS) & F_SEAL_SHRINK))
        return bri_fail(EINVAL, "ticket->fd is no arena's descriptor");
    the_arena.memfd_inode = status.st_ino;
    void *place = (void *)(uintptr_t)ticket->base; /* NOLINT(performance-no-int-to-ptr) */
    void *base = mmap(place, ticket->window_bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, the_arena.memfd, 0);
    if (base == MAP_FAILED && errno != EEXIST)
        return bri_fail_os(ENOMEM, "cannot map %llu bytes of the arena",
                           (unsigned long long)ticket->window_bytes);
    if (base != place) {
        if (base != MAP_FAILED)
            munmap(base, ticket->window_bytes);
        return bri_fail(EADDRINUSE, "the arena's addresses (%p) are in use in this process", place);
    }
    madvise(base, ticket->window_bytes, MADV_DONTDUMP);
    the_arena.base = base;
    the_arena.header = base;
    int error = check_window(ticket);
    if (error < 0)
        munmap(base, ticket->window_bytes);
    return error;
}

static int open_ticket(const brood_arena_ticket *ticket)
{
    the_arena.memfd = bri_fd_high(fcntl(ticket->fd, F_DUPFD_CLOEXEC, 0));
    if (the_arena.memfd < 0)
        return bri_fail_os(the_arena.memfd == -EBADF ? EINVAL : -the_arena.memfd,
                           "ticket->fd (%d) cannot be duplicated", ticket->fd);
    return map_of_ticket(ticket);
}

static int open_new(uint64_t max_bytes)
{
    the_arena.memfd = make_memfd();
    return the_arena.memfd < 0 ? the_arena.memfd : map_window(max_bytes);
}

static int make_arena(const struct bri_arena_wish *wish, struct bri_identity **ret_identity)
{
    int error = make_identity(ret_identity);

    if (error < 0)
        return error;
    error = wish->ticket != NULL ? open_ticket(wish->ticket) : open_new(wish->max_bytes);
    if (error < 0) {
        if (the_arena.memfd >= 0)
            close(the_arena.memfd);
        drop_identity(*ret_identity);
        return error;
    }
    bri_arena_current = &the_arena;
    return 0;
}

/* Making the arena changes the identity: who waited for the lock of the old one looks again. */
static struct bri_identity *lock_identity(void)
{
    for (;;) {
        struct bri_identity *identity = bri_load_acquire(&bri_identity);
        pthread_mutex_lock(&identity->lock);
        if (identity == bri_load_acquire(&bri_identity))
            return identity;
        pthread_mutex_unlock(&identity->lock);
    }
}

/* The new identity is shown to the other threads last: they take its name for the sign that there is an arena. */
int bri_arena_open(const struct bri_arena_wish *wish)
{
    struct bri_identity *locked = lock_identity(), *identity = locked;
    int error = 0;

    if (bri_arena_current == NULL)
        error = make_arena(wish, &identity);
    else if (wish->must_be_new)
        error = bri_fail(EALREADY, "this process has an arena already: brood_arena_create and "
                                   "brood_arena_attach come before all else");
    if (error == 0 && bri_load_acquire(&identity->name) == 0)
        error = bri_roster_join(identity);
    if (bri_arena_current != NULL)
        bri_store_release(&bri_identity, identity);
    pthread_mutex_unlock(&locked->lock);
    return error;
}

int bri_arena_enter(void)
{
    if (bri_self() != 0)
        return 0;
    return bri_arena_open(&(const struct bri_arena_wish){0});
}

int bri_arena_holds(const void *memory, size_t bytes)
{
    const struct bri_arena *arena = bri_arena_current;

    return arena != NULL && (uintptr_t)memory - (uintptr_t)arena->base < arena->window_bytes &&
           bri_at_checked((uintptr_t)memory - (uintptr_t)arena->base, bytes, 1) != NULL;
}

int bri_arena_stat(struct stat *ret_status)
{
    const struct bri_arena *arena = bri_arena_current;

    return fstat(arena->memfd, ret_status) == 0 && ret_status->st_ino == arena->memfd_inode;
}

/* All that there can ever be when the kernel cannot be asked. */
static uint64_t pages_of_file(const struct bri_arena *arena)
{
    struct stat status;

    if (!bri_arena_stat(&status) || (uint64_t)status.st_size < arena->pages_at)
        return arena->max_bytes / BRI_PAGE_BYTES;
    return ((uint64_t)status.st_size - arena->pages_at) / BRI_PAGE_BYTES;
}

/* The kernel is asked once for each time that the file has grown. */
uint64_t bri_arena_grown(void)
{
    struct bri_arena *arena = bri_arena_current;
    uint64_t grown = bri_load_acquire(&arena->header->grown);
    uint64_t seen = bri_load_relaxed(&arena->seen_bytes) / BRI_PAGE_BYTES;

    if (grown <= seen)
        return grown;
    uint64_t there = pages_of_file(arena);
    if (grown > there)
        grown = there;
    bri_store_relaxed(&arena->seen_bytes, grown * BRI_PAGE_BYTES);
    return grown;
}

void *bri_at_unseen(bri_offset offset, uint64_t bytes)
{
    uint64_t at = offset - bri_arena_current->pages_at, seen = bri_arena_grown() * BRI_PAGE_BYTES;

    return at < seen && bytes <= seen - at ? bri_arena_current->base + offset : NULL;
}

int brood_arena_create(const brood_arena_options *options)
{
    brood_arena_options known;
    int error = bri_options_take(options, &known, sizeof known, "options");

    if (error < 0)
        return error;
    if (known.max_bytes != 0 && (known.max_bytes < 1024 * 1024 || known.max_bytes > UINT64_C(1) << 46))
        return bri_fail(EINVAL, "options->max_bytes is %llu: from 1 MiB to 64 TiB, or 0 for the default",
                        (unsigned long long)known.max_bytes);
    return bri_arena_open(&(const struct bri_arena_wish){.max_bytes = known.max_bytes, .must_be_new = 1});
}

int brood_arena_ticket_get(brood_arena_ticket *ret_ticket)
{
    if (ret_ticket == NULL || ret_ticket->size < sizeof *ret_ticket)
        return bri_fail(EINVAL,
                        "ret_ticket is NULL or its size too small: set size to sizeof (brood_arena_ticket)");
    int error = bri_arena_enter();
    if (error < 0)
        return error;
    ret_ticket->fd = the_arena.memfd;
    ret_ticket->base = (uint64_t)(uintptr_t)the_arena.base;
    ret_ticket->window_bytes = the_arena.window_bytes;
    return 0;
}

int brood_arena_attach(const brood_arena_ticket *ticket)
{
    if (ticket == NULL || ticket->size < sizeof *ticket)
        return bri_fail(EINVAL,
                        "ticket is NULL or its size too small: pass what brood_arena_ticket_get gave");
    if (ticket->base == 0 || ticket->base % 4096 != 0 || ticket->window_bytes < sizeof(struct bri_header_shm))
        return bri_fail(EINVAL,
                        "ticket->base or ticket->window_bytes is not what brood_arena_ticket_get gave");
    return bri_arena_open(&(const struct bri_arena_wish){.ticket = ticket, .must_be_new = 1});
}

static int others_are_there(void)
{
    uint32_t high = bri_slots_high();

    for (uint32_t slot = 0; slot < high; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (name != bri_self() && (state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED) &&
            !bri_roster_has_ended(name))
            return 1;
    }
    return 0;
}

int brood_arena_destroy(void)
{
    if (bri_arena_current == NULL)
        return 0;
    if (bri_self() == 0 || the_arena.header->slots[bri_self() & (BRI_SLOTS - 1)].role != BRI_ROLE_USER)
        return bri_fail(EPERM, "the arena belongs to the process that made it; this one did not");
    if (others_are_there())
        return bri_fail(EBUSY, "other processes use the arena: destroy pools and end processes first");
    struct bri_identity *identity = bri_load_acquire(&bri_identity);
    bri_arena_current = NULL;
    bri_store_release(&bri_identity, &nobody);
    munmap(the_arena.base, the_arena.window_bytes);
    close(the_arena.memfd);
    drop_identity(identity);
    return 0;
}
