# SPDX-License-Identifier: MIT
"""What it costs to have a trivial function called by a pool of two: one call at a time, many, and lists of calls."""
import time

import pools
import sample

MANY = {"brood": 20000, "multiprocessing": 6000}  # calls in a sample; of the others:
FEW, FEW_OF_RAY = 800, 200


def identity(x):
    return x


def _size(subject, is_quick):
    return (MANY.get(subject, FEW_OF_RAY if subject == "ray" else FEW)) // (4 if is_quick else 1)


def apply(pool, n):
    """One call after the other: its way there and back.  By apply, where the library has that."""
    call = getattr(pool, "call", None) or (lambda function, i: pool.submit(function, i)())
    seconds = []
    with sample.Stopwatch(n) as watch:
        for i in range(n):
            began = time.perf_counter()
            got = call(identity, i)
            seconds.append(time.perf_counter() - began)
            sample.check(got == i, got)
    return sample.result(watch.seconds / n * 1e6, "us", **watch.facts(), **sample.percentiles(seconds))


def burst(pool, n):
    """Bursts of 1000 calls that are all submitted before the first result is asked for."""
    def operation():
        gets = [pool.submit(identity, i) for i in range(min(n, 1000))]
        sample.check([get() for get in gets] == list(range(len(gets))), "of a burst")
    value, facts = sample.in_batches(max(n // 1000, 1), min(n, 1000), operation)
    return sample.result(value * 1e6, "us", **facts)


def map_one(pool, n):
    """A map of which each item is a task."""
    value, facts = sample.in_batches(3, n, lambda: sample.check(list(pool.map(identity, range(n))) == list(range(n)), "of a map"))
    return sample.result(value * 1e6, "us", **facts)


def imap_unordered(pool, n):
    """The same, and results as they come."""
    value, facts = sample.in_batches(
        3, n, lambda: sample.check(sorted(pool.unordered(identity, range(n))) == list(range(n)), "of an imap_unordered"))
    return sample.result(value * 1e6, "us", **facts)


CALLS = {"apply": (apply, "submit"), "apply_async-burst": (burst, "submit"), "map-chunksize-1": (map_one, "map"),
         "imap_unordered": (imap_unordered, "unordered")}


def measure(subject, variant, is_quick):
    function, _ = CALLS[variant]
    pool, n = pools.KINDS[subject](pools.WORKERS), _size(subject, is_quick)
    function(pool, 20)  # the library as it is when it is at work
    made = function(pool, n)
    made["memory_per_worker_bytes"] = sample.memory_per_worker(pools.WORKERS)
    pool.close()
    return made


if __name__ == "__main__":
    sample.main(pools.versions(), {variant: pools.having(call) for variant, (_, call) in CALLS.items()}, measure)
