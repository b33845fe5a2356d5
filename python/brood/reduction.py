# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.reduction``, under brood's name.

What torch, pyarrow and others registered with its ForkingPickler therefore holds for brood's queues and pools.
"""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.reduction import *  # noqa: F403
    from multiprocessing.reduction import DupFd as DupFd

alias(__name__)
