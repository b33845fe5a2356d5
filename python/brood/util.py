# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.util``, under brood's name.

The finalizers and the logger are its globals.
"""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.util import *  # noqa: F403
    from multiprocessing.util import spawnv_passfds as spawnv_passfds

    def close_fds(*fds: int) -> None: ...

alias(__name__)
