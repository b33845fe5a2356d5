/* SPDX-License-Identifier: MIT */
/* nng, push to pull over abstract sockets (its ipc without a file): every consumer listens, every producer dials all of them.  A batch is one
 * message. */
#include "sample.h"
#include "traffic.h"

#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <stdio.h>
#include <unistd.h>

static nng_socket endpoint;
static int consumer_count, parent, queued;

static void must_nng(int result, const char *what)
{
    if (result != 0)
        fail("%s: %s", what, nng_strerror(result));
}

static void address_of(int consumer, char *text, size_t bytes)
{
    snprintf(text, bytes, "abstract://brood-bench-%d-%d", parent, consumer);
}

static void create(int producers, int consumers, int batch)
{
    (void)producers;
    consumer_count = consumers;
    parent = (int)getpid();
    queued = QUEUED / batch;
}

static void destroy(void)
{
}

static void begin_consumer(int index)
{
    char address[64];

    must_nng(nng_pull0_open(&endpoint), "nng_pull0_open");
    address_of(index, address, sizeof address);
    must_nng(nng_listen(endpoint, address, NULL, 0), "nng_listen");
}

static void begin_producer(int index)
{
    char address[64];

    (void)index;
    must_nng(nng_push0_open(&endpoint), "nng_push0_open");
    must_nng(nng_socket_set_int(endpoint, NNG_OPT_SENDBUF, queued), "NNG_OPT_SENDBUF");
    for (int i = 0; i < consumer_count; i++) {
        address_of(i, address, sizeof address);
        must_nng(nng_dial(endpoint, address, NULL, 0), "nng_dial");
    }
}

static void put(const struct message *messages, int count)
{
    must_nng(nng_send(endpoint, (void *)messages, (size_t)count * sizeof *messages, 0), "nng_send");
}

static int get(struct message *messages, int count)
{
    size_t bytes = (size_t)count * sizeof *messages;

    must_nng(nng_recv(endpoint, messages, &bytes, 0), "nng_recv");
    return (int)(bytes / sizeof *messages);
}

static void measure(const struct call *call, struct sample *ret_sample)
{
    static const struct transport transport = {.create = create,
                                               .destroy = destroy,
                                               .begin_producer = begin_producer,
                                               .begin_consumer = begin_consumer,
                                               .put = put,
                                               .get = get,
                                               .slower_by = 40};

    measure_traffic(call, &transport, ret_sample);
}

static const char *version(void)
{
    return nng_version();
}

int main(int argc, char **argv)
{
    static const struct subject subjects[] = {{"nng", version, measure, traffic_all}};

    return bench_main(argc, argv, subjects, 1);
}
