"""The server that README.md shows builds from an installed library, and serves.

Method: the C block under "Your first server" is compiled outside the tree through pkg-config,
started on a port of the kernel's choice, spoken to, and ended as its users will end it.
"""

import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("WEFT_BUILD_DIR", "build")
HEADING = "## Your first server"
SECONDS = 600  # for what hangs


def first_server():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = file.read().split("\n%s\n" % HEADING, 1)[1]
    section = re.split(r"\n## ", section)[0]
    return re.search(r"\n```c\n(.*?)\n```\n", section, re.DOTALL).group(1) + "\n"


def line_of(stream):
    """One line, or what came of it before the time was up."""
    text = b""
    while not text.endswith(b"\n") and select.select([stream], [], [], SECONDS)[0]:
        piece = os.read(stream.fileno(), 1)
        if not piece:
            break
        text += piece
    return text.decode()


class Readme(unittest.TestCase):
    def test_the_first_server_echoes_and_ends_on_sigterm(self):
        with tempfile.TemporaryDirectory() as place:
            subprocess.run([sys.executable, "configure.py", "--build-dir=" + BUILD, "--install",
                            "--prefix=" + place], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            env = {**os.environ, "PKG_CONFIG_PATH": place + "/lib/pkgconfig",
                   "LD_LIBRARY_PATH": place + "/lib"}
            env.pop("DESTDIR", None)
            with open(os.path.join(place, "server.c"), "w", encoding="utf-8") as file:
                file.write(first_server())
            flags = subprocess.run(["pkg-config", "--cflags", "--libs", "weft"], env=env,
                                   check=True, stdout=subprocess.PIPE, text=True).stdout
            subprocess.run(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "server.c",
                            "-o", "server", *shlex.split(flags)], cwd=place, env=env, check=True)
            self.serve([os.path.join(place, "server"), "tcp:127.0.0.1:0"], env)

    def serve(self, command, env):
        with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as server:
            try:
                line = line_of(server.stdout)
                match = re.fullmatch(r"listening on tcp:127\.0\.0\.1:(\d+)\n", line)
                self.assertIsNotNone(match, line)
                address = ("127.0.0.1", int(match.group(1)))
                with socket.create_connection(address, SECONDS) as client:
                    for message in (b"hello\n", b"x" * 100000):
                        client.sendall(message)
                        answer = b""
                        while len(answer) < len(message):
                            piece = client.recv(65536)
                            self.assertTrue(piece, "closed after %d bytes" % len(answer))
                            answer += piece
                        self.assertEqual(answer, message)
                server.send_signal(signal.SIGTERM)
                self.assertEqual(server.wait(SECONDS), 0)
            finally:
                server.kill()
