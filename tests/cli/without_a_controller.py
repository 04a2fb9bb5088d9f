"""What the client says when it is used wrongly, and when nobody answers."""
import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest

MEMSLOT = sys.argv.pop(1)
USAGE, UNAVAILABLE, CONFLICT = 2, 17, 15


def run(*arguments, **environment):
    # A client that finds this endpoint would find nobody: the socket file does not exist.
    env = {**os.environ, "MEMSLOT_ENDPOINT": "ipc:///nonexistent/memslot.sock", **environment}
    return subprocess.run([MEMSLOT, "--timeout", "0.3", *arguments], capture_output=True, text=True, env=env,
                          timeout=30, check=False)


class WithoutAController(unittest.TestCase):
    def test_no_command_is_a_usage_error(self):
        self.assertEqual(run().returncode, USAGE)

    def test_an_unknown_command_is_a_usage_error_that_names_it(self):
        result = run("frobnicate")
        self.assertEqual(result.returncode, USAGE)
        self.assertIn("frobnicate", result.stderr)

    def test_an_option_out_of_range_is_a_usage_error(self):
        self.assertEqual(run("generate", "text", "--max-tokens", "0").returncode, USAGE)
        self.assertEqual(run("generate", "text", "--kv", "sometimes").returncode, USAGE)
        both = run("trace", "replay", "0" * 16, "--policy", "base", "--what-if", "step=0,memory=base")
        self.assertEqual(both.returncode, USAGE)

    def test_a_learning_number_that_is_none_or_makes_no_sense_is_a_usage_error_that_names_it(self):
        bad = {"--lr": ("nan", "inf", "-inf", "-0.001", "0", "1e-300", "2", "fast"),
               "--anchor": ("nan", "inf", "-1"), "--target-recall": ("nan", "inf", "-0.5", "1.1"),
               "--rank": ("0", "-4", "257", "nan"), "--steps": ("0", "-1", "10001", "nan"), "--layer": ("-1", "nan")}
        for option, values in bad.items():
            for value in values:
                with self.subTest(option=option, value=value):
                    result = run("learn", "file.txt", f"{option}={value}")
                    self.assertEqual(result.returncode, USAGE, result.stderr)
                    self.assertIn(option, result.stderr)
                    self.assertIn(value, result.stderr)
        self.assertEqual(run("--timeout", "nan", "bank", "ls").returncode, USAGE)

    def test_help_lists_the_exit_codes_and_every_command(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        for word in ("Exit codes", "26 internal", "learn", "generate", "score", "bank", "attest", "keygen", "bench",
                     "tokenize"):
            self.assertIn(word, result.stdout)

    def test_every_command_has_a_help_with_an_example(self):
        def commands(*path):
            shown = run(*path, "--help")
            self.assertEqual(shown.returncode, 0, path)
            listed = shown.stdout.partition("Subcommands:\n")[2].split("\n\n")[0]
            names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
            if not names:
                self.assertRegex(shown.stdout, r"Examples?:", path)
                self.assertLessEqual(max(len(line) for line in shown.stdout.partition("xample")[2].splitlines()), 110, path)
                return 1
            return sum(commands(*path, name) for name in names if not path or len(path) < 2)
        self.assertGreater(commands(), 35)

    def test_an_absent_controller_is_said_with_its_endpoint(self):
        result = run("bank", "ls")
        self.assertEqual(result.returncode, UNAVAILABLE)
        self.assertIn("/nonexistent/memslot.sock", result.stderr)

    def test_errors_are_json_where_json_was_asked_for(self):
        result = run("--json", "attest")
        self.assertEqual(result.returncode, UNAVAILABLE)
        self.assertEqual(json.loads(result.stdout)["error"]["code"], "unavailable")

    def test_a_link_that_leaves_the_host_needs_keys(self):
        result = run("--endpoint", "tcp://192.0.2.1:7400", "bank", "ls")
        self.assertEqual(result.returncode, 25)
        self.assertIn("key", result.stderr.lower())

    def test_keygen_writes_a_private_file_and_never_overwrites_one(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "client.key")
            self.assertEqual(run("keygen", path).returncode, 0)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            with open(path, encoding="utf-8") as file:
                before = file.read()
            self.assertEqual(run("keygen", path).returncode, CONFLICT)
            with open(path, encoding="utf-8") as file:
                self.assertEqual(file.read(), before)

    def test_restore_names_the_program_that_it_lacks(self):
        result = run("bank", "restore", "/from", "/to", MEMSLOT_CONTROLLER="/nonexistent/controller")
        self.assertEqual(result.returncode, 12)
        self.assertIn("/nonexistent/controller", result.stderr)
        result = run("--json", "bank", "restore", "/from", "/to", MEMSLOT_CONTROLLER="/nonexistent/controller")
        self.assertEqual(result.returncode, 12)
        self.assertEqual(json.loads(result.stdout)["error"]["code"], "not_found")

    def test_restore_prints_one_object_where_json_was_asked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            def restore(script):
                path = os.path.join(folder, "controller")
                with open(path, "w", encoding="utf-8") as file:
                    file.write("#!/bin/sh\n" + script)
                os.chmod(path, 0o700)
                return run("--json", "bank", "restore", "/from", "/to", MEMSLOT_CONTROLLER=path)
            result = restore('echo "$@"; echo a warning >&2')
            self.assertEqual(result.returncode, 0)
            self.assertEqual(json.loads(result.stdout), {"restored": "/to", "from": "/from"})
            result = restore("echo a warning >&2; echo 'memslot-controller: restore: none' >&2; exit 12")
            self.assertEqual(result.returncode, 12)
            self.assertEqual(json.loads(result.stdout)["error"], {"code": "not_found", "message": "restore: none"})

    def test_learn_refuses_numbers_that_it_would_not_use(self):
        for option in (("--lr", "0"), ("--lr", "-0.1"), ("--lr", "2"), ("--anchor", "-0.5")):
            result = run("learn", "text.txt", *option)
            self.assertEqual(result.returncode, USAGE, option)
            self.assertIn(option[0], result.stderr)


if __name__ == "__main__":
    unittest.main()
