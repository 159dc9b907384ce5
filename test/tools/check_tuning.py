#!/usr/bin/env python3
"""Builds and tests the library at other values of every tuning option (ninja check-tuning).

Each set below is configured into a folder of its own, built, the tests marked `tuning` are run, and
weft_build_config() must show every value. Options that do not touch each other share a set; an
option with another value in no set is an error.
"""

import argparse
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

sys.dont_write_bytecode = True
sys.path.insert(0, ROOT)
import configure  # noqa: E402 (needs the path)

SETS = (
    # The other order, alone and with the ring that overflows at once.
    {"run-order": "lifo"},
    {"run-order": "lifo", "ring-size": "4", "injector-interval": "1", "io-interval": "1"},
    # The smallest of everything.
    {"ring-size": "4", "budget": "1", "io-batch": "1", "workers-max": "4", "spin-credit": "0",
     "stack-size": "16384", "tick-shift": "20"},
    # Large, and in the middle.
    {"ring-size": "4096", "budget": "4096", "io-batch": "4096", "injector-interval": "1000",
     "io-interval": "1000", "spin-credit": "100", "stack-size": "262144", "tick-shift": "14",
     "wheel-levels": "7", "march": "native"},
    # Without the kernel's descriptors.
    {"driver": "mem"},
)


def untested():
    fixed = {option.name for option in configure.TUNING
             if option.choices and len(option.choices) < 2}
    tested = {name for values in SETS for name in values}
    return [option.name for option in configure.TUNING if option.name not in tested | fixed]


def run(*command):
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode == 0


def shown(program, values):
    """The library must know the values it was given."""
    text = subprocess.run([os.path.join(ROOT, program)], check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    missing = ["%s=%s" % item for item in values.items() if "%s=%s" % item not in text.split()]
    if missing:
        print("weft_build_config() does not show %s: %s" % (" ".join(missing), text))
    return not missing


def check(number, values, build_dir):
    options = ["--%s=%s" % item for item in values.items()]
    place = "%s/%d" % (build_dir, number)
    start = time.monotonic()
    print("==== " + " ".join(options), flush=True)
    tests = [name for name, words in configure.TESTS.items() if "tuning" in words.split()
             and not ("kernel" in words.split() and values.get("driver") == "mem")]
    good = (run(sys.executable, "configure.py", "--build-dir=" + place, "--cflags=-Werror",
                *options)
            and run("ninja", "--quiet", "-f", place + "/build.ninja", "tuning-dev")
            and shown(place + "/dev/test/tools/print_config", values)
            and run(sys.executable, "test/tools/run_tests.py", "--mode", "dev", "--build-dir",
                    place, *["%s/dev/test/%s" % (place, name) for name in tests]))
    seconds = time.monotonic() - start
    print("==== %s: %.0f s" % ("passed" if good else "failed", seconds), flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build-dir", default="build/tuning",
                        help="scratch, in the tree [%(default)s]")
    args = parser.parse_args()
    if untested():
        print("no other value is tested for " + " ".join(untested()))
        return 1
    failed = [number for number, values in enumerate(SETS)
              if not check(number, values, args.build_dir)]
    print("check-tuning: %d of %d sets passed" % (len(SETS) - len(failed), len(SETS)))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
