/* SPDX-License-Identifier: MIT */
/* Seats: processes that are killed and replaced.  See torture.h. */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "arena/undertaker.h"
#include "torture.h"

enum { HUNT_US = 600, STOPPED_WITHIN_MS = 20, STOP_MOST_US = 30000 };

struct birth {
    uint32_t seat, life;
    uint64_t random;
};

static int live(void *argument)
{
    struct birth birth = *(struct birth *)argument;

    if (bri_arena_enter() < 0) {
        complain(PROCESSES, "seat %u: cannot join the arena: %s", birth.seat, brood_error_text());
        return 1;
    }
    bri_store_relaxed(&notes_of(birth.seat)->pid, getpid());
    bri_store_release(&notes_of(birth.seat)->name, bri_self());
    torture.part->play(birth.seat, birth.life, birth.random);
    now_doing(birth.seat, "ended");
    return 0;
}

static void fork_by_hand(struct seat *seat, struct birth *birth)
{
    pid_t parent = getpid();

    seat->pid = fork();
    if (seat->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(98);
        _exit(live(birth));
    }
}

/* Who is no daemon lives on after its owner: not wanted of an owner that is going to be killed. */
static void start_process(struct seat *seat, struct birth *birth, int daemon)
{
    int error = brood_process_start(live, birth, BROOD_PROCESS_OPTIONS(.daemon = daemon), &seat->process);

    if (error == -ENOMEM && torture.part->arena_bytes != 0)
        note_fault(NO_ROOM);
    else if (error < 0)
        complain(PROCESSES, "brood_process_start: %d: %s", error, brood_error_text());
    else
        seat->pid = brood_process_pid(seat->process);
}

void fill_seat(uint32_t index)
{
    struct seat *seat = &torture.seats[index];
    struct birth birth = {index, torture.next_life++, next_random(&torture.random)};
    int daemon = (int)below(&torture.random, 2) || torture.is_doomed;

    seat->life = birth.life;
    seat->killed = ALIVE;
    seat->keeper_was_killed = 0;
    bri_store_release(&seat->stopped_until, INT64_C(0));
    bri_store_relaxed(&notes_of(index)->uncertain, 0u);
    bri_store_relaxed(&notes_of(index)->name, (bri_name)0);
    now_doing(index, "begins");
    if (below(&torture.random, 2))
        fork_by_hand(seat, &birth);
    else
        start_process(seat, &birth, daemon);
}

/* Its slot is not somebody else's by now. */
static int has_slot(bri_name name)
{
    return name != 0 && bri_epoch_of(name) == ((uint32_t)bri_load_acquire(&bri_slot_of(name)->word) >> 8);
}

/* Was the process, which has ended, asleep in a wait?  Then its call in progress has done nothing yet.  The slot is not claimed anew before
 * this is asked: only the controller, or somebody whom it starts, claims slots. */
static int died_asleep(uint32_t index)
{
    bri_name name = bri_load_acquire(&notes_of(index)->name);

    return has_slot(name) && bri_load_relaxed(&bri_slot_of(name)->idle);
}

uint32_t uncertain_in(uint32_t index)
{
    return died_asleep(index) ? 0 : bri_load_relaxed(&notes_of(index)->uncertain);
}

/* --- their ends --- */

static void check_status(uint32_t index, int status)
{
    if (status != 0 && !(torture.seats[index].killed && status == -SIGKILL))
        complain(PROCESSES, "the process in seat %u (%s) ended with %d", index,
                 bri_load_relaxed(&notes_of(index)->doing), status);
}

static int has_process_ended(uint32_t index)
{
    struct seat *seat = &torture.seats[index];
    int status = 0, error = brood_process_join(seat->process, BROOD_NOW);

    if (error == -ETIMEDOUT)
        return 0;
    error = error < 0 ? error : brood_process_exit_code(seat->process, &status);
    if (error == 0)
        check_status(index, status);
    else if (!(error == -ENODATA && seat->keeper_was_killed))
        complain(PROCESSES, "seat %u: join or exit code: %d: %s", index, error, brood_error_text());
    brood_process_destroy(seat->process);
    return 1;
}

static int has_child_ended(uint32_t index)
{
    int status = 0;

    if (waitpid(torture.seats[index].pid, &status, WNOHANG) == 0)
        return 0;
    check_status(index, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
    return 1;
}

/* 1 once the process in the seat has ended; it is empty then, and the books know. */
static int try_to_empty(uint32_t index)
{
    struct seat *seat = &torture.seats[index];

    if (!(seat->process != NULL ? has_process_ended(index) : has_child_ended(index)))
        return 0;
    seat->pid = 0;
    seat->process = NULL;
    torture.part->bury(index, seat->killed);
    return 1;
}

/* --- faults --- */

static void condemn(uint32_t index)
{
    if (torture.part->condemn != NULL)
        torture.part->condemn(index);
}

static bri_name keeper_of(uint32_t index)
{
    bri_name name = bri_load_acquire(&notes_of(index)->name);
    bri_name keeper = has_slot(name) ? bri_load_relaxed(&bri_slot_of(name)->boss) : 0;

    if (keeper == 0 || !has_slot(name) || !bri_is_alive(keeper))
        return 0;
    return bri_load_relaxed(&bri_slot_of(keeper)->role) == BRI_ROLE_KEEPER ? keeper : 0;
}

/* The keeper goes first, so that nobody notes how its child ended. */
static void kill_keeper(uint32_t index)
{
    bri_name keeper = keeper_of(index);
    pid_t pid = keeper != 0 ? (pid_t)bri_roster_pid_of(keeper) : 0;

    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    torture.seats[index].keeper_was_killed = 1;
    note_fault(KILL_KEEPER);
}

static bri_name undertaker_now(void)
{
    return bri_load_acquire(&bri_arena_current->header->undertaker.owner);
}

static int is_stopped(pid_t pid)
{
    char path[40], stat[200] = "";

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 1; /* it has ended */
    if (fgets(stat, sizeof stat, file) == NULL)
        stat[0] = '\0';
    fclose(file);
    const char *state = strrchr(stat, ')');
    return state == NULL || state[2] == 'T' || state[2] == 'Z' || state[2] == 'X';
}

/* Stops it, looks whether it recovers still, and only then kills it. */
static int kill_if_undertaking(uint32_t index, bri_name name, pid_t pid)
{
    int64_t limit = brood_after_ms(STOPPED_WITHIN_MS);

    kill(pid, SIGSTOP);
    while (!is_stopped(pid) && bri_now_ns() < limit)
        sched_yield();
    int is_hit = undertaker_now() == name;
    if (is_hit)
        condemn(index);
    kill(pid, is_hit ? SIGKILL : SIGCONT);
    note_fault(is_hit ? KILL_UNDERTAKER : STOP_PLAYER);
    return is_hit;
}

static void mark_killed(uint32_t index, enum killed killed)
{
    torture.seats[index].killed = killed;
    torture.seats[index].killed_at = bri_now_ns();
}

/* Is it somebody in a seat, or somebody's keeper? */
static int kill_undertaker(bri_name name)
{
    for (uint32_t i = 0; i < torture.seats_count; i++) {
        struct seat *seat = &torture.seats[i];
        if (seat->pid == 0 || bri_load_acquire(&seat->stopped_until) != 0)
            continue;
        if (bri_load_acquire(&notes_of(i)->name) == name && !seat->killed) {
            if (kill_if_undertaking(i, name, seat->pid))
                mark_killed(i, KILLED_RECOVERING);
            return 1;
        }
        if (seat->process != NULL && seat->killed && !seat->keeper_was_killed && keeper_of(i) == name) {
            seat->keeper_was_killed = kill_if_undertaking(i, name, (pid_t)bri_roster_pid_of(name));
            return 1;
        }
    }
    return 0;
}

/* Somebody has just been killed: whoever passes on what he held may be next. */
static void hunt_for_the_undertaker(void)
{
    int64_t end = bri_after_ns(HUNT_US * INT64_C(1000));

    while (bri_now_ns() < end) {
        bri_name name = undertaker_now();
        if (name != 0 && name != bri_self() && kill_undertaker(name))
            return;
    }
}

void kill_seat(uint32_t index)
{
    struct seat *seat = &torture.seats[index];

    if (seat->pid == 0 || seat->killed)
        return;
    condemn(index);
    if (seat->process == NULL) {
        kill(seat->pid, SIGKILL);
    } else {
        if (below(&torture.random, 8) == 0)
            kill_keeper(index);
        brood_process_kill(seat->process);
    }
    mark_killed(index, KILLED);
    if (below(&torture.random, 3) == 0)
        hunt_for_the_undertaker();
}

void stop_seat(uint32_t index)
{
    struct seat *seat = &torture.seats[index];

    if (seat->pid == 0 || seat->killed != ALIVE || bri_load_acquire(&seat->stopped_until) != 0)
        return;
    kill(seat->pid, SIGSTOP);
    seat->stopped_pid = seat->pid;
    bri_store_release(&seat->stopped_until,
                      bri_after_ns((int64_t)below(&torture.random, STOP_MOST_US) * 1000));
    note_fault(STOP_PLAYER);
}

/* A thread.  Not the controller's own: it may be waiting for what the stopped one holds.  A pid that is somebody else's by now is not harmed. */
static void *wake_the_stopped(void *unused)
{
    for (;; pause_us(1000))
        for (uint32_t i = 0; i < SEATS_MAX; i++) {
            struct seat *seat = &torture.seats[i];
            int64_t until = bri_load_acquire(&seat->stopped_until);
            if (until != 0 && bri_now_ns() >= until &&
                bri_cas_acq_rel(&seat->stopped_until, &until, INT64_C(0)))
                kill(seat->stopped_pid, SIGCONT);
        }
    return unused;
}

static void start_waker(void)
{
    pthread_t waker;

    if (pthread_create(&waker, NULL, wake_the_stopped, NULL) != 0)
        abort();
    pthread_detach(waker);
}

static void sweep_seat(uint32_t index)
{
    struct seat *seat = &torture.seats[index];

    if (seat->pid == 0)
        return;
    if (try_to_empty(index))
        expect(PROCESSES, seat->killed || torture.part->lives != 0, "seat %u left before the end", index);
    else if (seat->killed && bri_now_ns() - seat->killed_at > ENDS_WITHIN_MS * INT64_C(1000000)) {
        complain(PROCESSES, "seat %u: no end after SIGKILL", index);
        seat->killed_at = bri_now_ns();
    }
}

/* All are emptied before one is filled: see died_asleep. */
void sweep_seats(void)
{
    for (uint32_t i = 0; i < torture.seats_count; i++)
        sweep_seat(i);
    for (uint32_t i = 0; i < torture.seats_count; i++)
        if (torture.seats[i].pid == 0 &&
            (torture.part->lives == 0 || torture.next_life < torture.part->lives))
            fill_seat(i);
}

/* --- all of them --- */

void fill_all_seats(void)
{
    for (uint32_t i = 0; i < torture.seats_count; i++)
        fill_seat(i);
    start_waker();
    say_ready();
}

static int is_somebody_hit(void)
{
    for (uint32_t i = 0; i < torture.seats_count; i++)
        if (torture.seats[i].pid != 0 &&
            (torture.seats[i].killed != ALIVE || bri_load_acquire(&torture.seats[i].stopped_until) != 0))
            return 1;
    return 0;
}

void settle_seats(void)
{
    for (sweep_seats(); is_somebody_hit(); sweep_seats())
        pause_us(500);
}

static void say_where(uint32_t index)
{
    complain(HANGS, "the process in seat %u (pid %d) does not end, but does: %s", index,
             (int)torture.seats[index].pid, bri_load_relaxed(&notes_of(index)->doing));
    print_states(getsid(0));
}

void await_seats(uint32_t from, uint32_t to, void (*nudge)(void))
{
    int64_t limit = brood_after_ms(ENDS_WITHIN_MS);

    for (uint32_t i = from; i < to; i++) {
        while (torture.seats[i].pid != 0 && !try_to_empty(i) && bri_now_ns() < limit) {
            if (nudge != NULL)
                nudge();
            pause_us(1000);
        }
        if (torture.seats[i].pid == 0)
            continue;
        say_where(i);
        kill_seat(i);
        while (!try_to_empty(i))
            pause_us(1000);
    }
}
