# SPDX-License-Identifier: MIT
"""Asynchronous: the caller goes on, and gets each result when it wants it."""
import brood as mp


def power_n_minus_1(value):
    """n to the power n - 1."""
    return value ** (value - 1)


if __name__ == "__main__":
    pool = mp.Pool(processes=mp.cpu_count())
    results = [pool.apply_async(power_n_minus_1, args=(x,)) for x in range(1, 5)]
    output = [p.get() for p in results]
    print(output)
