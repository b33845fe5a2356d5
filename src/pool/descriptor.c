/* SPDX-License-Identifier: MIT */
/*
 * brood_result_fd: an epoll descriptor over a bell, which whoever completes the job rings, and the supervisor's pidfd, since nobody would
 * ring after its death.
 *
 *   owner     D1 hangs the bell on the job   D2 arms it   D3 is the job complete? then rings itself
 *   worker    C1 `ended`                    C2 looks for the bell, rings it if it is armed
 * D1, D2 before D3 and C1 before C2 (all sequentially consistent): one of the two sees the other.  A worker killed between C1 and C2 is
 * mourned: the undertaker announces the job again.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "arena/roster.h"
#include "base/error.h"
#include "plat/descriptor.h"
#include "pool/result.h"
#include "proc/child.h"
#include "queue/bell.h"

static int is_ready(void *argument)
{
    return bri_result_is_ready(argument);
}

static int watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int hang_bell(brood_result *result)
{
    void *memory;

    if (result->bell != NULL)
        return 0;
    int error = bri_heap_alloc_zeroed(BRI_KIND_DATA, sizeof(struct bri_bell_shm), bri_self(), &memory);
    if (error < 0)
        return error;
    result->bell = memory;
    bri_store_seq_cst(&result->view.job->bell, bri_offset_of(memory)); /* D1 */
    return 0;
}

/* The one that is there; if it is not there any more, its successor. */
static int open_supervisor(brood_result *result)
{
    for (;;) {
        result->watched = bri_load_acquire(&result->pool->supervisor);
        int fd = bri_watch(result->watched);
        if (fd != -ESRCH)
            return fd;
        bri_pool_look_after(result->pool);
        if (bri_pool_is_over(result->pool)) /* then the result is ready, and nobody is to be watched */
            return -ESRCH;
    }
}

static int watch_supervisor(brood_result *result)
{
    int fd = open_supervisor(result);
    int error = fd >= 0 ? watch(result->descriptor, fd) : fd;

    if (error < 0 && fd >= 0)
        close(fd);
    result->supervisor_fd = error < 0 ? -1 : fd;
    return error == -ESRCH ? 0 : error;
}

/* Without a descriptor for the new supervisor nobody would say that it died: then the result's stays readable, and the host looks again. */
void bri_result_refresh_descriptor(brood_result *result)
{
    int error = 0;

    if (bri_load_acquire(&result->pool->supervisor) != result->watched || result->supervisor_fd < 0) {
        if (result->supervisor_fd >= 0)
            close(result->supervisor_fd);
        error = watch_supervisor(result);
    }
    bri_bell_quiet(result->bell, is_ready, result);
    if (error < 0)
        bri_bell_ring(result->bell);
}

void bri_result_close_descriptor(brood_result *result)
{
    if (result->descriptor < 0)
        return;
    if (result->supervisor_fd >= 0)
        close(result->supervisor_fd);
    bri_bell_close(result->bell);
    close(result->descriptor);
    result->descriptor = -1;
}

static int open_descriptor(brood_result *result)
{
    int bell = bri_bell_open(result->bell, is_ready, result);

    if (bell < 0)
        return bell;
    result->descriptor = bri_fd_high(epoll_create1(EPOLL_CLOEXEC));
    if (result->descriptor < 0) {
        int error = bri_fail_os(-result->descriptor, "no descriptor for the result");
        bri_bell_close(result->bell);
        return error;
    }
    int error = watch_supervisor(result);
    if (error == 0)
        error = watch(result->descriptor, bell);
    if (error < 0) {
        bri_result_close_descriptor(result);
        return bri_fail_os(-error, "no descriptor for the result");
    }
    return 0;
}

int brood_result_fd(brood_result *result)
{
    int error = bri_result_check(result);

    if (error == 0 && result->descriptor >= 0)
        return result->descriptor;
    if (error == 0)
        error = hang_bell(result);
    if (error == 0)
        error = open_descriptor(result);
    return error < 0 ? error : result->descriptor;
}
