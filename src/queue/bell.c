/* SPDX-License-Identifier: MIT */
#include "queue/bell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena/undertaker.h"
#include "base/check.h"
#include "base/error.h"
#include "plat/descriptor.h"

static uint32_t bit_of(const struct bri_bell_shm *bell, const struct bri_bell_entry_shm *entry)
{
    return 1u << (entry - bell->entries);
}

static struct bri_bell_entry_shm *find(struct bri_bell_shm *bell, bri_name name)
{
    for (int i = 0; i < BRI_BELLS; i++)
        if (bri_load_acquire(&bell->entries[i].name) == name)
            return &bell->entries[i];
    return NULL;
}

int bri_bell_is_hung(struct bri_bell_shm *bell)
{
    return find(bell, bri_self()) != NULL;
}

static void disarm(struct bri_bell_shm *bell, uint32_t bit)
{
    atomic_fetch_and(&bell->armed, ~bit);
}

static int is_pipe(int fd, uint64_t inode)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && status.st_ino == inode;
}

/* A full pipe is readable already, so that it does not matter whether the byte went in. */
static void write_byte(int fd)
{
    ssize_t written = write(fd, "", 1);

    (void)written;
}

/* ---- the ringers ---- */

/* 1: rung, or there is nobody to be rung.  0: this process cannot open anything now. */
static int knock(const struct bri_bell_entry_shm *entry)
{
    char path[40];
    uint64_t inode = bri_load_relaxed(&entry->inode);

    snprintf(path, sizeof path, "/proc/%u/fd/%d", bri_load_relaxed(&entry->pid),
             bri_load_relaxed(&entry->read_fd));
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno != EMFILE && errno != ENFILE && errno != ENOMEM;
    if (is_pipe(fd, inode))
        write_byte(fd);
    close(fd);
    return 1;
}

void bri_bell_ring_slow(struct bri_bell_shm *bell)
{
    int saved_errno = errno;
    uint32_t armed = bri_load_acquire(&bell->armed);

    for (int i = 0; i < BRI_BELLS; i++) {
        if ((armed & 1u << i) == 0 || !knock(&bell->entries[i]))
            continue;
        bri_fault("bell.rung");
        disarm(bell, 1u << i);
    }
    errno = saved_errno;
}

/* ---- the poller ---- */

static void empty_pipe(const struct bri_bell_entry_shm *entry)
{
    int fd = bri_load_relaxed(&entry->read_fd);
    char bytes[64];

    if (!is_pipe(fd, bri_load_relaxed(&entry->inode)))
        return; /* closed behind our back */
    while (read(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
    }
}

static void ring_self(struct bri_bell_shm *bell)
{
    bri_mutex_lock(&bell->lock);
    struct bri_bell_entry_shm *entry = find(bell, bri_self());
    if (entry != NULL) {
        disarm(bell, bit_of(bell, entry));
        if (is_pipe(bri_load_relaxed(&entry->write_fd), bri_load_relaxed(&entry->inode)))
            write_byte(bri_load_relaxed(&entry->write_fd));
    }
    bri_mutex_unlock(&bell->lock);
}

void bri_bell_quiet(struct bri_bell_shm *bell, bri_bell_is_ready *is_ready, void *argument)
{
    if (!bri_bell_is_hung(bell))
        return;
    int saved_errno = errno;
    bri_mutex_lock(&bell->lock); /* against other threads: nobody closes the pipe now */
    struct bri_bell_entry_shm *entry = find(bell, bri_self());
    if (entry != NULL) {
        empty_pipe(entry);                                 /* Q1 */
        bri_or_seq_cst(&bell->armed, bit_of(bell, entry)); /* Q2 */
    }
    bri_mutex_unlock(&bell->lock);
    if (entry != NULL && is_ready(argument)) /* Q3 */
        ring_self(bell);
    errno = saved_errno;
}

/* ---- entries ---- */

static void forget(struct bri_bell_shm *bell, struct bri_bell_entry_shm *entry)
{
    disarm(bell, bit_of(bell, entry)); /* first: whoever has the entry next arms it anew */
    bri_store_release(&entry->name, (bri_name)0);
}

static void close_pipe(int fd, uint64_t inode)
{
    if (is_pipe(fd, inode))
        close(fd);
}

/* Nobody may have reported the deaths of those who have the places. */
static void report_the_dead(struct bri_bell_shm *bell)
{
    for (int i = 0; i < BRI_BELLS; i++)
        bri_report_if_ended(bri_load_acquire(&bell->entries[i].name));
}

static int make_pipe(struct bri_bell_entry_shm *entry)
{
    struct stat status;
    int fds[2];
    int error = bri_pipe_high(fds);

    if (error < 0)
        return bri_fail_os(-error, "cannot make the descriptor (a pipe)");
    fstat(fds[0], &status);
    bri_store_relaxed(&entry->pid, (uint32_t)getpid());
    bri_store_relaxed(&entry->read_fd, fds[0]);
    bri_store_relaxed(&entry->write_fd, fds[1]);
    bri_store_relaxed(&entry->inode, (uint64_t)status.st_ino);
    bri_fault("bell.open.filled");
    bri_store_release(&entry->name, bri_self());
    return fds[0];
}

/* With the lock. */
static int find_or_make(struct bri_bell_shm *bell)
{
    struct bri_bell_entry_shm *entry = find(bell, bri_self());

    if (entry != NULL && is_pipe(bri_load_relaxed(&entry->read_fd), bri_load_relaxed(&entry->inode)))
        return bri_load_relaxed(&entry->read_fd);
    if (entry != NULL) { /* the user has closed it */
        forget(bell, entry);
        close_pipe(bri_load_relaxed(&entry->write_fd), bri_load_relaxed(&entry->inode));
    }
    entry = find(bell, 0);
    return entry == NULL ? -EAGAIN : make_pipe(entry);
}

int bri_bell_open(struct bri_bell_shm *bell, bri_bell_is_ready *is_ready, void *argument)
{
    bri_mutex_lock(&bell->lock);
    int fd = find_or_make(bell);
    bri_mutex_unlock(&bell->lock);
    if (fd == -EAGAIN) {
        report_the_dead(bell);
        bri_mutex_lock(&bell->lock);
        fd = find_or_make(bell);
        bri_mutex_unlock(&bell->lock);
    }
    if (fd == -EAGAIN)
        return bri_fail(EAGAIN, "%d processes have a descriptor already, the most there can be", BRI_BELLS);
    if (fd >= 0)
        bri_bell_quiet(bell, is_ready, argument);
    return fd;
}

void bri_bell_close(struct bri_bell_shm *bell)
{
    if (!bri_bell_is_hung(bell))
        return;
    bri_mutex_lock(&bell->lock);
    struct bri_bell_entry_shm *entry = find(bell, bri_self());
    if (entry != NULL) {
        uint64_t inode = bri_load_relaxed(&entry->inode);
        forget(bell, entry);
        close_pipe(bri_load_relaxed(&entry->read_fd), inode);
        close_pipe(bri_load_relaxed(&entry->write_fd), inode);
    }
    bri_mutex_unlock(&bell->lock);
}

/* Its bit may stay: the next ringer finds nobody there, or the next owner arms it anyway. */
void bri_bell_mourn(struct bri_bell_shm *bell, bri_name dead)
{
    for (int i = 0; i < BRI_BELLS; i++) {
        bri_name name = dead;
        bri_cas_acq_rel(&bell->entries[i].name, &name, (bri_name)0);
    }
    if (bri_mutex_take_over(&bell->lock, dead))
        bri_mutex_unlock(&bell->lock);
}
