# SPDX-License-Identifier: MIT
"""How many processors this program may use: affinity and the CPU quotas of containers included."""
import brood as mp

print("Number of processors:", mp.cpu_count())
