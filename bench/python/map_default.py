# SPDX-License-Identifier: MIT
"""A map of a trivial function over a million ints, with each library's own chunks; and what is the least that it can cost: the loop on two
CPUs, and each item and result pickled and unpickled once."""
import pickle
import statistics
import time

import pools
import sample

ITEMS = {"brood": 1_000_000, "multiprocessing": 1_000_000, "mpire": 50_000, "joblib": 10_000, "ray": 300, "least": 1_000_000}  # others:
FEW = 1000


def identity(x):
    return x


def _timed(function):
    began = time.perf_counter()
    made = function()
    return time.perf_counter() - began, made


def _least(n):
    """(the loop on two CPUs, pickling both ways), in chunks of the size that multiprocessing has, in the process that measures."""
    size = -(-n // (4 * pools.WORKERS))
    chunks = [tuple(range(first, min(first + size, n))) for first in range(0, n, size)]
    loop, values = _timed(lambda: [[identity(x) for x in chunk] for chunk in chunks])
    pickling = 0.0
    for thing in chunks, values:
        for part in thing:
            dumping, data = _timed(lambda: pickle.dumps(part, 5))
            loading, again = _timed(lambda: pickle.loads(data))
            sample.check(again == part, "of a pickle")
            pickling += dumping + loading
    return loop, pickling


def _measure_least(n):
    rounds = [_least(n) for _ in range(5)]
    loop, pickling = (statistics.median(one[i] for one in rounds) / n * 1e9 for i in range(2))
    return sample.result(loop / pools.WORKERS + pickling, "ns/item", n=n, serial_loop_ns=round(loop, 1), pickling_ns=round(pickling, 1))


def measure(subject, variant, is_quick):
    n = ITEMS.get(subject, FEW) // (2 if is_quick else 1)
    if subject == "least":
        return _measure_least(n)
    pool, items = pools.KINDS[subject](pools.WORKERS), range(n)
    expected = list(items)
    pool.by_default(identity, range(100))
    seconds, cpu = [], 0.0
    for _ in range(3 if is_quick else 5):
        with sample.Stopwatch(n) as watch:
            values = list(pool.by_default(identity, items))
        sample.check(values == expected, "of a map")
        seconds.append(watch.seconds / n)
        cpu += watch.facts()["cpu_us_per_task"]
    pool.close()
    return sample.result(statistics.median(seconds) * 1e9, "ns/item", n=n * len(seconds), cpu_us_per_task=round(cpu / len(seconds), 4))


if __name__ == "__main__":
    sample.main({**pools.versions(), "least": pools.version("multiprocessing")}, {"map": [*pools.having("by_default"), "least"]}, measure)
