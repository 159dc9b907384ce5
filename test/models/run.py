#!/usr/bin/env python3
"""Checks the models of this folder with spin: each holds, and each planted fault is found.

A model is a .pml file that opens with a list of macros, each of which takes one piece of the
protocol away: "NAME  what is missing". The model as it is must have no error; with any one of the
macros defined it must have one. Prints a line for each run, and fails if one came out otherwise.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
LIMIT_SECONDS = 1200


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


def errors(model, *macros):
    """Runs the model. The number of errors (the search stops at the first), and of states."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.path.join(FOLDER, model), os.path.join(folder, "model.pml"))
        said = run("spin", "-a", *["-D" + macro for macro in macros], "model.pml", cwd=folder)
        said += run("gcc", "-O2", "-DSAFETY", "-o", "pan", "pan.c", cwd=folder)
        said += run("./pan", "-m1000000", cwd=folder)
    found = re.search(r"errors: (\d+)\n\s*(\d+) states, stored", said)
    if not found or "max search depth too small" in said:
        sys.exit("models: %s %s cannot be run:\n%s" % (model, " ".join(macros), said))
    return int(found.group(1)), int(found.group(2))


def main():
    if not shutil.which("spin"):
        sys.exit("models: spin is missing: ./configure.py --deps=models")
    wrong = 0
    for model in sorted(name for name in os.listdir(FOLDER) if name.endswith(".pml")):
        for macros in [(), *[(name,) for name in planted(model)]]:
            count, states = errors(model, *macros)
            right = bool(count) == bool(macros)
            wrong += not right
            print("%-12s %-20s %9d states, %s%s" % (
                model, " ".join(macros) or "as it is", states,
                "an error" if count else "no error", "" if right else ": WRONG"), flush=True)
    print("models: %s" % ("%d wrong" % wrong if wrong else "all as they should be"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
