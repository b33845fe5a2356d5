# SPDX-License-Identifier: MIT
"""Pickles that are made and read without a pickler (csrc/plain.c): real ones, of what they are for, and of nothing else."""
import pathlib
import pickle

import pytest
from hypothesis import configuration, given, settings, strategies as st

import brood as mp

configuration.set_hypothesis_home_dir(pathlib.Path(mp.__file__).parents[1] / "hypothesis")  # in the build directory

MANY = settings(max_examples=400, deadline=None, database=None)
OURS = b"\x80\x03"
DEEP = [[[[1]]]]


@pytest.fixture(scope="module")
def queue():
    """One for all: what is put is got at once."""
    return mp.Queue()


def pickled(queue, value):
    """The message for a value, and the value that comes out of it."""
    queue.put(value)
    message = queue.get_bytes()
    queue.put_bytes(message)
    return message, queue.get()


PLAIN = [0, 255, 256, 65535, 65536, -1, 2**31 - 1, -2**31, 2**31, 2**63 - 1, -2**63, 0.0, -0.0, -1.5, float("inf"), None, True, False, "", "a", "x" * 1024,
         b"", b"a" * 255, b"a" * 256, b"a" * 1024, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [[]], {}, {"a": 1}, {1: {2: {}}}, {(1, 2): [b"3"]},
         DEEP, tuple(range(100_000)), [0.5] * 3000, [None, True] * 3000, ["s"] * 63, ((1, 2), "kwds", None)]
OTHERS = [2**63, -2**63 - 1, "é", "x" * 1025, b"x" * 1025, ["s"] * 64, [DEEP], {1, 2}, 1j, bytearray(b"1"), list(map(str, range(200))), range(3)]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_what_they_are_for(queue, value):
    message, got = pickled(queue, value)
    assert message.startswith(OURS)
    assert repr(got) == repr(value) == repr(pickle.loads(message))


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: repr(value)[:20])
def test_what_is_left_to_a_pickler(queue, value):
    message, got = pickled(queue, value)
    assert not message.startswith(OURS)
    assert got == value and type(got) is type(value)


class Int(int):
    """Not exactly an int."""


class Text(str):
    """Not exactly a str."""


@pytest.mark.parametrize("value", [Int(3), Text("a"), [Int(3)], {"a": Text("a")}], ids=repr)
def test_subclasses_stay_what_they_are(queue, value):
    message, got = pickled(queue, value)
    assert not message.startswith(OURS)
    assert got == value and type(got) is type(value)
    assert [type(x) for x in (got.values() if isinstance(got, dict) else got if isinstance(got, list) else ())] in ([], [Int], [Text])


def test_one_object_stays_one():
    queue, shared, cycle = mp.Queue(), [1], []
    cycle.append(cycle)
    _, (first, second) = pickled(queue, (shared, shared))
    assert first is second
    _, got = pickled(queue, cycle)
    assert got[0] is got
    doubled = (1, 2, 3, 4)
    for _ in range(40):
        doubled = (doubled, doubled)  # 2**40 of them, if each were written
    queue.put([doubled, doubled])
    assert len(queue.get_bytes()) < 4096


NUMBERS = st.integers(-2**66, 2**66) | st.integers(-300, 300) | st.floats(allow_nan=False) | st.none() | st.booleans()
VALUES = st.recursive(NUMBERS | st.text(max_size=5) | st.binary(max_size=300),
                      lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple)
                      | st.dictionaries(st.text("ab", max_size=3) | st.integers(0, 9), inner, max_size=5), max_leaves=30)


@MANY
@given(value=VALUES)
def test_any_value_survives(queue, value):
    message, got = pickled(queue, value)
    assert repr(got) == repr(value) == repr(pickle.loads(message))


def loaded(load):
    """What a message is, or that it is none."""
    try:
        return repr(load())
    except Exception as error:  # any: the pickler's choice
        return type(error)


NO_PICKLER = [b"\x80\x03", b"\x80\x03.", b"\x80\x03((Ne.", b"\x80\x03(.", b"\x80\x03NN.", b"\x80\x03t.", b"\x80\x03e.", b"\x80\x03}(Nu.", b"\x80\x03}(]Nu.",
              b"\x80\x03K", b"\x80\x03X\xff\xff\xff\x7fa.", b"\x80\x03X\x01\x00\x00\x00\xff.", b"\x80\x03(((((((N.", b"\x80\x03\x87.", b"\x80\x03](Ne(Ne.",
              b"\x80\x03\x8a\x01\x07.", b"\x80\x03N.trailing"]


@pytest.mark.parametrize("message", NO_PICKLER, ids=repr)
def test_messages_that_begin_like_ours(queue, message):
    queue.put_bytes(message)
    assert loaded(queue.get) == loaded(lambda: pickle.loads(message))


OPCODES = st.sampled_from([b"N", b"K\x01", b"M\x01\x02", b"J\x01\x02\x03\xff", b"(", b")", b"t", b"\x85", b"\x86", b"\x87", b"]", b"e", b"}", b"u", b"C\x01a",
                           b"X\x01\x00\x00\x00a", b"\x88", b"\x8a\x08" + b"\x01" * 8, b"G" + b"\x00" * 8, b"0", b"2"])


@MANY
@given(opcodes=st.lists(OPCODES, max_size=12))
def test_any_opcodes_mean_what_they_mean(queue, opcodes):
    message = OURS + b"".join(opcodes) + b"."
    queue.put_bytes(message)
    assert loaded(queue.get) == loaded(lambda: pickle.loads(message))
