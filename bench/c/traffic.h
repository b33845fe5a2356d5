/* SPDX-License-Identifier: MIT */
/*
 * Messages of 64 bytes from p producers to c consumers, each a process: the variant "PtoC" sends them one by one, "PtoC-batched" 64 at a time.
 *
 * A subject is a struct transport.  Consumers check that the messages of each producer arrive in order, and count; when together they have
 * them all, the time is over and they are ended.  All transports have room for QUEUED messages, as far as they can be bounded.
 */
#ifndef BENCH_TRAFFIC_H
#define BENCH_TRAFFIC_H

#include "sample.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { BATCH = 64, QUEUED = 1024, PLAYERS_MAX = 8 };

struct message {
    uint32_t producer;
    uint32_t number; /* from 1 */
    uint8_t filling[56];
};

struct transport {
    /* In the parent, before it forks. */
    void (*create)(int producers, int consumers, int batch);
    void (*destroy)(void);
    /* In the child; consumers begin before producers.  NULL: nothing to do. */
    void (*begin_producer)(int index);
    void (*begin_consumer)(int index);
    void (*put)(const struct message *messages, int count);
    /* Waits for messages, and takes at most `count`: how many. */
    int (*get)(struct message *messages, int count);
    /* How the parent, which takes no part, waits for a moment; NULL: it sleeps. */
    void (*rest)(void);
    int slower_by; /* so many times fewer messages make a sample; 0: 1 */
};

extern const char *const traffic_all[];        /* every variant */
extern const char *const traffic_one_by_one[]; /* those without batches */
extern const char *const traffic_batched[];    /* those with them */

void measure_traffic(const struct call *call, const struct transport *transport, struct sample *ret_sample);

#ifdef __cplusplus
}
#endif

#endif
