# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.heap``, under brood's name."""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.heap import *  # noqa: F403

alias(__name__)
