"""What is installed works for somebody who has only that.

Method: `configure.py --install` (what `ninja install` runs) into a scratch folder; then a project
outside the tree is built from it through pkg-config, shared and static, as C11 and C++17, and run.
The libraries are looked at with nm and readelf.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("WEFT_BUILD_DIR", "build")

sys.path.insert(0, ROOT)
import configure  # noqa: E402 (needs the path)


def run(*command, **options):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.STDOUT, check=False, **options)
    if result.returncode != 0:
        raise AssertionError("%s: status %d\n%s"
                             % (" ".join(command), result.returncode, result.stdout))
    return result.stdout


def install(prefix, destdir="", what="--install"):
    run(sys.executable, "configure.py", "--build-dir=" + BUILD, what, "--prefix=" + prefix,
        cwd=ROOT, env={**os.environ, "DESTDIR": destdir})


def files_below(place):
    return sorted(os.path.relpath(os.path.join(folder, name), place)
                  for folder, _, names in os.walk(place) for name in names)


def declared_functions():
    """Every function a public header declares."""
    names = set()
    for source in configure.PUBLIC:
        with open(os.path.join(ROOT, source), encoding="utf-8") as file:
            text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)
        for declaration in re.findall(r"^WEFT_API\b([^;{]*);", text, re.MULTILINE):
            names.add(re.search(r"\b(weft_\w+)\s*\(", declaration).group(1))
    return names


class Install(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = folder.name

    def test_destdir_gets_everything_and_nothing_mentions_it(self):
        install("/opt/weft", self.place)
        self.assertEqual(files_below(self.place), sorted(
            ["opt/weft/lib/" + name for name in
             ("libweft.a", "libweft.so", configure.SONAME, "pkgconfig/weft.pc")]
            + ["opt/weft/include/" + name for name in configure.PUBLIC.values()]))
        library = os.path.join(self.place, "opt/weft/lib/libweft.so")
        self.assertEqual(os.readlink(library), configure.SONAME)
        pc = os.path.join(self.place, "opt/weft/lib/pkgconfig/weft.pc")
        with open(pc, encoding="utf-8") as file:
            text = file.read()
        self.assertNotIn(self.place, text)
        self.assertTrue(text.startswith("prefix=/opt/weft\n"))
        install("/opt/weft", self.place)  # over an old one
        install("/opt/weft", self.place, "--uninstall")
        self.assertEqual(files_below(self.place), [])

    def test_a_project_outside_the_tree_builds_and_runs(self):
        prefix = os.path.join(self.place, "usr")
        install(prefix)
        env = {**os.environ, "PKG_CONFIG_PATH": prefix + "/lib/pkgconfig",
               "LD_LIBRARY_PATH": prefix + "/lib"}
        for compiler, standard, name in (("gcc", "c11", "user.c"), ("g++", "c++17", "user.cpp"),
                                         ("clang", "c11", "user.c")):
            shutil.copy(os.path.join(ROOT, "test/tools/consumer.c"), os.path.join(self.place, name))
            for kind, before, after in (("shared", [], []), ("static", ["-static"], []),
                                        ("archives", ["-Wl,-Bstatic"], ["-Wl,-Bdynamic"])):
                with self.subTest(compiler=compiler, kind=kind):
                    static = [] if kind == "shared" else ["--static"]
                    flags = shlex.split(run("pkg-config", *static, "--cflags", "--libs", "weft",
                                            env=env))
                    run(compiler, "-std=" + standard, "-Wall", "-Wextra", "-Werror", name,
                        "-o", "user", *before, *flags, *after, cwd=self.place, env=env)
                    output = run(os.path.join(self.place, "user"), env=env, timeout=600)
                    self.assertTrue(output.startswith(configure.VERSION + " 42 "), output)
                    self.assertIn("ring-size=", output)
                    needed = run("readelf", "-dW", os.path.join(self.place, "user"))
                    self.assertEqual(configure.SONAME in needed, kind == "shared")


class Libraries(unittest.TestCase):
    SHARED = os.path.join(ROOT, BUILD, "release", configure.SONAME)

    def test_the_shared_one_exports_what_the_headers_declare(self):
        listing = run("nm", "-D", "--defined-only", self.SHARED)
        names = {line.split()[2].split("@")[0] for line in listing.splitlines()
                 if line.split()[1] != "A"}
        self.assertEqual(sorted(names), sorted(declared_functions()))

    def test_the_shared_one_is_linked_as_libraries_should_be(self):
        dynamic = run("readelf", "-dW", self.SHARED)
        self.assertIn("Library soname: [%s]" % configure.SONAME, dynamic)
        self.assertRegex(dynamic, r"\(FLAGS_1\).*NOW")
        self.assertNotIn("TEXTREL", dynamic)
        self.assertNotRegex(dynamic, "RPATH|RUNPATH")
        needed = re.findall(r"\(NEEDED\).*\[(.*?)\.so", dynamic)
        self.assertEqual(sorted(set(needed) - {"liburcu-common", "liburcu-qsbr"}), ["libc"])
        stack = re.search(r"GNU_STACK.*", run("readelf", "-lW", self.SHARED)).group()
        self.assertNotIn("RWE", stack)

    def test_the_archive_adds_no_foreign_names(self):
        listing = run("nm", "-g", "--defined-only", "-A",
                      os.path.join(ROOT, BUILD, "release", "libweft.a"))
        names = {line.split()[2] for line in listing.splitlines() if len(line.split()) == 3}
        self.assertIn("weft_main", names)
        self.assertEqual([name for name in sorted(names)
                          if not name.startswith(("weft_", "wf_", "DW.ref."))], [])

    def test_the_version_is_the_same_everywhere(self):
        with open(os.path.join(ROOT, "core/weft.h"), encoding="utf-8") as file:
            text = file.read()
        parts = [re.search(r"WEFT_VERSION_%s (\d+)" % part, text).group(1)
                 for part in ("MAJOR", "MINOR", "PATCH")]
        self.assertEqual(".".join(parts), configure.VERSION)
        self.assertEqual(configure.SONAME, "libweft.so." + parts[0])
