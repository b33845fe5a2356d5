# SPDX-License-Identifier: MIT
"""Synchronous: one call at a time in a worker, the caller waits for each."""
import brood as mp


def power_n_minus_1(value):
    """n to the power n - 1.  (``value**value - 1`` would be (n to the power n) - 1: [0, 3, 26, 255].)"""
    return value ** (value - 1)


if __name__ == "__main__":
    pool = mp.Pool(processes=mp.cpu_count())
    results = [pool.apply(power_n_minus_1, args=(x,)) for x in range(1, 5)]
    print(results)
