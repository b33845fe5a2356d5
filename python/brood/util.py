# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.util``, under brood's name.

The finalizers and the logger are its globals.
"""
from ._std import alias

alias(__name__)
