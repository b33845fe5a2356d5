# SPDX-License-Identifier: MIT
"""The part "locks": locks, semaphores, conditions, events, barriers and values among processes that are killed with what they hold.

Cells: for each lock the seat within (+ 1), a count that it protects, how often each seat has raised it, and who is in the middle of that; for each
semaphore a bit per holder.
"""
import random
import threading

from common import WITHIN, expect, open_books, pause
from players import Seats

SEATS = 5
LOCKS = 3
GUARD, COUNT, WITHIN_IT, DONE = 0, 8, 16, 64
HOLDS, OPERATIONS, TICKETS = 128, 192, 256
TOKENS = (1, 2, 3)


class Objects:
    """What the round plays with; travels to each player."""

    def __init__(self, context):
        self.locks = [context.Lock(), context.RLock(), context.Lock()]
        self.semaphores = [context.Semaphore(TOKENS[0]), context.BoundedSemaphore(TOKENS[1]), context.BoundedSemaphore(TOKENS[2])]
        self.condition, self.event, self.barrier = context.Condition(), context.Event(), context.Barrier(2)
        self.value = context.Value("q", 0)
        self.stop = context.Event()


class Player:
    """The process in a seat."""

    def __init__(self, seat, seed, objects):
        self.seat, self.dice, self.objects, self.cells = seat, random.Random(seed), objects, open_books().cells

    def dawdle(self):
        if self.dice.random() < 0.1:
            pause(self.dice.random() / 2000)

    def use_lock(self):
        index = self.dice.randrange(LOCKS)
        lock, cells = self.objects.locks[index], self.cells
        if not lock.acquire(timeout=self.dice.choice([None, None, 0.01])):
            return
        expect(cells[GUARD + index] == 0 or lock._semlock.owner_died,
               f"lock {index}: seat {self.seat} comes in while seat {cells[GUARD + index] - 1} is within")
        cells[GUARD + index] = self.seat + 1
        cells[WITHIN_IT + index * 8 + self.seat] = 1
        count = cells[COUNT + index]
        cells[DONE + index * 8 + self.seat] += 1
        self.dawdle()
        cells[COUNT + index] = count + 1
        cells[WITHIN_IT + index * 8 + self.seat] = 0
        cells[GUARD + index] = 0
        lock.release()

    def use_semaphore(self):
        index = self.dice.randrange(len(TOKENS))
        semaphore = self.objects.semaphores[index]
        if not semaphore.acquire(timeout=self.dice.choice([None, None, 0.01])):
            return
        self.cells[HOLDS + index * 8 + self.seat] = 1
        self.dawdle()
        self.cells[HOLDS + index * 8 + self.seat] = 0
        semaphore.release()

    def use_condition(self):
        """Gives a ticket, or waits for one."""
        with self.objects.condition:
            if self.dice.random() < 0.5:
                self.cells[TICKETS] += 1
                self.objects.condition.notify()
            elif self.objects.condition.wait_for(lambda: self.cells[TICKETS] > 0, 0.02):
                self.cells[TICKETS] -= 1

    def use_event(self):
        event = self.objects.event
        self.dice.choice([event.set, event.clear, lambda: event.wait(0.01), event.is_set])()

    def use_barrier(self):
        try:
            self.objects.barrier.wait(0.05)
        except threading.BrokenBarrierError:
            self.objects.barrier.reset()

    def use_value(self):
        with self.objects.value.get_lock():
            self.objects.value.value += 1

    def play(self):
        uses = (self.use_lock, self.use_semaphore, self.use_condition, self.use_event, self.use_barrier, self.use_value)
        while not self.objects.stop.is_set():
            self.dice.choices(uses, [6, 5, 2, 2, 1, 2])[0]()
            self.cells[OPERATIONS + self.seat] += 1


def play_seat(seat, life, seed, objects):
    """The life of the process in a seat."""
    Player(seat, seed, objects).play()


class Play:
    """One round."""

    def __init__(self, context, random, books):
        self.random, self.books, self.cells = random, books, books.cells
        self.objects = Objects(context)
        self.seats = Seats(context, random, play_seat, (self.objects,), SEATS)
        self.dead_within = [0] * LOCKS
        self.stoppers = []

    def was_holder(self, seat):
        holds = any(self.cells[HOLDS + index * 8 + seat] for index in range(len(TOKENS)))
        return holds or any(self.cells[GUARD + index] == seat + 1 for index in range(LOCKS))

    def settle(self, seat):
        for index in range(LOCKS):
            self.dead_within[index] += self.cells[WITHIN_IT + index * 8 + seat]
            self.cells[WITHIN_IT + index * 8 + seat] = 0
        for index in range(len(TOKENS)):
            self.cells[HOLDS + index * 8 + seat] = 0

    def choose(self):
        guard = self.cells[GUARD + self.random.randrange(LOCKS)]
        return guard - 1 if guard and self.random.random() < 0.5 else self.random.randrange(SEATS)

    def strike(self):
        seat = self.choose()
        if self.random.random() < 0.25:
            self.stoppers.append(self.seats.stop(seat))
            self.books.note("stop-player")
            return
        self.seats.kill(seat)
        self.books.note("kill-holder" if self.was_holder(seat) else "kill-player")
        self.settle(seat)
        self.seats.fill(seat)

    def check(self):
        for index in range(LOCKS):
            done = sum(self.cells[DONE + index * 8 + seat] for seat in range(SEATS))
            count, dead = self.cells[COUNT + index], self.dead_within[index]
            expect(count <= done <= count + dead, f"lock {index}: count is {count}, done {done} times, {dead} died within")
            expect(self.objects.locks[index].acquire(timeout=WITHIN), f"lock {index} is held by nobody who lives")
            self.objects.locks[index].release()
        for index, tokens in enumerate(TOKENS):
            for token in range(tokens):
                expect(self.objects.semaphores[index].acquire(timeout=WITHIN), f"semaphore {index} lacks token {token}")
            expect(not self.objects.semaphores[index].acquire(block=False), f"semaphore {index} has more than {tokens} tokens")
        self.books.note("operations", sum(self.cells[OPERATIONS: OPERATIONS + SEATS]))

    def run(self):
        self.seats.hammer(self.strike)
        for stopper in self.stoppers:
            stopper.wait()
        self.objects.stop.set()
        for seat in range(SEATS):
            self.seats.end(seat, False)
        self.check()


def play(context, random, books):
    """One round of locks."""
    Play(context, random, books).run()
