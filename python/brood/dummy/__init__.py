# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.dummy``, under brood's name: its interface, with threads."""
from .._std import mirror

mirror(globals())
