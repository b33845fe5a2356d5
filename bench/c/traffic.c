/* SPDX-License-Identifier: MIT */
#include "traffic.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum { REST_US = 200 };

const char *const traffic_all[] = {"1to1",         "2to1",         "1to2",         "4to4", "1to1-batched",
                                   "2to1-batched", "1to2-batched", "4to4-batched", NULL};
const char *const traffic_one_by_one[] = {"1to1", "2to1", "1to2", "4to4", NULL};
const char *const traffic_batched[] = {"1to1-batched", "2to1-batched", "1to2-batched", "4to4-batched", NULL};

/* What the children and the parent share. */
struct traffic_shm {
    _Atomic int ready; /* children that have begun */
    _Atomic int go;
    struct {
        _Alignas(64) _Atomic uint64_t got;
        uint64_t sum; /* of the numbers */
    } consumers[PLAYERS_MAX];
};

struct player {
    const struct transport *transport;
    struct traffic_shm *shared;
    int index, batch;
    uint64_t count; /* a producer's messages */
};

static void wait_for_go(const struct player *player)
{
    atomic_fetch_add(&player->shared->ready, 1);
    while (!atomic_load(&player->shared->go))
        pause_us(50);
}

static void produce(void *argument)
{
    const struct player *player = argument;
    struct message messages[BATCH] = {0};

    if (player->transport->begin_producer != NULL)
        player->transport->begin_producer(player->index);
    wait_for_go(player);
    for (uint64_t sent = 0; sent < player->count; sent += (uint64_t)player->batch) {
        for (int i = 0; i < player->batch; i++) {
            messages[i].producer = (uint32_t)player->index;
            messages[i].number = (uint32_t)sent + (uint32_t)i + 1;
        }
        player->transport->put(messages, player->batch);
    }
    for (;;) /* what it has connected, or keeps in memory, goes on until all has arrived */
        pause_us(1000000);
}

static void check(const struct message *message, uint32_t *last)
{
    if (message->producer >= PLAYERS_MAX || message->number <= last[message->producer])
        fail("message %u of producer %u after %u", message->number, message->producer,
             message->producer < PLAYERS_MAX ? last[message->producer] : 0);
    last[message->producer] = message->number;
}

static void consume(void *argument)
{
    const struct player *player = argument;
    struct message messages[BATCH];
    uint32_t last[PLAYERS_MAX] = {0};
    uint64_t got = 0, sum = 0;

    if (player->transport->begin_consumer != NULL)
        player->transport->begin_consumer(player->index);
    wait_for_go(player);
    for (;;) {
        const int count = player->transport->get(messages, player->batch);
        for (int i = 0; i < count; i++) {
            check(&messages[i], last);
            sum += messages[i].number;
        }
        got += (uint64_t)count;
        player->shared->consumers[player->index].sum = sum;
        atomic_store_explicit(&player->shared->consumers[player->index].got, got, memory_order_release);
    }
}

static uint64_t all_got(struct traffic_shm *shared, uint64_t *ret_sum)
{
    uint64_t got = 0;

    *ret_sum = 0;
    for (int i = 0; i < PLAYERS_MAX; i++) {
        got += atomic_load_explicit(&shared->consumers[i].got, memory_order_acquire);
        *ret_sum += shared->consumers[i].sum;
    }
    return got;
}

/* A child that has failed will not get or put what the parent waits for. */
static void check_children(void)
{
    int status;
    const pid_t pid = waitpid(-1, &status, WNOHANG);

    if (pid > 0)
        fail("process %d ended with status %#x", (int)pid, (unsigned)status);
}

/* Starts the players, lets them go, and returns how long it took until everything had arrived. */
static double play(struct player *players, pid_t *pids, int producers, int consumers, uint64_t total)
{
    struct traffic_shm *shared = players[0].shared;
    uint64_t sum;

    for (int i = 0; i < consumers; i++)
        pids[i] = fork_to(consume, &players[i]);
    while (atomic_load(&shared->ready) < consumers)
        pause_us(100), check_children();
    for (int i = 0; i < producers; i++)
        pids[consumers + i] = fork_to(produce, &players[consumers + i]);
    while (atomic_load(&shared->ready) < consumers + producers)
        pause_us(100), check_children();
    pause_us(20000);
    const double begun = now_us();
    atomic_store(&shared->go, 1);
    while (all_got(shared, &sum) < total) {
        if (players[0].transport->rest != NULL)
            players[0].transport->rest();
        else
            pause_us(REST_US);
        check_children();
    }
    return now_us() - begun;
}

static uint64_t messages_of(const struct call *call, const struct transport *transport, int batch)
{
    const uint64_t messages = (call->is_quick ? 500000u : 3000000u) * (batch == 1 ? 1 : 3);

    return messages / (uint64_t)(transport->slower_by == 0 ? 1 : transport->slower_by);
}

static double end_players(const pid_t *pids, int count)
{
    double cpu_us = 0;

    for (int i = 0; i < count; i++)
        cpu_us += cpu_us_of(pids[i]);
    for (int i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
    for (int i = 0; i < count; i++)
        waitpid(pids[i], NULL, 0);
    return cpu_us;
}

void measure_traffic(const struct call *call, const struct transport *transport, struct sample *ret_sample)
{
    struct traffic_shm *shared = shared_memory(sizeof *shared);
    struct player players[2 * PLAYERS_MAX];
    pid_t pids[2 * PLAYERS_MAX];
    int producers, consumers;

    if (sscanf(call->variant, "%dto%d", &producers, &consumers) != 2)
        fail("%s is no variant", call->variant);
    const int batch = strstr(call->variant, "-batched") != NULL ? BATCH : 1;
    const uint64_t each =
        messages_of(call, transport, batch) / (uint64_t)(producers * batch) * (uint64_t)batch;
    transport->create(producers, consumers, batch);
    for (int i = 0; i < consumers + producers; i++)
        players[i] = (struct player){transport, shared, i < consumers ? i : i - consumers, batch, each};
    const double took = play(players, pids, producers, consumers, each * (uint64_t)producers);
    uint64_t sum;
    if (all_got(shared, &sum) != each * (uint64_t)producers ||
        sum != (uint64_t)producers * (each * (each + 1) / 2))
        fail("the numbers of all messages have the sum %llu", (unsigned long long)sum);
    ret_sample->n = each * (uint64_t)producers;
    ret_sample->value = (double)ret_sample->n * 1e6 / took;
    ret_sample->unit = "msg/s";
    ret_sample->more_is_better = 1;
    ret_sample->cpu_us_per_task = end_players(pids, producers + consumers) / (double)ret_sample->n;
    transport->destroy();
}
