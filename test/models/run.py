#!/usr/bin/env python3
"""Checks the models of this folder with spin: each holds, and each planted fault is found.

    test/models/run.py [MODEL …]

A model is a .pml file that opens with a list of macros, each of which takes one piece of the
protocol away: "NAME  what is missing". The model as it is must have no error; with any one of the
macros defined it must have one. Prints a line for each search, and fails if one came out otherwise.
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
LIMIT_SECONDS = 1200
DEPTH_MAX = 1000000
MEMORY_MAX_MIB = 2048
ROW = "%-16s %-20s %10s  %-8s %7s"


def planted(model):
    """The macros that the comment at the model's top names, each of which the model must use."""
    with open(os.path.join(FOLDER, model), encoding="utf-8") as file:
        text = file.read()
    comment = text[:text.index("*/")]
    names = re.findall(r"^ \*\t([A-Z_]+) ", comment, re.MULTILINE)
    unused = [name for name in names if not re.search(r"def.*\b%s\b" % name, text)]
    if not names or unused:
        sys.exit("models: %s: no faults are named, or none of %s is used" % (model, unused))
    return names


def run(*command, cwd):
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=LIMIT_SECONDS, check=False).stdout


def search(model, macros):
    """Runs the model. The number of errors (it stops at the first), states, seconds; or a str."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.path.join(FOLDER, model), os.path.join(folder, "model.pml"))
        said = run("spin", "-a", *["-D" + macro for macro in macros], "model.pml", cwd=folder)
        # A variant's search is short: compiling it takes longer.
        said += run("gcc", "-O0" if macros else "-O2", "-w", "-DSAFETY",
                    "-DMEMLIM=%d" % MEMORY_MAX_MIB, "-o", "pan", "pan.c", cwd=folder)
        start = time.monotonic()
        said += run("./pan", "-m%d" % DEPTH_MAX, cwd=folder)
    found = re.search(r"errors: (\d+)\n\s*(\d+) states, stored", said)
    cut_off = re.search(r"max search depth too small|out of memory|reached -DMEMLIM", said)
    if not found or cut_off:
        return "models: %s %s cannot be searched:\n%s" % (model, " ".join(macros), said)
    return int(found.group(1)), int(found.group(2)), time.monotonic() - start


def main():
    if not shutil.which("spin"):
        sys.exit("models: spin is missing: ./configure.py --deps=models")
    models = sys.argv[1:] or sorted(n for n in os.listdir(FOLDER) if n.endswith(".pml"))
    runs = [(model, macros) for model in models
            for macros in [(), *[(name,) for name in planted(model)]]]
    wrong = 0
    print(ROW % ("model", "without", "states", "found", "seconds"), flush=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (model, macros), result in zip(runs, pool.map(lambda r: search(*r), runs)):
            if isinstance(result, str):
                print(result)
                wrong += 1
                continue
            errors, states, seconds = result
            right = bool(errors) == bool(macros)
            wrong += not right
            print(ROW % (model, " ".join(macros) or "(as it is)", states,
                         "an error" if errors else "nothing", "%.1f" % seconds)
                  + ("" if right else "  WRONG"), flush=True)
    print("models: %s" % ("%d wrong" % wrong if wrong else
                          "%d searches, all as they should be" % len(runs)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
