# SPDX-License-Identifier: MIT
"""A Python program that shares two queues with the program that started it, host.c or host.py: what worker.c is in C.

    worker.py FD BASE WINDOW_BYTES ASKED ANSWERS      the arena's ticket, and the handles of the queues
"""
import os
import queue
import struct
import sys

import brood as mp

NUMBER, ANSWER = struct.Struct("q"), struct.Struct("qq")  # as C lays them out
LOOK_AFTER = 1.0


def steps_of(number):
    """How many Collatz steps it is from the number down to 1."""
    steps = 0
    while number > 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return steps


def numbers_of(asked):
    """What is asked for, until a message of no bytes comes or the host has died, which nobody else would tell."""
    host = os.getppid()
    while True:
        try:
            message = asked.get_bytes(timeout=LOOK_AFTER)
        except queue.Empty:
            if os.getppid() != host:
                return
            continue
        if not message:
            return
        yield NUMBER.unpack(message)[0]


def main():
    """Join the arena, then work."""
    fd, base, window_bytes, asked, answers = map(int, sys.argv[1:])
    mp.attach(fd, base, window_bytes)
    asked, answers = mp.queues.Queue.from_handle(asked), mp.queues.Queue.from_handle(answers)
    for number in numbers_of(asked):
        answers.put_bytes(ANSWER.pack(number, steps_of(number)))


if __name__ == "__main__":
    main()
