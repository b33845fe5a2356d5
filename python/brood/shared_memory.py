# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.shared_memory``, under brood's name."""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.shared_memory import *  # noqa: F403

alias(__name__)
