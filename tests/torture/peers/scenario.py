# SPDX-License-Identifier: MIT
"""One fault for one library: scenario.py LIBRARY FAULT.  Prints what it saw, a line of JSON at each step, so that a hang leaves the last one."""
import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time

from libraries import LIBRARIES, pause

TASKS, VICTIM, NAP = 12, 4, 0.02
PATIENCE = 5  # seconds, for all results together
LONG = 1 << 20


class Awkward(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one, two):
        super().__init__(one)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def no_unpickle():
    raise Awkward(1, 2)


DEEDS = {
    "killed": kill_self,
    "segfault": lambda: ctypes.string_at(0),
    "_exit": lambda: os._exit(5),
    "sys.exit": lambda: sys.exit(3),
    "no-pickle": lambda: (n for n in range(3)),
    "no-unpickle": no_unpickle,
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
}


def work(number, fault=None):
    pause(NAP)
    return DEEDS[fault]() if fault is not None and number == VICTIM else number * number


def whoami(number):
    pause(NAP)
    return os.getpid()


def hang(number):
    while True:
        pause(1)


def say(**facts):
    os.write(1, (json.dumps(facts) + "\n").encode())


def outcome(get, end):
    """What a result comes to until then: ("value", v), ("error", type's name) or ("none", "")."""
    box = []

    def ask():
        try:
            box.append(("value", get(max(0.05, end - time.monotonic()))))
        except BaseException as error:
            box.append(("none", "") if type(error).__name__ == "TimeoutError" and time.monotonic() >= end - 0.01
                       else ("error", type(error).__name__))

    asker = threading.Thread(target=ask, daemon=True)  # a call that ignores its time-out is a hang too
    asker.start()
    asker.join(max(0.1, end - time.monotonic() + 0.5))
    return box[0] if box else ("none", "")


def submit(pool, function, *args):
    """A call that raises at once is an outcome as well."""
    try:
        return pool.submit(function, *args)
    except BaseException as error:
        caught = error

        def get(timeout):
            raise caught
        return get


def ask_again(pool):
    """Does the pool still work?"""
    kind, value = outcome(submit(pool, work, 7), time.monotonic() + PATIENCE)
    say(again="works" if (kind, value) == ("value", 49) else "hangs" if kind == "none" else f"fails ({value})")


def close(pool):
    say(closing=True)
    pool.close()
    say(closed=True)


def run_tasks(pool, fault):
    gets = [submit(pool, work, number, fault) for number in range(TASKS)]
    end = time.monotonic() + PATIENCE
    found = [outcome(get, end) for get in gets]
    say(victim=found[VICTIM] if fault is not None else None,
        right=sum(found[n] == ("value", n * n) for n in range(TASKS) if n != VICTIM or fault is None),
        lost=sum(kind == "none" for kind, _ in found), of=TASKS - (fault is not None))
    ask_again(pool)
    close(pool)


def pids_of(pool):
    gets = [submit(pool, whoami, number) for number in range(8)]
    return sorted({get(PATIENCE) for get in gets})


# ---- faults ----


def in_a_task(kind, fault):
    run_tasks(kind(2), fault)


def idle_killed(kind, fault):
    pool = kind(2)
    os.kill(pids_of(pool)[0], signal.SIGKILL)
    pause(0.3)
    run_tasks(pool, None)


def stopped(kind, fault):
    """One of two workers is stopped: do the tasks that it does not have go on?"""
    pool = kind(2)
    pid = pids_of(pool)[0]
    os.kill(pid, signal.SIGSTOP)
    gets = [submit(pool, work, number) for number in range(TASKS)]
    end = time.monotonic() + 3
    found = [outcome(get, end) for get in gets]
    waiting = sum(kind == "none" for kind, _ in found)
    os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + PATIENCE
    late = [outcome(get, end)[0] for get, (kind, _) in zip(gets, found) if kind == "none"]
    say(waiting=waiting, after=late.count("value"), right=sum(kind == "value" for kind, _ in found), of=TASKS)
    close(pool)


def raise_at_start():
    raise ValueError("no")


def exit_at_start():
    os._exit(5)


def initializer(kind, fault):
    try:
        pool = kind(2, raise_at_start if fault == "initializer-raises" else exit_at_start)
        found = outcome(submit(pool, work, 3), time.monotonic() + PATIENCE)
    except Exception as error:
        say(start=["error", type(error).__name__], closed=True)
        return
    say(start=found)
    close(pool)


def owner_killed(kind, fault):
    pool = kind(2)
    pids_of(pool)
    gets = [submit(pool, hang, number) for number in range(2)]
    pause(0.3)
    say(ready=len(gets))
    os.kill(os.getpid(), signal.SIGKILL)


def ctrl_c(kind, fault):
    """SIGINT to all, as a terminal sends it, in the middle of a map; then the program closes its pool and ends."""
    pool = kind(2)
    threading.Timer(1, lambda: os.killpg(os.getpgrp(), signal.SIGINT)).start()
    begun = time.monotonic()
    try:
        pool.map(whoami, range(300))
        say(interrupted="no")
    except BaseException as error:
        say(interrupted=type(error).__name__, after=max(0, round(time.monotonic() - begun - 1, 1)))
    close(pool)


def late(kind, fault):
    pool = kind(2)
    if not hasattr(pool, "submit_limited"):
        say(unsupported=True, closed=True)
        os._exit(0)
    gets = [pool.submit_limited(0.5, hang, 0)] + [submit(pool, work, number) for number in range(TASKS)]
    end = time.monotonic() + PATIENCE
    found = [outcome(get, end) for get in gets]
    say(victim=found[0], right=sum(kind == "value" for kind, _ in found[1:]), lost=sum(kind == "none" for kind, _ in found), of=TASKS)
    ask_again(pool)
    close(pool)


def get_for_ever(queue):
    queue.get()


def put_long(queue):
    while True:
        queue.put(bytes(LONG))


def put_one(queue):
    queue.put("one")


def hold(lock, has_it):
    lock.acquire()
    has_it.set()
    pause(1000)


def start(module, function, *args):
    process = module.Process(target=function, args=args, daemon=True)
    process.start()
    return process


def consumer_killed(kind, fault):
    """It waits in get; then somebody else gets."""
    module = importlib.import_module(kind.module)
    queue = module.Queue()
    first = start(module, get_for_ever, queue)
    pause(0.5)
    first.kill()
    first.join()
    second = start(module, get_for_ever, queue)
    queue.put("two")
    second.join(PATIENCE)
    say(others="go on" if second.exitcode == 0 else "hang", closed=True)
    second.kill()


def producer_killed(kind, fault):
    """It is in the middle of a long message, the queue being full; then somebody else puts, and this one gets all."""
    module = importlib.import_module(kind.module)
    queue = module.Queue(3)
    first = start(module, put_long, queue)
    pause(0.5)
    first.kill()
    first.join()
    second = start(module, put_one, queue)
    got = []
    getter = threading.Thread(target=lambda: [got.append(queue.get()) for _ in iter(lambda: "one" in got, True)], daemon=True)
    getter.start()
    getter.join(PATIENCE)
    say(others="go on" if "one" in got else "hang", closed=True)
    second.kill()


def holder_killed(kind, fault):
    module = importlib.import_module(kind.module)
    lock, has_it = module.Lock(), module.Event()
    first = start(module, hold, lock, has_it)
    has_it.wait(PATIENCE)
    first.kill()
    first.join()
    say(others="go on" if lock.acquire(timeout=PATIENCE) else "hang", closed=True)


FAULTS = {
    "killed": in_a_task, "segfault": in_a_task, "_exit": in_a_task, "sys.exit": in_a_task, "interrupt": in_a_task,
    "no-pickle": in_a_task, "no-unpickle": in_a_task, "idle-killed": idle_killed, "stopped": stopped,
    "initializer-raises": initializer, "initializer-exits": initializer, "late": late, "ctrl-c": ctrl_c,
    "owner-killed": owner_killed, "consumer-killed": consumer_killed, "producer-killed": producer_killed,
    "holder-killed": holder_killed,
}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever started this ignores it
    FAULTS[sys.argv[2]](LIBRARIES[sys.argv[1]], sys.argv[2])
