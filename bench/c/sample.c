/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the one line of JSON ---- */

static void print_number(const char *name, double value)
{
    if (!isnan(value))
        printf(", \"%s\": %.9g", name, value);
}

static void print_sample(const struct subject *subject, const struct call *call, const struct sample *sample)
{
    printf("{\"subject\": \"%s\", \"variant\": \"%s\", \"value\": %.9g, \"unit\": \"%s\", \"better\": "
           "\"%s\", \"n\": %llu",
           subject->name, call->variant, sample->value, sample->unit,
           sample->more_is_better ? "more" : "less", (unsigned long long)sample->n);
    print_number("cpu_us_per_task", sample->cpu_us_per_task);
    print_number("p50_us", sample->p50_us);
    print_number("p99_us", sample->p99_us);
    print_number("p999_us", sample->p999_us);
    print_number("first_result_us", sample->first_result_us);
    print_number("memory_per_worker_bytes", sample->memory_per_worker_bytes);
    for (size_t i = 0; i < sample->extras_used; i++)
        print_number(sample->extras[i].name, sample->extras[i].value);
    printf("}\n");
}

void add_extra(struct sample *sample, const char *name, double value)
{
    if (sample->extras_used == SAMPLE_EXTRAS)
        fail("more than %d extras", SAMPLE_EXTRAS);
    sample->extras[sample->extras_used].name = name;
    sample->extras[sample->extras_used].value = value;
    sample->extras_used++;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void set_percentiles(struct sample *sample, double *times_us, size_t count)
{
    qsort(times_us, count, sizeof *times_us, compare);
    sample->p50_us = times_us[count / 2];
    sample->p99_us = times_us[count * 99 / 100];
    sample->p999_us = times_us[count * 999 / 1000];
}

/* ---- the command line ---- */

static void list(const struct subject *subjects, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (const char *const *variant = subjects[i].variants; *variant != NULL; variant++)
            printf("{\"subject\": \"%s\", \"variant\": \"%s\", \"version\": \"%s\"}\n", subjects[i].name,
                   *variant, subjects[i].version());
}

static int has_variant(const struct subject *subject, const char *name)
{
    for (const char *const *variant = subject->variants; *variant != NULL; variant++)
        if (strcmp(*variant, name) == 0)
            return 1;
    return 0;
}

static void measure(const struct subject *subject, const struct call *call)
{
    struct sample sample = {.value = NAN,
                            .unit = "?",
                            .cpu_us_per_task = NAN,
                            .p50_us = NAN,
                            .p99_us = NAN,
                            .p999_us = NAN,
                            .first_result_us = NAN,
                            .memory_per_worker_bytes = NAN};

    subject->measure(call, &sample);
    if (isnan(sample.value))
        fail("%s, %s: nothing was measured", subject->name, call->variant);
    print_sample(subject, call, &sample);
}

static int usage(const char *program, int status)
{
    fprintf(status == 0 ? stdout : stderr, "usage: %s --list | --subject NAME --variant NAME [--quick]\n",
            program);
    return status;
}

int bench_main(int argc, char **argv, const struct subject *subjects, size_t count)
{
    struct call call = {0};
    const char *name = NULL;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            list(subjects, count);
            return 0;
        } else if (strcmp(argv[i], "--help") == 0) {
            return usage(argv[0], 0);
        } else if (strcmp(argv[i], "--quick") == 0) {
            call.is_quick = 1;
        } else if (strcmp(argv[i], "--subject") == 0 && i + 1 < argc) {
            name = argv[++i];
        } else if (strcmp(argv[i], "--variant") == 0 && i + 1 < argc) {
            call.variant = argv[++i];
        } else {
            return usage(argv[0], 2);
        }
    }
    for (size_t i = 0; name != NULL && call.variant != NULL && i < count; i++)
        if (strcmp(subjects[i].name, name) == 0 && has_variant(&subjects[i], call.variant)) {
            measure(&subjects[i], &call);
            return 0;
        }
    return usage(argv[0], 2);
}

void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

long must(long result, const char *what)
{
    if (result < 0)
        fail("%s: %s", what, result == -1 ? strerror(errno) : strerror((int)-result));
    return result;
}

/* ---- clocks and /proc ---- */

static double in_us(struct timespec time)
{
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

double now_us(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return in_us(time);
}

double cpu_us_of(pid_t pid)
{
    struct timespec time;
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
        return 0;
    return in_us(time);
}

double cpu_us_of_children(void)
{
    struct rusage usage;

    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* The number after `key` in a file of /proc/<pid>; -1 when there is none. */
static double field_of(pid_t pid, const char *file, const char *key)
{
    char path[64], line[512];
    double value = -1;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *stream = fopen(path, "re");
    while (stream != NULL && value < 0 && fgets(line, sizeof line, stream) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtod(line + strlen(key), NULL);
    if (stream != NULL)
        fclose(stream);
    return value;
}

pid_t parent_of(pid_t pid)
{
    return (pid_t)field_of(pid, "status", "PPid:");
}

long sleeps_of(pid_t pid)
{
    return (long)field_of(pid, "status", "voluntary_ctxt_switches:");
}

double memory_bytes_of(pid_t pid)
{
    return field_of(pid, "smaps_rollup", "Pss:") * 1024;
}

static char state_of(pid_t pid)
{
    char path[64], text[256];
    char state = '?';

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        fail("process %d is gone", (int)pid);
    if (fgets(text, sizeof text, stream) != NULL && strrchr(text, ')') != NULL)
        state = strrchr(text, ')')[2];
    fclose(stream);
    return state;
}

void wait_until_asleep(pid_t pid)
{
    while (state_of(pid) != 'S')
        pause_us(200);
}

void pause_us(long microseconds)
{
    const struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};

    nanosleep(&time, NULL);
}

const char *no_version(void)
{
    return "";
}

const char *kernel_version(void)
{
    static struct utsname name;

    uname(&name);
    return name.release;
}

/* ---- processes ---- */

void *shared_memory(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (memory == MAP_FAILED)
        fail("mmap: %s", strerror(errno));
    return memory;
}

pid_t fork_to(void (*function)(void *argument), void *argument)
{
    fflush(stdout);
    const pid_t pid = fork();

    must(pid, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        function(argument);
        _exit(0);
    }
    return pid;
}

void reap(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid || status != 0)
        fail("child %d ended with status %#x", (int)pid, (unsigned)status);
}
