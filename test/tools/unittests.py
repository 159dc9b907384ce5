#!/usr/bin/env python3
"""Runs the unittest cases of one Python file and ends with the closing line of the C tests.

    test/tools/unittests.py test/test_build.py [PATTERN]
"""

import importlib.util
import os
import sys
import unittest


def main():
    sys.dont_write_bytecode = True  # tests import configure.py: no __pycache__ beside it
    path = sys.argv[1]
    name = os.path.splitext(os.path.basename(path))[0]
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    loader = unittest.TestLoader()
    if len(sys.argv) > 2:
        loader.testNamePatterns = ["*" + sys.argv[2] + "*"]
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2)
    result = runner.run(loader.loadTestsFromModule(module))
    for case, reason in result.skipped:
        print("[SKIP] %s: %s" % (case, reason))
    # Several failed subtests are one failed test; so is a class that cannot be set up.
    failed = len({getattr(case, "test_case", case).id()
                  for case, _ in result.failures + result.errors})
    failed += len(result.unexpectedSuccesses)
    tested = max(result.testsRun - len(result.skipped), failed)
    print("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0 "
          % (tested, tested - failed, failed))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
