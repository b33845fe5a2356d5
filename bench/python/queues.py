# SPDX-License-Identifier: MIT
"""How many small objects go through a queue in a second: from p processes to c others, each of which only puts or only gets."""
import importlib
import multiprocessing
import time

import pools
import sample

BATCH = 256
VARIANTS = {"1-1": (1, 1), "4-1": (4, 1), "1-4": (1, 4)}
MESSAGES = {"brood": 200_000, "brood-many": 1_000_000, "multiprocessing": 60_000, "faster-fifo": 60_000, "faster-fifo-many": 400_000}


def message(number):
    return number, "a small object"


# ---- the two sides, as each library's users would write them ----


def put_each(channel, count):
    for number in range(count):
        channel.put(message(number))


def get_each(channel, count):
    total = 0
    for _ in range(count):
        total += channel.get()[0]
    return total


def put_faster(channel, count):
    """A full queue is an error of faster-fifo's by default, after 10 s; here it waits."""
    for number in range(count):
        channel.put(message(number), timeout=60)


def put_many(channel, count):
    for first in range(0, count, BATCH):
        channel.put_many([message(number) for number in range(first, min(first + BATCH, count))], timeout=60)


def get_many(channel, count):
    """Brood's: as many as are there, at least one."""
    total = 0
    while count:
        got = channel.get_many(min(BATCH, count), timeout=60)
        total += sum(number for number, _ in got)
        count -= len(got)
    return total


def get_many_faster(channel, count):
    total = 0
    while count:
        got = channel.get_many(max_messages_to_get=min(BATCH, count), timeout=60)
        total += sum(number for number, _ in got)
        count -= len(got)
    return total


def _brood():
    import brood
    return brood.Queue()


def _faster():
    import faster_fifo
    import faster_fifo_reduction  # noqa: F401
    return faster_fifo.Queue(1 << 22)


SUBJECTS = {
    "brood": (_brood, put_each, get_each),
    "brood-many": (_brood, put_many, get_many),
    "multiprocessing": (multiprocessing.Queue, put_each, get_each),
    "faster-fifo": (_faster, put_faster, get_each),
    "faster-fifo-many": (_faster, put_many, get_many_faster),
}


# ---- the race ----


def _put(put, channel, count, line, report):
    line.wait()
    report.send((time.monotonic(), 0.0, 0))
    put(channel, count)


def _get(get, channel, count, line, report):
    line.wait()
    total = get(channel, count)
    report.send((None, time.monotonic(), total))


def _run(subject, puts, gets, count):
    """Seconds from the first that starts to the last that has all; the standard library's barrier and pipes beside the queue, and its
    processes, but for brood, which has its own."""
    make, put, get = SUBJECTS[subject]
    context = importlib.import_module("brood" if subject.startswith("brood") else "multiprocessing").get_context("fork")
    channel, line = make(), multiprocessing.Barrier(puts + gets)
    started = []
    for target, function, n in [(_put, put, count // puts)] * puts + [(_get, get, count // gets)] * gets:
        ours, theirs = multiprocessing.Pipe(False)
        started.append((ours, context.Process(target=target, args=(function, channel, n, line, theirs))))
        started[-1][1].start()
    for _, process in started:  # there is room in the pipes for what they report
        process.join()
    reports = [ours.recv() for ours, _ in started]
    total = sum(report[2] for report in reports)
    sample.check(total == puts * sum(range(count // puts)), total)
    return max(report[1] for report in reports) - min(report[0] for report in reports if report[0] is not None)


def measure(subject, variant, is_quick):
    puts, gets = VARIANTS[variant]
    count = MESSAGES[subject] // (4 if is_quick else 1)
    with sample.Stopwatch(count, children=True) as watch:
        seconds = _run(subject, puts, gets, count)
    return sample.result(count / seconds, "msg/s", "more", **watch.facts())


def _versions():
    faster = pools.version("faster_fifo", "faster-fifo")
    return {name: faster if "faster" in name else pools.version(name.partition("-")[0]) for name in SUBJECTS}


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    sample.main(_versions(), {variant: list(SUBJECTS) for variant in VARIANTS}, measure)
