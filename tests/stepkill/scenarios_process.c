/* SPDX-License-Identifier: MIT */
/* brood_process: its starter, its keeper and itself are killed, one at a time. */
#define _GNU_SOURCE
#include "arena_checks.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "base/check.h"
#include "plat/process.h"

enum {
    EXIT_CODE = 5,
    WALK_STEPS = 20000000, /* at most: some 700 for each process of the machine */
};

struct state {
    brood_process *process;
    int gate; /* eventfd: the child goes on */
    int is_daemon;
    pid_t keeper;
    atomic_int begun; /* shared: children that run */
    bri_name victim;
};

static struct state *state; /* shared by all */

/* Allocates and frees, so that it dies holding things. */
static int live(void *argument)
{
    eventfd_t value;
    void *memory;
    (void)argument;
    if (brood_alloc(1000, &memory) != 0)
        return 1;
    atomic_fetch_add(&state->begun, 1);
    while (eventfd_read(state->gate, &value) != 0)
        continue;
    if (brood_free(memory) != 0)
        return 1;
    return EXIT_CODE;
}

static struct state *new_state(int is_daemon)
{
    state = stepkill_shared(sizeof *state);
    state->gate = eventfd(0, EFD_CLOEXEC);
    state->is_daemon = is_daemon;
    return open_arena() == 0 ? state : NULL;
}

static int start(void)
{
    const int error =
        brood_process_start(live, NULL, BROOD_PROCESS_OPTIONS(.daemon = state->is_daemon), &state->process);
    return error == 0 ? 0 : stepkill_fail("start: %s", brood_error_text());
}

static void open_gate(void)
{
    eventfd_write(state->gate, 1);
}

/* The keeper is the participant of that role. */
static pid_t find_keeper(void)
{
    for (uint32_t slot = 0; slot < bri_load_acquire(&bri_arena_current->header->slots_high); slot++) {
        enum bri_slot_state slot_state;
        const bri_name name = bri_roster_name_at(slot, &slot_state);
        if (slot_state == BRI_SLOT_LIVE && bri_load_relaxed(&bri_slot_of(name)->role) == BRI_ROLE_KEEPER)
            return (pid_t)bri_roster_pid_of(name);
    }
    return 0;
}

static void *setup_running(int is_daemon)
{
    if (new_state(is_daemon) == NULL || start() != 0)
        return NULL;
    while (atomic_load(&state->begun) == 0)
        take_a_nap();
    state->keeper = find_keeper();
    return state;
}

static void *setup_process(void)
{
    return setup_running(0);
}

static void *setup_daemon(void)
{
    return setup_running(1);
}

/* As on a kernel without lists of children: there is no descriptor for the list, but one for the walk over /proc that comes then. */
static void deny_list(const char *point)
{
    static struct rlimit before;
    if (strcmp(point, "children.list") == 0 && getrlimit(RLIMIT_NOFILE, &before) == 0)
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, before.rlim_max});
    if (strcmp(point, "children.walk") == 0)
        setrlimit(RLIMIT_NOFILE, &before);
}

static void *setup_daemon_without_list(void)
{
    bri_fault_hook = deny_list;
    return setup_running(1);
}

/* --- after which ------------------------------------------------------------------------------ */

/* A child that was killed leaves its one block, which is everybody's: brood_free says so. */
static int check_nobody_left(uint64_t most_blocks)
{
    wait_until_alone();
    const uint64_t blocks = arena_now().used_blocks;
    if (blocks > most_blocks)
        return check_heap(most_blocks);
    if (check_heap(blocks) != 0 || check_allocations() != 0)
        return -1;
    return check_heap(blocks);
}

/* Joined, and it ended so, or nobody knows how; expected < 0: by that signal. */
static int check_end(int expected, int may_be_unknown)
{
    int exit_code = 0;
    const int error = brood_process_join(state->process, BROOD_FOREVER);
    if (error != 0)
        return stepkill_fail("join: %s", brood_error_text());
    if (brood_process_is_alive(state->process) != 0)
        return stepkill_fail("it lives after join");
    const int known = brood_process_exit_code(state->process, &exit_code);
    if (known != 0 && !(known == -ENODATA && may_be_unknown))
        return stepkill_fail("exit code: %s", brood_error_text());
    if (known == 0 && exit_code != expected && exit_code != EXIT_CODE)
        return stepkill_fail("it ended with %d, not %d", exit_code, expected);
    return brood_process_destroy(state->process) == 0 ? 0 : stepkill_fail("destroy: %s", brood_error_text());
}

/* --- the keeper is killed --------------------------------------------------------------------- */

static pid_t keeper_pid(void *ctx)
{
    (void)ctx;
    return state->keeper;
}

static int let_child_end(void *ctx)
{
    (void)ctx;
    open_gate();
    while (!bri_process_has_ended(brood_process_pid(state->process), 0))
        take_a_nap();
    return 0;
}

/* The keeper dies first, and the child after it. */
static int let_child_end_later(void *ctx)
{
    (void)ctx;
    open_gate();
    return 0;
}

static int check_orphan(void *ctx)
{
    (void)ctx;
    return check_end(EXIT_CODE, 1) == 0 ? check_nobody_left(0) : -1;
}

static int check_daemon(void *ctx)
{
    (void)ctx;
    return check_end(-SIGKILL, 1) == 0 ? check_nobody_left(1) : -1;
}

/* --- the child is killed ---------------------------------------------------------------------- */

static pid_t child_pid(void *ctx)
{
    (void)ctx;
    return brood_process_pid(state->process);
}

static int check_killed_child(void *ctx)
{
    (void)ctx;
    return check_end(-SIGKILL, 0) == 0 ? check_nobody_left(1) : -1;
}

/* --- the starter is killed -------------------------------------------------------------------- */

static void *setup_start(void)
{
    return new_state(0);
}

static void *setup_start_daemon(void)
{
    return new_state(1);
}

static void start_and_end(void *ctx)
{
    (void)ctx;
    if (bri_arena_enter() != 0)
        _exit(1);
    stepkill_begin();
    start();
    stepkill_end();
}

static void start_first(void *ctx)
{
    (void)ctx;
    if (bri_arena_enter() != 0 || start() != 0)
        _exit(1);
    while (atomic_load(&state->begun) == 0)
        take_a_nap();
    open_gate();
    stepkill_begin();
    brood_process_join(state->process, BROOD_FOREVER);
    brood_process_destroy(state->process);
    stepkill_end();
}

/* The child, if there is one, goes on without its starter; a daemon ends. */
static int check_without_starter(void *ctx)
{
    (void)ctx;
    if (!state->is_daemon)
        open_gate();
    return check_nobody_left(state->is_daemon ? 1 : 0);
}

const struct stepkill_scenario stepkill_process[] = {
    {.name = "process.keeper.end",
     .setup = setup_process,
     .victim_pid = keeper_pid,
     .provoke = let_child_end,
     .check = check_orphan},
    {.name = "process.keeper.run",
     .setup = setup_process,
     .victim_pid = keeper_pid,
     .provoke = let_child_end_later,
     .check = check_orphan},
    {.name = "process.keeper.daemon",
     .setup = setup_daemon,
     .victim_pid = keeper_pid,
     .provoke = let_child_end_later,
     .check = check_daemon},
    {.name = "process.keeper.daemon-walk",
     .setup = setup_daemon_without_list,
     .victim_pid = keeper_pid,
     .provoke = let_child_end_later,
     .check = check_daemon,
     .max_steps = WALK_STEPS},
    {.name = "process.child",
     .setup = setup_process,
     .victim_pid = child_pid,
     .provoke = let_child_end_later,
     .check = check_killed_child},
    {.name = "process.starter.start",
     .setup = setup_start,
     .victim = start_and_end,
     .check = check_without_starter},
    {.name = "process.starter.daemon",
     .setup = setup_start_daemon,
     .victim = start_and_end,
     .check = check_without_starter},
    {.name = "process.starter.join",
     .setup = setup_start,
     .victim = start_first,
     .check = check_without_starter},
    {.name = NULL},
};
