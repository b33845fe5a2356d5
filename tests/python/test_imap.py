# SPDX-License-Identifier: MIT
"""imap and imap_unordered: what is read when, who may take results, and that all of it is done."""
import functools
import itertools
import os
import queue
import signal
import threading
import time

import brood as mp
import pytest

WITHIN = 30
IMAPS = ["imap", "imap_unordered"]


@pytest.fixture
def pool():
    """A pool of two workers, gone after the test."""
    with mp.get_context("fork").Pool(2) as made:
        yield made


def square(x):
    return x * x


def add(x, y):
    return x + y


def test_imap_reads_no_more_than_it_may(pool):
    taken = []

    def numbers():
        for i in range(1000):
            taken.append(i)
            yield i

    results = pool.imap(square, numbers(), buffersize=5)
    assert next(results) == 0
    assert len(taken) <= 8
    assert list(results) == [x * x for x in range(1, 1000)]


def test_imap_goes_on_after_close(pool):
    results = pool.imap(square, iter(range(2000)), buffersize=3)
    pool.close()
    assert list(results) == [x * x for x in range(2000)]


@pytest.mark.parametrize("call", IMAPS)
@pytest.mark.parametrize("make", [lambda: range(2000), lambda: [*range(300)], lambda: (i for i in range(2000))])
def test_an_imap_whose_results_nobody_takes_is_done_all_the_same(pool, call, make):
    done = mp.Value("i", 0)
    count = sum(1 for _ in make())
    getattr(pool, call)(functools.partial(count_one, done), make())
    first, second = next(results := getattr(pool, call)(functools.partial(count_one, done), make())), None
    assert (first, second) == (None, None)
    del results
    pool.close()
    pool.join()
    assert done.value == 2 * count


def count_one(done, _):
    with done.get_lock():
        done.value += 1


@pytest.mark.parametrize("call", IMAPS)
def test_results_of_an_imap_are_there_after_join(pool, call):
    results = getattr(pool, call)(square, (i for i in range(3000)), chunksize=2)
    pool.close()
    pool.join()
    assert sorted(results) == [x * x for x in range(3000)]


@pytest.mark.parametrize("call", IMAPS)
def test_join_reads_no_further_where_there_is_a_bound(pool, call):
    results, taken = getattr(pool, call)(square, iter(range(3000)), buffersize=3), []
    pool.close()
    pool.join()
    with pytest.raises(ValueError, match="joined before all"):
        for result in results:
            taken.append(result)
    assert sorted(taken) == [x * x for x in range(len(taken))] and len(taken) < 8


@pytest.mark.parametrize("call", IMAPS)
def test_an_input_may_wait_for_what_becomes_of_earlier_results(pool, call):
    results, taken = queue.Queue(), []
    results.put(0)

    def numbers():
        while (number := results.get(timeout=WITHIN)) is not None:
            yield number

    for result in getattr(pool, call)(functools.partial(add, 1), numbers()):
        taken.append(result)
        results.put(result if result < 5 else None)
    assert taken == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("call", IMAPS)
@pytest.mark.parametrize("options", [{}, {"buffersize": 7}])
@pytest.mark.parametrize("make", [iter, list])
def test_threads_share_an_imap(pool, call, options, make):
    results = getattr(pool, call)(square, make(range(3000)), **options)
    taken = [[], [], []]
    threads = [threading.Thread(target=mine.extend, args=(results,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sum(taken, [])) == [x * x for x in range(3000)]


@pytest.mark.parametrize("call", IMAPS)
@pytest.mark.parametrize("options, error", [({}, mp.TimeoutError), ({"buffersize": 7}, ValueError)])
def test_an_input_that_asks_its_own_imap(pool, call, options, error):
    box, errors = [], []

    def numbers():
        for i in range(30):
            if i == 20:
                try:
                    while True:
                        taken.append(box[0].next(0.001))
                except Exception as caught:
                    errors.append(type(caught))
            yield i

    taken = []
    box.append(getattr(pool, call)(square, numbers(), **options))
    taken.extend(box[0])
    assert sorted(taken) == [x * x for x in range(30)] and errors == [error]


@pytest.mark.parametrize("call", IMAPS)
@pytest.mark.parametrize("options", [{}, {"buffersize": 2}])
def test_next_with_a_time_raises_multiprocessings_timeout(pool, call, options):
    results = getattr(pool, call)(pause, iter([1]), **options)
    with pytest.raises(mp.TimeoutError):
        results.next(0.01)
    with pytest.raises(mp.TimeoutError):
        results.next(0)


def test_the_items_of_a_long_imap_are_named_by_their_places(pool):
    results = pool.imap(fail_at_2000, (i for i in range(2100)), 3)
    with pytest.raises(ValueError, match="no 2000") as caught:
        list(results)
    assert any("item 2000 of" in note for note in caught.value.__notes__)


def fail_at_2000(x):
    if x == 2000:
        raise ValueError("no 2000")
    return x


def square_but_wait(gate, x):
    """One of them is held up."""
    if x == 70:
        with gate:
            pass
    return x * x


@pytest.mark.parametrize("call", IMAPS)
@pytest.mark.parametrize("make", [lambda: range(300), lambda: [*range(300)], lambda: iter(range(300))])
def test_a_task_that_takes_long_holds_up_only_what_is_in_order_behind_it(pool, call, make):
    gate = mp.Lock()
    with gate:
        results = getattr(pool, call)(functools.partial(square_but_wait, gate), make())
        early = [results.next(WITHIN) for _ in range(70 if call == "imap" else 299)]
        with pytest.raises(mp.TimeoutError):
            results.next(0.05)
    all_of_it = [*early, *results]
    assert sorted(all_of_it) == [x * x for x in range(300)]
    assert call == "imap_unordered" or all_of_it == sorted(all_of_it)


def die_or_square(deadly, x):
    if x in deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


@pytest.mark.parametrize("call", IMAPS)
@pytest.mark.parametrize("options", [{}, {"retries": 1}, {"timeout": 60}])
def test_each_chunk_of_an_imap_has_its_own_end(pool, call, options):
    deadly = {0, 1, 63, 64, 130, 299}
    results = getattr(pool, call)(functools.partial(die_or_square, deadly), [*range(300)], **options)
    values, lost = [], []
    while True:
        try:
            values.append(next(results))
        except mp.WorkerDied as error:
            lost.append(error.items)
        except StopIteration:
            break
    assert sorted(values) == [x * x for x in range(300) if x not in deadly]
    assert sorted(item for items in lost for item in items) == sorted(deadly)


def test_what_an_iterator_raises_comes_after_the_results(pool):
    def numbers():
        yield from range(5)
        raise KeyError("iterator")

    results = pool.imap(square, numbers(), buffersize=300)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(KeyError, match="iterator"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("call", IMAPS)
@pytest.mark.parametrize("make", [lambda: range(2**64), itertools.count], ids=["range", "count"])
def test_an_input_without_end_ends_with_its_pool(call, make):
    before = threading.active_count()
    with mp.get_context("fork").Pool(2) as pool:
        results = getattr(pool, call)(square, make())
        assert len({next(results) for _ in range(3000)}) == 3000
        assert threading.active_count() == before + 1
    for _ in range(3):
        with pytest.raises(mp.PoolBroken):
            while True:
                next(results)
    end = time.monotonic() + WITHIN
    while threading.active_count() > before:
        assert time.monotonic() < end
        os.sched_yield()


def test_an_imap_over_more_than_can_be_counted(pool):
    assert [value for value, _ in zip(pool.imap(square, range(2**64)), range(3))] == [0, 1, 4]


def test_ctrl_c_in_the_iterator_of_an_imap_does_not_wait_for_results(pool, tmp_path):
    """Nothing else would end the wait: the first task never ends."""

    def items():
        yield 0
        signal.raise_signal(signal.SIGINT)  # its handler raises here, before the next item
        yield 1

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            next(pool.imap(pause, items(), buffersize=2))
    finally:
        signal.signal(signal.SIGINT, before)


def pause(x):
    signal.pause()
