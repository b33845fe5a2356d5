# SPDX-License-Identifier: MIT
"""The part "pools": every call of a pool, of tasks that end in any way, while a thread kills and stops workers and their supervisor."""
import contextlib
import os
import signal
import threading
import time

import brood as mp
import tasks
from common import ROUND_SECONDS, WITHIN, complain, expect, files_of, parent_of, signalled, stopping
from concurrent.futures import CancelledError

SUPERVISORS_MOST = 6  # a pool that needs too many of them is broken
IDLE_IN_A_ROW = 2


class Killer(threading.Thread):
    """Kills and stops, until it is told to go."""

    def __init__(self, play):
        super().__init__(daemon=True)
        self.play = play
        self.random = play.random_of()
        self.killed = self.supervisors = self.idle = 0
        self.may_go = threading.Event()

    def run(self):
        while not self.may_go.wait(0.002 + self.random.random() * 0.02):
            deed = self.random.choices([self.kill_worker, self.stop_worker, self.stop_supervisor, self.kill_supervisor],
                                       [20, 6, 1, 1])[0]
            deed()

    def some_worker(self):
        """The pid of a worker; it may be gone."""
        return self.play.pool._pool[self.random.randrange(self.play.workers)].pid or 0

    def may_kill(self, pid):
        """Not too many in a row that have done nothing yet: a pool whose workers die at once is broken, and rightly so."""
        cell = tasks.cell_of(pid)
        if self.play.books.cells[cell]:
            self.play.books.cells[cell] = self.idle = 0
        elif self.idle >= IDLE_IN_A_ROW or self.random.random() > 0.2:
            return False
        else:
            self.idle += 1
        return True

    def kill_worker(self):
        pid = self.some_worker()
        if pid and parent_of(pid) != 0 and self.may_kill(pid):
            self.killed += 1
            if signalled(pid, signal.SIGKILL):
                self.play.books.note("kill-worker")

    def stop_worker(self):
        pid = self.some_worker()
        if pid and stopping(pid, self.random.random() * 0.03).wait() == 0:
            self.play.books.note("stop-worker")

    def supervisor(self):
        """The parent of a worker, if that is not this process."""
        parent = parent_of(self.some_worker())
        return parent if parent not in (0, 1, os.getpid()) else 0

    def stop_supervisor(self):
        pid = self.supervisor()
        if pid and stopping(pid, self.random.random() * 0.03).wait() == 0:
            self.play.books.note("stop-supervisor")

    def kill_supervisor(self):
        pid = self.supervisor()
        if not pid or self.supervisors >= SUPERVISORS_MOST or not self.play.kills_supervisors:
            return
        self.supervisors += 1
        self.killed += self.play.workers
        if signalled(pid, signal.SIGKILL):
            self.play.books.note("kill-supervisor")


class Play:
    """One round."""

    def __init__(self, context, random, books):
        self.context, self.random, self.books = context, random, books
        self.judge = tasks.Judge(books)
        self.number = 0
        self.workers = random.randint(1, 4)
        self.kills_supervisors = random.random() < 0.5
        self.limits = tasks.LIMITS if random.random() < 0.35 else {}
        self.is_armed = False
        self.calls = 0

    def random_of(self):
        """A random stream of somebody else's."""
        return type(self.random)(self.random.random())

    # ---- batches ----

    def errand(self, *kinds):
        """Mostly work."""
        kind = self.random.random()
        if kind < 0.04 and "deadly" in kinds:
            return self.random.choice(list(tasks.DEADLY_ANYWHERE)) if kind < 0.0395 or not self.limits else "limit-cpu"
        if 0.04 <= kind < 0.07 and "failing" in kinds:
            return self.random.choice(list(tasks.FAILING if self.limits else tasks.FAILING_ANYWHERE))
        many = 5 if "failing" in kinds else 4
        return self.random.choices(tasks.HARMLESS[:many], [20, 10, 2, 1, 1][:many])[0]

    def batch(self, most, *kinds):
        """New tasks."""
        count = self.random.randint(1, most)
        first, self.number = self.number, self.number + count
        return [(number, self.errand(*kinds)) for number in range(first, first + count)]

    def settle(self, task, get):
        """Take the outcome of one task and judge it."""
        try:
            value = get()
        except mp.TimeoutError:
            complain(f"{task} has no outcome after {WITHIN} s")
        except BaseException as error:
            self.judge.error(task, error)
        else:
            self.judge.value(task, value)

    # ---- calls ----

    def play_apply(self):
        for task in self.batch(20, "deadly", "failing"):
            self.settle(task, lambda task=task: self.pool.apply_async(tasks.run_two, task).get(WITHIN))

    def play_apply_async(self):
        batch, called = self.batch(60, "deadly", "failing"), []
        results = [self.pool.apply_async(tasks.run, (task,), callback=called.append, error_callback=called.append)
                   for task in batch]
        for task, result in zip(batch, results):
            self.settle(task, lambda result=result: result.get(WITHIN))
        expect(len(called) == len(batch), f"{len(called)} callbacks were called for {len(batch)} tasks")

    def play_imap(self):
        batch = self.batch(150, "deadly", "failing")
        buffersize = self.random.choice([None, 2, 10])
        results = self.pool.imap(tasks.run, iter(batch), buffersize=buffersize)
        stop_at = self.random.randrange(len(batch)) if self.random.random() < 0.2 else len(batch)
        for task in batch[:stop_at]:
            self.settle(task, lambda: results.next(WITHIN))
        if stop_at == len(batch):
            with contextlib.suppress(StopIteration):
                complain(f"a stream gives one more: {results.next(WITHIN)!r:.60}")

    def play_imap_unordered(self):
        batch = self.batch(150, "deadly")
        results, left = self.pool.imap_unordered(tasks.run, batch), {tasks.value_of(*task): task for task in batch}
        for _ in batch:
            try:
                value = results.next(WITHIN)
                self.judge.value(left.pop(value), value)
            except mp.WorkerDied as error:
                task = left.pop(tasks.value_of(*batch[error.index]))
                self.judge.error(task, error)
            except Exception as error:
                complain(f"imap_unordered: {error!r:.200}")
        expect(not left, f"imap_unordered has no outcome for {list(left.values())[:5]}")

    def play_map(self):
        batch = self.batch(200, "deadly" if self.random.random() < 0.3 else "", "failing" if self.random.random() < 0.3 else "")
        call = self.pool.map_async if self.random.random() < 0.5 else self.pool.starmap_async
        function = tasks.run if call == self.pool.map_async else tasks.run_two
        self.settle_map(batch, call(function, batch, self.random.choice([None, 1, 7])))

    def settle_map(self, batch, result):
        try:
            values = result.get(WITHIN)
        except mp.WorkerDied as error:
            self.judge.death([batch[index] for index in error.items], error)
        except mp.TimeoutError:
            complain(f"a map of {len(batch)} has no outcome after {WITHIN} s")
        except BaseException as error:
            kinds = {tasks.FAILING.get(errand, ValueError) for _, errand in batch if errand in tasks.FAILING or errand == "fail"}
            expect(isinstance(error, tuple(kinds)), f"a map raised {error!r:.200}")
        else:
            for task, value in zip(batch, values, strict=True):
                self.judge.value(task, value)
        for task in batch:
            self.judge.begun(task)

    def play_cancel(self):
        batch = self.batch(300)
        result = self.pool.map_async(tasks.run, batch, 3)
        result.cancel()
        self.books.note("cancel")
        with contextlib.suppress(CancelledError, mp.WorkerDied):
            result.get(WITHIN)
        expect(result.ready(), "a cancelled map is not ready")

    def play_ends(self):
        """Time-outs, per task and for the whole, retries, cancelling of what runs: each task has one outcome all the same."""
        retries = self.random.choice([0, 1, 2])
        batch = self.batch(60, "deadly", "failing")
        for place in self.random.sample(range(len(batch)), min(2, len(batch))):
            batch[place] = (batch[place][0], "hang")
        way = self.random.choice(["late-item", "late-whole", "cancel-running"])
        result = self.pool.map_async(tasks.run, batch, 1, retries=retries, timeout=0.15 if way == "late-item" else None,
                                     total_timeout=0.3 if way == "late-whole" else None)
        if way == "cancel-running":
            result.wait(0.2)
            result.cancel(running=True)
            self.books.note(way)
        try:
            outcomes = result.get(WITHIN, return_exceptions=True)
        except mp.TimeoutError:
            complain(f"a map of {len(batch)} with {way} has no outcome after {WITHIN} s")
            return
        for task, found in zip(batch, outcomes, strict=True):
            self.judge_ended(task, found, way, retries)

    def judge_ended(self, task, found, way, retries):
        """One outcome of a map that may end before it is done."""
        if isinstance(found, mp.TaskTimeout if way != "cancel-running" else CancelledError):
            self.judge.begun(task, 1 + retries)
            if way == "late-item":
                self.books.note(way)
            elif way == "late-whole" and task[1] == "hang":
                self.books.note(way)
        elif isinstance(found, BaseException):
            self.judge.error(task, found, retries)
        else:
            self.judge.value(task, found, retries)

    def play_interrupt(self):
        """As a terminal does: SIGINT to all."""
        batch = self.batch(2000)
        result = self.pool.map_async(tasks.run, batch, 1)
        self.is_armed = True
        try:
            os.killpg(os.getpgrp(), signal.SIGINT)
            result.get(WITHIN)
            complain("Ctrl-C did not interrupt the owner")
        except KeyboardInterrupt:
            self.books.note("ctrl-c")
        except mp.WorkerDied:
            complain("a KeyboardInterrupt of the owner's was held back")
        finally:
            self.is_armed = False
        self.settle_map(batch, result)

    def interrupted(self, *unused):
        if self.is_armed:
            self.is_armed = False
            raise KeyboardInterrupt

    # ---- the round ----

    def end(self):
        """Close or terminate, with something still to do."""
        batch = self.batch(300)
        result = self.pool.map_async(tasks.run, batch, 2)
        if self.random.random() < 0.5:
            self.pool.close()
            self.pool.join()
            self.settle_map(batch, result)
            return
        self.pool.terminate()
        self.pool.join()
        self.books.note("terminate")
        with contextlib.suppress(mp.PoolBroken, CancelledError, mp.WorkerDied):
            result.get(WITHIN)
        expect(result.ready(), "a map is not ready after terminate")

    def look_for_files(self):
        for pid in [os.getpid(), *(worker.pid for worker in self.pool._pool)]:
            expect(not files_of(pid), f"process {pid} has named files: {files_of(pid)}")

    def run(self):
        signal.signal(signal.SIGINT, self.interrupted)
        self.pool = self.context.Pool(self.workers, maxtasksperchild=self.random.choice([None, None, 10]),
                                      grace=0.03, **self.limits)
        self.look_for_files()
        killer = Killer(self)
        killer.start()
        end = time.monotonic() + ROUND_SECONDS
        while time.monotonic() < end:
            plays = (self.play_apply, self.play_apply_async, self.play_imap, self.play_imap_unordered, self.play_map,
                     self.play_map, self.play_cancel, self.play_interrupt, self.play_ends)
            self.random.choices(plays, [4, 4, 4, 4, 4, 4, 1, 1, 2])[0]()
        killer.may_go.set()
        killer.join()
        self.end()
        expect(self.judge.died <= killer.killed, f"{self.judge.died} tasks died that were not told to, {killer.killed} workers were killed")


def play(context, random, books):
    """One round of pools."""
    Play(context, random, books).run()
