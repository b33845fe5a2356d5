/* SPDX-License-Identifier: MIT */
/*
 * A C program that starts another one, in Python or C, and shares two queues with it: what host.py is in Python.
 *
 *   host WORKER [ARGUMENT]...      the worker's command: python worker.py, or worker, built from worker.c
 *
 * A worker that is killed costs nothing but time: what it had taken is asked for again, all else is in the queues.
 */
#include <brood.h>
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUMBERS = 1000, WORDS = 16, NUMBER_WORDS = 5, LOOK_AFTER_MS = 100 };

struct answer {
    int64_t number, steps;
};

struct host {
    brood_queue *asked, *answers;
    char **command; /* the worker's, up to NULL */
    pid_t worker;
    int64_t steps[NUMBERS + 1]; /* by number; -1: not known yet */
    int answered;
    const char *complaint; /* of our own; NULL: brood has the sentence */
};

/* What a worker needs to know are a few numbers, and the arena's descriptor: a duplicate, since ours ends with the exec. */
static int start(struct host *host)
{
    brood_arena_ticket ticket = {.size = sizeof ticket};
    char *words[WORDS + NUMBER_WORDS + 1] = {NULL}, text[NUMBER_WORDS][24];
    int count = 0;

    int err = brood_arena_ticket_get(&ticket);
    if (err < 0)
        return err;
    const int fd = dup(ticket.fd);
    const unsigned long long numbers[NUMBER_WORDS] = {(unsigned)fd, ticket.base, ticket.window_bytes,
                                                      (uintptr_t)host->asked, (uintptr_t)host->answers};
    for (; count < WORDS && host->command[count] != NULL; count++)
        words[count] = host->command[count];
    for (int i = 0; i < NUMBER_WORDS; i++) {
        snprintf(text[i], sizeof text[i], "%llu", numbers[i]);
        words[count + i] = text[i];
    }
    host->worker = fork();
    if (host->worker == 0) {
        execvp(words[0], words);
        _exit(127);
    }
    close(fd);
    if (host->worker < 0)
        host->complaint = "no process could be made";
    return host->worker < 0 ? -EAGAIN : 0;
}

/* Lets nothing be asked for but what has no answer yet. */
static int ask(struct host *host)
{
    int64_t number;
    size_t bytes;
    int err;

    do
        err = brood_queue_get(host->asked, &number, sizeof number, &bytes, BROOD_NOW);
    while (err == 0);
    for (number = 1; number <= NUMBERS && (err == 0 || err == -ETIMEDOUT); number++)
        err = host->steps[number] < 0 ? brood_queue_put(host->asked, &number, sizeof number, BROOD_NOW) : 0;
    return err;
}

/* Nothing came for a while: the worker may have ended. */
static int look_after_worker(struct host *host)
{
    int status;

    if (waitpid(host->worker, &status, WNOHANG) != host->worker)
        return 0;
    if (!WIFSIGNALED(status)) {
        host->complaint = "the worker ended before its work was done";
        return -ECHILD;
    }
    int err = ask(host);
    return err < 0 ? err : start(host);
}

static int collect(struct host *host)
{
    int err = 0;

    while (err == 0 && host->answered < NUMBERS) {
        struct answer answer;
        size_t bytes;
        err = brood_queue_get(host->answers, &answer, sizeof answer, &bytes, brood_after_ms(LOOK_AFTER_MS));
        if (err == -ETIMEDOUT) {
            err = look_after_worker(host);
        } else if (err == 0 && bytes == sizeof answer && answer.number >= 1 && answer.number <= NUMBERS) {
            host->answered += host->steps[answer.number] < 0;
            host->steps[answer.number] = answer.steps;
        }
    }
    return err;
}

static int run(struct host *host)
{
    for (int i = 0; i <= NUMBERS; i++)
        host->steps[i] = -1;
    int err = brood_queue_create(NULL, &host->asked);
    if (err == 0)
        err = brood_queue_create(NULL, &host->answers);
    if (err == 0)
        err = ask(host);
    if (err == 0)
        err = start(host);
    if (err == 0)
        err = collect(host);
    if (host->worker > 0) {
        brood_queue_put(host->asked, NULL, 0, BROOD_NOW); /* no more to do */
        waitpid(host->worker, NULL, 0);
    }
    return err;
}

int main(int count, char **arguments)
{
    struct host host = {.command = arguments + 1};
    int most = 1;

    if (count < 2 || count > WORDS) {
        fprintf(stderr, "usage: host WORKER [ARGUMENT]...\n");
        return 2;
    }
    int err = run(&host);
    if (err < 0) {
        fprintf(stderr, "host: %s\n", host.complaint != NULL ? host.complaint : brood_error_text());
        return 1;
    }
    for (int i = 1; i <= NUMBERS; i++)
        if (host.steps[i] > host.steps[most])
            most = i;
    printf("%d numbers; %d needs the most steps, %lld\n", host.answered, most, (long long)host.steps[most]);
    brood_queue_destroy(host.asked);
    return brood_queue_destroy(host.answers) < 0;
}
