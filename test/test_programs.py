"""The echo server from outside: bad input, exhausted limits, small machines.

Each case gives the exact line on stderr and the exit status. Nothing but the server's own answers
and the kernel's view of it (threads, descriptors, processor time) decides.
"""

import os
import re
import resource
import select
import signal
import socket
import subprocess
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RELEASE = os.path.join(ROOT, os.environ.get("WEFT_BUILD_DIR", "build"), "release")
ECHO = os.path.join(RELEASE, "examples", "echo")
CPU_CGROUP = "/sys/fs/cgroup/cpu"
SECONDS = 600  # for what hangs


def environment(**variables):
    env = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
    return {**env, **variables}


def run(*arguments, **variables):
    return subprocess.run([ECHO, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
                          env=environment(**variables))


class Server:
    """A running echo server; SIGTERM at the end of the `with`."""

    def __init__(self, prepare=None, address="tcp:127.0.0.1:0", **variables):
        self.process = subprocess.Popen([ECHO, address], stdin=subprocess.DEVNULL, text=False,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=prepare, env=environment(**variables))
        line = self.line(self.process.stdout)
        match = re.fullmatch(r"listening on tcp:(.*):(\d+)\n", line)
        if not match:
            self.process.kill()
            raise AssertionError("no address in %r; it said %r"
                                 % (line, self.process.communicate()[1]))
        self.port = int(match.group(2))

    @staticmethod
    def line(stream):
        text = b""
        while not text.endswith(b"\n") and select.select([stream], [], [], SECONDS)[0]:
            piece = os.read(stream.fileno(), 1)
            if not piece:
                break
            text += piece
        return text.decode()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), SECONDS)

    def threads(self):
        names = []
        for thread in os.listdir("/proc/%d/task" % self.process.pid):
            path = "/proc/%d/task/%s/comm" % (self.process.pid, thread)
            with open(path, encoding="ascii") as file:
                names.append(file.read().strip())
        return names

    def workers(self):
        return sum(1 for name in self.threads() if re.fullmatch(r"weft/.*/\d+", name))

    def ticks(self):
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, errors.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def echoes(connection, text=b"hello"):
    connection.sendall(text)
    got = b""
    while len(got) < len(text):
        piece = connection.recv(len(text) - len(got))
        if not piece:
            break
        got += piece
    return got == text


class BadInput(unittest.TestCase):
    def refused(self, done, line):
        self.assertEqual(done.stderr, line + "\n")
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.returncode, 1)

    def test_a_port_in_use_is_an_error_also_by_another_echo(self):
        with Server() as server:
            address = "tcp:127.0.0.1:%d" % server.port
            self.refused(run(address), address + ": Address already in use")
            with server.connect() as connection:
                self.assertTrue(echoes(connection))

    def test_a_port_in_use_without_reuseport_is_an_error(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = "tcp:127.0.0.1:%d" % other.getsockname()[1]
            self.refused(run(address), address + ": Address already in use")

    def test_malformed_addresses(self):
        for address in ("nonsense", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:99999", "tcp:[::1:80",
                        "udp:127.0.0.1:80", "tcp:127.0.0.1:-1", "tcp:127.0.0.1:8x"):
            with self.subTest(address=address):
                self.refused(run(address), address + ": Invalid argument")

    def test_an_address_that_is_not_ours(self):
        self.refused(run("tcp:192.0.2.1:80"), "tcp:192.0.2.1:80: Cannot assign requested address")

    def test_unknown_options(self):
        for variables, line in (
                ({"WEFT_WORKERS": "99"}, "weft: error: workers: 99 workers are more than the 48 "
                                         "this build allows: Invalid argument"),
                ({"WEFT_WORKERS": "two"}, "weft: error: WEFT_WORKERS is not a number of workers: "
                                          "Invalid argument"),
                ({"WEFT_WORKERS": "0"}, "weft: error: WEFT_WORKERS is not a number of workers: "
                                          "Invalid argument"),
                ({"WEFT_CPUS": "3-"}, "weft: error: cpus: malformed CPU list \"3-\": "
                                      "Invalid argument"),
                ({"WEFT_CPUS": "1023"}, "weft: error: cpus: CPU 1023 of the list \"1023\" is not "
                                        "available: No such device"),
                ({"WEFT_CPUS": "0", "WEFT_WORKERS": "2"},
                 "weft: error: cpus: 2 workers, but the list \"0\" has 1 CPUs: No such device"),
                ({"WEFT_IDLE": "lazy"}, "weft: error: WEFT_IDLE is none of adaptive, park, spin: "
                                        "Invalid argument"),
                ({"WEFT_LOG": "loud"}, "weft: error: WEFT_LOG is none of error, warn, info, debug: "
                                       "Invalid argument"),
                ({"WEFT_DRIVER": "pigeon"}, "weft: error: driver: unknown driver \"pigeon\": "
                                            "No such device")):
            with self.subTest(**variables):
                self.refused(run("tcp:127.0.0.1:0", **variables), line)

    def test_an_unknown_name(self):
        address = "tcp:no-such-host.invalid:80"
        done = run(address)
        if "unknown name" not in done.stderr:
            self.skipTest("no name service that knows what does not exist: " + done.stderr)
        self.refused(done, address + ": unknown name")

    def test_too_few_descriptors_to_start(self):
        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
        done = subprocess.run([ECHO, "tcp:127.0.0.1:0"], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=few,
                              timeout=SECONDS, check=False, env=environment())
        self.refused(done, "weft: error: signal: no descriptors for signals: Too many open files")

    def under(self, limit):
        """Starts it under `ulimit LIMIT`: (listened, exit status after SIGTERM, lines)."""
        command = ["sh", "-c", 'ulimit %s && exec "$0" tcp:127.0.0.1:0' % limit, ECHO]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=environment()) as process:
            listened = Server.line(process.stdout).startswith("listening on ")
            if listened:
                process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=SECONDS)
            self.assertEqual(rest, b"")
            return listened, process.returncode, errors.decode().splitlines()

    def all_or_nothing(self, limit):
        """Either it serves and has nothing to say, or it ends with status 1 and says why."""
        listened, status, lines = self.under(limit)
        with self.subTest(limit=limit, listened=listened, status=status, lines=lines):
            if listened:
                self.assertEqual((status, lines), (0, []))
            else:
                self.assertEqual(status, 1)
                self.assertTrue(lines, "not a word")
                self.assertRegex(lines[0], r"^(weft: error: .*[^:]|tcp:127\.0\.0\.1:0: [^:]+)$")

    def test_descriptors_for_a_part_of_the_start_are_one_line(self):
        for count in range(4, 64):
            listened, status, lines = self.under("-n %d" % count)
            if listened:
                self.assertEqual(status, 0)
                return
            self.assertEqual((status, len(lines)), (1, 1), lines)
            self.assertRegex(lines[0], r"^(weft: error: signal: no descriptors for signals: "
                                       r"Too many open files"
                             r"|weft: error: worker \d+: driver: driver epoll cannot be opened"
                             r": Too many open files|tcp:127\.0\.0\.1:0: Too many open files)$")
        self.fail("it never started")

    def test_memory_for_a_part_of_the_start_is_no_start(self):
        enough = next(kb for kb in range(16384, 1 << 20, 1024) if self.under("-v %d" % kb)[0])
        for kb in range(enough - 2048, enough + 1025, 32):
            self.all_or_nothing("-v %d" % kb)


class Limits(unittest.TestCase):
    def test_the_descriptor_limit_is_named_waited_out_and_costs_no_spinning(self):
        limit = 40

        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        with Server(few, WEFT_WORKERS="1") as server:
            # The kernel completes them all; the server accepts what it has descriptors for.
            held = [server.connect() for _ in range(limit)]
            line = server.line(server.process.stderr)
            self.assertRegex(line, r"all %d file descriptors are in use.*ulimit -n" % limit)
            before = server.ticks()
            time.sleep(0.5)  # what is measured: half a second of a server that has to wait
            spent = server.ticks() - before
            self.assertLess(spent, os.sysconf("SC_CLK_TCK") // 4, "ticks while it could only wait")
            for connection in held[:limit // 2]:
                connection.close()
            with server.connect() as connection:
                self.assertTrue(echoes(connection), "served once descriptors are free again")
            for connection in held[limit // 2:]:
                connection.close()
            status, _ = server.stop()
            self.assertEqual(status, 0)

    def test_a_cpuset_of_one_cpu_makes_one_worker(self):
        cpu = min(os.sched_getaffinity(0))

        def one():
            os.sched_setaffinity(0, {cpu})
        with Server(one) as server:
            self.assertEqual(server.workers(), 1)
            with server.connect() as connection:
                self.assertTrue(echoes(connection))
            self.assertEqual(server.stop(), (0, ""))

    def test_a_quota_of_half_a_cpu_makes_one_worker(self):
        group = "%s/weft-test-%d" % (CPU_CGROUP, os.getpid())
        try:
            os.mkdir(group)
        except OSError:
            self.skipTest("no cgroup of our own can be made here")
        try:
            try:
                with open(group + "/cpu.cfs_quota_us", "w", encoding="ascii") as file:
                    file.write("50000")
            except OSError:
                self.skipTest("no quota can be set here")

            def enter():
                with open(group + "/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(os.getpid()))
            with Server(enter) as server:
                self.assertEqual(server.workers(), 1)
                with server.connect() as connection:
                    for _ in range(200):
                        self.assertTrue(echoes(connection))
                self.assertEqual(server.stop(), (0, ""))
        finally:
            os.rmdir(group)

    def test_more_workers_than_cpus_is_allowed(self):
        with Server(WEFT_WORKERS="5") as server:
            self.assertEqual(server.workers(), 5)
            with server.connect() as connection:
                self.assertTrue(echoes(connection))
            self.assertEqual(server.stop(), (0, ""))


class Stopping(unittest.TestCase):
    @staticmethod
    def accepts(server):
        try:
            server.connect().close()
            return True
        except (ConnectionRefusedError, ConnectionResetError):
            return False

    def test_sigint_and_sigterm_end_it_with_status_0(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number), Server() as server:
                server.process.send_signal(number)
                self.assertEqual(server.process.wait(SECONDS), 0)

    def test_a_second_signal_ends_connections_at_once(self):
        with Server() as server, server.connect() as connection:
            self.assertTrue(echoes(connection))
            server.process.send_signal(signal.SIGTERM)
            # Until it has been taken: two of a kind that wait are one.
            while self.accepts(server):
                pass
            # Still served during the grace time.
            self.assertTrue(echoes(connection))
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(connection.recv(1), b"", "closed")
            self.assertEqual(server.process.wait(SECONDS), 0)

    def test_an_ipv4_client_reaches_the_server_on_all_addresses(self):
        with Server(address="tcp:[::]:0") as server, server.connect() as connection:
            self.assertTrue(echoes(connection))
            connection.close()
            self.assertEqual(server.stop(), (0, ""))


if __name__ == "__main__":
    unittest.main()
