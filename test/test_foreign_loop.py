"""examples/foreign_loop: a clock and an embedded runtime in one poll() loop of somebody else's.

Method: the program says each tick of its clock, and at its end how often its poll() has returned.
Both have made progress when an echo and a tick have come in turn, again and again; and the loop
sleeps if it woke up only a few times for each. A loop that spins wakes up a hundred thousand times
for a tick. No test waits for a time, only for lines, bytes and the program's end.
"""

import os
import re
import signal
import socket
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODE = os.environ.get("WEFT_BUILD_MODE", "dev")
PROGRAM = os.path.join(ROOT, os.environ.get("WEFT_BUILD_DIR", "build"), MODE, "examples",
                       "foreign_loop")
PATIENCE_S = 600
ROUNDS = 10
# For each tick or message: one to be woken, some for what the runtime does behind the scenes.
WAKEUPS_EACH_MAX = 20
WAKEUPS_ASIDE_MAX = 200


class Loop:
    def __init__(self, *args):
        self.process = subprocess.Popen([PROGRAM, *args], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on tcp:127\.0\.0\.1:(\d+)\n", self.line)
        self.port = int(match.group(1)) if match else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def tick(self):
        return int(re.fullmatch(r"tick (\d+)\n", self.process.stdout.readline()).group(1))

    def counts(self):
        """After its end: ticks, messages, wake-ups."""
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        assert (self.process.returncode, errors) == (0, ""), (self.process.returncode, errors)
        line = out.splitlines()[-1]
        return tuple(map(int, re.fullmatch(r"ticks (\d+) messages (\d+) wakeups (\d+)",
                                           line).groups()))


def receive(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


class ForeignLoop(unittest.TestCase):
    def sleeps(self, ticks, messages, wakeups):
        """Ticks are 100 ms apart, so each was slept for; and hardly more than that."""
        self.assertLessEqual(wakeups, WAKEUPS_EACH_MAX * (ticks + messages) + WAKEUPS_ASIDE_MAX)
        self.assertGreaterEqual(wakeups, ticks, "it slept before each")

    def test_clock_and_runtime_go_on_side_by_side_and_the_loop_sleeps(self):
        with Loop("tcp:127.0.0.1:0", "3600000") as loop:
            with loop.connect() as one, loop.connect() as other:
                for n in range(1, ROUNDS + 1):
                    for sock in (one, other):
                        sock.sendall(b"message %d" % n)
                        self.assertEqual(receive(sock, len(b"message %d" % n)),
                                         b"message %d" % n)
                    self.assertEqual(loop.tick(), n)
            loop.process.send_signal(signal.SIGTERM)
            ticks, messages, wakeups = loop.counts()
            self.assertGreaterEqual(ticks, ROUNDS)
            self.assertGreaterEqual(messages, 2 * ROUNDS)
            self.sleeps(ticks, messages, wakeups)

    def test_the_clock_ends_it_when_nobody_speaks(self):
        with Loop("tcp:127.0.0.1:0", "350") as loop:
            ticks, messages, wakeups = loop.counts()
            self.assertGreaterEqual(ticks, 1)
            self.assertEqual(messages, 0)
            self.sleeps(ticks, messages, wakeups)

    def test_it_ends_with_a_connection_open(self):
        with Loop("tcp:127.0.0.1:0") as loop, loop.connect() as sock:
            sock.sendall(b"x")
            self.assertEqual(receive(sock, 1), b"x")
            loop.process.send_signal(signal.SIGINT)
            self.assertEqual(receive(sock, 1), b"", "closed, when its grace is over")
            self.assertEqual(loop.counts()[1], 1)

    def test_what_cannot_begin_is_one_line(self):
        for status, arguments in ((2, ["tcp:127.0.0.1:0", "0"]), (2, ["a", "1", "b"]),
                                  (1, ["nonsense"])):
            result = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True,
                                    timeout=PATIENCE_S, check=False)
            self.assertEqual(result.returncode, status, result)
            self.assertEqual(len(result.stderr.splitlines()), 1, result)
