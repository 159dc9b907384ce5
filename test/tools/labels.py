#!/usr/bin/env python3
"""Checks that the protocols' texts and the labels in the code say the same.

A label is a capital letter and a number: W3. In each of the folders

    a step   is defined by a text: a line "* W3 …" of its README.md, or a line "W3 …" of the comment
             that a file opens with. A step may stand in the README and in one such comment.
    a place  is a comment that opens with the label: "W3: …", "W3, with …", "W1-W4. …", "O1. T4, …"
             (perhaps after who may call: "Any; W3. …").

Every step has a place, or several, unless its text says "(caller)"; a label that is no step has its
places in one file; whatever else a comment or README names is one of the two; and "W3 in f()",
"W3 of f_g" mean a function of that folder with such a place inside or in the comment above. I1, I2,
… are invariants: each file has its own. Labels of another folder are those in a comment, or a
paragraph, that names a file of it. Prints file:line: problem, and fails if there was any.
"""

import argparse
import os
import re
import sys

FOLDERS = ("sync", "timer", "core", "io")
NO_LABELS = {"C11"}

LABEL = r"[A-HJ-Z][0-9]{1,2}"
LIST = r"%s(?:(?:, | and | to |-)%s)*" % (LABEL, LABEL)
LABELS = re.compile(r"(?<![\w.\-/^+])%s(?![\w])" % LABEL)
LISTS = re.compile(r"(?<![\w.\-/^+])%s(?![\w])" % LIST)
STEP = re.compile(r"(?:\* |[ \t]*\*[ \t]+)(%s)[ \t]+\S" % LIST)
PLACE = re.compile(r"(?:[A-Z][a-z ]*; )?(%s(?:\. %s)*)(?=[\s.,:;]|$)" % (LIST, LIST))
PARTNER = re.compile(r"(%s) (?:in|of) (\w+(?=\(\))|[a-z]+_\w+(?!\.[ch]\b|\w))" % LABEL)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FUNCTION = re.compile(r"^[A-Za-z_][^\n;={}]*?\b(\w+)\([^;{}]*\)\s*\n\{", re.MULTILINE)


def expand(text):
    """"W1-W3" and "W1 to W3" are three labels."""
    labels = []
    for first, last in re.findall(r"(%s)(?:(?:-| to )(%s))?" % (LABEL, LABEL), text):
        end = int(last[1:]) if last else int(first[1:])
        labels += [first[0] + str(n) for n in range(int(first[1:]), end + 1)]
    return [label for label in labels if label not in NO_LABELS]


def bare(comment):
    """A comment's text on one line, without its stars."""
    text = re.sub(r"\n[ \t]*\*?", "\n", comment[2:-2])
    return re.sub(r"\s+", " ", text).strip()


def opening(comment):
    """The labels that a comment's text opens with."""
    found = PLACE.match(comment)
    return expand(found.group(1)) if found else []


class Folder:
    def __init__(self, root, name):
        self.root, self.name = root, name
        self.steps = {}      # label -> [(path, line)]
        self.callers = set() # steps that whoever calls the folder takes
        self.places = {}     # label -> [(path, line)]
        self.uses = []       # (path, line, text, label)
        self.partners = []   # (path, line, label, function)
        self.functions = {}  # name -> [text with the comment above]
        for file in sorted(os.listdir(os.path.join(root, name))):
            path = "%s/%s" % (name, file)
            if file.endswith((".c", ".h")):
                self.read_code(path)
            elif file == "README.md":
                self.read_text(path)

    def text(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8") as file:
            return file.read()

    def read_text(self, path):
        line = 1
        for paragraph in self.text(path).split("\n\n"):
            for number, content in enumerate(paragraph.split("\n"), line):
                self.read_step(path, number, content)
                self.read_uses(path, number, content, paragraph)
            line += paragraph.count("\n") + 2

    def read_step(self, path, line, content):
        found = STEP.match(content)
        for label in expand(found.group(1)) if found else []:
            self.steps.setdefault(label, []).append((path, line))
            if "(caller)" in content:
                self.callers.add(label)

    def read_uses(self, path, line, content, around):
        for found in LISTS.finditer(content):
            for label in expand(found.group()):
                self.uses.append((path, line, around, label))

    def read_code(self, path):
        text = self.text(path)
        for index, found in enumerate(COMMENT.finditer(text)):
            line = text.count("\n", 0, found.start()) + 1
            comment = bare(found.group())
            if index == 0:
                for number, content in enumerate(found.group().split("\n"), line):
                    self.read_step(path, number, content)
            for label in opening(comment) if index else []:
                self.places.setdefault(label, []).append((path, line))
            self.read_uses(path, line, comment, comment)
            for label, function in PARTNER.findall(comment):
                if not os.path.exists(os.path.join(self.root, self.name, function + ".h")):
                    self.partners.append((path, line, label, function))
        for found in FUNCTION.finditer(text):
            end = text.find("\n}", found.end())
            above = text[:found.start()].rstrip()
            start = above.rfind("/*") if above.endswith("*/") else found.start()
            self.functions.setdefault(found.group(1), []).append(text[start:end])


def foreign(folder, around, folders):
    """The labels of the other folders that the text names."""
    labels = set()
    for other in folders:
        if other is not folder and re.search(r"\b%s/" % other.name, around):
            labels |= set(other.steps) | set(other.places)
    return labels


def check(folder, folders):
    problems = []
    for label, texts in sorted(folder.steps.items()):
        headers = [path for path, _ in texts if not path.endswith(".md")]
        if len(headers) > 1 or len({path for path, _ in texts}) < len(texts):
            problems.append("%s:%d: step %s stands elsewhere too: %s:%d" % (
                *texts[-1], label, *texts[0]))
        if label not in folder.places and label not in folder.callers:
            problems.append("%s:%d: no place in the code is labelled %s" % (*texts[0], label))
    for label, places in sorted(folder.places.items()):
        if label not in folder.steps and len({path for path, _ in places}) > 1:
            problems.append("%s:%d: %s has another meaning in %s:%d" % (
                *places[-1], label, *places[0]))
    for path, line, around, label in folder.uses:
        if label in folder.steps or label in folder.places:
            continue
        if label not in foreign(folder, around, folders):
            problems.append("%s:%d: %s is defined nowhere in %s/" % (
                path, line, label, folder.name))
    for path, line, label, function in folder.partners:
        texts = folder.functions.get(function)
        if texts is None:
            problems.append("%s:%d: %s of %s: there is no such function in %s/" % (
                path, line, label, function, folder.name))
        elif not any(label in opening(bare(comment)) for text in texts
                     for comment in COMMENT.findall(text)):
            problems.append("%s:%d: %s is not labelled in %s()" % (path, line, label, function))
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", help="of the tree [the one this script is in]",
                        default=os.path.join(os.path.dirname(__file__), "..", ".."))
    root = os.path.abspath(parser.parse_args().root)
    folders = [Folder(root, name) for name in FOLDERS if os.path.isdir(os.path.join(root, name))]
    problems = [problem for folder in folders for problem in check(folder, folders)]
    print("\n".join(problems) if problems else "labels: nothing to report")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
