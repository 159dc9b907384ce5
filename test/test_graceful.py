"""X6: examples/graceful, as a program: SIGTERM under load loses no request that it has accepted.

Method: perf/load counts the answers that arrive, the server the requests it has received and
answered: all three are one number. The server listens on 127.0.0.2, so that clients who try again
after its end cannot be connected to themselves. No test waits for a time, only for lines, bytes and
the program's end.
"""

import json
import os
import re
import signal
import socket
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("WEFT_BUILD_DIR", "build"))
SERVER = os.path.join(BUILD, os.environ.get("WEFT_BUILD_MODE", "dev"), "examples", "graceful")
LOAD = os.path.join(BUILD, "release", "perf", "load")
HOST = "127.0.0.2"
SIZE = 64
PATIENCE_S = 600


class Server:
    def __init__(self):
        self.process = subprocess.Popen([SERVER, "tcp:%s:0" % HOST, str(SIZE)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "WEFT_WORKERS": "2"})
        line = self.process.stdout.readline()
        self.port = int(re.fullmatch(r"listening on tcp:\S+:(\d+)\n", line).group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def connect(self):
        sock = socket.socket()
        sock.settimeout(PATIENCE_S)
        sock.connect((HOST, self.port))
        return sock

    def stop(self):
        self.process.send_signal(signal.SIGTERM)

    def refuses(self):
        try:
            self.connect().close()
        except (ConnectionRefusedError, ConnectionResetError):
            return True
        return False

    def counts(self):
        """After its end: what it has received and answered; it says nothing else."""
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        assert (self.process.returncode, errors) == (0, ""), (self.process.returncode, errors)
        return tuple(map(int, re.fullmatch(r"received (\d+) answered (\d+)\n", out).groups()))


def receive(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


class GracefulTest(unittest.TestCase):
    def stops_under_load(self, *options):
        with Server() as server:
            load = subprocess.Popen(
                [LOAD, "--size", str(SIZE), "--warm-up", "0", "--duration", "2", "--timeout", "5",
                 "--json", "--progress", *options, "tcp:%s:%d" % (HOST, server.port)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                self.assertTrue(load.stderr.readline(), "load has begun, and goes on")
                server.stop()
                received, answered = server.counts()
                out, _ = load.communicate(timeout=PATIENCE_S)
            finally:
                load.kill()
                load.communicate()
        result = json.loads(out)
        self.assertGreater(answered, 0)
        self.assertEqual(answered, received)
        self.assertEqual(result["replies"] + result["warm_up_replies"], answered)
        for kind in ("reset", "timeout", "corrupt", "extra"):
            self.assertEqual(result["errors_by_kind"][kind], 0, result)

    @unittest.skipUnless(os.path.exists(LOAD), "perf/load is not built")
    def test_no_accepted_request_is_lost_by_a_closed_loop(self):
        self.stops_under_load("--connections", "32")

    @unittest.skipUnless(os.path.exists(LOAD), "perf/load is not built")
    def test_no_accepted_request_is_lost_by_an_open_loop(self):
        self.stops_under_load("--connections", "16", "--depth", "4", "--rate", "2000")

    def test_a_request_in_progress_is_answered_and_new_connections_are_refused(self):
        request = os.urandom(SIZE)
        with Server() as server, server.connect() as sock:
            sock.sendall(request[:SIZE // 2])
            # An answer to another shows that this connection is served too: it came earlier.
            with server.connect() as other:
                other.sendall(request)
                self.assertEqual(receive(other, SIZE), request)
            server.stop()
            while not server.refuses():
                pass
            sock.sendall(request[SIZE // 2:])
            self.assertEqual(receive(sock, SIZE + 1), request)
            sock.close()
            self.assertEqual(server.counts(), (2, 2))

    def test_an_idle_connection_is_told(self):
        with Server() as server, server.connect() as sock:
            sock.sendall(b"x" * SIZE)
            self.assertEqual(receive(sock, SIZE), b"x" * SIZE)
            server.stop()
            self.assertEqual(receive(sock, 1), b"")
            sock.close()
            self.assertEqual(server.counts(), (1, 1))

    def test_a_wrong_command_line_is_one_line_and_status_2(self):
        for arguments in (["tcp:127.0.0.2:0", "0"], ["tcp:127.0.0.2:0", "4097"], ["a", "1", "b"]):
            result = subprocess.run([SERVER, *arguments], capture_output=True, text=True,
                                    timeout=PATIENCE_S, check=False)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertEqual(len(result.stderr.splitlines()), 1)
