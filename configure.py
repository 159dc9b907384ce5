#!/usr/bin/env python3
"""Writes build.ninja: the whole build of Weft as explicit lists.

./configure.py --help has options and targets.
To add a source, a test or an option, edit the tables below; ninja then runs this file again.
build.ninja is committed as the defaults generate it, so a checkout builds without this step; it
holds no absolute paths and nothing of the machine. Its first line records the arguments it was made
with.
"""

import argparse
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys

VERSION = "0.1.0"
SONAME = "libweft.so.0"

# ---- What there is -------------------------------------------------------------------------------

# The library. Assembly for both machines is listed; each file is empty on the other one.
LIBRARY = [
    "core/alarm.c", "core/blocking.c", "core/boot.c", "core/cleanup.c", "core/control.c",
    "core/coordinator.c", "core/cpu.c", "core/describe.c", "core/embed.c", "core/fail.c",
    "core/fiber.c", "core/guard.c", "core/hooks.c", "core/idle.c", "core/inbox.c", "core/info.c",
    "core/interval.c", "core/join.c", "core/life.c", "core/local.c", "core/log.c", "core/main.c",
    "core/map.c", "core/memory.c", "core/monitor.c", "core/poll.c", "core/pool.c", "core/post.c",
    "core/proc.c", "core/queue.c", "core/registry.c", "core/run.c", "core/runtime.c",
    "core/scope.c", "core/scope_list.c", "core/signals.c", "core/spawn.c", "core/stack.c",
    "core/stall.c", "core/table.c", "core/task.c", "core/testing.c", "core/thread.c",
    "core/timer.c", "core/timers.c", "core/trace.c", "core/virtual.c", "core/wait.c", "core/wake.c",
    "core/wall.c", "core/worker.c", "core/switch_aarch64.S", "core/switch_x86_64.S", "io/addr.c",
    "io/buf.c", "io/child.c", "io/drivers.c", "io/epoll.c", "io/fd.c", "io/hooks.c",
    "io/listeners.c", "io/mem.c", "io/mem_driver.c", "io/mem_name.c", "io/mem_stream.c",
    "io/orphans.c", "io/resolve.c", "io/serve.c", "io/socket.c", "io/tcp.c", "io/wait.c",
    "sync/fault.c", "sync/opts.c", "sync/rcu.c", "timer/clock.c", "timer/clocks.c",
    "timer/shared.c", "timer/wheel.c",
]

# Public headers: where they live; where they are staged (build/include) and installed (include).
PUBLIC = {
    "core/weft.h": "weft.h",
    "core/blocking.h": "weft/blocking.h",
    "core/fail.h": "weft/fail.h",
    "core/interval.h": "weft/interval.h",
    "core/process.h": "weft/process.h",
    "core/scope.h": "weft/scope.h",
    "core/signal.h": "weft/signal.h",
    "core/task.h": "weft/task.h",
    "core/testing.h": "weft/test.h",
    "core/time.h": "weft/time.h",
    "core/timer.h": "weft/timer.h",
    "core/wall.h": "weft/wall.h",
    "io/child.h": "weft/child.h",
    "io/io.h": "weft/io.h",
    "timer/clocks.h": "weft/clocks.h",
}

# Programs of one source, on the public headers only; built in every mode.
EXAMPLES = ["echo", "echo_task", "foreign_loop", "graceful"]

# Tests: test/<name>.c each, run in every mode. The words say more:
#   threads   it meets threads: run under ThreadSanitizer too; without it, nothing of ours in it
#             runs on more than one
#   tuning    it meets tuning options: run by check-tuning, at other values
#   tick      of the timer wheel alone: `ninja test` runs it at both ends of --tick-shift
#   kernel    it waits for the kernel's descriptors: not run with the driver "mem"
#   valgrind  it meets what is Valgrind's to find, and is quick enough: run by check-valgrind
TESTS = {
    "kernel_epoll": "",
    "kernel_memory": "",
    "kernel_socket": "",
    "kernel_thread": "",
    "stress_deque": "threads tuning",
    "stress_fd": "threads tuning kernel",
    "stress_idle": "threads tuning",
    "stress_injector": "threads tuning",
    "stress_lives": "threads tuning",
    "stress_mem": "threads tuning",
    "stress_process": "threads tuning",
    "stress_rcu": "threads",
    "stress_runtime": "threads tuning",
    "stress_shared": "threads tuning",
    "stress_stack": "threads tuning",
    "stress_timer": "threads tuning",
    "test_addr": "",
    "test_atomic": "threads tuning",
    "test_blocking": "threads",
    "test_cascade": "tuning",
    "test_child": "threads kernel",
    "test_clock": "",
    "test_clocks": "threads tuning valgrind",
    "test_control": "threads",
    "test_cpu": "threads tuning",
    "test_deadlines": "threads",
    "test_deque": "tuning",
    "test_driver": "threads",
    "test_embed": "threads valgrind",
    "test_epoll": "threads",
    "test_fail": "threads tuning valgrind",
    "test_faults": "threads",
    "test_faults_io": "threads",
    "test_fd": "threads tuning valgrind kernel",
    "test_fiber": "threads tuning valgrind",
    "test_fiber_memory": "threads",
    "test_guard": "threads",
    "test_harness": "threads tuning valgrind",
    "test_hooks": "threads",
    "test_idle": "",
    "test_injector": "tuning",
    "test_interval": "threads tuning valgrind",
    "test_life": "threads tuning",
    "test_load_histogram": "",
    "test_local": "threads valgrind",
    "test_mem": "threads",
    "test_monitor": "threads",
    "test_net": "threads",
    "test_process": "threads tuning valgrind",
    "test_queue": "threads tuning",
    "test_rcu": "threads",
    "test_runtime": "threads tuning valgrind kernel",
    "test_scenarios": "threads tuning kernel",
    "test_sched": "threads tuning kernel",
    "test_scope": "threads tuning",
    "test_serve": "threads",
    "test_shared": "tuning",
    "test_shortlock": "threads",
    "test_signals": "threads valgrind",
    "test_spinlock": "threads",
    "test_stack": "threads tuning",
    "test_switch": "threads",
    "test_table": "threads",
    "test_task": "threads tuning kernel",
    "test_tcp": "threads valgrind",
    "test_testing": "threads valgrind",
    "test_time": "threads tuning",
    "test_timer": "threads tuning kernel valgrind",
    "test_timer_again": "threads",
    "test_together": "threads tuning kernel",
    "test_trace": "threads",
    "test_virtual": "threads",
    "test_wait": "threads tuning valgrind",
    "test_wall": "threads valgrind",
    "test_wheel": "tuning tick",
    "test_wheel_model": "tuning tick",
}

# Tests in Python: test/<name>.py, run by `ninja test`; the words name the modes it runs in besides.
# "off" keeps one out, until what it tests exists. Those without a mode test the build, or release:
# what is installed, and what is measured.
TEST_SCRIPTS = {
    "test_build": "",
    "test_echo": "asan tsan",
    "test_foreign_loop": "asan tsan",
    "test_graceful": "asan tsan",
    "test_install": "",
    "test_load": "",
    "test_perf": "",
    "test_programs": "",
    "test_readme": "",
    "test_sim_record": "",
}

# Simulations: programs of test/sim/, compiled in sim mode only: "source" and the engine; "with":
# further sources; "library": the whole scheduler too; "io": and io/; "flags", for all of it, go with
# "objects", a folder of their own.
SIM_ENGINE = ["test/sim/engine.c", "test/sim/explore.c", "test/sim/main.c"]
SIM_RUNTIME = ["test/sim/invariants.c", "test/sim/local.c", "test/sim/memory.c", "test/sim/rcu.c",
               "test/sim/registry.c", "test/sim/runtime.c", "test/sim/signals.c"]
SIM_NO_IO = [*SIM_RUNTIME, "test/sim/no_io.c"]
SIM_SCENE = ["test/sim/scene.c", *SIM_NO_IO]
SIM_LIFO = {"flags": ["-UWF_RUN_ORDER_FIFO", "-DWF_RUN_ORDER_FIFO=0"], "objects": "obj-lifo"}
SIM = {
    "sim_blocking": {"source": "test/sim/sim_blocking.c", "with": SIM_SCENE, "library": True},
    "sim_clocks": {"source": "test/sim/sim_clocks.c",
                   "with": ["sync/fault.c", "sync/opts.c", "timer/wheel.c"]},
    "sim_deque": {"source": "test/sim/sim_deque.c"},
    "sim_deque_lifo": {"source": "test/sim/sim_deque.c", **SIM_LIFO},
    "sim_driver": {"source": "test/sim/sim_driver.c", "with": SIM_NO_IO, "library": True},
    "sim_embed": {"source": "test/sim/sim_embed.c", "with": SIM_NO_IO, "library": True},
    "sim_engine": {"source": "test/sim/sim_engine.c"},
    "sim_faults": {"source": "test/sim/sim_faults.c", "with": SIM_NO_IO, "library": True},
    "sim_idle": {"source": "test/sim/sim_idle.c"},
    "sim_injector": {"source": "test/sim/sim_injector.c"},
    "sim_life": {"source": "test/sim/sim_life.c", "with": SIM_SCENE, "library": True},
    "sim_mix": {"source": "test/sim/sim_mix.c", "with": SIM_NO_IO, "library": True},
    "sim_mix_lifo": {"source": "test/sim/sim_mix.c", "with": SIM_NO_IO, "library": True,
                     **SIM_LIFO},
    "sim_net": {"source": "test/sim/sim_net.c", "with": [*SIM_RUNTIME, "test/sim/net.c"],
                "library": True, "io": True},
    "sim_process": {"source": "test/sim/sim_process.c", "with": SIM_SCENE, "library": True},
    "sim_runtime": {"source": "test/sim/sim_runtime.c", "with": SIM_NO_IO, "library": True},
    "sim_scheduling": {"source": "test/sim/sim_scheduling.c", "with": SIM_SCENE, "library": True},
    "sim_scope": {"source": "test/sim/sim_scope.c", "with": SIM_SCENE, "library": True},
    "sim_shared": {"source": "test/sim/sim_shared.c",
                   "with": ["timer/shared.c", "timer/wheel.c"]},
    "sim_shutdown": {"source": "test/sim/sim_shutdown.c", "with": SIM_SCENE, "library": True},
    "sim_signals": {"source": "test/sim/sim_signals.c", "with": SIM_SCENE, "library": True},
    "sim_spinlock": {"source": "test/sim/sim_spinlock.c"},
    "sim_table": {"source": "test/sim/sim_table.c", "with": SIM_SCENE, "library": True},
    "sim_task": {"source": "test/sim/sim_task.c", "with": SIM_SCENE, "library": True},
    "sim_time": {"source": "test/sim/sim_time.c", "with": SIM_SCENE, "library": True},
    "sim_timer": {"source": "test/sim/sim_timer.c", "with": SIM_SCENE, "library": True},
    "sim_virtual": {"source": "test/sim/sim_virtual.c", "with": SIM_SCENE, "library": True},
}
# What stands in for these in a simulation of the whole runtime is in the lines above.
SIM_REPLACED = {"core/cpu.c", "core/local.c", "core/main.c", "core/map.c", "core/memory.c",
                "core/registry.c", "core/signals.c", "core/thread.c", "sync/rcu.c",
                "timer/clock.c"}
SIM_REPLACED_IO = {"io/drivers.c", "io/epoll.c", "io/mem.c", "io/mem_name.c"}
SIM_SWITCH = ["core/switch_aarch64.S", "core/switch_x86_64.S"]

# Tests that also run as static aarch64 programs, with the library sources each needs.
CROSS_TESTS = {
    "test_atomic": [],
    "test_clock": ["timer/clock.c"],
    "test_deque": [],
    "test_harness": [],
    "test_idle": [],
    "test_injector": [],
    "test_spinlock": [],
    "test_switch": ["core/fiber.c", "core/switch_aarch64.S"],
    "test_wheel": ["timer/wheel.c"],
    "test_wheel_model": ["timer/wheel.c"],
}

# Programs of perf/, with the sources of each.
PERF = {
    "bench": ["perf/bench.c", "perf/bench_blocking.c", "perf/bench_compare.c",
              "perf/bench_deque.c", "perf/bench_floor.c", "perf/bench_injector.c",
              "perf/bench_join.c", "perf/bench_measure.c", "perf/bench_memory.c",
              "perf/bench_pingpong.c", "perf/bench_rcu.c", "perf/bench_report.c",
              "perf/bench_runtime.c", "perf/bench_scope.c", "perf/bench_shared.c",
              "perf/bench_sleep.c", "perf/bench_spawn.c", "perf/bench_stream.c",
              "perf/bench_switch.c", "perf/bench_table.c", "perf/bench_task.c",
              "perf/bench_timer.c", "perf/bench_yield.c"],
    "load": ["perf/load.c", "perf/load_message.c", "perf/load_options.c", "perf/load_report.c"],
    "rivals/epoll/echo": ["perf/rivals/epoll/echo.c"],
}

# ---- How it is compiled --------------------------------------------------------------------------

BASE_CFLAGS = [
    "-std=gnu11", "-D_GNU_SOURCE", "-I.", "-I$builddir/include", "-g", "-pthread",
    "-fno-omit-frame-pointer", "-fvisibility=hidden", "-fPIC", "-fno-semantic-interposition",
    "-ftls-model=initial-exec",
    "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes",
    "-Wpointer-arith", "-Wcast-qual", "-Wundef", "-Wvla", "-Wwrite-strings",
]

# What runs the programs of check-valgrind. Each test is a child of its own, whose exit status tells
# of an error. "Possible" leaks are none: queues link into the middle of what they hold. Fair, since
# threads run one at a time, and one that waits by yielding would keep the others from running.
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=66", "--leak-check=full",
            "--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect",
            "--fair-sched=yes", "--num-callers=30", "--suppressions=test/tools/valgrind.supp"]

LIBS = ["-lurcu-qsbr", "-lurcu-common", "-pthread"]

# build/<name>/ each. `both` is for compiling and linking; `own_main`: tests run by test/harness.c,
# not by Criterion (test/harness.h says why); `library`: False where only tests that name their
# sources are built.
MODES = {
    "release": {
        "use": "what is installed and measured",
        "cc": "$cc", "cflags": ["-O2", "-DWF_DEBUG=0"],
    },
    "dev": {
        "use": "assertions on",
        "cc": "$cc", "cflags": ["-O1", "-DWF_DEBUG=1"],
    },
    "asan": {
        "use": "memory errors, leaks, undefined behaviour",
        "cc": "$cc", "cflags": ["-O1", "-DWF_DEBUG=1", "-fno-sanitize-recover=undefined"],
        "both": ["-fsanitize=address,undefined"], "own_main": True,
    },
    "tsan": {
        "use": "data races, on C11 atomics",
        "cc": "$clang", "cflags": ["-O1", "-DWF_DEBUG=1", "-DWF_ATOMICS_C11=1"],
        "both": ["-fsanitize=thread"], "own_main": True,
    },
    # The library is dev's: Valgrind needs no build of its own.
    "valgrind": {
        "use": "use of what was never written, and leaks, on a small set of tests",
        "cc": "$cc", "cflags": ["-O1", "-DWF_DEBUG=1", "-DHARNESS_VALGRIND=1"],
        "own_main": True, "library": False,
    },
    # Small sizes, so that a few operations reach every corner.
    "sim": {
        "use": "simulations: every order of operations that seeds lead to",
        "cc": "$cc", "cflags": ["-O2", "-DWF_DEBUG=1", "-DWF_ATOMICS_SIM=1"],
        "library": False,
        "tuning": {"workers-max": 4, "ring-size": 4, "budget": 4, "injector-interval": 2,
                   "io-interval": 2, "io-batch": 4},
    },
    # Concurrency Kit's ck_md.h describes the machine its package was built for; its fences would be
    # those of x86-64. Defining its guard and what it should say replaces it.
    "aarch64": {
        "use": "the assembly and the atomics of the other machine, under qemu",
        "cc": "$cross", "cflags": [
            "-O2", "-DWF_DEBUG=1", "-DCK_MD_H", "-DCK_MD_RMO", "-DCK_MD_CACHELINE=64",
            "-DCK_MD_PAGESIZE=4096", "-DCK_MD_RTM_DISABLE", "-DCK_MD_LSE_DISABLE",
            "-DCK_MD_POINTER_PACK_DISABLE", "-DCK_MD_VMA_BITS=48ULL", "-DCK_PR_ENABLE_DOUBLE"],
        "both": ["-static"], "own_main": True, "library": False,
    },
}

# check-clang: both compilers, at levels too noisy for daily work, and no warning let through.
STRICT_CFLAGS = [
    "-O2", "-Werror", "-Wformat=2", "-Wold-style-definition", "-Wredundant-decls",
    "-Wnested-externs", "-Wmissing-declarations", "-Winit-self",
]
STRICT = {
    "gcc": {
        "cc": "$cc",
        "cflags": ["-DWF_DEBUG=0", "-Wlogical-op", "-Wduplicated-cond", "-Wdouble-promotion",
                   "-Wimplicit-fallthrough=5", "-Wtrampolines"],
    },
    "clang": {
        "cc": "$clang",
        "cflags": ["-DWF_DEBUG=1", "-DWF_TEST_OWN_MAIN=1", "-Wshorten-64-to-32",
                   "-Wunreachable-code", "-Wimplicit-fallthrough", "-Wextra-semi-stmt",
                   "-Wassign-enum"],
    },
}

# ---- Tuning --------------------------------------------------------------------------------------


class Tuning:
    """An option that changes the library: its name, define, default, and what values it takes."""

    def __init__(self, name, define, default, text, low=None, high=None, power_of_two=False,
                 multiple=1, choices=None):
        self.name, self.define, self.default, self.text = name, define, default, text
        self.low, self.high, self.choices = low, high, choices
        self.power_of_two, self.multiple = power_of_two, multiple

    def takes(self):
        if self.choices:
            return " or ".join(self.choices)
        kind = "a power of two" if self.power_of_two else "a number"
        if self.multiple > 1:
            kind = "a multiple of %d" % self.multiple
        return "%s from %d to %d" % (kind, self.low, self.high)

    def parse(self, text):
        """The value, or None if it is not one this option takes."""
        if self.choices:
            return text if text in self.choices else None
        if not re.fullmatch(r"[0-9]{1,12}", text):
            return None
        value = int(text)
        if not self.low <= value <= self.high or value % self.multiple:
            return None
        if self.power_of_two and value & (value - 1):
            return None
        return value


TUNING = [
    Tuning("workers-max", "WF_WORKERS_MAX", 48, "most workers of a runtime", 1, 48),
    Tuning("run-order", "WF_RUN_ORDER_FIFO", "fifo", "order of a worker's run queue",
           choices=["fifo", "lifo"]),
    Tuning("ring-size", "WF_RING_SIZE", 256, "entries of a worker's run queue", 4, 4096,
           power_of_two=True),
    Tuning("budget", "WF_BUDGET", 128, "processes run between two looks at I/O and timers",
           1, 65535),
    Tuning("injector-interval", "WF_INJECTOR_INTERVAL", 61,
           "picks between two looks at the injector", 1, 65535),
    Tuning("io-interval", "WF_IO_INTERVAL", 61, "picks between two polls of the driver under load",
           1, 65535),
    Tuning("io-batch", "WF_IO_BATCH", 256, "events taken by one poll of the driver", 1, 4096),
    Tuning("tick-shift", "WF_TICK_SHIFT", 10, "timer tick: 2^N nanoseconds", 10, 20),
    Tuning("wheel-levels", "WF_WHEEL_LEVELS", None,
           "levels of the timer wheel; default: the fewest that cover two years", 6, 9),
    Tuning("spin-credit", "WF_SPIN_CREDIT_PERCENT", 20,
           "percent of its time a worker may spin before it parks", 0, 100),
    Tuning("stack-size", "WF_STACK_SIZE", 65536, "bytes of a fiber's stack", 16384, 1 << 30,
           multiple=4096),
    Tuning("driver", "WF_DRIVER_DEFAULT", "epoll", "I/O driver when the program names none",
           choices=["epoll", "mem"]),
]

TWO_YEARS_NS = 2 * 366 * 86400 * 10**9


def wheel_range_ns(tick_shift, levels):
    return 1 << (tick_shift + 6 * levels)


def wheel_levels_default(tick_shift):
    levels = 1
    while wheel_range_ns(tick_shift, levels) < TWO_YEARS_NS:
        levels += 1
    return levels


def check_wheel(values):
    shift, levels = values["tick-shift"], values["wheel-levels"]
    if wheel_range_ns(shift, levels) < TWO_YEARS_NS:
        fail("--wheel-levels=%d with --tick-shift=%d covers less than two years: at least %d"
             % (levels, shift, wheel_levels_default(shift)))
    if shift + 6 * levels > 62:
        fail("--wheel-levels=%d with --tick-shift=%d does not fit 63 bits: at most %d"
             % (levels, shift, (62 - shift) // 6))


def tuning_define(option, value):
    if option.name == "run-order":
        value = int(value == "fifo")
    if isinstance(value, str):
        return "'-D%s=\"%s\"'" % (option.define, value)
    return "-D%s=%s" % (option.define, value)


# ---- Packages ------------------------------------------------------------------------------------

# Debian package -> how to tell that it is there: a program, a header, or a pattern of files.
PACKAGES = {
    "build": {
        "gcc": "gcc", "libc6-dev": "<unistd.h>", "ninja-build": "ninja", "pkg-config": "pkg-config",
        "liburcu-dev": "<urcu-qsbr.h>", "libck-dev": "<ck_pr.h>",
    },
    "test": {
        "clang": "clang", "g++": "g++",
        "libclang-rt-14-dev": "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.tsan*.a",
        "libcriterion-dev": "<criterion/criterion.h>", "liburing-dev": "<liburing.h>",
        "valgrind": "valgrind",
    },
    "perf": {
        "cargo": "cargo", "librust-tokio-dev": "/usr/share/cargo/registry/tokio-1*",
        "linux-perf": "perf", "rustc": "rustc", "strace": "strace",
    },
    "cross": {
        "gcc-aarch64-linux-gnu": "aarch64-linux-gnu-gcc",
        "libc6-dev-arm64-cross": "/usr/aarch64-linux-gnu/include/unistd.h",
        "qemu-user": "qemu-aarch64",
    },
    "models": {
        "spin": "spin",
    },
}


def fail(text, status=2):
    print("configure.py: " + text, file=sys.stderr)
    sys.exit(status)


def install_packages(groups):
    names = sorted({name for group in groups for name in PACKAGES[group]})
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                           check=False)
    have = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in names if name not in have]
    if not missing:
        print("configure.py: all packages are installed: " + " ".join(names))
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if sudo and not shutil.which("sudo"):
        fail("--deps needs root to install: " + " ".join(missing), 1)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    for command in (["apt-get", "-q", "update"],
                    ["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing]):
        command = sudo + environment + command
        print("configure.py: " + " ".join(command), flush=True)
        if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
            fail("failed: " + " ".join(command), 1)


def is_there(sign, args):
    """Cheap: a look where Debian keeps things and where --cflags points; no compiler is run."""
    if sign.startswith("/"):
        return args.clang != "clang" or glob.glob(sign)
    if not sign.startswith("<"):
        return shutil.which(shlex.split(sign)[0])
    places = ["/usr/include", "/usr/include/*-linux-gnu", "/usr/local/include"]
    places += [flag[2:] for flag in shlex.split(args.cflags) if flag.startswith("-I")]
    return any(glob.glob(place + "/" + sign.strip("<>")) for place in places)


def check_packages(args):
    programs = {"gcc": args.cc, "clang": args.clang}
    missing = False
    for package, sign in {**PACKAGES["build"], **PACKAGES["test"]}.items():
        sign = programs.get(sign, sign)
        if not is_there(sign, args):
            print("configure.py: missing %s: apt-get install %s (or ./configure.py --deps)"
                  % (sign, package), file=sys.stderr)
            missing = True
    if missing:
        sys.exit(1)


# ---- Writing build.ninja -------------------------------------------------------------------------


def escape(text):
    return text.replace("$", "$$")


class Ninja:
    def __init__(self):
        self.lines = []

    def comment(self, text):
        self.lines += ["", "# " + text]

    def variable(self, name, value):
        self.lines.append("%s = %s" % (name, value if isinstance(value, str) else " ".join(value)))

    def rule(self, name, command, **variables):
        self.lines.append("rule " + name)
        for key, value in {"command": command, **variables}.items():
            self.lines.append("  %s = %s" % (key, value))

    def build(self, output, rule, inputs=(), implicit=(), order=(), **variables):
        text = "build %s: %s" % (output, rule)
        for mark, names in (("", inputs), ("| ", implicit), ("|| ", order)):
            if names:
                text += " " + mark + " ".join([names] if isinstance(names, str) else names)
        self.lines.append(text)
        for key, value in variables.items():
            self.lines.append("  %s = %s" % (key, value))

    def default(self, *names):
        self.lines.append("default " + " ".join(names))

    def text(self):
        return "\n".join(self.lines) + "\n"


class Build:
    """The targets. Every method adds some, and returns the names others need."""

    def __init__(self, args, values, arguments):
        self.args, self.values, self.arguments = args, values, arguments
        self.ninja = Ninja()
        self.objects, self.harness = {}, {}
        self.config = " ".join(["%s=%s" % (o.name, values[o.name]) for o in TUNING]
                               + ["march=" + (args.march or "default")])

    def path(self, *parts):
        return "/".join((self.args.build_dir,) + parts)

    def header(self):
        n, args = self.ninja, self.args
        arguments = " ".join(map(shlex.quote, self.arguments))
        n.lines.append(("# configure.py arguments: " + arguments).rstrip())
        n.lines.append("# Written by configure.py: change that file, not this one.")
        n.variable("ninja_required_version", "1.7")
        n.variable("builddir", args.build_dir)
        n.variable("configure_args", escape(arguments))
        n.variable("cc", escape(args.cc))
        n.variable("clang", escape(args.clang))
        n.variable("cross", "aarch64-linux-gnu-gcc")
        n.variable("cflags", escape(args.cflags + (args.march and " -march=" + args.march)).strip())
        n.variable("base_cflags", BASE_CFLAGS)
        n.variable("tuning", [tuning_define(o, self.values[o.name]) for o in TUNING]
                   + ["'-DWF_BUILD_CONFIG=\"%s\"'" % self.config])
        for name, mode in MODES.items():
            if "tuning" in mode:
                n.variable("tuning_" + name, [
                    tuning_define(o, mode["tuning"].get(o.name, self.values[o.name]))
                    for o in TUNING] + ["'-DWF_BUILD_CONFIG=\"%s\"'" % name])
        n.comment("build.ninja makes itself again when configure.py changes.")
        n.rule("configure", "python3 configure.py --regenerate $configure_args", generator="1",
               description="CONFIGURE")
        n.build(output_path(args), "configure", [], ["configure.py"])
        n.comment("Public headers, staged as they are installed.")
        n.rule("stage", "cmp -s $in $out || cp $in $out", restat="1", description="STAGE $out")
        staged = []
        for source, name in PUBLIC.items():
            staged.append(self.path("include", name))
            n.build(staged[-1], "stage", source)
        n.build("headers", "phony", staged)

    def rules(self):
        n = self.ninja
        n.comment("Archives are written anew: ar would keep objects that left the list.")
        n.rule("ar", "rm -f $out && ar rcs $out $in", description="AR $out")
        n.rule("symlink", "ln -sf $target $out", description="LINK $out")
        n.rule("shared", "$cc -shared -Wl,-soname,$soname -Wl,--version-script=core/weft.map"
               " -Wl,-z,defs -Wl,-z,now $cflags $in -o $out $libs", description="LINK $out")
        n.rule("pc", "python3 configure.py $configure_args --print-pc > $out",
               description="PC $out")
        n.rule("compdb", "ninja -f $in -t compdb cc_release cc_dev > $out",
               description="COMPDB $out")
        n.rule("run_tests", "python3 test/tools/run_tests.py --mode $mode --build-dir $builddir"
               " $options $in", pool="console", description="TEST $mode")
        n.rule("command", "$command", pool="console", description="RUN $command")
        for name, mode in MODES.items():
            n.comment("%s: %s" % (name, mode["use"]))
            self.compile_rule(name, mode)
            n.rule("link_" + name, " ".join([mode["cc"], *mode.get("both", []),
                                             "$cflags $in -o $out $libs"]), description="LINK $out")

    def compile_rule(self, name, mode):
        self.ninja.variable("cflags_" + name, mode["cflags"] + mode.get("both", []))
        tuning = "$tuning_" + name if "tuning" in mode else "$tuning"
        self.ninja.rule("cc_" + name, mode["cc"] + " $base_cflags $cflags_" + name + " " + tuning +
                        " $cflags $extra -MMD -MF $out.d -c $in -o $out",
                        depfile="$out.d", deps="gcc", description="CC $out")

    def always(self, name, rule, inputs=(), implicit=(), **variables):
        """A command that runs each time `name` is asked for: its output is never made. (`name`
        itself will not do: test is also a folder.)"""
        out = self.path("always", name)
        self.ninja.build(out, rule, inputs, implicit, **variables)
        self.ninja.build(name, "phony", out)

    def compile(self, mode, source, extra=()):
        out = self.path(mode, "obj", os.path.splitext(source)[0] + ".o")
        variables = {"extra": " ".join(extra)} if extra else {}
        self.ninja.build(out, "cc_" + mode, source, order=["headers"], **variables)
        return out

    def program(self, mode, out, inputs, libs):
        self.ninja.build(out, "link_" + mode, inputs, libs=" ".join(libs))
        return out

    def tests(self, mode, names, rest, libs):
        """Test programs; rest(name) is what each is linked with besides the harness."""
        own_main = MODES[mode].get("own_main")
        flags = ["-DWF_TEST_OWN_MAIN=1"] if own_main else []
        libs = libs if own_main else ["-lcriterion", *libs]
        if mode not in self.harness:
            self.harness[mode] = self.compile(mode, "test/harness.c", flags)
        harness = self.harness[mode]
        return [self.program(mode, self.path(mode, "test", name),
                             [self.compile(mode, "test/%s.c" % name, flags), harness, *rest(name)],
                             libs)
                for name in names]

    def mode(self, mode):
        """One mode: library, examples, tests, check-<mode>. Returns its products."""
        n = self.ninja
        n.comment("Mode " + mode)
        self.objects[mode] = [self.compile(mode, source) for source in LIBRARY]
        library = self.path(mode, "libweft.a")
        n.build(library, "ar", self.objects[mode])
        examples = [self.program(mode, self.path(mode, "examples", name),
                                 [self.compile(mode, "examples/%s.c" % name), library], LIBS)
                    for name in EXAMPLES]
        names = [name for name, words in TESTS.items()
                 if mode != "tsan" or "threads" in words.split()]
        programs = self.tests(mode, names, lambda name: [library], LIBS)
        scripts = ["test/%s.py" % name for name, words in TEST_SCRIPTS.items()
                   if mode in words.split()]
        self.always("check-" + mode, "run_tests", programs + scripts, examples, mode=mode)
        n.build("programs-" + mode, "phony", programs)
        if mode == "dev":
            config = self.program(mode, self.path(mode, "test", "tools/print_config"),
                                  [self.compile(mode, "test/tools/print_config.c"), library], LIBS)
            n.build("tuning-dev", "phony", [config] + [
                program for name, program in zip(names, programs)
                if "tuning" in TESTS[name].split()])
        return library, examples, programs

    def products(self, library, examples):
        """What `ninja` makes and `ninja install` copies."""
        n, soname = self.ninja, self.path("release", SONAME)
        n.comment("Products")
        n.build(soname, "shared", self.objects["release"], ["core/weft.map"], soname=SONAME,
                libs=" ".join(LIBS))
        n.build(self.path("release", "libweft.so"), "symlink", soname, target=SONAME)
        n.build(self.path("release", "weft.pc"), "pc", [], ["configure.py"])
        n.build(self.path("compile_commands.json"), "compdb", output_path(self.args))
        n.build("library", "phony", [library, soname, self.path("release", "libweft.so"),
                                     self.path("release", "weft.pc"), "headers"])
        n.build("all", "phony", ["library", *examples, self.path("compile_commands.json")])
        n.default("all")
        for name in ("install", "uninstall"):
            self.always(name, "command", [], ["library"],
                        command="python3 configure.py $configure_args --" + name)

    def measurements(self, library, examples):
        n, args = self.ninja, self.args
        n.comment("Measurements; a result says how its programs were compiled")
        shown = re.sub(r"""["'%\\$]""", "", " ".join([args.cflags, args.march]))
        n.variable("perf_cflags", ["'-DBENCH_COMPILER=\"$cc\"'", "'-DBENCH_CFLAGS=\"%s\"'" % (
            " ".join(MODES["release"]["cflags"] + shown.split()))])
        programs = []
        for name, sources in PERF.items():
            objects = [self.compile("release", source, ["$perf_cflags"]) for source in sources]
            programs.append(self.program("release", self.path("release", "perf", name),
                                         [*objects, library], ["-lm", *LIBS]))
        n.build("perf-programs", "phony", programs)
        for name, script in (("demo", "perf/demo.py"), ("bench-echo", "perf/bench_echo.py"),
                             ("bench-tokio", "perf/bench_rivals.py")):
            self.always(name, "command", script, [*programs, *examples],
                        command="python3 %s --build %s" % (script, self.path("release")))
        self.always("bench", "command", self.path("release", "perf", "bench"),
                    command=self.path("release", "perf", "bench") + " all")

    def strict(self):
        n = self.ninja
        n.comment("check-clang: the whole tree, by both compilers")
        sources = [s for s in LIBRARY if s.endswith(".c")] + ["test/harness.c"]
        sources += ["examples/%s.c" % name for name in EXAMPLES]
        sources += ["test/%s.c" % name for name in TESTS]
        sources += sorted({source for sources in PERF.values() for source in sources})
        objects = []
        for name, compiler in STRICT.items():
            flags = STRICT_CFLAGS + compiler["cflags"]
            self.compile_rule("strict_" + name, {**compiler, "cflags": flags})
            for source in sources:
                objects.append(self.path("strict", name, os.path.splitext(source)[0] + ".o"))
                extra = {"extra": "$perf_cflags"} if source.startswith("perf/") else {}
                n.build(objects[-1], "cc_strict_" + name, source, order=["headers"], **extra)
        n.build("check-clang", "phony", objects)

    def cross(self):
        n = self.ninja
        n.comment("check-aarch64: only tests that name the sources they need")
        sources = sorted({source for sources in CROSS_TESTS.values() for source in sources})
        objects = {source: self.compile("aarch64", source) for source in sources}
        programs = self.tests("aarch64", CROSS_TESTS,
                              lambda name: [objects[source] for source in CROSS_TESTS[name]], [])
        self.always("check-aarch64", "run_tests", programs, mode="aarch64",
                    options="--wrapper qemu-aarch64")

    def simulations(self):
        n = self.ninja
        n.comment("Simulations; SEEDS=a..b in the environment chooses other seeds")
        library = [source for source in LIBRARY if source not in SIM_SWITCH
                   and source not in SIM_REPLACED | SIM_REPLACED_IO]
        scheduler = [source for source in library if not source.startswith("io/")]
        programs, made_already = [], set()
        for name, made in SIM.items():
            sources = [made["source"], *made.get("with", []), *SIM_ENGINE, *SIM_SWITCH]
            if made.get("library"):
                sources += library if made.get("io") else scheduler
            objects = []
            for source in sources:
                out = self.path("sim", made.get("objects", "obj"),
                                os.path.splitext(source)[0] + ".o")
                objects.append(out)
                if out not in made_already:
                    made_already.add(out)
                    n.build(out, "cc_sim", source, order=["headers"],
                            extra=" ".join(made.get("flags", [])))
            programs.append(self.program("sim", self.path("sim", "test", name), objects,
                                         ["-pthread"]))
        self.always("sim-schedules", "run_tests", programs, mode="sim")
        self.always("sim-long", "run_tests", programs, mode="sim", options="--timeout 1000000")
        for name, script in (("check-sim-record", "sim_record.py check"),
                             ("check-sim-seeds", "sim_seeds.py"),
                             ("sim-record", "sim_record.py make")):
            self.always(name, "command", programs,
                        command="python3 test/tools/%s --build-dir $builddir" % script)
        n.build("sim", "phony", ["sim-schedules", "check-sim-record", "check-sim-seeds"])
        n.build("check-sim", "phony", "sim")
        return {os.path.basename(program): program for program in programs}

    def valgrind(self, library):
        self.ninja.comment("check-valgrind: tests that say so, on the library of dev")
        names = [name for name, words in TESTS.items() if "valgrind" in words.split()]
        programs = self.tests("valgrind", names, lambda name: [library], LIBS)
        self.always("check-valgrind", "run_tests", programs, ["test/tools/valgrind.supp"],
                    mode="valgrind", options="--wrapper '%s'" % " ".join(VALGRIND))

    def ticks(self):
        """The wheel's tests at the smallest and the largest tick, unless that is the build's."""
        option = next(o for o in TUNING if o.name == "tick-shift")
        self.ninja.comment("The timer wheel at other ticks")
        names, programs = [n for n, words in TESTS.items() if "tick" in words.split()], []
        for shift in sorted({option.low, option.high} - {self.values["tick-shift"]}):
            flags = ["-U%s -D%s=%d" % (define, define, value) for define, value in (
                ("WF_TICK_SHIFT", shift), ("WF_WHEEL_LEVELS", wheel_levels_default(shift)))]
            objects = {}
            for source in ["timer/wheel.c", *["test/%s.c" % name for name in names]]:
                objects[source] = self.path("dev", "obj-tick%d" % shift, source[:-2] + ".o")
                self.ninja.build(objects[source], "cc_dev", source, order=["headers"],
                                 extra=" ".join(flags))
            programs += [self.program(
                "dev", self.path("dev", "test", "%s_tick%d" % (name, shift)),
                [objects["test/%s.c" % name], self.harness["dev"], objects["timer/wheel.c"]],
                ["-lcriterion"]) for name in names]
        return programs

    def models(self):
        self.ninja.comment("check-models: spin on the models of the protocols")
        self.always("check-models", "command", "test/models/run.py",
                    command="python3 test/models/run.py")

    def everything(self):
        self.header()
        self.rules()
        made = {mode: self.mode(mode) for mode in MODES if MODES[mode].get("library", True)}
        self.cross()
        self.valgrind(made["dev"][0])
        simulations = self.simulations()
        self.products(*made["release"][:2])
        self.measurements(*made["release"][:2])
        self.strict()
        self.models()
        ticks = self.ticks()
        n = self.ninja
        n.comment("Tests")
        library, examples, programs = made["dev"]
        scripts = ["test/%s.py" % name for name, words in TEST_SCRIPTS.items() if words != "off"]
        planted = [self.tests(mode, ["tools/planted"], lambda name: [], [])[0]
                   for mode in ("dev", "tsan")]
        self.always("test", "run_tests", programs + ticks + scripts,
                    [library, *examples, *planted, simulations["sim_spinlock"], "all",
                     "perf-programs"], mode="dev")
        self.always("check-tuning", "command", "test/tools/check_tuning.py",
                    command="python3 test/tools/check_tuning.py --build-dir "
                    + self.path("tuning"))
        return n.text()


def output_path(args):
    """build.ninja of the default build folder is the tree's; any other lies in its own folder."""
    return "build.ninja" if args.build_dir == "build" else args.build_dir + "/build.ninja"


# ---- Installing ----------------------------------------------------------------------------------


def pkg_config_text(args):
    return """prefix=%s
includedir=${prefix}/include
libdir=%s

Name: weft
Description: Runtime for low-latency network servers: fibers, tasks, timers, I/O
Version: %s
Requires.private: liburcu-qsbr
Libs: -L${libdir} -lweft
Libs.private: -pthread
Cflags: -I${includedir}
""" % (args.prefix, os.path.join("${prefix}", args.libdir), VERSION)


def installed(args):
    """What is installed: source, place below DESTDIR, mode. install() makes what has no source."""
    release = args.build_dir + "/release/"
    libdir = os.path.join(args.prefix, args.libdir)
    files = [(release + "libweft.a", libdir + "/libweft.a", 0o644),
             (release + SONAME, libdir + "/" + SONAME, 0o755),
             (None, libdir + "/libweft.so", None),
             (None, libdir + "/pkgconfig/weft.pc", 0o644)]
    files += [(args.build_dir + "/include/" + name, args.prefix + "/include/" + name, 0o644)
              for name in PUBLIC.values()]
    return files


def install(args):
    """Each file appears whole: a running program keeps the library it has."""
    for source, place, mode in installed(args):
        place = os.environ.get("DESTDIR", "") + place
        os.makedirs(os.path.dirname(place), exist_ok=True)
        fresh = place + ".new"
        if os.path.lexists(fresh):
            os.unlink(fresh)
        if mode is None:
            os.symlink(SONAME, fresh)
        else:
            if source is None:
                write_file(fresh, pkg_config_text(args))
            else:
                shutil.copyfile(source, fresh)
            os.chmod(fresh, mode)
        os.replace(fresh, place)
        print("installed " + place)


def uninstall(args):
    for _, place, _ in installed(args):
        place = os.environ.get("DESTDIR", "") + place
        if os.path.lexists(place):
            os.unlink(place)
            print("removed " + place)
    headers = os.environ.get("DESTDIR", "") + args.prefix + "/include/weft"
    if os.path.isdir(headers) and not os.listdir(headers):
        os.rmdir(headers)


# ---- Command line --------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message):
        fail(message.replace("unrecognized arguments:", "unknown option"))


def targets_text():
    lines = ["targets of ninja:",
             "  (none)          library and examples, release",
             "  test            build and run all tests, dev",
             "  demo            examples/echo under load, every reply checked; half a minute",
             "  bench           every hot operation",
             "  bench-echo      a whole server, beside its rivals",
             "  bench-tokio     operations that tokio has too, beside it; needs --deps=perf",
             "  sim             simulations, seeds that are always the same; sim-long: SEEDS=a..b",
             "  sim-record      simulations, very many seeds: writes test/sim/RECORD.json; minutes",
             "  install         to DESTDIR and the prefix; uninstall removes",
             "  check-clang     everything by gcc and clang with more warnings, as errors",
             "  check-tuning    tuning options at other values",
             "  check-models    the protocols' models, as they are and with each step removed",
             "  check-<mode>    the tests in that mode:"]
    lines += ["    %-14s%s" % (name, mode["use"]) for name, mode in MODES.items()]
    lines += ["", "exit status: 0; 2 for a wrong option; 1 if a package, a file or a program is"
              " missing"]
    return "\n".join(lines)


def parse_arguments(argv):
    parser = Parser(prog="configure.py", allow_abbrev=False, description=__doc__.splitlines()[0],
                    epilog=targets_text(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deps", nargs="?", const="test", metavar="GROUPS",
                        help="only install the packages (Debian): test (default), perf, cross,"
                        " models, or several with commas")
    parser.add_argument("--prefix", default="/usr/local", help="where to install [%(default)s]")
    parser.add_argument("--libdir", default="lib",
                        help="where libraries go, in the prefix unless absolute [%(default)s]")
    parser.add_argument("--cc", default="gcc", help="C compiler [%(default)s]")
    parser.add_argument("--clang", default="clang", help="for tsan and check-clang [%(default)s]")
    parser.add_argument("--cflags", default="", help="further compiler flags")
    parser.add_argument("--march", default="", metavar="CPU", help="compile for this CPU (-march)")
    parser.add_argument("--build-dir", default="build", metavar="DIR",
                        help="where to build, in the tree; any but the default gets its own"
                        " build.ninja there [%(default)s]")
    # What build.ninja calls.
    for name in ("regenerate", "print-pc", "install", "uninstall"):
        parser.add_argument("--" + name, action="store_true", help=argparse.SUPPRESS)
    group = parser.add_argument_group("tuning")
    for option in TUNING:
        default = "" if option.default is None else " [%s]" % option.default
        group.add_argument("--" + option.name, metavar="N" if option.choices is None else
                           "|".join(option.choices),
                           help="%s: %s%s" % (option.text, option.takes(), default))
    return parser.parse_args(argv)


def tuning_values(args):
    values = {}
    for option in TUNING:
        text = getattr(args, option.name.replace("-", "_"))
        if text is None:
            values[option.name] = option.default
            continue
        values[option.name] = option.parse(text)
        if values[option.name] is None:
            fail("--%s=%s: must be %s" % (option.name, text, option.takes()))
    if values["wheel-levels"] is None:
        values["wheel-levels"] = wheel_levels_default(values["tick-shift"])
    check_wheel(values)
    return values


def check_words(args):
    if not args.prefix.startswith("/"):
        fail("--prefix=%s: must be absolute" % args.prefix)
    if not re.fullmatch(r"[A-Za-z0-9_.+-]*", args.march):
        fail("--march=%s: must be the name of a CPU" % args.march)
    parts = args.build_dir.split("/")
    if not re.fullmatch(r"[A-Za-z0-9_.+/-]+", args.build_dir) or {"", ".", ".."} & set(parts):
        fail("--build-dir=%s: must be a plain path in the tree" % args.build_dir)


def write_file(path, text):
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        fail("%s: %s" % (path, error.strerror), 1)


def main(argv):
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    args = parse_arguments(argv)
    if args.deps is not None:
        groups = args.deps.split(",")
        for group in groups:
            if group == "build" or group not in PACKAGES:
                fail("--deps=%s: must be of %s" % (
                    args.deps, ", ".join(name for name in PACKAGES if name != "build")))
        return install_packages(["build", *groups])
    values = tuning_values(args)
    check_words(args)
    if args.print_pc:
        print(pkg_config_text(args), end="")
        return None
    if args.install or args.uninstall:
        return install(args) if args.install else uninstall(args)
    if not args.regenerate:
        check_packages(args)
    build = Build(args, values, [a for a in argv if a != "--regenerate"])
    path = output_path(args)
    write_file(path, build.everything())
    if not args.regenerate:
        print("wrote %s: %s" % (path, build.config))
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
