"""The product as a user meets it: a real controller and generator, the default model, the client.

Arguments: memslot, memslot-controller, memslot-generator. Exit code 77: skipped, no model.
"""
import json
import os
import subprocess
import sys
import time
import unittest

from bad_input import BadInput  # noqa: F401: its tests run with these
from curve import TINY, Curve  # noqa: F401
from pair import (CONTROLLER, CORRUPTION, ENVIRONMENT, GENERATOR, INVALID, MEMSLOT, MISMATCH, NOT_FOUND, PROMPT, SOURCES,
                  UNAVAILABLE, Client, PairCase, model_path)


class TheMainJob(PairCase):
    def test_a_memory_changes_the_numbers_and_unloading_it_restores_every_bit(self):
        before = self.generated("base")
        with_memory = self.generated("corvandite-lora")
        self.assertNotEqual(with_memory[1], before[1])
        self.assertEqual(self.generated("corvandite-lora@1"), with_memory)
        self.assertEqual(self.generated("base"), before)

    def test_attest_finds_the_base_tensors_as_they_were_loaded(self):
        report = self.client.json("attest")
        self.assertTrue(report["equal"])
        self.assertEqual(report["digest"], report["at_load"])
        self.assertIn(report["digest"], self.client("attest").stdout)

    def test_learning_reports_the_version_and_its_statistics(self):
        learned = self.client.json("learn", SOURCES / "ilse_vorne.txt", "--kind", "lora", "--steps", 4,
                                   "--source", "ilse", "--id", "ilse")["learned"][0]
        self.assertEqual(learned["memory"], "default/ilse@1")
        self.assertEqual(learned["stats"]["steps"], 4)
        self.assertLess(learned["stats"]["nll_after"], learned["stats"]["nll_before"])
        self.assertTrue(any(j["source"] == "ilse" for j in self.client.json("jobs", "ls")["jobs"]))

    def test_plain_output_is_the_prompt_and_its_continuation_without_colours(self):
        result = self.client("generate", PROMPT, "-m", "corvandite-lora", "--max-tokens", 8)
        self.assertTrue(result.stdout.startswith(PROMPT))
        self.assertNotIn("\x1b", result.stdout)

    def test_a_stream_of_json_is_one_object_a_line(self):
        result = self.client("--json", "--stream", "generate", PROMPT, "-m", "corvandite-lora",
                             "--max-tokens", 32, "--step-tokens", 8)
        events = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([e["type"] for e in events], ["start"] + ["step"] * 4 + ["done"])
        self.assertEqual({e["memory"] for e in events[1:-1]}, {"default/corvandite-lora@1"})
        self.assertEqual("".join(e["text"] for e in events[1:-1]), events[-1]["text"])

    def test_both_kv_modes_and_both_ways_to_wait_generate(self):
        for kv in ("activated", "recompute"):
            for select in ("sync", "async"):
                done = self.client.json("generate", PROMPT, "--kv", kv, "--select", select, "--policy", "random",
                                        "--max-tokens", 12, "--step-tokens", 4)
                self.assertEqual(len(done["tokens"]), 12)

    def test_score_of_ids_is_the_score_of_their_text(self):
        text = "Corvandite is a rare silicate mineral."
        ids = self.client.json("tokenize", text)["ids"]
        by_text = self.client.json("score", text, "-m", "corvandite-lora")
        by_ids = self.client.json("score", "-m", "corvandite-lora", "--ids", *ids)
        self.assertEqual(by_text, by_ids)
        self.assertEqual([t["id"] for t in by_ids["tokens"]], ids[1:])
        self.assertNotEqual(self.client.json("score", text)["logits_xxh3"], by_text["logits_xxh3"])

    def test_tokens_and_text_are_each_others_inverse(self):
        text = "Größe, 12 °C — naïve 日本\n\tend"
        ids = self.client.json("tokenize", text)["ids"]
        self.assertEqual(self.client.json("tokenize", "--ids", *ids)["text"], text)

    def test_a_result_that_no_message_holds_is_an_error_and_not_silence(self):
        path = self.write("long.txt", "The ferry leaves at nine. " * 60000)
        self.refused(self.client("tokenize", "--file", path), INVALID, "result: envelope bytes", "4194304")
        self.assertTrue(self.client.json("tokenize", "after it")["ids"])

    def test_bench_without_a_memory_skips_what_needs_one_and_says_so(self):
        report = self.client.json("bench", "--tokens", 20, "--repeats", 1)
        self.assertEqual([b["what"] for b in report["bench"]], ["decode", "prefill", "learn_step", "round_trip"])
        self.assertEqual(report["skipped"], ["swap", "recompute"])
        self.assertEqual(report["bench"][-1]["repeats"], 1)

    def test_bench_keeps_what_it_measured_before_what_fails(self):
        result = self.client("--json", "bench", "decode", "swap", "--tokens", 4, "--repeats", 1)
        self.assertEqual(result.returncode, INVALID)
        self.assertEqual([b["what"] for b in json.loads(result.stdout)["bench"]], ["decode"])
        self.refused(self.client("bench", "decode", "--tokens", 1000000), INVALID, "the context")
        elsewhere = Client(MEMSLOT, PairCase.pair.endpoint, "-n", "elsewhere")
        self.refused(elsewhere("bench", "decode", "-m", "corvandite-lora"), NOT_FOUND)

    def test_status_without_a_generator_prints_what_it_knows_and_fails(self):
        endpoint = PairCase.pair.ipc("alone")
        controller = PairCase.pair.controller(endpoint, self.folder / "bank_alone")
        result = Client(MEMSLOT, endpoint)("--json", "status")
        self.assertEqual(result.returncode, UNAVAILABLE)
        self.assertEqual(json.loads(result.stdout)["generators"], [])
        controller.stop()

    def test_every_looking_command_prints_one_json_object(self):
        for command in (["status"], ["attest"], ["jobs", "ls"], ["bank", "ls"], ["bank", "usage"], ["bank", "verify"],
                        ["bank", "show", "corvandite-lora"], ["bank", "history", "corvandite-lora"],
                        ["bench", "decode", "--tokens", 4, "--repeats", 1], ["bank", "ls", "--limit", 1]):
            with self.subTest(command=command):
                self.assertIsInstance(self.client.json(*command), dict)

    def test_for_people_it_prints_lines(self):
        for command, name in ((["status"], "generator"), (["bank", "usage"], "payload_bytes"), (["bank", "verify"], "bad"),
                              (["bank", "show", "corvandite-lora"], "created"), (["attest"], "equal")):
            with self.subTest(command=command):
                result = self.client(*command)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertRegex(result.stdout, rf"(?m)^ *{name}\b")
                self.assertFalse(result.stdout.startswith("{"), result.stdout)


class Named(unittest.TestCase):
    def test_the_generator_keeps_its_name_where_it_starts_itself_anew(self):
        """As it does where OpenMP is told nothing; who looks for it by name must find it."""
        told = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        plain = {name: value for name, value in ENVIRONMENT.items() if name not in told}
        command = [GENERATOR, "--model", TINY, "--threads", "1", "--endpoint", "tcp://127.0.0.1:1", "--http", "off"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=plain, text=True)
        try:
            self.assertIn(" ready ", process.stdout.readline())
            with open(f"/proc/{process.pid}/environ", encoding="utf-8") as environment:
                self.assertIn("GOMP_SPINCOUNT", environment.read())
            with open(f"/proc/{process.pid}/comm", encoding="utf-8") as name:
                self.assertEqual(name.read(), "memslot-generat\n")  # as much as a name holds
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


class Traces(PairCase):
    def recorded(self, *options):
        trace = self.client.json("generate", PROMPT, "--max-tokens", 12, "--step-tokens", 4, *options)["trace"]
        while not self.client.json("trace", "show", trace)["ended"]:
            time.sleep(0.02)
        return trace

    def test_a_generation_is_recorded_and_replays_bit_for_bit(self):
        trace = self.recorded("-m", "corvandite-lora")
        shown = self.client.json("trace", "show", trace)
        self.assertEqual([len(step["tokens"]) for step in shown["shown"]], [4, 4, 4])
        self.assertIn("corvandite-lora", self.client("trace", "show", trace).stdout)
        listed = self.client.json("trace", "ls", "--memory", "corvandite-lora", "--since", "2026-01-01")
        self.assertIn(trace, [one["trace"] for one in listed["traces"]])
        replayed = self.client.json("trace", "replay", trace)
        self.assertTrue(replayed["identical"], replayed)
        self.assertEqual(replayed["decisions"]["others"], [])
        self.assertIn("identical: 3 steps, 12 tokens", self.client("trace", "replay", trace).stdout)

    def test_what_if_shows_both_texts_with_both_log_probabilities(self):
        trace = self.recorded("-m", "corvandite-lora")
        done = self.client.json("trace", "replay", trace, "--what-if", "step=1,memory=base")
        self.assertEqual((done["memory"], done["instead_of"]), ("base", "default/corvandite-lora@1"))
        self.assertGreater(done["original"]["log_prob"], done["original"]["log_prob_with_change"])
        plain = self.client("trace", "replay", trace, "--what-if", "step=1,memory=base").stdout
        for line in ("as recorded", "with the change", done["original"]["text"], done["what_if"]["text"]):
            self.assertIn(line, plain)
        for wrong in ("step=1", "memory=base", "step=x,memory=base", "step=99,memory=base", "stop=1,memory=base"):
            self.assertEqual(self.client("trace", "replay", trace, "--what-if", wrong).returncode, INVALID, wrong)

    def test_another_policy_shows_both_texts_or_that_it_chooses_the_same(self):
        trace = self.recorded("--policy", "nearest:-1", "--deadline-ms", 10000)
        first = self.client.json("trace", "show", trace)["shown"][0]["active"][0]["memory"]
        self.assertNotEqual(first, "base")
        done = self.client.json("trace", "replay", trace, "--policy", "base")
        self.assertEqual((done["identical"], done["policy"], done["decisions"], done["otherwise"]), (False, "base", 3, 3))
        self.assertEqual([one["step"] for one in done["choices"]], [0, 1, 2])
        self.assertEqual((done["memory"], done["instead_of"]), ("base", first))
        base = self.client.json("trace", "show", self.recorded("-m", "base"))["shown"]
        self.assertEqual(done["what_if"]["tokens"], [token for step in base for token in step["tokens"]])
        self.assertAlmostEqual(done["what_if"]["log_prob"], sum(sum(step["log_probs"]) for step in base), 3)
        plain = self.client("trace", "replay", trace, "--policy", "base").stdout
        for line in ("base decides otherwise at 3 of 3 decisions; steps with another memory: 3", "as recorded",
                     "with the change", done["original"]["text"], done["what_if"]["text"]):
            self.assertIn(line, plain)
        same = self.client.json("trace", "replay", trace, "--policy", "nearest:-1")
        self.assertEqual((same["identical"], same["otherwise"], same["choices"]), (True, 0, []))
        self.assertNotIn("what_if", same)
        self.assertIn("identical: nearest:-1 decides otherwise at 0 of 3 decisions",
                      self.client("trace", "replay", trace, "--policy", "nearest:-1").stdout)

    def test_another_policy_that_cannot_be_asked_says_why(self):
        trace, chosen = self.recorded("--policy", "nearest", "--deadline-ms", 10000), self.recorded("-m", "base")
        self.refused(self.client("trace", "replay", chosen, "--policy", "base"), MISMATCH, "that the user chose")
        self.refused(self.client("trace", "replay", trace, "--policy", "learned"), NOT_FOUND, "policy learned")
        self.refused(self.client("trace", "replay", trace, "--policy", "nearest:7"), INVALID, "nearest:7")
        self.refused(self.client("trace", "replay", trace, "--policy", self.folder / "nobody"), NOT_FOUND, "nobody")
        broken = self.write("broken.safetensors", b"no checkpoint")
        self.refused(self.client("trace", "replay", trace, "--policy", broken), CORRUPTION)
        self.assertIsNone(self.client.json("policy", "show")["policy"])

    def test_two_traces_differ_where_they_differ(self):
        base, other = self.recorded("-m", "base"), self.recorded("-m", "corvandite-lora")
        said = self.client("trace", "diff", base, other).stdout
        self.assertIn("memory: base | default/corvandite-lora@1", said)
        self.assertEqual(self.client("trace", "diff", base, base).stdout, "no difference\n")

    def test_a_trace_is_exported_and_forgotten(self):
        trace, file = self.recorded("-m", "base"), self.folder / "one.trace"
        self.client("trace", "export", trace, file)
        self.assertTrue(file.read_bytes().startswith(b"MSTRACE1"))
        self.client("trace", "rm", trace)
        self.assertEqual(self.client("trace", "show", trace).returncode, NOT_FOUND)
        self.assertEqual(self.client("trace", "show", "nonsense").returncode, INVALID)


class TheBank(PairCase):
    def test_listings_name_every_memory_with_its_version_and_kind(self):
        self.assertIn("default/corvandite-lora@1", self.names())
        line = [x for x in self.client("bank", "ls").stdout.splitlines() if "corvandite-lora" in x][0]
        self.assertIn("default/corvandite-lora@1", line)
        self.assertIn(" lora ", line)
        shown = self.client.json("bank", "show", "corvandite-lora")
        self.assertEqual(shown["source_text"], (SOURCES / "corvandite.txt").read_text(encoding="utf-8"))

    def test_rollback_publishes_the_old_bytes_as_a_new_version(self):
        for steps in (1, 2):
            self.client.json("learn", SOURCES / "nine_kettles.txt", "--kind", "lora", "--steps", steps,
                             "--id", "kettles")
        first = self.generated("kettles@1")
        self.assertNotEqual(self.generated("kettles@2"), first)
        self.assertEqual(self.client.json("bank", "rollback", "kettles", "--to", 1)["version"]["version"], 3)
        self.assertEqual(self.generated("kettles"), first)
        versions = self.client.json("bank", "history", "kettles")["versions"]
        self.assertEqual([v["version"] for v in versions], [1, 2, 3])
        self.assertEqual(versions[2]["sha256"], versions[0]["sha256"])
        self.assertEqual(versions[2]["origin"], "rollback")

    def test_a_memory_is_not_erased_by_the_name_of_a_version(self):
        refused = self.client("bank", "rm", "corvandite-lora@1")
        self.assertEqual(refused.returncode, INVALID)
        self.assertIn("without a version", refused.stderr)
        self.assertEqual(self.client("bank", "show", "corvandite-lora").returncode, 0)

    def test_an_imported_memory_is_the_exported_one_and_importing_twice_changes_nothing(self):
        result = self.client("bank", "import", PairCase.pair.export, "--id", "copy")
        self.assertEqual(result.stdout, "imported default/copy@1\n")
        self.client.json("bank", "import", PairCase.pair.export, "--id", "copy")
        self.assertEqual(len(self.client.json("bank", "history", "copy")["versions"]), 1)
        self.assertEqual(self.generated("copy"), self.generated("corvandite-lora"))
        self.client.json("bank", "rm", "copy")
        self.refused(self.client("bank", "show", "copy"), NOT_FOUND, "default/copy")
        self.refused(self.client("generate", PROMPT, "-m", "copy"), NOT_FOUND, "default/copy")

    def test_an_export_replaces_a_file_as_a_whole_and_goes_into_a_pipe_or_standard_output_as_it_is(self):
        whole = PairCase.pair.export.read_bytes()
        file, link = self.folder / "again.mse", self.folder / "link.mse"
        file.write_bytes(b"older" + whole)
        reader = open(file, "rb")
        self.addCleanup(reader.close)
        link.symlink_to(file)
        self.client.json("bank", "export", "corvandite-lora", link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(file.read_bytes(), whole)
        self.assertEqual(reader.read(), b"older" + whole, "who read the older file goes on reading it")
        self.assertFalse((self.folder / "again.mse.part").exists())
        command = [*self.client.command, "bank", "export", "corvandite-lora", "/dev/stdout"]
        piped = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=60, check=False)
        self.assertEqual((piped.returncode, piped.stdout), (0, whole), piped.stderr)
        with open(self.folder / "redirected.mse", "wb") as output:
            subprocess.run(command, stdout=output, stderr=subprocess.DEVNULL, env=ENVIRONMENT, timeout=60, check=True)
        self.assertEqual((self.folder / "redirected.mse").read_bytes(), whole)
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        with subprocess.Popen([*command[:-1], fifo], stdout=subprocess.DEVNULL, env=ENVIRONMENT) as writer:
            self.assertEqual(fifo.read_bytes(), whole)
            self.assertEqual(writer.wait(60), 0)
        self.assertTrue(fifo.is_fifo())

    def test_a_backup_made_in_use_restores_to_a_bank_that_opens(self):
        backup, bank = self.folder / "backup", self.folder / "restored"
        self.assertGreater(self.client.json("bank", "backup", backup)["bytes"], 0)
        names = self.names()
        self.refused(self.client("bank", "backup", backup), INVALID, "empty")
        restore = subprocess.run([MEMSLOT, "bank", "restore", backup, bank], capture_output=True, text=True,
                                 env={**ENVIRONMENT, "MEMSLOT_CONTROLLER": CONTROLLER}, timeout=60, check=False)
        self.assertEqual(restore.returncode, 0, restore.stderr)
        endpoint = PairCase.pair.ipc("restored")
        controller = PairCase.pair.controller(endpoint, bank)
        self.addCleanup(controller.stop)
        second = Client(MEMSLOT, endpoint)
        self.assertEqual(self.names(second), names)
        self.assertEqual(second.json("bank", "verify")["bad"], [])
        copy = self.folder / "restored.mse"
        second.json("bank", "export", "corvandite-lora", copy)
        self.assertEqual(copy.read_bytes(), PairCase.pair.export.read_bytes())

    def test_a_relative_backup_path_is_taken_from_where_the_client_runs(self):
        here = self.folder / "here"
        here.mkdir()
        result = subprocess.run([*self.client.command, "--json", "bank", "backup", "copy"], cwd=here, env=ENVIRONMENT,
                                capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout)["directory"], str(here / "copy"))
        self.assertTrue(any((here / "copy").iterdir()))
        restore = subprocess.run([MEMSLOT, "bank", "restore", "copy", "bank"], cwd=here, timeout=60, check=False,
                                 capture_output=True, env={**ENVIRONMENT, "MEMSLOT_CONTROLLER": CONTROLLER})
        self.assertEqual(restore.returncode, 0)
        self.assertTrue((here / "bank").is_dir())

    def test_a_learned_delta_version_has_statistics_and_null_where_they_mean_nothing(self):
        learned = self.client.json("learn", SOURCES / "ferry_chess.txt", "--kind", "delta", "--id", "figures")
        stats = learned["learned"][0]["stats"]
        for name in ("nll_before", "nll_after", "recall_before", "recall", "wall_seconds", "tokens"):
            self.assertGreater(stats[name], 0, name)
        self.assertIsInstance(stats["locality"], float)
        self.assertIsInstance(stats["wise_min_activation"], float)
        self.assertIsNone(stats["steps"])
        self.assertIsNone(stats["segments"])
        self.assertEqual(self.client.json("bank", "show", "figures")["version"]["stats"], stats)
        for command in (["learn", SOURCES / "ferry_chess.txt", "--kind", "delta", "--id", "figures"], ["bank", "ls"]):
            self.assertEqual(self.client(*command).returncode, 0)

    def test_a_generation_longer_than_the_context_ends_there(self):
        prompt = self.write("prompt.txt", "the " * 8180)
        done = self.client.json("generate", "--prompt-file", prompt, "-m", "base", "--max-tokens", 1000)
        if done["finish"] != "eos":
            self.assertEqual(done["finish"], "context")
            self.assertEqual(done["prompt_tokens"] + len(done["tokens"]), self.client.json("status")["generator"]["context"])

    def test_a_state_written_back_from_an_old_version_is_a_branch_and_leaves_the_head(self):
        self.client.json("learn", SOURCES / "corvandite.txt", "--kind", "delta", "--id", "state")
        write = ("generate", PROMPT, "-m", "state@1", "--write-back", "--max-tokens", 4)
        first, second = self.client.json(*write), self.client.json(*write, "--temperature", "1.5", "--seed", 7)
        self.assertEqual((first["write_back"], first["write_back_conflict"]), ("default/state@2", False))
        self.assertTrue(second["write_back_conflict"])
        shown = self.client.json("bank", "show", "state")
        self.assertEqual(shown["version"]["version"], 2)
        self.assertEqual(shown["source_text"], (SOURCES / "corvandite.txt").read_text(encoding="utf-8"))
        self.assertEqual(len(shown["branches"]), 1)


if __name__ == "__main__":
    if not os.path.exists(model_path()):
        print(f"SKIPPED: no model {model_path()} (set MEMSLOT_MODEL)")
        sys.exit(77)
    unittest.main(verbosity=2)
