# SPDX-License-Identifier: MIT
"""The part "queues": what was put is taken once, in its producer's order, though producers and consumers are killed in the middle.

Cells of a life: how many messages it has begun to put, and has put.  A cell per message: how often it was taken.  Cells of a seat: takes that
may lack a note: 1 while its process is in get.
"""
import queue
import random

from common import expect, open_books, pause
from players import Seats

CONSUMERS = PRODUCERS = 3
LIVES, MESSAGES = 512, 1024  # per round, per life
BEGUN, PUT, UNSURE, TAKEN = 0, LIVES, 2 * LIVES, 4 * LIVES
LONG = 40_000


def payload(life, number):
    """What a message carries: mostly little."""
    size = LONG if number % 50 == 0 else number % 40
    return bytes([(life + number) % 256]) * size


def take(books, seat, last, get):
    """Get one message and note it."""
    cells = books.cells
    cells[UNSURE + seat] = 1
    try:
        message = get()
    except queue.Empty:
        cells[UNSURE + seat] = 0
        return True
    if message is not None:
        life, number, text = message
        cells[TAKEN + life * MESSAGES + number] += 1
        expect(cells[TAKEN + life * MESSAGES + number] == 1, f"message {number} of {life} is taken twice")
        expect(text == payload(life, number), f"message {number} of {life} is not whole")
        expect(last.get(life, -1) < number, f"message {number} of {life} comes after {last.get(life)}")
        last[life] = number
    cells[UNSURE + seat] = 0
    return message is not None


def consume(seat, life, seed, shared):
    """Until it is told to leave, by None."""
    books, dice, last = open_books(), random.Random(seed), {}
    gets = [shared.get] if not hasattr(shared, "get_nowait") else [
        shared.get, shared.get_nowait, lambda: shared.get(timeout=dice.random() / 100)]
    while take(books, seat, last, dice.choice(gets)):
        if dice.random() < 0.01:
            pause(dice.random() / 1000)


def produce(seat, life, seed, shared, stop):
    """Until all is put, or the round is over."""
    cells, dice = open_books().cells, random.Random(seed)
    for number in range(MESSAGES):
        if stop.is_set():
            break
        cells[BEGUN + life] = number + 1
        shared.put((life, number, payload(life, number)))
        cells[PUT + life] = number + 1
        if dice.random() < 0.2:
            pause(dice.random() / 500)


def play_seat(seat, life, seed, shared, stop):
    """Consumers sit in the first seats."""
    if seat < CONSUMERS:
        consume(seat, life, seed, shared)
    else:
        produce(seat, life, seed, shared, stop)


class Play:
    """One round."""

    def __init__(self, context, random, books):
        self.random, self.books = random, books
        make = random.choice([context.Queue, lambda: context.Queue(20), context.SimpleQueue, context.JoinableQueue])
        self.shared, self.stop = make(), context.Event()
        self.seats = Seats(context, random, play_seat, (self.shared, self.stop), CONSUMERS + PRODUCERS)
        self.unsure = 0
        self.stoppers = []

    def replace(self, seat, killed):
        self.unsure += self.books.cells[UNSURE + seat]
        self.books.cells[UNSURE + seat] = 0
        if killed:
            self.books.note("kill-consumer" if seat < CONSUMERS else "kill-producer")
        if self.seats.life < LIVES:
            self.seats.fill(seat)

    def strike(self):
        for seat, process in enumerate(self.seats.processes):
            if process is not None and process.exitcode is not None:  # a producer that has put all
                self.seats.end(seat, False)
                self.replace(seat, False)
        seat = self.random.randrange(CONSUMERS + PRODUCERS)
        if self.seats.processes[seat] is None:
            return
        if self.random.random() < 0.25:
            self.stoppers.append(self.seats.stop(seat))
            self.books.note("stop-player")
        elif self.seats.processes[seat].exitcode is None:
            self.seats.kill(seat)
            self.replace(seat, True)

    def drain(self):
        last = {}
        while not self.shared.empty():
            take(self.books, CONSUMERS + PRODUCERS, last, self.shared.get)

    def check(self):
        cells, missing, taken = self.books.cells, 0, 0
        for life in range(self.seats.life):
            row = cells[TAKEN + life * MESSAGES: TAKEN + (life + 1) * MESSAGES].tolist()
            put, begun = cells[PUT + life], cells[BEGUN + life]
            expect(not any(row[begun:]), f"a message of {life} was taken that was never put")
            committed = max(put, *(number + 1 for number, times in enumerate(row) if times), 0)
            missing += row[:committed].count(0)
            taken += sum(row)
        expect(missing <= self.unsure, f"{missing} messages were lost, the dead may have taken {self.unsure}")
        self.books.note("messages", taken)

    def run(self):
        self.seats.hammer(self.strike)
        for stopper in self.stoppers:
            stopper.wait()
        self.stop.set()
        for seat in range(CONSUMERS, CONSUMERS + PRODUCERS):
            if self.seats.processes[seat] is not None:
                self.seats.end(seat, False)
        for _ in range(CONSUMERS):
            self.shared.put(None)
        for seat in range(CONSUMERS):
            if self.seats.processes[seat] is not None:
                self.seats.end(seat, False)
        self.drain()
        self.check()


def play(context, random, books):
    """One round of queues."""
    Play(context, random, books).run()
