/* SPDX-License-Identifier: MIT */
/* Names and slots: each name once, each death once. */
#include "arena/roster.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "arena/undertaker.h"
#include "base/testing.h"
#include "brood.h"

enum { ROUNDS = 300 };

static bri_name claim(void)
{
    bri_name name = 0;

    assert_int_equal(bri_roster_claim(BRI_ROLE_WORKER, &name), 0);
    return name;
}

static uint32_t slot_of(bri_name name)
{
    return name & (BRI_SLOTS - 1);
}

static enum bri_slot_state state_of(bri_name name)
{
    enum bri_slot_state state;

    bri_roster_name_at(slot_of(name), &state);
    return state;
}

static void claims_are_alive_until_cancelled(void **unused)
{
    bri_name name = claim();

    (void)unused;
    assert_int_not_equal(name, 0);
    assert_int_not_equal(name, bri_self());
    assert_true(bri_is_alive(name));
    assert_false(bri_roster_has_ended(name));
    assert_int_equal(state_of(name), BRI_SLOT_CLAIMED);
    assert_int_equal(bri_slot_of(name)->boss, bri_self());
    bri_roster_cancel(name);
    assert_false(bri_is_alive(name));
    assert_true(bri_roster_has_ended(name));
    assert_int_equal(state_of(name), BRI_SLOT_FREE);
}

static void names_do_not_come_again(void **unused)
{
    bri_name last = 0;

    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        bri_name name = claim();
        assert_int_not_equal(name, last);
        assert_false(bri_is_alive(last));
        assert_false(bri_roster_bury(last, BRI_END_KILLED));
        assert_true(bri_is_alive(name));
        bri_roster_cancel(name);
        last = name;
    }
}

static void nobody_is_nobody(void **unused)
{
    (void)unused;
    assert_false(bri_is_alive(0));
    assert_false(bri_is_dead_and_unburied(0));
    assert_true(bri_roster_has_ended(0));
    assert_false(bri_roster_bury(0, BRI_END_KILLED));
    assert_false(bri_report_if_ended(0));
    assert_false(bri_report_if_ended(bri_self()));
    assert_true(bri_is_alive(bri_self()));
}

static void a_death_is_said_once(void **unused)
{
    bri_name name = claim();

    (void)unused;
    assert_int_equal(bri_roster_end_of(name), BRI_END_UNKNOWN);
    assert_true(bri_roster_bury(name, BRI_END_KILLED));
    assert_false(bri_roster_bury(name, BRI_END_CLEAN));
    assert_false(bri_is_alive(name));
    assert_true(bri_is_dead_and_unburied(name));
    assert_int_equal(bri_roster_end_of(name), BRI_END_KILLED);
    assert_int_equal(bri_roster_enter(name), -ECANCELED);
    assert_int_equal(state_of(name), BRI_SLOT_DEAD);
    bri_undertake();
    assert_false(bri_is_dead_and_unburied(name));
    assert_int_equal(state_of(name), BRI_SLOT_FREE);
    assert_int_equal(bri_roster_pid_of(name), 0);
}

static void no_slot_is_claimed_twice(void **unused)
{
    static bri_name names[BRI_SLOTS];
    static char taken[BRI_SLOTS];
    size_t count = 0;
    bri_name name;

    (void)unused;
    while (bri_roster_claim(BRI_ROLE_WORKER, &name) == 0) {
        assert_int_equal(taken[slot_of(name)]++, 0);
        names[count++] = name;
    }
    assert_non_null(strstr(brood_error_text(), "4096"));
    assert_int_equal(count, BRI_SLOTS - 1);
    bri_roster_cancel(names[100]);
    assert_int_equal(bri_roster_claim(BRI_ROLE_WORKER, &name), 0);
    assert_int_equal(slot_of(name), slot_of(names[100]));
    assert_int_not_equal(name, names[100]);
    names[100] = name;
    while (count > 0)
        bri_roster_cancel(names[--count]);
}

/* --- with processes --- */

struct meeting {
    _Atomic bri_name child;
    bri_name claimed;
};

static struct meeting *meeting;

static pid_t start_child(void (*function)(void))
{
    pid_t pid = fork();

    if (pid == 0) {
        function();
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

static void join_and_wait(void)
{
    if (bri_self() != 0 || bri_arena_enter() != 0)
        _exit(1);
    bri_store_release(&meeting->child, bri_self());
    pause();
}

static bri_name await_child(void)
{
    while (bri_load_acquire(&meeting->child) == 0)
        sched_yield();
    return bri_exchange_acq_rel(&meeting->child, 0u);
}

static void forked_processes_have_names_of_their_own(void **unused)
{
    pid_t pid = start_child(join_and_wait);
    bri_name name = await_child();

    (void)unused;
    assert_int_not_equal(name, bri_self());
    assert_int_equal(bri_roster_pid_of(name), pid);
    assert_int_equal(bri_slot_of(name)->role, BRI_ROLE_USER);
    assert_false(bri_roster_has_ended(name));
    assert_false(bri_report_if_ended(name));
    kill(pid, SIGKILL);
    while (!bri_roster_has_ended(name)) /* a zombie has ended */
        sched_yield();
    assert_true(bri_is_alive(name)); /* until somebody says so */
    waitpid(pid, NULL, 0);
    assert_true(bri_report_if_ended(name));
    assert_false(bri_is_alive(name));
    assert_int_equal(state_of(name), BRI_SLOT_FREE);
}

static void enter_claim(void)
{
    if (bri_roster_enter(meeting->claimed) != 0 || bri_self() != meeting->claimed)
        _exit(1);
    bri_store_release(&meeting->child, bri_self());
    pause();
}

static void claims_are_entered(void **unused)
{
    meeting->claimed = claim();
    pid_t pid = start_child(enter_claim);

    (void)unused;
    assert_int_equal(await_child(), meeting->claimed);
    assert_int_equal(state_of(meeting->claimed), BRI_SLOT_LIVE);
    assert_int_equal(bri_roster_pid_of(meeting->claimed), pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_true(bri_report_if_ended(meeting->claimed));
}

static void leave(void)
{
    if (bri_arena_enter() != 0)
        _exit(1);
    bri_store_release(&meeting->child, bri_self());
    bri_roster_leave();
}

static void who_leaves_is_gone(void **unused)
{
    pid_t pid = start_child(leave);
    int status;

    (void)unused;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    bri_name name = await_child();
    assert_false(bri_is_alive(name));
    assert_int_equal(state_of(name), BRI_SLOT_FREE);
}

static void claim_and_die(void)
{
    bri_name name;

    if (bri_arena_enter() != 0 || bri_roster_claim(BRI_ROLE_WORKER, &name) != 0)
        _exit(1);
    meeting->claimed = name;
    bri_store_release(&meeting->child, bri_self());
    raise(SIGKILL);
}

static void claims_fall_with_their_maker(void **unused)
{
    pid_t pid = start_child(claim_and_die);

    (void)unused;
    waitpid(pid, NULL, 0);
    bri_name maker = await_child();
    assert_true(bri_is_alive(meeting->claimed));
    assert_true(bri_roster_has_ended(meeting->claimed));
    assert_true(bri_report_if_ended(maker));
    assert_false(bri_is_alive(meeting->claimed));
    bri_undertake();
    assert_int_equal(state_of(meeting->claimed), BRI_SLOT_FREE);
}

/* A process that is killed before it has entered is known by the pid that its maker tells. */
static void a_claim_with_a_pid_ends_with_the_process(void **unused)
{
    bri_name name = claim();
    pid_t pid = start_child(leave);

    (void)unused;
    bri_roster_tell_pid(name, (uint32_t)pid);
    waitpid(pid, NULL, 0);
    await_child();
    assert_true(bri_roster_has_ended(name));
    assert_true(bri_report_if_ended(name));
}

static void enter_claimed(void)
{
    _exit(bri_roster_enter(meeting->claimed) == -ECANCELED ? 0 : 1);
}

/* A process that is slow to enter, while its claim is buried and the slot claimed again: the next holder's pid is not touched. */
static void who_comes_late_does_no_harm(void **unused)
{
    bri_name late = claim();
    int status;

    (void)unused;
    bri_roster_bury(late, BRI_END_KILLED);
    bri_undertake();
    bri_name next = claim();
    assert_int_equal(slot_of(next), slot_of(late));
    bri_roster_tell_pid(next, (uint32_t)getpid());
    bri_roster_tell_pid(late, 1);
    meeting->claimed = late;
    pid_t pid = start_child(enter_claimed);
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(bri_roster_pid_of(next), getpid());
    assert_int_equal(bri_roster_pid_of(late), 0);
    assert_false(bri_roster_has_ended(next));
    assert_int_equal(bri_load_relaxed(&bri_slot_of(next)->start_time), 0);
    bri_roster_cancel(next);
}

static int enter(void **state)
{
    (void)state;
    meeting = mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return bri_arena_enter();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(claims_are_alive_until_cancelled),
        cmocka_unit_test(names_do_not_come_again),
        cmocka_unit_test(nobody_is_nobody),
        cmocka_unit_test(a_death_is_said_once),
        cmocka_unit_test(who_comes_late_does_no_harm),
        cmocka_unit_test(no_slot_is_claimed_twice),
        cmocka_unit_test(forked_processes_have_names_of_their_own),
        cmocka_unit_test(claims_are_entered),
        cmocka_unit_test(who_leaves_is_gone),
        cmocka_unit_test(claims_fall_with_their_maker),
        cmocka_unit_test(a_claim_with_a_pid_ends_with_the_process),
    };

    return cmocka_run_group_tests_name("arena/roster", tests, enter, NULL);
}
