"""examples/echo and echo_task, as programs: what they print, serve and return.

Method: the program of this build mode on a port of the kernel's choice; clients are sockets of this
script. No test waits for a time, only for lines, bytes and the program's end.
"""

import os
import re
import resource
import select
import signal
import socket
import subprocess
import threading
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODE = os.environ.get("WEFT_BUILD_MODE", "dev")
EXAMPLES = os.path.join(ROOT, os.environ.get("WEFT_BUILD_DIR", "build"), MODE, "examples")
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
    def __init__(self, program, *args, **environment):
        self.process = subprocess.Popen([os.path.join(EXAMPLES, program), *args], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
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


def fails(program, *args):
    return subprocess.run([os.path.join(EXAMPLES, program), *args], capture_output=True,
                          text=True, timeout=PATIENCE_S, check=False)


class Programs:
    """What both do. PROGRAM: which one."""

    def test_it_echoes_on_ipv4_and_ipv6(self):
        with Echo(self.PROGRAM, "tcp:[::]:0") as echo:
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
            with Echo(self.PROGRAM, "tcp:127.0.0.1:0", WEFT_WORKERS=workers) as echo:
                socks = [echo.connect() for _ in range(50)]
                for number, sock in enumerate(socks):
                    sock.sendall(b"%d" % number)
                for number, sock in enumerate(socks):
                    self.assertEqual(receive(sock, len(b"%d" % number)), b"%d" % number)
                for sock in socks:
                    sock.close()
                self.assertEqual(echo.end(), (0, ""))

    def test_end_of_stream_comes_back_after_the_data(self):
        with Echo(self.PROGRAM, "tcp:127.0.0.1:0") as echo, echo.connect() as sock:
            data = os.urandom(30000)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(receive(sock, len(data) + 1), data)

    def test_sigterm_refuses_new_connections_and_serves_the_old(self):
        with Echo(self.PROGRAM, "tcp:127.0.0.1:0") as echo, echo.connect() as sock:
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
        with Echo(self.PROGRAM, "tcp:127.0.0.1:0") as echo, echo.connect() as sock:
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
                result = fails(self.PROGRAM, address)
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
                result = fails(self.PROGRAM, address)
                self.assertEqual(result.returncode, 1)
                self.assertRegex(result.stderr,
                                 r"(?i)\A%s: [^\n]*in use[^\n]*\n\Z" % re.escape(address))

    def test_a_client_that_does_not_read_gets_all_of_it_later(self):
        with Echo(self.PROGRAM, "tcp:127.0.0.1:0") as echo, echo.connect() as sock:
            data = os.urandom(1 << 20) * 8
            sender = threading.Thread(target=sock.sendall, args=(data,))
            sender.start()
            while not select.select([sock], [], [], PATIENCE_S)[0]:
                pass
            self.assertEqual(receive(sock, len(data)), data)
            sender.join()


class EchoTest(Programs, unittest.TestCase):
    PROGRAM = "echo"

    def test_it_is_short(self):
        with open(os.path.join(ROOT, "examples", "echo.c"), encoding="utf-8") as file:
            self.assertLessEqual(len(file.readlines()), 30)


def resident_bytes(process):
    with open("/proc/%d/status" % process.pid, encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+) kB", file.read()).group(1)) * 1024


class EchoTaskTest(Programs, unittest.TestCase):
    PROGRAM = "echo_task"

    def test_an_idle_connection_is_small(self):
        # At most 400 bytes each, beside the kernel's. The first hundred bring what all share, and
        # there are more than the process table has room for at first.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = min(9000, hard - 100)
        if MODE not in ("dev", "release") or count < 1000:
            self.skipTest("memory is the sanitizer's, or there are too few descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
        with Echo(self.PROGRAM, "tcp:127.0.0.1:0", WEFT_WORKERS="1") as echo:
            self.hold(echo, 100)
            before = resident_bytes(echo.process)
            socks = self.hold(echo, count)
            each = (resident_bytes(echo.process) - before) / count
            self.assertLessEqual(each, 400)
            for sock in socks:
                sock.close()
            self.assertEqual(echo.end(), (0, ""))

    def hold(self, echo, count):
        """Connections that have been served once, and are idle."""
        socks = [echo.connect() for _ in range(count)]
        for sock in socks:
            sock.sendall(b"once")
        for sock in socks:
            self.assertEqual(receive(sock, 4), b"once")
        return socks
