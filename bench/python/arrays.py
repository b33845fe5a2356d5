# SPDX-License-Identifier: MIT
"""Arrays of 10 MB as items of a map, and as its results: bytes in a second, beside memcpy into pages that are there."""
import functools

import numpy

import pools
import sample

BYTES, ARRAYS = 10_000_000, 16
CALLERS = [name for name in pools.having("map") if name != "joblib"]  # that passes arrays in files, by a memory map


def ends(array):
    return int(array[0]), int(array[-1])


def ramp(number):
    array = numpy.zeros(BYTES // 8, dtype=numpy.int64)
    array[0], array[-1] = number, number + 1
    return array


_kept = {}  # in a worker: more arrays than one of its tasks may return


def give(number):
    """What a task returns: an array that is there already, since to make one costs as much as to copy it."""
    place = number % 8
    if place not in _kept:
        _kept[place] = numpy.ones(BYTES // 8, dtype=numpy.int64)
    _kept[place][0], _kept[place][-1] = number, number + 1
    return _kept[place]


def _copy(sources, targets):
    """As many different arrays as go through a map: what lies in no cache there does not lie in one here."""
    for source, target in zip(sources, targets, strict=True):
        numpy.copyto(target, source)
    sample.check([ends(array) for array in targets] == [(number, number + 1) for number in range(len(sources))], "of copies")


def _into(pool, arrays):
    expected = [(number, number + 1) for number in range(len(arrays))]
    sample.check(list(pool.map(ends, arrays)) == expected, "of arrays that went in")


def _out_of(pool, count):
    sample.check([ends(array) for array in pool.map(give, range(count))] == [(number, number + 1) for number in range(count)],
                 "of arrays that came out")


def measure(subject, variant, is_quick):
    count = ARRAYS // (2 if is_quick else 1)
    arrays = [ramp(number) for number in range(count)]
    if subject == "memcpy":
        targets, pool = [numpy.ones_like(array) for array in arrays], None
        operation = functools.partial(_copy, arrays, targets)
    else:
        pool = pools.KINDS[subject](pools.WORKERS)
        operation = functools.partial(_into, pool, arrays) if variant == "in" else functools.partial(_out_of, pool, count)
    operation()
    value, facts = sample.in_batches(3 if is_quick else 5, count, operation)
    if pool is not None:
        pool.close()
    return sample.result(BYTES / value / 1e9, "GB/s", "more", **facts)


if __name__ == "__main__":
    subjects = {**pools.versions(), "memcpy": numpy.__version__}
    sample.main(subjects, {variant: [*CALLERS, "memcpy"] for variant in ("in", "out")}, measure)
