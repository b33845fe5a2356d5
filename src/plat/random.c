/* SPDX-License-Identifier: MIT */
/* brood_random_between: xoshiro256** (Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", 2021), a state per thread,
 * seeded by getrandom(2).  A forked child must not go on with its parent's state: the state remembers the pid. */
#include "plat/random.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/time.h"
#include "brood.h"

static _Thread_local struct {
    pid_t pid;
    uint64_t words[4];
} stream;

static void fill(void *bytes, size_t count)
{
    if (getrandom(bytes, count, 0) == (ssize_t)count)
        return;
    /* Only before the kernel's pool is ready on ancient kernels; better than equal streams. */
    for (size_t i = 0; i < count; i++)
        ((unsigned char *)bytes)[i] =
            (unsigned char)(((uint64_t)bri_now_ns() * (uint64_t)getpid()) >> (i % 32));
}

void bri_random_reseed(void)
{
    struct {
        unsigned int random;
        long drand48;
    } seed;

    fill(&seed, sizeof seed);
    srandom(seed.random);
    srand48(seed.drand48);
}

static uint64_t rotate(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static uint64_t next_word(void)
{
    uint64_t *s = stream.words;

    if (stream.pid != getpid()) {
        fill(s, sizeof stream.words);
        s[0] |= 1; /* the state must not be all zero */
        stream.pid = getpid();
    }
    uint64_t result = rotate(s[1] * 5, 7) * 9, shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 45);
    return result;
}

/* splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014), which Vigna recommends for filling the state. */
static uint64_t split(uint64_t *state)
{
    uint64_t word = *state += UINT64_C(0x9e3779b97f4a7c15);

    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

void brood_random_seed(uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        stream.words[i] = split(&seed);
    stream.pid = getpid();
}

uint64_t bri_random_mix(uint64_t seed, uint64_t a, uint64_t b)
{
    uint64_t state = seed;

    state = split(&state) ^ a;
    state = split(&state) ^ b;
    return split(&state);
}

int64_t brood_random_between(int64_t low, int64_t high)
{
    if (low > high) {
        int64_t other = low;
        low = high;
        high = other;
    }
    uint64_t span = (uint64_t)high - (uint64_t)low + 1; /* 0: all 2^64 */
    uint64_t word = next_word();
    if (span == 0)
        return (int64_t)word;
    /* Words below 2^64 mod span would make small numbers likelier: draw again. */
    for (uint64_t uneven = -span % span; word < uneven;)
        word = next_word();
    return (int64_t)((uint64_t)low + word % span);
}
