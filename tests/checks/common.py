"""What the checks share: walking the tracked sources, and the self-test."""
import os
import subprocess
import sys
import tempfile


def sources(root, suffixes):
    """Paths relative to root, sorted; git's list where there is one (build trees stay out)."""
    try:
        listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"], check=True,
                                capture_output=True, text=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        listed = []
        for folder, folders, files in os.walk(root):
            folders[:] = [f for f in folders if not f.startswith(".") and not f.startswith("build")]
            listed += [os.path.relpath(os.path.join(folder, f), root) for f in files]
    return sorted(p for p in listed if p.endswith(suffixes) and os.path.isfile(os.path.join(root, p)))


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def main(find_breaches, breaking_tree):
    """find_breaches(root) -> messages. breaking_tree: {path: text}, each of which must be reported."""
    if sys.argv[1:] == ["--self-test"]:
        with tempfile.TemporaryDirectory() as root:
            for path, text in breaking_tree.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            found = "\n".join(find_breaches(root))
            missed = [path for path in breaking_tree if path not in found]
            sys.exit(f"breaches not found in {missed}; found:\n{found}" if missed else 0)
    breaches = find_breaches(sys.argv[1])
    sys.exit("\n".join(breaches[:40] + [f"{len(breaches)} breaches"]) if breaches else 0)
