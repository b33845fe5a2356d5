/* SPDX-License-Identifier: MIT */
/*
 * The C side of tests/python/test_shared_queue.py.
 *
 *   python_peer FD BASE WINDOW_BYTES ASKED ANSWERS echo [POINT]    puts back what it gets, until a message of no bytes
 *   python_peer FD BASE WINDOW_BYTES ASKED ANSWERS count           puts 0, 1, 2 … as long as it lives
 *   python_peer FD BASE WINDOW_BYTES ASKED ANSWERS own             makes a queue of 3 messages, answers its handle, echoes
 *                                                                  from it, and destroys it once it is asked to
 * At the fault point it stops itself, to be killed there.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "brood.h"

enum { MOST_BYTES = 1 << 20, ALARM_S = 60 };

static const char *stop_at;
static char buffer[MOST_BYTES];

static void stop(const char *point)
{
    if (stop_at != NULL && strcmp(point, stop_at) == 0)
        raise(SIGSTOP);
}

static int echo(brood_queue *asked, brood_queue *answers)
{
    size_t bytes;
    int err;

    while ((err = brood_queue_get(asked, buffer, sizeof buffer, &bytes, BROOD_FOREVER)) == 0 && bytes > 0)
        if ((err = brood_queue_put(answers, buffer, bytes, BROOD_FOREVER)) < 0)
            break;
    return err;
}

static int count(brood_queue *answers)
{
    int err = 0;

    for (int64_t i = 0; err == 0; i++)
        err = brood_queue_put(answers, &i, sizeof i, BROOD_FOREVER);
    return err;
}

static int echo_from_own(brood_queue *asked, brood_queue *answers)
{
    brood_queue *own;
    size_t bytes;

    int err = brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = 3), &own);
    if (err == 0)
        err = brood_queue_put(answers, &own, sizeof own, BROOD_FOREVER);
    if (err == 0)
        err = echo(own, answers);
    if (err == 0)
        err = brood_queue_get(asked, buffer, sizeof buffer, &bytes, BROOD_FOREVER);
    return err == 0 ? brood_queue_destroy(own) : err;
}

static brood_queue *queue_at(const char *text)
{
    return (brood_queue *)(uintptr_t)strtoull(text, NULL, 10);
}

static int run(char **arguments)
{
    brood_queue *asked = queue_at(arguments[4]), *answers = queue_at(arguments[5]);

    if (strcmp(arguments[6], "count") == 0)
        return count(answers);
    return strcmp(arguments[6], "own") == 0 ? echo_from_own(asked, answers) : echo(asked, answers);
}

int main(int words, char **arguments)
{
    if (words < 7)
        return 2;
    const brood_arena_ticket ticket = {.size = sizeof ticket,
                                       .fd = atoi(arguments[1]),
                                       .base = strtoull(arguments[2], NULL, 10),
                                       .window_bytes = strtoull(arguments[3], NULL, 10)};
    alarm(ALARM_S);
    stop_at = arguments[7];
    bri_fault_hook = stop;
    int err = brood_arena_attach(&ticket);
    if (err == 0)
        err = run(arguments);
    if (err < 0)
        fprintf(stderr, "python_peer: %s\n", brood_error_text());
    return err < 0;
}
