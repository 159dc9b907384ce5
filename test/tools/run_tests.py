#!/usr/bin/env python3
"""Runs test programs, at most two at a time; prints the closing line of each and one sum.

A program is an executable made with test/harness.h, or a Python file of unittest cases. Its output
is shown, whole, only if it failed, ran nothing or timed out.
Fails if any test failed, or none ran. Programs find WEFT_BUILD_DIR and WEFT_BUILD_MODE (the folder
below it) in their environment, and run in the root of the tree.
"""

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time

CLOSING = re.compile(r"^\[====\] Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) "
                     r"\| Crashing: (\d+) *$", re.MULTILINE)


class Result:
    def __init__(self, program, output, status, timed_out, seconds):
        self.program, self.output, self.seconds = program, output, seconds
        found = CLOSING.findall(output)
        self.tested, self.passed, self.failed = map(int, found[-1][:3]) if found else (0, 0, 0)
        self.closing = None
        if found:
            self.closing = [line for line in output.splitlines() if CLOSING.match(line)][-1].strip()
        self.problem = None
        if timed_out:
            self.problem = "timed out"
        elif self.closing is None:
            self.problem = "ended with status %d and no closing line" % status
        elif self.failed == 0 and status != 0:
            self.problem = "ended with status %d" % status
        elif self.tested == 0 and "[SKIP]" not in output:
            self.problem = "ran no test"
        if self.problem and self.failed == 0:
            self.failed = 1


running = set()


def kill(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(program, timeout, wrapper, environment):
    command = [*wrapper, "./" + program, "-j1"]
    if program.endswith(".py"):
        command = [sys.executable, os.path.join(os.path.dirname(__file__), "unittests.py"), program]
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    running.add(process)
    timed_out = False
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
        kill(process)
        output, _ = process.communicate()
    running.discard(process)
    return Result(program, output.decode("utf-8", "replace"), process.returncode, timed_out,
                  time.monotonic() - start)


def show(result):
    name = os.path.basename(result.program)
    if result.problem or result.failed:
        print("---- %s: %s" % (name, result.problem or "failed"))
        print(result.output.rstrip())
    print("%-28s %6.1fs  %s" % (name, result.seconds, result.closing or result.problem), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", default="dev", help="named in the last line [%(default)s]")
    parser.add_argument("--build-dir", default="build", help="told to the programs [%(default)s]")
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time [%(default)s]")
    parser.add_argument("--timeout", type=float, default=900, help="seconds a program may take")
    parser.add_argument("--wrapper", default="", help="program that runs the programs")
    parser.add_argument("programs", nargs="*")
    args = parser.parse_args()
    environment = {**os.environ, "WEFT_BUILD_DIR": args.build_dir, "WEFT_BUILD_MODE": args.mode}
    results = []
    with concurrent.futures.ThreadPoolExecutor(max(args.jobs, 1)) as pool:
        waiting = [pool.submit(run, program, args.timeout, args.wrapper.split(), environment)
                   for program in args.programs]
        try:
            for future in concurrent.futures.as_completed(waiting):
                results.append(future.result())
                show(results[-1])
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                kill(process)
            return 130
    passed = sum(result.passed for result in results)
    failed = sum(result.failed for result in results)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
