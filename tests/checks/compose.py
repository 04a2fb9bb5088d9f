"""compose/ without an engine: its files agree with each other and with the programs, its scripts say what is missing.

    compose.py ROOT CONTROLLER GENERATOR
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

ROOT, *PROGRAMS = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
COMPOSE = ROOT / "compose"
del sys.argv[1:]


def text(name):
    return (COMPOSE / name).read_text(encoding="utf-8")


def value_of(default):
    """What a TOML file has where the table of --help-config shows `default`."""
    return {"true": True, "false": False, "": []}.get(default, int(default) if default.isdecimal() else default)


class Files(unittest.TestCase):
    def test_both_images_share_one_build(self):
        stages = [re.search(r"^ARG BASE=.*?^COPY \$\{COLLECTED", text(f"Dockerfile.{name}"), re.M | re.S).group()
                  for name in ("controller", "generator")]
        self.assertIn("ninja", stages[0])
        self.assertEqual(*stages)

    def test_settings_are_known_and_those_in_comment_are_the_defaults(self):
        for name, program in zip(("controller", "generator"), PROGRAMS):
            printed = subprocess.run([program, "--help-config"], check=True, capture_output=True, text=True).stdout
            rows = [[cell.strip().strip("`") for cell in row.split("|")] for row in printed.splitlines()[2:]]
            defaults = {row[1]: value_of(row[4]) for row in rows if len(row) > 4}
            lines = text(f"config/{name}.toml").splitlines()
            active = tomllib.loads("\n".join(lines))
            shown = tomllib.loads("\n".join(line[2:] for line in lines if re.match(r"# \w+ = ", line)))
            self.assertTrue(active and shown, name)
            self.assertEqual(set(active) - set(defaults), set(), name)
            self.assertEqual(shown, {setting: defaults.get(setting) for setting in shown}, name)

    def test_ports_are_published_on_loopback_only(self):
        ports = [port for path in COMPOSE.glob("docker-compose*.yml")
                 for port in re.findall(r"^ +ports: \[(.*)\]$", path.read_text(encoding="utf-8"), re.M)]
        self.assertEqual(len(ports), 4)
        for port in ports:
            self.assertRegex(port, r'^"127\.0\.0\.1:\$\{MEMSLOT_\w+_PORT:-(\d+)\}:\1"$')
        self.assertNotIn("ports:", text("services.yml"))

    def test_every_variable_is_explained(self):
        page = (ROOT / "docs/compose.md").read_text(encoding="utf-8")
        made = set(re.findall(r"remember (\w+)", text("up"))) | {"MEMSLOT_COLLECTED", "MEMSLOT_COMMIT"}
        used = {name for path in COMPOSE.glob("*.yml")
                for name in re.findall(r"\$\{(\w+)", path.read_text(encoding="utf-8"))}
        self.assertGreater(len(used), 10)
        self.assertEqual({name for name in used - made if f"`{name}`" not in page}, set())


class Scripts(unittest.TestCase):
    """On a copy of the scripts, with a program `docker` that answers as it is told."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for name in ("compose", "cmake"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns(".env", "secrets"))
        self.bin = self.root / "bin"
        self.bin.mkdir()
        for tool in ("bash", "cat", "dirname", "sed", "grep", "realpath", "mv", "basename", "id", "mkdir"):
            os.symlink(shutil.which(tool), self.bin / tool)

    def docker(self, script):
        path = self.bin / "docker"
        path.write_text(f"#!{shutil.which('bash')}\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def said(self, status, script, *arguments, **environment):
        done = subprocess.run([self.root / "compose" / script, *arguments], capture_output=True, text=True, timeout=60,
                              check=False, env={"PATH": str(self.bin), "HOME": str(self.root), **environment})
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout + done.stderr

    def test_they_explain_themselves_and_refuse_what_they_do_not_know(self):
        for script, word in (("up", "--programs"), ("down", "--volumes")):
            self.assertIn(word, self.said(0, script, "--help"))
            self.assertIn("found --strange", self.said(2, script, "--strange"))

    def test_what_is_missing_is_said(self):
        self.assertIn("expected Docker", self.said(1, "up"))
        self.docker("exit 1")
        self.assertIn("expected Docker Compose", self.said(1, "up"))
        self.docker('[ "$1" = compose ]')
        self.assertIn("expected a Docker engine that answers", self.said(1, "up"))
        self.docker('[ "$1" = compose ] || [ "$1" = version ]')
        said = self.said(1, "up", MEMSLOT_MODEL="/nowhere/model.gguf")
        self.assertIn("found nothing at /nowhere/model.gguf", said)
        self.assertNotIn("building", said)

    def test_before_the_first_up_there_is_nothing_to_end_or_to_ask(self):
        self.docker("exit 0")
        for script, arguments in (("down", []), ("memslot", ["status"])):
            self.assertIn("compose/up has not run here", self.said(1, script, *arguments))


if __name__ == "__main__":
    unittest.main()
