"""The record of simulated schedules, and the seeds that found bugs, are really checked.

Method: a small record of the smallest simulation is made, then falsified in one place at a time:
each must be found, and said. What needs a simulation that fails uses a script in its place.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

sys.path.insert(0, os.path.join(ROOT, "test/tools"))
import sim_programs  # noqa: E402 (needs the path)
import sim_record  # noqa: E402
import sim_seeds  # noqa: E402

BUILD = os.environ.get("WEFT_BUILD_DIR", "build")
NAME, TEST, SCENARIO = "sim_spinlock", "spinlock/no_sleeper_is_forgotten", "4 lockers"
PROGRAMS = {NAME: sim_programs.programs(BUILD)[NAME]}
MINIMUM = {"unit": 8000}


def script(place, text):
    """A program that does that instead of simulating."""
    path = os.path.join(place, "program")
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!%s\nimport json, sys\n%s" % (sys.executable, text))
    os.chmod(path, 0o755)
    return path


class Record(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.who = sim_record.identity(PROGRAMS, BUILD)
        cls.made = sim_record.make(PROGRAMS, 0.02, cls.who, "c0ffee")

    def setUp(self):
        self.record = copy.deepcopy(self.made)
        self.entry = next(e for e in self.record["scenarios"] if e["scenario"] == SCENARIO)

    def check(self, there=None, who=None):
        return sim_record.check(self.record, who or self.who, there or PROGRAMS, MINIMUM)

    def found(self, pattern, **options):
        problems, _ = self.check(**options)
        self.assertRegex("\n".join(problems), pattern)

    def test_one_just_made_passes_with_equal_hashes(self):
        self.assertEqual(self.check(), ([], [
            "unit: 8000 schedules of 4 scenarios", "whole runtime: 0 schedules of 0 scenarios",
            "16 samples passed again, with the same hashes"]))

    def test_its_text_is_the_record_and_always_the_same(self):
        text = sim_record.text_of(self.record)
        self.assertEqual(json.loads(text), self.record)
        self.assertEqual(sim_record.text_of(json.loads(text)), text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_its_hash_is_that_of_one_run_over_all_its_seeds(self):
        line, = sim_programs.run_seeds(PROGRAMS[NAME], TEST, *self.entry["seeds"])
        self.assertEqual(self.entry["hash"], line["hash"])
        self.assertEqual(self.entry["operations"], line["operations"])
        self.assertEqual(list(self.entry["strategies"].values()), line["strategies"])

    def test_a_forged_hash_is_found(self):
        for i in range(sim_record.SAMPLES):
            with self.subTest(sample=i):
                self.setUp()
                forged = self.entry["samples"][i]
                forged["hash"] = "%016x" % (int(forged["hash"], 16) ^ 1)
                self.found("%s, %s, '%s', seeds %d..%d: another hash" % (
                    NAME, TEST, SCENARIO, *forged["seeds"]))

    def test_a_scenario_that_is_not_in_it_is_found_and_how_to_add_it_is_said(self):
        self.record["scenarios"].remove(self.entry)
        self.record["totals"] = sim_record.totals(self.record["scenarios"])
        problems, _ = sim_record.check(self.record, self.who, PROGRAMS, {})
        self.assertEqual(problems, ["%s, %s, '%s' is not in it: %s" % (
            NAME, TEST, SCENARIO, sim_record.AGAIN)])
        self.assertIn("ninja sim-record", problems[0])

    def test_a_scenario_that_is_no_more_is_found(self):
        self.entry["scenario"] = "5 lockers"
        self.found("'5 lockers' is no more")

    def test_a_scenario_that_is_in_it_twice_is_found(self):
        self.record["scenarios"].append(self.entry)
        self.record["totals"] = sim_record.totals(self.record["scenarios"])
        self.found("'4 lockers' is in it twice")

    def test_too_few_schedules_and_wrong_sums_are_found(self):
        self.record["totals"]["unit"]["schedules"] += 1
        self.found("totals are not the sums")
        self.setUp()
        self.entry["seeds"][1] += 4000
        self.record["totals"] = sim_record.totals(self.record["scenarios"])
        self.found("strategies are not the sum")
        self.setUp()
        problems, _ = sim_record.check(self.record, self.who, PROGRAMS, {"unit": 8001})
        self.assertRegex(problems[0], "unit: 8000 schedules, at least 8001")

    def test_what_is_no_record_is_found(self):
        self.entry["samples"][0]["seeds"] = [0, 3]
        self.found("a sample is not of its seeds")
        self.setUp()
        self.entry["samples"].pop()
        self.found("it has 3 samples")
        for key in ("commit", "sources", "scenarios", "totals", "linker"):
            with self.subTest(key=key):
                self.setUp()
                del self.record[key]
                self.found("not such a record")

    def test_hashes_of_other_sources_and_tools_are_not_compared_and_why_is_said(self):
        self.entry["samples"][0]["hash"] = "0" * 16
        for who, why in (({"sources": {NAME: "0"}}, "other sources or flags"),
                         ({"compiler": "cc 1"}, r"another compiler \(.*; here cc 1\)"),
                         ({"linker": "ld 1"}, r"another linker \(.*; here ld 1\)")):
            with self.subTest(why=why):
                problems, said = self.check(who={**self.who, **who})
                self.assertEqual(problems, [])
                self.assertRegex(said[-1], "^16 samples passed again, hashes not compared: " + why)

    def test_parts_are_all_seeds_once(self):
        for count in (4, 100, 5000):
            with self.subTest(count=count):
                parts = list(sim_record.parts(NAME, TEST, count, "a"))
                self.assertEqual([seed for part in parts
                                  for seed in range(part.first, part.last + 1)],
                                 list(range(1, count + 1)))
                self.assertEqual(sum(part.is_sample for part in parts), sim_record.SAMPLES)

    def test_other_sources_draw_other_samples(self):
        drawn = [list(sim_record.samples(text, NAME, TEST, 100000)) for text in "abcabc"]
        self.assertEqual(drawn[:3], drawn[3:])
        self.assertEqual(len({seeds for samples in drawn for seeds in samples}), 12)
        for samples in drawn:
            self.assertEqual(sorted(samples), samples)
            self.assertTrue(all(1 <= first < last <= 100000 for first, last in samples))

    def test_a_sample_that_fails_is_a_failure_with_the_story(self):
        lines = [{"test": e["test"], "scenario": e["scenario"], "schedules": 1}
                 for e in self.record["scenarios"]]
        with tempfile.TemporaryDirectory() as place:
            program = script(place, "for line in %r: print(json.dumps(line))\n"
                             "print('seed 7 fails')\nsys.exit('--json' in sys.argv)\n" % lines)
            with self.assertRaisesRegex(sim_programs.Failed, "seed 7 fails"):
                self.check(there={NAME: program}, who={**self.who, "sources": {NAME: "0"}})

    def test_a_schedule_that_fails_leaves_no_record(self):
        with tempfile.TemporaryDirectory() as place:
            program = script(place, "if '--scenarios' in sys.argv:\n    print(json.dumps("
                             "{'test': 'a/b', 'scenario': 'c', 'schedules': 100}))\n"
                             "sys.exit('--seeds=51..75' in sys.argv)\n")
            with self.assertRaisesRegex(sim_programs.Failed, r"--seeds=51\.\.75"):
                sim_record.make({NAME: program}, 1, {"sources": {NAME: "0"}}, "c0ffee")


class Sources(unittest.TestCase):
    def test_they_are_the_files_that_go_into_the_program(self):
        found = sim_programs.sources(sim_programs.commands(PROGRAMS[NAME], BUILD))
        for path in ("test/sim/sim_spinlock.c", "test/sim/engine.c", "sync/spinlock.h",
                     "sync/planted.h", "core/switch_x86_64.S"):
            self.assertIn(path, found)
        for path in ("test/sim/sim_idle.c", "sync/idle.h", "core/worker.c", "configure.py"):
            self.assertNotIn(path, found)

    def test_another_flag_is_another_digest(self):
        lines = sim_programs.commands(PROGRAMS[NAME], BUILD)
        other = [line.replace(" -O2 ", " -O1 ") for line in lines]
        self.assertEqual(sim_programs.digest(lines), sim_programs.digest(list(reversed(lines))))
        self.assertNotEqual(sim_programs.digest(lines), sim_programs.digest(other))

    @unittest.skipUnless(shutil.which("git"), "no git here")
    def test_changed_and_untracked_files_are_seen(self):
        with tempfile.TemporaryDirectory() as place:
            def git(*arguments):
                subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
                               cwd=place, check=True, stdout=subprocess.DEVNULL)

            def write(name, text):
                with open(os.path.join(place, name), "w", encoding="utf-8") as file:
                    file.write(text)
            git("init", "--quiet")
            for name in ("same.c", "changed.c", "staged.c", "other.c"):
                write(name, "")
            git("add", ".")
            git("commit", "--quiet", "--message=all")
            for name in ("changed.c", "staged.c", "new.c", "other.c"):
                write(name, "int x;\n")
            git("add", "staged.c")
            self.assertEqual(sorted(sim_record.changed(
                {"same.c", "changed.c", "staged.c", "new.c"}, place)),
                ["changed.c", "new.c", "staged.c"])


class Seeds(unittest.TestCase):
    """Files of test/sim/seeds/."""

    KEPT = {"bug": "b", "found_by": "f", "mended_by": "m", "program": NAME, "test": TEST,
            "seeds": [7, 9],
            "planted": {"test": "spinlock/planted_unlock_by_store", "seeds": [1, 1000]}}

    def check(self, there=None, **changes):
        with tempfile.TemporaryDirectory() as place:
            path = os.path.join(place, "kept.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump({**self.KEPT, **changes}, file)
            return sim_seeds.check(path, there or PROGRAMS)

    def refused(self, pattern, **changes):
        with self.assertRaisesRegex(sim_programs.Failed, pattern):
            self.check(**changes)

    def test_seeds_pass_and_the_planted_bug_is_found(self):
        self.assertRegex(self.check(),
                         r"^passes: 7, 9; planted again: found by seed \d+, of 1\.\.1000$")
        self.assertEqual(self.check(planted=None), "passes: 7, 9")

    def test_a_planted_bug_that_is_found_too_late_is_a_failure(self):
        self.refused(r"found by seed \d+, not by 1\.\.1",
                     planted={"test": "spinlock/planted_unlock_by_store", "seeds": [1, 1]})

    def test_a_seed_that_fails_is_a_failure(self):
        with tempfile.TemporaryDirectory() as place:
            program = script(place, "print('{}')\nsys.exit('--seeds=9..9' in sys.argv)\n")
            self.refused(r"--seeds=9\.\.9", there={NAME: program})

    def test_names_of_what_is_no_more_are_a_failure(self):
        self.refused("no program sim_none", program="sim_none")
        self.refused("no scenario in a test spinlock/none", test="spinlock/none")
        self.refused("no test spinlock/none", planted={"test": "spinlock/none", "seeds": [1, 9]})

    def test_what_is_no_such_file_is_a_failure(self):
        for changes in ({"bug": ""}, {"mended_by": None}, {"seeds": []}, {"seeds": ["7"]},
                        {"planted": {"test": TEST}}, {"planted": {"test": TEST, "seeds": [2, 1]}}):
            with self.subTest(changes=changes):
                self.refused("not such a file", **changes)
