#!/usr/bin/env python3
"""Runs the seeds of test/sim/seeds/: each found a bug of ours (ninja sim).

The seeds must pass. Where the file names a test that plants the bug again, the bug must be found by
a seed of the range beside it, the first of which is tried first. test/sim/README.md says what that
shows and what it does not.
"""

import argparse
import glob
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sim_programs import Failed, ROOT, programs, run_seeds  # noqa: E402 (needs the path)

SEEDS = os.path.join(ROOT, "test/sim/seeds")
TEXTS = ("bug", "found_by", "mended_by", "program", "test")


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        first, last = kept["planted"]["seeds"] if kept["planted"] else (0, 0)
        if not all(isinstance(kept[key], str) and kept[key] for key in TEXTS) or first > last \
                or not kept["seeds"] or not all(isinstance(seed, int) for seed in kept["seeds"]):
            raise ValueError("an empty entry, or an entry of another type")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed("not such a file: %r" % error) from error
    return kept


def passes(program, test, seed):
    if not run_seeds(program, test, seed, seed):
        raise Failed("%s has no scenario in a test %s" % (os.path.basename(program), test))


def is_found(program, test, first, last):
    """The seed that found the planted bug."""
    found = [line["found"] for line in run_seeds(program, test, first, last) if "found" in line]
    if not found:
        raise Failed("%s has no test %s that plants a bug" % (os.path.basename(program), test))
    if found[0] > last:
        raise Failed("%s: found by seed %d, not by %d..%d" % (test, found[0], first, last))
    return found[0]


def check(path, there):
    """One file; `there`: programs. Returns what was seen."""
    kept = load(path)
    program = there.get(kept["program"])
    if program is None:
        raise Failed("there is no program " + kept["program"])
    for seed in kept["seeds"]:
        passes(program, kept["test"], seed)
    said = "passes: %s" % ", ".join(map(str, kept["seeds"]))
    if kept["planted"]:
        first, last = kept["planted"]["seeds"]
        said += "; planted again: found by seed %d, of %d..%d" % (
            is_found(program, kept["planted"]["test"], first, last), first, last)
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build-dir", default="build", help="[%(default)s]")
    args = parser.parse_args()
    paths = sorted(glob.glob(os.path.join(SEEDS, "*.json")))
    failed = not paths
    for path in paths:
        try:
            said = check(path, programs(args.build_dir))
        except Failed as problem:
            failed, said = True, "FAILED: %s" % problem
        print("%s: %s" % (os.path.basename(path), said), flush=True)
    print("%d files of seeds%s" % (len(paths), ": failed" if failed else ""))
    return failed


if __name__ == "__main__":
    sys.exit(main())
