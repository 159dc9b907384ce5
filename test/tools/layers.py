#!/usr/bin/env python3
"""Checks what the folders promise: who includes whom, who calls what; and a few words and widths.

    sync <- timer <- core <- io <- examples, test, perf        arrows point down only

Scheduler code must not go past its wrappers to threads, clocks, memory or atomics: a wrapper is
what a simulator can replace. Each exception stands in OWNERS with its reason; one that is no longer
used is an error too. And what may fail asks wf_fault() first, so that tests reach what comes then.
Prints file:line: problem, and fails if there was any.
"""

import argparse
import os
import re
import subprocess
import sys

FOLDERS = ("sync", "timer", "core", "io", "examples", "test", "perf")
SCHEDULER = ("sync", "timer", "core", "io")
COLUMNS_MAX = 100
TAB = 8

# Quoted includes: folder -> folders it may name.
MAY_INCLUDE = {
    "sync": {"sync"},
    "timer": {"timer", "sync"},
    "core": {"core", "timer", "sync"},
    "io": {"io", "core", "timer", "sync"},
    "examples": set(),
    "test": {"test", "examples", "perf", "io", "core", "timer", "sync"},
    "perf": {"perf", "io", "core", "timer", "sync"},
}

# System headers that belong to one place: pattern -> folders (end in /) and files that may.
OWNED_HEADERS = {
    r"ck_\w+\.h": ("sync/", "perf/"),
    r"urcu.*": ("sync/rcu.c", "perf/bench_rcu.c"),
    r"liburing.*": ("io/uring.c",),
    r"criterion/.*": ("test/harness.h",),
    r"stdatomic\.h": (),
    r"threads\.h": (),
    r"weft/(io|child)\.h": ("core/weft.h", "io/", "examples/", "test/", "perf/"),
    r"weft/(clocks|time)\.h": ("core/", "io/", "examples/", "test/", "perf/", "timer/clocks.h"),
    r"weft(/.*)?\.h": ("core/", "io/", "examples/", "test/", "perf/"),
}

# What scheduler code calls only in its wrapper: what -> pattern, and files with the reason.
OWNERS = {
    "threads": (r"\bpthread_\w+\s*\(", {
        "core/thread.c": "the wrapper",
        "core/coordinator.c": "blocks its signals before workers exist",
        "io/orphans.c": "a thread that reaps children, which belongs to no runtime",
        "io/resolve.c": "threads for the C library's resolver, which belong to no runtime",
        "sync/rcu.c": "the reclaimer's thread, and the end of foreign threads",
        "sync/spinlock.h": "who holds it, in debug builds",
        "timer/clocks.c": "who advances a clock, and whose thread it is bound to",
    }),
    "the clock": (r"\b(clock_gettime|clock_nanosleep|clock_getres|gettimeofday|time)\s*\(", {
        "timer/clock.c": "the wrapper",
        "core/thread.c": "what another thread has computed, not the time",
        "sync/rcu.c": "the age of a grace period",
    }),
    "memory": (r"\b(malloc|calloc|realloc|reallocarray|free|aligned_alloc|posix_memalign|strdup"
               r"|strndup|asprintf|vasprintf)\s*\(", {
        "core/memory.c": "the default allocator",
        "sync/rcu.c": "the reclaimer, which outlives what the runtime's allocator serves",
        "core/thread.c": "what belongs to a thread, not to a runtime",
        "io/resolve.c": "a lookup may outlive its runtime",
        "timer/clocks.c": "a clock belongs to no runtime",
    }),
    "atomics": (r"(\b__atomic_\w+|\b__sync_\w+|\batomic_\w+\s*\(|\b_Atomic\b|\bck_pr_\w+)", {
        "sync/atomic.h": "the wrapper",
    }),
    "thread-local variables": (r"\b(__thread|_Thread_local|thread_local)\b", {
        "core/self.h": "the current worker, for who asks once",
        "core/thread.c": "the current worker",
        "sync/rcu.c": "who registered this thread",
    }),
    "sleep": (r"\b(usleep|nanosleep|sleep|sched_yield|thrd_\w+)\s*\(", {
        "core/thread.c": "the wrapper",
    }),
    "randomness": (r"\b(rand|random|srand|srandom|drand48|getrandom|getentropy)\s*\(", {
    }),
}

# What may fail, by what the wrapper asks wf_fault() or wf_fails() for in the same function, so that
# a test can have it fail (sync/fault.h); None: SYS_ and its name. wf_syscall() asks by itself.
FALLIBLE = {
    "WF_CALL_ALLOCATE": "malloc calloc realloc reallocarray aligned_alloc posix_memalign strdup"
                        " strndup asprintf vasprintf pthread_attr_setaffinity_np"
                        " posix_spawn_file_actions_addopen posix_spawn_file_actions_adddup2"
                        " posix_spawn_file_actions_addchdir_np"
                        " posix_spawn_file_actions_addclosefrom_np",
    "WF_CALL_THREAD": "pthread_create",
    "WF_CALL_THREAD_KEY": "pthread_key_create pthread_setspecific",
    "WF_CALL_LOOKUP": "getaddrinfo",
    "WF_CALL_SPAWN": "posix_spawn posix_spawnp",
    "SYS_sched_getaffinity": "sched_getaffinity pthread_getaffinity_np",
    "SYS_sched_setaffinity": "sched_setaffinity pthread_setaffinity_np",
    "SYS_openat": "open openat fopen",
    "SYS_ppoll": "poll ppoll",
    "SYS_eventfd2": "eventfd",
    "SYS_signalfd4": "signalfd",
    "SYS_futex": "wf_futex_sleep",
    "SYS_prlimit64": "getrlimit setrlimit prlimit",
    None: "mmap munmap mremap madvise mprotect mincore mlock read write pread pwrite close dup dup2"
          " dup3 pipe pipe2 fcntl ioctl prctl sigaction sigaltstack timerfd_create"
          " timerfd_settime epoll_create1"
          " epoll_ctl epoll_wait epoll_pwait2 select socket socketpair bind listen accept accept4"
          " connect shutdown recv recvfrom recvmsg send sendto sendmsg getsockopt setsockopt"
          " getsockname getpeername fork execve waitpid waitid kill syscall wf_syscall6",
}

# Calls of these that do not ask: (file, call) -> reason.
UNASKED = {
    ("core/alarm.c", "close"): "a timerfd: nothing is reported",
    ("core/alarm.c", "timerfd_settime"): "with our own arguments it cannot fail",
    ("core/fiber.c", "syscall"): "whether there are shadow stacks; refused means none",
    ("core/guard.c", "sigaction"): "with our own arguments it cannot fail",
    ("core/guard.c", "sigaltstack"): "with our own arguments it cannot fail",
    ("core/guard.c", "syscall"): "a signal to this thread, from a signal handler",
    ("core/guard.c", "write"): "the last words before abort()",
    ("core/coordinator.c", "close"): "an eventfd and a signalfd: nothing is reported",
    ("core/coordinator.c", "sigaction"): "it only asks: with our own arguments it cannot fail",
    ("core/coordinator.c", "write"): "the eventfd of the coordinator: its counter cannot be full",
    ("core/coordinator.c", "read"): "a non-blocking signalfd: nothing there is its only error",
    ("core/coordinator.c", "sigaction"): "with our own arguments it cannot fail",
    ("core/coordinator.c", "write"): "an eventfd: its counter cannot be full",
    ("core/map.c", "close"): "of a file in /proc: nothing is reported",
    ("core/memory.c", "posix_memalign"): "called by wf_alloc(), which asks",
    ("core/runtime.c", "getrlimit"): "what fails there leaves the limit as it is",
    ("core/runtime.c", "setrlimit"): "what fails there leaves the limit as it is",
    ("core/stall.c", "sigaction"): "with our own arguments it cannot fail",
    ("core/thread.c", "syscall"): "gettid and a wake cannot fail; wf_futex_wait() asks",
    ("io/child.c", "wf_syscall6"): "kills and reaps a child of our own that has no name yet",
    ("io/epoll.c", "wf_syscall6"): "a wake: the counter cannot be full",
    ("io/orphans.c", "wf_syscall6"): "takes out of an epoll set what is in it",
    ("io/syscall.h", "wf_syscall6"): "the wrapper; close(2) asks after the call",
    ("sync/futex.h", "syscall"): "its callers take every wait for spurious, and rcu.c asks",
    ("sync/rcu.c", "wf_futex_sleep"): "of a barrier, which loops; the reclaimer's own asks",
    ("sync/shortlock.h", "wf_futex_sleep"): "loops until the lock is there",
    ("sync/spinlock.h", "wf_futex_sleep"): "loops until the lock is there",
    ("timer/clock.c", "prctl"): "only the lateness of sleeps depends on it",
    ("timer/clocks.c", "wf_futex_sleep"): "loops until what it waits for has come",
}

# Words that mean "not finished", in pieces so that this file passes its own check.
UNFINISHED = re.compile(
    r"\b(%s)\b" % "|".join(("TO" "DO", "FIX" "ME", "X" "XX", "HA" "CK", "not " "implemented")))

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def code_only(text):
    """The text with comments, strings and character constants emptied, line numbers kept."""
    return COMMENT_OR_STRING.sub(lambda match: "\n" * match.group().count("\n") or " ", text)


def width(line):
    return len(line.expandtabs(TAB))


class Lint:
    def __init__(self, root, tracked):
        self.root, self.tracked = root, tracked
        self.problems = []
        self.used, self.unasked = set(), set()
        self.seen = set()

    def problem(self, path, number, text):
        self.problems.append("%s:%d: %s" % (path, number, text))

    def files(self):
        for folder in FOLDERS:
            for place, folders, names in os.walk(os.path.join(self.root, folder)):
                folders[:] = sorted(name for name in folders if not name.startswith("__"))
                for name in sorted(names):
                    path = os.path.relpath(os.path.join(place, name), self.root)
                    if self.tracked is None or path in self.tracked:
                        yield path

    def include(self, path, number, quote, name):
        folder = path.split("/")[0]
        if quote == '"':
            target = name.split("/")[0]
            if "/" not in name or target not in FOLDERS:
                self.problem(path, number, 'include "%s" is not written from the root' % name)
            elif target not in MAY_INCLUDE[folder]:
                self.problem(path, number, "%s may not include %s" % (folder, name))
            return
        for pattern, places in OWNED_HEADERS.items():
            if not re.fullmatch(pattern, name):
                continue
            if not any(path.startswith(p) if p.endswith("/") else path == p for p in places):
                self.problem(path, number, "<%s> belongs to %s" % (
                    name, " ".join(places) or "nobody"))
            return

    def calls(self, path, code):
        for what, (pattern, owners) in OWNERS.items():
            for match in re.finditer(pattern, code):
                if path in owners:
                    self.used.add((what, path))
                    continue
                self.problem(path, code.count("\n", 0, match.start()) + 1,
                             "%s: only in %s" % (match.group().rstrip("( \t"),
                                                 ", ".join(owners) or "no file"))

    def faults(self, path, code):
        """Each call that may fail asks first, or stands in UNASKED."""
        for kind, names in FALLIBLE.items():
            for match in re.finditer(r"(?<![\w.>])(%s)\s*\(" % names.replace(" ", "|"), code):
                name, at = match.group(1), match.start()
                opened, closed = code.rfind("\n{\n", 0, at), code.rfind("\n}", 0, at)
                if opened <= closed:
                    continue  # a declaration, or a macro
                body = code[opened:code.find("\n}\n", at)]
                if re.search(r"wf_(fault|fails)\(%s\)|\bWF_THROUGH_LIBC\("
                             % (kind or "SYS_" + name), body):
                    continue
                if (path, name) in UNASKED:
                    self.unasked.add((path, name))
                    continue
                self.problem(path, code.count("\n", 0, at) + 1,
                             "%s: does not ask wf_fault(), so no test can have it fail" % name)

    def check_c(self, path, text):
        for number, line in enumerate(text.split("\n"), 1):
            found = INCLUDE.match(line)
            if found:
                self.include(path, number, *found.groups())
        if path.split("/")[0] in SCHEDULER:
            self.calls(path, code_only(text))
            self.faults(path, code_only(text))

    def run(self):
        for path in self.files():
            kind = os.path.splitext(path)[1]
            if kind not in (".c", ".h", ".S", ".py", ".sh"):
                continue
            self.seen.add(path)
            with open(os.path.join(self.root, path), encoding="utf-8") as file:
                text = file.read()
            for number, line in enumerate(text.split("\n"), 1):
                if UNFINISHED.search(line):
                    self.problem(path, number, "unfinished: " + line.strip())
                if width(line) > COLUMNS_MAX:
                    self.problem(path, number, "%d columns, at most %d"
                                 % (width(line), COLUMNS_MAX))
            if kind in (".c", ".h", ".S"):
                self.check_c(path, text)
        for what, (_, owners) in OWNERS.items():
            for path in owners:
                there = path in self.seen or not os.path.exists(os.path.join(self.root, path))
                if there and (what, path) not in self.used:
                    self.problem(path, 0, "listed in layers.py for %s, but uses none" % what)
        for path, name in sorted(UNASKED):
            there = path in self.seen or not os.path.exists(os.path.join(self.root, path))
            if there and (path, name) not in self.unasked:
                self.problem(path, 0, "listed in layers.py for %s, but has none that does not ask"
                             % name)
        return self.problems


def tracked_files(root):
    """None where there is no git."""
    try:
        result = subprocess.run(["git", "ls-files"], cwd=root, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return None
    return set(result.stdout.splitlines()) if result.returncode == 0 and result.stdout else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracked", action="store_true",
                        help="only files that git knows, if the tree is in git")
    parser.add_argument("root", nargs="?", help="of the tree [the one this script is in]",
                        default=os.path.join(os.path.dirname(__file__), "..", ".."))
    args = parser.parse_args()
    tracked = tracked_files(args.root) if args.tracked else None
    problems = Lint(os.path.abspath(args.root), tracked).run()
    print("\n".join(problems) if problems else "layers: nothing to report")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
