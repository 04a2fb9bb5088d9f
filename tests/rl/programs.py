"""`memslot train` and `memslot eval` as a user meets them, on a synthetic gain table: results, files,
interruption, every bad input. Arguments: memslot, memslot-rl, make_synthetic_table."""
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

MEMSLOT, MEMSLOT_RL, MAKE_TABLE = (os.path.abspath(sys.argv.pop(1)) for _ in range(3))
USAGE, INVALID, NOT_FOUND, CORRUPTION, MISMATCH, NOT_SUPPORTED, CANCELLED = 2, 11, 12, 13, 14, 23, 24
QUICK = ("--streams", 4, "--hidden", 16, "--candidates", 6, "--warm-start", 20, "--look-every", 10)
SELECTORS = {"policy", "base", "random", "nearest", "wise", "audition", "lagged_oracle", "oracle"}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments):
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, timeout=300,
                          check=False)


def tensors_of(data):
    """The header of a safetensors file, and where its tensors begin."""
    length = struct.unpack_from("<Q", data)[0]
    return json.loads(data[8:8 + length]), 8 + length


def with_header(data, change):
    header, start = tensors_of(data)
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[start:]


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="memslot-rl-"))
        cls.table = cls.folder / "gains.safetensors"
        assert run(MAKE_TABLE, cls.table).returncode == 0
        cls.policies = []
        for seed in (1, 2):
            out = cls.folder / f"policy{seed}.safetensors"
            done = cls.train(out, "--updates", 40, "--seed", seed)
            assert done.returncode == 0, done.stdout + done.stderr
            cls.policies.append(out)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def train(cls, out, *more, table=None):
        return run(MEMSLOT, "train", table or cls.table, "--out", out, *QUICK, *more)

    def eval(self, *arguments):
        return run(MEMSLOT, "--json", "eval", *arguments)

    def refused(self, done, code, *words):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(str(word), done.stdout + done.stderr)
        self.assertNotIn("terminate", done.stderr)

    def write(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return path

    # -- training

    def test_training_leaves_a_policy_a_state_a_curve_and_a_page_that_needs_nothing_else(self):
        out = self.policies[0]
        lines = [json.loads(l) for l in pathlib.Path(f"{out}.curve.jsonl").read_text().splitlines()]
        self.assertEqual([l["type"] for l in lines], ["start"] + ["look"] * 5 + ["end"])
        for line in lines[1:-1]:
            for key in ("return", "entropy"):
                self.assertIsInstance(line[key], float)
            self.assertIn("control_base", line)
            for key in ("mean_gain", "regret", "accuracy", "abstention", "swaps_per_100"):
                self.assertIsInstance(line["validation"][key], (int, float))
        page = pathlib.Path(f"{out}.html").read_text()
        self.assertGreaterEqual(page.count("<svg"), 6)
        self.assertIn("prefers-color-scheme:dark", page)
        for outside in ("http:", "https:", "src=", "@import", "url("):
            self.assertNotIn(outside, page)
        self.assertFalse([p.name for p in self.folder.iterdir() if "tmp" in p.name])

    def test_the_same_seed_gives_the_same_file_and_another_does_not(self):
        again = self.folder / "again.safetensors"
        self.assertEqual(self.train(again, "--updates", 40, "--seed", 1).returncode, 0)
        self.assertEqual(again.read_bytes(), self.policies[0].read_bytes())
        self.assertNotEqual(self.policies[1].read_bytes(), self.policies[0].read_bytes())

    def test_forty_updates_are_twenty_and_a_resume(self):
        out = self.folder / "resumed.safetensors"
        self.assertEqual(self.train(out, "--updates", 20).returncode, 0)
        self.assertEqual(self.train(out, "--updates", 40, "--resume").returncode, 0)
        for suffix in ("", ".state"):
            self.assertEqual(pathlib.Path(f"{out}{suffix}").read_bytes(),
                             pathlib.Path(f"{self.policies[0]}{suffix}").read_bytes(), suffix)
        looks = [json.loads(l) for l in pathlib.Path(f"{out}.curve.jsonl").read_text().splitlines()]
        self.assertEqual([l["update"] for l in looks if l["type"] == "look"], [0, 10, 20, 30, 40])

    def test_an_interrupt_saves_and_the_training_goes_on_to_the_same_bits(self):
        out = self.folder / "interrupted.safetensors"
        command = [MEMSLOT, "train", self.table, "--out", out, *QUICK, "--updates", 40]
        child = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env=ENVIRONMENT)
        child.stdout.readline()  # the first look
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=120)
        self.assertEqual(child.returncode, CANCELLED, said)
        self.assertIn("--resume", said)
        self.assertEqual(self.train(out, "--updates", 40, "--resume").returncode, 0)
        self.assertEqual(out.read_bytes(), self.policies[0].read_bytes())

    def test_killed_at_any_moment_it_goes_on_to_the_same_bits(self):
        options = (*QUICK, "--look-every", 1, "--patience", 1000, "--updates", 60)
        whole, out = self.folder / "whole.safetensors", self.folder / "killed.safetensors"
        self.assertEqual(run(MEMSLOT, "train", self.table, "--out", whole, *options).returncode, 0)
        draw, state, killed = random.Random(7), pathlib.Path(f"{out}.state"), 0
        for _ in range(12):  # a look saves everything: some of these are in the middle of it
            command = [MEMSLOT, "train", self.table, "--out", out, *options, *(["--resume"] if state.exists() else [])]
            child = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
            for _ in range(draw.randint(1, 4)):
                child.stdout.readline()
            time.sleep(0.05 * draw.random())
            child.kill()
            child.communicate()
            killed += child.returncode == -signal.SIGKILL
            for path in filter(pathlib.Path.exists, (out, state)):
                tensors_of(path.read_bytes())
        self.assertGreater(killed, 6)
        self.assertEqual(run(MEMSLOT, "train", self.table, "--out", out, *options, "--resume").returncode, 0)
        for suffix in ("", ".state"):
            self.assertEqual(pathlib.Path(f"{out}{suffix}").read_bytes(),
                             pathlib.Path(f"{whole}{suffix}").read_bytes(), suffix)

    def test_json_is_one_object(self):
        out = self.folder / "json.safetensors"
        done = run(MEMSLOT, "--json", "train", self.table, "--out", out, *QUICK, "--updates", 10)
        result = json.loads(done.stdout)
        self.assertEqual(result["policy"], str(out))
        self.assertEqual(result["updates"], 10)
        self.assertGreater(result["seconds"], 0)

    def test_both_programs_explain_themselves(self):
        for program in ([MEMSLOT], [MEMSLOT_RL]):
            for command, words in (("train", ("--resume", "--baseline", "FILE.curve.jsonl", "Example")),
                                   ("eval", ("--out", "--activated", "abstention", "Example"))):
                done = run(*program, command, "--help")
                self.assertEqual(done.returncode, 0)
                for word in words:
                    self.assertIn(word, done.stdout)

    # -- training: what must be refused

    def test_options_out_of_bounds_and_no_numbers_are_usage_errors(self):
        for option, value in (("--gamma", "nan"), ("--gamma", "1.5"), ("--learning-rate", "0"), ("--entropy", "-1"),
                              ("--entropy", "inf"), ("--rollouts", "0"), ("--candidates", "1"), ("--candidates", "33"),
                              ("--seed", "x"), ("--seed", "-1"), ("--baseline", "best"), ("--updates", "-3"),
                              ("--updates", "1.5"), ("--look-every", "0"), ("--swap-cost", "nan"),
                              ("--margin", "nan"), ("--window", "0"), ("--window", "129"), ("--window", "wide"), ("--window", "1.5"), ("--unknown", "1")):
            with self.subTest(option=option, value=value):
                self.refused(self.train(self.folder / "never.safetensors", option, value), USAGE)
        self.refused(run(MEMSLOT, "train", self.table), USAGE, "--out")
        self.assertFalse((self.folder / "never.safetensors").exists())

    def test_one_rollout_has_no_other_to_be_held_against(self):
        out = self.folder / "one.safetensors"
        self.refused(self.train(out, "--rollouts", 1), INVALID, "rollouts")
        self.assertEqual(self.train(out, "--rollouts", 1, "--baseline", "value", "--updates", 10).returncode, 0)

    def test_tables_that_are_none_are_refused(self):
        good = self.table.read_bytes()
        out = self.folder / "never.safetensors"
        self.refused(self.train(out, table=self.folder / "none"), NOT_FOUND, "none")
        for name, data in (("empty", b""), ("half", good[:len(good) // 2]), ("head", good[:4]),
                           ("text", b"not a table at all")):
            with self.subTest(name=name):
                self.refused(self.train(out, table=self.write(name, data)), CORRUPTION)
        header, start = tensors_of(good)
        nan = bytearray(good)
        struct.pack_into("<f", nan, start + header["gain"]["data_offsets"][0] + 40, float("nan"))
        self.refused(self.train(out, table=self.write("nan", bytes(nan))), CORRUPTION, "finite")
        self.assertFalse(out.exists())

    def test_a_place_that_cannot_be_written_is_said_before_training(self):
        self.refused(self.train(self.folder / "no" / "such" / "p.safetensors"), NOT_FOUND, "--out")

    def test_resume_needs_a_state_of_the_same_training(self):
        out = self.folder / "other.safetensors"
        self.refused(self.train(out, "--resume"), NOT_FOUND, "state")
        state = pathlib.Path(f"{self.policies[0]}.state").read_bytes()
        place = self.write("other.safetensors.state", state)
        self.refused(self.train(out, "--resume", "--gamma", 0.25), MISMATCH, "training state")
        self.refused(self.train(out, "--resume", "--seed", 9), MISMATCH)
        place.write_bytes(state[:len(state) // 2])
        self.refused(self.train(out, "--resume"), CORRUPTION)

    # -- evaluation

    def test_the_report_has_every_selector_in_every_mode(self):
        out = self.folder / "report"
        done = self.eval(self.table, *self.policies, "--out", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual(report, json.loads((out / "report.json").read_text()))
        for selectors in (report["selectors"], report["modes"]["async"]["selectors"], report["prompt"]["selectors"],
                          report["control"]["selectors"], report["continuation"]["selectors"]):
            self.assertEqual(set(selectors), SELECTORS)
            for figures in selectors.values():
                low, high = figures["ci95"]
                self.assertLessEqual(low, figures["mean_gain"] + 1e-9)
                self.assertGreaterEqual(high, figures["mean_gain"] - 1e-9)
        self.assertIn("generator", report["modes"]["activated"]["absent"])
        self.assertEqual(len(report["checkpoints"]), 2)
        page = (out / "report.html").read_text()
        self.assertIn("<svg", page)
        for outside in ("http:", "https:", "src=", "@import", "url("):
            self.assertNotIn(outside, page)

    def test_evaluation_leaves_the_text_for_people(self):
        done = run(MEMSLOT, "eval", self.table, self.policies[0])
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("streams, recompute", "lagged_oracle", "prompt only", "control text", "seeds meet all targets"):
            self.assertIn(word, done.stdout)

    def test_schedules_are_written_and_come_back_measured(self):
        wanted = self.folder / "schedules.jsonl"
        self.assertEqual(self.eval(self.table, *self.policies, "--schedules", wanted).returncode, 0)
        lines = [json.loads(l) for l in wanted.read_text().splitlines()]
        measured = self.write("measured.jsonl", "".join(
            json.dumps({**l, "gain": [0.0] * len(l["actions"])}) + "\n" for l in lines).encode())
        report = json.loads(self.eval(self.table, *self.policies, "--activated", measured).stdout)
        activated = report["modes"]["activated"]["selectors"]
        self.assertEqual(set(activated), SELECTORS)
        self.assertEqual(activated["base"]["mean_gain"], 0)
        measured.write_text("".join(measured.read_text().splitlines(True)[1:]))
        self.refused(self.eval(self.table, *self.policies, "--activated", measured), NOT_FOUND, "schedule")
        self.refused(self.eval(self.table, *self.policies, "--activated", self.table), CORRUPTION)

    def test_checkpoints_that_are_damaged_or_of_other_features_are_refused(self):
        good = self.policies[0].read_bytes()

        def metadata(**changes):
            return with_header(good, lambda header: header["__metadata__"].update(changes))

        header, start = tensors_of(good)
        nan = bytearray(good)
        struct.pack_into("<f", nan, start + header["scorer.w1"]["data_offsets"][0], float("nan"))
        for name, data, code in (("empty", b"", CORRUPTION), ("half", good[:len(good) // 2], CORRUPTION),
                                 ("nan", bytes(nan), CORRUPTION), ("features", metadata(feature_version="99"), MISMATCH),
                                 ("fewer", metadata(features="3"), MISMATCH), ("model", metadata(model="b" * 64), MISMATCH),
                                 ("hidden", metadata(hidden="32"), MISMATCH), ("huge", metadata(hidden="99999"), CORRUPTION),
                                 ("window", metadata(window_tokens="x"), CORRUPTION),
                                 ("table", self.table.read_bytes(), MISMATCH)):
            with self.subTest(name=name):
                done = self.eval(self.table, self.write(f"bad-{name}", data))
                self.assertIn(done.returncode, (code, CORRUPTION), done.stdout + done.stderr)
                self.assertIn("error", json.loads(done.stdout))
        self.refused(self.eval(self.table, self.folder / "none"), NOT_FOUND)
        self.refused(run(MEMSLOT, "eval", self.table), USAGE)

    def test_without_the_program_beside_it_memslot_says_so(self):
        with tempfile.TemporaryDirectory() as folder:
            alone = shutil.copy(MEMSLOT, folder)
            self.refused(run(alone, "train", self.table, "--out", "x"), NOT_SUPPORTED, "memslot-rl", "libtorch")


if __name__ == "__main__":
    unittest.main()
