"""configure.py, build.ninja, the runners and the lints do what they say.

Method: configure.py is run with arguments that must be refused, and its output compared whole; the
runners and lints are given planted faults and must find each; public headers are compiled alone.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("WEFT_BUILD_DIR", "build"))

sys.path.insert(0, ROOT)
sys.path.insert(0, os.path.join(ROOT, "test", "tools"))
import configure  # noqa: E402 (needs the path)
import layers  # noqa: E402


def run(*command, **options):
    return subprocess.run(command, cwd=options.pop("cwd", ROOT), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                          **options)


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def write(root, path, text):
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class Options(unittest.TestCase):
    """A wrong option: one line, status 2, and nothing is written."""

    def refused(self, arguments, text):
        before = os.stat(os.path.join(ROOT, "build.ninja")).st_mtime_ns
        result = run(sys.executable, "configure.py", *arguments)
        self.assertEqual(result.stderr, "configure.py: " + text + "\n")
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertEqual(os.stat(os.path.join(ROOT, "build.ninja")).st_mtime_ns, before)

    def test_each_tuning_option_refuses_what_is_out_of_range(self):
        for option in configure.TUNING:
            wrong = ["", "x", "-1", "1.5"]
            if not option.choices:
                wrong += [str(option.low - 1), str(option.high + 1)]
            if option.power_of_two:
                wrong += [str(option.low * 3)]
            if option.multiple > 1:
                wrong += [str(option.low + 1)]
            for value in wrong:
                if option.low == 0 and value == "-1":
                    value = "-0"
                with self.subTest(option=option.name, value=value):
                    self.assertIsNone(option.parse(value))
            self.refused(["--%s=%s" % (option.name, wrong[-1])],
                         "--%s=%s: must be %s" % (option.name, wrong[-1], option.takes()))

    def test_messages_name_option_value_and_range(self):
        for arguments, text in (
                (["--ring-size=3"], "--ring-size=3: must be a power of two from 4 to 4096"),
                (["--workers-max", "49"], "--workers-max=49: must be a number from 1 to 48"),
                (["--run-order=random"], "--run-order=random: must be fifo or lifo"),
                (["--stack-size=20000"],
                 "--stack-size=20000: must be a multiple of 4096 from 16384 to 1073741824"),
                (["--spin-credit=101"], "--spin-credit=101: must be a number from 0 to 100"),
                (["--driver=select"], "--driver=select: must be epoll or mem"),
                (["--bogus"], "unknown option --bogus"),
                (["--ring=8"], "unknown option --ring=8"),
                (["--budget"], "argument --budget: expected one argument"),
                (["--deps=all"], "--deps=all: must be of test, perf, cross, models"),
                (["--march=a b"], "--march=a b: must be the name of a CPU"),
                (["--prefix=usr"], "--prefix=usr: must be absolute"),
                (["--build-dir=../b"], "--build-dir=../b: must be a plain path in the tree")):
            with self.subTest(arguments=arguments):
                self.refused(arguments, text)

    def test_the_wheel_covers_two_years_or_is_refused(self):
        self.refused(["--wheel-levels=7"],
                     "--wheel-levels=7 with --tick-shift=10 covers less than two years: at least 8")
        self.refused(["--wheel-levels=8", "--tick-shift=20"],
                     "--wheel-levels=8 with --tick-shift=20 does not fit 63 bits: at most 7")
        for shift in range(10, 21):
            values = {"tick-shift": shift, "wheel-levels": configure.wheel_levels_default(shift)}
            configure.check_wheel(values)
            self.assertGreaterEqual(configure.wheel_range_ns(shift, values["wheel-levels"]),
                                    2 * 365 * 86400 * 10**9)

    def test_a_missing_package_is_named_in_one_line(self):
        result = run(sys.executable, "configure.py", "--cc=no-such-compiler")
        self.assertEqual(result.stderr, "configure.py: missing no-such-compiler:"
                         " apt-get install gcc (or ./configure.py --deps)\n")
        self.assertEqual((result.returncode, result.stdout), (1, ""))

    def test_help_shows_every_option(self):
        result = run(sys.executable, "configure.py", "--help")
        self.assertEqual(result.returncode, 0)
        for option in configure.TUNING:
            self.assertIn("--" + option.name, result.stdout)


class Generated(unittest.TestCase):
    """build.ninja."""

    def generate(self, *arguments):
        path = "build/test-generated"
        result = run(sys.executable, "configure.py", "--build-dir=" + path, *arguments)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return read(path, "build.ninja"), result.stdout

    def test_the_committed_one_is_what_the_defaults_generate(self):
        committed = read("build.ninja")
        if committed.splitlines()[0] != "# configure.py arguments:":
            self.skipTest("configured with other arguments")
        args = configure.parse_arguments([])
        self.assertEqual(configure.Build(args, configure.tuning_values(args), []).everything(),
                         committed)

    def test_it_names_no_place_of_this_machine(self):
        for number, line in enumerate(read("build.ninja").splitlines(), 1):
            for word in re.findall(r"(?<![\w.$}/])/[\w./-]+", line):
                self.fail("line %d: %s" % (number, word))

    def test_arguments_are_recorded_and_reach_the_compiler(self):
        text, printed = self.generate("--run-order=lifo", "--ring-size=64", "--cflags=-DA='1 2$'")
        self.assertEqual(text.splitlines()[0], "# configure.py arguments: "
                         "--build-dir=build/test-generated --run-order=lifo --ring-size=64 "
                         "'--cflags=-DA='\"'\"'1 2$'\"'\"''")
        self.assertIn("-DWF_RUN_ORDER_FIFO=0 ", text)
        self.assertIn("-DWF_RING_SIZE=64 ", text)
        self.assertIn("run-order=lifo ring-size=64", printed)
        self.assertIn("\ncflags = -DA='1 2$$'\n", text)

    def test_every_tuning_option_reaches_the_code(self):
        code = "".join(read(place, name) for folder in ("sync", "timer", "core", "io")
                       for place, _, names in os.walk(os.path.join(ROOT, folder))
                       for name in names if name.endswith((".c", ".h")))
        for define in [option.define for option in configure.TUNING] + ["WF_BUILD_CONFIG"]:
            self.assertRegex(code, r"\b%s\b" % define)

    def test_tables_name_everything_once_and_in_order(self):
        tables = ("TESTS", "TEST_SCRIPTS", "CROSS_TESTS", "PERF", "EXAMPLES", "SIM")
        for node in ast.parse(read("configure.py")).body:
            table = isinstance(node, ast.Assign) and ast.unparse(node.targets[0])
            if table in tables:
                names = node.value.keys if isinstance(node.value, ast.Dict) else node.value.elts
                names = [name.value for name in names]
                self.assertEqual(names, sorted(set(names)), table)
        self.assertEqual(len(configure.LIBRARY), len(set(configure.LIBRARY)))

    def test_every_source_in_the_tree_is_listed(self):
        listed = set(configure.LIBRARY) | {"test/harness.c"}
        listed |= {"examples/%s.c" % name for name in configure.EXAMPLES}
        listed |= {"test/%s.c" % name for name in configure.TESTS}
        listed |= {"test/%s.py" % name for name in configure.TEST_SCRIPTS}
        for made in configure.SIM.values():
            listed |= {made["source"], *made.get("with", []), *configure.SIM_ENGINE}
        listed |= {source for sources in configure.PERF.values() for source in sources}
        found = set()
        for folder in ("sync", "timer", "core", "io", "examples", "test", "perf"):
            for place, folders, names in os.walk(os.path.join(ROOT, folder)):
                folders[:] = [name for name in folders if name != "tools"]
                found |= {os.path.relpath(os.path.join(place, name), ROOT) for name in names
                          if name.endswith((".c", ".S")) or re.fullmatch(r"test_.*\.py", name)}
        tracked = run("git", "ls-files")
        if tracked.returncode == 0 and tracked.stdout:
            found &= set(tracked.stdout.split("\n"))
        self.assertEqual(sorted(found - listed), [])
        self.assertEqual([path for path in sorted(listed) if not os.path.exists(
            os.path.join(ROOT, path))], [])

    def test_every_file_is_in_its_folders_readme(self):
        for folder, readme in (("sync", "sync"), ("timer", "timer"), ("core", "core"), ("io", "io"),
                               ("test/sim", "test/sim"), ("test/models", "test/models"),
                               ("test/tools", "test")):
            text = read(readme + "/README.md")
            for name in sorted(os.listdir(os.path.join(ROOT, folder))):
                stem, kind = os.path.splitext(name)
                if kind not in (".c", ".h", ".py", ".pml"):
                    continue
                with self.subTest(file=folder + "/" + name):
                    self.assertTrue(re.search(r"[`/]%s\." % re.escape(stem), text))


class Exceptions(unittest.TestCase):
    """What is kept from a sanitizer says why."""

    def test_a_test_kept_from_threadsanitizer_meets_no_threads(self):
        met = re.compile(r"harness_threads|runtime_new|in_runtime|net_run|weft_rt_create|weft_main")
        for name, words in configure.TESTS.items():
            if "threads" not in words.split():
                with self.subTest(test=name):
                    self.assertIsNone(met.search(read("test", name + ".c")))

    def test_each_attribute_has_a_comment_above(self):
        for folder in ("sync", "timer", "core", "io", "test"):
            for place, _, names in os.walk(os.path.join(ROOT, folder)):
                for name in [name for name in names if name.endswith((".c", ".h"))]:
                    lines = read(place, name).splitlines()
                    for number, line in enumerate(lines):
                        if re.search(r"no_sanitize|disable_sanitizer", line):
                            self.assertRegex(lines[number - 1], r"\*/$", "%s:%d" % (name, number))

    def test_each_suppression_has_its_reason(self):
        files = run("git", "ls-files", "*.supp", "*ignorelist*").stdout.split()
        for path in files or ["test/tools/valgrind.supp"]:
            blocks = re.split(r"(?m)^\{$", read(path))
            self.assertGreater(len(blocks), 1, path)
            for block in blocks[:-1]:
                before = block.split("}")[-1]
                self.assertRegex(before, r"(?m)^# \w", "%s: %s" % (path, block))


class Assumptions(unittest.TestCase):
    """test/kernel_*.c."""

    def test_each_names_the_code_that_relies_on_it(self):
        sources = set()
        for folder in ("core", "io", "sync", "timer"):
            sources |= set(os.listdir(os.path.join(ROOT, folder)))
        for name in [name for name in configure.TESTS if name.startswith("kernel_")]:
            text = read("test", name + ".c")
            for test in re.finditer(r"(?m)^Test\(\w+, (\w+)", text):
                with self.subTest(file=name, test=test.group(1)):
                    before = text[:test.start()]
                    self.assertTrue(before.endswith("*/\n"))
                    comment = before[before.rindex("/*"):]
                    named = re.findall(r"\b\w+\.[ch]\b", comment)
                    self.assertTrue(named, comment)
                    self.assertEqual(set(named) - sources, set())
                    functions = set(re.findall(r"\b(\w+)\(\)", comment)) - {"fork", "connect"}
                    for function in functions:
                        self.assertTrue(any(
                            re.search(r"\b%s\(" % function, read(folder, source))
                            for folder in ("core", "io", "sync", "timer")
                            for source in named
                            if os.path.exists(os.path.join(ROOT, folder, source))), function)


class Headers(unittest.TestCase):
    """Each public header alone, as users compile: C11 and C++17, many warnings, all errors."""

    COMPILERS = (
        ("gcc", "-std=c11", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef",
         "-Wstrict-prototypes", "-Wredundant-decls", "-Wc++-compat"),
        ("g++", "-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow",
         "-Wundef", "-Wold-style-cast", "-Wredundant-decls"),
        ("clang", "-std=c11", "-Weverything", "-Wno-padded", "-Wno-declaration-after-statement",
         "-Wno-unused-macros"),
        ("clang++", "-std=c++17", "-Weverything", "-Wno-padded", "-Wno-c++98-compat",
         "-Wno-c++98-compat-pedantic", "-Wno-unused-macros"),
    )

    def test_each_compiles_alone(self):
        for compiler, *flags in self.COMPILERS:
            for name in configure.PUBLIC.values():
                with self.subTest(compiler=compiler, header=name):
                    language = "c++" if compiler.endswith("++") else "c"
                    with tempfile.TemporaryDirectory() as place:
                        source = "user.c" if language == "c" else "user.cpp"
                        write(place, source, "#include <%s>\n#include <%s>\n"
                              "extern int used;\nint used;\n" % (name, name))
                        result = run(compiler, *flags, "-Werror", "-fsyntax-only", "-x", language,
                                     "-I", os.path.join(BUILD, "include"), source, cwd=place)
                    self.assertEqual(result.returncode, 0, result.stderr)

    def test_weft_h_names_each_and_includes_all_but_the_one_for_tests(self):
        comment, rest = read("core/weft.h").split("*/", 1)
        names = {"<%s>" % name for name in configure.PUBLIC.values()} - {"<weft.h>"}
        self.assertEqual(set(re.findall(r"(?m)^ \*\t(<weft/\w+\.h>)  ", comment)), names)
        self.assertEqual(set(re.findall(r"(?m)^#include (<weft/.*>)$", rest)),
                         names - {"<weft/test.h>"})

    def test_none_shows_what_we_are_built_of(self):
        for source in configure.PUBLIC:
            self.assertNotRegex(read(source), r"_Atomic|include\s*<(ck_|urcu|liburing|stdatomic)")


class Runners(unittest.TestCase):
    """Failures are found, by Criterion and by the own runner, and by the script that runs both."""

    EXPECTED = {
        "assert_ends_the_test": r"planted\.c:\d+.*number == 4 \(-3 against 4\): number of things",
        "expect_goes_on": r'"left" == "right".*0\.5 == 0\.25 \(0\.5 against 0\.25\): second check',
        "fails_in_a_thread": r"index != 1 \(1 against 1\): in a thread",
        "fails_with_the_status_it_expects": r"must not count",
        "ends_by_a_signal": "", "does_not_end_by_the_signal": "", "exits_with_a_status": "",
        "hangs": "[Tt]imed out",
    }

    def program(self, mode):
        return os.path.relpath(os.path.join(BUILD, mode, "test/tools/planted"), ROOT)

    def test_each_planted_failure_is_found_by_both(self):
        for mode in ("dev", "tsan"):
            with self.subTest(mode=mode):
                result = run(self.program(mode), "-j1", "--verbose")
                output = result.stdout + result.stderr
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("[====] Synthesis: Tested: 9 | Passing: 1 | Failing: 8 | Crashing: 1",
                              output)
                for name, message in self.EXPECTED.items():
                    self.assertRegex(output, r"\[FAIL\] planted::%s" % name)
                    self.assertRegex(output, re.compile(message, re.DOTALL))
                self.assertIn("no device here", output)
                self.assertNotIn("went on", output)

    def run_tests(self, *programs, timeout="600"):
        return run(sys.executable, "test/tools/run_tests.py", "--timeout", timeout, *programs)

    def test_the_sum_is_the_last_line_and_failures_fail(self):
        result = self.run_tests(self.program("dev"))
        self.assertEqual(result.stdout.splitlines()[-1], "1 passed, 8 failed")
        self.assertEqual(result.returncode, 1)
        self.assertIn("number of things", result.stdout)

    def test_no_test_at_all_fails(self):
        result = self.run_tests()
        self.assertEqual((result.returncode, result.stdout), (1, "0 passed, 0 failed\n"))

    def test_programs_that_hang_or_end_early_fail(self):
        with tempfile.TemporaryDirectory() as place:
            write(place, "hangs.py", "import time, unittest\ntime.sleep(3600)\n")
            write(place, "ends.py", "import os\nos._exit(0)\n")
            write(place, "none.py", "")
            for name, problem, limit in (
                    ("hangs.py", "timed out", "0.5"),
                    ("ends.py", "ended with status 0 and no closing line", "600"),
                    ("none.py", "ran no test", "600")):
                with self.subTest(name=name):
                    result = self.run_tests(os.path.join(place, name), timeout=limit)
                    self.assertEqual(result.returncode, 1)
                    self.assertIn(problem, result.stdout)
                    self.assertEqual(result.stdout.splitlines()[-1], "0 passed, 1 failed")

    def test_scripts_count_failures_errors_and_skips(self):
        with tempfile.TemporaryDirectory() as place:
            write(place, "some.py", """
import unittest
class Some(unittest.TestCase):
    def test_passes(self):
        pass
    def test_fails(self):
        self.assertEqual(1, 2)
    def test_fails_twice_inside(self):
        for i in range(2):
            with self.subTest(i=i):
                self.fail("no")
    def test_errors(self):
        raise OSError
    def test_skips(self):
        self.skipTest("not here")
""")
            result = self.run_tests(os.path.join(place, "some.py"))
        self.assertIn("Tested: 4 | Passing: 1 | Failing: 3", result.stdout)
        self.assertEqual(result.stdout.splitlines()[-1], "1 passed, 3 failed")


class Layers(unittest.TestCase):
    def test_the_tree_keeps_them(self):
        result = run(sys.executable, "test/tools/layers.py", "--tracked")
        self.assertEqual((result.stdout, result.returncode), ("layers: nothing to report\n", 0))

    def test_each_kind_of_violation_is_found(self):
        planted = (
            ("sync/a.h", '#include "timer/wheel.h"', "sync may not include timer/wheel.h"),
            ("timer/a.c", '#include "core/worker.h"', "timer may not include core/worker.h"),
            ("core/a.c", '#include "io/fd.h"', "core may not include io/fd.h"),
            ("examples/a.c", '#include "core/proc.h"', "examples may not include core/proc.h"),
            ("core/b.c", '#include "worker.h"', 'include "worker.h" is not written from the root'),
            ("core/c.c", "#include <ck_ring.h>", "<ck_ring.h> belongs to sync/ perf/"),
            ("sync/b.c", "# include <urcu-qsbr.h>", "<urcu-qsbr.h> belongs to sync/rcu.c"),
            ("io/a.c", "#include <liburing.h>", "<liburing.h> belongs to io/uring.c"),
            ("sync/c.c", "#include <weft.h>", "<weft.h> belongs to core/ io/"),
            ("core/d.c", "#include <weft/io.h>", "<weft/io.h> belongs to core/weft.h"),
            ("test/a.c", "#include <criterion/criterion.h>", "belongs to test/harness.h"),
            ("core/e.c", "\tpthread_mutex_lock(&lock);", "pthread_mutex_lock: only in"),
            ("io/b.c", "\tclock_gettime(CLOCK_MONOTONIC, &now);", "clock_gettime: only in"),
            ("core/f.c", "\tfree (p);", "free: only in"),
            ("core/g.c", "static __thread int x;", "__thread: only in"),
            ("io/c.c", "\t__atomic_store_n(&a, 1, 0);", "__atomic_store_n: only in"),
            ("core/h.c", "/* " + "TO" "DO: more */", "unfinished: /* "),
            ("perf/a.py", "# " + "FIX" "ME", "unfinished: # "),
            ("core/i.c", "int x;" + " " * 120 + "int y;", "columns, at most"),
        )
        harmless = (
            ("core/y.c", '/* pthread_create() and malloc() */ const char *s = "free(";'),
            ("core/z.c", '#include "sync/deque.h"\n#include <weft.h>\n#include <pthread.h>\n'
                         "static pthread_t thread;\nvoid (*release)(void *);\n"),
            ("test/b.c", '#include "core/worker.h"\nvoid f(void) { free(0); }'),
        )
        with tempfile.TemporaryDirectory() as place:
            for path, line, *_ in planted + harmless:
                write(place, path, "\n" + line + "\n")
            result = run(sys.executable, "test/tools/layers.py", place)
        self.assertEqual(result.returncode, 1)
        for path, _, message in planted:
            with self.subTest(path=path):
                self.assertRegex(result.stdout, "(?m)^%s:2: .*%s" % (re.escape(path),
                                                                    re.escape(message)))
        for path, _ in harmless:
            self.assertNotIn(path, result.stdout)

    def test_a_call_that_no_test_can_have_fail_is_found(self):
        body = "int f(void)\n{\n\t%s\n}\n"
        found = (
            ("core/a.c", "return open(path, 0);", "open"),
            ("core/b.c", "return wf_fails(SYS_read) ? -1 : open(path, 0);", "open"),
            ("sync/a.c", "p = aligned_alloc(64, 64);", "aligned_alloc"),
            ("io/a.c", "return getaddrinfo(name, 0, 0, &info);", "getaddrinfo"),
            ("io/b.c", "return (int)wf_syscall6(SYS_dup, fd, 0, 0, 0, 0, 0);", "wf_syscall6"),
            ("timer/a.c", "(void)syscall(SYS_futex, &word);", "syscall"),
        )
        asks = (
            ("core/c.c", "return wf_fails(SYS_openat) ? -1 : open(path, 0);"),
            ("core/d.c", "return map->madvise(memory) + rt.close(fd);"),
            ("io/c.c", "return (int)wf_syscall(SYS_dup, fd);"),
            ("test/a.c", "return open(path, 0);"),
        )
        with tempfile.TemporaryDirectory() as place:
            for path, line, *_ in found + asks:
                write(place, path, body % line)
            output = run(sys.executable, "test/tools/layers.py", place).stdout
        for path, _, name in found:
            self.assertRegex(output, r"(?m)^%s:3: %s: does not ask" % (re.escape(path), name))
        for path, _ in asks:
            self.assertNotRegex(output, r"(?m)^%s:\d+: \w+: does not ask" % re.escape(path))

    # What the library calls and does not ask wf_fault() for: it has no way to fail, or what it
    # gives then is looked at (the scanf and fgets of a small file that could be opened).
    HARMLESS = set("""
        abort clock_gettime dladdr environ fclose fgets fprintf fputc free freeaddrinfo fwrite
        getenv getpid in6addr_loopback inet_ntop inet_pton longjmp memchr memcmp memcpy memmove
        memset posix_spawn_file_actions_destroy posix_spawn_file_actions_init
        posix_spawnattr_destroy posix_spawnattr_init posix_spawnattr_setflags
        posix_spawnattr_setsigdefault posix_spawnattr_setsigmask pthread_attr_destroy
        pthread_attr_init pthread_detach pthread_join pthread_kill pthread_once pthread_self
        pthread_setname_np pthread_sigmask qsort sched_yield sigabbrev_np sigaddset sigdelset
        sigemptyset sigfillset sigprocmask snprintf stderr strchr strcmp strcspn strerror
        strerrordesc_np strlen strncmp strncpy strrchr strsep strsignal strtol strtoul sysconf
        vfprintf vsnprintf _GLOBAL_OFFSET_TABLE_ __ctype_b_loc __errno_location __isoc99_fscanf
        __isoc99_sscanf __libc_current_sigrtmax __libc_current_sigrtmin _setjmp""".split())

    def test_the_library_calls_nothing_that_nobody_has_thought_about(self):
        library = os.path.join(BUILD, "dev", "libweft.a")
        names = {name: set() for name in ("U", "T")}
        for line in run("nm", "-g", library).stdout.splitlines():
            words = line.split()
            if len(words) >= 2 and words[-2] in "UTDBRV":
                name = re.sub(r"^__(\w+)_chk$", r"\1", words[-1])  # with _FORTIFY_SOURCE
                names["U" if words[-2] == "U" else "T"].add(name)
        thought_about = set(" ".join(layers.FALLIBLE.values()).split()) | self.HARMLESS
        unknown = {name for name in names["U"] - names["T"] - thought_about
                   if not name.startswith("urcu_qsbr_")}
        self.assertGreater(len(names["U"]), 50)
        self.assertEqual(sorted(unknown), [])


class Labels(unittest.TestCase):
    TEXT = "/*\n * a.c: why.\n *\n *\tP1 arm\n *\tP2 announce\n */\n"
    CODE = ("/* P1 */\nstatic void arm(void)\n{\n}\n\n"
            "static void park(void)\n{\n\t/* P2, P3: with A1 in arm(). */\n}\n")

    def labels(self, **files):
        """Problems in a tree of these files; names are written with __ for / and _ for the dot."""
        with tempfile.TemporaryDirectory() as place:
            for name, text in files.items():
                write(place, name.replace("__", "/").replace("_", "."), text)
            result = run(sys.executable, "test/tools/labels.py", place)
        self.assertEqual(result.returncode, result.stdout != "labels: nothing to report\n")
        return result.stdout

    def test_the_tree_keeps_them(self):
        result = run(sys.executable, "test/tools/labels.py")
        self.assertEqual((result.stdout, result.returncode), ("labels: nothing to report\n", 0))

    def test_each_kind_of_violation_is_found(self):
        code = self.CODE.replace("/* P1 */", "/* P1, A1: with P2 in park(). */")
        readme = "# core/\n\n* P3 (caller) sleep\n"
        good = self.labels(core__a_c=self.TEXT + code, core__README_md=readme)
        self.assertEqual(good, "labels: nothing to report\n")
        planted = (
            (dict(core__README_md=readme + "* P4 wake\n"), "no place in the code is labelled P4"),
            (dict(core__README_md=readme + "\nSee Q7.\n"), "Q7 is defined nowhere in core/"),
            (dict(core__README_md=readme + "\nSee sync/b.h, Z1.\n"), "Z1 is defined nowhere"),
            (dict(core__a_c=self.TEXT + code.replace("with A1 in arm()", "with A2")),
             "A2 is defined nowhere in core/"),
            (dict(core__a_c=self.TEXT + code.replace("A1 in arm", "P2 in arm")),
             "P2 is not labelled in arm()"),
            (dict(core__a_c=self.TEXT + code.replace("in arm()", "in disarm()")),
             "A1 of disarm: there is no such function"),
            (dict(core__b_c="/*\n * b.c: also.\n */\n/* A1: another. */\n"),
             "A1 has another meaning in core/a.c"),
            (dict(core__b_c="/*\n * b.c: also.\n *\tP1 another\n */\n"),
             "step P1 stands elsewhere too"),
            (dict(core__README_md=readme + "* P3 (caller) again\n"),
             "step P3 stands elsewhere too"),
            (dict(core__b_c="/* b.c */\n/* Any; P9. Whatever. */\n/* P9, as P8. */\n"),
             "P8 is defined nowhere"),
        )
        for files, message in planted:
            tree = {"core__a_c": self.TEXT + code, "core__README_md": readme, **files}
            with self.subTest(message):
                said = self.labels(**tree)
                self.assertIn(message, said)
                self.assertEqual(said.count("\n"), 1, said)

    def test_other_folders_and_invariants_are_told_apart(self):
        said = self.labels(
            core__a_c="/* a.c: I1 is an invariant here. C11 is no label. */\n"
                      "/* K1: as sync/b.h has it in L1; I2. */\n",
            sync__b_h="/* b.h: I1 too. */\n/* L1: acquire. */\n")
        self.assertEqual(said, "labels: nothing to report\n")
