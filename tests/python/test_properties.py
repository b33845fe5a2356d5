# SPDX-License-Identifier: MIT
"""Any value survives every path between processes, and a pool's maps are the built-in map."""
import collections
import itertools
import operator
import pathlib
import struct
import threading

import pytest
from hypothesis import HealthCheck, configuration, given, settings, strategies as st

import brood as mp

configuration.set_hypothesis_home_dir(pathlib.Path(mp.__file__).parents[1] / "hypothesis")  # in the build directory

WITHIN = 30
FEW = settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
LARGEST = 1 << 20


@pytest.fixture(scope="module")
def pools():
    """Pools of one, two and three workers, by that number."""
    made = {count: mp.get_context("fork").Pool(count) for count in (1, 2, 3)}
    yield made
    for pool in made.values():
        pool.terminate()


# ---- values ----

KEYS = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=20)
BIG_INTS = st.builds(lambda sign, bits, low: sign * ((1 << bits) + low),
                     st.sampled_from([-1, 1]), st.integers(0, 20_000), st.integers())
EVERY_FLOAT = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0])
LEAVES = KEYS | BIG_INTS | EVERY_FLOAT | st.floats() | st.complex_numbers() | st.fractions() | st.decimals(allow_nan=False)


def nested(inner):
    """Containers of what `inner` makes."""
    return (st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple) | st.dictionaries(KEYS, inner, max_size=5)
            | st.sets(KEYS, max_size=5) | st.frozensets(KEYS, max_size=5) | st.lists(inner, max_size=5).map(collections.deque))


# Around the sizes at which a message takes another way: the stack's buffer, a batch's, the pipe's, the arena's pages.
SIZES = st.integers(0, 64) | st.sampled_from([4095, 4096, 65536, 262144, LARGEST]).flatmap(lambda n: st.integers(n - 32, n + 32)) \
    | st.integers(0, LARGEST)
BLOCKS = st.builds(lambda seed, size: (seed * (size // len(seed) + 1))[:size], st.binary(min_size=1, max_size=8), SIZES)
VALUES = st.recursive(LEAVES, nested, max_leaves=20) | BLOCKS | BLOCKS.map(bytearray) | st.text(max_size=300)


def fingerprint(value):
    """Something that is equal for two values exactly when these are, with their types, and NaNs by their bits."""
    kind = type(value)
    if kind is float:
        return kind, struct.pack("d", value)
    if kind is complex:
        return kind, struct.pack("dd", value.real, value.imag)
    if kind in (list, tuple, collections.deque):
        return kind, [fingerprint(item) for item in value]
    if kind is dict:
        return kind, [(fingerprint(key), fingerprint(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return kind, collections.Counter(map(repr, map(fingerprint, value)))
    return kind, value


def identity(value):
    return value


def identities(*values):
    return values


def carry(source, target):
    target.put(source.get(timeout=WITHIN) if isinstance(source, mp.queues.Queue) else source.get())


def assert_same(received, sent):
    assert fingerprint(received) == fingerprint(sent)


@FEW
@given(value=VALUES, keyword=VALUES)
def test_values_survive_apply(pools, value, keyword):
    assert_same(pools[1].apply(identity, (value,)), value)
    both = {"value": value, "keyword": keyword}
    assert_same(pools[2].apply_async(dict, (), both).get(WITHIN), both)


@FEW
@given(values=st.lists(VALUES, max_size=6), count=st.integers(1, 3))
def test_values_survive_map(pools, values, count):
    assert_same(pools[count].map(identity, values), values)
    assert_same(list(pools[count].imap(identity, values)), values)
    assert_same(pools[count].starmap(identities, [values, values]), [tuple(values)] * 2)


@FEW
@given(value=VALUES, kind=st.sampled_from(["Queue", "JoinableQueue", "SimpleQueue"]))
def test_values_survive_a_queue_there_and_back(pools, value, kind):
    there, back = getattr(mp, kind)(), getattr(mp, kind)()
    carried = pools[1].apply_async(carry, (there, back))
    there.put(value)
    carried.get(WITHIN)
    assert_same(back.get(), value)


@FEW
@given(values=st.lists(VALUES, min_size=1, max_size=6))
def test_values_survive_a_queue_several_at_once(values):
    queue, received = mp.Queue(), []
    assert queue.put_many(values) == len(values)
    while len(received) < len(values):
        received += queue.get_many(len(values), timeout=WITHIN)
    assert_same(received, values)


@FEW
@given(value=VALUES)
def test_values_survive_a_pipe(value):
    ours, theirs = mp.Pipe()
    with ours, theirs:
        sender = threading.Thread(target=ours.send, args=(value,))
        sender.start()
        assert_same(theirs.recv(), value)
        sender.join(WITHIN)


# ---- maps ----

FUNCTIONS = st.sampled_from([operator.neg, abs, str, hash, float, lambda x: (x, x), lambda x: x % 7]) \
    | st.integers().map(lambda offset: lambda x: x * 3 + offset)
SHAPES = st.sampled_from([list, tuple, iter, collections.deque, lambda items: (item for item in items), dict.fromkeys,
                          lambda items: range(len(items)), set, lambda items: memoryview(bytes(item % 256 for item in items))])
NUMBERS = st.lists(st.integers(-10**6, 10**6), max_size=150)
CHUNKS = st.integers(1, 200)
WORKERS = st.integers(1, 3)


@FEW
@given(function=FUNCTIONS, shape=SHAPES, items=NUMBERS, chunk=st.none() | CHUNKS, count=WORKERS)
def test_map_is_the_builtin_map(pools, function, shape, items, chunk, count):
    expected = list(map(function, shape(items)))
    assert pools[count].map(function, shape(items), chunk) == expected
    assert pools[count].map_async(function, shape(items), chunk).get(WITHIN) == expected


@FEW
@given(function=FUNCTIONS, shape=SHAPES, items=NUMBERS, chunk=CHUNKS, count=WORKERS, bound=st.none() | st.integers(1, 9))
def test_imap_is_the_builtin_map(pools, function, shape, items, chunk, count, bound):
    expected = list(map(function, shape(items)))
    assert list(pools[count].imap(function, shape(items), chunk, buffersize=bound)) == expected
    unordered = pools[count].imap_unordered(function, shape(items), chunk, buffersize=bound)
    assert collections.Counter(unordered) == collections.Counter(expected)


@FEW
@given(function=st.sampled_from([identities, lambda *some: sum(some), max, lambda first, *rest: (rest, first)]),
       items=st.lists(st.lists(st.integers(), min_size=2, max_size=4), max_size=60), chunk=st.none() | CHUNKS, count=WORKERS)
def test_starmap_is_that_of_itertools(pools, function, items, chunk, count):
    assert pools[count].starmap(function, iter(items), chunk) == list(itertools.starmap(function, items))


@FEW
@given(items=NUMBERS, bad=st.sets(st.integers(0, 149), max_size=3), chunk=st.none() | CHUNKS, count=WORKERS)
def test_map_raises_exactly_when_the_function_does(pools, items, bad, chunk, count):
    def reciprocal(position):
        return 1 / (position not in bad)

    positions = range(len(items))
    if bad & set(positions):
        with pytest.raises(ZeroDivisionError):
            pools[count].map(reciprocal, positions, chunk)
    else:
        assert pools[count].map(reciprocal, positions, chunk) == [1] * len(items)
