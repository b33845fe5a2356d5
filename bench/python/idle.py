# SPDX-License-Identifier: MIT
"""What a pool of two costs that has done something and has nothing to do: CPU time, wake-ups, memory."""
import time

import pools
import sample


def identity(x):
    return x


def _of_the_library():
    """CPU time of all but the thread that measures, whose two clocks are read one after the other: it may be some microseconds below 0."""
    return sample.cpu_seconds() - time.thread_time()


def measure(subject, variant, is_quick):
    pool, seconds = pools.KINDS[subject](pools.WORKERS), 1 if is_quick else 3
    began = time.perf_counter()
    sample.check(pool.submit(identity, 7)() == 7, "of the first call")
    first = time.perf_counter() - began
    time.sleep(0.5)
    woken = sample.wakeups() + 1  # this process, from its sleep
    cpu = _of_the_library()
    time.sleep(seconds)
    cpu = _of_the_library() - cpu
    woken = sample.wakeups() - woken
    memory = sample.memory_per_worker(pools.WORKERS)
    pool.close()
    return sample.result(max(cpu, 0.0) / seconds * 1e6, "us/s", n=1, wakeups_per_s=round(woken / seconds, 2), first_result_us=round(first * 1e6, 1),
                         memory_per_worker_bytes=memory)


if __name__ == "__main__":
    sample.main(pools.versions(), {"idle": list(pools.KINDS)}, measure)
