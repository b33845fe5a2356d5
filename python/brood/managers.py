# SPDX-License-Identifier: MIT
"""What ``multiprocessing.managers`` has; managers start their servers by brood's contexts, and serve brood's pools.

A manager's other objects (its Lock, its Queue) are those of threads in the server, here as there.
"""
from __future__ import annotations

from typing import Any

from . import _std
from ._std import TYPE_CHECKING

if TYPE_CHECKING:
    import multiprocessing.managers as _real
else:
    _real = _std.load("managers")

__all__ = list(_real.__all__)


def _pool(*args: Any, **kwds: Any) -> Any:
    """In the server."""
    from .pool import Pool

    return Pool(*args, **kwds)


class BaseManager(_real.BaseManager):
    """A manager whose server is started by the default context of brood unless another is given."""

    def __init__(
        self, address: Any = None, authkey: bytes | None = None, serializer: str = "pickle", ctx: Any = None, **kwds: Any
    ):
        if ctx is None:
            from .context import _default_context

            ctx = _default_context.get_context()
        super().__init__(address, authkey, serializer, ctx, **kwds)


class SyncManager(BaseManager, _real.SyncManager):
    """The manager of ``brood.Manager()``."""


class SharedMemoryManager(BaseManager, _real.SharedMemoryManager):
    """A manager of shared memory."""


SyncManager.register("Pool", _pool, _real.PoolProxy)  # type: ignore[attr-defined]
SyncManager.Pool.__doc__ = "Return a proxy of a pool, which the server has."

_std.mirror(globals())
