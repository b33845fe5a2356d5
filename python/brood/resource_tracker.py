# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.resource_tracker``, under brood's name."""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.resource_tracker import *  # noqa: F403
    from multiprocessing.resource_tracker import getfd as getfd

alias(__name__)
