# SPDX-License-Identifier: MIT
"""A process that is stopped in the middle of an operation of the core holds up who needs what it has, and no other thread of theirs."""
import os
import signal
import threading
import time

import brood
import pytest
from support import child, killed

ROUNDS = 400
BLOCKED_S = 0.2  # so long without an operation: the thread waits for the one that is stopped
SAVED_AFTER_S = 10  # then it is woken by a process that needs no GIL of ours
STALLED_S = 5


def of_queue():
    queue = brood.SimpleQueue()

    def use():
        queue.put(b"x" * 300)
        queue.get()
    return use


def of_semaphore():
    semaphore = brood.Semaphore(5)

    def use():
        semaphore.acquire()
        semaphore.release()
    return use


def of_memory():
    return lambda: brood.RawValue("i")


def of_barrier():
    barrier = brood.Barrier(2)
    return lambda: barrier.n_waiting


class Thread(threading.Thread):
    """Uses it again and again, and counts."""

    def __init__(self, use):
        super().__init__(daemon=True)
        self.use, self.count, self.may_end = use, 0, False

    def run(self):
        while not self.may_end:
            self.use()
            self.count += 1


def hammer(use):
    while True:
        use()


def wake_later(pid):
    signal.sigtimedwait((), SAVED_AFTER_S)
    os.kill(pid, signal.SIGCONT)


def is_blocked(thread):
    """Whether the thread does nothing for a while.  This one must not stand still meanwhile."""
    count, begun = thread.count, time.monotonic()
    while thread.count == count and time.monotonic() < begun + BLOCKED_S:
        os.sched_yield()
    assert time.monotonic() < begun + STALLED_S, "no thread of this process ran"
    return thread.count == count


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])


@pytest.mark.parametrize("make", [of_queue, of_semaphore, of_memory, of_barrier])
def test_other_threads_go_on(make):
    use = make()
    other = child(lambda: hammer(use))
    thread = Thread(use)
    thread.start()
    blocked = rounds = 0
    try:
        while rounds < ROUNDS and blocked < 3:
            rounds += 1
            saver = child(lambda: wake_later(other))
            try:
                stop(other)
                blocked += is_blocked(thread)
            finally:
                os.kill(other, signal.SIGCONT)
                killed(saver)
    finally:
        thread.may_end = True
        killed(other)
    thread.join(30)
    assert not thread.is_alive()
    if blocked == 0:
        pytest.skip(f"in {ROUNDS} rounds it was never stopped while it held what the other needs")
