# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.resource_sharer``, under brood's name."""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.resource_sharer import *  # noqa: F403

alias(__name__)
