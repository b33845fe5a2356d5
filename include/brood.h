/* SPDX-License-Identifier: MIT */
/*
 * brood: functions in parallel on worker processes.
 *
 * CONVENTIONS
 *
 * Results.    0 or a count on success, a negative errno on failure.  Each function lists its errors; the list is
 *             closed, but that the first call of a process may also fail to join the arena: -EAGAIN (it has room for 4096 processes),
 *             and, where it makes the arena, -ENOMEM, -EMFILE, -ENFILE.  After a failure brood_error_text() is a sentence that names the argument and what would be right.
 * Outputs.    Come last, are named ret_*, and are untouched on failure.
 * Ownership.  create/destroy, start/destroy, borrow/release and reserve/commit are pairs; destroy(NULL) does nothing.
 *             Arguments are borrowed for the length of the call unless a function says otherwise.
 * Deadlines.  Absolute, CLOCK_MONOTONIC, nanoseconds.  brood_after_ms(50) makes one, BROOD_NOW tries without waiting,
 *             BROOD_FOREVER waits without end.  A negative deadline is an error (-EINVAL).  A wait that ends in time
 *             returns -ETIMEDOUT, whether the deadline was BROOD_NOW or later.
 * Signals.    A wait goes on when a signal's handler has run.  A host whose handlers are to end waits says so with brood_on_interrupt;
 *             then every function that waits may also return -EINTR, as if its deadline had passed (but destroying, which is bounded).
 * Options.    A struct that begins with its own size, filled by its macro: BROOD_POOL_OPTIONS(.workers = 4).  Zero in a
 *             field means the default, NULL for the struct means all defaults.  A struct larger than the library knows
 *             is accepted as long as the bytes that it does not know are zero, else -E2BIG.  C++ has no compound literals:
 *             there, `brood_pool_options options = {}; options.size = sizeof options; options.workers = 4;`.
 * Shared.     Objects marked [arena] (locks, queues, memory of brood_alloc) lie in the arena: memory shared by the process
 *             that made the first of them and all processes forked from it since, at one address.  Their handles may be
 *             used, stored and passed on in all of these processes.  Handles marked [private] belong to the process that
 *             made them.
 *
 * TAGS, one line after each function, or after `All:` at the head of a section for those of its functions that have none of their own.
 * Functions that destroy are `thread one` always: nobody else may be using the object.
 *
 * thread      any       any number of threads may call it at once, on the same object too
 *             one       one thread at a time for one object
 * fork        shared    works on the same object from every process of the arena
 *             owner     only in the process that made the object; elsewhere -EPERM
 * signal      safe      async-signal-safe;   no: not to be called from a signal handler
 * kill        atomic    a process killed inside it at any instruction has done all of it or nothing, and whatever it held
 *                       passes on; the others never hang on it
 *             n/a       touches nothing that is shared
 *
 * CAVEATS, each with its fix
 *
 * - Items and results are copied between the caller and the arena.  Memory from brood_alloc is not copied: use it for
 *   large arrays.
 * - A pool's workers are forked when the pool is created and see the caller's memory as it was then.  What is made
 *   later travels in items, or lies in the arena.
 * - A task function must lie in a module that was loaded when the pool was created (-EFAULT otherwise): dlopen first.  What was unloaded since
 *   and loaded anew counts as long as it is the same, at the same address.
 * - fork() in a process with several threads copies only the caller's thread.  Locks of other libraries that another thread
 *   held at that moment stay locked in the child: create pools and processes early.
 * - A function that scribbles over memory of the arena harms everybody who shares it, as a thread would: values, and what waits.  It does
 *   not make others crash: calls that meet the damage return -ENOTRECOVERABLE (pools), -EBADMSG (queues) or -ENOMEM (memory).
 * - Processes of brood are children of nobody that the host knows, so that its wait() does not see them.  A host that is a subreaper
 *   (PR_SET_CHILD_SUBREAPER) or process 1 of its PID namespace inherits them as it inherits all orphans: leave pids that are
 *   not yours alone.
 * - Programs that a worker starts end with the pool.  If the pool's supervisor itself is killed, the workers end at once,
 *   but programs that they had started may live on.
 */
#ifndef BROOD_H
#define BROOD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BROOD_VERSION_MAJOR 0
#define BROOD_VERSION_MINOR 1

/* ---------------------------------------------------------------------------------------------- errors and time ---- */

/* Why the last failed call of this thread failed: one sentence, never NULL, valid until the thread's next failing call.
 * thread any · fork shared · signal safe · kill n/a */
const char *brood_error_text(void);

#define BROOD_NOW     ((int64_t)0)
#define BROOD_FOREVER INT64_MAX

/* The deadline that many milliseconds from now; negative counts as 0.  thread any · fork shared · signal safe · kill n/a */
int64_t brood_after_ms(int64_t milliseconds);

/* Sets what a waiting thread asks when a signal's handler has run in it: when check() is not 0, the wait ends with -EINTR.  NULL: nothing,
 * waits go on.  One for the process, inherited by fork.  check() may run in any thread that waits, between two sleeps, and may not call brood.
 * thread any · fork shared · signal safe · kill n/a */
void brood_on_interrupt(int (*check)(void));

/* -------------------------------------------------------------------------------------------------- processors ---- */

/* The CPUs this process may really use, at least 1: the affinity mask, cut by the tightest CPU quota among all ancestor
 * cgroups (v1, v2, hybrid), rounded up.  The environment's BROOD_CPU_COUNT, a decimal from 1 to 65536, wins over both.
 * No errors.  thread any · fork shared · signal no · kill n/a */
int brood_cpu_count(void);

typedef struct brood_cpu_info {
    size_t size;       /* in: sizeof (brood_cpu_info) */
    int usable;        /* what brood_cpu_count returns */
    int online;        /* CPUs online in the machine */
    int affinity;      /* CPUs in this process's affinity mask */
    int physical;      /* physical cores among these, 0 when unknown */
    uint64_t quota_us; /* CPU time per period_us that the tightest cgroup allows; 0 and 0 without a quota */
    uint64_t period_us;
    int overridden; /* 1 when BROOD_CPU_COUNT set `usable` */
} brood_cpu_info;

/* The parts of the count.  -EINVAL: ret_info is NULL or its size too small.
 * thread any · fork shared · signal no · kill n/a */
int brood_cpu_info_get(brood_cpu_info *ret_info);

/* ------------------------------------------------------------------------------------------------------- arena ---- */

typedef struct brood_arena_options {
    size_t size;
    uint64_t
        max_bytes; /* bound on the arena; default: 1 TiB of address space, so the machine's memory is the bound */
} brood_arena_options;
#define BROOD_ARENA_OPTIONS(...) (&(const brood_arena_options){sizeof(brood_arena_options), __VA_ARGS__})

/* Makes the arena of this process and of those it forks later.  Only needed for a bound: the first call that wants the
 * arena makes it with the defaults.
 * -EALREADY: there is one, also one that the caller has inherited by fork.  -EINVAL, -E2BIG: options.  -ENOMEM, -EMFILE, -ENFILE: refused by
 * the kernel.  thread any · fork shared · signal no · kill atomic */
int brood_arena_create(const brood_arena_options *options);

/* Gives the arena back; every handle of an [arena] object is invalid from then on.  Destroy pools and processes first:
 * -EBUSY while another process uses the arena.  -EPERM in a worker or a brood_process.  Without an arena: 0.
 * thread one · fork shared (whoever is the last) · signal no · kill atomic */
int brood_arena_destroy(void);

/* What a process needs that is not forked from one of the arena's, but started by exec: it attaches, and from then on takes part as a forked
 * one does.  How the descriptor gets there (inheritance, SCM_RIGHTS) and the numbers is the caller's business. */
typedef struct brood_arena_ticket {
    size_t size; /* in: sizeof (brood_arena_ticket) */
    int fd; /* the arena's memory: the library's own, close-on-exec, not to be closed; in the other process whichever duplicate arrived */
    uint64_t base, window_bytes; /* where it is mapped, in every process */
} brood_arena_ticket;

/* The ticket to this process's arena, which is made if there is none.  -EINVAL: ret_ticket.  thread any · fork shared · signal no · kill atomic */
int brood_arena_ticket_get(brood_arena_ticket *ret_ticket);

/* Takes part in the arena of the ticket; before anything else of brood is called.  ticket->fd is duplicated and stays the caller's.
 * -EALREADY: this process has an arena.  -EINVAL: no ticket, or of another version of brood.  -EADDRINUSE: something else lies where the arena
 * has to be; it is put where that is unlikely (never seen on x86-64 without sanitizers).  -ENOMEM, -EMFILE, -EAGAIN.
 * thread any · fork shared · signal no · kill atomic */
int brood_arena_attach(const brood_arena_ticket *ticket);

typedef struct brood_arena_stats {
    size_t size;           /* in: sizeof (brood_arena_stats) */
    uint64_t max_bytes;    /* the bound */
    uint64_t grown_bytes;  /* bytes that the arena has ever reached; they stay warm */
    uint64_t used_bytes;   /* bytes in use now, headers included */
    uint64_t used_blocks;  /* blocks in use now */
    uint32_t participants; /* processes that use the arena now */
} brood_arena_stats;

/* Counts by a walk that takes no lock: exact when nobody allocates at the same time.
 * -EINVAL: ret_stats.  thread any · fork shared · signal no · kill atomic */
int brood_arena_stats_get(brood_arena_stats *ret_stats);

/* `bytes` of zeroed shared memory, aligned to 64, usable by pointer in every process of the arena.  Belongs to the arena until
 * brood_free; what a task has allocated and its worker's death cut short is freed by itself.
 * -EINVAL: bytes is 0 or absurd (over 2^47).  -ENOMEM: the arena's bound, or the headroom of a memory cgroup or of the machine.
 * thread any · fork shared · signal no · kill atomic */
int brood_alloc(size_t bytes, void **ret_memory);

/* Frees memory of brood_alloc, from any process.  -EINVAL: not such memory, or freed before.  NULL: 0.
 * thread any · fork shared · signal no · kill atomic */
int brood_free(void *memory);

/* -------------------------------------------------------------------------------------- locks and the rest [arena] ---- */

/* Each acquire returns 0, or BROOD_OWNER_DIED when it now holds the object and the process that held it before died
 * holding it: what the lock protects may be half-changed.  The message is given once. */
#define BROOD_OWNER_DIED 1

typedef struct brood_lock brood_lock;

/* A lock that is not recursive.  As in multiprocessing another process or thread may release it.
 * create  -EINVAL: ret_lock NULL.  -ENOMEM: arena.
 * acquire -ETIMEDOUT.  -EINVAL: lock or deadline.      release -EPERM: not held.  -EINVAL: lock.
 * destroy -EBUSY: held.  -EINVAL: lock.                thread any · fork shared · signal no · kill atomic */
int brood_lock_create(brood_lock **ret_lock);
int brood_lock_acquire(brood_lock *lock, int64_t deadline);
int brood_lock_release(brood_lock *lock);
int brood_lock_destroy(brood_lock *lock);

typedef struct brood_rlock brood_rlock;

/* A recursive lock: the thread that holds it may acquire it again, and releases as often.
 * acquire -ETIMEDOUT.  -EINVAL.  -EAGAIN: 2^30 deep.   release -EPERM: the calling thread does not hold it.  -EINVAL.
 * create, destroy: as brood_lock.                      thread any · fork shared · signal no · kill atomic */
int brood_rlock_create(brood_rlock **ret_lock);
int brood_rlock_acquire(brood_rlock *lock, int64_t deadline);
int brood_rlock_release(brood_rlock *lock);
int brood_rlock_destroy(brood_rlock *lock);

typedef struct brood_semaphore brood_semaphore;

/* `value` tokens.  A token taken by a process that died comes back (and the next acquire says BROOD_OWNER_DIED).  A process
 * that releases what it has not acquired releases for another holder; if nobody holds one, a token is added: -EOVERFLOW
 * when the semaphore is bounded (BoundedSemaphore) or has 2^31-1 tokens.  Tokens that were added beyond
 * `value` are messages: those that a worker or brood_process holds when it ends by itself stay taken.
 * create  -EINVAL: value > 2^31-1, or ret_semaphore NULL.  -ENOMEM.
 * acquire -ETIMEDOUT.  -EINVAL.    release -EOVERFLOW.  -EINVAL.    value: the tokens free now, or -EINVAL.
 * destroy -EBUSY: a process waits.  -EINVAL.               thread any · fork shared · signal no · kill atomic */
int brood_semaphore_create(uint32_t value, brood_semaphore **ret_semaphore);
int brood_semaphore_create_bounded(uint32_t value, brood_semaphore **ret_semaphore);
int brood_semaphore_acquire(brood_semaphore *semaphore, int64_t deadline);
int brood_semaphore_release(brood_semaphore *semaphore);
int brood_semaphore_value(brood_semaphore *semaphore);
int brood_semaphore_destroy(brood_semaphore *semaphore);

typedef struct brood_condition brood_condition;

/* A condition variable on a brood_rlock of its own choosing (NULL at create: one of its own, destroyed with it).
 * wait: the lock must be held exactly once by the calling thread; gives it back, waits for a notify, takes it again, in every
 * outcome.  There are no spurious wake-ups: 0 means notified; BROOD_OWNER_DIED means notified, and the previous holder of the
 * lock died.  A notify given to a process that died before it returned passes on to another waiter.
 * wait   -ETIMEDOUT.  -EPERM: lock not held, or held more than once.  -EAGAIN: too many waiters.  -EINVAL.
 * notify (count waiters, oldest first; UINT32_MAX: all) returns how many it woke.  -EPERM: lock not held.  -EINVAL.
 * acquire, release: those of the lock.  lock: the lock, NULL when the condition is not valid.
 * destroy -EBUSY: a process waits, or its own lock is held.  -EINVAL.
 * thread any · fork shared · signal no · kill atomic */
int brood_condition_create(brood_rlock *lock, brood_condition **ret_condition);
int brood_condition_acquire(brood_condition *condition, int64_t deadline);
int brood_condition_release(brood_condition *condition);
int brood_condition_wait(brood_condition *condition, int64_t deadline);
int brood_condition_notify(brood_condition *condition, uint32_t count);
brood_rlock *brood_condition_lock(brood_condition *condition);
int brood_condition_destroy(brood_condition *condition);

typedef struct brood_event brood_event;

/* A flag that processes wait for.  is_set: 1 or 0.  wait -ETIMEDOUT.  All: -EINVAL.
 * destroy ends the waits of those who wait, with -EINVAL.
 * thread any · fork shared · signal no · kill atomic */
int brood_event_create(brood_event **ret_event);
int brood_event_set(brood_event *event);
int brood_event_clear(brood_event *event);
int brood_event_is_set(brood_event *event);
int brood_event_wait(brood_event *event, int64_t deadline);
int brood_event_destroy(brood_event *event);

typedef struct brood_barrier brood_barrier;

/* `parties` processes or threads wait for each other, again and again.  wait returns the caller's order of arrival,
 * 0 … parties-1.  A barrier breaks, and every wait ends with -EPIPE until reset, when a wait times out (its caller gets
 * -ETIMEDOUT), on abort, and when a process that waits, or has ever waited, in it dies.  The clean end of a worker or brood_process that is
 * not waiting does not break it; of a process that the user forked nobody learns how it ended, so that it counts as died.
 * create -EINVAL: parties is 0 or over 2^15.  -ENOMEM.   wait -ETIMEDOUT.  -EPIPE: broken.  -EINVAL.
 * reset: whole again; those who wait get -EPIPE; only later deaths break it.  waiting: how many wait now.  is_broken: 1 or 0.
 * destroy -EBUSY: a process waits.  -EINVAL.             thread any · fork shared · signal no · kill atomic */
int brood_barrier_create(uint32_t parties, brood_barrier **ret_barrier);
int brood_barrier_wait(brood_barrier *barrier, int64_t deadline);
int brood_barrier_abort(brood_barrier *barrier);
int brood_barrier_reset(brood_barrier *barrier);
int brood_barrier_parties(brood_barrier *barrier);
int brood_barrier_waiting(brood_barrier *barrier);
int brood_barrier_is_broken(brood_barrier *barrier);
int brood_barrier_destroy(brood_barrier *barrier);

/* ------------------------------------------------------------------------------------------------- queue [arena] ---- */

/* All: thread any · fork shared · signal no · kill atomic */

typedef struct brood_queue brood_queue;

typedef struct brood_queue_options {
    size_t size;
    uint64_t max_messages; /* bound on messages that wait; 0: none */
    uint64_t
        max_bytes; /* bound on their bytes; 0: none.  One message larger than this is refused, -EMSGSIZE */
} brood_queue_options;
#define BROOD_QUEUE_OPTIONS(...) (&(const brood_queue_options){sizeof(brood_queue_options), __VA_ARGS__})

/* A message in the caller's hands. */
typedef struct brood_message {
    void *data; /* aligned to 16; not NULL, also for a message of 0 bytes */
    size_t bytes;
} brood_message;

/* A first-in first-out queue of messages of 0 to 2^47 bytes, for any number of producers and consumers.  Messages of one
 * producer arrive in the order in which it put them.  Without bounds a put never waits: it grows into the arena.
 * -EINVAL: ret_queue NULL.  -E2BIG: options.  -ENOMEM.   thread any · fork shared · signal no · kill atomic */
int brood_queue_create(const brood_queue_options *options, brood_queue **ret_queue);

/* Frees the queue and what it holds.  Nobody may use it any more: -EBUSY while a process waits in it.  -EINVAL: queue.
 * thread one · fork shared · signal no · kill atomic */
int brood_queue_destroy(brood_queue *queue);

/* Copies one message in.  -ETIMEDOUT: full until the deadline.  -EMSGSIZE: over max_bytes.  -ENOMEM: arena.
 * -ESHUTDOWN: closed.  -EBADMSG: damaged.  -EINVAL: queue, deadline, or data is NULL and bytes is not 0.
 * thread any · fork shared · signal no · kill atomic */
int brood_queue_put(brood_queue *queue, const void *data, size_t bytes, int64_t deadline);

/* Puts `count` messages in order, as many at a time as there is room for, and returns how many it put: fewer than `count` only
 * when the deadline passed or the queue was closed or memory ran out after the first.  Errors as put.  Kill: a killed
 * process has put a prefix of them. */
int brood_queue_put_many(brood_queue *queue, const brood_message *messages, size_t count, int64_t deadline);

/* Copies the oldest message into `buffer` and sets ret_bytes to its length.  -EMSGSIZE: it is longer than capacity; it
 * stays, and ret_bytes (alone, the one output set on a failure) is its length; or it refers to large data beside it (a Python
 * program's): brood_queue_borrow takes that.  -ETIMEDOUT: empty until the deadline.  -ESHUTDOWN: closed and
 * drained.  -EBADMSG: damaged.  -EINVAL.  thread any · fork shared · signal no · kill atomic */
int brood_queue_get(brood_queue *queue, void *buffer, size_t capacity, size_t *ret_bytes, int64_t deadline);

/* Waits for the first message, takes up to `count` that are there and fit one after the other (each aligned to 16) into
 * `buffer`, sets ret_messages[i] to each, and returns how many.  Errors as get (-EMSGSIZE when the first does not fit). */
int brood_queue_get_many(brood_queue *queue, void *buffer, size_t capacity, brood_message *ret_messages,
                         size_t count, int64_t deadline);

/* Zero-copy put: memory for a message of `bytes` in the arena, to be filled in place and then committed or abandoned by the same
 * process.  commit waits for room; on a failure the message is still the caller's.
 * reserve -ENOMEM, -EMSGSIZE, -EINVAL.  commit: as put.  abandon -EINVAL. */
int brood_queue_reserve(brood_queue *queue, size_t bytes, brood_message *ret_message);
int brood_queue_commit(brood_queue *queue, brood_message *message, int64_t deadline);
int brood_queue_abandon(brood_queue *queue, brood_message *message);

/* Zero-copy get: the oldest message in place (one copy when it is short), the caller's until released.  Errors as get, and
 * -ENOMEM. */
int brood_queue_borrow(brood_queue *queue, brood_message *ret_message, int64_t deadline);
int brood_queue_release(brood_queue *queue, brood_message *message);

/* Messages that wait now (a snapshot).  -EINVAL. */
int64_t brood_queue_size(brood_queue *queue);

/* No further puts; getters drain what is there, then see -ESHUTDOWN.  Closing twice is fine.  -EINVAL. */
int brood_queue_close(brood_queue *queue);

/* A descriptor for poll/select/epoll: readable while the queue has messages or is closed.  A hint: get with BROOD_NOW and poll
 * again on -ETIMEDOUT, which means that another process took it.  Belongs to the queue and this process; closed by brood_queue_fd_close or at the process's end.
 * -EMFILE, -ENFILE, -ENOMEM, -EAGAIN: 16 processes have one already, -EINVAL. */
int brood_queue_fd(brood_queue *queue);
int brood_queue_fd_close(brood_queue *queue);

/* ---------------------------------------------------------------------------------------------- process [private] ---- */

/* All: thread any · fork owner · signal no · kill atomic */

typedef struct brood_process brood_process;

typedef struct brood_process_options {
    size_t size;
    const char *name; /* copied; default "Process-N" */
    int daemon;       /* 1: ends with its parent, however that ends */
} brood_process_options;
#define BROOD_PROCESS_OPTIONS(...) \
    (&(const brood_process_options){sizeof(brood_process_options), __VA_ARGS__})

/* What the process runs; its return value (0 … 255) is the exit code. */
typedef int brood_process_function(void *argument);

/* Runs function(argument) in a new process, forked from the caller: it sees the caller's memory as it is now.  stdout and stderr
 * are flushed before the fork and at the end; atexit handlers do not run in it.  Its generators of random numbers (rand, random,
 * drand48) are seeded anew; see brood_random_between.  It is nobody's child that wait() could see.
 * -EINVAL: function or ret_process NULL.  -E2BIG: options.  -EAGAIN: no more processes.  -ENOMEM.  -EMFILE, -ENFILE.
 * thread any · fork shared · signal no · kill atomic */
int brood_process_start(brood_process_function *function, void *argument,
                        const brood_process_options *options, brood_process **ret_process);

/* Waits for its end.  -ETIMEDOUT.  -EPERM: not the process that started it.  -EINVAL.  thread any · fork owner · signal no */
int brood_process_join(brood_process *process, int64_t deadline);

/* 1 while it runs, else 0.  -EPERM, -EINVAL. */
int brood_process_is_alive(brood_process *process);

/* Once it has ended: 0, and the exit code, or minus the signal that ended it.  -EAGAIN: it runs.  -ENODATA: it ended together with
 * the process that watched it, so nobody knows how.  -EPERM, -EINVAL. */
int brood_process_exit_code(brood_process *process, int *ret_exit_code);

int brood_process_pid(brood_process *process); /* -EINVAL */

/* A descriptor, readable once it has ended; the handle's, until destroy.  -EINVAL. */
int brood_process_fd(brood_process *process);

/* SIGTERM, SIGKILL; fine when it has ended.  -EPERM, -EINVAL. */
int brood_process_terminate(brood_process *process);
int brood_process_kill(brood_process *process);

/* Its name: the handle's, until destroy.  NULL when process is NULL. */
const char *brood_process_name(brood_process *process);

/* Gives the handle back.  A daemon that runs is killed; any other goes on. */
int brood_process_destroy(brood_process *process);

/* A number from low to high, both included, each equally likely, from a stream of this process's own: seeded from the kernel's
 * getrandom(2) at first use in each process, a forked one included.  low > high: they are exchanged.
 * thread any (a stream each) · fork shared · signal no · kill n/a */
int64_t brood_random_between(int64_t low, int64_t high);

/* The calling thread's stream begins anew, the same for the same seed.  A forked child has a stream of its own again.
 * thread any (a stream each) · fork shared · signal no · kill n/a */
void brood_random_seed(uint64_t seed);

/* -------------------------------------------------------------------------------------------------- pool [private] ---- */

typedef struct brood_pool brood_pool;
typedef struct brood_task brood_task;
typedef struct brood_result brood_result;
typedef struct brood_stream brood_stream;

/* What a worker runs for one item.  `item`: the item's bytes, aligned to 16 at least for the first of an array.  `result`:
 * result_bytes to be filled, zeroed (NULL when results differ in size: brood_task_reply).  Returns 0; another
 * value is an error of its own, kept in the item's outcome as if by brood_task_fail(task, value, ""). */
typedef int brood_function(brood_task *task, const void *item, void *result);

/* Where a supervisor finds its pool; see brood_pool_supervise.  Numbers: to be passed on in any way. */
typedef struct brood_pool_ticket {
    size_t size;
    uint64_t pool;
    uint64_t anchor; /* where the anchor function lies in the owner */
    uint32_t supervisor;
} brood_pool_ticket;

/* For hosts that have to know of forks, interpreters above all.  Each may be NULL.  The owner's are called in whichever of its threads starts a
 * supervisor: at create, and in a wait that finds that the supervisor was killed. */
typedef struct brood_pool_hooks {
    size_t size;
    void (*before_fork)(void *argument); /* in the owner */
    void (*after_fork)(void *argument);  /* in the owner, forked or not */
    /* In each worker, before the initializer: a copy of the owner as of before_fork. */
    void (*worker_begins)(void *argument);
    void (*worker_ends)(void *argument); /* in a worker that ends by itself */
    /* Instead of a fork of the owner: starts a process, by exec or however, that attaches to the arena and calls brood_pool_supervise(ticket).
     * Its pid, or a negative errno. */
    int (*start_supervisor)(void *argument, const brood_pool_ticket *ticket);
    brood_function
        *anchor; /* with start_supervisor: a function of the module in which the task functions lie */
    void *argument;
} brood_pool_hooks;
#define BROOD_POOL_HOOKS(...) (&(const brood_pool_hooks){sizeof(brood_pool_hooks), __VA_ARGS__})

typedef struct brood_pool_options {
    size_t size;
    uint32_t workers; /* default brood_cpu_count(); at most 1024 */
    uint32_t
        tasks_per_worker; /* a worker that has done this many items is renewed, once its chunk is done; default: never */
    int (*initializer)(void *argument); /* runs first in each worker; not 0: the pool fails to start */
    void *initializer_argument;
    uint32_t grace_ms;             /* terminate: from SIGTERM to SIGKILL; default 500 */
    uint32_t in_background;        /* 1: create does not wait until the workers have started */
    const brood_pool_hooks *hooks; /* copied */
    /* Sent to a worker whose item has to end, grace_ms before SIGTERM; grace_ms after that comes SIGKILL.  For workers with a handler that makes
     * the function return.  0: begins with SIGTERM. */
    int soft_signal;
    /* Limits of each worker; 0: none.  max_memory_bytes: private memory that it may map on top of what it was forked with (RLIMIT_DATA): its
     * allocations fail then, and a worker that holds more than half of it after a chunk is renewed.  max_cpu_seconds: of CPU time for each item
     * (RLIMIT_CPU: SIGXCPU).  max_open_files: descriptors (RLIMIT_NOFILE): opening fails then. */
    uint64_t max_memory_bytes;
    uint32_t max_cpu_seconds, max_open_files;
    /* Not 0: before each item the worker's stream of brood_random_between is seeded from this, from the number of the job in the order of
     * submission, and from the item's index: the same numbers whatever the workers and the chunks are. */
    uint64_t seed;
} brood_pool_options;
#define BROOD_POOL_OPTIONS(...) (&(const brood_pool_options){sizeof(brood_pool_options), __VA_ARGS__})

/* Starts the workers and one supervisor, which replaces those that die.  Workers ignore SIGINT: Ctrl-C is the caller's business.
 * When workers die again and again (three per worker, eight at least) within a second of their start and without having
 * finished an item, the pool is broken: everything that waits ends with -ENOTRECOVERABLE and nothing is started any more.
 * Waits until every worker has started (and run its initializer).
 * -EINVAL: workers over 1024, ret_pool NULL.  -E2BIG: options.  -EAGAIN: no more processes.  -ENOMEM.  -EMFILE, -ENFILE.
 * -ENOTRECOVERABLE: the initializer failed, or the workers died in it.  thread any · fork shared (a worker may create a pool) · signal no */
int brood_pool_create(const brood_pool_options *options, brood_pool **ret_pool);

/* Makes the calling process, which has attached to the arena, the supervisor of the pool of the ticket: it forks the workers from itself.
 * Does not return then; in the main thread, with no other threads about.  `options`: initializer and hooks for the workers.  `anchor`: the same
 * function as in the owner's hooks.
 * -EINVAL: no such pool, or the ticket was used.  -ECANCELED: the owner has died meanwhile.  -E2BIG: options.
 * thread one · fork shared · signal no · kill atomic */
int brood_pool_supervise(const brood_pool_ticket *ticket, const brood_pool_options *options,
                         brood_function *anchor);

/* How one item ended. */
enum brood_outcome_kind {
    BROOD_PENDING = 0,   /* not yet */
    BROOD_VALUE = 1,     /* its result is there */
    BROOD_ERROR = 2,     /* the function failed: code, text */
    BROOD_DIED = 3,      /* its worker died: pid, signal or exit_code */
    BROOD_CANCELLED = 4, /* it was cancelled, or the pool was terminated or broke */
    BROOD_TIMED_OUT = 5  /* its time, or that of the whole job, was over: text */
};

/* Why a worker died, where there is evidence. */
enum brood_cause {
    BROOD_CAUSE_UNKNOWN = 0,
    BROOD_CAUSE_CPU = 1,    /* the item used more than max_cpu_seconds */
    BROOD_CAUSE_MEMORY = 2, /* it died near max_memory_bytes: out of memory is likely */
    BROOD_CAUSE_OOM = 3     /* signal 9, and the kernel's count of OOM kills rose: the OOM killer is likely */
};

typedef struct brood_outcome {
    int kind;      /* enum brood_outcome_kind */
    int code;      /* BROOD_ERROR: the function's own */
    int pid;       /* BROOD_ERROR and BROOD_DIED: of the worker */
    int signal;    /* BROOD_DIED: the signal, or 0 */
    int exit_code; /* BROOD_DIED: the exit code when signal is 0; -1 when nobody knows */
    int cause;     /* BROOD_DIED: enum brood_cause */
    int attempts;  /* how often it was begun, as far as it has ended or killed a worker */
    char text
        [236]; /* BROOD_ERROR: the function's own, cut at 235 bytes; BROOD_DIED, BROOD_TIMED_OUT: a sentence */
} brood_outcome;

typedef struct brood_map_options {
    size_t size;
    size_t chunk_items; /* items that a worker takes at once; 0: chosen */
    uint32_t
        timeout_ms; /* for the whole, from the submission on; what is not done by then is BROOD_TIMED_OUT; 0: none */
    uint32_t item_timeout_ms; /* for each item, from its beginning on; the others go on; 0: none */
    uint32_t retries;         /* an item whose worker died is begun again, so often at most; up to 1000 */
    uint32_t tell_each;       /* 1: brood_result_wait_item is told of each item that ends */
} brood_map_options;
#define BROOD_MAP_OPTIONS(...) (&(const brood_map_options){sizeof(brood_map_options), __VA_ARGS__})

/* Every submitting function: -EINVAL: a NULL or 0 that may not be, or sizes whose product overflows.  -EFAULT: the function does
 * not lie in a module that was loaded when the pool was created.  -EPERM: not the process that created the pool.  -ESHUTDOWN: the pool is
 * closed.  -ENOTRECOVERABLE: it is broken.  -ENOMEM: arena.  -E2BIG: options.
 * The waiting ones also: -EREMOTEIO: a function failed, -EOWNERDEAD: a worker died, -ETIME: a time-out, -ECANCELED: the pool was terminated; the sentence
 * names the first such item, and all others are done and in `results`; what stands there for an item without a value is unspecified.  How each
 * item ended is told by brood_result_outcome, of the _async forms.
 * thread any · fork owner · signal no · kill atomic */

/* function(item i) → result i for `count` items of item_bytes at `items`, results in the order of the items.  Copies unless the
 * array lies in the arena.  results may be NULL when result_bytes is 0. */
int brood_pool_map(brood_pool *pool, brood_function *function, const void *items, size_t item_bytes,
                   void *results, size_t result_bytes, size_t count, const brood_map_options *options);

/* The same, returning at once.  `items` is free again when this returns, unless it lies in the arena; results are had by
 * brood_result_get. */
int brood_pool_map_async(brood_pool *pool, brood_function *function, const void *items, size_t item_bytes,
                         size_t result_bytes, size_t count, const brood_map_options *options,
                         brood_result **ret_result);

/* Items and results of differing sizes: item i is items[i]; the function replies with brood_task_reply, and the replies are had
 * by brood_result_bytes. */
int brood_pool_map_bytes_async(brood_pool *pool, brood_function *function, const brood_message *items,
                               size_t count, const brood_map_options *options, brood_result **ret_result);

/* One call.  item may be NULL when item_bytes is 0, result when result_bytes is 0. */
int brood_pool_apply(brood_pool *pool, brood_function *function, const void *item, size_t item_bytes,
                     void *result, size_t result_bytes);
int brood_pool_apply_async(brood_pool *pool, brood_function *function, const void *item, size_t item_bytes,
                           size_t result_bytes, brood_result **ret_result);

/* Gives the next item: positive: an item, *ret_item (copied before the next call), which counts as so many bytes besides its own against
 * max_bytes: 1, or how much it refers to that lies elsewhere; 0: the end; a negative errno to stop with it.  Called in
 * the thread that calls brood_pool_imap and brood_stream_next, never elsewhere. */
typedef int brood_iterator(void *argument, brood_message *ret_item);

typedef struct brood_imap_options {
    size_t size;
    size_t max_items; /* items in flight and results not yet taken; default 4 per worker, at least 8 */
    size_t max_bytes; /* bytes of items in flight; default 64 MiB (one item is always let in) */
    uint32_t item_timeout_ms, retries; /* as in brood_map_options */
} brood_imap_options;
#define BROOD_IMAP_OPTIONS(...) (&(const brood_imap_options){sizeof(brood_imap_options), __VA_ARGS__})

/* function over an iterator, bounded in flight, results as a stream: in the order of the items, or as they finish.  Functions reply
 * with brood_task_reply (their `result` is NULL). */
int brood_pool_imap(brood_pool *pool, brood_function *function, brood_iterator *next, void *argument,
                    const brood_imap_options *options, brood_stream **ret_stream);
int brood_pool_imap_unordered(brood_pool *pool, brood_function *function, brood_iterator *next,
                              void *argument, const brood_imap_options *options, brood_stream **ret_stream);

typedef struct brood_stream_item {
    size_t index; /* of the item, from 0 */
    brood_outcome outcome;
    brood_message reply; /* BROOD_VALUE: valid until the next call with this stream */
} brood_stream_item;

/* The next result: 1, or 0 at the end.  An item that failed is a result like any other (outcome).  -ETIMEDOUT.  The iterator's own
 * errno, after all earlier results.  -EFAULT: likewise, the function's module was unloaded meanwhile.  -ECANCELED, -ENOTRECOVERABLE: the pool.
 * -EPERM, -EINVAL.  -ENOMEM.
 * thread one · fork owner · signal no */
int brood_stream_next(brood_stream *stream, brood_stream_item *ret_item, int64_t deadline);
int brood_stream_destroy(brood_stream *stream);

/* --- result handle [private] --- */

/* All: thread any · fork owner · signal no · kill atomic.  From another process: -EPERM, and nothing happens. */

/* Waits until every item has its outcome.  -ETIMEDOUT.  -EINVAL, -EPERM.  thread any · fork owner · signal no */
int brood_result_wait(brood_result *result, int64_t deadline);
/* Waits until one of `count` results of one pool is ready, and returns which (the first that is).  -ETIMEDOUT.  -EINVAL, -EPERM. */
int brood_result_wait_any(brood_result *const *results, size_t count, int64_t deadline);

/* Waits until the item has its outcome, while others may have none yet.  Of a job that was not made with tell_each it hears after up to 800 ms,
 * or when all have ended.  -ERANGE: index; else as brood_result_wait. */
int brood_result_wait_item(brood_result *result, size_t index, int64_t deadline);
int brood_result_ready(brood_result *result);      /* 1 or 0 */
int brood_result_successful(brood_result *result); /* 1 or 0; -EAGAIN: not ready */
size_t brood_result_count(brood_result *result);   /* items; 0 for NULL */

/* Waits, then copies the results (count × result_bytes) out.  0, or as brood_pool_map.  -EMSGSIZE: capacity is less than that.
 * For results in bytes, or of 0 bytes: results NULL and capacity 0.  -ENOTRECOVERABLE: the pool is broken, or shared memory damaged. */
int brood_result_get(brood_result *result, void *results, size_t capacity, int64_t deadline);

/* The reply to item `index` of a job in bytes, in place, valid until destroy.  -EAGAIN: not ready.  -ENODATA: the item has no value.
 * -ERANGE: index.  -EINVAL.  -ENOTRECOVERABLE: damaged. */
int brood_result_bytes(brood_result *result, size_t index, brood_message *ret_reply);

/* How item `index` ended, or BROOD_PENDING.  -ERANGE: index.  -EINVAL.  -ENOTRECOVERABLE: damaged. */
int brood_result_outcome(brood_result *result, size_t index, brood_outcome *ret_outcome);

/* Cancels the chunks that no worker has begun, and returns how many items these are. */
int64_t brood_result_cancel(brood_result *result);

/* And ends what runs: soft_signal, SIGTERM, SIGKILL, grace_ms apart.  Their items are BROOD_CANCELLED, unless they end by themselves
 * meanwhile; their workers are replaced.  Returns at once (how many items had not begun); brood_result_wait waits for the rest. */
int64_t brood_result_cancel_running(brood_result *result);

/* A descriptor, readable once the result is ready (or the pool has trouble: then brood_result_wait with BROOD_NOW moves on); the handle's,
 * until destroy.  -EMFILE, -ENFILE, -ENOMEM, -EINVAL. */
int brood_result_fd(brood_result *result);

/* Gives the handle back, ready or not; what runs goes on, its results are dropped. */
int brood_result_destroy(brood_result *result);

/* --- for task functions, in the worker --- */

/* All: thread one (that of the task function, until it returns) · fork n/a (only in the worker) · signal no · kill atomic */

/* Makes the item's outcome an error; returns code, for `return brood_task_fail(task, 7, "no such …")`.  code 0 counts as -1. */
int brood_task_fail(brood_task *task, int code, const char *text);
size_t brood_task_index(const brood_task *task);      /* which item, of a stream too */
size_t brood_task_item_bytes(const brood_task *task); /* its length */
uint32_t brood_task_worker(const brood_task *task);   /* which worker, 0 … workers-1 */

/* Has the item to end?  BROOD_TIMED_OUT or BROOD_CANCELLED once it has, else 0.  For functions that can end early, and for the handler of the
 * pool's soft_signal: signal safe.  Whatever the function does from then on, that is the item's outcome, and the worker is replaced. */
int brood_task_is_ending(brood_task *task);

/* The clock of an item with item_timeout_ms: stopped for what is not to count, and started anew, from 0, when the function comes to its
 * business.  Without effect on other items, and on the time of the whole. */
void brood_task_stop_clock(brood_task *task);
void brood_task_start_clock(brood_task *task);

/* The reply of a job in bytes: copied; a second reply replaces the first.  -ENOMEM: then the task should fail.  -EINVAL: data NULL, or
 * results have a fixed size. */
int brood_task_reply(brood_task *task, const void *data, size_t bytes);

/* The same in place: memory of `bytes` to be filled before the function returns. */
int brood_task_reply_reserve(brood_task *task, size_t bytes, void **ret_memory);

/* --- the pool's end, and looking in --- */

/* All: thread any · fork owner · signal no · kill atomic */

/* No further jobs; the workers end when all jobs are done.  -EPERM, -EINVAL. */
int brood_pool_close(brood_pool *pool);
/* After close or terminate: waits for the workers' end.  -EBUSY: neither was called.  -ETIMEDOUT.  -EPERM, -EINVAL. */
int brood_pool_join(brood_pool *pool, int64_t deadline);
/* Ends the workers now: SIGTERM, after grace_ms SIGKILL.  What was not done is cancelled.  -EPERM, -EINVAL. */
int brood_pool_terminate(brood_pool *pool);
/* terminate, join, and gives the handle back.  Results and streams outlive it.  -EPERM. */
int brood_pool_destroy(brood_pool *pool);

/* How many workers it has; 0 when `pool` is no pool.  thread any · fork shared · signal no · kill n/a */
uint32_t brood_pool_workers(brood_pool *pool);
/* pid of worker `index` now; 0 while it is being replaced.  -ERANGE, -EINVAL, -EPERM. */
int brood_pool_worker_pid(brood_pool *pool, uint32_t index);

/* Prints workers, jobs and counters to `fd`.  Takes no lock: works on a pool that hangs, and on one whose processes have died.
 * -EINVAL: pool or fd.  thread any · fork shared · signal no · kill n/a */
int brood_pool_dump(brood_pool *pool, int fd);

/* ENVIRONMENT  BROOD_CPU_COUNT: see brood_cpu_count.  BROOD_TRACE=1: every process prints what it does to stderr, a line per event with
 * the time since boot, so that the lines of all processes stand in the order of time. */

#ifdef __cplusplus
}
#endif

#endif
