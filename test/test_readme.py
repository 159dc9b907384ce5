"""What the READMEs show compiles against an installed library, and does what they say.

Method: outside the tree, through pkg-config. The server under "Your first server" is started on a
port of the kernel's choice, spoken to, and ended as its users will end it. Every other C block is a
program, or functions of one: it must compile without a warning; a program that has its output shown
(a block marked "text" follows it) is run, and prints just that.
"""

import glob
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
OUTPUTS_SHOWN_MIN = 12  # programs whose output the READMEs show


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


def readmes():
    """Those of the library; test/ has its own ways to write a program."""
    paths = glob.glob(os.path.join(ROOT, "*", "README.md"))
    return [os.path.join(ROOT, "README.md"),
            *sorted(path for path in paths if os.path.basename(os.path.dirname(path)) != "test")]


def blocks(path):
    """(line, program, output or None) of each C block."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    pattern = r"^```c\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?"
    for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 2, match.group(1), match.group(2)


class Readme(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        cls.place = cls.directory.name
        subprocess.run([sys.executable, "configure.py", "--build-dir=" + BUILD, "--install",
                        "--prefix=" + cls.place], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        cls.env = {**os.environ, "PKG_CONFIG_PATH": cls.place + "/lib/pkgconfig",
                   "LD_LIBRARY_PATH": cls.place + "/lib"}
        cls.env.pop("DESTDIR", None)
        cls.flags = shlex.split(subprocess.run(
            ["pkg-config", "--cflags", "--libs", "weft"], env=cls.env, check=True,
            stdout=subprocess.PIPE, text=True).stdout)

    def compile(self, name, text, *options):
        source = os.path.join(self.place, name + ".c")
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        done = subprocess.run(
            ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", *options, source, "-o",
             os.path.join(self.place, name), *self.flags], env=self.env,
            stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return os.path.join(self.place, name)

    def test_every_block_of_c_compiles_and_prints_what_is_shown(self):
        shown = 0
        for path in readmes():
            for line, text, output in blocks(path):
                with self.subTest("%s:%d" % (os.path.relpath(path, ROOT), line)):
                    text = '#line %d "%s"\n' % (line, path) + text
                    if not re.search(r"^int main\(", text, re.MULTILINE):
                        self.compile("block", text, "-c", "-Wno-unused-function")
                        continue
                    program = self.compile("block", text)
                    if output is None:
                        continue
                    done = subprocess.run([program], env=self.env, stdout=subprocess.PIPE,
                                          text=True, timeout=SECONDS, check=False)
                    self.assertEqual((done.returncode, done.stdout), (0, output))
                    shown += 1
        self.assertGreaterEqual(shown, OUTPUTS_SHOWN_MIN)

    def test_the_first_server_echoes_and_ends_on_sigterm(self):
        self.serve([self.compile("server", first_server()), "tcp:127.0.0.1:0"])

    def serve(self, command):
        with subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL,
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
