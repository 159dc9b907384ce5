"""examples/echo, as a program: what it prints, serves and returns.

Method: the program of this build mode on a port of the kernel's choice; clients are sockets of this
script. No test waits for a time, only for lines, bytes and the program's end.
"""

import os
import re
import signal
import socket
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ECHO = os.path.join(ROOT, os.environ.get("WEFT_BUILD_DIR", "build"),
                    os.environ.get("WEFT_BUILD_MODE", "dev"), "examples", "echo")
PATIENCE_S = 600


def receive(sock, size):
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


class Echo:
    def __init__(self, *args, **environment):
        self.process = subprocess.Popen([ECHO, *args], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment})
        self.line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on tcp:(\S+):(\d+)\n", self.line)
        self.port = int(match.group(2)) if match else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def connect(self, family=socket.AF_INET):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE_S)
        sock.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", self.port))
        return sock

    def end(self, number=signal.SIGTERM):
        """Status and what it wrote to standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors


def fails(*args):
    return subprocess.run([ECHO, *args], capture_output=True, text=True, timeout=PATIENCE_S,
                          check=False)


class EchoTest(unittest.TestCase):
    def test_it_echoes_on_ipv4_and_ipv6(self):
        with Echo("tcp:[::]:0") as echo:
            families = [socket.AF_INET]
            if echo.line.startswith("listening on tcp:[::]:"):
                families.append(socket.AF_INET6)
            for family in families:
                with echo.connect(family) as sock:
                    for size in (1, 7, 4096, 100000):
                        data = os.urandom(size)
                        sock.sendall(data)
                        self.assertEqual(receive(sock, size), data)
            self.assertEqual(echo.end(), (0, ""))

    def test_many_connections_on_each_number_of_workers(self):
        for workers in ("1", "2"):
            with Echo("tcp:127.0.0.1:0", WEFT_WORKERS=workers) as echo:
                socks = [echo.connect() for _ in range(50)]
                for number, sock in enumerate(socks):
                    sock.sendall(b"%d" % number)
                for number, sock in enumerate(socks):
                    self.assertEqual(receive(sock, len(b"%d" % number)), b"%d" % number)
                for sock in socks:
                    sock.close()
                self.assertEqual(echo.end(), (0, ""))

    def test_end_of_stream_comes_back_after_the_data(self):
        with Echo("tcp:127.0.0.1:0") as echo, echo.connect() as sock:
            data = os.urandom(30000)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(receive(sock, len(data) + 1), data)

    def test_sigterm_refuses_new_connections_and_serves_the_old(self):
        with Echo("tcp:127.0.0.1:0") as echo, echo.connect() as sock:
            sock.sendall(b"before")
            self.assertEqual(receive(sock, 6), b"before")
            echo.process.send_signal(signal.SIGTERM)
            while True:
                try:
                    echo.connect().close()
                except (ConnectionRefusedError, ConnectionResetError):
                    break
            sock.sendall(b"after")
            self.assertEqual(receive(sock, 5), b"after")
            sock.close()
            _, errors = echo.process.communicate(timeout=PATIENCE_S)
            self.assertEqual((echo.process.returncode, errors), (0, ""))

    def test_a_second_signal_ends_it_at_once(self):
        with Echo("tcp:127.0.0.1:0") as echo, echo.connect() as sock:
            sock.sendall(b"x")
            self.assertEqual(receive(sock, 1), b"x")
            echo.process.send_signal(signal.SIGINT)
            while True:
                try:
                    echo.connect().close()
                except (ConnectionRefusedError, ConnectionResetError):
                    break
            status, _ = echo.end(signal.SIGINT)
            self.assertEqual(status, 0)
            self.assertEqual(receive(sock, 1), b"")

    def test_a_malformed_address_is_one_line_and_status_1(self):
        for address in ("nonsense", "tcp:1.2.3.4", "tcp:127.0.0.1:99999", "udp:127.0.0.1:1", ""):
            with self.subTest(address=address):
                result = fails(address)
                self.assertEqual(result.returncode, 1)
                self.assertEqual(result.stdout, "")
                self.assertRegex(result.stderr, r"\A%s: [^\n]+\n\Z" % re.escape(address))

    def test_a_port_in_use_is_one_line_and_status_1(self):
        for shared in (False, True):
            with socket.socket() as other:
                if shared:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind(("127.0.0.1", 0))
                other.listen()
                address = "tcp:127.0.0.1:%d" % other.getsockname()[1]
                result = fails(address)
                self.assertEqual(result.returncode, 1)
                self.assertRegex(result.stderr,
                                 r"(?i)\A%s: [^\n]*in use[^\n]*\n\Z" % re.escape(address))

    def test_it_is_short(self):
        with open(os.path.join(ROOT, "examples", "echo.c"), encoding="utf-8") as file:
            self.assertLessEqual(len(file.readlines()), 30)
