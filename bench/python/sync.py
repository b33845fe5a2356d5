# SPDX-License-Identifier: MIT
"""What Lock, Semaphore, Event and the increment of a Value cost: by one process alone, and by two at once."""
import importlib
import multiprocessing
import time

import pools
import sample

COUNT = 100_000
BATCHES = 50  # short ones, most of which nobody interrupts
SUBJECTS = ("brood", "multiprocessing")


def lock(context):
    guard = context.Lock()

    def pairs(n):
        for _ in range(n):
            guard.acquire()
            guard.release()
    return pairs, lambda n: sample.check(guard.acquire(False), "the lock is not free")


def with_lock(context):
    guard = context.Lock()

    def pairs(n):
        for _ in range(n):
            with guard:
                pass
    return pairs, lambda n: sample.check(guard.acquire(False), "the lock is not free")


def semaphore(context):
    tokens = context.Semaphore(1)

    def pairs(n):
        for _ in range(n):
            tokens.acquire()
            tokens.release()
    return pairs, lambda n: sample.check(tokens.get_value() == 1, "the semaphore has not its token")


def event(context):
    flag = context.Event()

    def pairs(n):
        for _ in range(n):
            flag.set()
            flag.is_set()
            flag.clear()
    return pairs, lambda n: sample.check(not flag.is_set(), "the event is set")


def value(context):
    number = context.Value("q", 0)

    def pairs(n):
        for _ in range(n):
            with number.get_lock():
                number.value += 1
    return pairs, lambda n: sample.check(number.value == n, f"{number.value} of {n} increments")


KINDS = {"Lock": lock, "with": with_lock, "Semaphore": semaphore, "Event": event, "Value": value}


def _alone(make, context, n):
    operate, verify = make(context)
    size = n // BATCHES
    value, facts = sample.in_batches(BATCHES, size, lambda: operate(size))
    verify(size * BATCHES)
    return sample.result(value * 1e9, "ns", **facts)


def _player(operate, n, line, report):
    line.wait()
    began = time.monotonic()
    operate(n)
    report.send((began, time.monotonic()))  # there is room for it in the pipe


def _contended(make, context, n):
    """Two processes do the same at once; the value is for each operation of all of them."""
    operate, verify = make(context)
    line, players, began, ended = multiprocessing.Barrier(2), [], [], []
    with sample.Stopwatch(2 * n, children=True) as watch:
        for _ in range(2):
            ours, theirs = multiprocessing.Pipe(False)
            players.append((ours, context.Process(target=_player, args=(operate, n, line, theirs))))
            players[-1][1].start()
        for ours, process in players:
            process.join()
            first, last = ours.recv()
            began.append(first)
            ended.append(last)
    verify(2 * n)
    return sample.result((max(ended) - min(began)) / (2 * n) * 1e9, "ns", **watch.facts())


def _answer(ping, pong, n):
    for _ in range(n):
        ping.wait()
        ping.clear()
        pong.set()


def _ping_pong(context, n):
    """Event between two processes: there and back."""
    ping, pong, seconds = context.Event(), context.Event(), []
    other = multiprocessing.Process(target=_answer, args=(ping, pong, n))
    other.start()
    with sample.Stopwatch(n) as watch:
        for _ in range(n):
            began = time.perf_counter()
            ping.set()
            pong.wait()
            pong.clear()
            seconds.append(time.perf_counter() - began)
    other.join()
    sample.check(other.exitcode == 0 and not ping.is_set(), "of a ping-pong")
    return sample.result(watch.seconds / n * 1e9, "ns", **watch.facts(), **sample.percentiles(seconds))


def measure(subject, variant, is_quick):
    kind, _, how = variant.partition("-")
    context, n = importlib.import_module(subject), COUNT // (4 if is_quick else 1)
    if how == "ping-pong":
        return _ping_pong(context, n // 10)
    return (_alone if how == "alone" else _contended)(KINDS[kind], context, n)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    ways = [f"{kind}-{how}" for kind in KINDS for how in ("alone", "contended")] + ["Event-ping-pong"]
    sample.main({name: pools.version(name) for name in SUBJECTS}, {way: list(SUBJECTS) for way in ways}, measure)
