# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.reduction``, under brood's name.

What torch, pyarrow and others registered with its ForkingPickler therefore holds for brood's queues and pools.
"""
from ._std import alias

alias(__name__)
