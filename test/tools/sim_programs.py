"""What sim_record.py and sim_seeds.py know of simulation programs: running them, their sources."""

import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

sys.path.insert(0, ROOT)
import configure  # noqa: E402 (needs the path)

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
PUBLIC = {name: source for source, name in configure.PUBLIC.items()}


class Failed(Exception):
    """Says what has gone wrong, to whoever runs the tool."""


def programs(build_dir):
    """Their names and paths."""
    return {name: "%s/sim/test/%s" % (build_dir, name) for name in configure.SIM}


def output(*command):
    """Of a command in the root of the tree that must succeed."""
    result = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise Failed("%s: %s" % (shlex.join(command), result.stderr.strip()))
    return result.stdout


def run(program, *options):
    """The objects a simulation prints, of a run in which every test passes."""
    environment = {name: value for name, value in os.environ.items() if name != "SEEDS"}
    try:
        result = subprocess.run([os.path.abspath(program), *options], env=environment, text=True,
                                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, check=False)
    except OSError as error:
        raise Failed("%s: %s" % (program, error.strerror)) from error
    if result.returncode:
        raise Failed("%s\n%s" % (shlex.join([program, *options]), result.stdout.rstrip()))
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def run_seeds(program, test, first, last):
    """The same, of one test with these seeds."""
    return run(program, "--json", "--filter=" + test, "--seeds=%d..%d" % (first, last))


def kind(name):
    return "whole runtime" if configure.SIM.get(name, {}).get("library") else "unit"


# ---- What a program is made of -------------------------------------------------------------------


def commands(program, build_dir):
    """How it is compiled and linked; the build folder has no name there."""
    text = output("ninja", "-f", "build.ninja" if build_dir == "build"
                  else build_dir + "/build.ninja", "-t", "commands", program)
    return [line.replace(build_dir + "/", "$builddir/") for line in text.splitlines()
            if " -o " in line]


def read(path):
    with open(os.path.join(ROOT, path), "rb") as file:
        return file.read()


def sources(lines):
    """The files that go into it. Includes in branches not taken count too: they are few."""
    waiting = [match.group(1) for line in lines for match in [re.search(r" -c (\S+)", line)]
               if match]
    found = set()
    while waiting:
        path = waiting.pop()
        if path in found or not os.path.exists(os.path.join(ROOT, path)):
            continue  # a header of the system
        found.add(path)
        names = INCLUDE.findall(read(path).decode())
        waiting += [PUBLIC.get(name, name) for name in names]
    return sorted(found)


def digest(lines):
    """SHA-256 over the commands and the files."""
    sha = hashlib.sha256("\n".join(sorted(lines)).encode())
    for path in sources(lines):
        text = read(path)
        sha.update(b"\n%s %d\n" % (path.encode(), len(text)))
        sha.update(text)
    return sha.hexdigest()


def tools(lines):
    """The versions of what compiled and linked it."""
    compiler = list(itertools.takewhile(lambda word: not word.startswith("-"),
                                        shlex.split(lines[0])))
    return {"compiler": output(*compiler, "--version").splitlines()[0],
            "linker": output(*compiler, "-Wl,--version").splitlines()[0]}
