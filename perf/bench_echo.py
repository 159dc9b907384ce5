#!/usr/bin/env python3
"""ninja bench-echo: Weft's echo server beside the plain epoll loop of perf/rivals, by pairs.

Each server has one CPU and one thread of its own, the load generator another CPU. A round runs
every server once under one load, a fresh process each, in an order that turns from round to round;
a ratio is taken inside its round, and what is printed are medians over the rounds, with the spread
(median absolute deviation) of the ratio. So a disturbance of the machine falls on both sides of a
ratio or shows in its spread; the absolute figures are those of this machine now.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402

LOADS = {
    "closed 1": ["--connections", 1],
    "closed 64": ["--connections", 64],
    "closed 1000": ["--connections", 1000],
    "open 50k/s 64": ["--connections", 64, "--rate", 50000],
}
BASE = "epoll loop"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release",
                        help="where the programs are [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="of each load [%(default)s]")
    parser.add_argument("--seconds", type=float, default=2,
                        help="of each measurement [%(default)s]")
    parser.add_argument("--requests", type=int, help="measure so many requests instead of a time:"
                        " to see that it works on a machine too busy for short times")
    parser.add_argument("--quick", action="store_true", help="half a second each, three rounds,"
                        " idle=park only: to see that it works, not to quote")
    parser.add_argument("--idle", default="park,adaptive,spin",
                        help="Weft's idle modes [%(default)s]")
    parser.add_argument("--driver", help="Weft's I/O driver [the build's default]")
    parser.add_argument("--load", action="append", choices=list(LOADS),
                        help="only this one; repeatable")
    parser.add_argument("--size", type=int, default=64, help="bytes of a message [%(default)s]")
    parser.add_argument("--rival", action="append", default=[], metavar="NAME=COMMAND",
                        help="one more server, given an address as last argument, that prints"
                        " \"listening on ADDRESS\"; it is pinned like the others")
    parser.add_argument("--client-spin", action="store_true", help="the load generator polls"
                        " without sleeping: its own wake-ups leave the latencies")
    parser.add_argument("--json", action="store_true",
                        help="a line of JSON for each load and server")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.idle = 3, 0.5, "park"
    return args


def cpus_choose():
    """A CPU for the server and one for the load, far apart in the list."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        print("bench_echo.py: only one CPU: server and load share it, the figures say little",
              file=sys.stderr)
    return allowed[-1], allowed[0]


def library_driver(bench):
    """The build's own driver, from the library's configuration."""
    head = subprocess.run([bench, "--machine"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    words = dict(word.split("=", 1) for word in head.split() if "=" in word)
    return head, words.get("driver", "?")


class Contender:
    """A server as it is started: its name in the table, idle mode and driver as words for it."""

    def __init__(self, name, command, environment=None, idle="-", driver="-"):
        self.name, self.command, self.environment = name, command, environment
        self.idle, self.driver = idle, driver

    def measure(self, load, arguments, server_cpu, load_cpu):
        with rig.Server([*self.command, "tcp:127.0.0.1:0"], self.environment, server_cpu) as server:
            before = server.cpu_ns()
            figures = rig.run_load(load, server.address, arguments, load_cpu)
            spent = server.cpu_ns() - before
        if figures["status"] != 0:
            raise rig.Failed("%s: the load generator saw %d errors, %d of %d requests answered"
                             % (self.name, figures["errors"], figures["replies"],
                                figures["requests"]))
        # Connecting and warm-up are in both: some 25 us a connection, spread over the requests.
        figures["cpu_ns"] = spent / (figures["replies"] + figures["warm_up_replies"])
        return figures


def contenders_make(args, server_cpu, driver):
    epoll = rig.need(os.path.join(args.build, "perf", "rivals", "epoll", "echo"))
    found = [Contender(BASE, [epoll], idle="park", driver="epoll")]
    for rival in args.rival:
        name, _, command = rival.partition("=")
        if not command:
            raise rig.Failed("--rival takes NAME=COMMAND, not \"%s\"" % rival)
        found.append(Contender(name, shlex.split(command)))
    echo = rig.need(os.path.join(args.build, "examples", "echo"))
    for idle in args.idle.split(","):
        environment = {"WEFT_WORKERS": "1", "WEFT_CPUS": str(server_cpu), "WEFT_IDLE": idle}
        if args.driver:
            environment["WEFT_DRIVER"] = args.driver
        found.append(Contender("weft", [echo], environment, idle, args.driver or driver))
    return found


def rounds_run(args, contenders, title, cpus, progress):
    """A list of figures for each contender, one per round."""
    load = rig.need(os.path.join(args.build, "perf", "load"))
    arguments = [*LOADS[title], "--size", args.size]
    arguments += ["--requests", args.requests] if args.requests else ["--duration", args.seconds]
    if args.client_spin:
        arguments.append("--spin")
    taken = [[] for _ in contenders]
    for number in range(args.rounds):
        order = list(range(len(contenders)))
        order = order[number % len(order):] + order[:number % len(order)]
        for index in order if number % 2 == 0 else reversed(order):
            progress.show("%s: round %d of %d: %s, idle %s" % (
                title, number + 1, args.rounds, contenders[index].name, contenders[index].idle))
            taken[index].append(contenders[index].measure(load, arguments, *cpus))
    progress.clear()
    return taken


def median_of(runs, key):
    return statistics.median(run[key] for run in runs)


def ratio_of(runs, base, key):
    """Median and spread of the ratios inside each round."""
    ratios = [run[key] / other[key] for run, other in zip(runs, base)]
    median = statistics.median(ratios)
    return median, statistics.median(abs(ratio - median) for ratio in ratios)


def row_make(title, contender, runs, base):
    row = {"load": title, "server": contender.name, "idle": contender.idle,
           "driver": contender.driver, "rounds": len(runs)}
    for key in ("replies_per_s", "p50_ns", "p99_ns", "p999_ns", "max_ns", "cpu_ns"):
        row[key] = median_of(runs, key)
    for key, short in (("replies_per_s", "rate"), ("cpu_ns", "cpu"), ("p99_ns", "p99")):
        row[short + "_ratio"], row[short + "_spread"] = ratio_of(runs, base, key)
    return row


HEAD = "%-14s %-12s %-9s %-7s %10s %8s %8s %8s %9s %8s   %-12s %-12s %-12s" % (
    "load", "server", "idle", "driver", "replies/s", "p50 us", "p99", "p99.9", "max", "CPU us",
    "rate ratio", "CPU ratio", "p99 ratio")


def row_print(row):
    ratios = ["%5.2f ±%.2f" % (row[name + "_ratio"], row[name + "_spread"])
              for name in ("rate", "cpu", "p99")]
    if row["server"] == BASE:
        ratios = ["    1"] * 3
    print("%-14s %-12s %-9s %-7s %10.0f %8.1f %8.1f %8.1f %9.1f %8.2f   %-12s %-12s %-12s" % (
        row["load"], row["server"], row["idle"], row["driver"], row["replies_per_s"],
        row["p50_ns"] / 1e3, row["p99_ns"] / 1e3, row["p999_ns"] / 1e3, row["max_ns"] / 1e3,
        row["cpu_ns"] / 1e3, *ratios), flush=True)


def main():
    args = parse_arguments()
    head, driver = library_driver(rig.need(os.path.join(args.build, "perf", "bench")))
    cpus = cpus_choose()
    contenders = contenders_make(args, cpus[0], driver)
    progress = rig.Progress()
    if not args.json:
        print(head.rstrip())
        print("servers   one thread on CPU %d each, load generator on CPU %d%s; %d-byte messages\n"
              "rounds    %d of %g s after 0.5 s of warm-up, all servers in each; medians; ratios to"
              " the %s, ± their spread\n"
              "          CPU: of the server per request, meaningless for idle=spin\n"
              % (*cpus, " (spinning)" if args.client_spin else "", args.size, args.rounds,
                 args.seconds, BASE))
        print(HEAD, flush=True)
    for title in args.load or LOADS:
        taken = rounds_run(args, contenders, title, cpus, progress)
        for contender, runs in zip(contenders, taken):
            row = row_make(title, contender, runs, taken[0])
            if args.json:
                print(json.dumps(row), flush=True)
            else:
                row_print(row)
    return 0


if __name__ == "__main__":
    rig.main(main)
