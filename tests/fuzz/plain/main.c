/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target without libFuzzer, so that every `make test` exercises it a little: on random inputs from a printed seed, or on the files
 * that are named, each in a run of its own input.
 *
 *   fuzz_<name>_plain [--seed N] [--seconds S] [FILE...]
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { INPUT_MOST = 4096, SECONDS = 5 };

static uint64_t seed, runs;

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void run_random(uint64_t *state)
{
    static uint8_t data[INPUT_MOST];
    size_t bytes = next_random(state) % INPUT_MOST;

    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)next_random(state);
    LLVMFuzzerTestOneInput(data, bytes);
    runs++;
}

static int run_file(const char *name)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(name, "rb");

    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", name, strerror(errno));
        return 0;
    }
    size_t bytes = fread(data, 1, sizeof data, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, bytes);
    runs++;
    return 1;
}

static void say_seed(int signal_number)
{
    char text[100];
    int length = snprintf(text, sizeof text, "not ok 1 - signal %d; again: --seed %llu\n", signal_number,
                          (unsigned long long)seed);

    if (write(STDOUT_FILENO, text, (size_t)length) != length)
        _exit(2);
}

static int usage(const char *program)
{
    fprintf(stderr, "usage: %s [--seed N] [--seconds S] [FILE...]\n", program);
    return 2;
}

int main(int count, char **arguments)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 'n'}, {"seconds", required_argument, NULL, 's'}, {0}};
    long seconds = SECONDS;
    int option, is_given = 0;

    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        if (option == '?')
            return usage(arguments[0]);
        if (option == 's')
            seconds = strtol(optarg, NULL, 10);
        if (option == 'n')
            seed = strtoull(optarg, NULL, 10);
        is_given |= option == 'n';
    }
    if (!is_given && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return 2;
    signal(SIGABRT, say_seed);
    printf("1..1\n");
    fflush(stdout);
    int is_fine = 1;
    for (int i = optind; i < count; i++)
        is_fine &= run_file(arguments[i]);
    uint64_t state = seed;
    for (time_t end = time(NULL) + seconds; optind == count && time(NULL) < end;)
        run_random(&state);
    printf("# seed %llu, %llu inputs\n%sok 1 - every input is played to its end\n", (unsigned long long)seed,
           (unsigned long long)runs, is_fine ? "" : "not ");
    return !is_fine;
}
