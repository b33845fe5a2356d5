/* SPDX-License-Identifier: MIT */
/* A process that was exec'd attaches to the arena, takes part, and may die there like any other.  The program starts itself anew. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/testing.h"
#include "brood.h"

enum { FAILED = 9, WINDOW_BYTES = 4096 };

/* --- the exec'd process: program, what it is to do, fd, base, bytes, address of an object --- */

static brood_arena_ticket ticket_of(char **arguments)
{
    return (brood_arena_ticket){.size = sizeof(brood_arena_ticket),
                                .fd = atoi(arguments[2]),
                                .base = strtoull(arguments[3], NULL, 16),
                                .window_bytes = strtoull(arguments[4], NULL, 16)};
}

static int put_and_free(void *object)
{
    brood_queue *queue = object;
    void *memory;

    if (brood_queue_get(queue, &memory, sizeof memory, &(size_t){0}, BROOD_FOREVER) < 0)
        return FAILED;
    int is_right = strcmp(memory, "from the first") == 0;
    return brood_free(memory) < 0 || brood_queue_put(queue, is_right ? "y" : "n", 1, BROOD_NOW) < 0 ? FAILED
                                                                                                    : 0;
}

static int die_with_lock(void *object)
{
    brood_lock *lock = object;

    if (brood_lock_acquire(lock, BROOD_NOW) != 0)
        return FAILED;
    return raise(SIGKILL);
}

static int attach_twice(brood_arena_ticket *ticket)
{
    return brood_arena_attach(ticket) == -EALREADY && brood_arena_create(NULL) == -EALREADY ? 0 : FAILED;
}

static int find_place_taken(const brood_arena_ticket *ticket)
{
    void *place = (void *)(uintptr_t)(ticket->base + WINDOW_BYTES); /* NOLINT(performance-no-int-to-ptr) */

    if (mmap(place, WINDOW_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
        place)
        return FAILED;
    if (brood_arena_attach(ticket) != -EADDRINUSE)
        return FAILED;
    return brood_arena_create(NULL) == 0 ? 0 : FAILED; /* nothing is half-done: it can have one of its own */
}

static int be_other(char **arguments)
{
    brood_arena_ticket ticket = ticket_of(arguments);
    void *object =
        (void *)(uintptr_t)strtoull(arguments[5], NULL, 16); /* NOLINT(performance-no-int-to-ptr) */

    alarm(60);
    if (strcmp(arguments[1], "taken") == 0)
        return find_place_taken(&ticket);
    if (brood_arena_attach(&ticket) != 0) {
        fprintf(stderr, "brood_arena_attach: %s\n", brood_error_text());
        return FAILED;
    }
    close(ticket.fd);
    if (strcmp(arguments[1], "twice") == 0)
        return attach_twice(&ticket);
    return strcmp(arguments[1], "put") == 0 ? put_and_free(object) : die_with_lock(object);
}

/* --- the tests --- */

static int run_other(const char *what, const void *object)
{
    brood_arena_ticket ticket = {.size = sizeof ticket};
    char fd_text[20], base[30], bytes[30], address[30];
    int status = -1;

    assert_int_equal(brood_arena_ticket_get(&ticket), 0);
    int fd = dup(ticket.fd); /* not close-on-exec */
    snprintf(fd_text, sizeof fd_text, "%d", fd);
    snprintf(base, sizeof base, "%llx", (unsigned long long)ticket.base);
    snprintf(bytes, sizeof bytes, "%llx", (unsigned long long)ticket.window_bytes);
    snprintf(address, sizeof address, "%llx", (unsigned long long)(uintptr_t)object);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "other", what, fd_text, base, bytes, address, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(fd);
    return status;
}

static void exec_d_process_takes_part(void **unused)
{
    brood_queue *queue;
    void *memory;
    char answer = 0;
    size_t bytes;

    (void)unused;
    assert_int_equal(brood_queue_create(NULL, &queue), 0);
    assert_int_equal(brood_alloc(100, &memory), 0);
    memcpy(memory, "from the first", sizeof "from the first");
    assert_int_equal(brood_queue_put(queue, &memory, sizeof memory, BROOD_NOW), 0);
    assert_int_equal(run_other("put", queue), 0);
    assert_int_equal(brood_queue_get(queue, &answer, 1, &bytes, BROOD_NOW), 0);
    assert_int_equal(answer, 'y');
    assert_int_equal(brood_free(memory), -EINVAL); /* freed there */
    assert_int_equal(brood_queue_destroy(queue), 0);
}

static void its_death_passes_on_what_it_held(void **unused)
{
    brood_lock *lock;

    (void)unused;
    assert_int_equal(brood_lock_create(&lock), 0);
    int status = run_other("die", lock);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(brood_lock_acquire(lock, BROOD_FOREVER), BROOD_OWNER_DIED);
    assert_int_equal(brood_lock_release(lock), 0);
    assert_int_equal(brood_lock_destroy(lock), 0);
}

static void one_arena_for_a_process(void **unused)
{
    (void)unused;
    assert_int_equal(run_other("twice", NULL), 0);
}

static void addresses_in_use_are_an_error(void **unused)
{
    (void)unused;
    assert_int_equal(run_other("taken", NULL), 0);
}

/* In a fork, before it joins: this program has an arena. */
static void bad_tickets_are_refused(void **unused)
{
    brood_arena_ticket ticket = {.size = sizeof ticket};

    (void)unused;
    assert_int_equal(brood_arena_ticket_get(NULL), -EINVAL);
    assert_int_equal(brood_arena_ticket_get(&(brood_arena_ticket){.size = 3}), -EINVAL);
    assert_int_equal(brood_arena_attach(NULL), -EINVAL);
    assert_int_equal(brood_arena_attach(&(brood_arena_ticket){.size = sizeof ticket}), -EINVAL);
    assert_int_equal(brood_arena_ticket_get(&ticket), 0);
    assert_int_equal(brood_arena_attach(&ticket), -EALREADY);
}

static uint64_t free_addresses(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_true(memory != MAP_FAILED);
    munmap(memory, bytes);
    return (uintptr_t)memory;
}

static void no_arena_behind_the_descriptor(void **unused)
{
    brood_arena_ticket ticket = {.size = sizeof ticket, .window_bytes = UINT64_C(1) << 30};

    (void)unused;
    ticket.base = free_addresses(ticket.window_bytes);
    assert_int_equal(brood_arena_destroy(), 0);
    ticket.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(brood_arena_attach(&ticket), -EINVAL);
    close(ticket.fd);
    ticket.fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(ticket.fd, 1 << 24), 0);
    assert_int_equal(brood_arena_attach(&ticket), -EINVAL); /* not sealed */
    fcntl(ticket.fd, F_ADD_SEALS, F_SEAL_SHRINK);
    assert_int_equal(brood_arena_attach(&ticket), -EINVAL); /* all zero */
    close(ticket.fd);
    assert_int_equal(brood_arena_attach(&ticket), -EINVAL); /* closed */
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exec_d_process_takes_part), cmocka_unit_test(its_death_passes_on_what_it_held),
        cmocka_unit_test(one_arena_for_a_process),   cmocka_unit_test(addresses_in_use_are_an_error),
        cmocka_unit_test(bad_tickets_are_refused),   cmocka_unit_test(no_arena_behind_the_descriptor),
    };

    if (count == 6)
        return be_other(arguments);
    return cmocka_run_group_tests_name("attach", tests, NULL, NULL);
}
