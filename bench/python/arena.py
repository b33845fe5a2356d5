# SPDX-License-Identifier: MIT
"""An array that lies in the arena: what a call costs that takes it, and one that takes and returns it, whatever its size."""
import time

import numpy

import brood
import pools
import sample

SIZES = {"10MB": 10_000_000, "1GB": 1_000_000_000, "5GB": 5_000_000_000}  # bytes
CALLS = 1000


def ends(array):
    return int(array[0]), int(array[-1])


def same(array):
    return array


FUNCTIONS = {"in": ends, "out": same}


def lying_in_the_arena(size):
    """Only its ends are written, so that it takes no memory in between."""
    array = brood.empty(size // 8, dtype=numpy.int64)
    array[0], array[-1] = 7, 8
    return array


def measure(subject, variant, is_quick):
    way, size = variant.split("-")
    function, array, seconds = FUNCTIONS[way], lying_in_the_arena(SIZES[size]), []
    pool, n = brood.Pool(pools.WORKERS), CALLS // (4 if is_quick else 1)
    pool.apply(function, (array,))
    with sample.Stopwatch(n) as watch:
        for _ in range(n):
            began = time.perf_counter()
            got = pool.apply(function, (array,))
            seconds.append(time.perf_counter() - began)
            sample.check((got if way == "in" else ends(got)) == (7, 8), "of an array in the arena")
            del got
    pool.close()
    percentiles = sample.percentiles(seconds)
    return sample.result(percentiles["p50_us"], "us", **watch.facts(), **percentiles)


if __name__ == "__main__":
    variants = {f"{way}-{size}": ["brood"] for way in FUNCTIONS for size in SIZES}
    sample.main({"brood": pools.version("brood")}, variants, measure)
