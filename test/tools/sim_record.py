#!/usr/bin/env python3
"""Makes and checks test/sim/RECORD.json: which schedules have passed (ninja sim-record, sim).

make runs every scenario that must pass over `--times` ($TIMES) as many seeds as its test does by
itself, and writes what came out. It refuses where the sources of the simulations are not those of
the commit it names. Ranges are run in parts, in any order; the parts' hashes add up. Some parts are
small, and kept: the samples.

check wants every scenario of the programs in the record, enough schedules, and sums that are right.
Then it runs samples again. A program made of what the record says it was made of must give the same
hashes; of another program, seeds that the digest of its sources draws must pass.
"""

import argparse
import collections
import concurrent.futures
import datetime
import hashlib
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sim_programs import (Failed, ROOT, commands, digest, kind, output, programs, run,  # noqa: E402
                          run_seeds, sources, tools)

RECORD = os.path.join(ROOT, "test/sim/RECORD.json")
SCHEDULES_MIN = {"unit": 10_000_000, "whole runtime": 100_000}
TIMES = 10
SAMPLES = 4
SAMPLE_SCHEDULES = {"unit": 256, "whole runtime": 64}
STRATEGIES = ("random walk", "PCT", "round robin")
AGAIN = "commit, run `ninja sim-record` (minutes), commit what it wrote"

Part = collections.namedtuple("Part", "program test first last is_sample")


def in_parallel(function, items):
    """Results in the order of items; the first failure ends it."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            yield from (future.result() for future in futures)
        finally:
            pool.shutdown(cancel_futures=True)


def scenarios(there):
    """Of these programs (name -> path): (program, test) -> {scenario: schedules by itself}."""
    found = {}
    listed = in_parallel(lambda path: run(path, "--scenarios"), there.values())
    for program, lines in zip(there, listed):
        for line in lines:
            test = found.setdefault((program, line["test"]), {})
            test[line["scenario"]] = line["schedules"]
    return found


def run_parts(there, work):
    """The objects each prints."""
    return in_parallel(lambda p: run_seeds(there[p.program], p.test, p.first, p.last), work)


def samples(text, program, test, schedules):
    """Ranges of seeds below that, one in each part of it, that `text` decides."""
    width = schedules // SAMPLES
    count = min(SAMPLE_SCHEDULES[kind(program)], width)
    for i in range(SAMPLES):
        drawn = hashlib.sha256(("%s %s %s %d" % (text, program, test, i)).encode()).digest()
        first = 1 + i * width + int.from_bytes(drawn[:8], "big") % (width - count + 1)
        yield first, first + count - 1


def identity(there, build_dir):
    """Of what runs here: the tools, and a digest of each program's sources."""
    lines = {program: commands(path, build_dir) for program, path in there.items()}
    return {**tools(next(iter(lines.values()))),
            "sources": {name: digest(lines[name]) for name in sorted(lines)}}


# ---- Making it -----------------------------------------------------------------------------------


def changed(files, root=ROOT):
    """Those of the files that are not as in HEAD."""
    text = output("git", "-C", root, "status", "--porcelain", "--untracked-files=all", "--",
                  *sorted(files))
    return [line[3:] for line in text.splitlines()]


def parts(program, test, schedules, text):
    """All its seeds: samples, and what lies between them."""
    first = 1
    for begin, end in samples(text, program, test, schedules):
        if begin > first:
            yield Part(program, test, first, begin - 1, False)
        yield Part(program, test, begin, end, True)
        first = end + 1
    if first <= schedules:
        yield Part(program, test, first, schedules, False)


def add(entry, line, part):
    entry["operations"] += line["operations"]
    entry["seconds"] += line["seconds"]
    entry["hash"] = (entry["hash"] + int(line["hash"], 16)) % (1 << 64)
    for name, count in zip(STRATEGIES, line["strategies"]):
        entry["strategies"][name] += count
    if part.is_sample:
        entry["samples"].append({"seeds": [part.first, part.last], "hash": line["hash"]})


def run_all(there, times, who, report):
    """The entries of the record."""
    tests = scenarios(there)
    counts = {key: max(int(max(test.values()) * times), SAMPLES) for key, test in tests.items()}
    work = [part for (program, test), count in counts.items()
            for part in parts(program, test, count, who["sources"][program])]
    work.sort(key=lambda part: (kind(part.program) == "unit", part.first - part.last))
    entries = {}
    for number, (part, lines) in enumerate(zip(work, run_parts(there, work)), 1):
        for line in lines:
            entry = entries.setdefault((part.program, part.test, line["scenario"]), {
                "program": part.program, "test": part.test, "scenario": line["scenario"],
                "seeds": [1, counts[part.program, part.test]],
                "strategies": dict.fromkeys(STRATEGIES, 0),
                "operations": 0, "seconds": 0, "hash": 0, "samples": []})
            add(entry, line, part)
        if number % 20 == 0:
            report("%d of %d parts" % (number, len(work)))
    for entry in entries.values():
        entry["hash"] = "%016x" % entry["hash"]
        entry["seconds"] = round(entry["seconds"], 1)
    return [entries[key] for key in sorted(entries)]


def schedules_of(entry):
    return entry["seeds"][1] - entry["seeds"][0] + 1


def totals(entries):
    result = {}
    for name in SCHEDULES_MIN:
        some = [entry for entry in entries if kind(entry["program"]) == name]
        result[name] = {"scenarios": len(some), "schedules": sum(map(schedules_of, some)),
                        "operations": sum(entry["operations"] for entry in some)}
    return result


def make(there, times, who, commit, report=lambda text: None):
    entries = run_all(there, times, who, report)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return {"commit": commit, "date": today, **who, "totals": totals(entries),
            "scenarios": entries}


def text_of(record):
    """JSON, few lines an entry."""
    groups = (("program", "test"), ("scenario", "seeds"), ("strategies",),
              ("operations", "seconds", "hash"))
    head = json.dumps({key: value for key, value in record.items() if key != "scenarios"}, indent=1)
    entries = []
    for entry in record["scenarios"]:
        lines = [json.dumps({key: entry[key] for key in group})[1:-1] for group in groups]
        lines.append('"samples": [\n   '
                     + ",\n   ".join(json.dumps(sample) for sample in entry["samples"]) + "]")
        entries.append("\n {" + ",\n  ".join(lines) + "}")
    return head[:-2] + ',\n "scenarios": [' + ",".join(entries) + "\n]}\n"


# ---- Checking it ---------------------------------------------------------------------------------


def misshapen(record, minimum):
    """What is wrong with the record in itself."""
    try:
        for entry in record["scenarios"]:
            name = "%s: %s" % (entry["program"], entry["scenario"])
            if sum(entry["strategies"].values()) != schedules_of(entry):
                yield name + ": its strategies are not the sum of its schedules"
            for sample in entry["samples"]:
                if not entry["seeds"][0] <= sample["seeds"][0] <= sample["seeds"][1] \
                        <= entry["seeds"][1]:
                    yield name + ": a sample is not of its seeds"
            if len(entry["samples"]) < SAMPLES:
                yield name + ": it has %d samples" % len(entry["samples"])
        if totals(record["scenarios"]) != record["totals"]:
            yield "its totals are not the sums of its scenarios"
        for name, count in minimum.items():
            if record["totals"][name]["schedules"] < count:
                yield "%s: %d schedules, at least %d: %s" % (
                    name, record["totals"][name]["schedules"], count, AGAIN)
        record["commit"], record["date"], record["compiler"], record["linker"], record["sources"]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        yield "not such a record: %r" % error


def unlisted(record, tests):
    """Scenarios of the programs that are not in the record, or the other way round."""
    there = {(program, test, scenario) for (program, test), found in tests.items()
             for scenario in found}
    names = [(e["program"], e["test"], e["scenario"]) for e in record["scenarios"]]
    listed = set(names)
    for key in sorted(key for key in listed if names.count(key) > 1):
        yield "%s, %s, '%s' is in it twice" % key
    for key in sorted(there - listed):
        yield "%s, %s, '%s' is not in it: %s" % (*key, AGAIN)
    for key in sorted(listed - there):
        yield "%s, %s, '%s' is no more: %s" % (*key, AGAIN)


def differences(record, who, program):
    """Why hashes of this program here cannot be those of the record."""
    if record["sources"].get(program) != who["sources"][program]:
        yield "other sources or flags"
    for tool in ("compiler", "linker"):
        if record[tool] != who[tool]:
            yield "another %s (%s; here %s)" % (tool, record[tool], who[tool])


def again(record, who, there, problems):
    """Runs samples. Returns how many, by why their hashes were not compared; "": they were."""
    expected, work = {}, set()
    counts = collections.Counter()
    for entry in record["scenarios"]:
        program, test = entry["program"], entry["test"]
        why = "; ".join(differences(record, who, program))
        if why:
            drawn = list(samples(who["sources"][program], program, test, schedules_of(entry)))
        else:
            drawn = [tuple(sample["seeds"]) for sample in entry["samples"]]
            for sample in entry["samples"]:
                expected[program, test, entry["scenario"], *sample["seeds"]] = sample["hash"]
        work |= {Part(program, test, *seeds, True) for seeds in drawn}
        counts[why] += len(drawn)
    work = sorted(work)
    for part, lines in zip(work, run_parts(there, work)):
        for line in lines:
            key = (part.program, part.test, line["scenario"], part.first, part.last)
            if expected.get(key, line["hash"]) != line["hash"]:
                problems.append("%s, %s, '%s', seeds %d..%d: another hash than the record's, of the"
                                " same sources and tools" % key)
    return counts


def check(record, who, there, minimum):
    """Returns problems, and lines that say what was done."""
    problems = list(misshapen(record, minimum))
    if problems:
        return problems, []
    problems = list(unlisted(record, scenarios(there)))
    if problems:
        return problems, []
    counts = again(record, who, there, problems)
    said = ["%s: %d schedules of %d scenarios" % (name, sums["schedules"], sums["scenarios"])
            for name, sums in record["totals"].items()]
    said += ["%d samples passed again, %s" % (count, "hashes not compared: " + why if why
                                              else "with the same hashes")
             for why, count in sorted(counts.items())]
    return problems, said


# ---- Command line --------------------------------------------------------------------------------


def command_make(args):
    there = programs(args.build_dir)
    files = {file for path in there.values() for file in sources(commands(path, args.build_dir))}
    dirty = changed(files | {"build.ninja"})
    if dirty:
        raise Failed("not as in the commit that the record would name: " + " ".join(dirty))
    who = identity(there, args.build_dir)
    commit = output("git", "rev-parse", "HEAD").strip()
    record = make(there, args.times, who, commit, lambda text: print(text, flush=True))
    with open(RECORD, "w", encoding="utf-8") as file:
        file.write(text_of(record))
    for name, sums in record["totals"].items():
        print("%s: %d schedules of %d scenarios passed" % (
            name, sums["schedules"], sums["scenarios"]))


def command_check(args):
    try:
        with open(RECORD, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError) as error:
        raise Failed("%s: %s" % (RECORD, AGAIN)) from error
    there = programs(args.build_dir)
    problems, said = check(record, identity(there, args.build_dir), there, SCHEDULES_MIN)
    print("the record: commit %.12s, %s" % (record.get("commit"), record.get("date")))
    print("\n".join(said))
    if problems:
        raise Failed("\n".join(problems))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build-dir", default="build", help="[%(default)s]")
    parser.add_argument("--times", type=float, default=float(os.environ.get("TIMES", TIMES)),
                        help="as many schedules as by default [%d, or $TIMES]" % TIMES)
    parser.add_argument("what", choices=["make", "check"])
    args = parser.parse_args()
    try:
        command_make(args) if args.what == "make" else command_check(args)
    except Failed as failed:
        print("test/sim/RECORD.json: %s" % failed)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
