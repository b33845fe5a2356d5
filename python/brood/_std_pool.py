# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.pool``, for what brood's reuses of it.

``brood.pool`` cannot ask for it by that name: once brood is installed, that is brood's own.
"""
from ._std import alias

alias(__name__, "pool")
