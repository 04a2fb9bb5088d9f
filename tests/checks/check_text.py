"""Line length, tabs and unfinished marks in the sources."""
import re

from common import main, read, sources

LIMIT = 100
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|not implemented yet")


def find_breaches(root):
    breaches = []
    for path in sources(root, (".cc", ".h", ".cu", ".cmake")):
        if path.startswith("tests/golden/"):
            continue
        for number, line in enumerate(read(root, path).split("\n"), 1):
            if len(line) > LIMIT:
                breaches.append(f"{path}:{number}: expected at most {LIMIT} columns, found {len(line)}")
            if "\t" in line:
                breaches.append(f"{path}:{number}: a tab")
            if UNFINISHED.search(line):
                breaches.append(f"{path}:{number}: reads as unfinished: {line.strip()}")
    return breaches


if __name__ == "__main__":
    main(find_breaches, {"a.cc": "x" * 101 + "\n", "b.h": "int a;\t\n", "c.cc": "// " + "TO" + "DO later\n"})
