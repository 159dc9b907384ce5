#!/usr/bin/env python3
"""ninja demo: starts the echo example, loads it, shows what it did, stops it gracefully.

Everything is checked: every reply equals its request, none is missing, percentiles are in order;
at the end SIGTERM must let an open connection finish, refuse new ones, and end the server with
status 0.
Takes about 15 seconds.
"""

import argparse
import os
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402

LOADS = [
    ("closed loop, 1 connection", ["--connections", 1]),
    ("closed loop, 64 connections", ["--connections", 64]),
    ("open loop, 10,000/s on 64", ["--connections", 64, "--rate", 10000]),
]
PERCENTILES = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"]
DRAIN_SECONDS = 60


def host_port(address):
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    host = host.strip("[]")
    return {"::": "::1", "0.0.0.0": "127.0.0.1"}.get(host, host), int(port)


def echo_once(connection, text):
    """Sends and expects the same back."""
    connection.sendall(text)
    got = b""
    while len(got) < len(text):
        part = connection.recv(len(text) - len(got))
        if not part:
            raise rig.Failed("the server closed a connection that still had a request")
        got += part
    if got != text:
        raise rig.Failed("the server answered %r with %r" % (text, got))


def wait_refused(address):
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(host_port(address), DRAIN_SECONDS).close()
        except OSError:
            return
        time.sleep(0.01)
    raise rig.Failed("the server still accepts connections %d s after SIGTERM" % DRAIN_SECONDS)


def drain(server):
    """SIGTERM with a connection open: it is served to its end, new ones are refused."""
    with socket.create_connection(host_port(server.address), DRAIN_SECONDS) as connection:
        echo_once(connection, b"before SIGTERM")
        server.terminate()
        wait_refused(server.address)
        echo_once(connection, b"after SIGTERM")
    status = server.stop()
    if status != 0:
        raise rig.Failed("the server ended with status %d%s" % (status, server.said()))


def problems(figures):
    """What is wrong with a run, as texts."""
    found = []
    if figures["requests"] == 0 or figures["replies"] != figures["requests"]:
        found.append("%d requests, %d replies" % (figures["requests"], figures["replies"]))
    if figures["errors"]:
        found.append("errors: " + ", ".join("%s %d" % (kind, count) for kind, count
                                            in figures["errors_by_kind"].items() if count))
    values = [figures[name] for name in PERCENTILES]
    if values != sorted(values):
        found.append("percentiles out of order: %s" % values)
    if figures["status"] != 0 and not found:
        found.append("load ended with status %d" % figures["status"])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release",
                        help="where the programs are [%(default)s]")
    parser.add_argument("--seconds", type=float, default=3, help="of each load [%(default)s]")
    args = parser.parse_args()
    load = rig.need(os.path.join(args.build, "perf", "load"))
    progress = rig.Progress()
    rows, wrong = [], []
    with rig.Server([rig.need(os.path.join(args.build, "examples", "echo")),
                     "tcp:127.0.0.1:0"]) as server:
        print("echo is listening on %s\n" % server.address, flush=True)
        for title, arguments in LOADS:
            figures = rig.run_load(load, server.address, [*arguments, "--duration", args.seconds],
                                   progress=lambda line, title=title: progress.show(
                                       "  %-28s %s" % (title, line.removeprefix("load: "))))
            progress.clear()
            wrong += ["%s: %s" % (title, text) for text in problems(figures)]
            rows.append((title, figures))
        drain(server)
    print("%-28s %9s %9s %6s %10s   %8s %8s %8s %8s %8s" % (
        "64-byte messages", "requests", "replies", "errors", "replies/s",
        "p50 us", "p90", "p99", "p99.9", "max"))
    for title, figures in rows:
        print("%-28s %9d %9d %6d %10.0f   %8.1f %8.1f %8.1f %8.1f %8.1f" % (
            title, figures["requests"], figures["replies"], figures["errors"],
            figures["replies_per_s"], *(figures[name] / 1e3 for name in PERCENTILES)))
    print("\nOn SIGTERM the open connection was served to its end, new ones were refused,\n"
          "and the server ended with status 0.")
    for text in wrong:
        print("demo.py: " + text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    rig.main(main)
