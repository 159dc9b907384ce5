#!/usr/bin/env python3
"""Builds the tokio rival from Debian's packages, offline: build.py OUT

The crates are those of librust-tokio-dev, which Debian installs as sources; nothing is fetched.
What cargo writes goes beside OUT. A missing compiler or package is one line and exit status 1.
"""

import os
import shutil
import subprocess
import sys

REGISTRY = "/usr/share/cargo/registry"


def fail(text):
    print("rivals/tokio: " + text, file=sys.stderr)
    sys.exit(1)


def tool(name):
    """Debian's if PATH has it, which its crates are meant for; else the first one."""
    places = os.environ.get("PATH", "").split(":")
    found = shutil.which(name, path=":".join(sorted(places, key=lambda at: at != "/usr/bin")))
    return found or fail("%s is not installed: ./configure.py --deps=perf" % name)


def is_current(out, sources):
    return os.path.exists(out) and all(
        os.path.getmtime(source) <= os.path.getmtime(out) for source in sources)


def main():
    here, out = os.path.dirname(os.path.abspath(__file__)), os.path.abspath(sys.argv[1])
    sources = [os.path.join(here, name) for name in ("Cargo.toml", "bench.rs", "build.py")]
    if is_current(out, sources):
        return
    cargo, rustc = tool("cargo"), tool("rustc")
    if not any(name.startswith("tokio-1") for name in
               (os.listdir(REGISTRY) if os.path.isdir(REGISTRY) else [])):
        fail("librust-tokio-dev is not installed: ./configure.py --deps=perf")
    # A copy: cargo writes Cargo.lock beside its manifest, and the versions are the distribution's.
    work = out + ".cargo"
    os.makedirs(work, exist_ok=True)
    for source in sources:
        shutil.copy(source, work)
    environment = {**os.environ, "RUSTC": rustc, "CARGO_HOME": os.path.join(work, "home")}
    result = subprocess.run(
        [cargo, "build", "--release", "--offline", "--quiet",
         "--config", "source.crates-io.replace-with='debian'",
         "--config", "source.debian.directory='%s'" % REGISTRY],
        cwd=work, env=environment, check=False)
    if result.returncode:
        fail("cargo failed")
    shutil.copy(os.path.join(work, "target", "release", "bench"), out)


if __name__ == "__main__":
    main()
