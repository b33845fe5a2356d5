# SPDX-License-Identifier: MIT
"""The part "room": an arena that may not grow (a file size limit is its bound), processes that take all of it and give it back, and a pool
and a queue that go on beside them.

Whoever asks for memory may be told MemoryError, and then nothing has happened: a message is in the queue or not, a task has its value or says
why not; and at the end all of the room is there again.  Nobody may die of it.
"""
import gc
import os
import random
import resource
import signal
import time

import brood as mp
from brood import _core
from common import WITHIN, complain, expect, open_books, parent_of, pause, signalled
from players import Seats

HOGS = 2
ROOM = 8 << 20  # what the arena may grow by; more than the books have
PIECE_MOST = 1 << 20
FULL = 0  # in the books: how often each hog had taken all
REPLY = 100_000


def take_all(dice):
    """As many arrays as there is room for, each filled with a number of its own."""
    pieces = []
    while True:
        size, mark = 1 + dice.randrange(PIECE_MOST), dice.randrange(256)
        try:
            piece = mp.RawArray("B", size)
        except MemoryError:
            return pieces
        piece[:] = bytes([mark]) * size
        pieces.append((piece, size, mark))


def look_at(pieces):
    for piece, size, mark in pieces:
        expect(bytes(piece) == bytes([mark]) * size, f"an array of {size} bytes is not what was written")


def hog(seat, life, seed, stop):
    """Take, look at it, give back."""
    books, dice = open_books(), random.Random(seed)
    while not stop.is_set():
        pieces = take_all(dice)
        books.cells[FULL + seat] += 1
        pause(dice.random() / 10)
        look_at(pieces)
        del pieces
        pause(dice.random() / 100)


def reply(number):
    """A task: what it returns lies in the arena."""
    return number.to_bytes(4, "little") * (REPLY // 4)


class Play:
    """One round."""

    def __init__(self, context, random, books):
        self.context, self.random, self.books = context, random, books
        self.stop, self.queue = context.Event(), context.Queue()
        self.put = self.got = self.killed = self.died = 0
        self.stoppers = []

    def put_some(self):
        for _ in range(self.random.randrange(10)):
            try:
                self.queue.put((self.put, b"x" * self.random.randrange(200_000)))
                self.put += 1
            except MemoryError:
                self.books.note("no-room")

    def get_all(self):
        while self.got < self.put:
            number, _ = self.queue.get(timeout=WITHIN)
            expect(number == self.got, f"message {number} comes as number {self.got}")
            self.books.note("messages")
            self.got += 1

    def run_tasks(self):
        numbers = [self.random.randrange(2**32) for _ in range(self.random.randint(1, 12))]
        try:
            result = self.pool.map_async(reply, numbers, 1)
        except MemoryError:
            self.books.note("no-room")
            return
        for number, found in zip(numbers, result.get(WITHIN, return_exceptions=True), strict=True):
            self.books.note("tasks")
            if isinstance(found, mp.WorkerDied):
                self.died += 1
                expect(found.signal == signal.SIGKILL, f"{found}")
            elif isinstance(found, MemoryError):
                self.books.note("no-room")
            else:
                expect(found == reply(number), f"task {number} has a wrong outcome: {found!r:.80}")

    def strike(self):
        self.put_some()
        self.run_tasks()
        if self.random.random() < 0.5:
            self.get_all()
        if self.random.random() < 0.3:
            self.stoppers.append(self.seats.stop(self.random.randrange(HOGS)))
            self.books.note("stop-player")
        pid = self.pool._pool[self.random.randrange(2)].pid or 0
        if self.random.random() < 0.1 and parent_of(pid) not in (0, 1, os.getpid()) and signalled(pid, signal.SIGKILL):
            self.killed += 1
            self.books.note("kill-worker")

    def run(self):
        mp.RawArray("B", 1)  # so that the arena's file has a length
        limit = os.fstat(_core.arena_ticket()[0]).st_size + ROOM
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        self.pool = self.context.Pool(2)
        self.seats = Seats(self.context, self.random, hog, (self.stop,), HOGS)
        self.seats.hammer(self.strike)
        for stopper in self.stoppers:
            stopper.wait()
        self.stop.set()
        for seat in range(HOGS):
            self.seats.end(seat, False)
        self.get_all()
        expect(self.died <= self.killed, f"{self.died} tasks died, {self.killed} workers were killed")
        self.books.note("no-room", sum(self.books.cells[FULL: FULL + HOGS]))
        self.check_room()
        self.pool.close()
        self.pool.join()

    def check_room(self):
        """Most of it is free again, once jobs that were done are taken back."""
        end = time.monotonic() + WITHIN
        while True:
            gc.collect()
            self.pool.apply(reply, (1,))
            try:
                mp.RawArray("B", ROOM // 2)
                return
            except MemoryError as error:
                if time.monotonic() > end:
                    complain(f"the room is not there again: {error}: {_core.arena_stats()}")
                    return
            pause(0.01)


def play(context, random, books):
    """One round of a full arena."""
    Play(context, random, books).run()
