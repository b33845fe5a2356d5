/* SPDX-License-Identifier: MIT */
/* Ten processes put a random number each into one queue.  They are joined first and the queue is read after:
 * what was put lies in shared memory, so no process has to stay until it is read. */
#include <brood.h>
#include <stdio.h>

enum { PROCESSES = 10 };

static int put_random_number(void *argument)
{
    brood_queue *queue = argument;
    const int64_t number = brood_random_between(1, 101);

    if (brood_queue_put(queue, &number, sizeof number, BROOD_FOREVER) < 0) {
        fprintf(stderr, "process_queue: %s\n", brood_error_text());
        return 1;
    }
    return 0;
}

static int start_and_join(brood_queue *queue)
{
    brood_process *processes[PROCESSES] = {NULL};
    int err = 0;

    for (int i = 0; i < PROCESSES && err == 0; i++)
        err = brood_process_start(put_random_number, queue, NULL, &processes[i]);
    for (int i = 0; i < PROCESSES && err == 0; i++)
        err = brood_process_join(processes[i], BROOD_FOREVER);
    for (int i = 0; i < PROCESSES; i++)
        brood_process_destroy(processes[i]); /* NULL is fine */
    return err;
}

static int get_numbers(brood_queue *queue, int64_t numbers[PROCESSES])
{
    size_t bytes;
    int err = 0;

    for (int i = 0; i < PROCESSES && err == 0; i++)
        err = brood_queue_get(queue, &numbers[i], sizeof numbers[i], &bytes, BROOD_NOW);
    return err;
}

int main(void)
{
    int64_t numbers[PROCESSES];
    brood_queue *queue = NULL;

    int err = brood_queue_create(NULL, &queue);
    if (err == 0)
        err = start_and_join(queue);
    if (err == 0)
        err = get_numbers(queue, numbers);
    if (err < 0)
        fprintf(stderr, "process_queue: %s\n", brood_error_text());
    for (int i = 0; i < PROCESSES && err == 0; i++)
        printf("%s%lld%s", i == 0 ? "[" : ", ", (long long)numbers[i], i == PROCESSES - 1 ? "]\n" : "");
    brood_queue_destroy(queue); /* NULL is fine */
    return err < 0;
}
