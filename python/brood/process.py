# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.process``, under brood's name.

The list of children, the current process and the parent are its globals: there is one world, whoever starts a process.
"""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.process import *  # noqa: F403

alias(__name__)
