# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.shared_memory``, under brood's name."""
from ._std import alias

alias(__name__)
