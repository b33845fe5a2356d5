/* SPDX-License-Identifier: MIT */
/*
 * A C program that shares two queues with the program that started it, host.py or host.c.  worker.py does the same in Python.
 *
 *   worker FD BASE WINDOW_BYTES ASKED ANSWERS      the arena's ticket, and the handles of the queues
 *
 * It takes numbers from one queue and puts into the other how many Collatz steps each needs to come down to 1.  A message
 * of no bytes says that there is no more to do.
 */
#include <brood.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOOK_AFTER_MS = 1000 };

struct answer {
    int64_t number, steps;
};

static int64_t steps_of(int64_t number)
{
    int64_t steps = 0;

    for (; number > 1; steps++)
        number = number % 2 == 0 ? number / 2 : 3 * number + 1;
    return steps;
}

/* A handle is an address, the same in all processes of the arena. */
static brood_queue *queue_at(const char *text)
{
    return (brood_queue *)(uintptr_t)strtoull(text, NULL, 10);
}

/* Nobody watches a process that its parent started by exec: so it looks for itself whether its host has died. */
static int next_number(brood_queue *asked, pid_t host, int64_t *ret_number, size_t *ret_bytes)
{
    for (;;) {
        int err =
            brood_queue_get(asked, ret_number, sizeof *ret_number, ret_bytes, brood_after_ms(LOOK_AFTER_MS));
        if (err != -ETIMEDOUT || getppid() != host)
            return err;
    }
}

static int work(brood_queue *asked, brood_queue *answers)
{
    const pid_t host = getppid();
    int64_t number;
    size_t bytes;
    int err;

    while ((err = next_number(asked, host, &number, &bytes)) == 0 && bytes == sizeof number) {
        const struct answer answer = {number, steps_of(number)};
        err = brood_queue_put(answers, &answer, sizeof answer, BROOD_FOREVER);
        if (err < 0)
            return err;
    }
    return err;
}

int main(int count, char **arguments)
{
    if (count != 6) {
        fprintf(stderr, "usage: worker FD BASE WINDOW_BYTES ASKED ANSWERS (host starts it)\n");
        return 2;
    }
    const brood_arena_ticket ticket = {.size = sizeof ticket,
                                       .fd = atoi(arguments[1]),
                                       .base = strtoull(arguments[2], NULL, 10),
                                       .window_bytes = strtoull(arguments[3], NULL, 10)};
    int err = brood_arena_attach(&ticket);
    if (err == 0)
        err = work(queue_at(arguments[4]), queue_at(arguments[5]));
    if (err < 0)
        fprintf(stderr, "worker: %s\n", brood_error_text());
    return err < 0;
}
