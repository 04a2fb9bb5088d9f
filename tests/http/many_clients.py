"""Sixteen clients that stream for a while, with slow, silent and vanishing ones beside them: no error, nobody is held
up, and every text is that of a lone run with the same seed and choices.

Arguments: memslot, memslot-controller, memslot-generator, then --seconds N, --model tiny (the golden one) or
default. Exit code 77: skipped, no model. Prints one JSON object: how fast, and how evenly (docs/performance.md).

What a request wrote is compared with what it wrote before, alone, in a generator that has just been started. Where the
controller chose (`auto`), the choices differ from run to run: those generations are computed again, alone, from their
trace, every bit compared, and the trace's text with the one that came over the socket.
"""
import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import random
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback

for folder in ("cli", "support"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / folder))
import exposition  # noqa: E402
from pair import CONTROLLER, FIXTURES, GENERATOR, SOURCES, Daemon, model_path, wait_for  # noqa: E402

CLIENTS = 16
SLOW = 2  # of them
VANISHING = 3
SILENT = 2
LONGEST_PAUSE_S = 25  # of a stream: one that held up the others would do so for the 30 s after which it is dropped,
LONGEST_PAUSE = 8     # or, on a slow machine, in turns of all clients
LEAST_SHARE = 0.5     # of the turns of the client that got most
SEED = int(os.environ.get("MEMSLOT_TEST_SEED", "1"))
MEMORIES = {"corvandite-lora": {"kind": "lora", "rank": 4, "max_steps": 8, "lr": 0.02},
            "corvandite-mlp": {"kind": "mlp", "max_steps": 4},
            "ferry_chess-lora": {"kind": "lora", "rank": 4, "max_steps": 8, "lr": 0.02}}


def tiny_model(folder):
    """As tests/e2e/pair.h makes it: single bytes are the tokens, none of them ends a text."""
    made = folder / "model"
    shutil.copytree(FIXTURES / "llama_tiny_theta10000_hf", made)
    config = json.loads((made / "config.json").read_text())
    config["max_position_embeddings"] = 1024
    config.pop("eos_token_id", None)
    config.pop("bos_token_id", None)
    (made / "config.json").write_text(json.dumps(config))
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in plain]
    vocabulary = {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
    (made / "vocab.json").write_text(json.dumps(vocabulary))
    (made / "merges.txt").write_text("#version: 0.2\n")
    return made


@dataclasses.dataclass
class Ask:
    """A request to one of the two servers, and what it wrote when it ran alone (None: the controller chooses)."""
    port: int
    path: str
    body: dict
    alone: str | None = None


@dataclasses.dataclass
class Answer:
    text: str = ""
    trace: str = ""
    arrivals: list = dataclasses.field(default_factory=list)  # of its events, the request's own time first
    steps: list = dataclasses.field(default_factory=list)     # when each of them came
    memories: set = dataclasses.field(default_factory=set)    # that were active


def event_of(line):
    """(text, memory, trace) of an event of either server. Raises where it tells of an error."""
    event = json.loads(line.removeprefix(b"data: "))
    if "error" in event:
        raise RuntimeError(f"the stream ended with {event}")
    if "type" in event:  # the controller's
        text = event["text"] if event["type"] == "step" else ""
        return text, event.get("memory"), event.get("trace", "")
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content", "") for choice in event["choices"])
    memory = event.get("memory", {})
    return text, memory.get("active"), memory.get("trace", "")


class Reader:
    """A keep-alive connection that reads streams. `pause`: seconds after each 32 bytes."""

    def __init__(self, pause=0.0):
        self.pause = pause
        self.connections = {}

    def connection(self, port):
        if port not in self.connections:
            self.connections[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        return self.connections[port]

    def lines(self, reply):
        if not self.pause:
            yield from reply
            return
        rest = b""
        while piece := reply.read1(32):
            time.sleep(self.pause)
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            raise RuntimeError(f"the stream ended within an event: {rest!r}")

    def stream(self, ask):
        out = Answer(arrivals=[time.monotonic()])
        connection = self.connection(ask.port)
        connection.request("POST", ask.path, json.dumps(ask.body))
        reply = connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"status {reply.status}: {reply.read().decode(errors='replace')}")
        ended = False
        for line in self.lines(reply):
            line = line.strip()
            ended = ended or line == b"data: [DONE]" or b'"type":"done"' in line
            if not line or line == b"data: [DONE]":
                continue
            out.arrivals.append(time.monotonic())
            text, memory, trace = event_of(line)
            out.text += text
            out.trace = trace or out.trace
            if memory:
                out.steps.append(out.arrivals[-1])
                out.memories.add(memory)
        if not ended:
            raise RuntimeError(f"the stream broke off after {len(out.arrivals) - 1} events")
        return out

    def close(self):
        for connection in self.connections.values():
            connection.close()


class Scene:
    """The pair, what is asked of it, and what came of it."""

    def __init__(self, model, seconds):
        self.seconds = seconds
        self.tiny = model is None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="memslot-clients-"))
        self.daemons = []
        self.random = random.Random(SEED)
        self.model = tiny_model(self.folder) if self.tiny else model
        self.texts = [(SOURCES / f"{name}.txt").read_text() for name in ("corvandite", "ferry_chess")]
        self.faults = []
        self.lock = threading.Lock()  # guards `answers` and `faults`
        self.answers = []  # (number of the client, Ask, Answer)

    def start(self):
        endpoint = f"ipc://{self.folder}/link.sock"
        self.daemons.append(Daemon(CONTROLLER, ["--bank", self.folder / "bank", "--endpoint", endpoint,
                                                "--http", "127.0.0.1:0"], self.folder / "controller.log"))
        self.controller = int(self.daemons[0].text().split("http=http://127.0.0.1:")[1].split("/")[0])
        options = ["--model", self.model, "--threads", 2, "--endpoint", endpoint, "--http", "127.0.0.1:0",
                   "--max-sessions", CLIENTS + VANISHING + SILENT]
        self.daemons.append(Daemon(GENERATOR, options, self.folder / "generator.log"))
        self.generator = int(self.daemons[1].text().split("http=127.0.0.1:")[1].split()[0])
        wait_for(lambda: self.ask("GET", self.generator, "/readyz")[0] == 200)
        wait_for(lambda: self.ask("POST", self.controller, "/api/v1/tokenize", {"text": "a"})[0] == 200)

    def stop(self):
        for daemon in reversed(self.daemons):
            code = daemon.stop()
            if code != 0:
                self.faults.append(f"{daemon.log.name}: exit code {code}: {daemon.text()[-2000:]}")
        shutil.rmtree(self.folder)

    def ask(self, method, port, path, body=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def api(self, method, path, body=None):
        status, said = self.ask(method, self.controller, "/api/v1" + path, body)
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {said}")
        return json.loads(said)

    def learn(self):
        for name, config in MEMORIES.items():
            source = name.split("-", maxsplit=1)[0]
            job = self.api("POST", "/learn", {"text": (SOURCES / f"{source}.txt").read_text()[:700], "source": source,
                                              "id": name, "config": config})["job"]
            wait_for(lambda job=job: self.api("GET", f"/jobs/{job}")["job"]["state"] not in ("queued", "leased"))
        found = {row["id"] for row in self.api("GET", "/memories")["memories"]}
        if found != set(MEMORIES):
            raise RuntimeError(f"expected the memories {sorted(MEMORIES)}, found {sorted(found)}")

    # --- what is asked ---------------------------------------------------------------------------------

    def prompt(self, draw):
        text = draw.choice(self.texts)
        begin = draw.randrange(0, 400)
        return text[begin:begin + draw.choice((12, 60, 180))]

    def settings(self, draw):
        return {"max_tokens": draw.choice((8, 24, 40)), "temperature": draw.choice((0, 0.7, 1.3)),
                "top_p": draw.choice((1, 0.9)), "seed": draw.randrange(1 << 30)}

    def fixed(self, draw):
        """A request whose memories are known beforehand."""
        names = ("base", *MEMORIES, "corvandite-lora@1")
        body = self.settings(draw)
        kind = draw.choice(("completion", "chat", "task"))
        if kind == "task":
            body |= {"prompt": self.prompt(draw), "kv": draw.choice(("activated", "recompute"))}
            if draw.random() < 0.5:
                body["schedule"] = [{"step": step, "memory": draw.choice(names)} for step in (1, 2)]
                body["step_tokens"] = draw.choice((4, 8))
            else:
                body["memory"] = draw.choice(names)
            return Ask(self.controller, "/api/v1/generate", body)
        body |= {"stream": True, "memory": draw.choice(names)}
        if kind == "chat" and not self.tiny:  # which has no template
            body["messages"] = [{"role": "user", "content": self.prompt(draw)}]
            return Ask(self.generator, "/v1/chat/completions", body)
        body["prompt"] = self.prompt(draw)
        if draw.random() < 0.3:
            body["logprobs"] = draw.choice((0, 5))
        return Ask(self.generator, "/v1/completions", body)

    def chosen(self, draw):
        """A request whose memories the controller chooses."""
        body = self.settings(draw) | {"prompt": self.prompt(draw)}
        if draw.random() < 0.5:
            return Ask(self.generator, "/v1/completions", body | {"stream": True, "memory": "auto"})
        return Ask(self.controller, "/api/v1/generate", body | {
            "memory": "auto", "kv": draw.choice(("activated", "recompute")), "select": draw.choice(("sync", "async")),
            "policy": draw.choice(("random", "nearest", "nearest:-1"))})

    def run_alone(self, count):
        """`count` requests and, of each, what it writes when nobody else asks."""
        reader = Reader()
        self.asks = [self.fixed(self.random) for _ in range(count)]
        before, began = self.tokens_written(), time.monotonic()
        for ask in self.asks:
            ask.alone = reader.stream(ask).text
        self.rate_alone = (self.tokens_written() - before) / (time.monotonic() - began)
        reader.close()

    # --- those who ask ---------------------------------------------------------------------------------

    def fault(self, who):
        with self.lock:
            self.faults.append(f"{who}: {traceback.format_exc()}")

    def client(self, number, end):
        """Asks, reads to the end, and asks again."""
        draw = random.Random(f"{SEED} {number}")
        slow = number < SLOW
        reader = Reader(pause=0.02 if slow else 0)
        try:
            while time.monotonic() < end:
                ask = draw.choice(self.asks) if draw.random() < 0.6 else self.chosen(draw)
                answer = reader.stream(ask)
                with self.lock:
                    self.answers.append((number, ask, answer))
        except Exception:  # pylint: disable=broad-except
            self.fault(f"client {number}{' (slow)' if slow else ''} {json.dumps(ask.body)}")
        reader.close()

    def request_bytes(self, draw, tokens):
        body = json.dumps({"prompt": self.prompt(draw), "max_tokens": tokens, "temperature": 1, "stream": True,
                           "logprobs": 20, "memory": draw.choice(("auto", "base", *MEMORIES))}).encode()
        return b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def vanish(self, number, end):
        """Asks for much, and leaves: before it has asked, before an answer, or in the midst of one."""
        draw = random.Random(f"{SEED} vanishing {number}")
        try:
            while time.monotonic() < end:
                sock = socket.create_connection(("127.0.0.1", self.generator), timeout=60)
                data = self.request_bytes(draw, 300)
                how = draw.randrange(4)
                sock.sendall(data if how else data[:len(data) // 2])
                if how >= 2:
                    sock.recv(4096)
                if how == 3:  # a reset, with data unread
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                time.sleep(draw.random() * 0.2)
        except Exception:  # pylint: disable=broad-except
            self.fault(f"vanishing client {number}")

    def silent(self):
        """Clients that never read: one asks for a long stream, one for so many pages that the kernel, which takes some
        MB, holds no more of them and the server has to wait for it."""
        pages = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
        out = []
        for data in (self.request_bytes(self.random, 900), pages):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", self.generator))
            sock.sendall(data)
            out.append(sock)
        return out

    def load(self):
        began = time.monotonic()
        end = began + self.seconds
        silent = self.silent()
        threads = [threading.Thread(target=self.client, args=(i, end)) for i in range(CLIENTS)]
        threads += [threading.Thread(target=self.vanish, args=(i, end)) for i in range(VANISHING)]
        before = self.tokens_written()
        for thread in threads:
            thread.start()
        time.sleep(max(0, end - time.monotonic()))
        self.rate = (self.tokens_written() - before) / (time.monotonic() - began)
        for thread in threads:
            thread.join()
        self.window = (began, end)
        # Everybody who left, and the one who never read, has given the place back.
        wait_for(lambda: self.sessions() == 0)
        for sock in silent:
            sock.close()

    def tokens_written(self):
        status, page = self.ask("GET", self.generator, "/metrics")
        if status != 200:
            raise RuntimeError(f"/metrics: {status}")
        return exposition.Page(page)("memslot_generator_token_seconds_count")

    def sessions(self):
        status, page = self.ask("GET", self.generator, "/metrics")
        page = exposition.Page(page)
        return page("memslot_generator_sessions", state="running") + page("memslot_generator_sessions", state="waiting")

    # --- what came of it -------------------------------------------------------------------------------

    def compare(self):
        for number, ask, answer in self.answers:
            said = f"client {number} {ask.path} {json.dumps(ask.body)}"
            if ask.alone is not None and answer.text != ask.alone:
                self.faults.append(f"{said}: expected, as alone, {ask.alone!r}, found {answer.text!r}")
            if ask.alone is None:
                self.compare_with_replay(said, answer)

    def compare_with_replay(self, said, answer):
        show = f"/traces/{answer.trace}?candidates=false&steps=128"
        wait_for(lambda: self.api("GET", show)["ended"])
        recorded = "".join(step["text"] for step in self.api("GET", show)["shown"])
        if recorded != answer.text:
            self.faults.append(f"{said}: the trace {answer.trace} has {recorded!r}, the client {answer.text!r}")
        replayed = self.api("POST", f"/traces/{answer.trace}/replay", {})
        if not replayed["identical"]:
            self.faults.append(f"{said}: alone it is another: {replayed}")

    def report(self):
        began, end = self.window
        turns = {number: 0 for number in range(CLIENTS)}  # steps, and the reading of the prompts before them
        pauses, firsts = [], []
        for number, _, answer in self.answers:
            turns[number] += sum(began <= at <= end for at in answer.steps[:1] + answer.steps)
            if number >= SLOW:
                pauses += [b - a for a, b in zip(answer.arrivals, answer.arrivals[1:])]
                firsts.append(answer.arrivals[1] - answer.arrivals[0])
        prompt = [count for number, count in turns.items() if number >= SLOW]
        self.expect(min(turns.values()) > 0, f"every client is served, found turns {turns}")
        longest = min(28, max(LONGEST_PAUSE_S, LONGEST_PAUSE * CLIENTS * (end - began) / sum(turns.values())))
        self.expect(max(pauses) < longest, f"no pause of {longest:.1f} s, found {max(pauses):.1f}")
        # A client may have lost a turn or two by the draw of its requests alone.
        self.expect(min(prompt) + 2 >= LEAST_SHARE * max(prompt), f"even shares, found turns {turns}")
        chosen = [answer for _, ask, answer in self.answers if ask.alone is None]
        memories = set().union(*(one.memories for one in chosen))
        self.expect(len(memories) > 2, f"the controller to choose several memories, found {memories}")
        return {"clients": CLIENTS, "seconds": self.seconds, "model": pathlib.Path(self.model).name,
                "streams": len(self.answers), "chosen_and_replayed": len(chosen),
                "tokens_per_s": round(self.rate, 1), "tokens_per_s_alone": round(self.rate_alone, 1),
                "turns_of_each_client": list(turns.values()),
                "slowest_of_fastest": round(min(prompt) / max(prompt), 3),
                "first_event_s": {"median": round(sorted(firsts)[len(firsts) // 2], 3), "max": round(max(firsts), 3)},
                "longest_pause_s": round(max(pauses), 3), "faults": len(self.faults)}

    def expect(self, holds, what):
        if not holds:
            self.faults.append(f"expected {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--model", choices=("tiny", "default"), default="tiny")
    options = parser.parse_args()
    model = model_path() if options.model == "default" else None
    if model and not os.path.exists(model):
        print(f"SKIPPED FOR WANT OF THE MODEL: no file {model} (set MEMSLOT_MODEL)")
        return 77
    scene = Scene(model, options.seconds)
    try:
        scene.start()
        scene.learn()
        scene.run_alone(count=40)
        scene.load()
        scene.compare()
        print(json.dumps(scene.report(), indent=1))
    finally:
        scene.stop()
    for fault in scene.faults[:10]:
        print(fault, file=sys.stderr)
    return 1 if scene.faults else 0


if __name__ == "__main__":
    sys.exit(main())
