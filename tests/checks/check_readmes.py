"""Every source folder has a README.md of at most 25 lines."""
import os

from common import main, read, sources

LIMIT = 25
DEEPER = ("shared", "generator", "controller")  # their subfolders explain themselves too


def folders(root):
    found = set()
    for path in sources(root, (".cc", ".h", ".fbs", ".py", ".yml", "README.md")):
        parts = path.split("/")[:-1]
        if not parts or parts[0].startswith("."):
            continue
        found.add(parts[0])
        if parts[0] in DEEPER and len(parts) > 1:
            found.add("/".join(parts[:2]))
    return sorted(found)


def find_breaches(root):
    breaches = []
    for folder in folders(root):
        path = f"{folder}/README.md"
        if not os.path.isfile(os.path.join(root, path)):
            breaches.append(f"{folder}: expected {path}, found none")
        elif (lines := read(root, path).count("\n")) > LIMIT:
            breaches.append(f"{path}: expected at most {LIMIT} lines, found {lines}")
    return breaches


if __name__ == "__main__":
    main(find_breaches, {"storage/README.md": "line\n" * 26, "rl/README.md": "x\n" * 40})
