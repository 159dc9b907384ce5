"""The measuring tools: perf/bench, perf/demo.py, perf/bench_echo.py and the rival echo server.

What they print is checked for its form and its logic, with runs far too short to mean anything; no
figure decides a test.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RELEASE = os.path.join(ROOT, os.environ.get("WEFT_BUILD_DIR", "build"), "release")
BENCH = os.path.join(RELEASE, "perf", "bench")
LOAD = os.path.join(RELEASE, "perf", "load")
EPOLL = os.path.join(RELEASE, "perf", "rivals", "epoll", "echo")
ECHO = os.path.join(RELEASE, "examples", "echo")


def run(*command, limit=600):
    return subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=limit, cwd=ROOT, check=False)


class Bench(unittest.TestCase):
    def rows(self, *arguments):
        done = run(BENCH, "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_lists_every_workload_once(self):
        names = [line.split()[0] for line in run(BENCH, "--list").stdout.splitlines()]
        self.assertIn("pingpong", names)
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(names, sorted(names))

    def test_readme_describes_every_workload(self):
        names = [line.split()[0] for line in run(BENCH, "--list").stdout.splitlines()]
        with open(os.path.join(ROOT, "perf", "README.md"), encoding="utf-8") as file:
            rows = re.findall(r"^\| `(\w+)` \|", file.read(), re.MULTILINE)
        self.assertEqual(rows, names)

    def test_runs_every_workload(self):
        names = [line.split()[0] for line in run(BENCH, "--list").stdout.splitlines()]
        for name in names:
            with self.subTest(workload=name):
                rows = self.rows(name, "--n", 12, "--runs", 1)
                self.assertGreater(len(rows), 0)
                for row in rows:
                    self.assertEqual((row["workload"], row["n"], row["runs"]), (name, 12, 1))
                    self.assertTrue({"ns_per_op", "p50_ns", "insert_ns", "bytes_each"} & set(row),
                                    row)

    def test_prints_one_object_per_row_and_idle_mode(self):
        rows = self.rows("yield", "--n", 20, "--runs", 3, "--idle", "park,spin", "--workers", 2)
        self.assertEqual([row["idle"] for row in rows], ["spin", "park"])
        for row in rows:
            self.assertEqual((row["workload"], row["workers"], row["n"], row["runs"]),
                             ("yield", 2, 20, 3))
            self.assertEqual(row["process"], "fiber")
            self.assertLessEqual(row["ns_per_op_min"], row["ns_per_op"])
            self.assertLessEqual(row["ns_per_op"], row["ns_per_op_max"])
            for key in ("machine", "cpus", "kernel", "compiler", "config", "driver"):
                self.assertTrue(row[key], key)

    def test_table_names_machine_compiler_and_tuning(self):
        done = run(BENCH, "yield", "--n", 10, "--runs", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("machine", "compiler", "-O2", "ring-size=", "median", "spread"):
            self.assertIn(word, done.stdout)

    def compare_with(self, factor):
        """Today's figures against ones that are `factor` times today's."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "saved.json")
            done = run(BENCH, "yield", "--n", 50, "--runs", 3, "--save", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(path, encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            for row in rows:
                for key in row:
                    if "_ns" in key or key.startswith("ns_"):
                        row[key] = 0 if key.endswith("_spread") else row[key] * factor
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
            # One run has no spread that could hide a factor.
            return run(BENCH, "yield", "--n", 50, "--runs", 1, "--compare", path)

    def test_a_rival_stands_beside_in_the_workloads_that_name_it(self):
        rows = self.rows("rearm", "deque", "--n", 50, "--runs", 2, "--rival", "cascade")
        names = [row["variant"] for row in rows if row["workload"] == "rearm"]
        self.assertEqual(names, ["one", "random", "cascade, one", "cascade, random"])
        self.assertNotIn("cascade", "".join(row["variant"] for row in rows
                                            if row["workload"] == "deque"))
        self.assertEqual([row["variant"] for row in self.rows("rearm", "--n", 50, "--runs", 1)],
                         names[:2])

    def test_a_rivals_ratio_is_to_our_row_of_that_name(self):
        done = run(BENCH, "rearm", "--n", 50, "--runs", 1, "--rival", "cascade")
        self.assertEqual(done.returncode, 0, done.stderr)
        medians = {}
        for variant, name in re.findall(r"(?m)^rearm +((?:cascade, )?(one|random)) ", done.stdout):
            line = re.search(r"(?m)^rearm +%s .* ns_per_op +(.*)$" % variant, done.stdout).group(1)
            medians[variant] = float(line.split()[0])
            self.assertEqual(line.endswith("x"), variant != name)
            if variant != name:
                self.assertAlmostEqual(float(line.split()[-1][:-1]),
                                       medians[variant] / medians[name],
                                       delta=0.02 + 0.02 * medians[variant] / medians[name])
        self.assertEqual(len(medians), 4)

    def test_the_list_names_the_rivals(self):
        lines = run(BENCH, "--list").stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines if "; rival cascade" in line],
                         ["rearm", "timers", "timers_poll"])

    def test_comparison_fails_when_a_figure_is_much_worse(self):
        done = self.compare_with(1e-6)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("WORSE", done.stdout)

    def test_comparison_passes_when_figures_are_better(self):
        done = self.compare_with(1e6)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotIn("WORSE", done.stdout)

    def test_comparison_needs_something_comparable(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write('{"workload":"another","note":"\\"workload\\":\\"yield\\""}\n')
            file.flush()
            done = run(BENCH, "yield", "--n", 5, "--runs", 1, "--compare", file.name)
            self.assertEqual(done.returncode, 2, done.stdout)
        self.assertEqual(run(BENCH, "yield", "--compare", "/nonexistent").returncode, 2)

    def test_refuses_a_wrong_command_line(self):
        for arguments in ([], ["nonsense"], ["yield", "--n", "0"], ["yield", "--runs", "x"],
                          ["yield", "--idle", "sleep"], ["yield", "--rival", "cascade"],
                          ["timers", "--rival", "nonsense"], ["--nonsense"]):
            with self.subTest(arguments=arguments):
                done = run(BENCH, *arguments)
                self.assertEqual(done.returncode, 2)
                self.assertTrue(done.stderr.startswith(("bench: ", BENCH)), done.stderr)

    def test_reports_a_workload_that_fails(self):
        done = run(BENCH, "yield", "--n", 5, "--runs", 1, "--driver", "nonsense")
        self.assertEqual(done.returncode, 1)
        self.assertIn("yield", done.stderr)


class Epoll(unittest.TestCase):
    """The rival must be right to be worth beating."""

    def start(self, *arguments):
        server = subprocess.Popen([EPOLL, "tcp:127.0.0.1:0", *arguments], stdout=subprocess.PIPE,
                                  text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        line = server.stdout.readline()
        self.assertTrue(line.startswith("listening on tcp:127.0.0.1:"), line)
        return server, line.split()[-1]

    def test_echoes_in_every_form(self):
        for arguments in ([], ["--level"], ["--threads", "2"], ["--level", "--threads", "2"]):
            with self.subTest(arguments=arguments):
                _, address = self.start(*arguments)
                for load in (["--connections", 20], ["--churn", "--connections", 4],
                             ["--size", 300000, "--connections", 3, "--depth", 3]):
                    done = run(LOAD, "--requests", 300, "--warm-up", 0, *load, address)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_peer_that_never_reads_costs_one_buffer(self):
        server, address = self.start()
        with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1]))) as greedy:
            greedy.settimeout(0.3)
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += greedy.send(bytes(65536))
            except TimeoutError:
                pass
            self.assertLess(sent, 64 << 20, "the server took more than sockets hold")
            done = run(LOAD, "--requests", 1000, "--warm-up", 0, address)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open("/proc/%d/statm" % server.pid, encoding="ascii") as file:
                resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            self.assertLess(resident, 8 << 20)


class Rivals(unittest.TestCase):
    """perf/bench_rivals.py, with a stand-in for the rival: the real one needs Rust."""

    STAND_IN = """#!/usr/bin/env python3
import json, sys
workload, runtime, workers, n = sys.argv[1:]
for variant in ("detached", "joined", "yield", "ended", "one by one"):
    print(json.dumps({"workload": workload, "variant": variant, "process": "task", "n": int(n),
                      "workers": int(workers), "ns_per_op": 1e9, "cpu_ns": 1e9}))
"""

    def compare(self, text, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "rival")
            with open(program, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(program, 0o755)
            return run(sys.executable, "perf/bench_rivals.py", "--build", RELEASE, "--quick",
                       "--tokio", program, "--only", "yield", *arguments)

    def test_ratios_are_to_the_first_row_of_a_title(self):
        done = self.compare(self.STAND_IN, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        for figure in ("ns_per_op", "cpu_ns"):
            own, *rivals = [row for row in rows if row["figure"] == figure
                            and (row["program"] != "weft" or row["workload"] == "yield")]
            self.assertEqual((own["program"], own["ratio"]), ("weft", 1))
            self.assertEqual([row["program"] for row in rivals], ["tokio", "tokio current"])
            for row in rivals:
                self.assertAlmostEqual(row["ratio"], 1e9 / own["median"], delta=row["ratio"] / 1e6)

    def test_table_names_both_sides(self):
        done = self.compare(self.STAND_IN)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^yield of one of 1000 +weft .* 1$")
        self.assertRegex(done.stdout, r"(?m)^yield of one of 1000 +tokio current .* \d+\.\d\d ±")

    def test_a_rival_that_fails_is_named(self):
        done = self.compare("#!/bin/sh\necho broken >&2\nexit 3\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("exit status 3: broken", done.stderr)

    def test_a_missing_compiler_is_one_line(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "perf/rivals/tokio/build.py", os.path.join(folder, "bench")],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False,
                env={**os.environ, "PATH": folder})
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "rivals/tokio: cargo is not installed: ./configure.py"
                         " --deps=perf\n")


class Scripts(unittest.TestCase):
    def release_with(self, folder, echo):
        """A copy, by links, of the release folder, with another echo example."""
        os.makedirs(os.path.join(folder, "examples"))
        os.symlink(os.path.join(RELEASE, "perf"), os.path.join(folder, "perf"))
        path = os.path.join(folder, "examples", "echo")
        if os.path.exists(echo):
            os.symlink(echo, path)
        else:
            with open(path, "w", encoding="ascii") as file:
                file.write(echo)
            os.chmod(path, 0o755)

    def demo(self, release):
        return run(sys.executable, "perf/demo.py", "--build", release, "--seconds", "1")

    def test_demo_shows_a_table_and_succeeds(self):
        done = self.demo(RELEASE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for word in ("requests", "replies", "errors", "p50", "p99", "max", "closed loop",
                     "open loop"):
            self.assertIn(word, done.stdout)

    def test_demo_fails_if_the_server_does_not_drain(self):
        with tempfile.TemporaryDirectory() as folder:
            self.release_with(folder, EPOLL)
            done = self.demo(folder)
            self.assertEqual(done.returncode, 1)
            self.assertIn("demo.py: the server", done.stderr.splitlines()[-1])

    def test_demo_says_why_the_server_did_not_start(self):
        with tempfile.TemporaryDirectory() as folder:
            self.release_with(folder, "#!/bin/sh\necho no such luck >&2\nexit 3\n")
            done = self.demo(folder)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr, "demo.py: echo ended with status 3 before it listened;"
                             " it said: no such luck\n")

    def test_bench_echo_prints_a_row_for_each_server_and_load(self):
        done = run(sys.executable, "perf/bench_echo.py", "--build", RELEASE, "--rounds", 2,
                   "--requests", 200, "--idle", "park,spin", "--load", "closed 1",
                   "--load", "open 50k/s 64", "--json")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        servers = (("epoll loop", "park"), ("weft", "park"), ("weft", "spin"))
        self.assertEqual([(row["load"], row["server"], row["idle"]) for row in rows],
                         [(load, server, idle) for load in ("closed 1", "open 50k/s 64")
                          for server, idle in servers])
        for row in rows:
            self.assertGreater(row["replies_per_s"], 0)
            self.assertGreater(row["cpu_ns"], 0)
            if row["server"] == "epoll loop":
                self.assertEqual((row["rate_ratio"], row["cpu_ratio"]), (1, 1))


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, os.path.join(ROOT, "test", "tools", "unittests.py"),
                              __file__, *sys.argv[1:]]))
