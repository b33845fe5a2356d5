# SPDX-License-Identifier: MIT
"""Threads of BLAS and OpenMP in workers: all workers' together are no more than the CPUs that may be used.

A library that is loaded later asks the environment; one that is loaded already is told by threadpoolctl, if that is
installed.  Both happen in workers: the owner keeps its threads.
"""
from __future__ import annotations

import os
import warnings
from typing import Any, Literal

from . import _core

__all__: list[str] = []

# threadpoolctl's name of what a library is, and the variable that it asks first.
_VARIABLE_OF = {
    "openmp": "OMP_NUM_THREADS",
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
}
VARIABLES = (*_VARIABLE_OF.values(), "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
_WITH_THREADS = ("openblas", "scipy_openblas", "mkl_rt", "blis", "blas", "flexiblas", "gomp", "iomp", "omp")  # how their names begin, after "lib"

# Of this process, in a worker: how many threads it was given, and which variables we have set, and not the user.
_share: int | None = None
_our_variables: dict[str, str] = {}


def _check(threads: Any) -> None:
    if threads is None or threads == "auto":
        return
    if isinstance(threads, bool) or not hasattr(threads, "__index__"):
        raise TypeError(f"threads_per_worker must be an int, 'auto' or None, not {threads!r}")
    if threads < 1:
        raise ValueError(f"threads_per_worker must be at least 1, not {threads}")


def _cpus_for(workers: int) -> int:
    """brood.cpu_count(), or more where that makes no difference: the quotas of control groups stand in files."""
    cpus = len(os.sched_getaffinity(0))
    return cpus if cpus < 2 * workers else _core.cpu_count()


class Cap:
    """How many threads each worker of a pool may have.  Travels to the workers.

    threads: so many at most, or with is_exact so many.
    ours: what we set in the environment; users_own: what the user has set there, and the fork server may not know of.
    """

    def __init__(self, threads: int, is_exact: bool, ours: dict[str, str], users_own: dict[str, str]) -> None:
        self.environment = {**users_own, **ours}
        self._threads = threads
        self._is_exact = is_exact
        self._ours = ours
        self._libraries: list[Any] = []  # threadpoolctl's; found in the process that workers are forked from

    @classmethod
    def of(cls, threads: int | Literal["auto"] | None, workers: int) -> Cap | None:
        """For an argument of Pool's: 'auto' shares the CPUs of this process among the workers; None leaves them alone.

        A variable that the user has set stays; a number is the user's as well, and nearer.
        """
        _check(threads)
        if threads is None:
            return None
        if threads != "auto":
            return cls(int(threads), True, dict.fromkeys(VARIABLES, str(threads)), {})
        number = max(1, (_share or _cpus_for(workers)) // workers)
        set_here = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        users_own = {name: value for name, value in set_here.items() if _our_variables.get(name) != value}
        ours = {name: str(number) for name in VARIABLES if name not in users_own}
        return cls(number, False, ours, users_own)

    def prepare(self) -> None:
        """In the process that workers are forked from: find what is loaded by then."""
        if any(map(may_have_threads, _core._mapped_libraries())):
            self._libraries = [one for one in _loaded_libraries() if _variable_of(one) in self._ours]

    def begin(self) -> None:
        """In a new worker."""
        global _share, _our_variables
        _share, _our_variables = self._threads, self._ours
        for name, value in self.environment.items():
            os.environ[name] = value
        for library in self._libraries:
            if self._is_exact or (library.num_threads or 0) > self._threads:
                library.set_num_threads(self._threads)


def may_have_threads(path: str) -> bool:
    """Whether threadpoolctl may know the library; asking it costs more than this look."""
    return os.path.basename(path).removeprefix("lib").startswith(_WITH_THREADS)


def _variable_of(library: Any) -> str:
    return _VARIABLE_OF.get(library.internal_api, VARIABLES[0])


def _loaded_libraries() -> list[Any]:
    """What threadpoolctl has found; nothing without it."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that two of them do not go together: not of our doing
        return ThreadpoolController().lib_controllers
