/* SPDX-License-Identifier: MIT */
#include "plat/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int bri_fd_high(int fd)
{
    if (fd < 0)
        return -errno;
    if (fd > STDERR_FILENO)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    return high < 0 ? -EMFILE : high; /* the kernel says EINVAL where the limit is 3 or less */
}

int bri_pipe_high(int ret_fds[2])
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return -errno;
    fds[0] = bri_fd_high(fds[0]);
    fds[1] = bri_fd_high(fds[1]);
    if (fds[0] < 0 || fds[1] < 0) {
        int error = fds[0] < 0 ? fds[0] : fds[1];
        close(fds[0]); /* a negative one is no descriptor: nothing happens */
        close(fds[1]);
        return error;
    }
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}
