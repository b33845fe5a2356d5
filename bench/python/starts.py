# SPDX-License-Identifier: MIT
"""A pool of two from nothing to nothing: create, first result, close, join; for each start method, and the first pool of a program by itself.

What spawn and forkserver run again in each child is this module, which imports next to nothing there: the libraries are measured, and not it.
"""
import importlib
import time

if __name__ == "__main__":
    import statistics

    import pools
    import sample

METHODS = ("fork", "forkserver", "spawn")
POOLS = {"fork": 20, "forkserver": 8, "spawn": 5}


def identity(x):
    return x


def _one(context):
    """(create, until the first result, close and join) in seconds."""
    began = time.perf_counter()
    pool = context.Pool(pools.WORKERS)
    created = time.perf_counter()
    sample.check(pool.apply(identity, (7,)) == 7, "of the first call")
    first = time.perf_counter()
    pool.close()
    pool.join()
    return created - began, first - began, time.perf_counter() - first


def measure(subject, variant, is_quick):
    method, _, which = variant.partition("-")
    context = importlib.import_module(subject).get_context(method)
    n = 1 if which == "first" else max(POOLS[method] // (2 if is_quick else 1), 3)
    if which != "first":
        _one(context)
    rounds = [_one(context) for _ in range(n)]
    create, first, end = (statistics.median(column) for column in zip(*rounds, strict=True))
    whole = statistics.median(first + end for _, first, end in rounds)
    return sample.result(whole * 1e3, "ms", n=n, create_ms=round(create * 1e3, 3), first_result_us=round(first * 1e6, 1),
                         end_ms=round(end * 1e3, 3))


if __name__ == "__main__":
    both = ["brood", "multiprocessing"]
    sample.main({name: pools.version(name) for name in both}, {f"{method}{which}": both for method in METHODS for which in ("", "-first")}, measure)
