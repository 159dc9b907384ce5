#!/usr/bin/env python3
"""ninja bench-tokio: operations of Weft beside the same of tokio, by rounds.

A round runs every program once, a fresh process each, in an order that turns from round to round; a
ratio is taken inside its round, and what is printed are medians over the rounds, with the spread
(median absolute deviation) of the ratio. So a disturbance of the machine falls on both sides of a
ratio or shows in its spread; the absolute figures are those of this machine now.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402

TIMEOUT_SECONDS = 120
MULTI, CURRENT = "tokio", "tokio current"

# What is compared: a title, the figures, workers, and who: (program, workload, variant, n). Variant
# None: every row of it. The first that exists is what ratios are to.
TIMES = ("ns_per_op", "cpu_ns")
COMPARISONS = [
    ("spawn and run to the end", TIMES, 1, [
        ("weft", "spawn", "detached", 1000000), ("weft", "task_spawn", None, 1000000),
        (MULTI, "spawn", "detached", 1000000), (CURRENT, "spawn", "detached", 1000000)]),
    ("spawn, run and join", TIMES, 1, [
        ("weft", "spawn", "joined", 1000000),
        (MULTI, "spawn", "joined", 1000000), (CURRENT, "spawn", "joined", 1000000)]),
    ("join of what has ended", TIMES, 1, [
        ("weft", "join", "ended", 100000),
        (MULTI, "join", "ended", 100000), (CURRENT, "join", "ended", 100000)]),
    ("spawn and join, one by one", TIMES, 1, [
        ("weft", "join", "one by one", 100000),
        (MULTI, "join", "one by one", 100000), (CURRENT, "join", "one by one", 100000)]),
    ("yield of one of 1000", TIMES, 1, [
        ("weft", "yield", "yield", 1000), ("weft", "task_yield", None, 1000),
        (MULTI, "yield", "yield", 1000), (CURRENT, "yield", "yield", 1000)]),
    ("fork-join tree to depth 14", TIMES, 2, [
        ("weft", "spawn_tree", "join", 14), (MULTI, "spawn_tree", "join", 14)]),
    ("fork-join tree to depth 20", TIMES, 2, [
        ("weft", "scope_tree", None, 20), (MULTI, "spawn_tree", "join", 20)]),
    ("a call in the blocking pool", TIMES, 1, [
        ("weft", "blocking", None, 20000),
        (MULTI, "blocking", "1 caller", 20000), (MULTI, "blocking", "64 callers", 20000)]),
    ("memory of a parked process", ("bytes_each",), 1, [
        ("weft", "memory", None, 100000), ("weft", "task_memory", None, 1000000),
        (MULTI, "memory", "parked", 1000000), (MULTI, "memory", "asleep", 1000000)]),
]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release",
                        help="where the programs are [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--quick", action="store_true",
                        help="one round of a hundredth: to see that it works, not to quote")
    parser.add_argument("--only", metavar="TEXT", default="",
                        help="only comparisons whose title has TEXT in it")
    parser.add_argument("--tokio", metavar="PROGRAM", help="in place of what perf/rivals/tokio"
                        " makes; called as PROGRAM WORKLOAD multi|current WORKERS N")
    parser.add_argument("--idle", default="park", help="Weft's idle mode [%(default)s]")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    return args


def tokio_build(build):
    """The rival's program, made by Debian's cargo if it is not there or older than its sources."""
    out = os.path.join(build, "perf", "rivals", "tokio", "bench")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rivals", "tokio", "build.py")
    result = subprocess.run([sys.executable, script, out], stderr=subprocess.PIPE, text=True,
                            check=False)
    if result.returncode:
        raise rig.Failed(result.stderr.strip())
    return out


class Job:
    """One program with one workload, which is run once a round."""

    def __init__(self, args, bench, tokio, key):
        program, workload, workers, n = self.key = key
        if args.quick and n > 100:
            n = max(100, n // 100)
        if program == "weft":
            self.command = [bench, "--runs", 1, "--json", "--idle", args.idle, "--workers", workers,
                            "--n", n, workload]
        else:
            self.command = [tokio, workload, "multi" if program == MULTI else "current", workers, n]
        self.runs = []

    def run(self):
        """Adds {variant: its row}."""
        command = [str(word) for word in self.command]
        try:
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    text=True, timeout=TIMEOUT_SECONDS, check=False,
                                    preexec_fn=rig.die_with_parent)
        except subprocess.TimeoutExpired:
            raise rig.Failed("%s: no end after %d s" % (" ".join(command), TIMEOUT_SECONDS))
        if result.returncode:
            raise rig.Failed("%s: exit status %d: %s" % (
                " ".join(command), result.returncode, result.stderr.strip()))
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        self.runs.append({(row["variant"], row["process"]): row for row in rows})


def workloads_of(bench):
    listed = subprocess.run([bench, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines()}


def comparisons_choose(args, bench):
    """Those that can be made, each with the keys of its jobs."""
    known = workloads_of(bench)
    for title, figures, workers, sides in COMPARISONS:
        sides = [side for side in sides if side[0] != "weft" or side[1] in known]
        if args.only in title and any(side[0] == "weft" for side in sides):
            yield title, figures, [((program, workload, workers, n), variant)
                                   for program, workload, variant, n in sides]


def rounds_run(args, jobs, progress):
    for number in range(args.rounds):
        order = jobs[number % len(jobs):] + jobs[:number % len(jobs)]
        for job in order if number % 2 == 0 else reversed(order):
            progress.show("round %d of %d: %s %s" % (number + 1, args.rounds, *job.key[:2]))
            job.run()
    progress.clear()


def median_spread(values):
    median = statistics.median(values)
    return median, statistics.median(abs(value - median) for value in values)


def rows_make(title, figure, sides, jobs):
    base = None
    for key, variant in sides:
        runs = jobs[key].runs
        for name in runs[0]:
            if (variant is not None and name[0] != variant) or figure not in runs[0][name]:
                continue
            values = [run[name][figure] for run in runs]
            base = base or values
            ratio, spread = median_spread([a / b for a, b in zip(values, base)])
            yield {"title": title, "program": key[0], "workload": key[1], "variant": name[0],
                   "process": name[1], "workers": key[2], "n": runs[0][name]["n"],
                   "figure": figure, "rounds": len(runs), "median": statistics.median(values),
                   "min": min(values), "max": max(values), "ratio": ratio, "ratio_spread": spread,
                   "base": values is base}


LINE = "%-28s %-14s %-12s %-15s %-6s %7s %9s %-10s %10s %10s %10s   %s"


def row_print(row):
    ratio = "1" if row["base"] else "%.2f ±%.2f" % (row["ratio"], row["ratio_spread"])
    print(LINE % (row["title"], row["program"], row["workload"], row["variant"], row["process"],
                  row["workers"], row["n"], row["figure"], *(
                      "%.1f" % row[name] for name in ("median", "min", "max")), ratio), flush=True)


def main():
    args = parse_arguments()
    bench = rig.need(os.path.join(args.build, "perf", "bench"))
    tokio = args.tokio or tokio_build(args.build)
    comparisons = list(comparisons_choose(args, bench))
    jobs = {}
    for _, _, sides in comparisons:
        for key, _ in sides:
            if key not in jobs:
                jobs[key] = Job(args, bench, tokio, key)
    if not jobs:
        raise rig.Failed("no comparison has \"%s\" in its title" % args.only)
    if not args.json:
        print(subprocess.run([bench, "--machine"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout.rstrip())
        print("rivals    tokio of librust-tokio-dev; \"current\": its scheduler of one thread\n"
              "rounds    %d, every program in each, a fresh process after a warm-up; idle %s;"
              " medians;\n          ratios to the first row of each title, ± their spread\n"
              % (args.rounds, args.idle))
        print(LINE % ("", "program", "workload", "variant", "kind", "workers", "n", "figure",
                      "median", "min", "max", "ratio"), flush=True)
    rounds_run(args, list(jobs.values()), rig.Progress())
    for title, figures, sides in comparisons:
        for figure in figures:
            for row in rows_make(title, figure, sides, jobs):
                if args.json:
                    print(json.dumps(row), flush=True)
                else:
                    row_print(row)
    return 0


if __name__ == "__main__":
    rig.main(main)
