# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.popen_spawn_win32``, under brood's name: cannot be imported on Linux."""
from ._std import alias

alias(__name__)
