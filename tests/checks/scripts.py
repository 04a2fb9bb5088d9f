"""The project's scripts where nothing of the machine is needed: interrupted, and without their data."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()


class Interrupted(unittest.TestCase):
    def test_a_quiet_step_ends_with_its_child_and_what_it_left(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number), tempfile.TemporaryDirectory() as folder:
                script = f"""set -euo pipefail
                . "{ROOT}/cmake/setup.sh"
                TEMPORARY=$(mktemp -d "{folder}/fetch.XXXXXX")
                watch sleeping "{folder}/log" sh -c 'echo $$ >"{folder}/pid.new"; mv "{folder}/pid.new" "{folder}/pid"; exec sleep 60'
                """
                # As a terminal starts it: Python leaves SIGINT to be heard.
                child = subprocess.Popen(["bash", "-c", script], stderr=subprocess.PIPE, text=True)
                pid = pathlib.Path(folder, "pid")
                end = time.monotonic() + 20
                while not pid.exists() and time.monotonic() < end:
                    time.sleep(0.02)
                child.send_signal(number)
                _, said = child.communicate(timeout=20)
                self.assertEqual(child.returncode, 130, said)
                self.assertIn("interrupted", said)
                self.assertFalse(os.path.exists(f"/proc/{pid.read_text().strip()}"))
                self.assertEqual([p.name for p in pathlib.Path(folder).glob("fetch.*")], [])


class Acceptance(unittest.TestCase):
    def acceptance(self, folder, *arguments):
        return subprocess.run([sys.executable, "-B", ROOT / "tests/bench/acceptance.py", "--build", folder,
                               "--json", f"{folder}/figures.json", *arguments],
                              capture_output=True, text=True, timeout=60, check=False)

    def test_a_section_that_was_asked_for_and_not_measured_is_a_failure_that_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            done = self.acceptance(folder, "--sections", "exactness,selection")
            self.assertEqual(done.returncode, 1)
            self.assertIn("NOT MEASURED exactness: expected WikiText-2", done.stdout)
            self.assertIn("sections not measured: exactness, selection", done.stdout)
            missing = json.loads(pathlib.Path(folder, "figures.json").read_text(encoding="utf-8"))["missing"]
            self.assertEqual([row["section"] for row in missing], ["exactness", "selection"])


class PolicyReport(unittest.TestCase):
    def report(self, *arguments, **environment):
        return subprocess.run([ROOT / "tests/bench/policy_report.sh", *map(str, arguments)], capture_output=True,
                              text=True, timeout=60, check=False, env={**os.environ, **environment})

    def test_it_explains_itself(self):
        done = self.report("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("TEXT", "OUT", "report.json", "goes", "SEEDS"):
            self.assertIn(word, done.stdout)

    def test_what_it_needs_is_said_before_anything_is_made(self):
        with tempfile.TemporaryDirectory() as folder:
            out, text = pathlib.Path(folder, "out"), pathlib.Path(folder, "text")
            self.assertEqual(self.report("one").returncode, 2)
            text.write_text(" = Title = \n", encoding="utf-8")
            for wanted, arguments, environment in (
                    ("TEXT", (folder + "/none", out), {}),
                    ("model", (text, out), {"MEMSLOT_MODEL": folder + "/none"}),
                    ("build first", (text, out), {"MEMSLOT_MODEL": str(text), "MEMSLOT_BUILD": folder})):
                done = self.report(*arguments, **environment)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(wanted, done.stderr)
            self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
