# SPDX-License-Identifier: MIT
"""Arrays of 10 MB as items of a map, and as its results: bytes in a second, beside memcpy into pages that are there."""
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


def _copy(count):
    source, target = ramp(7), ramp(9)
    for _ in range(count):
        numpy.copyto(target, source)
    sample.check(ends(target) == (7, 8), "of a copy")


def _into(pool, arrays):
    expected = [(number, number + 1) for number in range(len(arrays))]
    sample.check(list(pool.map(ends, arrays)) == expected, "of arrays that went in")


def _out_of(pool, count):
    sample.check([ends(array) for array in pool.map(give, range(count))] == [(number, number + 1) for number in range(count)],
                 "of arrays that came out")


def measure(subject, variant, is_quick):
    count = ARRAYS // (2 if is_quick else 1)
    if subject == "memcpy":
        operation, pool = (lambda: _copy(count)), None
    else:
        pool, arrays = pools.KINDS[subject](pools.WORKERS), [ramp(number) for number in range(count)]
        operation = (lambda: _into(pool, arrays)) if variant == "in" else (lambda: _out_of(pool, count))
    operation()
    value, facts = sample.in_batches(3 if is_quick else 5, count, operation)
    if pool is not None:
        pool.close()
    return sample.result(BYTES / value / 1e9, "GB/s", "more", **facts)


if __name__ == "__main__":
    subjects = {**pools.versions(), "memcpy": numpy.__version__}
    sample.main(subjects, {variant: [*CALLERS, "memcpy"] for variant in ("in", "out")}, measure)
