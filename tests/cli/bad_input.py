"""What is wrong, damaged, foreign or in the way: each is refused, named, and changes nothing."""
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import unittest

from pair import (BUSY, CANCELLED, CONTROLLER, CORRUPTION, ENVIRONMENT, FIXTURES, GENERATOR, INVALID, MISMATCH,
                  NO_SPACE, NOT_FOUND, NOT_SUPPORTED, PERMISSION, PROMPT, UNAVAILABLE, Client, MEMSLOT, PairCase, ROOT,
                  model_path)

NO_TOKENIZER = FIXTURES / "llama_tiny_theta10000_hf"


class BadInput(PairCase):
    """Each is refused with its code and a message, and leaves bank and base as they were."""

    def setUp(self):
        super().setUp()
        self.before = self.names(), self.client.json("attest")["digest"]
        self.addCleanup(lambda: self.assertEqual((self.names(), self.client.json("attest")["digest"]), self.before))

    def imported(self, data):
        return self.client("bank", "import", self.write("bad.mse", data), "--id", "bad")

    def started(self, program, *arguments):
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT,
                              timeout=60, check=False)

    def model(self, path):
        return self.started(GENERATOR, "--model", path, "--endpoint", PairCase.pair.ipc("nobody"))

    # Policies.
    def test_a_policy_checkpoint_that_is_none_or_absent(self):
        self.refused(self.client("policy", "load", self.folder / "absent"), NOT_FOUND, "absent")
        self.refused(self.client("policy", "load", self.write("notes.safetensors", "some notes")), CORRUPTION,
                     "policy.load", "expected", "found")
        self.assertIsNone(self.client.json("policy", "show")["policy"])
        self.assertEqual(self.client.json("policy", "unload"), {"policy": None})  # nothing to do, nothing noted
        self.assertEqual(self.client.json("policy", "ls")["policies"], [])

    def test_the_learned_policy_where_none_is_loaded(self):
        self.refused(self.client("generate", PROMPT, "--policy", "learned"), NOT_FOUND, "policy load", "found none")

    def test_feedback_out_of_range_not_a_number_or_to_a_controller_that_does_not_learn(self):
        self.refused(self.client("policy", "feedback", 1, "1.5"), INVALID, "-1 to 1", "found 1.5")
        for value in ("nan", "inf"):
            self.assertNotEqual(self.client("policy", "feedback", 1, value).returncode, 0, value)
        self.refused(self.client("policy", "feedback", 1, "0.5"), UNAVAILABLE, "learn-online")

    # Models.
    def test_a_model_file_that_is_absent_or_no_model(self):
        self.refused(self.model(self.folder / "absent.gguf"), NOT_FOUND, "absent.gguf", "expected")
        self.refused(self.model(self.write("notes.txt", "some notes")), CORRUPTION, "notes.txt", "gguf",
                     "expected", "found")
        self.refused(self.model(self.write("zero.gguf", "")), CORRUPTION, "zero.gguf", "found 0 bytes")

    def test_a_truncated_model_file(self):
        with open(model_path(), "rb") as file:
            head = file.read(1 << 16)
            self.refused(self.model(self.write("short.gguf", head)), CORRUPTION, "short.gguf", "expected", "found")
            big = self.write("half.gguf", head + file.read(8 << 20))
        self.refused(self.model(big), CORRUPTION, "tensor", "expected", "found")

    def test_a_model_file_with_the_wrong_magic(self):
        with open(model_path(), "rb") as file:
            data = b"GGML" + file.read(4096)[4:]
        self.refused(self.model(self.write("magic.gguf", data)), CORRUPTION, "magic", "expected 'GGUF'", "found")

    def test_a_model_whose_shapes_do_not_fit(self):
        folder = self.folder / "shapes"
        shutil.copytree(NO_TOKENIZER, folder)
        self.addCleanup(shutil.rmtree, folder)
        config = json.loads((folder / "config.json").read_text())
        config["intermediate_size"] += 32
        (folder / "config.json").write_text(json.dumps(config))
        result = self.model(folder)
        self.assertIn(result.returncode, (CORRUPTION, MISMATCH), result.stderr)
        self.refused(result, result.returncode, "mlp", "expected", "192", "found", "160")

    def test_a_model_without_a_tokenizer_takes_ids_and_refuses_text(self):
        endpoint = PairCase.pair.ipc("ids")
        pair = PairCase.pair
        client = Client(MEMSLOT, endpoint)
        for daemon in (pair.controller(endpoint, "memory:"), pair.generator(endpoint, NO_TOKENIZER)):
            self.addCleanup(daemon.stop)
        source = self.write("source.txt", "A ferry leaves the harbour at dawn and comes back at dusk.")
        for command in (["generate", "text"], ["score", "some text"], ["tokenize", "text"], ["learn", source],
                        ["learn", source, "--kind", "delta"], ["learn", source, "--detach"]):
            with self.subTest(command=command):
                self.refused(client(*command), NOT_FOUND, "tokenizer", "expected", "found none")
        self.assertEqual(client.json("jobs", "ls")["jobs"], [])
        self.assertEqual(len(client.json("score", "--ids", 1, 2, 3)["tokens"]), 2)
        self.assertIn("nats", client("score", "--ids", 1, 2, 3).stdout)
        # A memory of the default model, offered to this one.
        client.json("bank", "import", pair.export, "--id", "foreign")
        self.refused(client("score", "--ids", 1, 2, 3, "-m", "foreign"), MISMATCH, "model digest", "expected", "found")
        self.refused(client("score", "--ids", *([1] * 129)), INVALID, "at most 128", "found 129")

    def test_a_job_that_nobody_here_can_learn_says_what_it_waits_for(self):
        endpoint = PairCase.pair.ipc("waits")
        pair = PairCase.pair
        client = Client(MEMSLOT, endpoint)
        self.addCleanup(pair.controller(endpoint, "memory:").stop)
        source = self.write("waits.txt", "A ferry leaves the harbour at dawn and comes back at dusk.")
        detached = client("learn", source, "--detach")
        self.assertEqual(detached.returncode, 0, detached.stderr)
        self.assertIn("waits: no generator is connected", detached.stdout)
        self.assertIn("waits: no generator is connected", client("jobs", "ls").stdout)
        watching = subprocess.Popen([*client.command, "learn", source], env=ENVIRONMENT, text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(lambda: watching.poll() is None and watching.kill())
        self.assertIn("waits: no generator is connected", watching.stderr.readline())
        self.addCleanup(pair.generator(endpoint, NO_TOKENIZER).stop)
        self.assertIn("reads text", watching.stderr.readline())
        for job in client.json("jobs", "ls")["jobs"]:
            self.assertIn("reads text", client.json("jobs", "show", job["job"])["job"]["waits"])
            client.json("jobs", "cancel", job["job"])
        self.assertEqual(watching.wait(timeout=20), CANCELLED)
        watching.communicate()

    # Memories.
    def test_a_memory_of_another_model_or_layer_is_kept_but_never_loaded(self):
        memory, other = PairCase.pair.memory, b"\x11" * 32
        files = {"model digest": memory().patch(8, other).sign(model=other.hex()),
                 "layer": memory().patch(40, struct.pack("<i", 7)).sign(layer=7)}
        for what, file in files.items():
            with self.subTest(what=what):
                self.client.json("bank", "import", self.write("other.mse", file.bytes()), "--id", "other")
                for command in (["generate", PROMPT], ["score", PROMPT]):
                    self.refused(self.client(*command, "-m", "other"), MISMATCH, "default/other", what, "expected",
                                 "found")
                self.client.json("bank", "rm", "other")

    def test_a_memory_whose_tensors_are_not_of_its_kind_form_or_size(self):
        memory = PairCase.pair.memory
        files = {"kind mlp": memory().patch(6, b"\x01").sign(kind="mlp"),
                 "kind delta": memory().patch(6, b"\x04").sign(kind="delta"),
                 "form gelu_tanh": memory().patch(44, b"\x02").sign(form="gelu_tanh"),
                 "gate.B": memory().patch(52, struct.pack("<i", 3072)).sign(d_ff=3072)}
        for what, file in files.items():
            with self.subTest(what=what):
                self.refused(self.imported(file.bytes()), MISMATCH, "" if "delta" in what else what, "expected", "found")
        self.refused(self.imported(PairCase.pair.memory().patch(6, b"\x63").bytes()), CORRUPTION, "kind",
                     "expected 1 to 10", "found 99")

    def test_a_memory_whose_payload_contradicts_its_manifest(self):
        self.refused(self.imported(PairCase.pair.memory().patch(8, b"\x11" * 32).bytes()), MISMATCH, "model digest",
                     "expected", "found 1111")

    def test_a_memory_with_numbers_that_are_not_finite(self):
        for name, last in (("NaN", b"\xc0\x7f"), ("infinity", b"\x80\x7f"), ("-infinity", b"\x80\xff")):
            with self.subTest(name=name):
                memory = PairCase.pair.memory()
                memory.patch(len(memory.payload) - 2, last)
                self.refused(self.imported(memory.bytes()), CORRUPTION, "tensor", "expected finite numbers", "found")

    def test_an_export_file_that_is_damaged_cut_or_of_another_format(self):
        good = PairCase.pair.export.read_bytes()
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        short = PairCase.pair.memory()
        del short.payload[-64:]
        for data, code, *words in ((bytes(flipped), CORRUPTION, "SHA-256", "expected", "found"),
                                   (good[:len(good) // 2], CORRUPTION, "expected", "found"),
                                   (good + b"x", CORRUPTION, "expected", "found"),
                                   (b"", CORRUPTION, "magic", "expected", "found"),
                                   (PairCase.pair.memory().bytes(magic=b"MSX1"), CORRUPTION, "magic", "'MSE1'"),
                                   (PairCase.pair.memory().bytes(form=2), NOT_SUPPORTED, "expected 1, found 2"),
                                   (short.bytes(), CORRUPTION, "payload", "expected", "found")):
            with self.subTest(words=words, size=len(data)):
                self.refused(self.imported(data), code, *words)
        self.refused(self.client("bank", "import", self.folder / "absent.mse"), NOT_FOUND, "absent.mse")

    def test_a_payload_damaged_on_the_disk_is_found_and_named(self):
        endpoint, bank = PairCase.pair.ipc("damaged"), self.folder / "damaged"
        client = Client(MEMSLOT, endpoint)
        controller = PairCase.pair.controller(endpoint, bank)
        client.json("bank", "import", PairCase.pair.export, "--id", "good")
        controller.stop()
        blob = max(bank.glob("*.blob"), key=lambda p: p.stat().st_size)
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
        self.addCleanup(PairCase.pair.controller(endpoint, bank).stop)
        result = client("--json", "bank", "verify")
        self.assertEqual(result.returncode, CORRUPTION)
        self.assertEqual(json.loads(result.stdout)["bad"][0]["record"], "memory/default/good@1")
        self.refused(result, CORRUPTION, "expected 0 bad payloads, found 1")
        target = self.folder / "damaged.mse"
        self.refused(client("bank", "export", "good", target), CORRUPTION, "expected", "found")
        self.assertFalse(target.exists())

    def test_another_namespaces_memory_looks_like_none(self):
        for name in ("corvandite-lora", "absent"):
            self.refused(self.client("-n", "other", "bank", "show", name), NOT_FOUND, f"other/{name}, found none")
        self.assertEqual(self.client.json("-n", "other", "bank", "ls")["memories"], [])
        there, absent = (self.client("-n", "other", "generate", PROMPT, "-m", f"default/{name}")
                         for name in ("corvandite-lora", "absentmem"))
        self.refused(there, NOT_FOUND, "found none")
        self.assertEqual(there.stderr.replace("corvandite-lora", "X"), absent.stderr.replace("absentmem", "X"))

    def test_a_client_key_for_another_namespace_sees_none(self):
        keys = {name: self.folder / f"{name}.key" for name in ("server", "owner", "stranger", "unknown")}
        public = {name: self.client.json("keygen", path)["public"] for name, path in keys.items()}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        config = self.write("controller.toml", "clients = " + json.dumps(
            [f"{public['owner']} client *", f"{public['stranger']} client other"]))
        controller = PairCase.pair.controller(endpoint, "memory:", "--key-file", keys["server"], "--config", config)
        self.addCleanup(controller.stop)
        owner, stranger, unknown = (
            Client(MEMSLOT, endpoint, "--key", keys[name], "--server-key", public["server"], "--timeout", 3)
            for name in ("owner", "stranger", "unknown"))
        for client in (owner, stranger, unknown):
            client.command = [str(word) for word in client.command]
        owner.json("bank", "import", PairCase.pair.export)
        there, absent = (stranger("bank", "show", f"default/{name}") for name in ("corvandite-lora", "absentmem"))
        self.refused(there, NOT_FOUND, "found none")
        self.assertEqual(there.stderr.replace("corvandite-lora", "X"), absent.stderr.replace("absentmem", "X"))
        self.refused(unknown("bank", "ls"), PERMISSION, endpoint, "expected", "found it refused")
        self.assertEqual(self.names(owner), ["default/corvandite-lora@1"])

    # Texts.
    def test_an_empty_source(self):
        (self.folder / "none").mkdir()
        for content in ("", " \n\t\n"):
            self.refused(self.client("learn", self.write("empty.txt", content)), INVALID, "empty.txt",
                         "expected at least one word", "found none")
        self.refused(self.client("learn", self.folder / "none"), NOT_FOUND, "*.txt", "found none")
        self.refused(self.client("learn", self.folder / "absent.txt"), NOT_FOUND, "absent.txt")
        self.refused(self.client("generate", ""), INVALID, "expected", "found")
        self.refused(self.client("score", ""), INVALID, "expected", "found")

    def test_a_learned_file_is_said_though_the_next_one_fails(self):
        result = self.client("--json", "learn", self.write("one.txt", "The ferry leaves at nine. " * 8),
                             self.folder / "absent.txt", "--kind", "lora", "--steps", "1")
        self.assertEqual(result.returncode, NOT_FOUND)
        said = json.loads(result.stdout)
        self.assertEqual([one["memory"] for one in said["learned"]], ["default/one-lora@1"])
        self.assertEqual(said["error"]["code"], "not_found")
        self.assertIn("absent.txt", said["error"]["message"])
        self.assertEqual(self.client("bank", "rm", "one-lora").returncode, 0)

    def test_a_text_that_is_not_utf8(self):
        self.refused(self.client("learn", self.write("latin.txt", b"caf\xe9 au lait")), INVALID, "latin.txt",
                     "expected UTF-8", "found")

    def test_a_text_longer_than_the_context(self):
        text = self.write("long.txt", "The cat sat on the mat. " * 2000)
        self.refused(self.client("generate", "--prompt-file", text), INVALID, "expected fewer than 8192", "found 1")
        self.refused(self.client("score", "--file", text), INVALID, "expected at most 8192", "found 1")
        for kind in ("mlp", "lora", "delta"):
            self.refused(self.client("learn", text, "--kind", kind), INVALID, "source tokens", "8192 (the context)",
                         "found 1")

    def test_token_ids_that_the_model_does_not_have(self):
        for command in ("score", "tokenize"):
            self.refused(self.client(command, "--ids", 1, 2, 999999), INVALID, "token id", "expected 0 to", "999999")

    def test_memories_and_versions_that_are_not_there(self):
        for command in (["bank", "show", "absent"], ["bank", "history", "absent"], ["bank", "rm", "absent"],
                        ["bank", "rollback", "absent", "--to", 1], ["bank", "export", "absent", self.folder / "x"],
                        ["generate", PROMPT, "-m", "absent"], ["score", PROMPT, "-m", "absent"]):
            with self.subTest(command=command):
                self.refused(self.client(*command), NOT_FOUND, "default/absent")
        self.refused(self.client("bank", "rollback", "corvandite-lora", "--to", 9), NOT_FOUND, "corvandite-lora@9")
        self.refused(self.client("generate", PROMPT, "-m", "corvandite-lora@9"), NOT_FOUND, "corvandite-lora@9")
        self.assertFalse((self.folder / "x").exists())

    # The machine.
    def test_a_quota_that_is_reached_refuses_the_memory_whole(self):
        endpoint = PairCase.pair.ipc("quota")
        self.addCleanup(PairCase.pair.controller(endpoint, self.folder / "small", "--quota-mib", 1).stop)
        client, stored = Client(MEMSLOT, endpoint), 0
        while (result := client("bank", "import", PairCase.pair.export, "--id", f"m{stored}")).returncode == 0:
            stored += 1
            self.assertLess(stored, 10)
        self.refused(result, NO_SPACE, "quota", "expected at most 1048576 bytes", "found")
        self.assertEqual(self.names(client), [f"default/m{i}@1" for i in range(stored)])
        self.assertGreater(stored, 0)
        client.json("bank", "rm", "m0")
        client.json("bank", "import", PairCase.pair.export, "--id", "again")

    def test_no_space_for_the_bank_refuses_the_memory_whole(self):
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True,
                          check=False).returncode != 0:
            self.skipTest("SKIPPED: a full disk needs the right to mount a tmpfs (run as root)")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        endpoint = PairCase.pair.ipc("full")
        client = Client(MEMSLOT, endpoint)
        controller = PairCase.pair.controller(endpoint, disk / "bank")
        self.addCleanup(controller.stop)
        client.json("bank", "import", PairCase.pair.export, "--id", "before")
        ballast = disk / "ballast"
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        self.refused(client("bank", "import", PairCase.pair.export, "--id", "after"), NO_SPACE, "expected", "found")
        self.assertEqual(self.names(client), ["default/before@1"])
        copy = self.folder / "from_a_full_disk.mse"
        client.json("bank", "export", "before", copy)
        ballast.unlink()
        client.json("bank", "import", PairCase.pair.export, "--id", "after")
        self.assertEqual(client.json("bank", "verify")["bad"], [])

    @unittest.skipUnless(os.path.exists("/dev/full"), "SKIPPED: no /dev/full")
    def test_no_space_for_an_export(self):
        self.refused(self.client("bank", "export", "corvandite-lora", "/dev/full"), NO_SPACE, "/dev/full",
                     "expected to write", "found")

    def test_a_port_that_is_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            self.refused(self.started(CONTROLLER, "--bank", self.folder / "unborn", "--endpoint", endpoint), BUSY,
                         endpoint, "expected a free endpoint", "found")
        self.refused(self.started(CONTROLLER, "--bank", self.folder / "unborn", "--endpoint", PairCase.pair.endpoint),
                     BUSY, PairCase.pair.endpoint, "found")

    def test_a_bank_that_another_process_holds(self):
        self.refused(self.started(CONTROLLER, "--bank", self.folder / "bank", "--endpoint",
                                  PairCase.pair.ipc("second")), BUSY, self.folder / "bank", "held by process")

    def test_a_restore_from_nothing_or_over_a_bank(self):
        self.refused(self.started(CONTROLLER, "--restore", self.folder / "no", "--bank", self.folder / "new"),
                     NOT_FOUND, "expected a backup", "found none")
        backup = self.folder / "again"
        self.client.json("bank", "backup", backup)
        result = self.started(CONTROLLER, "--restore", backup, "--bank", self.folder / "bank")
        self.assertNotEqual(result.returncode, 0)
        self.refused(result, result.returncode, self.folder / "bank", "expected", "found")

    def stranger(self):
        """A socket that speaks ZMTP 3.0 with the controller: greeting without security, READY as a DEALER."""
        peer = socket.socket(socket.AF_UNIX)
        self.addCleanup(peer.close)
        peer.settimeout(10)
        peer.connect(PairCase.pair.endpoint.removeprefix("ipc://"))
        peer.sendall(b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        self.assertIn(b"READY", self.received(peer, b"READY"))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        peer.sendall(b"\x04" + bytes([len(ready)]) + ready)
        return peer

    def test_a_message_of_another_protocol_version_is_answered_with_both_versions(self):
        seed = sorted((ROOT / "tests" / "fuzz" / "corpus" / "codec").glob("v*_Heartbeat"))[-1].read_bytes()
        envelope = bytearray(seed[4:4 + struct.unpack_from("<I", seed)[0]])
        # The version is the envelope's first field, for ever: found through the root's table of fields.
        root = struct.unpack_from("<I", envelope)[0]
        fields = root - struct.unpack_from("<i", envelope, root)[0]
        place = root + struct.unpack_from("<H", envelope, fields + 4)[0]
        known = struct.unpack_from("<H", envelope, place)[0]
        struct.pack_into("<H", envelope, place, known + 900)
        peer = self.stranger()
        peer.sendall(b"\x00" + bytes([len(envelope)]) + envelope)
        said = f"protocol version: expected {known}, found {known + 900}".encode()
        self.assertIn(said, self.received(peer, said))

    def test_a_message_that_is_none_is_answered_and_leaves_the_controller_at_work(self):
        with self.stranger() as peer:
            for body in (b"hello", b"", b"\xff" * 200):
                peer.sendall(b"\x00" + bytes([len(body)]) + body)
                answer = self.received(peer, b"malformed bytes")
                self.assertIn(f"expected a well-formed message, found {len(body)} malformed".encode(), answer)
            # A frame that announces 2^62 bytes ends the connection; nothing is set aside for it.
            peer.sendall(b"\x02" + struct.pack(">Q", 1 << 62))
            self.assertEqual(peer.recv(64), b"")

    def received(self, peer, end):
        """What comes, up to and with `end`."""
        data = b""
        while end not in data:
            more = peer.recv(4096)
            self.assertTrue(more, data)
            data += more
        return data
