/* SPDX-License-Identifier: MIT */
/*
 * What the stress programs share: options, a random stream from a printed seed, seats for processes that are killed and replaced, and the
 * checks that hold at the end of every round.
 *
 *   program = rounds until the time is over;   round = objects made, seats filled, a killer at work, everything stopped, counted, destroyed
 *
 * A seat is a place for one process at a time.  Half of them are forked by hand, so that nobody watches them and the others have to find
 * out; half are brood_processes.  What a seat notes down lies in memory that is shared but not the arena's, and outlives its process: so
 * the books are kept by somebody whom the library cannot disturb.
 *
 * The same seed gives the same rounds, objects and victims.  Who runs when is the kernel's choice.
 */
#ifndef BROOD_STRESS_H
#define BROOD_STRESS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/atomic.h"
#include "base/time.h"
#include "brood.h"
#include "heap/heap.h"

enum {
    SEATS_MAX = 32,
    CHECKS_MAX = 16,
    COMPLAINTS_MAX = 12,
    LEFT_MOST = 10,
    ENDS_WITHIN_MS = 20000,
    HANGS_AFTER_S = 90
};

/* --- random --- */

/* splitmix64 */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 … bound - 1. */
static inline uint32_t below(uint64_t *state, uint32_t bound)
{
    return (uint32_t)((next_random(state) >> 32) * bound >> 32);
}

/* --- the run --- */

struct seat_shm {
    _Atomic bri_name name;      /* of the process in it, once it has joined */
    _Atomic uint32_t uncertain; /* what its call in progress may have done without a note of it */
    const char *_Atomic
        doing; /* for the one who looks at a hang; the string lies in the program, at the same address for all */
};

struct run_shm {
    _Atomic uint32_t complaints;
    _Atomic uint32_t failed[CHECKS_MAX];
    _Atomic uint32_t stop; /* the round is over: finish what you do, and leave */
    struct seat_shm seats[SEATS_MAX];
};

struct seat {
    pid_t pid;              /* of the process in it; 0: it is empty */
    brood_process *process; /* or NULL: forked by hand */
    uint32_t life;          /* number of the process in it, unique in the round */
    int keeper_was_killed;
};

struct stress {
    const char *program;
    const char *const *checks; /* what is checked, in words */
    uint32_t checks_count;
    uint64_t seed;
    uint64_t random; /* the controller's stream */
    int64_t end;
    uint32_t round;
    uint64_t deaths, keeper_deaths; /* all in all */
    uint32_t next_life;
    void (*play)(uint32_t seat, uint32_t life, uint64_t random); /* the life of the process in a seat */
    struct seat seats[SEATS_MAX];
    uint32_t seats_count;
    uint64_t blocks_before;
    off_t said_before; /* to stderr */
    struct run_shm *shared;
};

static struct stress stress;

static inline void *shared_pages(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return memory;
}

/* One line, by one write, from any process.  Only the first few are printed. */
__attribute__((format(printf, 2, 3))) static inline void complain(uint32_t check, const char *format, ...)
{
    char text[600];
    va_list arguments;

    bri_add_relaxed(&stress.shared->failed[check], 1u);
    if (bri_add_relaxed(&stress.shared->complaints, 1u) >= COMPLAINTS_MAX)
        return;
    int length =
        snprintf(text, sizeof text, "# seed %llu, round %u: ", (unsigned long long)stress.seed, stress.round);
    va_start(arguments, format);
    length += vsnprintf(text + length, sizeof text - (size_t)length - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof text - 2)
        length = (int)sizeof text - 2;
    text[length] = '\n';
    if (write(STDOUT_FILENO, text, (size_t)length + 1) < 0)
        abort();
}

#define expect(check, condition, ...) ((condition) ? (void)0 : complain((check), __VA_ARGS__))

static inline int has_failed(void)
{
    return bri_load_relaxed(&stress.shared->complaints) > 0;
}

static inline int is_stopping(void)
{
    return (int)bri_load_acquire(&stress.shared->stop);
}

static inline void pause_us(uint32_t microseconds)
{
    struct timespec time = {.tv_nsec = (long)microseconds * 1000};

    ppoll(NULL, 0, &time, NULL);
}

/* --- seats --- */

static inline struct seat_shm *notes_of(uint32_t seat)
{
    return &stress.shared->seats[seat];
}

static inline void now_doing(uint32_t seat, const char *what)
{
    bri_store_relaxed(&notes_of(seat)->doing, what);
}

struct birth {
    uint32_t seat, life;
    uint64_t random;
};

static inline int live(void *argument)
{
    struct birth birth = *(struct birth *)argument;

    if (bri_arena_enter() < 0) {
        complain(0, "seat %u: cannot join the arena: %s", birth.seat, brood_error_text());
        return 1;
    }
    bri_store_release(&notes_of(birth.seat)->name, bri_self());
    stress.play(birth.seat, birth.life, birth.random);
    now_doing(birth.seat, "ended");
    return 0;
}

static inline void fork_by_hand(struct seat *seat, struct birth *birth)
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

static inline void fill_seat(uint32_t index)
{
    struct seat *seat = &stress.seats[index];
    struct birth birth = {index, stress.next_life++, next_random(&stress.random)};
    int daemon = (int)below(&stress.random, 2);

    *seat = (struct seat){.life = birth.life};
    bri_store_relaxed(&notes_of(index)->uncertain, 0u);
    bri_store_relaxed(&notes_of(index)->name, (bri_name)0);
    now_doing(index, "begins");
    if (below(&stress.random, 2)) {
        fork_by_hand(seat, &birth);
    } else {
        int error =
            brood_process_start(live, &birth, BROOD_PROCESS_OPTIONS(.daemon = daemon), &seat->process);
        if (error < 0)
            complain(0, "brood_process_start: %d: %s", error, brood_error_text());
        else
            seat->pid = brood_process_pid(seat->process);
    }
}

/* Was the process, which has ended, asleep in a wait?  Then its call in progress has done nothing yet.  The slot is not claimed anew before
 * this is asked: only the controller, or somebody whom it starts, claims slots. */
static inline int died_asleep(uint32_t index)
{
    bri_name name = bri_load_acquire(&notes_of(index)->name);

    return name != 0 && bri_epoch_of(name) == ((uint32_t)bri_load_acquire(&bri_slot_of(name)->word) >> 8) &&
           bri_load_relaxed(&bri_slot_of(name)->idle);
}

static inline uint32_t uncertain_in(uint32_t index)
{
    return died_asleep(index) ? 0 : bri_load_relaxed(&notes_of(index)->uncertain);
}

static inline void check_status(uint32_t index, int killed, int status)
{
    if (status != 0 && !(killed && status == -SIGKILL))
        complain(0, "the process in seat %u (%s) ended with %d", index,
                 bri_load_relaxed(&notes_of(index)->doing), status);
}

/* 1 once the process in the seat has ended; it is empty then. */
static inline int try_to_empty(uint32_t index, int killed, int64_t deadline)
{
    struct seat *seat = &stress.seats[index];
    int status = 0;

    if (seat->process != NULL) {
        int error = brood_process_join(seat->process, deadline);
        if (error == -ETIMEDOUT)
            return 0;
        error = error < 0 ? error : brood_process_exit_code(seat->process, &status);
        if (error == 0)
            check_status(index, killed, status);
        else if (!(error == -ENODATA && seat->keeper_was_killed))
            complain(0, "seat %u: join or exit code: %d: %s", index, error, brood_error_text());
        brood_process_destroy(seat->process);
    } else {
        pid_t ended;
        while ((ended = waitpid(seat->pid, &status, WNOHANG)) == 0 && bri_now_ns() < deadline)
            pause_us(500);
        if (ended == 0)
            return 0;
        check_status(index, killed, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
    }
    seat->pid = 0;
    seat->process = NULL;
    return 1;
}

/* The keeper goes first, so that nobody notes how its child ended. */
static inline void kill_keeper(struct seat *seat, uint32_t index)
{
    bri_name name = bri_load_acquire(&notes_of(index)->name);
    bri_name keeper = name != 0 ? bri_load_relaxed(&bri_slot_of(name)->boss) : 0;
    pid_t pid = keeper != 0 && bri_is_alive(keeper) ? (pid_t)bri_roster_pid_of(keeper) : 0;

    if (pid <= 0 || bri_load_relaxed(&bri_slot_of(keeper)->role) != BRI_ROLE_KEEPER)
        return;
    kill(pid, SIGKILL);
    seat->keeper_was_killed = 1;
    stress.keeper_deaths++;
}

/* SIGKILL, sometimes after a stop somewhere; returns when the process has ended. */
static inline void kill_seat(uint32_t index)
{
    struct seat *seat = &stress.seats[index];

    stress.deaths++;
    if (seat->process == NULL) {
        if (below(&stress.random, 8) == 0) {
            kill(seat->pid, SIGSTOP);
            pause_us(below(&stress.random, 20000));
        }
        kill(seat->pid, SIGKILL);
    } else {
        if (below(&stress.random, 8) == 0)
            kill_keeper(seat, index);
        brood_process_kill(seat->process);
    }
    if (!try_to_empty(index, 1, brood_after_ms(ENDS_WITHIN_MS)))
        complain(0, "seat %u: no end after SIGKILL", index);
}

static inline void say_where(uint32_t index)
{
    complain(0, "the process in seat %u (pid %d) does not end, but does: %s", index,
             (int)stress.seats[index].pid, bri_load_relaxed(&notes_of(index)->doing));
    if (getenv("BROOD_STRESS_STOP") != NULL) {
        printf("# stopped for a debugger: pid %d of %d\n", (int)stress.seats[index].pid, (int)getpid());
        fflush(stdout);
        for (;;)
            pause();
    }
}

/* Waits for the processes to leave by themselves; `nudge` wakes those that wait for others. */
static inline void await_seats(void (*nudge)(void), void (*emptied)(uint32_t seat))
{
    int64_t limit = brood_after_ms(ENDS_WITHIN_MS);

    for (uint32_t i = 0; i < stress.seats_count; i++) {
        while (stress.seats[i].pid != 0 && !try_to_empty(i, 0, brood_after_ms(2)) && bri_now_ns() < limit)
            nudge();
        if (stress.seats[i].pid != 0) {
            say_where(i);
            kill_seat(i);
        }
        emptied(i);
    }
}

/* --- the end of a round --- */

/* Nobody watches those who were forked by hand: whoever wants to count has to ask. */
static inline void bury_all(void)
{
    for (uint32_t slot = 0; slot < bri_load_acquire(&bri_arena_current->header->slots_high); slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED)
            bri_report_if_ended(name);
    }
    bri_undertake();
}

static inline brood_arena_stats stats_now(void)
{
    brood_arena_stats stats = {.size = sizeof stats};

    if (brood_arena_stats_get(&stats) < 0)
        complain(0, "brood_arena_stats_get: %s", brood_error_text());
    return stats;
}

static inline void print_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    static const char *const kinds[BRI_KINDS] = {
        "none",    "lock",    "rlock",   "semaphore", "condition", "event", "barrier", "queue", "user",
        "segment", "message", "process", "pool",      "job",       "data",  "failure", "reply"};

    if (++*(uint32_t *)argument <= LEFT_MOST)
        printf("#   a %s of %llu bytes at %llu, owner %x, aux %llx %llx %llx\n", kinds[bri_tag_kind(tag)],
               (unsigned long long)bri_load_relaxed(&block->bytes),
               (unsigned long long)bri_offset_of(bri_payload_of(block)), bri_tag_owner(tag),
               (unsigned long long)bri_load_relaxed(&block->aux[0]),
               (unsigned long long)bri_load_relaxed(&block->aux[1]),
               (unsigned long long)bri_load_relaxed(&block->aux[2]));
}

/* Frees what nobody knows any more; how many. */
static inline void free_user_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    if (bri_tag_kind(tag) == BRI_KIND_USER && brood_free(bri_payload_of(block)) == 0)
        ++*(uint32_t *)argument;
}

static inline void begin_round(void)
{
    stress.round++;
    stress.random = stress.seed + stress.round;
    next_random(&stress.random);
    stress.next_life = 0;
    bri_store_release(&stress.shared->stop, 0u);
    alarm(HANGS_AFTER_S);
    stress.blocks_before = stats_now().used_blocks;
}

/* Everything is destroyed: the arena is as before the round, and this is its only process. */
static inline void check_arena(uint32_t check)
{
    int64_t limit = brood_after_ms(5000);
    uint32_t printed = 0;

    for (bury_all(); bri_now_ns() < limit; bury_all()) {
        brood_arena_stats stats = stats_now();
        if (stats.participants == 1 && stats.used_blocks == stress.blocks_before)
            break;
        pause_us(1000);
    }
    expect(check, stats_now().participants == 1, "%u participants are left", stats_now().participants - 1);
    expect(check, bri_heap_is_valid(), "the heap is not whole");
    if (stats_now().used_blocks == stress.blocks_before)
        return;
    complain(check, "%lld blocks are left", (long long)(stats_now().used_blocks - stress.blocks_before));
    bri_heap_walk(print_block, &printed);
}

/* Other processes that have this arena mapped. */
static inline int count_mappers(void)
{
    DIR *processes = opendir("/proc");
    char path[300], line[512], wanted[40];
    int count = 0;

    snprintf(wanted, sizeof wanted, " %llu ", (unsigned long long)bri_arena_current->header->memfd_inode);
    for (struct dirent *entry; processes != NULL && (entry = readdir(processes)) != NULL;) {
        snprintf(path, sizeof path, "/proc/%s/maps", entry->d_name);
        FILE *maps = atoi(entry->d_name) > 0 && atoi(entry->d_name) != getpid() ? fopen(path, "re") : NULL;
        while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
            if (strstr(line, "/memfd:brood") != NULL && strstr(line, wanted) != NULL) {
                count++;
                break;
            }
        if (maps != NULL)
            fclose(maps);
    }
    if (processes != NULL)
        closedir(processes);
    return count;
}

static inline void check_processes(uint32_t check)
{
    int64_t limit = brood_after_ms(3000);

    while (count_mappers() > 0 && bri_now_ns() < limit)
        pause_us(5000);
    expect(check, count_mappers() == 0, "%d processes of the arena are left", count_mappers());
    expect(check, waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a child is left");
}

/* Assertions fail in supervisors and keepers too, of which nobody sees the end: but they say so. */
static inline void check_assertions(uint32_t check)
{
    char said[4000];
    ssize_t got = pread(STDERR_FILENO, said, sizeof said - 1, stress.said_before);

    if (got <= 0)
        return;
    said[got] = '\0';
    stress.said_before += got;
    if (strstr(said, "does not hold") != NULL || strstr(said, "anitizer") != NULL)
        complain(check, "an assertion failed");
    for (char *line = strtok(said, "\n"); line != NULL; line = strtok(NULL, "\n"))
        printf("# stderr: %s\n", line);
}

static inline void catch_stderr(void)
{
    int fd = memfd_create("stress-stderr", MFD_CLOEXEC);

    if (fd < 0 || fcntl(fd, F_SETFL, O_APPEND) != 0 || dup2(fd, STDERR_FILENO) < 0)
        perror("memfd_create");
    else
        close(fd);
}

/* --- main --- */

static inline _Noreturn void say_usage(int status)
{
    fprintf(status == 0 ? stdout : stderr,
            "usage: %s [--seed N] [--seconds N]\n"
            "  --seed N     the same rounds, objects and victims as the run that printed N; default: from "
            "getrandom(2)\n"
            "  --seconds N  stops after the round in which they are over; default: 8 in total for a program\n"
            "BROOD_STRESS_STOP=1 in the environment stops at the first process that hangs, for a debugger.\n",
            stress.program);
    exit(status);
}

static inline double number_of(const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || value < 0)
        say_usage(2);
    return value;
}

static inline void parse_arguments(int count, char **arguments, double seconds)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"seconds", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1)
        if (option == 's')
            stress.seed = strtoull(optarg, NULL, 10);
        else if (option == 't')
            seconds = number_of(optarg);
        else
            say_usage(option == 'h' ? 0 : 2);
    if (optind != count)
        say_usage(2);
    stress.end = bri_after_ns((int64_t)(seconds * 1e9));
}

static inline void prepare(int count, char **arguments, double seconds, const char *const *checks,
                           uint32_t checks_count)
{
    static const struct rlimit none = {0, 0};
    uint32_t seed = 0;

    stress.program = arguments[0];
    stress.checks = checks;
    stress.checks_count = checks_count;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        abort();
    stress.seed = seed;
    parse_arguments(count, arguments, seconds);
    setrlimit(RLIMIT_CORE, &none);
    setvbuf(stdout, NULL, _IOLBF, 0);
    stress.shared = shared_pages(sizeof *stress.shared);
    printf("# seed %llu\n", (unsigned long long)stress.seed);
    catch_stderr();
    if (brood_arena_create(NULL) < 0)
        complain(0, "brood_arena_create: %s", brood_error_text());
}

/* Rounds until the time is over, one at least; then TAP. */
static inline int run_rounds(void (*play_round)(void))
{
    do {
        begin_round();
        play_round();
        check_assertions(0);
    } while (bri_now_ns() < stress.end && !has_failed());
    alarm(0);
    printf("1..%u\n", stress.checks_count);
    for (uint32_t i = 0; i < stress.checks_count; i++)
        printf("%sok %u - %s\n", bri_load_relaxed(&stress.shared->failed[i]) ? "not " : "", i + 1,
               stress.checks[i]);
    printf("# seed %llu: %u rounds, %llu deaths, %llu of keepers\n", (unsigned long long)stress.seed,
           stress.round, (unsigned long long)stress.deaths, (unsigned long long)stress.keeper_deaths);
    return has_failed();
}

#endif
