# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.queues``, for classes that cannot do with brood's.

``brood.queues`` cannot ask for it by that name: once brood is installed, that is brood's own.
"""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.queues import *  # noqa: F403

alias(__name__, "queues")
