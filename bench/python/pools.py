# SPDX-License-Identifier: MIT
"""The pools that are compared: those of the fault campaign (tests/torture/peers), two more, and the calls that only speed is asked of.

    submit(function, *args) → get       map(function, items): one item per task
    call(function, *args): one call and its result, as the library has it: apply, or else submit and get
    by_default(function, items): the library's own map, with its own idea of how many items make a task
    unordered(function, items): an iterator over the results as they come, one item per task; where the library has that
"""
import importlib.metadata
import importlib.util
import pathlib
import platform
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests/torture/peers"))

import libraries  # noqa: E402

WORKERS = 2


class Multiprocessing(libraries.Multiprocessing):
    """multiprocessing.Pool."""

    def call(self, function, *args):
        return self.pool.apply(function, args)

    def by_default(self, function, items):
        return self.pool.map(function, items)

    def unordered(self, function, items):
        return self.pool.imap_unordered(function, items)


class Brood(libraries.Brood, Multiprocessing):
    """brood.Pool: the same calls."""


class Futures(libraries.Futures):
    """concurrent.futures.ProcessPoolExecutor; its map has one item per task by default."""

    def by_default(self, function, items):
        return self.map(function, items)


class Loky(libraries.Loky):
    """loky's reusable executor."""

    def by_default(self, function, items):
        return self.map(function, items)


class Pebble(libraries.Pebble):
    """pebble.ProcessPool."""

    def by_default(self, function, items):
        return self.map(function, items)


class Mpire(libraries.Mpire):
    """mpire.WorkerPool; unasked, it ends its workers after a map, and makes one array of all arrays that it gets."""

    def __init__(self, workers):
        import mpire
        self.pool, self.initializer = mpire.WorkerPool(workers, keep_alive=True), None

    def map(self, function, items):
        return self.pool.map(function, items, chunk_size=1, concatenate_numpy_output=False)

    def by_default(self, function, items):
        return self.pool.map(function, items)

    def unordered(self, function, items):
        return self.pool.imap_unordered(function, items, chunk_size=1)


class Joblib:
    """joblib.Parallel on its loky backend; it has no call for one task by itself, but a list of one."""

    package = "joblib"

    def __init__(self, workers):
        import joblib
        self.delayed = joblib.delayed
        self.pool = joblib.Parallel(workers, batch_size=1, return_as="list").__enter__()
        self.batched = joblib.Parallel(workers)
        self.loose = joblib.Parallel(workers, batch_size=1, return_as="generator_unordered")

    def submit(self, function, *args):
        return lambda: self.pool([self.delayed(function)(*args)])[0]

    def map(self, function, items):
        return self.pool(self.delayed(function)(item) for item in items)

    def by_default(self, function, items):
        return self.batched(self.delayed(function)(item) for item in items)

    def unordered(self, function, items):
        return self.loose(self.delayed(function)(item) for item in items)

    def close(self):
        self.pool.__exit__(None, None, None)


class Ray:
    """ray's remote functions, on this machine."""

    package = "ray"

    def __init__(self, workers):
        import ray
        self.ray, self.remote = ray, {}
        ray.init(num_cpus=workers, logging_level="ERROR", log_to_driver=False, include_dashboard=False)

    def _of(self, function):
        if function not in self.remote:
            self.remote[function] = self.ray.remote(function)
        return self.remote[function]

    def submit(self, function, *args):
        handle = self._of(function).remote(*args)
        return lambda: self.ray.get(handle)

    def map(self, function, items):
        function = self._of(function)
        return self.ray.get([function.remote(item) for item in items])

    by_default = map

    def unordered(self, function, items):
        function = self._of(function)
        waiting = [function.remote(item) for item in items]
        while waiting:
            ready, waiting = self.ray.wait(waiting)
            yield self.ray.get(ready[0])

    def close(self):
        self.ray.shutdown()


KINDS = {"brood": Brood, "multiprocessing": Multiprocessing, "concurrent.futures": Futures, "mpire": Mpire, "loky": Loky, "joblib": Joblib,
         "pebble": Pebble, "ray": Ray}


def version(module, package=None):
    """The version of a library, None where it is not installed."""
    if package is not None:
        return importlib.metadata.version(package) if importlib.util.find_spec(module) is not None else None
    if module == "brood":
        import brood
        return brood.__version__
    return platform.python_version()


def versions():
    """Of all kinds."""
    return {name: version((kind.package or name).lower(), kind.package) if name != "brood" else version(name) for name, kind in KINDS.items()}


def having(call):
    """The names of those that have the call."""
    return [name for name, kind in KINDS.items() if hasattr(kind, call)]
