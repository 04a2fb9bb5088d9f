#!/usr/bin/env python3
"""Every golden file has a line in MANIFEST.md with its SHA-256, and a test that names it.

    check_manifest.py ROOT [--readers]      --readers: the second rule instead of the first
    check_manifest.py --self-test
"""
import fnmatch
import hashlib
import os
import re
import sys
import tempfile

FIXTURES, MANIFEST = "tests/golden/fixtures", "tests/golden/MANIFEST.md"
LINE = re.compile(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", re.MULTILINE)


def goldens(root):
    base = os.path.join(root, FIXTURES)
    return sorted(os.path.relpath(os.path.join(folder, name), base)
                  for folder, _, names in os.walk(base) for name in names)


def read(root, path):
    with open(os.path.join(root, path), "rb") as file:
        return file.read()


def manifest_breaches(root):
    listed = dict(LINE.findall(read(root, MANIFEST).decode()))
    found = goldens(root)
    breaches = [f"{name}: in MANIFEST.md, but no such file" for name in sorted(set(listed) - set(found))]
    for name in found:
        digest = hashlib.sha256(read(root, f"{FIXTURES}/{name}")).hexdigest()
        if name not in listed:
            breaches.append(f"{name}: expected a line in MANIFEST.md, found none")
        elif listed[name] != digest:
            breaches.append(f"{name}: expected sha256 {listed[name]}, found {digest}")
    return breaches


def patterns(root):
    """Every string in a test that could name a golden; one that names anything at all does not count."""
    out = set()
    for folder, _, names in os.walk(os.path.join(root, "tests")):
        for name in names:
            if name.endswith((".cc", ".h")):
                out.update(re.findall(r'"/?([\w*?.]+)"', read(root, os.path.join(folder, name)).decode()))
    return {p for p in out if not p.startswith(("*", "?")) and len(p.split("*")[0]) >= 3}


def reader_breaches(root):
    known = patterns(root)
    breaches = []
    for name in goldens(root):
        top = name.split("/")[0]  # a model folder is read as a whole
        # What a fixture names as its model folder is read with the fixture.
        names = [top, top.removesuffix("_hf") + ".safetensors"] if top.endswith("_hf") else [top]
        if not any(fnmatch.fnmatchcase(n, p) for n in names for p in known):
            breaches.append(f"{name}: expected a test that names it, found none")
    return breaches


def self_test():
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(os.path.join(root, FIXTURES))
        for name in ("good", "changed", "unlisted"):
            with open(os.path.join(root, FIXTURES, name + ".bin"), "w", encoding="utf-8") as file:
                file.write(name)
        digest = hashlib.sha256(b"good").hexdigest()
        with open(os.path.join(root, MANIFEST), "w", encoding="utf-8") as file:
            file.write("".join(f"| `{n}.bin` | what | `{digest}` |\n" for n in ("good", "changed", "gone")))
        with open(os.path.join(root, "tests", "a_test.cc"), "w", encoding="utf-8") as file:
            file.write('read("good*.bin"); read("*.bin"); read("changed.bin");')
        found = " ".join(manifest_breaches(root))
        assert all(name in found for name in ("changed", "unlisted", "gone")) and "good" not in found, found
        found = " ".join(reader_breaches(root))
        assert "unlisted" in found and "good" not in found and "changed" not in found, found


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        sys.exit(0)
    problems = reader_breaches(sys.argv[1]) if "--readers" in sys.argv else manifest_breaches(sys.argv[1])
    sys.exit("\n".join(problems) or 0)
