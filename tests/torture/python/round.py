# SPDX-License-Identifier: MIT
"""One round of the Python part: round.py PART METHOD SEED.  Started by campaign.py, which looks at what it leaves."""
import faulthandler
import gc
import os
import random
import resource
import signal
import sys
import threading
import time

import brood as mp
from brood import _core
from common import expect, open_books, pause

# At a hang the warden asks every process where it is.
faulthandler.register(signal.SIGUSR1, all_threads=True, file=sys.__stderr__)

SLACK = 60  # blocks of the arena that objects in caches may keep


def main(part, method, seed):
    """Play it, then look at what this process has left of it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module = __import__(part)
    blocks, books = _core.arena_stats()["used_blocks"], open_books()
    module.play(mp.get_context(method), random.Random(seed), books)
    gc.collect()
    expect(not mp.active_children(), f"children are left: {mp.active_children()}")
    end = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < end:
        pause(0.001)
    expect(threading.active_count() == 1, f"threads are left: {threading.enumerate()}")
    while (left := _core.arena_stats()["used_blocks"] - blocks) > SLACK and time.monotonic() < end:
        pause(0.005)
    expect(left <= SLACK, f"{left} blocks of the arena are left")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.stdout.flush()
    os.write(1, b"done\n")
