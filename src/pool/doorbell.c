/* SPDX-License-Identifier: MIT */
#include "pool/doorbell.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plat/descriptor.h"

void bri_doorbell_make(struct bri_doorbell *doorbell)
{
    struct stat status;

    if (doorbell->fds[0] >= 0)
        return;
    if (bri_pipe_high(doorbell->fds) < 0 || fstat(doorbell->fds[1], &status) != 0)
        *doorbell = BRI_NO_DOORBELL;
    else
        doorbell->inode = (uint64_t)status.st_ino;
}

static int is_ours(const struct bri_doorbell *doorbell, int fd)
{
    struct stat status;

    return fd >= 0 && fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) &&
           (uint64_t)status.st_ino == doorbell->inode;
}

void bri_doorbell_tell(const struct bri_doorbell *doorbell, struct bri_doorbell_shm *ret_place)
{
    *ret_place = (struct bri_doorbell_shm){doorbell->inode, doorbell->fds[0]};
}

/* For both directions, so that it never reads as ended. */
void bri_doorbell_open(struct bri_doorbell *ret_doorbell, uint32_t owner,
                       const struct bri_doorbell_shm *place)
{
    char path[40];

    snprintf(path, sizeof path, "/proc/%u/fd/%d", owner, (int)place->fd);
    int fd = bri_fd_high(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    *ret_doorbell = (struct bri_doorbell){{fd, -1}, place->inode};
    if (is_ours(ret_doorbell, fd))
        return;
    if (fd >= 0)
        close(fd);
    *ret_doorbell = BRI_NO_DOORBELL;
}

void bri_doorbell_ring(const struct bri_doorbell *doorbell)
{
    if (is_ours(doorbell, doorbell->fds[1]) && write(doorbell->fds[1], "", 1) < 0) {
        /* full: it was rung often enough */
    }
}

void bri_doorbell_ring_or_signal(const struct bri_doorbell *doorbell, pid_t supervisor)
{
    if (is_ours(doorbell, doorbell->fds[1]))
        bri_doorbell_ring(doorbell);
    else
        kill(supervisor, SIGUSR1);
}

void bri_doorbell_drop(struct bri_doorbell *doorbell)
{
    for (int i = 0; i < 2; i++)
        if (is_ours(doorbell, doorbell->fds[i]))
            close(doorbell->fds[i]);
    *doorbell = BRI_NO_DOORBELL;
}

void bri_doorbell_drain(const struct bri_doorbell *doorbell)
{
    char rings[64];

    while (read(doorbell->fds[0], rings, sizeof rings) > 0) {
    }
}
