/* SPDX-License-Identifier: MIT */
/*
 * checksum: the SHA-256 of every file under some folders, on all CPUs.  Prints what sha256sum prints, in the
 * order in which files get done.
 *
 * The owner walks the folders; brood_pool_imap_unordered asks it for the next path only when there is room
 * for one more in flight, so memory does not grow with the number of files.  The workers open and read the
 * files themselves.  The bytes they have read are counted in the arena, where the owner sees them grow during
 * a long file too.
 *
 * Ctrl-C: workers ignore it, the owner sees a flag within a tick and ends the pool.  A second one kills it.
 */
#include <brood.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sha256.h"
#include "walk.h"

enum { READ_BYTES = 256 * 1024, TICK_MS = 100, FILES_PER_WORKER = 16, MAX_WORKERS = 1024 };

/* As the shell reports a program that such a signal has ended. */
enum { STATUS_INTERRUPTED = 128 + SIGINT, STATUS_BROKEN_PIPE = 128 + SIGPIPE };

static _Atomic uint64_t *bytes_read;      /* in the arena: of all workers together */
static volatile sig_atomic_t interrupted; /* Ctrl-C was pressed */
static int files_failed;                  /* a file or folder could not be read */

static const char help[] =
    "usage: checksum [--workers N] FILE|FOLDER...\n"
    "\n"
    "Prints the SHA-256 of each file, and of each regular file under each folder, as sha256sum does,\n"
    "in the order in which they get done.\n"
    "\n"
    "  --workers N   processes that read and hash; default: the usable CPUs\n"
    "  --help        this text\n"
    "\n"
    "Status: 0, or 1 when something could not be read, or 130 after Ctrl-C.\n";

/* ------------------------------------------------------------------------------------ in the workers ---- */

static int hash_file(int fd, uint8_t ret_digest[SHA256_DIGEST_BYTES])
{
    static uint8_t buffer[READ_BYTES];
    struct sha256 hash;
    ssize_t got;

    sha256_init(&hash);
    while ((got = read(fd, buffer, sizeof buffer)) != 0) {
        if (got < 0)
            return -errno;
        sha256_update(&hash, buffer, (size_t)got);
        atomic_fetch_add_explicit(bytes_read, (uint64_t)got, memory_order_relaxed);
    }
    sha256_final(&hash, ret_digest);
    return 0;
}

/* O_NONBLOCK: a pipe that has taken the file's place since it was found does not hold us up. */
static int open_regular_file(const char *path)
{
    struct stat status;
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0 && fstat(fd, &status) == 0 && !S_ISREG(status.st_mode)) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

/* The task: a path in, a digest out. */
static int checksum(brood_task *task, const void *item, void *result)
{
    uint8_t digest[SHA256_DIGEST_BYTES];
    const int fd = open_regular_file(item);

    (void)result;
    if (fd < 0)
        return brood_task_fail(task, errno, strerror(errno));
    int err = hash_file(fd, digest);
    close(fd);
    if (err < 0)
        return brood_task_fail(task, -err, strerror(-err));
    err = brood_task_reply(task, digest, sizeof digest);
    return err < 0 ? brood_task_fail(task, -err, strerror(-err)) : 0;
}

/* ------------------------------------------------------------------------------------------ progress ---- */

static struct progress {
    int wanted; /* stderr is a terminal */
    int shown;
    size_t files;
    int64_t started_ns;
    int64_t next_ns;
} progress;

static void start_progress(void)
{
    progress.wanted = isatty(STDERR_FILENO);
    progress.started_ns = brood_after_ms(0);
    progress.next_ns = brood_after_ms(TICK_MS);
}

static void erase_progress(void)
{
    if (progress.shown)
        fputs("\r\033[K", stderr);
    progress.shown = 0;
}

static void show_progress(void)
{
    if (!progress.wanted)
        return;
    const int64_t now_ns = brood_after_ms(0);
    if (now_ns < progress.next_ns)
        return;
    const double megabytes = (double)atomic_load_explicit(bytes_read, memory_order_relaxed) / 1e6;
    const double seconds = (double)(now_ns - progress.started_ns) / 1e9;
    fprintf(stderr, "\r%zu files, %.1f MB, %.1f MB/s\033[K", progress.files, megabytes, megabytes / seconds);
    progress.shown = 1;
    progress.next_ns = brood_after_ms(TICK_MS);
}

/* -------------------------------------------------------------------------------------------- output ---- */

static void report(const char *path, const char *reason)
{
    erase_progress();
    fprintf(stderr, "checksum: %s: %s\n", path, reason);
    files_failed = 1;
}

/* As sha256sum does it; the line then begins with a backslash. */
static void print_escaped(const char *path)
{
    for (; *path != '\0'; path++) {
        switch (*path) {
        case '\n':
            fputs("\\n", stdout);
            break;
        case '\r':
            fputs("\\r", stdout);
            break;
        case '\\':
            fputs("\\\\", stdout);
            break;
        default:
            putchar(*path);
        }
    }
    putchar('\n');
}

static void print_checksum(const char *path, const uint8_t digest[SHA256_DIGEST_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    char text[2 * SHA256_DIGEST_BYTES + 1];

    for (int i = 0; i < SHA256_DIGEST_BYTES; i++) {
        text[2 * i] = hex[digest[i] >> 4];
        text[2 * i + 1] = hex[digest[i] & 15];
    }
    text[2 * SHA256_DIGEST_BYTES] = '\0';
    if (progress.shown && isatty(STDOUT_FILENO))
        erase_progress();
    printf("%s%s  ", strpbrk(path, "\n\r\\") == NULL ? "" : "\\", text);
    print_escaped(path);
}

/* ----------------------------------------------------------------------------------- paths in flight ---- */

/* A result carries the index of its item; when its worker died it carries nothing else. */
struct flight {
    size_t index;
    char *path;
};

struct job {
    struct walk *walk;
    brood_stream *stream;
    size_t next_index;
    struct flight *flights;
    size_t flights_count;
    size_t flights_capacity;
};

static int remember(struct job *job, const char *path)
{
    if (job->flights_count == job->flights_capacity) {
        const size_t capacity = 2 * job->flights_capacity + 64;
        struct flight *flights = realloc(job->flights, capacity * sizeof *flights);
        if (flights == NULL)
            return -ENOMEM;
        job->flights = flights;
        job->flights_capacity = capacity;
    }
    char *copy = strdup(path);
    if (copy == NULL)
        return -ENOMEM;
    job->flights[job->flights_count++] = (struct flight){job->next_index++, copy};
    return 0;
}

/* The path of the item with this index, which is the caller's to free. */
static char *take_path(struct job *job, size_t index)
{
    for (size_t i = 0; i < job->flights_count; i++) {
        if (job->flights[i].index == index) {
            char *path = job->flights[i].path;
            job->flights[i] = job->flights[--job->flights_count];
            return path;
        }
    }
    return NULL;
}

/* The iterator: the next regular file's path.  It lies in `flights` until its result is there. */
static int next_file(void *argument, brood_message *ret_item)
{
    struct job *job = argument;
    const char *path = NULL;
    enum walk_found found = WALK_NO_FILE;

    while (found == WALK_NO_FILE) {
        if (interrupted)
            return -EINTR;
        show_progress();
        found = walk_step(job->walk, &path);
    }
    if (found == WALK_END)
        return 0;
    if (found == WALK_NO_MEMORY || remember(job, path) < 0)
        return -ENOMEM;
    char *item = job->flights[job->flights_count - 1].path;
    *ret_item = (brood_message){item, strlen(item) + 1};
    return 1;
}

/* ------------------------------------------------------------------------------------------- the job ---- */

static void take_result(struct job *job, const brood_stream_item *item)
{
    char *path = take_path(job, item->index);

    if (path == NULL)
        abort(); /* an index that we never gave */
    if (item->outcome.kind == BROOD_VALUE)
        print_checksum(path, item->reply.data);
    else if (item->outcome.kind == BROOD_CANCELLED)
        report(path, "Cancelled");
    else
        report(path, item->outcome.text);
    progress.files++;
    free(path);
}

/* 0 or the status to end with. */
static int check_output(int failed)
{
    const int err = errno;

    if (!failed)
        return 0;
    if (interrupted) /* then it may be for that */
        return STATUS_INTERRUPTED;
    if (err == EPIPE)
        return STATUS_BROKEN_PIPE;
    erase_progress();
    fprintf(stderr, "checksum: standard output: %s\n", strerror(err));
    return 1;
}

static int take_results(struct job *job)
{
    int status = 0;

    while (status == 0) {
        brood_stream_item item;
        const int got = brood_stream_next(job->stream, &item, brood_after_ms(TICK_MS));
        if (interrupted)
            return STATUS_INTERRUPTED;
        if (got == 0)
            return check_output(fflush(stdout) != 0);
        if (got < 0 && got != -ETIMEDOUT) {
            erase_progress();
            fprintf(stderr, "checksum: %s\n", brood_error_text());
            return 1;
        }
        if (got > 0) {
            take_result(job, &item);
            status = check_output(ferror(stdout));
        }
        show_progress();
    }
    return status;
}

static int checksum_all(brood_pool *pool, char *const *arguments)
{
    struct job job = {.walk = walk_create(arguments, report)};
    const brood_imap_options *bound =
        BROOD_IMAP_OPTIONS(.max_items = (size_t)brood_pool_workers(pool) * FILES_PER_WORKER);
    int status = 1;

    if (job.walk == NULL)
        fprintf(stderr, "checksum: %s\n", strerror(ENOMEM));
    else if (brood_pool_imap_unordered(pool, checksum, next_file, &job, bound, &job.stream) < 0)
        fprintf(stderr, "checksum: %s\n", brood_error_text());
    else
        status = take_results(&job);
    erase_progress();
    brood_stream_destroy(job.stream);
    while (job.flights_count > 0)
        free(job.flights[--job.flights_count].path);
    free(job.flights);
    walk_destroy(job.walk);
    return status;
}

/* ---------------------------------------------------------------------------------------------- main ---- */

static void note_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static void set_up_process(void)
{
    struct rlimit files;
    struct sigaction action = {.sa_handler = note_interrupt, .sa_flags = (int)SA_RESETHAND};

    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a write error then, which clears the progress line first */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* the walk holds a descriptor for each level of folders */
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int run(uint32_t workers, char *const *arguments)
{
    brood_pool *pool = NULL;
    void *counter = NULL;
    int status = 1;

    set_up_process();
    int err = brood_alloc(sizeof *bytes_read, &counter);
    bytes_read = counter; /* before the pool, so that its workers know it too */
    if (err == 0)
        err = brood_pool_create(BROOD_POOL_OPTIONS(.workers = workers), &pool);
    if (err == 0) {
        start_progress();
        status = checksum_all(pool, arguments);
    } else {
        fprintf(stderr, "checksum: %s\n", brood_error_text());
    }
    brood_pool_destroy(pool);
    brood_free(counter);
    return status == 0 ? files_failed : status;
}

/* A number from 1 to MAX_WORKERS, or 0. */
static uint32_t parse_workers(const char *text)
{
    char *end;
    const unsigned long number = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || number > MAX_WORKERS)
        return 0;
    return (uint32_t)number;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"workers", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    uint32_t workers = 0; /* the pool's default */
    int letter;

    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (letter) {
        case 'w':
            workers = parse_workers(optarg);
            if (workers == 0) {
                fprintf(stderr, "checksum: --workers wants 1 to %d, not '%s'\n", MAX_WORKERS, optarg);
                return 1;
            }
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            fputs("checksum: see checksum --help\n", stderr);
            return 1;
        }
    }
    if (optind == argc) {
        fputs("checksum: which files or folders?  See checksum --help\n", stderr);
        return 1;
    }
    return run(workers, argv + optind);
}
