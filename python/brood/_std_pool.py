# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.pool``, for what brood's reuses of it.

``brood.pool`` cannot ask for it by that name: once brood is installed, that is brood's own.
"""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.pool import CLOSE as CLOSE, INIT as INIT, RUN as RUN, TERMINATE as TERMINATE, ThreadPool as ThreadPool
    from typing import Any

    def __getattr__(name: str) -> Any: ...  # what has no types: ExceptionWithTraceback and the like

alias(__name__, "pool")
