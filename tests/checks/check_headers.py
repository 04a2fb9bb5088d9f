"""Every header of the project compiles on its own. Arguments: source dir, build dir, compiler.

What a unit of the build includes before all else has been compiled alone with that unit; only the others are here.
"""
import concurrent.futures
import json
import os
import re
import subprocess
import sys

from common import sources

FOLDERS = ("shared/", "storage/", "rl/", "generator/", "controller/", "cli/")


def units_of(build):
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        return json.load(file)


def include_flags(units):
    """Every include directory that any unit of the build uses."""
    flags = {}
    for words in (unit["command"].split() for unit in units):
        for i, word in enumerate(words):
            if word == "-isystem":
                flags[("-isystem", words[i + 1])] = None
            elif word.startswith("-I"):
                flags[(word,)] = None
    return [word for flag in flags for word in flag]


def included_first(units):
    """The headers of the project that are some unit's first line of code."""
    found = set()
    for unit in units:
        with open(unit["file"], encoding="utf-8") as file:
            first = re.search(r'^#.*', file.read(), re.MULTILINE)
        own = re.fullmatch(r'#include "(.+)".*', first.group()) if first else None
        if own:
            found.add(own.group(1))
    return found


def compile_header(compiler, flags, root, path):
    run = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", "-fopenmp", *flags, "-include", path, "-x", "c++",
                          os.devnull], cwd=root, capture_output=True, text=True, check=False)
    return None if run.returncode == 0 else f"{path}:\n{run.stderr[:2000]}"


def main():
    root, build, compiler = sys.argv[1:]
    # *-inl.h are Highway bodies: included once per target, never alone.
    headers = [p for p in sources(root, (".h",)) if p.startswith(FOLDERS) and not p.endswith("-inl.h")]
    units = units_of(build)
    flags = include_flags(units)
    proven = included_first(units)
    others = [h for h in headers if h not in proven]
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        failures = [f for f in pool.map(lambda h: compile_header(compiler, flags, root, h), others) if f]
    print(f"{len(headers)} headers, {len(headers) - len(others)} by their own units; {len(failures)} do not compile alone")
    sys.exit("\n".join(failures) if failures or not headers else 0)


if __name__ == "__main__":
    main()
