# SPDX-License-Identifier: MIT
"""Processes that are killed, stopped and replaced: what the parts "queues" and "locks" share.

A seat is a place for one process at a time; its player notes in the seat's cells what it has done.
"""
import os
import signal
import time

from common import ROUND_SECONDS, WITHIN, complain, pause, stopping

STOPPED_MOST = 0.03


class Seats:
    """So many seats; target(seat, life, seed) is the life of the process in one."""

    def __init__(self, context, random, target, arguments, count):
        self.context, self.random, self.target, self.arguments = context, random, target, arguments
        self.processes = [None] * count
        self.life = 0
        for seat in range(count):
            self.fill(seat)

    def fill(self, seat):
        """Start a process in a seat that is empty."""
        self.processes[seat] = self.context.Process(
            target=self.target, args=(seat, self.life, self.random.randrange(2**32), *self.arguments), daemon=True)
        self.life += 1
        self.processes[seat].start()

    def end(self, seat, killed):
        """Wait for the end of a process; how it ended has to be right."""
        process = self.processes[seat]
        process.join(WITHIN)
        if process.exitcode is None:
            complain(f"the process in seat {seat} does not end: {wchan(process.pid)}")
            os.kill(process.pid, signal.SIGUSR1)
            pause(1)
            process.kill()
            process.join()
        elif process.exitcode != 0 and not (killed and process.exitcode == -signal.SIGKILL):
            complain(f"the process in seat {seat} ended with {process.exitcode}")
        process.close()
        self.processes[seat] = None

    def kill(self, seat):
        """SIGKILL; returns when it has ended."""
        self.processes[seat].kill()
        self.end(seat, True)

    def stop(self, seat):
        """SIGSTOP, and SIGCONT a little later; returns who does that, to be waited for."""
        return stopping(self.processes[seat].pid, self.random.random() * STOPPED_MOST)

    def hammer(self, strike):
        """Call strike() now and then until the round is over."""
        end = time.monotonic() + ROUND_SECONDS
        while time.monotonic() < end:
            pause(0.002 + self.random.random() * 0.02)
            strike()


def wchan(pid):
    """Where in the kernel a process waits."""
    try:
        with open(f"/proc/{pid}/wchan", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return "gone"
