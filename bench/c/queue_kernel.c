/* SPDX-License-Identifier: MIT */
/* The kernel's own: a pipe, whose writes of up to 4096 bytes (64 messages) are whole, and a POSIX message queue. */
#include "sample.h"
#include "traffic.h"

#include <mqueue.h>
#include <stdio.h>
#include <unistd.h>

/* ---- pipes ---- */

static int ends[2];

static void create_pipe(int producers, int consumers, int batch)
{
    (void)producers, (void)consumers, (void)batch;
    must(pipe(ends), "pipe");
}

static void destroy_pipe(void)
{
    close(ends[0]);
    close(ends[1]);
}

static void put_in_pipe(const struct message *messages, int count)
{
    const long bytes = count * (long)sizeof *messages;

    if (must(write(ends[1], messages, (size_t)bytes), "write") != bytes)
        fail("a part of a write");
}

static int get_from_pipe(struct message *messages, int count)
{
    const long bytes = must(read(ends[0], messages, (size_t)count * sizeof *messages), "read");

    if (bytes % (long)sizeof *messages != 0)
        fail("a read of %ld bytes", bytes);
    return (int)(bytes / (long)sizeof *messages);
}

static void measure_pipe(const struct call *call, struct sample *ret_sample)
{
    static const struct transport transport = {
        .create = create_pipe, .destroy = destroy_pipe, .put = put_in_pipe, .get = get_from_pipe};

    measure_traffic(call, &transport, ret_sample);
}

/* ---- POSIX message queues ---- */

static mqd_t posix_queue;
static char posix_name[64];

/* QUEUED messages where that is allowed, else as many as are (10). */
static void create_posix(int producers, int consumers, int batch)
{
    (void)producers, (void)consumers;
    struct mq_attr attributes = {.mq_maxmsg = QUEUED / batch,
                                 .mq_msgsize = batch * (long)sizeof(struct message)};

    snprintf(posix_name, sizeof posix_name, "/bench-%d", (int)getpid());
    posix_queue = mq_open(posix_name, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    if (posix_queue == (mqd_t)-1) {
        attributes.mq_maxmsg = 10;
        posix_queue = mq_open(posix_name, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    }
    must(posix_queue, "mq_open");
    mq_unlink(posix_name);
}

static void destroy_posix(void)
{
    mq_close(posix_queue);
}

static void put_in_posix(const struct message *messages, int count)
{
    must(mq_send(posix_queue, (const char *)messages, (size_t)count * sizeof *messages, 0), "mq_send");
}

static int get_from_posix(struct message *messages, int count)
{
    const long bytes =
        must(mq_receive(posix_queue, (char *)messages, (size_t)count * sizeof *messages, NULL), "mq_receive");

    return (int)(bytes / (long)sizeof *messages);
}

static void measure_posix(const struct call *call, struct sample *ret_sample)
{
    static const struct transport transport = {.create = create_posix,
                                               .destroy = destroy_posix,
                                               .put = put_in_posix,
                                               .get = get_from_posix,
                                               .slower_by = 4};

    measure_traffic(call, &transport, ret_sample);
}

int main(int argc, char **argv)
{
    static const struct subject subjects[] = {
        {"pipes", kernel_version, measure_pipe, traffic_all},
        {"posix-mq", kernel_version, measure_posix, traffic_all},
    };

    return bench_main(argc, argv, subjects, sizeof subjects / sizeof *subjects);
}
