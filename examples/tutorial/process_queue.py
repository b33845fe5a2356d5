# SPDX-License-Identifier: MIT
"""Ten processes put a random number each into one queue.  They are joined first and the queue is read after: what was
put lies in shared memory, so no process has to stay until it is read."""
import random

import brood as mp


def rand_number(low, high, output):
    """Put a random number from low to high, both included."""
    output.put(random.randint(low, high))


if __name__ == "__main__":
    output = mp.Queue()
    processes = [mp.Process(target=rand_number, args=(1, 101, output)) for x in range(10)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    results = [output.get() for p in processes]
    print(results)
