# SPDX-License-Identifier: MIT
"""A Python program that starts another one, in C or Python, and shares two queues with it.

    host.py WORKER [ARGUMENT]...      the worker's command: worker, built from worker.c, or python worker.py

A worker that is killed costs nothing but time: what it had taken is asked for again, all else is in the queues.
"""
import contextlib
import queue
import struct
import subprocess
import sys

import brood as mp

NUMBER, ANSWER = struct.Struct("q"), struct.Struct("qq")  # as C lays them out
NUMBERS = range(1, 1001)
LOOK_AFTER = 0.1


def start(command, *queues):
    """Start the worker: what it needs to know are a few numbers, and the arena's descriptor."""
    ticket = mp.arena_ticket()
    numbers = *ticket, *(each.handle for each in queues)
    return subprocess.Popen([*command, *map(str, numbers)], pass_fds=[ticket.fd])


def ask(asked, numbers):
    """Let nothing but these numbers be asked for."""
    with contextlib.suppress(queue.Empty):
        while True:
            asked.get_bytes(block=False)
    for number in numbers:
        asked.put_bytes(NUMBER.pack(number))


def collect(command, numbers):
    """Return the answer for each number."""
    asked, answers, steps = mp.Queue(), mp.Queue(), {}
    ask(asked, numbers)
    worker = start(command, asked, answers)
    while len(steps) < len(numbers):
        try:
            steps.update([ANSWER.unpack(answers.get_bytes(timeout=LOOK_AFTER))])
        except queue.Empty:
            status = worker.poll()
            if status is None:
                continue
            if status >= 0:
                raise RuntimeError(f"the worker ended with status {status}") from None
            ask(asked, [number for number in numbers if number not in steps])
            worker = start(command, asked, answers)
    asked.put_bytes(b"")
    worker.wait()
    return steps


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    steps = collect(sys.argv[1:], NUMBERS)
    most = max(steps, key=steps.get)
    print(f"{len(steps)} numbers; {most} needs the most steps, {steps[most]}")
