/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "harness.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A new scenarios_x.c: declare its array here, and add a line to the table. */
extern const struct stepkill_scenario stepkill_selftest[];
extern const struct stepkill_scenario stepkill_heap[];
extern const struct stepkill_scenario stepkill_bulk[];
extern const struct stepkill_scenario stepkill_locks[];
extern const struct stepkill_scenario stepkill_pool[];
extern const struct stepkill_scenario stepkill_pool_ends[];
extern const struct stepkill_scenario stepkill_pool_calls[];
extern const struct stepkill_scenario stepkill_process[];
extern const struct stepkill_scenario stepkill_queue[];
extern const struct stepkill_scenario stepkill_waits[];

static const struct stepkill_scenario *const scenarios[] = {
    stepkill_selftest, stepkill_heap, stepkill_bulk,      stepkill_locks,      stepkill_waits, stepkill_queue,
    stepkill_process,  stepkill_pool, stepkill_pool_ends, stepkill_pool_calls, NULL,
};

static const char help[] =
    "usage: stepkill [options]\n"
    "Kills each operation after its k-th instruction, for every k that leaves another state behind (every "
    "system call, every store\n"
    "to shared memory; the state is the same after all instructions between two of these), and checks the "
    "survivors.\n"
    "  --only NAME        scenarios whose name starts so\n"
    "  --from K --to K    these kill points only\n"
    "  --stride S         every S-th kill point (default: 1)\n"
    "  --full             after every instruction, also those that nobody else can notice\n"
    "  --timeout-ms N     of one run (default: the scenario's, or 5000)\n"
    "  --max-failures N   give a scenario up after so many (default 10)\n"
    "  --jobs N           lanes in parallel (default: one per usable CPU)\n"
    "  --plain            single steps only, no breakpoint to get near k\n"
    "  --list             names of the scenarios\n"
    "  --help\n";

static const struct option long_options[] = {
    {"only", required_argument, NULL, 'o'},
    {"from", required_argument, NULL, 'f'},
    {"to", required_argument, NULL, 't'},
    {"stride", required_argument, NULL, 's'},
    {"timeout-ms", required_argument, NULL, 'm'},
    {"max-failures", required_argument, NULL, 'x'},
    {"jobs", required_argument, NULL, 'j'},
    {"plain", no_argument, NULL, 'p'},
    {"full", no_argument, NULL, 'F'},
    {"list", no_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void list_scenarios(void)
{
    for (const struct stepkill_scenario *const *array = scenarios; *array != NULL; array++)
        for (const struct stepkill_scenario *s = *array; s->name != NULL; s++)
            puts(s->name);
}

static unsigned long parse_number(const char *text)
{
    char *end;
    const unsigned long number = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0) {
        fprintf(stderr, "stepkill: not a number: %s\n", text);
        exit(2);
    }
    return number;
}

/* False: option is not one of those that fill the struct. */
static int parse_option(int option, struct stepkill_options *options)
{
    switch (option) {
    case 'o':
        options->only = optarg;
        return 1;
    case 'f':
        options->from = parse_number(optarg);
        return 1;
    case 't':
        options->to = parse_number(optarg);
        return 1;
    case 's':
        options->stride = parse_number(optarg);
        return 1;
    case 'm':
        options->timeout_ms = (unsigned)parse_number(optarg);
        return 1;
    case 'x':
        options->max_failures = (unsigned)parse_number(optarg);
        return 1;
    case 'j':
        options->jobs = (unsigned)parse_number(optarg);
        return 1;
    case 'p':
        options->plain = 1;
        return 1;
    case 'F':
        options->is_full = 1;
        return 1;
    default:
        return 0;
    }
}

/*
 * A thousand instructions of the dynamic linker at each first call of a function are not what we came for.  Nor is how libc copies memory:
 *   - not in AVX-512, which capstone before its version 5 cannot decode: each instruction that cannot be decoded is a kill point;
 *   - not by `rep movsb` and `rep stosb`, each turn of which is a kill point that no breakpoint leads to, but in a loop of vectors.
 */
static const char tunables[] = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW"
                               ":glibc.cpu.x86_rep_movsb_threshold=1000000000"
                               ":glibc.cpu.x86_rep_stosb_threshold=1000000000";

static void begin_anew(char **argv)
{
    if (getenv("LD_BIND_NOW") != NULL && getenv("GLIBC_TUNABLES") != NULL)
        return;
    if (setenv("LD_BIND_NOW", "1", 0) == 0 && setenv("GLIBC_TUNABLES", tunables, 0) == 0)
        execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    struct stepkill_options options = {0};
    int option;
    begin_anew(argv);
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (parse_option(option, &options))
            continue;
        if (option == 'l')
            list_scenarios();
        else
            fputs(help, option == 'h' ? stdout : stderr);
        return option == '?' ? 2 : 0;
    }
    return stepkill_run(scenarios, &options);
}
