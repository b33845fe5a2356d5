# SPDX-License-Identifier: MIT
"""multiprocessing on the brood core: ``import brood as mp``.

Every public name of :mod:`multiprocessing` is here and means the same; pools, queues, locks and shared values are
brood's.  To read on: ``context`` (what the names are), ``spawn`` and ``forkserver`` (how the arena reaches a process
that was exec'd), ``synchronize``, ``queues``, ``sharedctypes`` and ``pool`` (the core's objects).

Importing brood costs next to nothing: the names come into being when the first of them is asked for.
"""
import importlib as _importlib

from ._install import install as install
from ._std import TYPE_CHECKING

__version__ = "0.1.0"

# What brood adds to multiprocessing's names, and the module of each.
_OWN = {
    "install": "_install", "WorkerDied": "_errors", "PoolBroken": "_errors", "TaskError": "_errors",
    "TaskTimeout": "_ends", "task_seed": "_random",
    "Shared": "_share", "empty": "_arrays", "zeros": "_arrays", "array": "_arrays",
    "ArenaTicket": "_arena", "arena_ticket": "_arena", "attach": "_arena",
}

# Levels of the logger, public in multiprocessing though not in its __all__.
SUBDEBUG = 5
SUBWARNING = 25

_SUBMODULES = frozenset((
    "connection", "context", "dummy", "forkserver", "heap", "managers", "pool", "popen_fork", "popen_forkserver",
    "popen_spawn_posix", "process", "queues", "reduction", "resource_sharer", "resource_tracker", "shared_memory",
    "sharedctypes", "spawn", "synchronize", "util"))


def _fill() -> None:
    """Bring multiprocessing's names into being: the public attributes of the default context, as it does."""
    from . import context

    default = context._default_context
    names = [name for name in dir(default) if not name.startswith("_")]
    for name in names:
        globals().setdefault(name, getattr(default, name))
    globals()["__all__"] = sorted({*names, *_OWN})


def __dir__() -> list[str]:
    if "__all__" not in globals():
        _fill()
    return sorted({*globals(), *globals()["__all__"]})


if TYPE_CHECKING:
    from ._names import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return _importlib.import_module(f"{__name__}.{name}")
        if name in _OWN:
            value = getattr(_importlib.import_module(f"{__name__}.{_OWN[name]}"), name)
            globals()[name] = value
            return value
        if (name == "__all__" or not name.startswith("_")) and "__all__" not in globals():
            _fill()
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


del TYPE_CHECKING
