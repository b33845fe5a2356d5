/* SPDX-License-Identifier: MIT */
/* What the queue's tests share.  A child process must not fail by cmocka, whose longjmp would go on with its parent's
 * tests: it ends with 1, and says where. */
#ifndef BRI_QUEUE_TESTING_H
#define BRI_QUEUE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/undertaker.h"
#include "base/testing.h"
#include "queue/queue.h"

#define child_check(condition)                                                                              \
    ((void)((condition) ||                                                                                  \
            (dprintf(STDERR_FILENO, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, brood_error_text()), \
             _exit(1), 0)))

static inline uint64_t used_blocks(void)
{
    brood_arena_stats stats = {.size = sizeof stats};

    assert_int_equal(brood_arena_stats_get(&stats), 0);
    return stats.used_blocks;
}

static inline brood_queue *new_queue(uint64_t max_messages, uint64_t max_bytes)
{
    brood_queue *queue;

    assert_int_equal(
        brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = max_messages, .max_bytes = max_bytes), &queue),
        0);
    return queue;
}

static inline struct bri_queue_shm *shm_of(brood_queue *queue)
{
    return (struct bri_queue_shm *)(void *)queue;
}

/* Memory that this process shares with its later children. */
static inline void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(memory != MAP_FAILED);
    return memory;
}

struct child {
    pid_t pid;
    _Atomic bri_name *name; /* known once it has joined */
};

typedef void child_function(brood_queue *queue, void *argument);

static inline struct child start_child(child_function *function, brood_queue *queue, void *argument)
{
    struct child child = {.name = shared_memory(sizeof(bri_name))};

    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        child_check(bri_arena_enter() == 0);
        bri_store_release(child.name, bri_self());
        function(queue, argument);
        _exit(0);
    }
    return child;
}

static inline bri_name name_of(const struct child *child)
{
    while (bri_load_acquire(child->name) == 0)
        sched_yield();
    return bri_load_acquire(child->name);
}

static inline int end_of(const struct child *child)
{
    int status;

    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    if (bri_load_acquire(child->name) != 0)
        bri_report_if_ended(bri_load_acquire(child->name));
    return status;
}

static inline void assert_ends_well(const struct child *child)
{
    assert_int_equal(end_of(child), 0);
}

static inline void kill_child(const struct child *child)
{
    kill(child->pid, SIGKILL);
    end_of(child);
}

/* Until it sleeps in a wait. */
static inline void await_sleep(const struct child *child)
{
    while (!bri_load_acquire(&bri_slot_of(name_of(child))->idle))
        sched_yield();
}

static inline uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

#endif
