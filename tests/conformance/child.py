# SPDX-License-Identifier: MIT
"""Runs tests of suite.py in this process and reports each, a JSON object per line, to a descriptor.

    child.py <descriptor> <file with the ids to run, or - to list all ids>

Whether multiprocessing is brood is the interpreter's affair (see run).
"""
import faulthandler
import json
import os
import signal
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def flatten(tests):
    """The single tests of a suite, in its order."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def id_of(test):
    """Class and method; for what is no test (setUpClass) whatever unittest calls it."""
    return test.id().replace("suite.", "", 1)


class Report(unittest.TestResult):
    """Says what happens as it happens, so that who reads knows what hangs."""

    def __init__(self, stream):
        super().__init__()
        self._stream = stream
        self._begun = 0.0
        self._subtests_failed = set()

    def _say(self, what, test, text=""):
        record = {"what": what, "id": id_of(test), "text": text, "seconds": round(time.monotonic() - self._begun, 3)}
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def startTest(self, test):
        super().startTest(test)
        self._begun = time.monotonic()
        self._say("start", test)

    def addSuccess(self, test):
        if test not in self._subtests_failed:
            self._say("passed", test)

    def addFailure(self, test, err):
        self._say("failed", test, self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._subtests_failed.add(test)
            self._say("failed", test, self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        self._say("skipped", test, reason)

    def addExpectedFailure(self, test, err):
        self._say("passed", test)

    def addUnexpectedSuccess(self, test):
        self._say("failed", test, "passed, which it was expected not to")


def main():
    stream = os.fdopen(int(sys.argv[1]), "w")
    os.set_inheritable(stream.fileno(), False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are started without
    faulthandler.enable()  # the parent ends what hangs with SIGABRT: that prints all stacks
    sys.path.insert(0, HERE)
    import suite

    tests = list(flatten(unittest.defaultTestLoader.loadTestsFromModule(suite)))
    if sys.argv[2] == "-":
        stream.write(json.dumps([id_of(test) for test in tests]) + "\n")
        return
    with open(sys.argv[2], encoding="utf-8") as file:
        wanted = set(file.read().split("\n"))
    unittest.TestSuite(test for test in tests if id_of(test) in wanted).run(Report(stream))


if __name__ == "__main__":
    main()
