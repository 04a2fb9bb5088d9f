"""docs/operations.md holds the tables of settings as the programs print them.

    operations.py ROOT CONTROLLER GENERATOR [--write]
"""
import re
import subprocess
import sys


def table(program, root):
    printed = subprocess.run([program, "--help-config"], check=True, capture_output=True, text=True).stdout
    return printed.replace(root + "/", "<source>/").strip()


def main():
    root, controller, generator = sys.argv[1:4]
    path = root + "/docs/operations.md"
    with open(path, encoding="utf-8") as file:
        page = file.read()
    wanted = page
    for name, program in (("controller", controller), ("generator", generator)):
        block = re.compile(rf"(<!-- {name} settings -->\n).*?(\n<!-- end -->)", re.S)
        if not block.search(page):
            sys.exit(f"{path}: expected a block '{name} settings', found none")
        text = table(program, root)
        wanted = block.sub(lambda m, t=text: m.group(1) + t + m.group(2), wanted)
    if "--write" in sys.argv:
        with open(path, "w", encoding="utf-8") as file:
            file.write(wanted)
    elif wanted != page:
        sys.exit(f"{path}: the tables differ from what the programs print; run operations.py with --write")


if __name__ == "__main__":
    main()
