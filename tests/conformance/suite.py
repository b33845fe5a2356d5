# SPDX-License-Identifier: MIT
"""CPython's own tests of multiprocessing, as test classes of this module, for the start method in CONFORMANCE_METHOD."""
import os

import test._test_multiprocessing

test._test_multiprocessing.install_tests_in_module_dict(globals(), os.environ["CONFORMANCE_METHOD"])
