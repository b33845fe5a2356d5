# SPDX-License-Identifier: MIT
"""Asynchronous: all items at once, the caller goes on, and gets the list when it wants it."""
import brood as mp


def power_n_minus_1(value):
    """n to the power n - 1."""
    return value ** (value - 1)


if __name__ == "__main__":
    pool = mp.Pool(processes=mp.cpu_count())
    results = pool.map_async(power_n_minus_1, range(1, 5))
    print(results.get())
