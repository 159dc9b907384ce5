"""What perf/demo.py and perf/bench_echo.py share: servers as children that never outlive the
script, and runs of the load generator. Python's standard library only."""

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time

# For what hangs: a busy machine may take its time.
START_SECONDS = 60
STOP_SECONDS = 60
LOAD_TIMEOUT_SECONDS = 60
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Something did not work; the text says what, in one or a few lines."""


def die_with_parent():
    """In the child, before exec: even a killed script leaves no server behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def exit_on_signals():
    """SIGTERM and SIGHUP end the script as Ctrl-C does: through every `finally` and `with`."""
    def leave(number, _frame):
        sys.exit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def need(path):
    """The program at `path`, which the build should have made."""
    if not os.access(path, os.X_OK):
        raise Failed("%s is missing: run this by ninja, or build it first" % path)
    return path


class Server:
    """A child that prints `listening on ADDRESS`. To be used in a `with`, which kills it at the end
    if stop() has not ended it."""

    def __init__(self, command, environment=None, cpu=None):
        self.name = os.path.basename(command[0])
        self.errors = tempfile.TemporaryFile()
        self.cpu = cpu

        def prepare():
            die_with_parent()
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors, preexec_fn=prepare,
                                        env={**os.environ, **(environment or {})})
        self.output = b""
        self.terminated = False
        try:
            self.address = self.wait_listening()
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def said(self):
        """What it wrote to stderr, to be added to a message."""
        self.errors.seek(0)
        text = self.errors.read().decode("utf-8", "replace").strip()
        return "; it said: " + text if text else ""

    def wait_listening(self):
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                for line in self.output.split(b"\n")[:-1]:
                    if line.startswith(b"listening on "):
                        return line[len(b"listening on "):].decode().strip()
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise Failed("%s did not say \"listening on ADDRESS\" within %d s%s"
                                 % (self.name, START_SECONDS, self.said()))
                data = os.read(self.process.stdout.fileno(), 4096)
                if not data:
                    status = self.process.wait(timeout=START_SECONDS)
                    raise Failed("%s ended with status %d before it listened%s"
                                 % (self.name, status, self.said()))
                self.output += data

    def cpu_ns(self):
        """Processor time of all its threads; exact where the kernel tells, else in ticks."""
        folder = "/proc/%d" % self.process.pid
        try:
            total = 0
            for thread in os.listdir(folder + "/task"):
                with open("%s/task/%s/schedstat" % (folder, thread), encoding="ascii") as file:
                    total += int(file.read().split()[0])
            return total
        except OSError:
            with open(folder + "/stat", encoding="ascii") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) * 10**9 // os.sysconf("SC_CLK_TCK")

    def terminate(self):
        """SIGTERM only; stop() then waits."""
        self.terminated = True
        self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds=STOP_SECONDS):
        """Ends it by SIGTERM, unless it has been told already, and returns its exit status."""
        if self.process.poll() is None and not self.terminated:
            self.terminate()
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed("%s did not end within %d s of SIGTERM%s"
                         % (self.name, seconds, self.said())) from None


def run_load(program, address, arguments, cpu=None, progress=None, limit=600):
    """Runs the generator and returns its figures; `status` among them is its exit status.
    progress(line) is called with each of its progress lines."""
    command = [program, "--json", "--timeout", str(LOAD_TIMEOUT_SECONDS), *map(str, arguments),
               address]
    if cpu is not None:
        command[1:1] = ["--pin", str(cpu)]
    if progress:
        command[1:1] = ["--progress"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as process:
        watchdog = threading.Timer(limit, process.kill)
        watchdog.start()
        try:
            errors = []
            for line in process.stderr:
                if progress and line.startswith("load: ") and "replies/s" in line:
                    progress(line.strip())
                else:
                    errors.append(line)
            output = process.stdout.read()
            status = process.wait()
        finally:
            watchdog.cancel()
            process.kill()
    try:
        return {**json.loads(output), "status": status}
    except ValueError:
        raise Failed("the load generator ended with status %d: %s"
                     % (status, "".join(errors).strip() or "no output")) from None


class Progress:
    """One line that changes, on a terminal; a line now and then elsewhere."""

    def __init__(self):
        self.live = sys.stderr.isatty()

    def show(self, text):
        if self.live:
            sys.stderr.write("\r\033[K" + text)
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def clear(self):
        if self.live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def main(function):
    """Runs a script's function(); prints what failed in one place; ends the process."""
    exit_on_signals()
    try:
        sys.exit(function())
    except Failed as failure:
        print("%s: %s" % (os.path.basename(sys.argv[0]), failure), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
