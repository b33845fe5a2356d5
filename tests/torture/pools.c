/* SPDX-License-Identifier: MIT */
/* The part "pools": its controller, the killer and the owners in seats.  See pools.h. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "plat/process.h"
#include "pool/pool.h"
#include "pools.h"

enum {
    WORKERS_MOST = 4,
    OWNERS = 2,
    IDLE_IN_A_ROW = 4,
    SUPERVISORS_MOST = 8,
    STOP_MOST_US = 30000,
    HUNT_US = 400
};

brood_pool *pool;
uint32_t workers, regions_used, first_region;
int is_limited;

/* --- the killer --- */

static int has_worked(uint32_t index)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);

    return bri_load_relaxed(&seat->items) != seat->items_at_birth;
}

/* Its descriptor, or -1.  A pid that is a worker's after its descriptor was opened was a worker's then. */
static int descriptor_of_worker(uint32_t index)
{
    int pid = brood_pool_worker_pid(pool, index);
    int fd = pid > 0 ? bri_pidfd_open(pid) : -1;

    if (fd >= 0 && brood_pool_worker_pid(pool, index) == pid && !bri_pidfd_has_ended(fd))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int kill_worker(uint32_t index)
{
    int fd = descriptor_of_worker(index);

    if (fd < 0)
        return 0;
    bri_add_relaxed(&books->killed, 1u);
    bri_pidfd_signal(fd, SIGKILL);
    close(fd);
    note_fault(KILL_WORKER);
    return 1;
}

static int descriptor_of_supervisor(void)
{
    bri_name name = bri_load_acquire(&pool->shared->supervisor);
    pid_t pid = (pid_t)bri_roster_pid_of(name);
    int fd = pid > 0 ? bri_pidfd_open(pid) : -1;

    if (fd >= 0 && bri_load_acquire(&pool->shared->supervisor) == name)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void stop_for_a_while(int fd, uint64_t *random, enum fault fault)
{
    if (fd < 0)
        return;
    bri_pidfd_signal(fd, SIGSTOP);
    note_fault(fault);
    pause_us(below(random, STOP_MOST_US));
    bri_pidfd_signal(fd, SIGCONT);
    close(fd);
}

static void kill_supervisor(enum fault fault)
{
    int fd = descriptor_of_supervisor();

    if (fd < 0 || bri_load_relaxed(&books->supervisors_killed) >= SUPERVISORS_MOST) {
        if (fd >= 0)
            close(fd);
        return; /* a pool that needs too many of them is broken */
    }
    bri_add_relaxed(&books->supervisors_killed, 1u);
    bri_add_relaxed(&books->killed, workers);
    bri_pidfd_signal(fd, SIGKILL);
    close(fd);
    note_fault(fault);
}

/* A worker has just been killed: its supervisor passes on what it held. */
static void kill_the_recovering(void)
{
    int64_t end = bri_after_ns(HUNT_US * INT64_C(1000));

    while (bri_now_ns() < end)
        if (bri_load_acquire(&bri_arena_current->header->undertaker.owner) ==
            bri_load_acquire(&pool->shared->supervisor)) {
            kill_supervisor(KILL_UNDERTAKER);
            return;
        }
}

/* A pool gives up when eight workers die in a row without having done anything: rightly so, also when nobody has given them any work.  So
 * no more of these in a row than would still leave a margin. */
static int kill_some_worker(uint64_t *random)
{
    static uint32_t idle_in_a_row;
    uint32_t victim = below(random, workers);

    if (has_worked(victim)) {
        idle_in_a_row = 0;
        return kill_worker(victim);
    }
    if (below(random, 4) != 0 || idle_in_a_row >= IDLE_IN_A_ROW)
        return 0;
    int is_hit = kill_worker(victim);
    idle_in_a_row += (uint32_t)is_hit;
    return is_hit;
}

static void *kill_now_and_then(void *argument)
{
    uint64_t random = *(uint64_t *)argument;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC), kills_supervisors = below(&random, 2) == 0;

    while (!bri_load_acquire(&books->killer_may_go)) {
        uint32_t dice = below(&random, 40);
        pause_us(1000 + below(&random, 12000));
        if (dice < 8)
            stop_for_a_while(descriptor_of_worker(below(&random, workers)), &random, STOP_WORKER);
        else if (dice == 8)
            stop_for_a_while(descriptor_of_supervisor(), &random, STOP_SUPERVISOR);
        else if (dice == 9 && kills_supervisors)
            kill_supervisor(KILL_SUPERVISOR);
        else if (kill_some_worker(&random) && kills_supervisors && dice < 14)
            kill_the_recovering();
        if (dice < 4)
            brood_pool_dump(pool, null);
    }
    close(null);
    return NULL;
}

/* --- owners in seats --- */

/* In a seat: an owner with a pool of its own, until it is killed. */
static void play_owner(uint32_t seat, uint32_t life, uint64_t random)
{
    static struct batch batch;

    torture.random = random;
    is_limited = 0;
    first_region = (1 + life % (REGIONS / REGIONS_EACH - 1)) * REGIONS_EACH;
    regions_used = 0;
    now_doing(seat, "creates a pool");
    workers = 1 + below(&random, 2);
    int error = brood_pool_create(BROOD_POOL_OPTIONS(.workers = workers), &pool);
    expect(CALLS, error == 0, "a second owner's brood_pool_create: %d: %s", error, brood_error_text());
    while (error == 0 && !is_stopping()) {
        now_doing(seat, "runs jobs");
        submit(&batch, (int)below(&random, 2), 0);
        collect(&batch);
    }
    now_doing(seat, "destroys its pool");
    brood_pool_destroy(pool);
}

static void bury(uint32_t seat, enum killed killed)
{
    (void)seat;
    if (killed == KILLED)
        note_fault(KILL_OWNER);
}

/* --- rounds --- */

static void create_pool(void)
{
    const uint64_t mib = UINT64_C(1) << 20;

    workers = 1 + below(&torture.random, WORKERS_MOST);
    is_limited = below(&torture.random, 3) == 0;
    brood_pool_options options = {.size = sizeof options,
                                  .workers = workers,
                                  .tasks_per_worker =
                                      below(&torture.random, 3) == 0 ? 1 + below(&torture.random, 30) : 0,
                                  .grace_ms = 30,
                                  .max_memory_bytes = is_limited ? MEMORY_MIB * mib : 0,
                                  .max_open_files = is_limited ? FILES_MOST : 0,
                                  .max_cpu_seconds = is_limited ? CPU_SECONDS : 0};
    int error = brood_pool_create(&options, &pool);
    if (error < 0) {
        complain(CALLS, "brood_pool_create: %d: %s", error, brood_error_text());
        pool = NULL;
    }
}

static void play_jobs(void)
{
    int64_t end = brood_after_ms(ROUND_MS);

    while (bri_now_ns() < end && !has_failed()) {
        switch (below(&torture.random, 6)) {
        case 0:
            play_map();
            break;
        case 1:
        case 2:
            play_stream();
            break;
        case 3:
            drop_batch();
            break;
        default:
            play_batches();
        }
        uint32_t owner = below(&torture.random, OWNERS * 4);
        if (owner < OWNERS)
            kill_seat(owner);
        sweep_seats();
    }
}

/* One job runs when the pool's end comes. */
static void end_pool(void)
{
    static struct batch batch;

    batch = (struct batch){0};
    submit(&batch, 1, 0);
    if (below(&torture.random, 2)) {
        expect_0(brood_pool_close(pool), "brood_pool_close");
        expect_0(brood_pool_join(pool, brood_after_ms(WITHIN_MS)), "brood_pool_join");
    } else {
        expect_0(brood_pool_terminate(pool), "brood_pool_terminate");
        bri_add_relaxed(&books->killed, batch.count); /* how many nobody knows */
    }
    int error = batch.result == NULL ? 0 : brood_result_wait(batch.result, brood_after_ms(WITHIN_MS));
    expect_0(error, "brood_result_wait at the end");
    if (batch.result != NULL)
        expect_0(brood_result_destroy(batch.result), "brood_result_destroy");
    expect_0(brood_pool_destroy(pool), "brood_pool_destroy");
}

static void play_with_killer(void)
{
    uint64_t random = next_random(&torture.random);
    pthread_t killer;

    if (pthread_create(&killer, NULL, kill_now_and_then, &random) != 0)
        abort();
    play_jobs();
    bri_store_release(&books->killer_may_go, 1u);
    pthread_join(killer, NULL);
}

static void check_deaths(void)
{
    uint32_t died = bri_load_relaxed(&books->died), killed = bri_load_relaxed(&books->killed);

    expect(DEATHS, died <= killed, "%u items died that were not told to, %u workers were killed", died,
           killed);
}

static void play_round(void)
{
    books = shared_pages(sizeof *books);
    regions_used = 0;
    if (!torture.is_doomed) /* nobody would remove it */
        make_oom_group();
    create_pool();
    if (pool != NULL) {
        fill_all_seats();
        play_with_killer();
        end_pool();
    }
    settle_seats();
    bri_store_release(&torture.shared->stop, 1u);
    await_seats(0, torture.seats_count, NULL);
    check_deaths();
    remove_oom_group();
    munmap(books, sizeof *books);
}

const struct part pools_part = {
    .name = "pools",
    .checks = 1u << OUTCOMES | 1u << ONCE | 1u << VALUES | 1u << DEATHS,
    .play_round = play_round,
    .seats = OWNERS,
    .play = play_owner,
    .bury = bury,
};
