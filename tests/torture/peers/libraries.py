# SPDX-License-Identifier: MIT
"""The libraries that are compared, behind one small face: submit(function, *args) → get(timeout), and what else their own calls offer."""
import concurrent.futures
import select


def pause(seconds):
    """What a task's work stands for."""
    select.select((), (), (), seconds)


class Multiprocessing:
    """multiprocessing.Pool."""

    shown, package, module = "multiprocessing.Pool", None, "multiprocessing"

    def __init__(self, workers, initializer=None):
        import multiprocessing
        self.pool = multiprocessing.Pool(workers, initializer)

    def submit(self, function, *args):
        return self.pool.apply_async(function, args).get

    def map(self, function, items):
        return self.pool.map(function, items, 1)

    def close(self):
        self.pool.close()
        self.pool.join()


class Brood(Multiprocessing):
    """brood.Pool: the same calls."""

    shown, package, module = "brood", None, "brood"

    def __init__(self, workers, initializer=None):
        import brood
        self.pool = brood.Pool(workers, initializer)

    def submit_limited(self, seconds, function, *args):
        return self.pool.apply_async(function, args, timeout=seconds).get


class Futures:
    """concurrent.futures.ProcessPoolExecutor."""

    shown, package, module = "ProcessPoolExecutor", None, "multiprocessing"

    def __init__(self, workers, initializer=None):
        self.pool = self.make(workers, initializer)

    @staticmethod
    def make(workers, initializer):
        return concurrent.futures.ProcessPoolExecutor(workers, initializer=initializer)

    def submit(self, function, *args):
        return self.pool.submit(function, *args).result

    def map(self, function, items):
        return list(self.pool.map(function, items))

    def close(self):
        self.pool.shutdown()


class Loky(Futures):
    """loky's reusable executor."""

    shown, package = "loky", "loky"

    @staticmethod
    def make(workers, initializer):
        import loky
        return loky.get_reusable_executor(workers, initializer=initializer)

    def submit(self, function, *args):
        try:
            return self.pool.submit(function, *args).result
        except self.broken():
            self.pool = self.make(2, None)  # as its documentation has it: the next executor is a new one
            return self.pool.submit(function, *args).result

    @staticmethod
    def broken():
        import loky.process_executor
        return loky.process_executor.BrokenProcessPool


class Pebble(Futures):
    """pebble.ProcessPool."""

    shown, package = "pebble", "Pebble"

    @staticmethod
    def make(workers, initializer):
        import pebble
        return pebble.ProcessPool(workers, initializer=initializer)

    def submit(self, function, *args):
        return self.pool.schedule(function, args=args).result

    def submit_limited(self, seconds, function, *args):
        return self.pool.schedule(function, args=args, timeout=seconds).result

    def map(self, function, items):
        return list(self.pool.map(function, items).result())

    def close(self):
        self.pool.close()
        self.pool.join()


class Mpire:
    """mpire.WorkerPool."""

    shown, package, module = "mpire", "mpire", "multiprocessing"

    def __init__(self, workers, initializer=None):
        import mpire
        self.pool = mpire.WorkerPool(workers)
        self.initializer = initializer

    def submit(self, function, *args):
        return self.pool.apply_async(function, args, worker_init=self.initializer).get

    def submit_limited(self, seconds, function, *args):
        return self.pool.apply_async(function, args, task_timeout=seconds).get

    def map(self, function, items):
        return self.pool.map(function, items, chunk_size=1)

    def close(self):
        self.pool.stop_and_join()


LIBRARIES = {kind.__name__.lower(): kind for kind in (Brood, Multiprocessing, Futures, Loky, Pebble, Mpire)}
