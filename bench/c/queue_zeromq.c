/* SPDX-License-Identifier: MIT */
/* ZeroMQ, PUSH to PULL over ipc: every consumer binds an address, every producer connects to all of them.  A batch is one message. */
#include "sample.h"
#include "traffic.h"

#include <stdio.h>
#include <unistd.h>
#include <zmq.h>

static void *endpoint;
static int consumer_count, parent, high_water;

static void address_of(int consumer, char *text, size_t bytes)
{
    snprintf(text, bytes, "ipc://@brood-bench-%d-%d", parent, consumer); /* @: in no file system */
}

static void create(int producers, int consumers, int batch)
{
    (void)producers;
    consumer_count = consumers;
    parent = (int)getpid();
    high_water = QUEUED / batch;
}

static void destroy(void)
{
}

static void begin(int kind)
{
    endpoint = zmq_socket(zmq_ctx_new(), kind);
    must(endpoint == NULL ? -1 : 0, "zmq_socket");
    must(zmq_setsockopt(endpoint, ZMQ_SNDHWM, &high_water, sizeof high_water), "ZMQ_SNDHWM");
    must(zmq_setsockopt(endpoint, ZMQ_RCVHWM, &high_water, sizeof high_water), "ZMQ_RCVHWM");
}

static void begin_consumer(int index)
{
    char address[64];

    begin(ZMQ_PULL);
    address_of(index, address, sizeof address);
    must(zmq_bind(endpoint, address), "zmq_bind");
}

static void begin_producer(int index)
{
    char address[64];

    (void)index;
    begin(ZMQ_PUSH);
    for (int i = 0; i < consumer_count; i++) {
        address_of(i, address, sizeof address);
        must(zmq_connect(endpoint, address), "zmq_connect");
    }
}

static void put(const struct message *messages, int count)
{
    must(zmq_send(endpoint, messages, (size_t)count * sizeof *messages, 0), "zmq_send");
}

static int get(struct message *messages, int count)
{
    return (int)(must(zmq_recv(endpoint, messages, (size_t)count * sizeof *messages, 0), "zmq_recv") /
                 (long)sizeof *messages);
}

static void measure(const struct call *call, struct sample *ret_sample)
{
    static const struct transport transport = {.create = create,
                                               .destroy = destroy,
                                               .begin_producer = begin_producer,
                                               .begin_consumer = begin_consumer,
                                               .put = put,
                                               .get = get};

    measure_traffic(call, &transport, ret_sample);
}

static const char *version(void)
{
    static char text[32];
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    return text;
}

int main(int argc, char **argv)
{
    static const struct subject subjects[] = {{"zeromq", version, measure, traffic_all}};

    return bench_main(argc, argv, subjects, 1);
}
