# SPDX-License-Identifier: MIT
"""Synchronous: all items at once, the results in the order of the items."""
import brood as mp


def power_n_minus_1(value):
    """n to the power n - 1."""
    return value ** (value - 1)


if __name__ == "__main__":
    pool = mp.Pool(processes=mp.cpu_count())
    results = pool.map(power_n_minus_1, range(1, 5))
    print(results)
